"""The rows that are out, and how far all before them have come."""

from __future__ import annotations

from .records import Prompt


class Flying:
    """Rows from their permit until their outcome is durable, or dropped. They take off in input order."""

    def __init__(self) -> None:
        self._names: dict[int, bytes] = {}
        self._next = 0

    def __len__(self) -> int:
        """How many are out."""
        return len(self._names)

    def take_off(self, prompt: Prompt) -> None:
        """A row has its permit."""
        self._names[prompt.index] = prompt.id
        self._next = prompt.index + 1

    def land(self, index: int) -> bytes | None:
        """A row is out no longer: its id, or None where that is no news."""
        return self._names.pop(index, None)

    @property
    def settled(self) -> int:
        """How many rows, from the first on, are not out and will not be any more."""
        following = self._next  # looked at first: what takes off from now on stands behind it
        return min([following, *list(self._names)])
