"""What a conversion could not carry over, counted by kind, with the first place of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..exact import dumps
from ..formats import MISSING


@dataclass(slots=True)
class Losses:
    """What did not arrive.

    Attributes:
        counts: What it is, in words, to how often.
        first: What it is to where it was first met.
        place: The row under way.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    place: str = ""

    def add(self, what: str) -> None:
        """One thing of the row under way does not arrive."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.first.setdefault(what, self.place)

    def members(self, value: dict[str, Any], known: frozenset[str] | set[str], where: str) -> None:
        """Every member that is not known and says something does not arrive."""
        for name, inner in value.items():
            if name not in known and inner is not None:
                self.add(f"{name!r} of {where}")

    def cell(self, value: Any, form: str, target: str) -> None:
        """One value of a table on its way into another one.

        Args:
            value: As it was read.
            form: The type of the target's column: bool, int64, double or string.
            target: The target's format.
        """
        if isinstance(value, str):
            if not value.isascii() and target != "jsonl" and any("\ud800" <= sign <= "\udfff" for sign in value):
                self.add("half surrogate pairs (they are written as \\u escapes)")
        elif target in ("csv", "tsv"):
            self.add(_as_text(value, "empty cells"))
        elif target == "parquet" and value is not None and (form == "string" or value is MISSING):
            self.add(_as_text(value, "nulls"))
        elif target == "jsonl" and isinstance(value, float) and dumps(value) == b"null":
            self.add("NaN and infinite numbers (they are written as text)")


def _as_text(value: Any, nothing: str) -> str:
    if value is MISSING:
        return f"missing keys (they are written as {nothing})"
    if value is None:
        return f"nulls (they are written as {nothing})"
    if isinstance(value, (list, dict)):
        return "nested values (they are written as JSON text)"
    return "numbers, true and false (they are written as text)"
