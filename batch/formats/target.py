"""The output file: written beside its target and renamed, so that readers see the old file or the new one, whole."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import JobError, StorageError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
STALE = 60.0
"""Seconds after which an unlocked unfinished file belongs to nobody."""

REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "raise the quota or free some space, and run the same command again",
    errno.EFBIG: "raise the file size limit (`ulimit -f`) and run the same command again",
    errno.EIO: "see to the disk, then run the same command again",
    errno.EROFS: "make it writable and run the same command again",
}


def storage(path: str | Path, error: OSError) -> StorageError:
    """A failed write as the person should read it."""
    remedy = REMEDIES.get(error.errno or 0, "mend that and run the same command again")
    return StorageError(
        f"{path} cannot be written: {(error.strerror or str(error)).lower()}; the old file is as it was; {remedy}"
    )


def preflight(path: str, inputs: Iterable[str] = ()) -> None:
    """Look whether an output can be written, before anything is sent for it.

    Args:
        path: The output; `-` is standard output.
        inputs: Files that it must not replace.

    Raises:
        JobError: It is a link, a directory, a device, a pipe or an input, or its directory cannot be written; or it is a URL.
    """
    if path == "-":
        return
    if URL.match(path):
        raise JobError(f"{path}: outputs of this kind are not known here; name a file")
    folder = Path(path).parent
    if not folder.is_dir():
        raise JobError(f"{path} cannot be written: there is no directory {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise JobError(f"{path} cannot be written: the directory {folder} does not allow it; choose another one")
    found = _found(path)
    if found is None:
        return
    for name in inputs:
        if name != "-" and Path(name).exists() and os.path.samestat(found, Path(name).stat()):
            raise JobError(f"{path} is the input; choose another output")


def _found(path: str) -> os.stat_result | None:
    """What stands at the target: a regular file, or nothing."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise JobError(f"{path!r} cannot be an output: {error}") from None
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(found.st_mode):
        what = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise JobError(f"{path} is {what}; an output is replaced as a whole, so it must be a regular file")
    return found


class Target:
    """A file that takes the target's place once it is whole.

    Args:
        path: The target.
        inputs: Files that it must not replace.

    Raises:
        JobError: It cannot be an output.
        StorageError: The storage fails.
    """

    def __init__(self, path: str, inputs: Iterable[str] = ()) -> None:
        preflight(path, inputs)
        self.path = path
        self._before = _found(path)
        target = Path(path)
        _sweep(target)
        self._part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(self._part, flags, 0o600)
            with suppress(OSError):  # some network file systems have no locks; then only age tells what is left over
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._descriptor, stat.S_IMODE(self._before.st_mode) if self._before else 0o600)
        except OSError as error:
            self.abort()
            raise storage(path, error) from None

    def take_over(self) -> None:
        """Begin with all that stands in the target now.

        Raises:
            StorageError: The storage fails; the target is as it was.
        """
        try:
            with Path(self.path).open("rb") as old:
                while block := old.read(1 << 20):
                    self.write(block)
        except OSError as error:
            self.abort()
            raise storage(self.path, error) from None

    def write(self, data: bytes) -> int:
        """Write all of `data`; after an abort, nothing.

        Raises:
            StorageError: The storage fails; the target is as it was.
        """
        if self._descriptor is None:
            return len(data)
        try:
            _write(self._descriptor, data)
        except OSError as error:
            self.abort()
            raise storage(self.path, error) from None
        return len(data)

    def commit(self) -> None:
        """Make it durable, and let it take the target's place.

        Raises:
            StorageError: The storage fails, or another file has taken the place meanwhile; that one stays.
        """
        assert self._descriptor is not None
        try:
            os.fsync(self._descriptor)
            found = _found(self.path)
            if found and not (self._before and os.path.samestat(found, self._before)):
                raise StorageError(
                    f"{self.path} was replaced by another file meanwhile; move that away and run the same command again"
                )
            self._part.rename(self.path)
            folder = os.open(self._part.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise storage(self.path, error) from None
        except JobError as error:
            raise StorageError(str(error)) from None
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave the target as it was; nothing to do after a commit."""
        if self._descriptor is None:
            return
        self._part.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


class Standard:
    """Standard output, written through at once."""

    def write(self, data: bytes) -> int:
        """Write all of `data`.

        Raises:
            BrokenPipeError: Nobody reads any more.
            StorageError: The storage behind it fails.
        """
        try:
            _write(1, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage("standard output", error) from None
        return len(data)

    def commit(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """What was written cannot be taken back."""


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sweep(target: Path) -> None:
    """Remove what killed runs have left beside the target: unfinished files that nobody has locked any more."""
    for part in target.parent.glob(f".{_plain(target.name)}.????????.part"):
        try:
            descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(descriptor).st_mtime > STALE:
                part.unlink(missing_ok=True)
        except OSError:
            pass  # somebody is still writing it
        finally:
            os.close(descriptor)


def _plain(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
