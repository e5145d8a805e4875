"""Races on the fast target: everybody makes the same trip, one after another, round after round (A B C A B C …)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from . import Missing
from .contestants import FLOORS, PEERS, PROCESSES, PROJECT, Contestant, Trip
from .measure import environment, run
from .results import Record, record
from .rows import rows
from .target import MIXED_S, REFUSED_SHARE, SLOW_S, Target

MARK = b"the answer is plain"
Choice = Callable[[Contestant], bool]


@dataclass(frozen=True, slots=True)
class Race:
    """One scenario.

    Attributes:
        port: Of the target: ``zero``, ``slow`` or ``mixed``.
        latency: Mean seconds of an answer, for the ideal makespan rows · latency / concurrency; 0 where there is none.
        count: Rows.
        peer_count: Rows for peers, where fewer do.
    """

    name: str
    port: str
    concurrency: int
    count: int
    peer_count: int
    latency: float
    contestants: tuple[Contestant, ...]


MIXED_LATENCY = mean(MIXED_S) / (1 - REFUSED_SHARE)
_fast_peers = tuple(peer for peer in PEERS if peer.name in {"flexllm", "saturate", "openai", "async-batch-llm"})
RACES = {
    race.name: race
    for race in (
        Race("zero", "zero", 64, 10_000, 10_000, 0.0, (*FLOORS, PROJECT, PROCESSES, *PEERS)),
        Race("slow64", "slow", 64, 10_000, 2_000, SLOW_S, (*FLOORS, PROJECT, *PEERS)),
        Race("slow256", "slow", 256, 10_000, 10_000, SLOW_S, (*FLOORS, PROJECT, PROCESSES, *_fast_peers)),
        Race("slow1000", "slow", 1000, 10_000, 10_000, SLOW_S, (*FLOORS, PROJECT, PROCESSES)),
        Race("mixed", "mixed", 64, 5_000, 5_000, MIXED_LATENCY, (PROJECT, *PEERS)),
    )
}
QUICK = 300
PATIENCE_S = 900


def answers(output: Path) -> int | None:
    """How many lines of an output hold the target's answer; None where it is not lines of text."""
    if not output.is_file():
        return None
    with output.open("rb") as lines:
        return sum(MARK in line for line in lines)


def leg(race: Race, contestant: Contestant, turn: int, count: int, target: Target, folder: Path) -> Record:
    """One contestant's trip; `ok` says whether every row was asked once and answered."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output, log = folder / "out.jsonl", folder / "log.txt"
    trip = Trip(rows(count), output, target.url(race.port), race.concurrency)
    command = contestant.command(trip)
    before = target.mark(race.port)
    measured = run(command, environment(**contestant.environment), folder, log, PATIENCE_S)
    served = target.served(race.port, before)
    answered = answers(output)
    asked_once = served["200"] == count + contestant.probes
    ok = measured.code == 0 and asked_once and answered in (None, count)
    ideal = count * race.latency / race.concurrency
    told = record(
        race.name, contestant.name, contestant.kind, turn, count, measured, served=dict(served), answered=answered, ok=ok,
        concurrency=race.concurrency, rate=count / measured.wall_s, stretch=measured.wall_s / ideal if ideal else None,
    )  # fmt: skip
    if not ok:
        told["log"] = log.read_text(errors="replace")[-600:]
    return told


def race(
    name: str, folder: Path, rounds: int, peer_rounds: int, quick: bool, chosen: Choice, say: Callable[[Record], None]
) -> list[Record]:
    """All rounds of a scenario, of which peers run the first `peer_rounds`; who cannot be installed is left out and said."""
    scenario, records = RACES[name], []
    present: list[Contestant] = []
    for contestant in filter(chosen, scenario.contestants):
        try:
            contestant.ready()
            present.append(contestant)
        except Missing as missing:
            records.append({"scenario": name, "contestant": contestant.name, "kind": contestant.kind, "round": 0, "ok": False})
            records[-1]["log"] = str(missing)
            say(records[-1])
    with Target(folder / "target") as target:
        for turn in range(rounds):
            for contestant in _rotated(present, turn):
                if contestant.kind == "peer" and turn >= peer_rounds:
                    continue
                count = QUICK if quick else scenario.peer_count if contestant.kind == "peer" else scenario.count
                records.append(leg(scenario, contestant, turn, count, target, folder / "trip"))
                say(records[-1])
    return records


def _rotated(present: Sequence[Contestant], turn: int) -> list[Contestant]:
    """Each round begins with somebody else, so that nobody always follows the same neighbour's heat."""
    first = turn % max(1, len(present))
    return [*present[first:], *present[:first]]
