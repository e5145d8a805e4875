"""One output on its way through faults, and the laws that hold at every step of it."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from batch.errors import BatchError
from batch.verify import verify

from ..counting import Asked, Counting, answer_to

LONGEST = 90.0
"""Seconds after which a run counts as hanging."""

HUNG = 124
"""The code of such a run, as `timeout` has it."""

FINISHED = frozenset({0})
NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Arena:
    """What all stories share.

    Attributes:
        root: Where the package under test lies: the project, or a copy of it with a planted bug.
        folder: Scratch.
    """

    root: Path
    folder: Path
    server: Counting
    seed: int

    def rng(self, *words: object) -> random.Random:
        """Randomness that only the seed and these words decide."""
        return random.Random(f"{self.seed} {words}")


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over.

    Attributes:
        code: Its exit code, negative for a signal that nobody caught.
        summary: Its JSON line; empty when it had no time for one.
        asked: The requests that reached the server meanwhile.
    """

    code: int
    summary: dict[str, Any]
    err: str
    asked: list[Asked]


@dataclass(frozen=True, slots=True)
class Try:
    """What one fault did.

    Attributes:
        lost: Answers that were durable and are not, or rows that ended without their own answer.
        again: Requests sent a second time because of it.
        broken: The laws it broke, in words.
    """

    code: int
    lost: int = 0
    again: int = 0
    broken: tuple[str, ...] = ()


@dataclass(slots=True)
class Journal:
    """A journal read as simply as can be.

    Attributes:
        answers: Prompt to the text of its answer.
        named: The numbers of rows that runs named as possibly charged twice.
        damaged: Whether a bad line stands before a good one.
    """

    answers: dict[str, str] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    damaged: bool = False


def read_journal(path: Path) -> Journal:
    """Every line with the right checksum up to the first without."""
    journal = Journal()
    content = path.read_bytes() if path.exists() else b""
    bad = False
    for line in content.splitlines(keepends=True):
        match = re.fullmatch(rb'(\{.*),"crc":"([0-9a-f]{8})"\}\n', line, re.DOTALL)
        if not match or crc32(match[1]) != int(match[2], 16):
            bad = True
            continue
        if bad:
            journal.damaged = True
            break
        members = json.loads(line)
        if "run" in members:
            journal.named.update(number for _, number in members["run"]["possibly_charged"])
        elif members.get("ok"):
            text = members["body"]["choices"][0]["message"]["content"]
            journal.answers.setdefault(text.rpartition(" ~ ")[0], text)
    return journal


class Story:
    """Rows, an output, and the runs that work on it.

    Args:
        arena: Server and package.
        name: Unlike any other story's.
        rows: How many.
        concurrency: Requests in flight at most.
        wait: Milliseconds an answer takes on average.
        folder: Where output and journal go; the input stays out of it.
        marks_survive: Whether the marks of what is in flight outlive the fault (not a power cut).
    """

    def __init__(
        self,
        arena: Arena,
        name: str,
        rows: int,
        *,
        concurrency: int = 16,
        wait: int = 10,
        folder: Path | None = None,
        marks_survive: bool = True,
    ) -> None:
        self.arena = arena
        self.name = name
        self.concurrency = concurrency
        self.wait = wait
        self.home = arena.folder / name
        self.home.mkdir(parents=True)
        self.input = self.home / "in.csv"
        self.folder = folder or self.home
        self.marks_survive = marks_survive
        self.prompts = [f"{name} row {number:05}" for number in range(rows)]
        self.input.write_text("id,prompt\n" + "".join(f"{at:05},{prompt}\n" for at, prompt in enumerate(self.prompts)))
        self.seen = 0
        self.durable: dict[str, str] = {}
        self.faults = 0

    @property
    def output(self) -> Path:
        """Where the answers go."""
        return self.folder / "out.csv"

    @property
    def journal(self) -> Path:
        """Where they are kept."""
        return self.folder / "out.csv.journal"

    # Runs

    def command(self) -> list[str]:
        """The command, always the same."""
        model = f"wait-{self.wait}"
        options = ["--concurrency", str(self.concurrency), "--model", model, "--quiet", "--max-outage", "20"]
        return [sys.executable, "-m", "batch", "run", str(self.input), "-o", str(self.output), *options]

    def start(self, before: Sequence[str] = (), prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        """Start a run.

        Args:
            before: Words in front of the command, such as strace's.
            prepare: Called in the new process before it becomes the command.
        """
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(self.arena.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONFAULTHANDLER": "1",
            **self.arena.server.environment(self.name),
        }
        return subprocess.Popen(
            [*before, *self.command()],
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
        )

    def asked(self) -> list[Asked]:
        """The requests since the last run that was looked at."""
        return self.arena.server.asked(self.name, self.seen)

    def until_asked(self, run: subprocess.Popen[str], count: int) -> bool:
        """Wait until so many requests of this run have reached the server; False when it ended before."""
        log = self.arena.server.folder / f"{self.name}.log"
        end = time.monotonic() + LONGEST
        while run.poll() is None and time.monotonic() < end:
            if log.exists() and log.read_bytes().count(b"\n") - self.seen >= count:
                return True
            time.sleep(0.002)
        return False

    def end(self, run: subprocess.Popen[str]) -> Ended:
        """Wait until a run is over."""
        hung = threading.Event()

        def abort() -> None:
            hung.set()
            run.send_signal(signal.SIGABRT)  # with PYTHONFAULTHANDLER it says where it hangs

        late = [threading.Timer(LONGEST, abort), threading.Timer(LONGEST + 5, run.kill)]
        for timer in late:
            timer.start()
        out, err = run.communicate()
        for timer in late:
            timer.cancel()
        self.arena.server.settle()
        summary: dict[str, Any] = next((json.loads(line) for line in out.splitlines() if line.startswith("{")), {})
        return Ended(HUNG if hung.is_set() else run.returncode, summary, err.strip(), self.asked())

    # Laws

    def judge(
        self, ended: Ended, codes: frozenset[int], *, in_flight: int | None = None, forgotten: frozenset[str] = NONE
    ) -> Try:
        """Hold one run against the laws.

        Args:
            ended: The run.
            codes: The exit codes it may have.
            in_flight: How many rows it may have sent in vain; the concurrency by default.
            forgotten: Answers that the fault itself took out of the journal.
        """
        self.faults += 1
        journal = read_journal(self.journal)
        before = {prompt: text for prompt, text in self.durable.items() if prompt not in forgotten}
        broken = []
        if ended.code not in codes:
            most = 4_000 if ended.code == HUNG else 300
            broken.append(f"exit code {ended.code} instead of {sorted(codes)}: {ended.err[-most:]}")
        if journal.damaged:
            broken.append("a bad line stands before a good one in the journal")
        gone = [prompt for prompt, text in before.items() if journal.answers.get(prompt) != text]
        if gone:
            broken.append(f"{len(gone)} durable answers are gone from the journal, such as that of {gone[0]!r}")
        twice = [one.prompt for one in ended.asked if one.prompt in before]
        if twice:
            broken.append(f"{len(twice)} rows with a durable answer were asked again, such as {twice[0]!r}")
        counts = Counter(one.prompt for one in ended.asked)
        if repeated := [prompt for prompt, count in counts.items() if count > 1]:
            broken.append(f"one run asked {len(repeated)} rows more than once, such as {repeated[0]!r}")
        vain = [prompt for prompt in counts if prompt not in journal.answers]
        most = self.concurrency if in_flight is None else in_flight
        if len(vain) > most:
            broken.append(f"{len(vain)} rows were sent and not kept, at most {most} may be")
        if foreign := [one.prompt for one in ended.asked if one.body["model"] != f"wait-{self.wait}"]:
            broken.append(f"{foreign[0]!r} was sent with another model")
        right = {one.prompt: answer_to(one.body) for one in ended.asked}
        wrong = [prompt for prompt, text in right.items() if journal.answers.get(prompt, text) != text]
        if wrong:
            broken.append(f"{len(wrong)} rows have another row's answer in the journal, such as {wrong[0]!r}")
        if (counted := ended.summary.get("ok", 0)) > len(journal.answers):
            broken.append(f"{counted} rows were counted as answered, the journal holds {len(journal.answers)}")
        broken += self._output_is_whole()
        self.durable = journal.answers
        self.seen += len(ended.asked)
        return Try(ended.code, len({*gone, *twice, *wrong}), len(vain), tuple(broken))

    def finish(self, codes: frozenset[int] = FINISHED) -> Try:
        """Run once more without any fault, to the end, and look at everything."""
        ended = self.end(self.start())
        result = self.judge(ended, codes, in_flight=0)
        self.faults -= 1
        broken = list(result.broken)
        rows = self._rows()
        texts = {one.prompt: answer_to(one.body) for one in self.arena.server.asked(self.name)}
        written = [(row["id"], row["prompt"], row["response"]) for row in rows]
        wanted = [(f"{at:05}", prompt, texts.get(prompt)) for at, prompt in enumerate(self.prompts)]
        wrong = [right[1] for at, right in enumerate(wanted) if written[at : at + 1] != [right]]
        if wrong:
            broken.append(f"{len(wrong)} rows of the output are not what was asked for, such as {wrong[0]!r}")
        if len(rows) != len(self.prompts):
            broken.append(f"the output has {len(rows)} rows for {len(self.prompts)}")
        broken += self._proven() + self._named()
        return Try(ended.code, result.lost + len(wrong), result.again, tuple(broken))

    def _rows(self) -> list[dict[str, str]]:
        if not self.output.exists():
            return []
        with self.output.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _output_is_whole(self) -> list[str]:
        if not self.output.exists():
            return []
        rows = self._rows()
        if [row["prompt"] for row in rows] != self.prompts:
            return [f"a part of an output was left: {len(rows)} rows"]
        unanswered = ("pending", "internal")
        odd = [row for row in rows if not row["response"].startswith(row["prompt"]) and row["error_kind"] not in unanswered]
        return [f"the output has a wrong row: {odd[0]}"] if odd else []

    def _proven(self) -> list[str]:
        try:
            verdict = verify(str(self.input), str(self.output))
        except BatchError as error:
            return [f"verify cannot check it: {error}"]
        return [f"verify: {verdict.first}"] if verdict.exit_code else []

    def _named(self) -> list[str]:
        """Every row that was sent twice must have been named as possibly charged twice."""
        counts = Counter(one.prompt for one in self.arena.server.asked(self.name))
        again = {prompt for prompt, count in counts.items() if count > 1}
        named = {self.prompts[number] for number in read_journal(self.journal).named}
        broken = []
        if self.marks_survive and again - named:
            broken.append(f"{len(again - named)} rows were sent twice and not named, such as {min(again - named)!r}")
        if len(named) > self.concurrency * max(1, self.faults):
            broken.append(f"{len(named)} rows were named as possibly charged twice after {self.faults} faults")
        return broken


def limits(**values: int) -> Callable[[], None]:
    """A `prepare` that sets resource limits, such as ``limits(FSIZE=8192)``."""

    def prepare() -> None:
        for name, value in values.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    return prepare
