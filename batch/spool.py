"""Which row is which: the id of every selected row, in input order, on disk.

The reading pass writes it, so that the export never renders again. It is a cache beside the journal: lost, it is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

from .records import KEY_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RECORD = [("number", "<u8"), ("id", f"V{KEY_BYTES}")]
"""A selected row, as a numpy type: its number in the input, and its id; all zeros for a row that cannot be asked."""

_PACK = Struct(f"<Q{KEY_BYTES}s")

NO_ID = bytes(KEY_BYTES)
BLOCK = 65_536
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """The ids of one reading pass.

    Args:
        folder: Where to keep them.

    Attributes:
        count: How many rows there are.
        kept: How many of them the pass took over from the last one.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = folder / "rows"
        self._problems = folder / "problems"
        self._about = folder / "rows.json"
        self.count = self.kept = self._told = 0

    def begin(self, kept: int = 0) -> None:
        """Forget the last pass and start a new one, or go on behind its first `kept` rows, which are those of `about`."""
        if not kept:
            self._about.unlink(missing_ok=True)
        self._out = os.fdopen(os.open(self._rows, FLAGS, 0o600), "wb")
        self._said = os.fdopen(os.open(self._problems, FLAGS, 0o600), "wb")
        for file, size in (self._out, kept * _PACK.size), (self._said, self._told if kept else 0):
            file.truncate(size)
            file.seek(size)
        self.kept = self.count = kept

    def extend(self, numbers: Sequence[int], names: Sequence[bytes]) -> None:
        """Rows that follow: their numbers in the input, and their ids, or `NO_ID` for one that cannot be asked."""
        self._out.write(b"".join([_PACK.pack(*one) for one in zip(numbers, names, strict=True)]))
        self.count += len(numbers)

    def problem(self, position: int, words: str) -> None:
        """Why the row at this position among the selected ones cannot be asked."""
        self._said.write(json.dumps([position, words]).encode() + b"\n")

    def close(self) -> None:
        """The pass is over, or ends where it is."""
        self._out.close()
        self._said.close()

    def describe(self, about: dict[str, Any]) -> None:
        """Say durably what was read, asked and written, so that the next run can tell what is left to do.

        Args:
            about: Plain data; `rows` and `told` are added. Replaces what was said before, atomically.
        """
        sizes = {"rows": self.count, "told": self._problems.stat().st_size}
        new = self._about.with_suffix(".new")
        with os.fdopen(os.open(new, FLAGS | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(about | sizes, file)
        for path in self._rows, self._problems, new:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        new.replace(self._about)

    def about(self) -> dict[str, Any]:
        """What the last whole pass said about itself; empty when there is none."""
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            # There may be more: of a run that went on behind these rows and was killed.
            if self._rows.stat().st_size < about["rows"] * _PACK.size or self._problems.stat().st_size < about["told"]:
                return {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        self.count, self._told = about["rows"], about["told"]
        return dict(about)

    def records(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Number and id of the rows from `start` up to `stop`, in input order; of some thousands at most."""
        with self._rows.open("rb") as file:
            file.seek(start * _PACK.size)
            return list(_PACK.iter_unpack(file.read(min(stop - start, BLOCK) * _PACK.size)))

    def blocks(self, stop: int | None = None) -> Iterator[np.ndarray[Any, Any]]:
        """The records up to `stop`, by default to the end, in input order, some thousands at a time."""
        left = self.count if stop is None else stop
        if left <= 0:
            return
        import numpy as np

        with self._rows.open("rb") as file:
            while left > 0 and (block := file.read(min(BLOCK, left) * _PACK.size)):
                yield np.frombuffer(block, RECORD)
                left -= BLOCK

    def names(self, count: int) -> Iterator[npt.NDArray[np.uint8]]:
        """The ids of the first `count` rows, some thousands at a time."""
        return map(ids, self.blocks(stop=count))

    def problems(self, start: int = 0) -> Iterator[tuple[int, str]]:
        """Position among the selected rows, at least `start`, and reason of every row that cannot be asked, in order."""
        with self._problems.open("rb") as file:
            for line in file:
                position, words = json.loads(line)
                if position >= start:
                    yield position, words


def ids(records: np.ndarray[Any, Any]) -> npt.NDArray[np.uint8]:
    """The ids of records, an (n, 16) array of bytes; all zeros for a row that cannot be asked."""
    import numpy as np

    return np.frombuffer(records["id"].tobytes(), np.uint8).reshape(-1, KEY_BYTES)
