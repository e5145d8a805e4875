"""Twenty servers drawn from one seed, each with a fixed number that is best for it, as judges of `--concurrency auto`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .simulated import Latency, Run, Server, long_tailed, mixed, simulate

SEED = 20_261_123
DRAWS = 20
SECONDS = 120.0


@dataclass(frozen=True)
class Draw:
    """One server, described and ready to be made afresh.

    Attributes:
        capacity: Requests it works on at once.
        rpm: `--rpm` of the run, below what the server could do; None without.
    """

    number: int
    capacity: int
    words: str
    rpm: float | None
    make: Callable[[], Server]

    def run(self, concurrency: int | None, seconds: float) -> Run:
        return simulate(self.make(), seconds=seconds, concurrency=concurrency, rpm=self.rpm, seed=self.number)


@dataclass(frozen=True)
class Verdict:
    """How `auto` did on one draw, the whole run counted from its first request.

    Attributes:
        share: Of the best fixed number's throughput.
        settled: The same for the second half of the run.
        peak: Most in flight at once, in terms of capacity.
        wasted: Share of requests that were refused.
    """

    number: int
    capacity: int
    words: str
    best: float
    rate: float
    share: float
    settled: float
    peak: float
    wasted: float
    size: int


def draw(number: int, seconds: float = SECONDS) -> Draw:
    """The draw of this number; `seconds` only tells when mid-run is."""
    random = Random(f"{SEED} {number}")
    capacity = round(3 * (400 / 3) ** random.random())
    refuses = random.random() < 0.5
    low = random.uniform(0.01, 0.15)
    high = low * random.uniform(1.2, 8.0)
    tail = random.random() < 0.25
    shift = seconds / 2 if random.random() < 0.35 else float("inf")
    latency: Latency = long_tailed((low + high) / 2) if tail else mixed(low, high)
    rpm = round(0.6 * 60 * capacity / ((low + high) / 2)) if random.random() < 0.25 else None

    def make() -> Server:
        return Server(capacity, latency, refuses=refuses, shift=shift)

    spread = f"~{(low + high) * 500:.0f} ms long-tailed" if tail else f"{low * 1000:.0f}-{high * 1000:.0f} ms"
    words = f"{'refuses' if refuses else 'queues'}, {spread}"
    if shift < seconds:
        words += ", 5x mid-run"
    if rpm:
        words += f", --rpm {rpm}"
    return Draw(number, capacity, words, rpm, make)


def judge(number: int, seconds: float = SECONDS) -> Verdict:
    """`auto` against the best fixed number: the capacity itself, or for silent queues twice that, where it costs nothing."""
    one = draw(number, seconds)
    server = one.make()
    fixed = one.run(one.capacity if server.refuses else 2 * one.capacity, seconds)
    auto = one.run(None, seconds)
    half = seconds / 2
    return Verdict(
        number=number,
        capacity=one.capacity,
        words=one.words,
        best=fixed.rate,
        rate=auto.rate,
        share=auto.rate / fixed.rate,
        settled=auto.between(half, seconds) / fixed.between(half, seconds),
        peak=auto.highest / one.capacity,
        wasted=auto.refused / auto.requests,
        size=auto.sizes[-1][1],
    )
