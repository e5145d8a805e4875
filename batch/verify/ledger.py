"""The journal read a second way: line by line, every checksum reckoned here, without its index, checkpoint or spool."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ..errors import Busy, JobError, JournalDamaged

HEADER = re.compile(rb'\{"journal":1,"id":"[0-9a-f]{32}",')
ROW = re.compile(rb'\{"k":"([0-9a-f]{32})","n":(\d{1,9}),"ok":([01]),')
RUN = b'{"run":'
SEAL = len(b',"crc":"00000000"}\n')
LINE = np.dtype([("high", ">u8"), ("low", ">u8"), ("nth", ">u4"), ("place", ">u8")])
"""A row's line: its key in two halves, its occurrence, and twice the offset, plus one when it is an answer."""


class Ledger:
    """What a journal says of rows, asked for in input order.

    Holds 28 bytes for every row's line, 4 more for every row, and reads lines again when they are asked for.

    Args:
        path: The journal.

    Attributes:
        run: The last `run` line: the job and what else decides a row's key.
        rows: Rows with an outcome.

    Raises:
        JobError: There is no such journal, or no run in it.
        Busy: A run is writing it now.
        JournalDamaged: A bad line stands before a good one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise JobError(f"{path} cannot be opened: {words} (name it with --journal)") from None
        self.run: dict[str, Any] = {}
        try:
            self._refuse_a_running_one()
            self._lines = self._read()
            if not self.run:
                raise JobError(f"{path} holds no run; ails-batch run begins one")
        except BaseException:
            self.close()
            raise
        self.rows = len(self._lines)
        self._seen = np.zeros(len(self._lines) + 1, np.uint32)

    def close(self) -> None:
        """Let go of the journal."""
        self._file.close()

    def _refuse_a_running_one(self) -> None:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{self.path}: a run is going on; verify its output once it has ended") from None
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _read(self) -> npt.NDArray[np.void]:
        found = bytearray()
        size = os.fstat(self._file.fileno()).st_size
        offset, bad = 0, -1
        while offset < size and (line := self._file.readline()):
            if not _sound(line):
                bad = offset if bad < 0 else bad
            elif bad >= 0:
                raise JournalDamaged(f"{self.path}: damaged at byte {bad} (`ails-batch repair` says what it can save)")
            elif row := ROW.match(line):
                found += bytes.fromhex(row[1].decode()) + int(row[2]).to_bytes(4, "big")
                found += (2 * offset + (row[3] == b"1")).to_bytes(8, "big")
            elif line.startswith(RUN):
                self.run = json.loads(line)["run"]
            elif not offset and not HEADER.match(line):
                raise JobError(f"{self.path} is no journal of format version 1")
            offset += len(line)
        if bad == 0:
            raise JobError(f"{self.path} is no journal of format version 1")
        whole = np.frombuffer(found, f"S{LINE.itemsize}")
        whole.sort()  # big-endian fields compare as bytes do: by key, occurrence, place
        return _effective(whole.view(LINE))

    def take(self, keys: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """The outcomes of the next rows of the input, each the next occurrence of its key; None for a row without one.

        Args:
            keys: 16 bytes each, in input order.
        """
        slots = self._seek(keys, [0] * len(keys))
        occurrences = []
        for key, slot in zip(keys, slots, strict=True):
            if slot < self.rows and _key(self._lines[slot]) == key:
                occurrences.append(int(self._seen[slot]))
                self._seen[slot] += 1
            else:
                occurrences.append(-1)
        return self.find(keys, occurrences)

    def find(self, keys: Sequence[bytes], occurrences: Sequence[int]) -> list[dict[str, Any] | None]:
        """The outcomes of certain occurrences of keys; None for a row without one, and where the occurrence is -1."""
        slots = self._seek(keys, [max(0, nth) for nth in occurrences])
        outcomes: list[dict[str, Any] | None] = [None] * len(keys)
        places: list[tuple[int, int]] = []
        for row, (key, nth, slot) in enumerate(zip(keys, occurrences, slots, strict=True)):
            if nth >= 0 and slot < self.rows and _key(self._lines[slot]) == key and self._lines[slot]["nth"] == nth:
                places.append((int(self._lines[slot]["place"]) // 2, row))
        for offset, row in sorted(places):
            self._file.seek(offset)
            outcomes[row] = json.loads(self._file.readline())
        return outcomes

    def _seek(self, keys: Sequence[bytes], occurrences: Sequence[int]) -> list[int]:
        wanted = b"".join(key + nth.to_bytes(4, "big") + bytes(8) for key, nth in zip(keys, occurrences, strict=True))
        form = f"S{LINE.itemsize}"
        slots: list[int] = np.searchsorted(self._lines.view(form), np.frombuffer(wanted, form)).tolist()
        return slots


def _sound(line: bytes) -> bool:
    """Whether the line ends with the CRC32 of everything before it."""
    return line[-SEAL:] == b',"crc":"%08x"}\n' % crc32(line[:-SEAL])


def _key(line: np.void) -> bytes:
    return int(line["high"]).to_bytes(8, "big") + int(line["low"]).to_bytes(8, "big")


def _effective(lines: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """One line for every row: its first answer, else its last failure."""
    if not len(lines):
        return lines
    new = np.ones(len(lines), bool)
    new[1:] = (lines["high"][1:] != lines["high"][:-1]) | (lines["low"][1:] != lines["low"][:-1])
    new[1:] |= lines["nth"][1:] != lines["nth"][:-1]
    starts = np.flatnonzero(new)
    if len(starts) == len(lines):
        return lines
    chosen = np.append(starts[1:], len(lines)) - 1
    answers = np.flatnonzero(lines["place"] & 1)
    rows, first = np.unique(np.searchsorted(starts, answers, "right") - 1, return_index=True)
    chosen[rows] = answers[first]
    effective: npt.NDArray[np.void] = lines[chosen]
    return effective
