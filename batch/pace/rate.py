"""Requests and tokens a minute as reservation arithmetic: each caller is told its time once, first come first served.

The generic cell rate algorithm (ITU-T I.371, the virtual scheduling form) in two dimensions that are taken together: a take of
`n` from a limit of `r` a second with burst `b` may happen once the theoretical arrival time lies at most `(b - n) / r` ahead,
and moves it on by `n / r`.
"""

from __future__ import annotations

import msgspec

MARGIN = 0.997
"""Of the allowed rate that is used: over a minute 0.18 s of leeway, so that a first request slowed by its handshake is not
followed too early by the request that comes one minute later."""

BURST = 0.01
"""Seconds' worth of a limit that may go at once; at least one request."""

SPARE = 1.5
"""The least burst of the token limit, in requests: what is given back by a request that used less than was reserved must find
room, or it would be lost."""


class _Limit(msgspec.Struct):
    """One dimension: so many a second, so many at once but at least so many times a request, the theoretical arrival time."""

    rate: float
    burst: float
    least: float
    arrival: float = 0.0
    settled: float = 0.0

    def earliest(self, n: float) -> float:
        return self.arrival - max(self.burst - n, (self.least - 1) * n) / self.rate

    def take(self, at: float, n: float) -> None:
        self.arrival = max(self.arrival, at) + n / self.rate

    def settle(self, n: float) -> None:
        self.arrival += n / self.rate
        self.settled += n / self.rate

    def undo(self, snapshot: tuple[float, float]) -> None:
        arrival, settled = snapshot
        self.arrival = arrival + self.settled - settled


class Booking(msgspec.Struct, frozen=True):
    """A reserved time, and what the limits were before it, so that the last bookings can be undone exactly."""

    at: float
    requests: tuple[float, float]
    tokens: tuple[float, float]
    last: float
    binds: str


_UNLIMITED = (0.0, 0.0)


class Rate:
    """Two limits, taken together.

    Args:
        rpm: Requests a minute; None for no limit.
        tpm: Tokens a minute; None for no limit.
        burst: Seconds' worth of either limit that may go at once after a lull.
    """

    def __init__(self, rpm: float | None = None, tpm: float | None = None, burst: float | None = None) -> None:
        self._burst = BURST if burst is None else burst
        self._requests: _Limit | None = None
        self._tokens: _Limit | None = None
        self._last = float("-inf")
        self.rpm: float | None = None
        self.tpm: float | None = None
        self.set(0.0, rpm, tpm)

    def set(self, now: float, rpm: float | None, tpm: float | None) -> None:
        """New limits from now on; what is owed stays owed, in requests and tokens."""
        self._requests = self._renew(now, self._requests, rpm, 1.0)
        self._tokens = self._renew(now, self._tokens, tpm, SPARE)
        self.rpm, self.tpm = rpm, tpm
        self._last = min(self._last, now)

    def _renew(self, now: float, old: _Limit | None, minute: float | None, least: float) -> _Limit | None:
        if minute is None:
            return None
        rate = minute / 60 * MARGIN
        new = _Limit(rate, rate * self._burst, least)
        if old is not None:
            new.arrival = now + (old.arrival - now) * old.rate / rate
        return new

    def holds(self, tokens: float) -> bool:
        """Whether a request of so many tokens can ever go: a minute's worth is the most."""
        return self.tpm is None or tokens <= self.tpm

    def reserve(self, now: float, requests: float = 1.0, tokens: float = 0.0) -> Booking:
        """Take requests and tokens together.

        Returns:
            The booking; its `at` is the first time at which both limits allow it and nobody who came before is overtaken.
        """
        r, t, last = self._requests, self._tokens, self._last
        if r is None and t is None:
            return Booking(now, _UNLIMITED, _UNLIMITED, last, "")
        before_r = (r.arrival, r.settled) if r else _UNLIMITED
        before_t = (t.arrival, t.settled) if t else _UNLIMITED
        at_r = r.earliest(requests) if r else now
        at_t = t.earliest(tokens) if t else now
        self._last = at = max(now, last, at_r, at_t)
        if r:
            r.take(at, requests)
        if t:
            t.take(at, tokens)
        return Booking(at, before_r, before_t, last, "" if at <= now else "tpm" if at_t > at_r else "rpm")

    def undo(self, booking: Booking) -> None:
        """Forget this booking and all that were made after it, exactly; what was settled meanwhile stays settled."""
        if self._requests:
            self._requests.undo(booking.requests)
        if self._tokens:
            self._tokens.undo(booking.tokens)
        self._last = booking.last

    def refund(self, requests: float = 1.0, tokens: float = 0.0) -> None:
        """Give back what was taken and not sent."""
        if self._requests:
            self._requests.settle(-requests)
        if self._tokens:
            self._tokens.settle(-tokens)

    def rest(self, until: float) -> None:
        """The server wants nothing before this time; where others share the rate, they are to hear of it.

        Args:
            until: Monotonic seconds.
        """

    def settle(self, estimated: float, actual: float) -> None:
        """Put the tokens that were really used in the place of the estimate, more or fewer."""
        if self._tokens:
            self._tokens.settle(actual - estimated)
