"""Every outcome with the server's whole answer, appended durably: the truth from which outputs are made.

`OUTPUT.journal` is append-only and carries the lock; beside it, `OUTPUT.journal.d/` holds what can be made anew: the marks of
what is in flight, a checkpoint of the index, and tails that were cut.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..clock import SYSTEM, Clock
from ..errors import BatchError, JobError
from ..records import Outcome
from . import frames
from .frames import CODES, STATES, Recorded
from .index import Index, Pass, handle, load
from .lock import Held, acquire, refusal, storage
from .marks import MarkedRow, Marks, folder_of, held_by, holder, leftovers
from .opening import cut, damaged, identity, new_name, refuse_foreign, start, start_over
from .writer import Entry, Writer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .index import Handles

__all__ = ["STATES", "Journal", "MarkedRow", "Recorded"]

STALE = 50_000
"""Lines that may stand behind the checkpoint before a new one is written; they replay in a tenth of a second."""
LOOK_AGAIN = 0.2
"""Seconds between two tries for a lock that is waited for."""
READ_ONLY = "the journal was opened for reading only"
GAP = 4096
"""Lines that start this close together are read in one go, …"""
NEAR = 1 << 20
"""… up to so many bytes."""


class Journal:
    """A journal that is open; make one with `Journal.open`.

    Attributes:
        path: The file.
        folder: Where what can be made anew is kept, `PATH.d`.
        id: 16 random bytes that name this journal; empty for one without a line.
        torn: What was cut off its end when it was opened, in words, or None.
        possibly_charged: Rows that a killed run had in flight and that have no answer.
        on_durable: Called by the writer's thread with the outcomes that just became durable.
        on_failed: Called by the writer's thread when nothing can be written any more.
    """

    def __init__(self, path: Path, descriptor: int, *, readonly: bool, clock: Clock, stale: int) -> None:
        self.path = path
        self.folder = folder_of(path)
        self.id = b""
        self.torn: str | None = None
        self.possibly_charged: list[MarkedRow] = []
        self.on_durable: Callable[[list[Outcome]], object] | None = None
        self.on_failed: Callable[[BatchError], object] | None = None
        self._descriptor = descriptor
        self._readonly = readonly
        self._clock = clock
        self._stale = stale
        self._index = Index()
        self._notes: dict[str, list[int]] = {"run": [], "tick": [], "end": []}
        self._behind = 0
        self._ticked = -math.inf
        self._marks: Marks | None = None
        self._writer: Writer | None = None
        self._pass: Pass | None = None
        self._delayed: Callable[[], None] | None = None
        self._traces: list[Path] = []
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        wait: bool = False,
        fresh: bool = False,
        at_begin: bool = False,
        lock: bool = True,
        readonly: bool = False,
        clock: Clock = SYSTEM,
        stopping: threading.Event | None = None,
        stale: int = STALE,
    ) -> Journal:
        """Lock the journal, cut its torn tail, and learn what it holds.

        Args:
            path: The file; made, with mode 0600, where there is none.
            wait: Wait for another run to let go of it.
            fresh: Move the old journal aside, to `PATH.old-<UTC time>`, and begin a new one.
            at_begin: Do that, or write the first line of a new one, at `begin`; what is closed before leaves all as it was.
            lock: False goes without a lock, for file systems that have none.
            readonly: Take no lock and change nothing; a torn tail is passed over.
            clock: Stamps lines, spaces ticks and waits.
            stopping: Ends the wait when it is set.
            stale: Lines that may stand behind the checkpoint before a new one is written.

        Raises:
            Busy: Another run holds it, and the wait was not wanted or was ended; the text says which.
            JobError: The path cannot be a journal, is of another format, or has no locks.
            JournalDamaged: A bad line stands before a good one.
            StorageError: The disk refused.
        """
        path = Path(path)
        traces = [one for one in (folder_of(path), path) if not one.exists()]
        descriptor = _read_only(path) if readonly else _acquired(path, wait=wait, lock=lock, clock=clock, stopping=stopping)
        journal = cls(path, descriptor, readonly=readonly, clock=clock, stale=stale)
        try:
            if not readonly:
                _make(journal.folder)
            beginning = journal._learn
            if fresh:
                refuse_foreign(descriptor, path)
                beginning = partial(journal._start_over, lock=lock)
            empty = not os.fstat(descriptor).st_size
            if at_begin and (fresh or empty):
                # Another run may have made and filled it between the look and the lock.
                journal._delay(beginning, traces if empty else [])
            else:
                beginning()
        except BaseException:
            journal._let_go()
            raise
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        """How many rows have an outcome, each counted once."""
        return len(self._index)

    # What was known when it was opened

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The run lines: for each start `run` (the job, without secrets), and `at`, in seconds since the epoch."""
        return list(self.notes("run"))

    @property
    def duplicates(self) -> int:
        """Answers that do not count because their row had been answered before."""
        self._index.settle()
        return self._index.doubles

    @property
    def syncs(self) -> int:
        """How many groups of lines were committed since it was opened."""
        return self._writer.syncs if self._writer else 0

    @property
    def failed(self) -> BatchError | None:
        """Why nothing can be written any more, or None."""
        return self._writer.failed if self._writer else None

    def tally(self) -> dict[str, int]:
        """How many rows are in each of `STATES`, states without rows left out."""
        return self._index.tally()

    def notes(self, name: str) -> Iterator[dict[str, Any]]:
        """The lines about the run, `run`, `tick` or `end`, in order: a dict with that member and `at`."""
        for offset in self._notes.get(name, []):
            yield frames.parse_note(self._line(offset))

    # The reading pass

    def restart_pass(self, behind: Iterable[npt.NDArray[np.uint8]] = ()) -> bool:
        """Begin to count occurrences anew, for another reading of the input.

        Args:
            behind: The ids of rows that stand before the first one that is read, as (n, 16) arrays.

        Returns:
            Whether all of these are known; where they are not, begin without them.
        """
        self._pass = None
        self._pass = Pass(self._index)
        return self._pass.go_on(behind)

    def occurrences(self, keys: Sequence[bytes] | npt.NDArray[np.uint8]) -> list[int]:
        """How often each key was seen before in this pass, and, in order, within `keys`.

        Args:
            keys: 16-byte keys, as a list or an (n, 16) array.
        """
        if self._pass is None:
            self.restart_pass()
        assert self._pass is not None
        return self._pass.occurrences(keys)

    def find(self, ids: Sequence[bytes] | npt.NDArray[np.uint8]) -> Handles:
        """What is known of rows: a handle each, or -1.

        `handle & 15` is the position in `STATES` of what the row came to, 0 for an answer.

        Args:
            ids: `records.row_id` of each row, as a list or an (n, 16) array.
        """
        return self._index.find(ids)

    def handles(self, ids: Sequence[bytes]) -> list[int]:
        """`find`, as a list."""
        return self._index.handles(ids)

    def state(self, handle: int) -> str:
        """What the row of a handle came to: one of `STATES`; "pending" where nothing is known of it."""
        return STATES[handle & 15] if handle >= 0 else "pending"

    def read(self, handle: int) -> Recorded:
        """What the journal holds under a handle.

        Raises:
            JournalDamaged: The line is not what was written.
        """
        return self.read_many([handle])[0]

    def read_many(self, handles: Iterable[int]) -> list[Recorded]:
        """The same for many handles, in their order; lines near each other are read together.

        Raises:
            JournalDamaged: A line is not what was written.
        """
        offsets = [handle >> 4 for handle in handles]
        order = sorted(range(len(offsets)), key=offsets.__getitem__)
        found: list[Recorded] = []
        for places, lines in self._lines([offsets[row] for row in order]):
            found += frames.answers(lines) or [self._parsed(*one) for one in zip(places, lines, strict=True)]
        if order == list(range(len(order))):
            return found
        records = dict(zip(order, found, strict=True))
        return [records[row] for row in range(len(order))]

    def _parsed(self, offset: int, line: bytes) -> Recorded:
        try:
            return frames.parse(line)
        except ValueError:
            raise damaged(self.path, offset) from None

    def _lines(self, starts: list[int]) -> Iterator[tuple[list[int], list[bytes]]]:
        """The lines that start at sorted offsets, and these, as many at a time as are read in one go."""
        lasts = _lasts(starts)
        at = 0
        while at < len(starts):
            start = starts[at]
            block = os.pread(self._descriptor, min(lasts[at] - start + GAP, NEAR), start)
            places = starts[at : bisect_left(starts, start + len(block), at)]
            lines = [block[place - start : block.find(b"\n", place - start) + 1] for place in places]
            while lines and not lines[-1]:  # it goes on behind the block
                lines.pop()
            lines = lines or [self._line(start)]
            yield starts[at : at + len(lines)], lines
            at += len(lines)

    def _line(self, offset: int) -> bytes:
        """The line that starts at `offset`, with its line feed."""
        size = 4096
        while True:
            block = os.pread(self._descriptor, size, offset)
            stop = block.find(b"\n") + 1
            if stop or len(block) < size:
                return block[:stop]
            size *= 8

    # The run

    def begin(self, job: dict[str, Any]) -> None:
        """Say durably that a run starts, with what; rows that a killed run left in flight are named in the same line.

        What was put off until now (see `open`) is done first.

        Args:
            job: Anything JSON can hold, without secrets; process, host and the marked rows are added.

        Raises:
            StorageError: The disk refused.
        """
        if self._delayed:
            self._own().close()
            self._marks = None
            self._delayed()
            self._delayed = None
        marks = self._own()
        marked = [[mark.id.hex(), mark.index] for mark in marks.left]
        self._note("run", {**job, "pid": os.getpid(), "host": os.uname().nodename, "possibly_charged": marked})
        self.flush()
        marks.forget()

    def end(self, summary: dict[str, Any]) -> None:
        """Say durably how the run ended.

        Raises:
            StorageError: The disk refused.
        """
        self._note("end", summary)
        self.flush()

    def tick(self, values: dict[str, Any]) -> None:
        """Write down gate, limits and what is in flight; more than one a second is dropped, and what comes before `begin`.

        Raises:
            StorageError: The disk refused, now or before.
        """
        now = self._clock.monotonic()
        if now - self._ticked >= 1 and not self._delayed:
            self._ticked = now
            self._note("tick", values)

    def mark(self, name: bytes, index: int) -> None:
        """A row's request is about to go out: from now until its outcome is durable a kill leaves its name.

        Args:
            name: The row's id.
            index: Its number among the selected rows.
        """
        self._own().mark(name, index)

    def unmark(self, name: bytes) -> None:
        """Nothing was sent for the row after all; an outcome's mark goes by itself, once it is durable."""
        self._own().unmark([name])

    def append(self, outcome: Outcome) -> None:
        """Hand an outcome to the writer; `on_durable` tells when it counts.

        Raises:
            StorageError: The disk refused, now or before.
            ValueError: The outcome cannot be a line; see `frames.row`.
        """
        self._put(frames.row(outcome), outcome)

    def flush(self) -> None:
        """Wait until everything handed over is durable.

        Raises:
            StorageError: The disk refused.
        """
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Write what was handed over, leave a checkpoint where it is worth one, and let go of the lock."""
        if self._closed:
            return
        try:
            if self._writer:
                self._writer.close()
                if self._writer.failed is None and self._behind >= self._stale:
                    self._checkpoint()
        finally:
            self._let_go()

    def _note(self, name: str, value: dict[str, Any]) -> None:
        self._put(frames.note(name, value, self._clock.time()), name)

    def _put(self, line: bytes, whose: Outcome | str) -> None:
        if self._writer is None:
            raise ValueError(READ_ONLY)
        self._writer.put(line, whose)

    def _own(self) -> Marks:
        if self._marks is None:
            raise ValueError(READ_ONLY)
        return self._marks

    def _durable(self, entries: list[Entry], offset: int) -> None:
        outcomes = []
        for line, whose in entries:
            if isinstance(whose, Outcome):
                state = "ok" if whose.answer else whose.result.kind  # type: ignore[union-attr]
                self._index.add(whose.id, handle(offset, CODES[state]))
                outcomes.append(whose)
            elif isinstance(whose, str):
                self._notes[whose].append(offset)
            offset += len(line)
        self._behind += len(entries)
        self._own().unmark([outcome.id for outcome in outcomes])
        if outcomes and self.on_durable:
            self.on_durable(outcomes)

    def _broken(self, failure: BatchError) -> None:
        if self.on_failed:
            self.on_failed(failure)

    # Opening and closing

    def _delay(self, beginning: Callable[[], None], traces: list[Path]) -> None:
        """Say who holds the journal, and leave all else as it is until `begin`; marks that are there stay the old journal's."""
        self._delayed, self._traces = beginning, traces
        self.id = new_name()
        marks, whose = self.folder / "marks", self.id
        with suppress(KeyError, TypeError, ValueError):  # none are there, or damaged ones
            whose = bytes.fromhex(holder(marks)["journal"])
        self._marks = Marks(marks, whose, self._clock.time())

    def _start_over(self, *, lock: bool) -> None:
        self.id = self.id or new_name()
        self._descriptor = start_over(self._descriptor, self.path, self._clock.time(), self.id, lock=lock)
        self._learn()

    def _learn(self) -> None:
        """Read what is there; where the file may be changed, cut its torn tail and start the writer."""
        try:
            size = os.fstat(self._descriptor).st_size
            name, end = identity(self._descriptor, self.path, size)
            if name is not None:
                self.id = name
                end = self._replay(end, size)
            elif not self._readonly:
                self.torn = cut(self._descriptor, self.path, self.folder, 0, size)
                self.id = self.id or new_name()
                end = start(self._descriptor, self.path, self._clock.time(), self.id)
        except OSError as error:
            raise storage(self.path, error) from error
        if self._readonly:
            marked = leftovers(self.folder / "marks", self.id)
        else:
            self._marks = Marks(self.folder / "marks", self.id, self._clock.time())
            marked = self._marks.left
        handles = self.handles([mark.id for mark in marked])
        self.possibly_charged = [mark for mark, found in zip(marked, handles, strict=True) if found & 15 or found < 0]
        if not self._readonly:
            self._writer = Writer(self._descriptor, self.path, end, self._clock, self._durable, self._broken)
            if self._behind >= 20 * self._stale:
                self._checkpoint()

    def _replay(self, start: int, size: int) -> int:
        load()
        from . import checkpoint
        from .replay import Replay

        covered = checkpoint.load(self.folder / "index", self.id, self._descriptor, size, self._index)
        replay = Replay(self._descriptor, self.path, covered.end if covered else start, size)
        replay.into(self._index)
        self._behind = replay.lines
        self._notes = {
            name: (covered.notes.get(name, []) if covered else []) + offsets for name, offsets in replay.notes.items()
        }
        if self._readonly:
            if replay.sound < size:
                self.torn = f"{self.path}: the last {size - replay.sound} bytes are no whole line and were passed over"
        else:
            self.torn = cut(self._descriptor, self.path, self.folder, replay.sound, size)
        return replay.sound

    def _checkpoint(self) -> None:
        from . import checkpoint

        assert self._writer is not None
        covered = checkpoint.Covered(self._writer.end, self._notes)
        # A disk too full for it costs the next run some seconds, and this one nothing.
        with suppress(BatchError):
            checkpoint.save(self.folder / "index", self.id, self._descriptor, covered, self._index)
            self._behind = 0

    def _let_go(self) -> None:
        if not self._closed:
            self._closed = True
            if self._marks:
                self._marks.close()
            if self._delayed:
                # The lock is still held: who waits for it finds that the path is another file, or none.
                for trace in self._traces:
                    shutil.rmtree(trace, ignore_errors=True) if trace.is_dir() else trace.unlink(missing_ok=True)
            os.close(self._descriptor)


def _lasts(offsets: list[int]) -> list[int]:
    """For each of sorted offsets the last one that can be reached from it without a gap."""
    lasts = offsets.copy()
    for at in range(len(offsets) - 2, -1, -1):
        if offsets[at + 1] - offsets[at] <= GAP:
            lasts[at] = lasts[at + 1]
    return lasts


def _acquired(path: Path, *, wait: bool, lock: bool, clock: Clock, stopping: threading.Event | None) -> int:
    stopping = stopping or threading.Event()
    while True:
        try:
            return acquire(path, lock=lock)
        except Held:
            # Not a blocking flock: Python takes that up again after a signal, so a handler that only sets a flag never ends it.
            if not wait or clock.wait(stopping, LOOK_AGAIN):
                raise held_by(path) from None


def _read_only(path: Path) -> int:
    if path.exists() and not path.is_file():
        raise JobError(f"{path}: is not a regular file (name a journal with --journal)")
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such journal (run the job first, or name it with --journal)") from None
    except OSError as error:
        raise refusal(path, error) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise refusal(folder, error) from error
