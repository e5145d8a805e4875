"""`Pace`: threads, a lock and a clock around the line."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from random import Random
from threading import Event, Lock
from typing import Literal

from ..clock import SYSTEM, Clock
from ..errors import CallError, Outage
from ..records import Reply
from .gate import Gate
from .line import Line, Ticket
from .rate import Rate
from .state import Bound, PaceState, Stopped
from .window import CROWDED, Window

LONG = 3_600.0
"""Seconds that somebody sleeps who will be woken."""


class Turn:
    """One attempt that may be sent now. It ends with exactly one of `done`, `failed` and `cancel`."""

    __slots__ = ("_pace", "_ticket")

    def __init__(self, pace: Pace, ticket: Ticket) -> None:
        self._pace = pace
        self._ticket = ticket

    def done(self, reply: Reply) -> None:
        """An answer came; its token usage takes the place of the estimate."""
        self._pace._done(self._ticket, reply)

    def failed(self, error: CallError) -> bool:
        """No answer came.

        Returns:
            Whether the attempt counts against the row's attempts.
        """
        return self._pace._failed(self._ticket, error)

    def cancel(self) -> None:
        """Nothing was sent: what was taken is given back."""
        self._pace._cancel(self._ticket)


class Place:
    """A place in line for one attempt, for somebody who does not wait there.

    Args:
        pace: Whose line.
        tokens: The estimate for prompt and answer.
        wake: Called, from any thread and with the line locked, when it is worth looking before the time that was told.
    """

    __slots__ = ("_pace", "_ticket", "_tokens", "_wake")

    def __init__(self, pace: Pace, tokens: int, wake: Callable[[], object]) -> None:
        self._pace = pace
        self._tokens = tokens
        self._wake = wake
        self._ticket: Ticket | None = None

    def turn(self) -> Turn | float:
        """The turn where it has come, else the seconds after which to look again; the first look takes the place.

        Raises:
            TooLarge, Stopped, Outage: As by `Pace.turn`; the place is given up.
        """
        pace = self._pace
        with pace._lock:
            try:
                pace._turn_away()
                now = pace._clock.monotonic()
                ticket = self._ticket = self._ticket or pace._line.join(self._tokens)
                pause = pace._step(now, ticket)
            except BaseException:
                self._leave()
                raise
            if pause is None:
                return Turn(pace, ticket)
            ticket.wake = self._wake
            return pause

    def leave(self) -> None:
        """Give the place up."""
        with self._pace._lock:
            self._leave()

    def _leave(self) -> None:
        if self._ticket:
            self._pace._line.leave(self._ticket)
            self._ticket = None
            self._pace._advance(self._pace._clock.monotonic())


class Pace:
    """When the next request may go, for all workers together.

    Args:
        rpm: Requests a minute; None for no limit.
        tpm: Tokens a minute, prompt and answer together; None for no limit.
        burst: Seconds' worth of both limits that may go at once after a lull; by default a hundredth, and at least one request.
        concurrency: Rows in flight at most; None to find the number of attempts that the server sustains.
        ceiling: The most rows in flight when the number is found.
        max_outage: Seconds without success that a closed gate is waited at.
        rate: Limits that are kept elsewhere, in the place of `rpm`, `tpm` and `burst`.
        clock: Time.
        seed: Of the jitter.
        cpu: Seconds of processor time that this process has used.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        burst: float | None = None,
        concurrency: int | None = None,
        ceiling: int = 1000,
        max_outage: float = 1800.0,
        rate: Rate | None = None,
        clock: Clock = SYSTEM,
        seed: int | None = None,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._max_outage = max_outage
        self._lock = Lock()
        self._line = Line(rate or Rate(rpm, tpm, burst), Gate(max_outage, Random(seed)), Window(concurrency, ceiling, cpu))  # noqa: S311 jitter
        self._cpu = cpu
        self._looked = clock.monotonic(), cpu()
        self._busy = False
        self._applicants: deque[Event] = deque()
        self._again: Callable[[], object] | None = None
        self._stopped = False
        self._outage = ""

    # The window: a row is in flight from just before its request until its answer is durable.

    def acquire(self) -> bool:
        """Wait until one more row may be in flight.

        Returns:
            True with a permit; False once the run stops or the server was away for too long.
        """
        with self._lock:
            admitted = self._entry()
            if admitted is not None:
                return admitted
            event = Event()
            self._applicants.append(event)
        try:
            while not self._clock.wait(event, LONG):
                pass
        except BaseException:
            with self._lock:
                if event in self._applicants:
                    self._applicants.remove(event)
                elif not (self._stopped or self._outage):
                    self._line.release(1)
                self._admit()
            raise
        return not (self._stopped or self._outage)

    def ask(self, again: Callable[[], object]) -> bool | None:
        """Have one more row in flight, without waiting.

        Args:
            again: Called once, from any thread and with the line locked, when it is worth asking again.

        Returns:
            True with a permit; False once the run stops or the server was away for too long; None to ask again.
        """
        with self._lock:
            admitted = self._entry()
            if admitted is None:
                self._again = again
            return admitted

    def _entry(self) -> bool | None:
        """A permit, where there is one now; False where there will be none."""
        if self._stopped or self._outage:
            return False
        if self._applicants or not self._line.admits():
            return None
        self._line.admit()
        return True

    def release(self, n: int = 1) -> None:
        """So many rows are durable, or given up."""
        with self._lock:
            self._line.release(n)
            self._admit()

    def _admit(self) -> None:
        while self._applicants and self._line.admits():
            self._line.admit()
            self._applicants.popleft().set()
        if self._again and self._line.admits():
            again, self._again = self._again, None
            again()

    # One attempt

    def turn(self, tokens: int = 0) -> Turn:
        """Wait, first come first served, until one attempt may be sent.

        Args:
            tokens: The estimate for prompt and answer.

        Raises:
            TooLarge: More tokens than the limit of a minute.
            Stopped: The run is being stopped.
            Outage: The server was away for longer than `max_outage`.
        """
        event = Event()
        place = self.place(tokens, event.set)
        try:
            while not isinstance(turn := place.turn(), Turn):
                self._clock.wait(event, turn)
                event.clear()
        except BaseException:
            place.leave()
            raise
        return turn

    def place(self, tokens: int, wake: Callable[[], object]) -> Place:
        """A place in line, to be looked after by somebody who does not wait there; see `Place`."""
        return Place(self, tokens, wake)

    def _turn_away(self) -> None:
        if self._stopped:
            raise Stopped("the run is being stopped")
        if self._outage:
            raise Outage(self._outage)

    def _step(self, now: float, ticket: Ticket) -> float | None:
        """Move the line; None when this ticket goes, else how long its holder may sleep."""
        self._advance(now)
        if self._line.go(now, ticket):
            if self._line.head is not None:
                self._advance(now)
            return None
        if self._outage:
            raise Outage(self._outage)
        if ticket.booking is not None:
            return ticket.booking.at - now
        return min(ticket.timer - now, LONG)

    def _advance(self, now: float) -> None:
        line = self._line
        if line.gate.away(now):
            self._give_up()
            return
        told, again = line.advance(now)
        for ticket in told:
            if ticket.wake:
                ticket.wake()
        head = line.head
        if head is not None:
            if head.wake and again < head.timer:
                head.wake()
            head.timer = again
        if self._applicants or self._again:
            self._admit()

    def _give_up(self) -> None:
        if not self._outage:
            self._outage = (
                f"no success for {self._max_outage:.0f} s, last: {self._line.gate.why}; run the same command again later"
            )
            self._wake_all()

    def _wake_all(self) -> None:
        for event in self._applicants:
            event.set()
        self._applicants.clear()
        self._line.wake_all()
        if self._again:
            self._again()
            self._again = None

    def _done(self, ticket: Ticket, reply: Reply) -> None:
        answer = reply.answer
        used = None if answer.prompt_tokens is None else answer.prompt_tokens + (answer.completion_tokens or 0)
        with self._lock:
            now = self._clock.monotonic()
            self._line.done(now, ticket, reply.seconds, reply.hints, used)
            self._advance(now)

    def _failed(self, ticket: Ticket, error: CallError) -> bool:
        with self._lock:
            now = self._clock.monotonic()
            charged = self._line.failed(now, ticket, error)
            self._advance(now)
            return charged

    def _cancel(self, ticket: Ticket) -> None:
        with self._lock:
            self._line.cancel(ticket)
            self._advance(self._clock.monotonic())

    # From outside

    def stop(self) -> None:
        """Wake everybody who waits: `acquire` answers False and `turn` raises `Stopped`. What is out may still end."""
        with self._lock:
            self._stopped = True
            self._wake_all()

    def set(
        self,
        *,
        rpm: float | Literal["keep"] | None = "keep",
        tpm: float | Literal["keep"] | None = "keep",
        concurrency: int | Literal["keep"] | None = "keep",
        paused: bool | None = None,
    ) -> None:
        """New limits from now on, in the units of the constructor; what is not named stays.

        Args:
            rpm: Requests a minute.
            tpm: Tokens a minute.
            concurrency: Rows in flight at most.
            paused: True to send nothing new until False is set.
        """
        with self._lock:
            now = self._clock.monotonic()
            line = self._line
            line.unbook()
            line.rate.set(now, line.rate.rpm if rpm == "keep" else rpm, line.rate.tpm if tpm == "keep" else tpm)
            if concurrency != "keep":
                line.window.set(concurrency)
            if paused is not None:
                line.paused = paused
            self._advance(now)

    @property
    def width(self) -> int:
        """How many workers are of use now: those the window lets out, and some that wait out a backoff meanwhile."""
        window = self._line.window
        return window.size if window.fixed else min(window.most, window.size + window.size // 4 + 4)

    def state(self) -> PaceState:
        """What the pace is doing now."""
        with self._lock:
            now = self._clock.monotonic()
            line = self._line
            self._advance(now)
            since, spent = self._looked
            if now - since >= 1.0:
                self._looked = now, self._cpu()
                self._busy = (self._looked[1] - spent) / (now - since) >= CROWDED
            head = line.head
            held = line.blocked in ("gate", "pause") and not line.gate.opening
            return PaceState(
                open=not held and not line.gate.closed,
                opens_in=max(0.0, head.timer - now) if held and head is not None else 0.0,
                why="paused" if line.paused else line.gate.why,
                in_flight=line.permits,
                out=line.out,
                waiting=len(line),
                window=line.window.size,
                bound_by=self._bound(),
            )

    def _bound(self) -> Bound:
        line = self._line
        if line.blocked in ("rpm", "tpm"):
            return "rpm" if line.blocked == "rpm" else "tpm"
        if line.gate.closed or line.blocked == "gate":
            return "server"
        if self._busy:
            return "cpu"
        if line.out < line.window.size and not self._applicants:
            return "input"
        if line.window.fixed:
            return "concurrency"
        return "server" if line.window.found else "latency"
