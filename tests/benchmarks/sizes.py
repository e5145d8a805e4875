"""What grows with the input and what must not: start-up, the first request, memory, and going on with a finished run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from . import Missing, environments, ours
from .contestants import BY_NAME, FLOOR, PEERS, PROJECT, Contestant, Trip
from .measure import Measured, Process, environment, run
from .results import Record, record
from .rows import cache, rows
from .target import Target, free_ports
from .throughput import answers

Say = Callable[[Record], None]
Choice = Callable[[Contestant], bool]
HERE = Path(__file__).parent
LARGEST = 10_000_000

IMPORTS = {
    "flexllm": "flexllm",
    "saturate": "saturate",
    "async-batch-llm": "async_batch_llm",
    "openai": "openai",
    "llm-batch-runner": "llm_batch_runner",
    "curator": "bespokelabs.curator",
    "litellm": "litellm",
}


def start(folder: Path, rounds: int, quick: bool, chosen: Choice, say: Say) -> list[Record]:
    """`--help` and the import of the library, beside a bare python, click alone, and the imports of the peers."""
    python = environments.ours()
    commands = {
        "python": ("floor", [str(python), "-c", "pass"]),
        "click": ("floor", [str(python), "-c", "import click"]),
        "ails-batch --help": ("ours", [str(python.with_name("ails-batch")), "--help"]),
        "ails-batch run --help": ("ours", [str(python.with_name("ails-batch")), "run", "--help"]),
        "import batch": ("ours", [str(python), "-c", "import batch"]),
    }
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1", "CURATOR_CACHE_DIR": str(folder / "curator")}
    for peer in filter(chosen, PEERS):
        commands[f"import {peer.name}"] = ("peer", [str(peer.ready()), "-c", f"import {IMPORTS[peer.name]}"])
    records: list[Record] = []
    folder.mkdir(parents=True, exist_ok=True)
    for command in (command for _, command in commands.values()):  # once, so that every file is in the page cache
        run(command, environment(), folder, folder / "log.txt")
    for turn in range(3 * rounds if quick else 10 * rounds):
        for name, (kind, command) in commands.items():
            if kind == "peer" and turn >= rounds:
                continue
            measured = run(command, environment(**offline), folder, folder / "log.txt")
            records.append(record("start", name, kind, turn, 0, measured, ok=measured.code == 0))
    for name in commands:
        say(next(told for told in reversed(records) if told["contestant"] == name))
    return records


def first(folder: Path, rounds: int, quick: bool, chosen: Choice, say: Say) -> list[Record]:
    """Seconds from the process's start to the first request at the server, and the peak three seconds later, at the end."""
    entries = [(PROJECT, "jsonl"), (PROJECT, "csv"), (BY_NAME[FLOOR], "jsonl"), *((peer, "jsonl") for peer in PEERS)]
    records: list[Record] = []
    with Target(folder / "target") as target:
        for turn in range(rounds):
            for count in (10_000,) if quick else (10_000, 200_000, 1_000_000, LARGEST):
                for contestant, suffix in entries:
                    late = contestant.kind == "peer" and (turn or count == LARGEST)  # some take minutes and gigabytes
                    if chosen(contestant) and not late:
                        records.append(_first(contestant, suffix, count, turn, target, folder / "trip"))
                        say(records[-1])
    return records


def _first(contestant: Contestant, suffix: str, count: int, turn: int, target: Target, folder: Path) -> Record:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contestant.ready()
    command = contestant.command(Trip(rows(count, suffix), folder / "out.jsonl", target.url("zero"), 64))
    before = target.mark("zero")
    process = Process(command, environment(**contestant.environment), folder, folder / "log.txt")
    patience = time.monotonic() + 180
    wanted = 1 + contestant.probes
    while sum(target.served("zero", before).values()) < wanted and time.monotonic() < patience and process.running():
        time.sleep(0.01)
    moment = target.first("zero", before, wanted - 1)
    peak = 0.0
    if moment:
        time.sleep(3)
        peak = process.peak_mib()
    process.stop()
    measured = process.wait(60)
    time.sleep(0.5)  # until the target has written down what was under way
    first_s = moment - measured.started if moment else None
    label = f"{contestant.name} {suffix}" if contestant.kind == "ours" else contestant.name
    return record(
        "first", label, contestant.kind, turn, count, measured, first_s=first_s, early_peak_mib=peak, ok=moment is not None
    )  # fmt: skip


def memory(folder: Path, rounds: int, quick: bool, chosen: Choice, say: Say) -> list[Record]:
    """Peak of whole runs; ten million rows are `resume`'s seed, with the answers from memory, as HTTP would take hours."""
    records: list[Record] = []
    contestants = [contestant for contestant in (PROJECT, BY_NAME[FLOOR]) if chosen(contestant)]
    with Target(folder / "target") as target:
        for turn in range(rounds):
            for count in (1_000, 10_000) if quick else (10_000, 1_000_000):
                large = count > 10_000
                if turn and large:
                    continue
                for contestant in [PROJECT] if large else contestants:
                    trip = folder / "trip"
                    shutil.rmtree(trip, ignore_errors=True)
                    trip.mkdir(parents=True)
                    contestant.ready()
                    command = contestant.command(Trip(rows(count), trip / "out.jsonl", target.url("zero"), 64))
                    measured = run(command, environment(**contestant.environment), trip, trip / "log.txt", 7200)
                    ok = measured.code == 0 and answers(trip / "out.jsonl") == count
                    records.append(record("memory", contestant.name, contestant.kind, turn, count, measured, ok=ok))
                    say(records[-1])
    shutil.rmtree(folder / "trip", ignore_errors=True)
    return records


def _put_on_top(source: Path, line: bytes) -> None:
    new = source.with_suffix(".new")
    with source.open("rb") as old, new.open("wb") as lines:
        lines.write(line)
        shutil.copyfileobj(old, lines, 1 << 20)
    new.replace(source)


def resume(folder: Path, rounds: int, count: int, say: Say) -> list[Record]:
    """A finished run goes on: nothing has changed, one row was appended, one put on top. The seed run is told as well."""
    needed = 3_000 * count
    cache().mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache()).free < needed:
        raise Missing(f"resuming {count} rows needs {needed / 2**30:.0f} GiB of disk under {cache()}")
    seeds = cache() / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir(parents=True)
    source, output = seeds / "rows.jsonl", seeds / "out.jsonl"
    shutil.copyfile(rows(count), source)
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    records: list[Record] = []

    def tell(name: str, turn: int, measured: Measured, asked: int, expected: int) -> None:
        ok = measured.code == 0 and asked == expected
        records.append(record("resume", name, "ours", turn, count, measured, ok=ok, asked=asked))
        if not ok:
            records[-1]["log"] = (folder / "log.txt").read_text(errors="replace")[-600:]
        say(records[-1])

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").unlink(missing_ok=True)
    surroundings = environment(**ours.CREDENTIALS)
    python = str(environments.ours())
    making = [python, "-P", str(HERE / "seed.py"), *ours.arguments(source, output, url, 64)]
    tell("seed (answers from memory)", 0, run(making, surroundings, seeds, folder / "log.txt", 6 * 3600), 0, 0)
    if not records[0]["ok"]:
        return records
    again = ours.command(source, output, url, 64)
    with Target(folder / "target", {"zero": port}) as target:
        for turn in range(rounds):
            for name, expected in (("nothing changed", 0), ("one row appended", 1), ("one row on top", 1)):
                line = f'{{"id": {count + turn}, "prompt": "{name}, number {turn}"}}\n'.encode()
                if name == "one row appended":
                    with source.open("ab") as lines:
                        lines.write(line)
                elif expected:
                    _put_on_top(source, line)
                before = target.mark("zero")
                measured = run(again, surroundings, seeds, folder / "log.txt", 3600)
                tell(name, turn, measured, sum(target.served("zero", before).values()), expected)
    shutil.rmtree(seeds, ignore_errors=True)
    return records


SIZES = {"start": start, "first": first, "memory": memory}
