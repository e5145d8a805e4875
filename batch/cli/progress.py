"""How far a run is: a bar on a terminal, a line a minute elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ..tally import Snapshot

EVERY = 60.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """Shows snapshots of a run on standard error.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stderr.isatty()
        self._begun = self._said = time.monotonic()
        self._gone = False

    def __call__(self, now: Snapshot) -> None:
        """Show this."""
        if self._quiet or self._gone:
            return
        try:
            if self._terminal:
                self._draw(now)
            elif time.monotonic() - self._said >= EVERY:
                self._said = time.monotonic()
                print(self._line(now), file=sys.stderr, flush=True)
        except OSError:
            self._gone = True  # nobody is looking any more; the run goes on

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None and not self._gone:
            self._bar.close()

    def _draw(self, now: Snapshot) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=now.total, initial=now.cached, unit="row", dynamic_ncols=True, smoothing=0.1, file=sys.stderr
            )
        bar = self._bar
        if bar.total != now.total:
            bar.total = now.total
        bar.set_postfix_str(self._words(now), refresh=False)
        bar.update(now.done - bar.n)

    def _line(self, now: Snapshot) -> str:
        minutes = (time.monotonic() - self._begun) / 60
        of = f" of {now.total}" if now.total else ""
        return f"ails-batch: {now.done}{of} rows after {minutes:.0f} min, {self._words(now)}"

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
