"""The same command goes on: only what is missing is sent, whatever was edited, cut or killed, and the output fits the input."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batch
from batch.journal.repair import repair
from batch.judge import Stop
from batch.tally import Snapshot
from batch.verify import verify

from .conftest import Command
from .counting import Counting, answer_to
from .torture.story import Arena, Story

ROOT = Path(__file__).parent.parent
PASSING = ("attempts", "latency_s")
"""What may differ between a run and an undisturbed one."""


@pytest.fixture
def arena(server: Counting, tmp_path: Path) -> Arena:
    return Arena(ROOT, tmp_path, server, random.randrange(10_000))


def write(prompts: list[str]) -> None:
    with Path("in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "prompt"), *enumerate(prompts)])


def run(stop: Stop | None = None, **options: Any) -> batch.Summary:
    return batch.run(batch.Job(input="in.csv", output="out.csv", concurrency=4, **options), stop=stop)


def output(path: str = "out.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name not in PASSING} for row in rows]


def test_only_what_is_new_or_different_is_sent(folder: Path, server: Counting) -> None:
    prompts = [f"say {number}" for number in range(12)]

    def requests(**options: Any) -> int:
        write(prompts)
        before = len(server.asked(folder.name))
        summary = run(**options)
        assert (summary.exit_code, summary.rows, summary.ok) == (0, len(prompts), len(prompts))
        assert verify("in.csv", "out.csv").exit_code == 0
        assert [row["response"].rpartition(" ~ ")[0] for row in output()] == prompts
        assert summary.requests == len(server.asked(folder.name)) - before
        return summary.requests

    assert requests() == 12
    assert requests() == 0
    prompts = ["a new one", *reversed(prompts)]
    assert requests() == 1
    prompts[5] = "an edited one"
    assert requests() == 1
    prompts += [prompts[3]] * 2
    assert requests() == 2
    prompts = prompts[2:9]
    assert requests() == 0
    assert requests(parameters={"temperature": 0.9}) == len(prompts)
    assert requests() == 0


def test_fresh_forgets_everything(folder: Path) -> None:
    write(["one", "two"])
    assert (run().requests, run().requests, run(fresh=True).requests) == (2, 0, 2)


def test_without_its_journal_nothing_is_known(folder: Path) -> None:
    write(["one", "two"])
    run()
    Path("out.csv.journal").unlink()
    assert run().requests == 2


def test_what_repair_could_not_save_is_asked_again(folder: Path) -> None:
    write(["one", "two", "three"])
    run()
    journal = Path("out.csv.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    (second,) = (at for at, line in enumerate(lines) if b"say two" in line or b"two ~" in line)
    lines[second] = lines[second].replace(b"two", b"tvo")
    journal.write_bytes(b"".join(lines))
    assert len(repair(journal, at=0.0).damage) == 1
    assert run().requests == 1
    assert verify("in.csv", "out.csv").exit_code == 0


def test_refused_rows_are_asked_again_only_when_told(folder: Path) -> None:
    write(["one", "refuse two"])
    assert [run().requests, run().requests, run(retry_failed=True).requests] == [2, 0, 1]


def test_two_inputs_share_what_they_have_in_common(folder: Path) -> None:
    write(["one", "two", "two"])
    assert run().requests == 3
    write(["two", "three", "one"])
    assert run().requests == 1
    write(["one", "two", "two"])
    assert run().requests == 0


@pytest.mark.parametrize("tail", [b'{"k":"00', bytes(700), b"noise \xff\n", b'{"k":"00","crc":"00000000"}\n'])
def test_a_torn_tail_costs_nothing(folder: Path, tail: bytes) -> None:
    write([f"say {number}" for number in range(20)])
    run()
    whole = output()
    with Path("out.csv.journal").open("ab") as file:
        file.write(tail)
    Path("out.csv").unlink()
    assert run().requests == 0
    assert output() == whole
    write([f"say {number}" for number in range(21)])
    assert run().requests == 1
    assert run().requests == 0
    assert verify("in.csv", "out.csv").exit_code == 0


def test_kills_lose_nothing_and_send_at_most_what_was_in_flight(arena: Arena) -> None:
    story = Story(arena, "killed", 120, concurrency=8, wait=30)
    rng = random.Random(arena.seed)
    for _ in range(5):
        killed = story.start()
        story.until_asked(killed, rng.randrange(1, 24))
        killed.kill()
        result = story.judge(story.end(killed), frozenset({-signal.SIGKILL, 0}))
        assert result.broken == (), arena.seed
    assert story.finish().broken == (), arena.seed


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_leaves_pending_rows(arena: Arena, signum: signal.Signals) -> None:
    story = Story(arena, f"drained-{signum}", 200, concurrency=8, wait=20)
    going = story.start()
    story.until_asked(going, 10)
    going.send_signal(signum)
    ended = story.end(going)
    assert story.judge(ended, frozenset({128 + signum}), in_flight=0).broken == ()
    with story.output.open(newline="") as file:
        kinds = Counter(row["error_kind"] for row in csv.DictReader(file))
    assert kinds == {"": len(ended.asked), "pending": 200 - len(ended.asked)}
    assert (ended.summary["ok"], ended.summary["pending"]) == (kinds[""], kinds["pending"])
    assert story.finish().broken == ()


def test_a_run_that_cannot_read_on_calls_no_known_row_pending(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.trip.AFTER_SIGNAL", 0.0)
    rows = b"".join(b'{"prompt": "say %d"}\n' % number for number in range(5))
    os.mkfifo("pipe.jsonl")
    stop, over = Stop(), threading.Event()

    def feed(*, whole: bool) -> None:
        with Path("pipe.jsonl").open("wb") as pipe:
            pipe.write(rows)
            pipe.flush()
            if not whole:
                over.wait(60)

    def go(*, whole: bool) -> batch.Summary:
        feeding = threading.Thread(target=feed, kwargs={"whole": whole})
        feeding.start()

        def watch(now: Snapshot) -> None:
            if not whole and now.cached == 5:
                stop.interrupt(signal.SIGTERM)

        try:
            return batch.run(batch.Job(input="pipe.jsonl", output="out.jsonl"), stop=stop, watch=watch)
        finally:
            over.set()
            feeding.join()

    assert go(whole=True).ok == 5
    over.clear()
    interrupted = go(whole=False)
    assert (interrupted.exit_code, interrupted.cached, interrupted.ok, interrupted.pending) == (143, 5, 5, 0)


def test_a_second_run_leaves_at_once(folder: Path, server: Counting, cli: Command) -> None:
    write([f"say {number}" for number in range(12)])
    command = ["run", "in.csv", "-o", "out.csv", "--concurrency", "2", "--model", "wait-400"]
    environment = {"PATH": os.environ["PATH"], **server.environment(folder.name)}
    first = subprocess.Popen([sys.executable, "-m", "batch", *command], env=environment, stdout=subprocess.DEVNULL)
    while not server.asked(folder.name):
        assert first.poll() is None
    second = cli(*command, env=environment)
    assert (second.code, second.out) == (75, "")
    assert str(first.pid) in second.err
    assert first.wait() == 0
    assert len(server.asked(folder.name)) == 12


# The law: whatever happened before, the output is what one undisturbed run over the last input would have given.

PROMPTS = st.sampled_from(["", "refuse me", *(f"say {number}" for number in range(6))])
PLACE = st.integers(0, 20)
STEPS = st.one_of(
    st.tuples(st.just("insert"), PLACE, PROMPTS),
    st.tuples(st.just("edit"), PLACE, PROMPTS),
    st.tuples(st.just("remove"), PLACE, st.none()),
    st.tuples(st.just("reverse"), st.none(), st.none()),
    st.tuples(st.just("temperature"), st.sampled_from([0.6, 0.9]), st.none()),
    st.tuples(st.just("run"), st.none(), st.none()),
    st.tuples(st.just("run in part"), st.integers(1, 8), st.none()),
    st.tuples(st.just("interrupt"), st.floats(0, 0.05), st.none()),
    st.tuples(st.just("cut"), st.floats(0, 1), st.none()),
    st.tuples(st.just("tear"), st.binary(min_size=1, max_size=40), st.none()),
)


class Life:
    """A file of prompts, what happens to it, and what was sent."""

    def __init__(self, server: Counting, prompts: list[str]) -> None:
        self.server = server
        self.prompts = prompts
        self.temperature = 0.6
        self.certain = True

    def step(self, what: str, one: Any, other: Any) -> None:
        prompts, place = self.prompts, one if isinstance(one, int) else 0
        match what:
            case "insert":
                prompts.insert(place, other)
            case "edit" if prompts:
                prompts[place % len(prompts)] = other
            case "remove" if prompts:
                prompts.pop(place % len(prompts))
            case "reverse":
                prompts.reverse()
            case "temperature":
                self.temperature = one
            case "run":
                self.run()
            case "run in part":
                self.run(limit=one)
            case "interrupt":
                self.interrupt(one)
            case "cut" if Path("out.csv.journal").exists():
                # An output is written once its journal is durable, so what takes the one takes the other.
                Path("out.csv").unlink(missing_ok=True)
                content = Path("out.csv.journal").read_bytes()
                header = content.index(b"\n") + 1
                Path("out.csv.journal").write_bytes(content[: max(header, int(len(content) * one))])
                self.certain = False
            case "tear" if Path("out.csv.journal").exists():
                with Path("out.csv.journal").open("ab") as journal:
                    journal.write(one.replace(b"\n", b""))

    def run(self, **options: Any) -> None:
        write(self.prompts)
        known = Counter((asked.prompt, asked.body["temperature"]) for asked in self.asked())
        wanted = Counter((prompt, self.temperature) for prompt in self.prompts[: options.get("limit")] if prompt)
        summary = run(parameters={"temperature": self.temperature}, **options)
        if self.certain:
            assert summary.requests == (wanted - known).total(), "something was sent twice, or not at all"
        verdict = verify("in.csv", "out.csv")
        assert verdict.first is None
        assert verdict.pending == 0

    def interrupt(self, after: float) -> None:
        write(self.prompts)
        stop = Stop()
        timer = threading.Timer(after, stop.interrupt, [signal.SIGTERM])
        timer.start()
        try:
            run(stop, parameters={"temperature": self.temperature})
        finally:
            timer.join()

    def asked(self) -> list[Any]:
        return self.server.asked(os.environ["AILS_API_KEY"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(prompts=st.lists(PROMPTS, min_size=1, max_size=12), steps=st.lists(STEPS, max_size=8))
def test_the_output_is_what_one_undisturbed_run_would_give(
    folder: Path, server: Counting, prompts: list[str], steps: list[tuple[str, Any, Any]]
) -> None:
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
    os.environ["AILS_API_KEY"] = f"life-{uuid4()}"
    life = Life(server, list(prompts))
    for step in steps:
        life.step(*step)
    life.run()
    asked = {asked.prompt: answer_to(asked.body) for asked in life.asked() if asked.body["temperature"] == life.temperature}
    rows = output()
    assert [row["prompt"] for row in rows] == life.prompts
    for row in rows:
        if row["error_kind"]:
            assert row["error_kind"] == ("input" if not row["prompt"] else "refused")
        else:
            assert row["response"] == asked[row["prompt"]]
    (folder / "undisturbed").mkdir()
    batch.run(batch.Job(input="in.csv", output="undisturbed/out.csv", parameters={"temperature": life.temperature}))
    assert rows == output("undisturbed/out.csv")
