"""Pace and concurrency against servers that judge them: rates to use up, knees to find, an outage to sit out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .contestants import BY_NAME, PROJECT, Contestant, Trip, project
from .measure import environment, run
from .results import Record, record
from .rows import rows
from .servers import Server
from .throughput import answers


@dataclass(frozen=True, slots=True)
class Trial:
    """One server, one number of rows, and those who are tried on it.

    Attributes:
        kind, settings: Of the `Server`.
        entries: Label, who, and concurrency (``auto``, a number, or nothing for the default).
    """

    name: str
    kind: str
    settings: dict[str, float]
    count: int
    quick_count: int
    entries: tuple[tuple[str, Contestant, int | str], ...]


KNEE = {"capacity": 32, "service": 0.2}
FIXED = (16, 24, 32, 40, 48, 64)


NUMBERS: tuple[tuple[str, Contestant, int | str], ...] = (
    ("auto", PROJECT, "auto"),
    *((str(number), PROJECT, number) for number in FIXED),
)
TOKENS = {"tokens": 10_000, "latency": 0.2}
OUTAGE = {"capacity": 40, "service": 0.2, "refuses": 1, "down_from": 10, "down_for": 6}
TRIALS = {
    trial.name: trial
    for trial in (
        Trial("rate500", "limited", {"rate": 500}, 20_000, 1_000, (("500 rps", project("", "--rpm", "30000"), 64),)),
        Trial("rate1200", "limited", {"rate": 20}, 1_800, 100, (("1,200 rpm", project("", "--rpm", "1200"), 64),)),
        Trial("tokens", "limited", TOKENS, 4_500, 400, (("600,000 tpm", project("", "--tpm", "600000"), 64),)),
        Trial("knee", "knee", KNEE, 6_400, 300, (*NUMBERS, ("saturate auto", BY_NAME["saturate"], "auto"))),
        Trial("refusing", "knee", {**KNEE, "refuses": 1}, 4_800, 300, NUMBERS[:-1]),
        Trial("outage", "knee", OUTAGE, 8_000, 2_500, (("default", PROJECT, ""),)),
    )
}


def trial(name: str, folder: Path, rounds: int, quick: bool, say: Callable[[Record], None]) -> list[Record]:
    """All rounds of a trial; each run has a fresh server, whose own account of it is kept under ``server``."""
    scenario, records = TRIALS[name], []
    count = scenario.quick_count if quick else scenario.count
    for turn in range(rounds):
        for label, contestant, concurrency in scenario.entries:
            trip_folder = folder / "trip"
            shutil.rmtree(trip_folder, ignore_errors=True)
            trip_folder.mkdir(parents=True)
            output, log = trip_folder / "out.jsonl", trip_folder / "log.txt"
            with Server(trip_folder, scenario.kind, **scenario.settings) as server:
                trip = Trip(rows(count), output, server.url, concurrency)
                measured = run(contestant.command(trip), environment(**contestant.environment), trip_folder, log, 900)
            answered = answers(output)
            ok = measured.code == 0 and answered in (None, count) and server.seen["accepted"] >= count
            records.append(
                record(name, label, contestant.kind, turn, count, measured, answered=answered, ok=ok, server=server.seen,
                       rate=count / measured.wall_s, allowed=scenario.settings)
            )  # fmt: skip
            if not ok:
                records[-1]["log"] = log.read_text(errors="replace")[-600:]
            say(records[-1])
    return records
