"""What the project set itself, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .contestants import FLOOR, OURS, PROCESSES
from .results import Record, middle, ratio

FULL_SIZE = 10_000_000
Figures = Mapping[str, list[Record]]
"""The runs of every scenario, by its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One target, measured.

    Attributes:
        text: The figures in words.
        must, aim: Whether they were reached.
    """

    text: str
    must: bool
    aim: bool


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table; `find` returns None where the scenario was not run (or raises `LookupError`)."""

    metric: str
    must: str
    aim: str
    find: Callable[[Figures], Finding | None]


def by(runs: list[Record], contestant: str, rows: int | None = None) -> list[Record]:
    """The runs of one contestant that went well; with so many rows, if a number is given."""
    return [run for run in runs if run["contestant"] == contestant and run.get("ok", True) and rows in (None, run.get("rows"))]


def _cpu(figures: Figures) -> Finding | None:
    runs = figures["zero"]
    share, own = ratio(runs, OURS, FLOOR, "cpu_ms"), middle(by(runs, OURS), "cpu_ms")
    if share is None or own is None:
        return None
    names = {run["contestant"] for run in runs if run["kind"] == "peer"}
    peers = {name: cost for name in names if (cost := middle(by(runs, name), "cpu_ms")) is not None}
    below = all(own < cost for cost in peers.values())
    best = f"; the cheapest peer ({min(peers, key=peers.__getitem__)}) {min(peers.values()):.2f} ms" if peers else ""
    return Finding(f"{share:.2f}x ({own:.2f} ms{best})", share <= 1.0 and below, share <= 0.75 and below)


def _throughput(figures: Figures) -> Finding | None:
    runs = figures["zero"]
    share, own = ratio(runs, OURS, FLOOR, "rate"), middle(by(runs, OURS), "rate")
    if share is None:
        return None
    both = middle(by(runs, PROCESSES.name), "rate")
    more = f"; {both:,.0f}/s with processes" if both else ""
    return Finding(f"{share:.2f}x ({own:,.0f}/s{more})", share >= 1.0, share >= 1.5)


def _stretch(scenario: str, contestant: str, must: float, aim: float) -> Callable[[Figures], Finding | None]:
    def find(figures: Figures) -> Finding | None:
        value = middle(by(figures[scenario], contestant), "stretch")
        return None if value is None else Finding(f"{value:.3f}", value <= must, value <= aim)

    return find


def _first(figures: Figures) -> Finding | None:
    lines = middle(by(figures["first"], f"{OURS} jsonl", 1_000_000), "first_s")
    table = middle(by(figures["first"], f"{OURS} csv", 1_000_000), "first_s")
    if lines is None or table is None:
        return None
    text = f"JSONL {lines:.2f} s, CSV {table:.2f} s"
    if (full := middle(by(figures["first"], f"{OURS} jsonl", FULL_SIZE), "first_s")) is not None:
        text += f"; JSONL {full:.2f} s from {FULL_SIZE:,} rows"
    return Finding(text, max(lines, table) <= 0.6, lines <= 0.4 and table <= 0.6)


def _memory(figures: Figures) -> Finding | None:
    runs = by(figures["memory"], OURS)
    runs += [run for run in figures.get("resume", []) if run["contestant"].startswith("seed") and run.get("ok")]
    if not runs:
        return None
    peaks = {
        count: middle([run for run in runs if run["rows"] == count], "peak_mib") or 0.0
        for count in {run["rows"] for run in runs}
    }
    within = all(peak <= 120 + 48 * count / 2**20 for count, peak in peaks.items())
    early = [middle(by(figures.get("first", []), f"{OURS} jsonl", count), "early_peak_mib") for count in (10_000, 1_000_000)]
    flat = None not in early and (early[1] or 0.0) <= 1.1 * (early[0] or 0.0)
    text = ", ".join(f"{peaks[count]:,.0f} MiB at {count:,}" for count in sorted(peaks))
    if FULL_SIZE not in peaks:
        text += " (10M not measured)"
    if None not in early:
        text += f"; three seconds after the first request {early[0]:,.0f} MiB at 10,000, {early[1]:,.0f} at 1,000,000"
    return Finding(text, within, within and flat)


def _resume(name: str, must: float, aim: float) -> Callable[[Figures], Finding | None]:
    def find(figures: Figures) -> Finding | None:
        runs = [run for run in by(figures["resume"], name) if run["rows"] >= FULL_SIZE]
        value = middle(runs, "wall_s")
        if value is None:
            return None
        text = f"{value:.1f} s for {runs[0]['rows']:,} rows, {middle(runs, 'peak_mib'):,.0f} MiB"
        return Finding(text, value <= must, value <= aim)

    return find


def _rate(scenario: str) -> Callable[[Figures], Finding | None]:
    def find(figures: Figures) -> Finding | None:
        runs = [run for run in figures[scenario] if run.get("ok", True)]
        if not runs:
            return None
        seen: list[dict[str, Any]] = [run["server"] for run in runs]
        share, worst = min(one["used"] for one in seen), max(one["worst_second"] for one in seen)
        refused = sum(one["refused"] for one in seen)
        rate = runs[0]["allowed"].get("rate", 0)
        text = f"{share:.2%} at the least, "
        text += f"worst second {worst} of {rate:g}, " if rate else ""
        text += f"{refused} refusals"
        level = not rate or worst <= max(1.05 * rate, rate + 2)
        best = not rate or worst <= max(1.01 * rate, rate + 1)
        return Finding(text, share >= 0.99 and level and not refused, share >= 0.995 and best and not refused)

    return find


def _auto(scenario: str) -> Callable[[Figures], Finding | None]:
    def find(figures: Figures) -> Finding | None:
        runs = figures[scenario]
        fixed = {name: middle(by(runs, name), "rate") for name in {run["contestant"] for run in runs} if name.isdigit()}
        rates = {name: rate for name, rate in fixed.items() if rate}
        own = by(runs, "auto")
        rate = middle(own, "rate")
        if not rates or rate is None:
            return None
        best = max(rates, key=rates.__getitem__)
        share = rate / rates[best]
        wasted = max(run["server"]["refused"] / run["server"]["requests"] for run in own)
        most = max(run["server"]["in_flight_most"] for run in own)
        capacity = own[0]["allowed"]["capacity"]
        text = f"{share:.1%} of the best ({best}), {wasted:.1%} wasted, at most {most} in flight (capacity {capacity:g})"
        sound = wasted <= 0.02 and most <= 3 * capacity
        return Finding(text, share >= 0.90 and sound, share >= 0.97 and sound)

    return find


def _outage(figures: Figures) -> Finding | None:
    runs = figures["outage"]
    if not runs:
        return None
    lost = sum(run["rows"] - (run["answered"] or 0) for run in runs)
    extra = max(run["server"]["requests"] / run["rows"] - 1 for run in runs)
    sound = not lost and extra <= 0.2
    return Finding(f"{lost} rows lost, {extra:.1%} extra requests", sound, sound)


def _help(figures: Figures) -> Finding | None:
    value, click = (middle(by(figures["start"], name), "wall_s") for name in ("ails-batch --help", "click"))
    return None if value is None else Finding(f"{value:.3f} s (click alone {click:.3f} s)", value <= 0.12, value <= 0.06)


def _limit(label: str) -> str:
    return f"allowed rate used, 64 workers, {label}"


FULL = "≥ 99 %, worst second ≤ max(1.05x, rate + 2), no 429"
FULLER = "99.5 %, 1.01x"
TARGETS = (
    Target("CPU per request, C=64, zero latency, to `requests`", "≤ 1.0x, below every peer that retries", "≤ 0.75x", _cpu),
    Target("throughput of one process, same runs", "≥ 1.0x", "≥ 1.5x", _throughput),
    Target("200 ms, C=64: makespan to ideal", "≤ 1.10", "1.06", _stretch("slow64", OURS, 1.10, 1.06)),
    Target("200 ms, C=256: makespan to ideal", "≤ 1.12", "1.08", _stretch("slow256", OURS, 1.12, 1.08)),
    Target("200 ms, C=1000, both cores: makespan to ideal", "≤ 2.6", "≤ 1.6", _stretch("slow1000", PROCESSES.name, 2.6, 1.6)),
    Target("first request, 1M rows", "≤ 0.6 s, JSONL and CSV", "≤ 0.4 s (JSONL)", _first),
    Target("peak memory, C=64", "≤ 120 MiB + 48 bytes a row", "flat until an index is needed", _memory),
    Target("resume of 10M finished rows, nothing changed", "≤ 10 s", "≤ 3 s", _resume("nothing changed", 10, 3)),
    Target("resume of 10M finished rows, one row appended", "≤ 300 s", "≤ 120 s", _resume("one row appended", 300, 120)),
    Target("resume of 10M finished rows, one row put on top", "≤ 300 s", "≤ 120 s", _resume("one row on top", 300, 120)),
    Target(_limit("500 rps"), FULL, FULLER, _rate("rate500")),
    Target(_limit("1,200 rpm"), FULL, FULLER, _rate("rate1200")),
    Target(_limit("600,000 tpm"), "≥ 99 %, no 429", "99.5 %", _rate("tokens")),
    Target("`auto`, a server that queues silently", "≥ 90 % of the best number, ≤ 3x in flight", "97 %", _auto("knee")),
    Target("`auto`, a server that refuses", "≥ 90 % of the best number, ≤ 2 % wasted", "97 %", _auto("refusing")),
    Target("40 at once, others 429, six seconds down, no option given", "no row lost, ≤ 20 % extra requests", "–", _outage),
    Target("`--help`", "≤ 0.12 s", "≤ 0.06 s", _help),
)


def findings(figures: Figures) -> list[tuple[Target, Finding | None]]:
    """Every target with what was found; None where nothing was measured."""
    found = []
    for target in TARGETS:
        try:
            found.append((target, target.find(figures)))
        except LookupError:
            found.append((target, None))
    return found
