"""Columns under 16-byte names, sorted, in parts: growing never needs a second copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Names = npt.NDArray[np.uint64]
"""n names as an (n, 2) array: the first and the last eight bytes of each, as this machine reads them."""
Column = npt.NDArray[Any]
Places = npt.NDArray[np.intp]


def as_names(ids: Sequence[bytes] | npt.NDArray[np.uint8]) -> Names:
    """16-byte ids, as a list or an (n, 16) array, as `Names`."""
    if isinstance(ids, np.ndarray):
        return np.ascontiguousarray(ids).view("<u8").reshape(-1, 2)
    return np.frombuffer(b"".join(ids), "<u8").reshape(-1, 2)


class Table:
    """Distinct names and their columns.

    The names are digests, so their first bits spread them evenly over the parts; uneven ones cost time, not truth.

    Args:
        kinds: The columns' numpy types.
        part: Rows a part may have on average before every part is halved.

    Attributes:
        parts: For each part its columns: both halves of the names, sorted by the first, then the `kinds`.
    """

    def __init__(self, *kinds: str, part: int) -> None:
        self._part = part
        self.kinds = ["<u8", "<u8", *kinds]
        self.parts: list[list[Column]] = [[np.empty(0, kind) for kind in self.kinds]]

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self.parts)

    def clear(self, number: int, kind: str) -> None:
        """Make the column with this number all zeros; it must be the last or the next."""
        self.kinds[number:] = [kind]
        for part in self.parts:
            part[number:] = [np.zeros(len(part[0]), kind)]

    def seek(self, names: Names) -> Iterator[tuple[list[Column], Places, Places]]:
        """Where names stand.

        Yields:
            A part, which of `names` stand in it, and at which of its rows. Names that stand nowhere are in no yield.
        """
        for part, rows in self._spread(names):
            at, hit = _stand(part, names[rows])
            if hit.any():
                yield part, rows[hit], at[hit]

    def remove(self, names: Names) -> Column:
        """Take names out; what their first column held, 0 where one was not in the table."""
        values = np.zeros(len(names), self.kinds[2])
        for part, rows, at in self.seek(names):
            values[rows] = part[2][at]
            stay = np.ones(len(part[0]), bool)
            stay[at] = False
            part[:] = [column[stay] for column in part]
        return values

    def insert(self, names: Names, *columns: Column) -> None:
        """Take in names that are distinct and not in the table yet; columns not given become zeros."""
        for part, rows in self._spread(names):
            new = [names[rows, 0], names[rows, 1], *(column[rows] for column in columns)]
            size = len(part[0]) + len(rows)
            at = np.searchsorted(part[0], new[0]) + np.arange(len(rows))
            old = np.ones(size, bool)
            old[at] = False
            for number, kind in enumerate(self.kinds):
                merged = np.empty(size, kind)
                merged[old] = part[number]
                merged[at] = new[number] if number < len(new) else 0
                part[number] = merged
        while len(self) > self._part * len(self.parts):
            self._halve()

    def _halve(self) -> None:
        edges = _edges(2 * len(self.parts))[1::2]
        halves = []
        for part, edge in zip(self.parts, edges, strict=True):
            cut = np.searchsorted(part[0], edge)
            halves += [[column[:cut].copy() for column in part], [column[cut:].copy() for column in part]]
            part.clear()
        self.parts = halves

    def _spread(self, names: Names) -> Iterator[tuple[list[Column], Places]]:
        """Each part that names fall into, and which, sorted by their first half."""
        order = np.argsort(names[:, 0])
        cuts = [*np.searchsorted(names[order, 0], _edges(len(self.parts))).tolist(), len(names)]
        for number, part in enumerate(self.parts):
            if cuts[number] < cuts[number + 1]:
                yield part, order[cuts[number] : cuts[number + 1]]


def _edges(parts: int) -> Names:
    """The smallest first half that belongs to each of `parts` parts, a power of two."""
    return np.array([number * (2**64 // parts) for number in range(parts)], np.uint64)


def _stand(part: list[Column], names: Names) -> tuple[Places, npt.NDArray[np.bool_]]:
    high, low = part[0], part[1]
    at = np.searchsorted(high, names[:, 0])
    if not len(high):
        return at, np.zeros(len(at), bool)
    while True:
        here = np.minimum(at, len(high) - 1)
        same = (at < len(high)) & (high[here] == names[:, 0])
        hit = same & (low[here] == names[:, 1])
        passed = same & ~hit  # another name with the same first half: look one further
        if not passed.any():
            return here, hit
        at[passed] += 1
