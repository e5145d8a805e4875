"""What the headers of responses leave of a server's limits."""

from __future__ import annotations

import msgspec

from ..records import Hints

CAP = 120.0
"""Seconds a single `Retry-After` or reset is believed; after them a probe asks again."""


class Allowance(msgspec.Struct):
    """What a response's headers leave of a limit: so much may be sent in all until it is renewed.

    Attributes:
        until: When it is renewed.
        total: So many may have been sent by then, counted from the beginning of the run.
        heard: The number of the request whose response said so.
        most: The most that was ever left; after a renewal, and before the next response, no more than this may go.
        length: The longest that a renewal was ever away.
    """

    until: float
    total: float
    heard: int
    most: float
    length: float

    def wait(self, now: float, sent: float, more: float) -> float:
        """When so many more may be sent: now, or at the renewal."""
        if now >= self.until:
            self.until, self.total = now + self.length, sent + max(self.most, more)
        return now if sent + more <= self.total else self.until

    def renew(self, now: float, number: int, sent: float, remaining: float, reset: float) -> None:
        """Hear more, from the response to the request of this number; late news do not replace newer ones."""
        self.most, self.length = max(self.most, remaining), max(self.length, reset)
        if number >= self.heard:
            self.until, self.total, self.heard = now + reset, sent + remaining, number


class Allowances:
    """Those of requests and of tokens; false while nothing was heard of either."""

    __slots__ = ("_requests", "_tokens")

    def __init__(self) -> None:
        self._requests: Allowance | None = None
        self._tokens: Allowance | None = None

    def __bool__(self) -> bool:
        return self._requests is not None or self._tokens is not None

    def wait(self, now: float, sent: float, requests: float, sent_tokens: float, tokens: float) -> float:
        """When so many more requests and tokens may be sent, of which so many were sent already."""
        at = now
        if self._requests is not None:
            at = self._requests.wait(now, sent, requests)
        if self._tokens is not None:
            at = max(at, self._tokens.wait(now, sent_tokens, tokens))
        return at

    def hear(self, now: float, hints: Hints, sent: int, sent_tokens: float) -> bool:
        """What one response says, to the request that was number `sent`; whether it says anything.

        A remaining number without a reset that lies ahead says nothing. The limits themselves are not taken as rates: some
        count a day, some are not the binding ones.
        """
        news = False
        if hints.remaining_requests is not None and hints.reset_requests:
            self._requests = _newer(self._requests, now, sent, sent, hints.remaining_requests, hints.reset_requests)
            news = True
        if hints.remaining_tokens is not None and hints.reset_tokens:
            self._tokens = _newer(self._tokens, now, sent, sent_tokens, hints.remaining_tokens, hints.reset_tokens)
            news = True
        return news


def _newer(old: Allowance | None, now: float, number: int, sent: float, remaining: float, reset: float) -> Allowance:
    reset = min(reset, CAP)
    if old is None:
        return Allowance(now + reset, sent + remaining, number, remaining, reset)
    old.renew(now, number, sent, remaining, reset)
    return old
