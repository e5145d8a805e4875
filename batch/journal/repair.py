"""What a damaged journal still holds, saved into a new one; and a journal without the answers that no row uses."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import JobError
from . import frames
from .index import Index
from .lock import Held, acquire, write_all
from .marks import folder_of, held_by, holder
from .opening import PIECE, ForeignFile, identity, replace
from .replay import Replay, blocks, bounds, whole
from .table import Places

_OPENING = re.compile(rb'\{"(?:k|run|tick|end|journal)":')


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What became of a journal.

    Attributes:
        lines: Lines kept, the header not counted.
        rows: How many of them are rows' outcomes.
        dropped: Bytes that are not in the new journal.
        damage: Where they stood in the old one: offset and length of each stretch, in order.
        aside: The old journal's new name; None when there was nothing to do and it stayed.
    """

    lines: int
    rows: int
    dropped: int
    damage: tuple[tuple[int, int], ...]
    aside: Path | None


def repair(path: Path | str, *, at: float, lock: bool = True) -> RepairReport:
    """Write every whole line into a new journal and keep the old one as `PATH.damaged-<UTC time>`.

    Args:
        path: The journal.
        at: Seconds since the epoch, for a new first line where the old one is lost.
        lock: False goes without a lock, for file systems that have none.

    Raises:
        Busy: A run holds it.
        JobError: It is no journal, or of another format version.
        StorageError: The disk refused; the journal is as it was.
    """
    path = Path(path)
    with _locked(path, lock=lock) as descriptor:
        size = os.fstat(descriptor).st_size
        head = frames.HEADER.match(os.pread(descriptor, 4096, 0))
        if head and int(head[1]) != frames.VERSION:
            identity(descriptor, path, size)  # says which version it is
        kept = _joined(_stretches(descriptor, size))
        if not kept and size and not head:
            raise ForeignFile(f"{path}: holds no line of a journal, so there is nothing to save")
        headed = bool(kept and kept[0].start == 0 and head)
        damage = _between(kept, size)
        aside = None
        if damage or (size and not headed):

            def write(new: int) -> None:
                if not headed:
                    write_all(new, frames.header(_lost_id(path), at))
                _copy(descriptor, new, kept)

            new, aside = replace(path, "damaged", write, lock=lock)
            os.close(new)
        lines, rows = sum(one.lines for one in kept) - headed, sum(one.rows for one in kept)
        return RepairReport(lines, rows, sum(length for _, length in damage), damage, aside)


def compact(path: Path | str, used: Sequence[bytes] | npt.NDArray[np.uint8], *, lock: bool = True) -> RepairReport:
    """Leave out what no input row uses, and what a later or better outcome of the same row has replaced.

    Args:
        path: The journal.
        used: The ids of the rows to keep, as a list or an (n, 16) array.
        lock: False goes without a lock, for file systems that have none.

    Returns:
        What was kept; the old journal stays as `PATH.old-<UTC time>`.

    Raises:
        Busy: A run holds it.
        JobError: It is no journal, or of another format version.
        JournalDamaged: It must be repaired first.
        StorageError: The disk refused; the journal is as it was.
    """
    path = Path(path)
    with _locked(path, lock=lock) as descriptor:
        size = os.fstat(descriptor).st_size
        _, start = identity(descriptor, path, size)
        index = Index()
        replay = Replay(descriptor, path, start, size)
        replay.into(index)
        found = index.find(used)
        lines = np.unique(np.concatenate([found[found >= 0] >> 4, *(np.array(at, np.int64) for at in replay.notes.values())]))
        kept = _joined(_chosen(descriptor, start, replay.sound, lines))
        damage = _between(kept, size)
        aside = None
        if damage:
            new, aside = replace(path, "old", lambda empty: _copy(descriptor, empty, kept), lock=lock)
            os.close(new)
        rows = sum(one.rows for one in kept)
        return RepairReport(len(lines), rows, sum(length for _, length in damage), damage, aside)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Neighbouring lines that are kept: where they start and stop, how many they are, and how many are rows'."""

    start: int
    stop: int
    lines: int
    rows: int


def _stretches(descriptor: int, size: int) -> Iterator[_Stretch]:
    """All whole lines, also those that lost the line feed before them."""
    for offset, block in blocks(descriptor, 0, size):
        starts, stops = bounds(block)
        good = whole(block, starts, stops)
        for first, last in _alike(good):
            if good[first]:
                yield _stretch(offset, block, starts[first:last], int(stops[last - 1]))
                continue
            for start, stop in zip(starts[first:last].tolist(), stops[first:last].tolist(), strict=True):
                for opening in _OPENING.finditer(block, start + 1, stop):
                    if frames.sound(block[opening.start() : stop + 1]):
                        yield _stretch(offset, block, np.array([opening.start()]), stop)
                        break


def _chosen(descriptor: int, start: int, end: int, lines: npt.NDArray[np.int64]) -> Iterator[_Stretch]:
    """The header and the lines that start at one of `lines`, which are sorted."""
    yield _Stretch(0, start, 1, 0)
    for offset, block in blocks(descriptor, start, end):
        starts, stops = bounds(block)
        chosen = np.isin(starts + offset, lines, assume_unique=True)
        for first, last in _alike(chosen):
            if chosen[first]:
                yield _stretch(offset, block, starts[first:last], int(stops[last - 1]))


def _alike(flags: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Runs of equal flags: the first and the one behind the last."""
    edges = [0, *(np.flatnonzero(flags[1:] != flags[:-1]) + 1).tolist(), len(flags)]
    yield from pairwise(edges)


def _stretch(offset: int, block: bytes, starts: Places, stop: int) -> _Stretch:
    rows = int((np.frombuffer(block, np.uint8)[starts + 2] == ord("k")).sum())
    return _Stretch(offset + int(starts[0]), offset + stop + 1, len(starts), rows)


def _joined(stretches: Iterator[_Stretch]) -> list[_Stretch]:
    """The same with neighbours made one, so that a sound journal is one stretch however long it is."""
    kept: list[_Stretch] = []
    for one in stretches:
        if kept and kept[-1].stop == one.start:
            last = kept.pop()
            one = _Stretch(last.start, one.stop, last.lines + one.lines, last.rows + one.rows)
        kept.append(one)
    return kept


def _between(kept: list[_Stretch], size: int) -> tuple[tuple[int, int], ...]:
    """Offset and length of what lies between, before and behind the stretches."""
    edges = [0, *(edge for one in kept for edge in (one.start, one.stop)), size]
    return tuple((start, stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start)


def _copy(old: int, new: int, kept: list[_Stretch]) -> None:
    for one in kept:
        for at in range(one.start, one.stop, PIECE):
            write_all(new, os.pread(old, min(PIECE, one.stop - at), at))


def _lost_id(path: Path) -> bytes:
    """The journal's id when its first line is lost: the marks know it, and servers know requests by it."""
    try:
        name = bytes.fromhex(holder(folder_of(path) / "marks")["journal"])
    except (KeyError, TypeError, ValueError):
        name = b""
    return name if len(name) == 16 else secrets.token_bytes(16)


@contextmanager
def _locked(path: Path, *, lock: bool) -> Iterator[int]:
    if not path.exists():
        raise JobError(f"{path}: there is no such journal (name it with --journal)")
    try:
        descriptor = acquire(path, lock=lock)
    except Held:
        raise held_by(path) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
