"""Which row is which: the id of every selected row, in input order, on disk.

The reading pass writes it, so that the export never renders again. It is a cache beside the journal: lost, it is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .records import KEY_BYTES

RECORD = np.dtype([("number", "<u8"), ("id", f"V{KEY_BYTES}")])
"""A selected row: its number in the input, and its id; all zeros for a row that cannot be asked."""

NO_ID = bytes(KEY_BYTES)
BLOCK = 65_536
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """The ids of one reading pass.

    Args:
        folder: Where to keep them.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = folder / "rows"
        self._problems = folder / "problems"
        self._about = folder / "rows.json"
        self.count = 0

    def begin(self) -> None:
        """Forget the last pass and start a new one."""
        self._about.unlink(missing_ok=True)

        self._out = os.fdopen(os.open(self._rows, FLAGS, 0o600), "wb")
        self._said = os.fdopen(os.open(self._problems, FLAGS, 0o600), "w", encoding="utf-8")
        self.count = 0

    def append(self, number: int, row_id: bytes) -> None:
        """One row that is asked."""
        self._out.write(number.to_bytes(8, "little") + row_id)
        self.count += 1

    def problem(self, number: int, words: str) -> None:
        """One row that cannot be asked, and why."""
        self._said.write(json.dumps([self.count, words]) + "\n")
        self.append(number, NO_ID)

    def close(self) -> None:
        """The pass is over, or ends where it is."""
        self._out.close()
        self._said.close()

    def describe(self, about: dict[str, Any]) -> None:
        """Say what was read, asked and written, so that the next run can tell whether anything is left to do.

        Args:
            about: Plain data; `rows` is added. Replaces what was said before, atomically.
        """
        new = self._about.with_suffix(".new")
        with os.fdopen(os.open(new, FLAGS, 0o600), "w", encoding="utf-8") as file:
            json.dump(about | {"rows": self.count}, file)
        new.replace(self._about)

    def about(self) -> dict[str, Any]:
        """What the last whole pass said about itself; empty when there is none."""
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            if self._rows.stat().st_size != about["rows"] * RECORD.itemsize:
                return {}
        except (OSError, ValueError, KeyError):
            return {}
        self.count = about["rows"]
        return dict(about)

    def blocks(self) -> Iterator[np.ndarray[Any, Any]]:
        """The records in input order, some thousands at a time."""
        with self._rows.open("rb") as file:
            while block := file.read(BLOCK * RECORD.itemsize):
                yield np.frombuffer(block, RECORD)

    def problems(self) -> Iterator[tuple[int, str]]:
        """Position among the selected rows and reason of every row that cannot be asked, in order."""
        with self._problems.open(encoding="utf-8") as file:
            for line in file:
                position, words = json.loads(line)
                yield position, words


def ids(records: np.ndarray[Any, Any]) -> Sequence[bytes]:
    """The ids of records, each 16 bytes (numpy would drop trailing zero bytes of a string type)."""
    whole = records["id"].tobytes()
    return [whole[at : at + KEY_BYTES] for at in range(0, len(whole), KEY_BYTES)]
