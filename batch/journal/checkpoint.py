"""The index on disk, so that a resume reads only what the journal gained since; it can always be made anew.

A JSON line (format, the journal's id, how far it covers and the CRC of the line that ends there, sizes, notes), then each
part's columns as little-endian numbers, then the CRC32 of everything before.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, NamedTuple
from zlib import crc32

import numpy as np

from .frames import SEAL
from .index import Index
from .lock import refusal, storage, sync

FORMAT = 1
_COLUMNS = ("<u8", "<u8", "<i8")


class Covered(NamedTuple):
    """How much of the journal a checkpoint stands for.

    Attributes:
        end: The offset behind the last line it knows.
        notes: The offsets of the lines about the run, by their name.
    """

    end: int
    notes: dict[str, list[int]]


def save(path: Path, journal: bytes, descriptor: int, covered: Covered, index: Index) -> None:
    """Write the index beside the journal, durably and atomically.

    Args:
        path: The checkpoint.
        journal: The journal's id.
        descriptor: The journal, durable up to `covered.end`.
        covered: How far it is covered.
        index: What it came to.

    Raises:
        StorageError: The disk refused.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(temporary, flags, 0o600)
    except OSError as error:
        raise refusal(path, error) from error
    try:
        with index.lock, os.fdopen(file, "wb") as target:
            index.settle()
            head = {
                "checkpoint": FORMAT,
                "journal": journal.hex(),
                "end": covered.end,
                "seal": _seal(descriptor, covered.end),
                "doubles": index.doubles,
                "parts": [len(part[0]) for part in index.table.parts],
                "notes": {name: len(offsets) for name, offsets in covered.notes.items()},
            }
            line = json.dumps(head).encode() + b"\n"
            target.write(line)
            check = crc32(line)
            arrays = [np.array(offsets, "<i8") for offsets in covered.notes.values()]
            arrays += [column for part in index.table.parts for column in part[: len(_COLUMNS)]]
            for array in arrays:
                target.write(array.data)
                check = crc32(array.data, check)
            target.write(check.to_bytes(4, "little"))
            target.flush()
            sync(target.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage(path, error) from error


def load(path: Path, journal: bytes, descriptor: int, size: int, index: Index) -> Covered | None:
    """Fill an empty index from the checkpoint; None, and an empty index, where there is none or it does not fit the journal."""
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 20)
            head = json.loads(line)
            if head["checkpoint"] != FORMAT or head["journal"] != journal.hex() or head["end"] > size:
                return None
            if head["seal"] != _seal(descriptor, head["end"]):
                return None
            rest = os.fstat(file.fileno()).st_size - len(line) - 4
            if rest != 24 * sum(head["parts"]) + 8 * sum(head["notes"].values()):
                return None
            doubles = int(head["doubles"])
            check = crc32(line)
            notes = {}
            for name, count in head["notes"].items():
                column, check = _column(file, "<i8", count, check)
                notes[name] = column.tolist()
            parts = []
            for count in head["parts"]:
                part = []
                for kind in _COLUMNS:
                    column, check = _column(file, kind, count, check)
                    part.append(column)
                parts.append(part)
            if file.read() != check.to_bytes(4, "little"):
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    index.table.parts = parts
    index.doubles = doubles
    return Covered(head["end"], notes)


def _column(file: IO[bytes], kind: str, count: int, check: int) -> tuple[np.ndarray, int]:
    column = np.empty(count, kind)
    if file.readinto(column.data) != column.nbytes:  # type: ignore[attr-defined]
        raise ValueError("cut short")
    return column, crc32(column.data, check)


def _seal(descriptor: int, end: int) -> str:
    """The last bytes of the line that ends at `end`: they differ where the journal was cut and went on otherwise."""
    return os.pread(descriptor, SEAL, end - SEAL).decode("latin-1")
