"""The bar on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from .progress import Words, joined

LEAST = 8
"""Columns that a bar has at least; words make room for it, the least important ones first."""

NARROW = 79
"""Columns below which the time gone by and the speed make room for words; of a terminal's 80 tqdm leaves the last one empty."""

BRIEF = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
"""A bar on a narrow terminal."""

LEGIBLE = 16
"""Characters that must be left of words that are cut; fewer would say nothing."""


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
        shown["postfix"] = joined(words)
        while words and (lacking := self._lacking(shown)):
            least = min(words, key=lambda one: one.weight)
            words.remove(least)
            shown["postfix"] = joined(words)
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
