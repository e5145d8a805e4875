"""How far a run is: a bar on a terminal, a line a minute elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from ..tally import Snapshot

if TYPE_CHECKING:
    from .bar import Bar

EVERY = 60.0
"""Seconds between lines where there is no terminal."""

LOOK_BACK = 60.0
"""Seconds of the past from which the rest is reckoned."""


class Speed:
    """How fast rows come to their end by being asked; those that were answered before, or cannot be asked, do not count.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, now: Snapshot) -> float | None:
        """Rows a second over the last minute; None before the first one."""
        # Of what is done some was read as failed; of what was sent some has come to no end yet.
        asked, at = min(now.done - now.cached, now.requests - now.retries), self._clock()
        if not asked:
            self._seen.clear()  # what it took to read rows that need no asking says nothing of the others
        self._seen.append((at, asked))
        while len(self._seen) > 1 and at - self._seen[1][0] >= LOOK_BACK:
            self._seen.popleft()
        since, before = self._seen[0]
        return (asked - before) / (at - since) if asked and at > since else None


class Words(NamedTuple):
    """A part of what a bar says.

    Attributes:
        weight: The part with the least makes room first.
    """

    weight: int
    text: str


def joined(words: Sequence[Words]) -> str:
    """Words as they are shown."""
    return ", ".join(one.text for one in words)


class Progress:
    """Shows snapshots of a run on standard error.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._speed = Speed()
        self._terminal = sys.stderr.isatty()
        self._begun = self._said = time.monotonic()
        self._gone = False
        self._told = False

    def __call__(self, now: Snapshot) -> None:
        """Show this."""
        if self._quiet or self._gone:
            return
        try:
            speed = self._speed(now)
            if self._terminal:
                self._draw(now, speed)
            elif time.monotonic() - self._said >= EVERY:
                self._said = time.monotonic()
                print(self._line(now, speed), file=sys.stderr, flush=True)
        except OSError:
            self._gone = True  # nobody is looking any more; the run goes on

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None and not self._gone:
            self._bar.close()

    def _draw(self, now: Snapshot, speed: float | None) -> None:
        if self._bar is None:
            from .bar import Bar  # here, because tqdm is of use to a terminal alone

            self._bar = Bar(total=now.total, unit="row", dynamic_ncols=True, file=sys.stderr)
        bar = self._bar
        bar.total, bar.n, bar.speed, bar.words = now.total, now.done, speed, said(now)
        if now.stopping and now.in_flight and not self._told:
            self._told = True
            bar.write(f"ails-batch: stopping; Ctrl-C now leaves the {now.in_flight} in flight", file=sys.stderr)
        bar.refresh()

    def _line(self, now: Snapshot, speed: float | None) -> str:
        minutes = (time.monotonic() - self._begun) / 60
        of = f" of {now.total}" if now.total else ""
        left = f", {(now.total - now.done) / speed / 60:.0f} min left" if speed and now.total else ""
        return f"ails-batch: {now.done}{of} rows after {minutes:.0f} min{left}, {joined(said(now))}"


def said(now: Snapshot) -> list[Words]:
    """What a bar says of a run beside its figures, in the order in which it is shown."""
    words = []
    if tokens := now.prompt_tokens + now.completion_tokens:
        words.append(Words(1, f"{_short(tokens)} tokens"))
    if now.cost_usd is not None:
        words.append(Words(4, f"${now.cost_usd:.2f}"))
    if now.failed:
        words.append(Words(5, f"{now.failed} failed"))
    if now.retries:
        words.append(Words(2, f"{now.retries} retries"))
    if now.waiting:
        words.append(Words(6, now.waiting))
    elif now.bound:
        words.append(Words(3, f"bound by {now.bound}"))
    return words


def _short(number: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
