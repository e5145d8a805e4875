"""The one thread that writes: take what has come, write it, make it durable, tell; no timer."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..clock import Clock
from ..errors import BatchError, StorageError
from ..records import Outcome
from .lock import same, storage, sync, write_all

Entry = tuple[bytes, Outcome | str | threading.Event | None]
"""A line and whose it is: a row's outcome, a note's name, or nobody's line but an event to be set; None ends the thread."""


class Writer:
    """Group commit.

    The first write or sync that fails ends it: the file is cut back to what is known durable and never synced again, because a
    second fsync can report success for pages that were dropped (PostgreSQL's fsyncgate).

    Args:
        descriptor: The journal, opened for appending.
        path: Its name.
        end: Where it ends; everything before is durable.
        clock: For the check, once a second, that the path still is this file.
        durable: Called by the thread with the entries just made durable and the offset of their first line.
        broken: Called by the thread when it ends before its time.

    Attributes:
        end: The offset behind the last durable line.
        syncs: How many groups were committed.
        failed: Why nothing is written any more, or None.
    """

    def __init__(
        self,
        descriptor: int,
        path: Path,
        end: int,
        clock: Clock,
        durable: Callable[[list[Entry], int], None],
        broken: Callable[[BatchError], None],
    ) -> None:
        self.path = path
        self.end = end
        self.syncs = 0
        self.failed: BatchError | None = None
        self._descriptor = descriptor
        self._clock = clock
        self._durable = durable
        self._broken = broken
        self._queue: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._found = os.fstat(descriptor)
        self._looked = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def put(self, line: bytes, whose: Outcome | str) -> None:
        """Hand over a line.

        Raises:
            BatchError: `failed`.
        """
        if self.failed:
            raise self.failed
        self._queue.put((line, whose))

    def flush(self) -> None:
        """Wait until every line handed over so far is durable.

        Raises:
            BatchError: `failed`.
        """
        event = threading.Event()
        self._queue.put((b"", event))
        if not self.failed:  # a thread that fails after this look sets the event as it empties the queue
            event.wait()
        if self.failed:
            raise self.failed

    def close(self) -> None:
        """Write what was handed over and end the thread."""
        self._queue.put((b"", None))
        self._thread.join()

    def _run(self) -> None:
        entries: list[Entry] = []
        try:
            while True:
                entries = self._take()
                if not self._commit(entries):
                    return
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            self._fail(entries, storage(self.path, error), error)
        except StorageError as error:
            self._fail(entries, error)
        except BaseException as error:
            self._fail(entries, BatchError(f"{self.path}: its writer stopped: {type(error).__name__}: {error} (a bug)"), error)

    def _take(self) -> list[Entry]:
        entries = [self._queue.get()]
        entries += [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        return entries

    def _commit(self, entries: list[Entry]) -> bool:
        content = b"".join(line for line, _ in entries)
        if content:
            write_all(self._descriptor, content)
            sync(self._descriptor)
            self._look(self.end + len(content))
            start, self.end = self.end, self.end + len(content)
            self.syncs += 1
            self._durable(entries, start)
        for _, whose in entries:
            if isinstance(whose, threading.Event):
                whose.set()
        return all(whose is not None for _, whose in entries)

    def _look(self, end: int) -> None:
        """Whether the file is as long as what was written, and still the one that the path names."""
        found = os.fstat(self._descriptor)
        if found.st_size < end:
            raise OSError(errno.EIO, f"{end - found.st_size} bytes that were written are not there")
        if found.st_size > end:
            text = f"is {found.st_size} bytes long instead of {end}: another program writes to it"
            raise StorageError(f"{self.path}: {text} (let nothing else touch it, then run the same command again)")
        now = self._clock.monotonic()
        if found.st_nlink and now - self._looked < 1:
            return
        self._looked = now
        if not found.st_nlink or not same(self.path, self._found):
            text = "was deleted or replaced while the run went on (put it back, or start over with --fresh)"
            raise StorageError(f"{self.path}: {text}")

    def _fail(self, entries: list[Entry], failure: BatchError, cause: BaseException | None = None) -> None:
        failure.__cause__ = cause
        self.failed = failure
        with suppress(queue.Empty):
            while True:
                entries.append(self._queue.get_nowait())
        for _, whose in entries:
            if isinstance(whose, threading.Event):
                whose.set()
        self._broken(failure)
