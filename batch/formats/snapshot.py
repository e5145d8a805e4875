"""The bytes of an input, as they were when it was opened.

A regular file is read through one descriptor, up to the size it had; a pipe is copied into a spool file while it is read, so
that it can be read again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import BatchError, InputChanged, JobError, StorageError, TryLater
from .table import BLOCK

LOOK = 200
"""Milliseconds that a pipe is waited for before looking whether the run is to end."""


class Stopped(BatchError):
    """The run was to end while an input was waited for."""


class Bytes(Protocol):
    """Something that can be read at any offset."""

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset` on; none at the end."""

    def size(self) -> int | None:
        """How many bytes there are; None while that is open."""

    def idle(self, offset: int) -> bool:
        """Whether a read at `offset` would have to wait."""

    def keep(self) -> None:
        """The run has begun: what is copied of a pipe is its input from now on."""

    def close(self) -> None:
        """Let go of the descriptor."""


class Snapshot:
    """One input's bytes.

    Args:
        name: What the input is called in messages.
        source: Where the bytes are.

    Attributes:
        start: Where passes begin.
        position: How far the latest pass has read.
        sha256: After a whole pass, the hex digest of all bytes up to its end; "" before.
    """

    def __init__(self, name: str, source: Bytes) -> None:
        self.name = name
        self.source = source
        self.start = 0
        self.position = 0
        self.sha256 = ""
        self._before = hashlib.sha256()

    @property
    def size(self) -> int | None:
        """How many bytes there are; None for a pipe that has not ended."""
        return self.source.size()

    def idle(self) -> bool:
        """Whether the next block has yet to arrive."""
        return self.source.idle(self.position)

    def keep(self) -> None:
        """The run has begun: the copy of a pipe takes the place of an earlier run's, as soon as it is whole.

        Raises:
            StorageError: It cannot.
        """
        self.source.keep()

    def close(self) -> None:
        """Let go of the descriptor."""
        self.source.close()

    def skip(self, size: int, sha256: str) -> bool:
        """Let passes begin behind the first `size` bytes, if these have that digest; returns whether they have.

        Raises:
            StorageError: The input cannot be read.
        """
        digest = hashlib.sha256()
        offset = 0
        while block := self.source.read(offset, min(BLOCK, size - offset)):
            digest.update(block)
            offset += len(block)
        if (offset, digest.hexdigest()) != (size, sha256):
            return False
        self.start, self._before = size, digest
        return True

    def rewind(self) -> None:
        """Let passes begin at the beginning."""
        self.start, self._before = 0, hashlib.sha256()

    def blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """The bytes from `start` on, at most `size` at a time; may be called again.

        Raises:
            InputChanged: This pass saw other bytes than an earlier one, or fewer.
            StorageError: The input cannot be read.
            Stopped: The run was to end while a pipe had nothing to read.
        """
        digest = self._before.copy()
        offset = self.start
        while block := self.source.read(offset, size):
            digest.update(block)
            offset += len(block)
            self.position = offset
            yield block
        self.position = offset
        self._settle(digest.hexdigest())

    def digest(self) -> None:
        """Find the digest of all bytes, for a reader that does not read them in order."""
        digest = hashlib.sha256()
        for block in self.again():
            digest.update(block)
        self._settle(digest.hexdigest())

    def _settle(self, sha256: str) -> None:
        if self.sha256 and sha256 != self.sha256:
            raise InputChanged(f"{self.name} changed while it was in use; run again to ask for what is new")
        self.sha256 = sha256

    def again(self, size: int = BLOCK) -> Iterator[bytes]:
        """The bytes once more, for a look on the side: position and digest stay, and another thread may be reading."""
        offset = 0
        while block := self.source.read(offset, size):
            offset += len(block)
            yield block


class _File:
    """A regular file, frozen at the size it has now."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self.close = weakref.finalize(self, os.close, descriptor)

    def read(self, offset: int, count: int) -> bytes:
        want = min(count, self._size - offset)
        if want <= 0:
            return b""
        try:
            block = os.pread(self._descriptor, want, offset)
        except OSError as error:
            raise _unreadable(self._name, offset, error) from None
        if not block:
            raise InputChanged(f"{self._name} was cut from {self._size} to {offset} bytes while it was in use; run again")
        return block

    def size(self) -> int | None:
        return self._size

    def idle(self, offset: int) -> bool:
        return False

    def keep(self) -> None:
        """Nothing is copied."""


class _Pipe:
    """A pipe, copied into a spool as it is read.

    The spool is created when its first byte has come, and has its name once the last one has and the run has begun: neither a
    part of an input nor that of a run that was refused must be taken for the whole.
    """

    def __init__(
        self, name: str, descriptor: int, spool: Path | None, stopping: threading.Event | None = None, *, own: bool
    ) -> None:
        self._name = name
        self._descriptor = descriptor
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLIN)
        self._stopping = stopping or threading.Event()
        self._path = spool
        self._spool: int | None = None
        self._end = 0
        self._ended = False
        self._kept = False
        self._own = own

    def keep(self) -> None:
        self._kept = True
        if self._ended:
            self._settle()

    def close(self) -> None:
        if self._spool is not None and self._path is not None and not self._kept:
            part_of(self._path).unlink(missing_ok=True)
        if self._own:
            self._own = False
            os.close(self._descriptor)
        if self._spool is not None:
            os.close(self._spool)
            self._spool = None

    def __del__(self) -> None:
        self.close()

    def read(self, offset: int, count: int) -> bytes:
        if offset < self._end:
            assert self._spool is not None
            return os.pread(self._spool, min(count, self._end - offset), offset)
        if self._ended:
            return b""
        block = self._come(offset, count)
        self._keep(block)
        return block

    def _come(self, offset: int, count: int) -> bytes:
        """What comes next. A read alone would not end with a signal: Python takes it up again after the handler."""
        while True:
            while not self._ready.poll(LOOK):
                if self._stopping.is_set():
                    name = "standard input" if self._name == "stdin" else self._name
                    raise Stopped(f"stopped while waiting for {name}")
            try:
                return os.read(self._descriptor, count)
            except BlockingIOError:
                continue  # somebody else who has this pipe was faster
            except OSError as error:
                raise _unreadable(self._name, offset, error) from None

    def _keep(self, block: bytes) -> None:
        try:
            if not block:
                self._ended = True
                if self._kept:
                    self._settle()
                return
            if self._spool is None:
                self._spool = self._create()
            kept = 0
            while kept < len(block):
                kept += os.pwrite(self._spool, block[kept:], self._end + kept)
        except OSError as error:
            raise self._lost(error) from None
        self._end += len(block)

    def _settle(self) -> None:
        """Give the whole copy its name."""
        if self._spool is None or self._path is None:
            return
        try:
            os.fsync(self._spool)
            part_of(self._path).rename(self._path)
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> StorageError:
        where = self._path or tempfile.gettempdir()
        return StorageError(f"{where}: the copy of {self._name} cannot be kept: {error.strerror}; free some space")

    def _create(self) -> int:
        if self._path is None:
            descriptor, path = tempfile.mkstemp(prefix="ails-batch-")
            Path(path).unlink()
            return descriptor
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(part_of(self._path), flags, 0o600)

    def size(self) -> int | None:
        return self._end if self._ended else None

    def idle(self, offset: int) -> bool:
        return offset >= self._end and not self._ended and not self._ready.poll(0)


class _Opened:
    """A file object that the caller opened, of some other store."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name = name
        self._file = file
        self._lock = threading.Lock()
        self._size = file.seek(0, os.SEEK_END)

    def read(self, offset: int, count: int) -> bytes:
        try:
            with self._lock:
                self._file.seek(offset)
                return self._file.read(min(count, self._size - offset))
        except OSError as error:
            raise _unreadable(self._name, offset, error) from None

    def size(self) -> int | None:
        return self._size

    def idle(self, offset: int) -> bool:
        return False

    def keep(self) -> None:
        """Nothing is copied."""

    def close(self) -> None:
        self._file.close()


def _unreadable(name: str, offset: int, error: OSError) -> StorageError:
    return StorageError(f"{name} cannot be read at byte {offset}: {error.strerror or error}")


def open_path(path: str, spool: Path | None = None, stopping: threading.Event | None = None) -> Snapshot:
    """Open a file or a named pipe.

    Args:
        path: Its name.
        spool: Where to keep a copy of what comes through a pipe; None for an unnamed temporary file.
        stopping: Once set, a pipe is waited for no more.

    Raises:
        JobError: There is no such file, or it is no file.
        TryLater: This process has too many files open.
    """
    try:
        # A named pipe is waited for where it is read, not here until somebody opens its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _cannot_open(path, error) from None
    except ValueError:
        raise JobError(f"{path!r} is no file name") from None
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return Snapshot(path, _File(path, descriptor))
    if stat.S_ISDIR(kind) or stat.S_ISBLK(kind):
        os.close(descriptor)
        what = "a directory: name its files, as in 'folder/*.jsonl'" if stat.S_ISDIR(kind) else "a block device"
        raise JobError(f"{path} is {what}")
    return Snapshot(path, _Pipe(path, descriptor, spool, stopping, own=True))


def part_of(spool: Path) -> Path:
    """Where a copy is while it is not whole."""
    return spool.with_name(spool.name + ".part")


def open_stdin(spool: Path | None, stopping: threading.Event | None = None) -> Snapshot:
    """Standard input; when it is a terminal or empty and an earlier run kept a copy, that copy.

    Args:
        spool: Where the copy is kept.
        stopping: Once set, standard input is waited for no more.

    Raises:
        JobError: The earlier run ended before it had copied all of it.
    """
    descriptor = 0
    snapshot = Snapshot("stdin", _Pipe("stdin", descriptor, spool, stopping, own=False))
    if spool is None or not (spool.is_file() or part_of(spool).is_file()):
        return snapshot
    if not os.isatty(descriptor) and snapshot.source.read(0, BLOCK):
        return snapshot
    if not part_of(spool).is_file():
        return open_path(str(spool))
    raise JobError(
        "standard input is empty, and the last run ended before it had all of its own: give it again, "
        f"or make what had come the input: {part_of(spool)}"
    )


def open_file(name: str, file: BinaryIO) -> Snapshot:
    """A seekable file object that the caller opened."""
    return Snapshot(name, _Opened(name, file))


def _cannot_open(path: str, error: OSError) -> BatchError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TryLater(f"{path} cannot be opened: too many files are open (see `ulimit -n`)")
    return JobError(f"{path} cannot be opened: {(error.strerror or str(error)).lower()}")
