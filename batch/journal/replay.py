"""The journal read from its start, or from where a checkpoint ends: every CRC checked, a torn tail found, damage named."""

from __future__ import annotations

import os
from binascii import unhexlify
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ..records import row_id
from .frames import CODES, LONGEST, NOTE, ROW, SEAL
from .index import Index, handle
from .opening import damaged
from .table import Names, Places, as_names

if TYPE_CHECKING:
    from .index import Handles

BLOCK = 4 << 20
GATHERED = 1 << 19
"""Rows sorted into the index at a time."""
_HEAD = np.dtype([("open", "S6"), ("key", "S32"), ("close", "S16")])
_FOOT = np.dtype([("name", "S8"), ("crc", "S8"), ("brace", "S3")])
_SHORTEST = _HEAD.itemsize + SEAL


def blocks(descriptor: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The bytes from `start` to `end` in pieces of whole lines, each with its offset.

    Only what follows the last line feed, and what is too long for a line, comes without one.
    """
    size = BLOCK
    while start < end:
        block = os.pread(descriptor, min(size, end - start), start)
        cut = block.rfind(b"\n") + 1
        if not block:  # cut by someone else
            return
        if not cut and start + len(block) < end and size < LONGEST:
            size *= 2
            continue
        yield start, block[:cut] if cut else block
        start += cut or len(block)
        size = BLOCK


class Replay:
    """One reading of the journal into an index.

    Args:
        descriptor: The journal.
        path: Its name, for messages.
        start: Where to begin: behind the header, or where a checkpoint ends.
        end: Where to stop.

    Attributes:
        sound: Where the last good line ends; what stands behind it is a torn tail.
        lines: How many lines were read.
        notes: The offsets of the lines that are about the run, by their name.
    """

    def __init__(self, descriptor: int, path: Path, start: int, end: int) -> None:
        self.descriptor = descriptor
        self.path = path
        self.sound = start
        self.end = end
        self.lines = 0
        self.notes: dict[str, list[int]] = {"run": [], "tick": [], "end": []}
        self._bad: int | None = None
        self._gathered: list[tuple[Names, Handles]] = []

    def into(self, index: Index) -> None:
        """Read every line into `index`.

        Raises:
            JournalDamaged: A bad line stands before a good one.
        """
        for offset, block in blocks(self.descriptor, self.sound, self.end):
            self._block(offset, block)
            if sum(len(places) for _, places in self._gathered) >= GATHERED:
                self._pour(index)
        self._pour(index)

    def _pour(self, index: Index) -> None:
        if self._gathered:
            names, places = zip(*self._gathered, strict=True)
            self._gathered = []
            index.add_many(np.concatenate(names), np.concatenate(places))

    def _block(self, offset: int, block: bytes) -> None:
        starts, stops = bounds(block)
        if not len(starts):
            return
        good = whole(block, starts, stops)
        if self._bad is None and not good.all():
            self._bad = offset + int(starts[~good][0])
        if self._bad is not None and (good & (offset + starts > self._bad)).any():
            raise damaged(self.path, self._bad)
        if not good.all():
            starts, stops = starts[good], stops[good]
        if not len(starts):
            return
        self.sound = offset + int(stops[-1]) + 1
        self.lines += len(starts)
        data = np.frombuffer(block, np.uint8)
        # The common line, the answer of a key's first occurrence, has everything at fixed places.
        common = stops - starts >= _SHORTEST
        heads = _cut(data, starts[common], _HEAD)
        plain = (heads["open"] == b'{"k":"') & (heads["close"] == b'","n":0,"ok":1,"')
        common[common] = plain
        names = as_names([unhexlify(heads["key"][plain].tobytes())])
        places = (offset + starts[common].astype(np.int64)) << 4
        if not common.all():
            names, places = self._others(offset, block, starts[~common], stops[~common], names, places)
        self._gathered.append((names, places))

    def _others(
        self, offset: int, block: bytes, starts: Places, stops: Places, names: Names, places: Handles
    ) -> tuple[Names, Handles]:
        """Failures, later occurrences and what is about the run, each read singly and put in its order among `names`."""
        ids, found = [], []
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            row = ROW.match(block, start, stop)
            if row:
                ids.append(row_id(unhexlify(row[1]), int(row[2])))
                found.append(handle(offset + start, CODES[row[3].decode()] if row[3] else 0))
                continue
            note = NOTE.match(block, start, stop)
            if note:
                self.notes[note[1].decode()].append(offset + start)
        if not ids:
            return names, places
        places = np.concatenate([places, np.array(found, np.int64)])
        order = np.argsort(places)
        return np.concatenate([names, as_names(ids)])[order], places[order]


def bounds(block: bytes) -> tuple[Places, Places]:
    """Where the lines of a block start, and where their line feeds are; a last line without one ends with the block."""
    stops = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
    if not block.endswith(b"\n"):
        stops = np.append(stops, len(block))
    starts = np.empty_like(stops)
    starts[:1] = 0
    starts[1:] = stops[:-1] + 1
    return starts, stops


def whole(block: bytes, starts: Places, stops: Places) -> npt.NDArray[np.bool_]:
    """Which of the lines are framed and have the right CRC."""
    good: npt.NDArray[np.bool_] = (stops - starts >= SEAL) & (stops < len(block))
    view = memoryview(block)
    ends = stops[good] - (SEAL - 1)
    sums = np.array([crc32(view[a:b]) for a, b in zip(starts[good].tolist(), ends.tolist(), strict=True)], ">u4")
    feet = _cut(np.frombuffer(block, np.uint8), ends, _FOOT)
    digits = np.frombuffer(sums.tobytes().hex().encode(), "S8")
    good[good] = (feet["name"] == b',"crc":"') & (feet["crc"] == digits) & (feet["brace"] == b'"}\n')
    return good


def _cut(data: npt.NDArray[np.uint8], starts: Places, shape: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """A record of fixed shape at every one of `starts`."""
    if not len(starts):
        return np.empty(0, shape)
    windows = np.lib.stride_tricks.sliding_window_view(data, shape.itemsize)
    return np.ascontiguousarray(windows[starts]).view(shape)[:, 0]
