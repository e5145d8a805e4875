"""The line that all attempts stand in: first come, first served, past the gate, the window and the rate.

It only decides; it never waits. `Pace` puts threads and a lock around it, a simulation steps it through virtual time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from ..errors import CallError, Throttled, TimedOut, TooLarge, Transient
from ..records import Hints
from .gate import Gate
from .rate import Booking, Rate
from .window import Window

HORIZON = 0.05
"""Seconds ahead that times are given out; who stands further back is told later, so that refunds and new rates reach all."""


class Ticket(msgspec.Struct, eq=False):
    """One attempt's place.

    Attributes:
        tokens: Estimated tokens.
        taken: The tokens that were reserved: the estimate, corrected by what earlier ones were worth.
        booking: The reserved time, once there is one.
        overtaken: Whether one with a later time went before it, because its holder woke late.
        timer: Until when its holder sleeps.
        wake: Tells its holder to look again.
        out: How many were out when it went, itself included; 0 while it has not gone.
        number, sent_tokens: What the gate called it.
        cohort: What the window called it.
        went: When it went.
    """

    tokens: int
    taken: float = 0.0
    booking: Booking | None = None
    overtaken: bool = False
    timer: float = float("inf")
    wake: Callable[[], object] | None = None
    out: int = 0
    number: int = 0
    sent_tokens: float = 0.0
    cohort: int = -1
    went: float = 0.0


class Line:
    """Rate, gate and window as one decision.

    Attributes:
        permits: Rows in flight.
        coming: How many of them have not stood in line yet.
        paused: Whether nobody new may go, by order.
    """

    def __init__(self, rate: Rate, gate: Gate, window: Window) -> None:
        self.rate, self.gate, self.window = rate, gate, window
        self.permits = self.coming = 0
        self.paused = False
        self.blocked = ""
        self._estimated = self._used = 1.0
        self._waiting: deque[Ticket] = deque()
        self._booked: deque[Ticket] = deque()
        self._booked_tokens = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._booked)

    @property
    def out(self) -> int:
        """Attempts that were sent and have no end yet."""
        return self.gate.out

    @property
    def head(self) -> Ticket | None:
        """The first of those that have no time yet."""
        return self._waiting[0] if self._waiting else None

    def admits(self) -> bool:
        """Whether one more row may be in flight.

        A row that waits for its backoff or for the disk loads no server, so under `auto` it does not fill the window.
        """
        if self.permits >= self.window.most:
            return False
        size = self.window.size
        return self.window.fixed or (
            self.permits < max(64, 4 * size) and self.coming + self.gate.out + len(self) < size + size // 8 + 1
        )

    def admit(self) -> None:
        """One more row is in flight; it joins the line soon."""
        self.permits += 1
        self.coming += 1

    def release(self, n: int) -> None:
        """So many rows are in flight no longer, whether they stood in line or not."""
        self.permits -= n
        self.coming = min(self.coming, self.permits)

    def join(self, tokens: int) -> Ticket:
        """Take a place.

        Raises:
            TooLarge: The request is larger than a minute's tokens.
        """
        # Whoever joins once more, after a backoff, is taken for one that comes: they all stand in line soon.
        self.coming = max(0, self.coming - 1)
        if not self.rate.holds(tokens):
            raise TooLarge(f"about {tokens} tokens are more than the limit of {self.rate.tpm:.0f} tokens a minute ever allows")
        ticket = Ticket(tokens)
        self._waiting.append(ticket)
        return ticket

    def advance(self, now: float) -> tuple[list[Ticket], float]:
        """Give times to all who may have one.

        Returns:
            Those who have a new time; when the next in line may look again (infinity: only when an attempt ends).
        """
        told: list[Ticket] = []
        again = float("inf")
        self.blocked = "" if self._waiting else self._rate_binds()
        while self._waiting:
            ticket = self._waiting[0]
            if self.paused:
                self.blocked = "pause"
                break
            size = self.window.size
            opens = self.gate.opens(now, size, len(self._booked) + 1, self._booked_tokens + ticket.tokens)
            if opens > now:
                again, self.blocked = opens, "gate"
                break
            if self.gate.closed:
                if self._booked:
                    self.blocked = "gate"
                    break
            elif self.gate.out + len(self._booked) >= self.gate.limit(size):
                again = self.gate.rested
                self.blocked = self._rate_binds() or ("gate" if self.gate.opening or again < float("inf") else "window")
                break
            if self._booked and (last := self._booked[-1].booking) and last.at > now + HORIZON:
                self.blocked = self._rate_binds()
                break
            self._waiting.popleft()
            ticket.taken = ticket.tokens * self._used / self._estimated
            ticket.booking = self.rate.reserve(now, 1, ticket.taken)
            self._booked.append(ticket)
            self._booked_tokens += ticket.tokens
            told.append(ticket)
        return told, again

    def _rate_binds(self) -> str:
        return self._booked[-1].booking.binds if self._booked and self._booked[-1].booking else ""

    def go(self, now: float, ticket: Ticket) -> bool:
        """Whether this one goes now; from then on it is out until `done`, `failed` or `cancel`."""
        if ticket.booking is None or ticket.booking.at > now:
            return False
        if self._booked[0] is ticket:
            self._booked.popleft()
        else:
            for other in self._booked:
                if other is ticket:
                    break
                other.overtaken = True
            self._booked.remove(ticket)
        self._booked_tokens -= ticket.tokens
        gate, window = self.gate, self.window
        ticket.number, ticket.sent_tokens = gate.send(now, ticket.tokens)
        ticket.out, ticket.went = gate.out, now
        if not (window.fixed or gate.closed or gate.opening):
            ticket.cohort = window.started(now, gate.out, gate.limit(window.size))
        return True

    def leave(self, ticket: Ticket) -> None:
        """Give up a place in line."""
        if ticket.booking is None:
            self._waiting.remove(ticket)
        else:
            self.unbook()
            self._waiting.remove(ticket)

    def unbook(self) -> None:
        """Take back all times that were given out and not used; their holders are first in line again, in their order."""
        if self._booked:
            first = next((ticket.booking for ticket in self._booked if not ticket.overtaken), None)
            if first is not None:
                self.rate.undo(first)
            for ticket in self._booked:
                if ticket.overtaken:
                    # A later time has been used already, so this one cannot be undone; what it took is given back.
                    self.rate.refund(1, ticket.taken)
                ticket.booking, ticket.overtaken = None, False
            self._waiting.extendleft(reversed(self._booked))
            self._booked.clear()
            self._booked_tokens = 0

    def wake_all(self) -> None:
        """Wake everybody in line."""
        for ticket in (*self._waiting, *self._booked):
            if ticket.wake:
                ticket.wake()

    def cancel(self, ticket: Ticket) -> None:
        """Nothing was sent: everything that was taken is given back."""
        self.gate.unsend(ticket.number)
        self.window.lost(ticket.cohort, ticket.went)
        self.rate.refund(1, ticket.taken)

    def done(self, now: float, ticket: Ticket, seconds: float, hints: Hints, used: int | None) -> None:
        """An answer came.

        Args:
            now: Monotonic seconds.
            ticket: Whose.
            seconds: What the attempt took.
            hints: What the headers said.
            used: Tokens it really used; None when the server did not say.
        """
        self.gate.answered(now, self.window.size, ticket.number)
        self._hear(now, hints, ticket)
        self.window.ended(now, ticket.cohort, ticket.went, seconds, ticket.out)
        if used is not None:
            self._settle(now, ticket, used)

    def failed(self, now: float, ticket: Ticket, error: CallError) -> bool:
        """No answer came.

        Returns:
            Whether the attempt counts against its row.
        """
        self.window.lost(ticket.cohort, ticket.went)
        if error.hints is not None:
            self._hear(now, error.hints, ticket)
        if not isinstance(error, Transient):
            self.gate.answered(now, self.window.size, ticket.number)
            return True
        was_open = not self.gate.closed
        probe_failed = self.gate.is_probe(ticket.number)
        size = self.window.size
        excess = False
        if not probe_failed and isinstance(error, (Throttled, TimedOut)):
            # More may have come before it than were out when it went, and fewer are out now when others were answered.
            excess = self.window.refused(now, max(self.out, ticket.out), ticket.went) and not self.gate.opening
        charged = self.gate.failed(now, error, ticket.number, size, self.permits, excess)
        if self.gate.closed and (was_open or probe_failed):
            self.unbook()
            if isinstance(error, Throttled) and error.hints and error.hints.retry_after is not None:
                self.rate.rest(self.gate.until)
        if probe_failed and isinstance(error, Throttled):
            self.window.excused()
        elif was_open and self.gate.storm:
            self.window.stormed()
        return charged

    def _hear(self, now: float, hints: Hints, ticket: Ticket) -> None:
        if self.gate.hear(now, hints, ticket.number, ticket.sent_tokens):
            self.unbook()

    def _settle(self, now: float, ticket: Ticket, used: int) -> None:
        self.rate.settle(ticket.taken, used)
        if ticket.tokens:
            # Whoever estimates by `max_tokens` is far too high every time; reserving that would leave most of the limit unused.
            self._estimated = 0.98 * self._estimated + ticket.tokens
            self._used = 0.98 * self._used + used
        # A time far ahead was reckoned with the estimate; it is given anew.
        if used < ticket.taken and self._booked and (last := self._booked[-1].booking) and last.at > now + HORIZON:
            self.unbook()
