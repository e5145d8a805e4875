"""What is known of each row: its state and where its line stands, in 24 bytes a row.

numpy is imported with the first rows that are sorted in: a fresh run has sent its first request before that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import BatchError
from ..records import row_id
from .frames import STATES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .table import Column, Names, Table

    Handles = npt.NDArray[np.int64]
    """Where lines start in the journal, times 16, plus the position in `STATES`; -1 for a row nothing is known of."""

PART = 1 << 20
RECENT = 1 << 15
UNKNOWN = -1
HANDLE, COUNT = 2, 3
"""Where a part of the index has its two columns."""


def handle(offset: int, code: int) -> int:
    """A line's place and what it says, in one number."""
    return offset << 4 | code


def load() -> None:
    """Load numpy, without which no more than `RECENT` rows are kept track of.

    Raises:
        BatchError: It cannot be loaded.
    """
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        remedy = "mend its installation, or give this process more memory, and run the same command again"
        raise BatchError(": ".join(["numpy cannot be loaded, which this run needs", *reason, remedy])) from error


class Index:
    """The rows' handles: the first answer wins, an answer beats a failure, a later failure replaces an earlier one.

    Used by the writer's thread and the reader's at once; each call takes the lock for milliseconds.

    Args:
        recent: Rows kept in a dict, at about 200 bytes each, before they are sorted in.
        part: See `Table`.

    Attributes:
        doubles: Answers that do not count because their row had been answered before; up to date after `settle`.
        reading: The pass under way, which keeps its counts beside the rows.
    """

    def __init__(self, *, recent: int = RECENT, part: int = PART) -> None:
        self._table: Table | None = None
        self.recent = recent
        self.part = part
        self.lock = threading.RLock()
        self._recent: dict[bytes, int] = {}
        self.reading: Pass | None = None
        self.doubles = 0

    def __len__(self) -> int:
        if not self.is_sorted:
            return len(self._recent)
        self.settle()
        return len(self.table)

    @property
    def is_sorted(self) -> bool:
        """Whether there are rows beside the recent ones."""
        return self._table is not None

    @property
    def table(self) -> Table:
        """The sorted rows; their one column is the handle, a second one counts them in a `Pass`."""
        if self._table is None:
            from .table import Table

            self._table = Table("<i8", *(["<u4"] if self.reading else []), part=self.part)
        return self._table

    def add(self, name: bytes, place: int) -> None:
        """One row's line, as it is written."""
        with self.lock:
            if self._recent.get(name, 1) & 15 == 0:
                self.doubles += place & 15 == 0
                return
            self._recent[name] = place
            if len(self._recent) >= self.recent:
                self.settle()

    def add_many(self, names: Names, places: Handles) -> None:
        """Many rows' lines, in the order in which they stand in the journal."""
        import numpy as np

        with self.lock:
            names, places = self._first(names, places)
            absent = np.ones(len(names), bool)
            for part, rows, at in self.table.seek(names):
                absent[rows] = False
                failed = part[HANDLE][at] & 15 != 0
                part[HANDLE][at[failed]] = places[rows[failed]]
                self.doubles += int((~failed & (places[rows] & 15 == 0)).sum())
            new = names[absent]
            self.table.insert(new, places[absent], *([self.reading.hand_over(new)] if self.reading else []))

    def _first(self, names: Names, places: Handles) -> tuple[Names, Handles]:
        """The same rows with each name once; only names whose first halves are equal are looked at singly."""
        import numpy as np

        order = np.argsort(names[:, 0])
        halves = names[order, 0]
        equal = halves[1:] == halves[:-1]
        if not equal.any():
            return names, places
        doubtful = np.zeros(len(names), bool)
        doubtful[order[1:][equal]] = doubtful[order[:-1][equal]] = True
        best: dict[bytes, int] = {}
        for row in np.flatnonzero(doubtful).tolist():
            name = names[row].tobytes()
            if name in best and places[best[name]] & 15 == 0:
                self.doubles += int(places[row]) & 15 == 0
            else:
                best[name] = row
        doubtful[list(best.values())] = False
        return names[~doubtful], places[~doubtful]

    def settle(self) -> None:
        """Sort in what came last."""
        with self.lock:
            if self._recent:
                import numpy as np

                from .table import as_names

                recent, self._recent = self._recent, {}
                self.add_many(as_names(list(recent)), np.fromiter(recent.values(), np.int64, len(recent)))

    def find(self, ids: Sequence[bytes] | npt.NDArray[np.uint8]) -> Handles:
        """The handles of rows; -1 where nothing is known of one."""
        import numpy as np

        from .table import as_names

        names = as_names(ids)
        found = np.full(len(names), UNKNOWN, np.int64)
        with self.lock:
            for part, rows, at in self.table.seek(names) if self.is_sorted else ():
                found[rows] = part[HANDLE][at]
            if self._recent:
                content = names.tobytes()
                for row in np.flatnonzero((found == UNKNOWN) | (found & 15 != 0)).tolist():
                    place = self._recent.get(content[16 * row : 16 * row + 16])
                    if place is not None:
                        found[row] = place
        return found

    def handles(self, ids: Sequence[bytes]) -> list[int]:
        """`find`, as a list, which takes no numpy before anything was sorted in."""
        with self.lock:
            if not self.is_sorted:
                return [self._recent.get(name, UNKNOWN) for name in ids]
        handles: list[int] = self.find(ids).tolist()
        return handles

    def tally(self) -> dict[str, int]:
        """How many rows are in each state, states without rows left out."""
        import numpy as np

        with self.lock:
            self.settle()
            counts = sum((np.bincount(part[HANDLE] & 15, minlength=16) for part in self.table.parts), np.zeros(16, np.intp))
        return {state: int(count) for state, count in zip(STATES, counts, strict=False) if count}


class Pass:
    """One reading of the input: how often each key was seen so far.

    The count of a key that the index knows stands in a column beside its row (4 bytes); that of any other in a table of its own
    (20 bytes), until its row comes into the index.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._went_on = False
        self._table: Table | None = None
        self._recent: dict[bytes, int] = {}
        with index.lock:
            index.reading = None
            index.settle()
            if index.is_sorted:
                index.table.clear(COUNT, "<u4")
            index.reading = self

    @property
    def _seen(self) -> Table:
        if self._table is None:
            from .table import Table

            self._table = Table("<u4", part=self.index.part)
        return self._table

    def hand_over(self, names: Names) -> Column:
        """The counts of keys that come into the index now and are counted there from here on."""
        counts = self._seen.remove(names)
        if self._recent:
            content = names.tobytes()
            for row in range(len(names)):
                counts[row] += self._recent.pop(content[16 * row : 16 * row + 16], 0)
        return counts

    def go_on(self, rows: Iterable[npt.NDArray[np.uint8]]) -> bool:
        """Begin behind rows that an earlier pass has seen.

        Args:
            rows: Their ids, (n, 16) arrays; all zeros for a row without one.

        Returns:
            Whether the index knows all of them; where it does not, begin anew.
        """
        with self.index.lock:
            for ids in rows:
                from .table import as_names

                self._went_on = True
                names = as_names(ids)
                names = names[names.any(axis=1)]
                found = 0
                for part, _, at in self.index.table.seek(names):
                    part[COUNT][at] = 1
                    found += len(at)
                if found < len(names):
                    return False
        return True

    def _earlier(self, key: bytes) -> int:
        """How many rows with this key stand among those that this pass has gone on behind, of which only the ids are known."""
        from .table import as_names

        count = 1
        while True:
            for part, _, at in self.index.table.seek(as_names([row_id(key, count)])):
                if part[COUNT][at[0]]:
                    break
            else:
                return count
            count += 1

    def occurrences(self, keys: Sequence[bytes] | npt.NDArray[np.uint8]) -> list[int]:
        """How often each key was seen before, in this pass and, in order, within `keys`."""
        each = keys if isinstance(keys, list) else [bytes(key) for key in keys]
        counts = dict.fromkeys(each, 1)
        before = [0] * len(each)
        if len(counts) < len(each):
            counts = dict.fromkeys(each, 0)
            for row, key in enumerate(each):
                before[row] = counts[key]
                counts[key] += 1
        earlier = self._count(counts)
        if earlier:
            return [count + earlier.get(key, 0) for key, count in zip(each, before, strict=True)]
        return before

    def _count(self, counts: dict[bytes, int]) -> dict[bytes, int]:
        """Add to what was seen; what had been seen of those keys before."""
        with self.index.lock:
            if not self.index.is_sorted and self._table is None:
                before = {key: seen for key in counts if (seen := self._recent.get(key, 0))}
                self._recent.update((key, more + before.get(key, 0)) for key, more in counts.items())
                self._sort_in()
                return before
        import numpy as np

        from .table import as_names

        keys = list(counts)
        names = as_names(keys)
        more = np.fromiter(counts.values(), np.uint32, len(counts))
        earlier = np.zeros(len(keys), np.int64)
        homeless = np.ones(len(keys), bool)
        with self.index.lock:
            for table, column in ((self.index.table, COUNT), (self._seen, 2)):
                left = np.flatnonzero(homeless)
                for part, rows, at in table.seek(names[left]):
                    found = left[rows]
                    earlier[found] = part[column][at]
                    part[column][at] += more[found]
                    homeless[found] = False
                    if self._went_on and column == COUNT:
                        for row, place in zip(found.tolist(), at.tolist(), strict=True):
                            if earlier[row] == 1 and (further := self._earlier(keys[row]) - 1):
                                earlier[row] += further
                                part[column][place] += further
            for row in np.flatnonzero(homeless).tolist():
                count = self._recent.get(keys[row], 0)
                earlier[row] = count
                self._recent[keys[row]] = count + counts[keys[row]]
            self._sort_in()
        return {keys[row]: int(earlier[row]) for row in np.flatnonzero(earlier).tolist()}

    def _sort_in(self) -> None:
        if len(self._recent) >= self.index.recent:
            import numpy as np

            from .table import as_names

            recent, self._recent = self._recent, {}
            self._seen.insert(as_names(list(recent)), np.fromiter(recent.values(), np.uint32, len(recent)))
