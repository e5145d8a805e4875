"""One run at a time: the journal's own descriptor carries the lock, and the file is never unlinked."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from pathlib import Path

from ..errors import BatchError, JobError, StorageError, TryLater

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file would pass a size limit (ulimit -f, or the file system's): raise it and run the same command again",
    errno.EIO: "the disk failed: check it, then run the same command again",
}
_SCARCE = {errno.EMFILE, errno.ENFILE}
_LOCKLESS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class Held(Exception):
    """Another process holds the lock."""


def storage(path: Path, error: OSError) -> StorageError:
    """What the disk's refusal means for a run that is under way."""
    words = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "mend that and run the same command again")
    return StorageError(f"{path}: {words} ({remedy}; what was counted as done is safe)")


def refusal(path: Path, error: OSError) -> BatchError:
    """What it means that a file could not be opened or made before anything was sent."""
    words = error.strerror or str(error)
    if error.errno in _SCARCE:
        return TryLater(f"{path}: {words} (too many open files: lower --concurrency or raise ulimit -n)")
    if error.errno in _REMEDIES or error.errno is None:
        return storage(path, error)
    if error.errno == errno.ELOOP:
        return JobError(f"{path}: is a symbolic link (name the file itself)")
    return JobError(f"{path}: {words} (choose a place for the output that can be written)")


def acquire(path: Path, *, lock: bool = True) -> int:
    """Open the journal for appending, made with mode 0600 where there is none, and lock it.

    Args:
        path: The journal.
        lock: False goes without a lock, for file systems that have none.

    Returns:
        The descriptor; closing it, or the end of the process however it comes, frees the lock.

    Raises:
        Held: Another process has it.
        JobError: The path is a link, a device or out of reach, or its file system has no locks.
        StorageError: The disk refused.
    """
    while True:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise refusal(path, error) from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise JobError(f"{path}: is not a regular file (name another output or --journal)")
            if lock:
                _flock(descriptor, path)
            if same(path, found):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was moved aside just now: the lock we got is the old file's


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held(path) from None
    except OSError as error:
        if error.errno in _LOCKLESS:
            text = "its file system has no locks (put the journal on another with --journal, or use --no-lock)"
            raise JobError(f"{path}: {text}") from error
        raise refusal(path, error) from error


def same(path: Path, found: os.stat_result) -> bool:
    """Whether the path still is the file of which `found` was told."""
    try:
        now = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino)


def supplant(path: Path, suffix: str, content: Path) -> Path:
    """Put `content`, already locked and durable, at `path`; the file that stood there keeps a name beside it.

    The path is never without a file, and the new file is locked before it gets its name, so no other run can slip in.

    Args:
        path: The journal, whose lock the caller holds.
        suffix: What the old file is called after the path: `old` or `damaged`.
        content: The new file, in the same directory.

    Returns:
        The old file's new name, `PATH.SUFFIX-<UTC time>`.

    Raises:
        StorageError: The disk refused.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    tries = 0
    while True:
        aside = path.with_name(f"{path.name}.{suffix}-{stamp}" + (f"-{tries}" if tries else ""))
        try:
            os.link(path, aside)
            content.replace(path)
            sync_directory(path.parent)
        except FileExistsError:
            tries += 1
        except OSError as error:
            raise storage(path, error) from error
        else:
            return aside


def sync(descriptor: int) -> None:
    """Make what was written durable: `fdatasync`, and on macOS, where that does not reach the disk, `F_FULLFSYNC`."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_directory(folder: Path) -> None:
    """Make a folder's names durable; without it a renamed file can be gone after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte; a full disk takes part of them first, and says so only at the next call."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
