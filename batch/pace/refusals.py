"""What refusals say about the number of attempts that may be out at once."""

from __future__ import annotations

Place = tuple[str, int, int | None]
"""What the window was doing, at which size, and the number that refusals left it then."""

PRICE = 64
"""So many are let in for each refusal of an overload before a larger number is tried …"""

SMALL = 16
"""… or so many for each that may be out, where these are few, for there one more makes much of a difference …"""

RARELY = 64
"""… and so many times as many at most when larger ones are refused again and again."""

DOUBT = 8
"""So many let in at a number where one is refused nonetheless make it doubtful that the number is what is refused …"""

SOON = 2 * PRICE
"""… when they are fewer than this: at the very limit, too, one is refused now and then."""

TEST = 0.8
"""Of a doubtful number is tried then. A server that refuses whatever is too much refuses nothing there."""


class Refusals:
    """The largest number at which nothing is refused, and whether it is the number at all that is refused.

    Those refused that went before the first of them was heard are one overload, and each of them was one too many. After it one
    more is tried; two, four, … more while that goes well, or none for twice as long each time it does not. When one is refused
    at a number that was held, that one is taken back, too; when it happens again soon, a fifth less is held for a while: a
    server that refuses there as well does so at random.

    Attributes:
        number: The most that may be out; None while refusals say nothing about it.
        random: Whether the server refuses at random: then they say nothing.
        step: How many more are tried next.
        blamed: Where to return to when it was never the number.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.random = False
        self.step = 1
        self.blamed: Place = ("ramp", 1, None)
        self._before: Place | None = None
        self._heard = float("-inf")
        self._grown = False
        self._least = 1
        self._let_in = 0
        self._tried = 0
        self._owed = 0
        self._interval = 1
        self._back = 0
        self._tests = 0
        self._enough = 1

    @property
    def due(self) -> bool:
        """Whether more may be tried."""
        return self._let_in - self._tried >= self._owed * min(PRICE, SMALL * (self.number or 1))

    def answered(self, went: float, out: int) -> None:
        """One that went then, with which so many were out, was let in."""
        if went > self._heard:
            self._before = None
            if self.number is not None and out >= 0.75 * self.number:
                self._let_in += 1

    def refused(self, now: float, went: float, out: int, size: int, place: Place, home: int | None) -> bool:
        """One was refused: `number` is another one now, unless refusals say nothing.

        Args:
            now: Monotonic seconds.
            went: When it went.
            out: How many were out until now, or when it went, this one included.
            size: The window's.
            place: Where to return to if the number was not at fault.
            home: The number that was let in before, if the window has just grown from it.

        Returns:
            Whether it was one of those by which the window had just grown, and the lower number is all it takes.
        """
        if not self.random and went >= self._heard and self._before is None:
            self._overload(now, min(out, size), size, place, home)
        if self.number is None:
            return False
        number = max(1, self._least, self.number - 1)
        expected = self._grown and number < self.number
        self.number = number
        self._owed += 1
        return expected

    def _overload(self, now: float, out: int, size: int, place: Place, home: int | None) -> None:
        if home is not None or self._let_in >= SOON:
            self._tests = 0
        elif self._let_in >= DOUBT:
            self._tests += 1
        if self._tests > self._enough:
            # So much lower, and still one is refused of those let in.
            self.random, self.number, self._tests = True, None, 0
            return
        self._before = place
        if self.number is None:
            self.blamed = place
        self._interval = min(RARELY, 2 * self._interval) if home is not None and self.number else 1
        self._heard, self._grown = now, home is not None
        self._least = size // 2 if home is None else home
        self._back, self.number, self.step = 0, out, 1
        if self._tests:
            self._back, self.number = out - 1, round(TEST * out)
            self.step = max(1, self._back - self.number + 1)
        self._let_in, self._tried, self._owed = 0, 0, self._interval

    def widened(self, size: int) -> None:
        """More were tried, and let in."""
        self.number = size
        self._tried, self._owed, self._interval = self._let_in, 1, 1
        self.step = 1 if size <= self._back else min(2 * self.step, max(1, size // 8))

    def in_vain(self) -> None:
        """More were tried, and nothing came of it."""
        self._interval = min(RARELY, 2 * self._interval)
        self._tried, self._owed = self._let_in, self._interval

    def look(self) -> None:
        """The server is another one now: more may be tried at once."""
        self._owed = 0

    def stormed(self) -> None:
        """Refusals became so many that the gate was closed, so they do depend on what is sent."""
        # It takes more to be convinced of the contrary the next time.
        self._enough = 2 * self._enough if self.random else max(2, self._enough)
        self.random, self._let_in, self._tried = False, 0, 0

    def excused(self) -> Place | None:
        """The number was not at fault; where to return to, if it was lowered and nobody has been let in since."""
        place, self._before = self._before, None
        if place is not None:
            self.number = place[2]
        return place
