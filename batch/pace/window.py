"""How many attempts may be out at once: a fixed number, or the endpoint's own, found from latency, throughput and refusals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from .cohort import Cohort, Mean
from .refusals import Place, Refusals

START = 4
"""The first number: more could be thrice the capacity of a small server."""

GROWTH = 3
"""Places added with each answer on the way to a larger number, so that a refusal is heard before all of them are used."""

SLACK = 1.2
"""The number held, in terms of the server's capacity, so that no place stands empty between an answer and the next request."""

BUSY = 0.85
"""Of one core: a client that is this busy measures itself, not the server."""

CROWDED = 0.7
"""Of one core. A process that uses more is held back by its interpreter lock, and more threads than keep it busy only take it
out of each other's hands."""


class Window:
    """The number of attempts that may be out at once.

    By Little's law throughput is the number out over the mean latency, so comparing latencies compares throughputs. Sizes are
    compared by cohorts: attempts that went while the window was full, so that a run which something else holds back never
    grows. The size doubles while that pays (`ramp`), then holds a little above what the server takes at once; a larger one is
    tried at growing intervals (`up`), and when latency jumps a smaller one tells whether the server queues or has become slower
    (`dip`). Where the server refuses what is too much, `Refusals` tell the number.

    Args:
        fixed: A number that is simply kept; None to find one.
        ceiling: The most there may ever be.
        cpu: Seconds of processor time this process has used.
    """

    def __init__(self, fixed: int | None, ceiling: int = 1000, cpu: Callable[[], float] = time.process_time) -> None:
        self._cpu = cpu
        self._ceiling = ceiling
        self._refusals = Refusals()
        self._phase = "ramp"
        self._base: Mean | None = None
        self._held: Mean | None = None
        self._home = 0
        self._peak = 0.0
        self._peak_size = 0
        self._down = False
        self._interval = 0.0
        self._next_check = 0.0
        self._numbers = 0
        self._ends = 0
        self._rate = 0.0
        self.busy = False
        self.fixed = fixed is not None
        self.size = self._target = 0
        self._cohort: Cohort | None = None
        self.set(fixed)

    def set(self, fixed: int | None) -> None:
        """Keep this number from now on; None to find one."""
        self.fixed = fixed is not None
        self.size = self._target = fixed if fixed is not None else min(START, self._ceiling)
        self._cohort = None
        self._phase, self._base, self._refusals = "ramp", None, Refusals()
        self._peak = self._interval = 0.0

    @property
    def most(self) -> int:
        """The most rows in flight."""
        return self.size if self.fixed else self._ceiling

    @property
    def found(self) -> bool:
        """Whether the server's own number is what holds the window."""
        return not self.fixed and self._phase != "ramp"

    def started(self, now: float, out: int, most: float) -> int:
        """One attempt goes.

        Args:
            now: Monotonic seconds.
            out: How many are out with it.
            most: How many the gate lets be out, which may be fewer than the window's size.

        Returns:
            The cohort it belongs to; -1 for none.
        """
        # While the size doubles, those that go at the upper end tell already; and at first any, for it is small.
        full = 0.9 * self._target
        if self._phase == "ramp":
            full = 0.7 * self._target if self._base else 1
        if self._refusals.number is None:
            full *= min(1.0, most / self.size)
        elif self._phase == "up":
            full = max(full, self._home + 1)
        if self.fixed or out < full:
            return -1
        cohort = self._cohort
        if cohort is None:
            self._numbers += 1
            cohort = self._cohort = Cohort(self._numbers, self._target, self._wanted(), self._ends, self._cpu(), now)
        if cohort.joined >= cohort.wanted:
            return -1
        cohort.joined += 1
        cohort.outs += out
        cohort.outstanding += 1
        cohort.starts += now
        return cohort.number

    def _wanted(self) -> int:
        size = self._target
        if self._phase == "ramp":
            return max(size // 2, START)
        if self._phase == "dip":
            return max(2 * size, 24)
        enough = 40 if self._phase == "hold" else 80
        return max(2 * size, enough if self._refusals.number is None else min(8 * size, enough))

    def lost(self, cohort: int, went: float) -> None:
        """An attempt ended without telling a latency."""
        c = self._cohort
        if c is not None and cohort == c.number:
            c.outs -= c.outs // c.joined
            c.joined -= 1
            c.outstanding -= 1
            c.starts -= went

    def ended(self, now: float, cohort: int, went: float, seconds: float, out: int) -> None:
        """An attempt, with which so many were out, brought an answer after so many seconds."""
        if self.fixed:
            return
        self._ends += 1
        self._refusals.answered(went, out)
        if self.size < self._target:
            self.size = min(self._target, self.size + GROWTH)
        c = self._cohort
        if c is None or cohort != c.number:
            return
        c.outstanding -= 1
        c.starts -= went
        c.latency.add(seconds)
        if c.latency.n >= math.ceil((0.75 if self._phase == "ramp" else 0.9) * c.wanted):
            self._judge(now, c)

    def _judge(self, now: float, c: Cohort) -> None:
        here = c.estimate(now)
        elapsed = now - c.since
        self.busy = elapsed > 0 and (self._cpu() - c.cpu) / elapsed >= BUSY
        if self._phase == "ramp":
            self._judge_ramp(now, c, here)
        elif self._phase == "hold":
            self._judge_hold(now, c, here)
        elif self._phase == "up":
            self._judge_up(now, c, here)
        else:
            self._judge_dip(now, c, here)

    def _more(self, c: Cohort, ratio: float, threshold: float, error: float, most: int) -> bool:
        """Ask for a larger cohort while the ratio may yet come to lie on the threshold's other side."""
        if c.wanted < most and abs(ratio - threshold) < error:
            c.wanted += max(8, c.wanted // 2)
            return True
        return False

    def _move(self, phase: str, size: float) -> None:
        most = self._ceiling
        if self._refusals.number is not None and phase != "up":
            most = min(most, self._refusals.number)
        target = max(1, min(most, round(size)))
        self._phase, self._target = phase, target
        self.size = min(self.size, target)
        self._cohort = None

    def _hold(self, now: float, size: float) -> None:
        self._held = None
        self._move("hold", size)
        self._home = self._target
        self._next_check = now + self._interval

    def _judge_ramp(self, now: float, c: Cohort, here: Mean) -> None:
        rate = (self._ends - c.ends) / max(now - c.since, 1e-9)
        if self.busy and rate < 1.15 * self._rate:
            # Whatever keeps this machine busy, a larger number is worth while only as long as more comes of it.
            self._cohort = None
            return
        if self._base is None:
            # However uncertain: the next sizes, which want to be sure of theirs, make it better.
            self._base, ratio = Mean(), 1.0
        else:
            ratio = here.mean / self._base.mean
            error = math.hypot(here.error, self._base.error)
            # More than four times as many as it is held against would tell no more.
            if self._more(c, ratio, 1.4, error * ratio, min(max(48, 4 * c.size), 4 * self._base.n)):
                return
            if ratio >= 1.4 and self.busy:
                self._cohort = None
                return
            if ratio >= 1.4 > ratio * (1 - error) and c.size < 4 * START:
                # Still nobody knows, and a number this small does no harm: the next size tells better.
                self._move("ramp", 1.5 * c.size)
                return
            if ratio >= 1.4:
                if here.error > 0.04 and self._more(c, 0.0, 0.0, 1.0, 2 * c.size):
                    return
                # What the server answered meanwhile it can do, whatever the latencies of a queue that still grows say.
                self._peak, self._peak_size = max(c.out / here.mean, rate), c.size
                if ratio > 1.6 and c.size == 2 * START:
                    # The first size may have been too large already.
                    self._held = here
                    self._home = c.size
                    self._move("dip", START / 2)
                elif ratio > 2.5:
                    # More than the growth can have done: the server has become slower since.
                    self._dip(c, here, self._peak)
                else:
                    self._hold(now, c.out / ratio * SLACK + 1)
                return
        self._base.merge(here)
        if c.size >= self._ceiling:
            self._hold(now, c.size)
        else:
            self._rate = rate
            self._move("ramp", c.size * (2 if ratio < 1.25 else 1.5))

    def _judge_hold(self, now: float, c: Cohort, here: Mean) -> None:
        if self._peak:
            # A larger number was faster a moment ago? Then what the server takes at once was reckoned too low.
            gain = self._peak * here.mean / c.out
            if here.error > 0.05 and self._more(c, gain, 1.03, 1.5 * here.error, 200):
                return
            self._peak = 0.0
            if 1.03 < gain < 1.5 and not self.busy:
                self._hold(now, min(c.size * gain + 1, self._peak_size))
                return
        self._cohort = None
        refusals = self._refusals
        if self._held is None:
            self._held = here
        elif not self.busy:
            shift = here.mean / self._held.mean
            if shift > 1.4 + 2 * here.error:
                if c.size > 1 and refusals.number is None:
                    # If it is the server that changed, a larger number may have become the right one.
                    self._interval, self._down = 0.0, False
                    self._dip(c, here)
                    return
                self._held = here
            elif shift < 0.7:
                self._held = here
                self._next_check = min(self._next_check, now)
                refusals.look()
            elif self._held.n < 2000:
                self._held.merge(here)
        if self.busy or c.size >= self._ceiling:
            return
        if refusals.number is not None:
            if refusals.due and self._held.error < 0.1:
                self._move("up", c.size + refusals.step)
        elif now >= self._next_check and self._held.error < (0.03 if self._interval else 0.1):
            if self._down and c.size > 1:
                self._down = False
                self._interval = min(300.0, max(10.0, 2 * self._interval))
                self._dip(c, self._held)
                return
            self._down = True
            self._move("up", c.size + max(1, 0.4 * c.size))

    def _dip(self, c: Cohort, held: Mean, peak: float = 0.0) -> None:
        self._held, self._home = held, c.size
        self._peak, self._peak_size = max(c.out / held.mean, peak), c.size
        self._move("dip", 0.6 * c.size)

    def _judge_up(self, now: float, c: Cohort, here: Mean) -> None:
        assert self._held is not None
        step = c.size / self._home - 1
        gain = c.size / self._home * self._held.mean / here.mean - 1
        error = math.hypot(here.error, self._held.error)
        refused = self._refusals.number is not None
        if refused:
            pays = here.mean < (1.15 + 2 * error) * self._held.mean
        else:
            error *= 1 + gain
            # To go on wrongly fills the server's queue, to turn back wrongly leaves it idle: both want to be sure. More than
            # four times as many as it is held against would tell no more; then half of what was hoped for decides.
            sure, threshold = (1.5, 0.2 * step) if gain > 0.2 * step else (2.5, step)
            if self._more(c, gain, threshold, sure * error, min(max(1500, 4 * c.size), 4 * self._held.n)):
                return
            pays = gain > (0.5 if abs(gain - threshold) < sure * error else 0.2) * step
        if not pays or self.busy:
            self._interval = min(300.0, max(10.0, 2 * self._interval))
            self._refusals.in_vain()
            held = self._held
            self._hold(now, self._home)
            self._held = held
            return
        self._interval = 0.0
        if refused:
            self._refusals.widened(c.size)
            self._hold(now, c.size)
        elif gain > 0.8 * step:
            self._base = here
            self._base.merge(self._held)
            self._move("ramp", 2 * c.size)
        elif c.size >= self._ceiling:
            self._hold(now, c.size)
        else:
            self._held, self._home = here, c.size
            self._move("up", c.size + max(1, 0.4 * c.size))

    def _judge_dip(self, now: float, c: Cohort, here: Mean) -> None:
        assert self._held is not None
        ratio = self._held.mean / here.mean
        threshold = 0.8 * self._home / c.size
        error = math.hypot(here.error, self._held.error)
        if self._more(c, ratio, threshold, error * ratio, max(48, 2 * c.size)):
            return
        if ratio > threshold and c.size > 1:
            # Fewer out and the same throughput: still a queue.
            self._held, self._home = here, c.size
            self._move("dip", 0.6 * c.size)
        else:
            self._hold(now, min(self._peak_size, self._peak * here.mean * SLACK + 1))

    def refused(self, now: float, out: int, went: float) -> bool:
        """The server refused an attempt, or let it wait for ever.

        Args:
            now: Monotonic seconds.
            out: How many were out until now, or when it went, this one included.
            went: When this one went.

        Returns:
            Whether it was one of those by which the number had just grown, and the lower number is all it takes.
        """
        if self.fixed:
            return False
        refusals, random = self._refusals, self._refusals.random
        place: Place = ("hold", self._home, refusals.number)
        home: int | None = None
        if self._phase == "ramp":
            place, home = ("ramp", self._target, None), self.size // 2
        elif self._phase == "up" and out > self._home:
            home = self._home
        expected = refusals.refused(now, went, out, self.size, place, home)
        if refusals.random and not random:
            self._return(refusals.blamed)
        elif refusals.number is not None:
            self._hold(now, refusals.number)
        return expected

    def stormed(self) -> None:
        """The server refused so many that the gate was closed."""
        self._refusals.stormed()

    def excused(self) -> None:
        """A probe was refused as well: the server refuses everything, so the number was not at fault."""
        place = self._refusals.excused()
        if place is not None:
            self._return(place)
            self.size = self._target

    def _return(self, place: Place) -> None:
        self._phase, self._target, _ = place
        self._home = self._target
        self.size = min(self.size, self._target)
        self._cohort = None
