"""How far a run is: a bar on a terminal, a line a minute elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ..tally import Snapshot

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


class Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """tqdm's bar with a speed of ours."""

    speed: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is shown."""
        return {**super().format_dict, "rate": self.speed or 0.0}


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
            self._bar = Bar(total=now.total, unit="row", dynamic_ncols=True, file=sys.stderr)
        bar = self._bar
        bar.total, bar.n, bar.speed = now.total, now.done, speed
        bar.set_postfix_str(self._words(now))

    def _line(self, now: Snapshot, speed: float | None) -> str:
        minutes = (time.monotonic() - self._begun) / 60
        of = f" of {now.total}" if now.total else ""
        left = f", {(now.total - now.done) / speed / 60:.0f} min left" if speed and now.total else ""
        return f"ails-batch: {now.done}{of} rows after {minutes:.0f} min{left}, {self._words(now)}"

    @staticmethod
    def _words(now: Snapshot) -> str:
        words = []
        if tokens := now.prompt_tokens + now.completion_tokens:
            words.append(f"{_short(tokens)} tokens")
        if now.cost_usd is not None:
            words.append(f"${now.cost_usd:.2f}")
        if now.failed:
            words.append(f"{now.failed} failed")
        if now.retries:
            words.append(f"{now.retries} retries")
        if now.waiting:
            words.append(now.waiting)
        elif now.bound:
            words.append(f"bound by {now.bound}")
        return ", ".join(words)


def _short(number: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
