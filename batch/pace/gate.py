"""One gate for all workers: open, or closed until a time with one probe at a time, or opening slowly."""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random

from ..errors import CallError, Throttled, Unreachable
from ..records import Hints
from .allowance import CAP, Allowances

FIRST_PAUSE, PAUSE_GROWTH, LONGEST_PAUSE = 0.5, 1.5, 10.0
"""Seconds from a closing to the first probe, and how they grow up to the longest between two probes."""

ENOUGH_FAILURES = 20
"""So many failures in a row, of any workers, are an outage whatever the number in flight."""

REFUSALS, SHARE, DRAIN = 4.0, 1 / 16, 1 / 8
"""A refusal counts one, a request sent takes an eighth of one back, and at four, or one for every sixteen that may be out,
everybody is meant: the gate closes. A server that refuses one request in twenty at random comes to that once in thousands."""

MERCY = 600.0
"""Seconds of a pause within which no row is charged twice for having been the probe."""


class Gate:
    """Decides when nobody may go, who probes, and whether a failure counts against its row.

    A refusal among many answers means one request too many: the place it had stays empty for as long as the server asked. Only
    when refusals are a considerable share of what is sent, or no place is left, does the gate close for all.

    After that it opens from half of what the server had let in, one more with each answer, and from there on one more a round
    trip while nothing is refused: slow start and congestion avoidance (RFC 5681).

    Attributes:
        out: Requests sent that have no end yet.
        why: Why it is closed, one line; "" when open.

    Args:
        max_outage: Seconds without any success after which the server counts as away.
        random: The source of jitter.
    """

    def __init__(self, max_outage: float, random: Random) -> None:
        self._max_outage = max_outage
        self._random = random
        self._closed_at: float | None = None
        self._quiet_since = 0.0
        self._until = 0.0
        self._throttled = False
        self._pauses = 0
        self._probe: int | None = None
        self._probe_sent = 0.0
        self._patience = 0.0
        self._probes_charged = 0
        self._failures = 0
        self._unreachable = 0
        self._ramp: float | None = None
        self._enough = float("inf")
        self._let_in = 0
        self._refusals = 0.0
        self._storm = False
        self._rests: list[float] = []
        self._top = 0.0
        self.out = 0
        self._sent = 0
        self._sent_tokens = 0.0
        self._allowances = Allowances()
        self.why = ""

    @property
    def closed(self) -> bool:
        """Whether only a probe may go."""
        return self._closed_at is not None

    @property
    def until(self) -> float:
        """The earliest time of the next probe while it is closed, in monotonic seconds."""
        return self._until

    @property
    def storm(self) -> bool:
        """Whether it is closed because refusals were a considerable share of what was sent."""
        return self.closed and self._storm

    @property
    def opening(self) -> bool:
        """Whether fewer than the window may go, because the gate opened a moment ago."""
        return self._ramp is not None

    def limit(self, size: float) -> float:
        """How many may be out at once, of a window of `size`."""
        places = self._places(size)
        return max(1.0, min(places, self._left(places))) if self._rests else places

    def _left(self, places: float) -> float:
        # A window that became smaller meanwhile has given up the places of those refused already.
        return max(places, self._top) - len(self._rests)

    def _places(self, size: float) -> float:
        return size if self._ramp is None else min(size, self._ramp)

    @property
    def rested(self) -> float:
        """When the next place that stays empty may be filled again; infinity where there is none."""
        return self._rests[0] if self._rests else float("inf")

    def away(self, now: float) -> bool:
        """Whether the server has been away for longer than is waited for."""
        return self._closed_at is not None and now - self._quiet_since >= self._max_outage

    def opens(self, now: float, size: float, requests: int, tokens: float) -> float:
        """When the next request may pass: `now` for at once, infinity when only an answer can tell.

        Args:
            now: Monotonic seconds.
            size: The window's.
            requests: How many are about to go, the next one included.
            tokens: The same in tokens.
        """
        if self._closed_at is not None:
            if self._probe is None:
                return max(now, min(self._until, self._quiet_since + self._max_outage))
            if not self._throttled:
                return float("inf")
            # A refusal comes fast; a probe that has outlived it has been let in.
            accepted = self._probe_sent + self._patience
            if now < accepted:
                return accepted
            self._open(size)
        while self._rests and self._rests[0] <= now:
            heappop(self._rests)
        return self._allowed(now, requests, tokens) if self._allowances else now

    def send(self, now: float, tokens: float) -> tuple[int, float]:
        """Note that one is sent; while the gate is closed it is the probe.

        Returns:
            How many requests and tokens were sent up to and with it; the first is what it is called from here on.
        """
        self._sent += 1
        self._sent_tokens += tokens
        self.out += 1
        if self._refusals and self._closed_at is None:
            self._refusals = max(0.0, self._refusals - DRAIN)
        if self._closed_at is not None:
            self._probe, self._probe_sent = self._sent, now
        return self._sent, self._sent_tokens

    def is_probe(self, number: int) -> bool:
        """Whether this is the probe that is out."""
        return number == self._probe

    def unsend(self, number: int) -> None:
        """Nothing was sent after all."""
        self.out -= 1
        if number == self._probe:
            self._probe = None

    def answered(self, now: float, size: float, number: int) -> None:
        """The server answered a request, be it with a refusal of that one row."""
        self.out -= 1
        self._failures = self._unreachable = 0
        if self._closed_at is None:
            if self._ramp is not None:
                if self._ramp < self._enough:
                    self._ramp += 1
                elif not self._rests:
                    self._ramp += 1 / self._ramp
                if self._ramp >= size:
                    self._ramp, self._pauses = None, 0
        elif number == self._probe:
            self._open(size)
        else:
            self._quiet_since = now
            if not self._throttled:
                # It was sent before; the server may be there again, or for the last time.
                self._pauses = 0
                self._until = min(self._until, now + self._pause())

    def failed(self, now: float, error: CallError, number: int, size: float, rows: int, excess: bool = False) -> bool:
        """One attempt failed.

        Args:
            now: Monotonic seconds.
            size: The window's.
            error: A `Transient` one; the others are answers.
            number: What `send` called it.
            rows: How many rows are in flight.
            excess: Whether the window had just grown by it and has taken it back, so that it says nothing about the others.

        Returns:
            Whether the attempt counts against its row: connect errors, 429 and 503 never do; any other failure during a pause
            only when it was the probe, and within `MERCY` seconds no row a second time.
        """
        self.out -= 1
        probe = number == self._probe
        if probe:
            self._probe = None
        if isinstance(error, Throttled):
            self._refused(now, error, size, probe, excess)
            return False
        self._failures += 1
        self._unreachable = self._unreachable + 1 if isinstance(error, Unreachable) else 0
        closed = self._closed_at is not None
        charged = not isinstance(error, Unreachable) and (not closed or (probe and self._may_charge(now, rows)))
        if (
            (closed and probe)
            or (not closed and self._failures >= min(ENOUGH_FAILURES, max(6, 3 * rows)))
            or (not closed and self._unreachable >= min(ENOUGH_FAILURES, max(3, rows)))
        ):
            self._close(now, str(error), False, None)
        return charged

    def _refused(self, now: float, error: Throttled, size: float, probe: bool, excess: bool) -> None:
        hint = error.hints.retry_after if error.hints else None
        why = f"the server answered {error.status}"
        if self._closed_at is None:
            if not excess:
                self._refusals += 1
            pause = self._pause() if hint is None else self._believed(hint)
            self._top = max(self._top if self._rests else 0.0, self._places(size))
            heappush(self._rests, now + pause)
            if self._ramp is not None and self._ramp < self._enough:
                # Fewer were out than were let in before: the number is not what is refused.
                self._enough = float("inf")
            places = self._places(size)
            self._storm = self._refusals >= max(REFUSALS, SHARE * places)
            if self._storm or self._left(places) < 1:
                self._patience = max(0.1, 2 * error.seconds)
                self._let_in = self.out
                self._close(now, why, True, hint)
            return
        if probe:
            self._patience = max(0.1, 2 * error.seconds)
            self._close(now, why, True, hint)
        elif self._throttled:
            self._let_in -= 1
            if hint is not None:
                self._until = max(self._until, now + self._believed(hint))

    def _may_charge(self, now: float, rows: int) -> bool:
        assert self._closed_at is not None
        # Probes rotate, so after as many as there are rows the first one is due again.
        if self._probes_charged >= rows * (1 + (now - self._closed_at) // MERCY):
            return False
        self._probes_charged += 1
        return True

    def _close(self, now: float, why: str, throttled: bool, retry_after: float | None) -> None:
        if self._closed_at is None:
            self._closed_at = self._quiet_since = now
            self._probes_charged = 0
            self._probe = None
            self._rests.clear()
        self.why, self._throttled, self._ramp = why, throttled, None
        if retry_after is None:
            self._until = now + self._pause()
            self._pauses = min(self._pauses + 1, 16)
        else:
            self._until = now + self._believed(retry_after)

    def _pause(self) -> float:
        return min(LONGEST_PAUSE, FIRST_PAUSE * PAUSE_GROWTH**self._pauses) * self._random.uniform(0.5, 1.0)

    def _believed(self, retry_after: float) -> float:
        # A server that says "at once" and refuses again shall not be asked in a tight loop.
        return max(0.1, min(retry_after, CAP)) * self._random.uniform(1.0, 1.1)

    def _open(self, size: float) -> None:
        let_in = min(self._let_in, size) if self._throttled else 0.0
        self._ramp, self._enough = max(2.0, let_in / 2), let_in or float("inf")
        # After a storm the next refusal is one.
        if self._storm:
            self._refusals = REFUSALS - 1
        self._closed_at = self._probe = None
        self.why = ""

    def hear(self, now: float, hints: Hints, sent: int, sent_tokens: float) -> bool:
        """What a response's headers leave of the limits, for the request that was number `sent`.

        Returns:
            Whether nobody may go any more until a limit is renewed.
        """
        return self._allowances.hear(now, hints, sent, sent_tokens) and self._allowed(now, 1, 0.0) > now

    def _allowed(self, now: float, requests: int, tokens: float) -> float:
        return self._allowances.wait(now, self._sent, requests, self._sent_tokens, tokens)
