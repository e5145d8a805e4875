"""Latencies of attempts that went alike, with what is not known about them."""

from __future__ import annotations

import math

import msgspec


class Mean(msgspec.Struct):
    """A mean of latencies with its spread."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, x: float) -> None:
        """One more."""
        self.n += 1
        self.total += x
        self.squares += x * x

    def merge(self, other: Mean) -> None:
        """All of another's."""
        self.n += other.n
        self.total += other.total
        self.squares += other.squares

    @property
    def mean(self) -> float:
        """Seconds."""
        return max(self.total / self.n, 1e-9)

    @property
    def error(self) -> float:
        """The standard error of the mean, relative to it; as if two more had been seen that lay 60 % off."""
        seen = max(0.0, self.squares / self.mean**2 - self.n)
        return math.sqrt((seen + 2 * 0.36) / (self.n + 1) / self.n)


class Cohort(msgspec.Struct):
    """The attempts that went while the window was full at one size."""

    number: int
    size: int
    wanted: int
    ends: int
    cpu: float
    since: float
    joined: int = 0
    outs: int = 0
    outstanding: int = 0
    starts: float = 0.0
    latency: Mean = msgspec.field(default_factory=Mean)

    @property
    def out(self) -> float:
        """How many were out in truth, on average."""
        return self.outs / self.joined

    def estimate(self, now: float) -> Mean:
        """The latency, counting what the outstanding ones have waited so far: leaving out the slow ones would flatter it."""
        waited = max(0.0, self.outstanding * now - self.starts)
        return Mean(
            self.latency.n,
            self.latency.total + waited,
            self.latency.squares * (1 + waited / max(self.latency.total, 1e-9)) ** 2,
        )
