"""How far a run is: a bar on a terminal, a line a minute elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


LEAST = 8
"""Columns that a bar has at least; words make room for it, the least important ones first."""

NARROW = 79
"""Columns below which the time gone by and the speed make room for words; of a terminal's 80 tqdm leaves the last one empty."""

BRIEF = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
"""A bar on a narrow terminal."""

LEGIBLE = 16
"""Characters that must be left of words that are cut; fewer would say nothing."""


@dataclass(frozen=True, slots=True)
class Words:
    """A part of what a bar says.

    Attributes:
        weight: The part with the least makes room first.
    """

    weight: int
    text: str


class Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """tqdm's bar with a speed of ours, and as many words as the terminal has room for."""

    speed: float | None = None
    words: Sequence[Words] = ()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is shown."""
        shown = {**super().format_dict, "rate": self.speed or 0.0}
        if shown["total"] and (shown["ncols"] or NARROW) < NARROW:
            shown["bar_format"] = BRIEF
        words = list(self.words)
        shown["postfix"] = _joined(words)
        while words and (lacking := self._lacking(shown)):
            least = min(words, key=lambda one: one.weight)
            words.remove(least)
            shown["postfix"] = _joined(words)
            if not words and len(least.text) > lacking + LEGIBLE:
                shown["postfix"] = least.text[: -lacking - 1].rstrip() + "…"
                break
        return shown

    def _lacking(self, shown: dict[str, Any]) -> int:
        """How many columns too few there are."""
        if not shown["ncols"]:
            return 0
        without_a_terminal = len(self.format_meter(**{**shown, "ncols": None}))
        longer = LEAST - 10 if shown["total"] else 0  # tqdm's bar has ten columns there
        return max(0, without_a_terminal + longer - int(shown["ncols"]))


def _joined(words: Sequence[Words]) -> str:
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
        return f"ails-batch: {now.done}{of} rows after {minutes:.0f} min{left}, {_joined(said(now))}"


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
