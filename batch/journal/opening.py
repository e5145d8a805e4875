"""A journal's first line, its torn tail, and how a new one takes the place of an old one."""

from __future__ import annotations

import os
import secrets
from binascii import unhexlify
from collections.abc import Callable
from pathlib import Path

from ..errors import JobError, JournalDamaged
from . import frames
from .frames import HEADER, NOTE, ROW, VERSION, sound
from .lock import acquire, storage, supplant, sync, sync_directory, write_all

PIECE = 1 << 20
_OPENING = b'{"journal":%d,"id":"' % VERSION


def damaged(path: Path, offset: int) -> JournalDamaged:
    """Bad bytes with good ones behind them."""
    text = "whole lines follow, so it is no torn tail (`ails-batch repair` says what it can save)"
    return JournalDamaged(f"{path}: damaged at byte {offset}; {text}")


class ForeignFile(JobError):
    """The file is no journal at all."""


def identity(descriptor: int, path: Path, size: int) -> tuple[bytes | None, int]:
    """The journal's id and where its first line ends; None where the file is new, or was cut while its first line was written.

    Raises:
        ForeignFile: It is no journal.
        JobError: It is of another format version.
        JournalDamaged: The first line is damaged and others follow.
    """
    content = os.pread(descriptor, min(size, 4096), 0)
    line = content[: content.find(b"\n") + 1]
    match = HEADER.match(content)
    if match and int(match[1]) != VERSION:
        text = f"has format version {int(match[1])}, this program reads {VERSION} (use the version that wrote it, or --fresh)"
        raise JobError(f"{path}: {text}")
    if line and match and match[2] and sound(line):
        return unhexlify(match[2]), len(line)
    if not line and _OPENING.startswith(content.rstrip(b"\0")[: len(_OPENING)]) and _blank(descriptor, 4096, size):
        return None, 0
    if match or b'\n{"' in content:
        following = content[len(line) :]
        if match and line and not following:
            return None, 0
        if match or any(pattern.match(following) for pattern in (ROW, NOTE)):
            raise JournalDamaged(f"{path}: damaged at byte 0, its first line (`ails-batch repair` says what it can save)")
    raise ForeignFile(f"{path}: is not a journal of ails-batch (name another with --journal, or move that file away)")


def _blank(descriptor: int, start: int, end: int) -> bool:
    """Whether only zeros stand there, as a power cut can leave them."""
    return not any(os.pread(descriptor, min(PIECE, end - at), at).strip(b"\0") for at in range(start, end, PIECE))


def new_name() -> bytes:
    """The id of a journal that is yet to be written."""
    return secrets.token_bytes(16)


def start(descriptor: int, path: Path, at: float, name: bytes) -> int:
    """Write the first line of an empty journal, durably; where the line ends."""
    line = frames.header(name, at)
    write_all(descriptor, line)
    sync(descriptor)
    sync_directory(path.parent)
    return len(line)


def cut(descriptor: int, path: Path, folder: Path, sound: int, size: int) -> str | None:
    """Keep what stands behind the last whole line in a file of its own, then cut it off.

    Args:
        descriptor: The journal.
        path: Its name.
        folder: Where `torn-<n>` is made.
        sound: Where the last whole line ends.
        size: Where the journal ends.

    Returns:
        What was done, in words; None where there was nothing to cut.
    """
    if sound == size:
        return None
    number = 1
    while True:
        aside = folder / f"torn-{number}"
        try:
            kept = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            break
        except FileExistsError:
            number += 1
    try:
        for offset in range(sound, size, PIECE):
            write_all(kept, os.pread(descriptor, min(PIECE, size - offset), offset))
        sync(kept)
    finally:
        os.close(kept)
    os.ftruncate(descriptor, sound)
    sync(descriptor)
    return f"{path}: the last {size - sound} bytes were no whole line (a kill or a full disk); kept in {aside}"


def refuse_foreign(descriptor: int, path: Path) -> None:
    """See that what is to be moved aside is a journal, be it damaged or of another version.

    Raises:
        ForeignFile: It is none.
    """
    try:
        identity(descriptor, path, os.fstat(descriptor).st_size)
    except ForeignFile:
        raise
    except (JobError, JournalDamaged):
        pass


def start_over(descriptor: int, path: Path, at: float, name: bytes, *, lock: bool) -> int:
    """Move the journal aside, to `PATH.old-<UTC time>`, and put a new one called `name` in its place.

    Returns:
        The new one's descriptor, locked; the old one is closed. An empty journal stays as it is.

    Raises:
        ForeignFile: What stands there is no journal.
        StorageError: The disk refused.
    """
    refuse_foreign(descriptor, path)
    if not os.fstat(descriptor).st_size:
        return descriptor
    new, _ = replace(path, "old", lambda empty: start(empty, path, at, name), lock=lock)
    os.close(descriptor)
    return new


def replace(path: Path, suffix: str, write: Callable[[int], object], *, lock: bool = True) -> tuple[int, Path]:
    """Write a journal anew and put it in the place of the one whose lock the caller holds.

    Args:
        path: The journal.
        suffix: What the old one is called after the path: `old` or `damaged`.
        write: Fills the new one.
        lock: Whether the new one is locked, too.

    Returns:
        The new one's descriptor and the old one's new name.

    Raises:
        StorageError: The disk refused; the journal is as it was.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = acquire(new, lock=lock)
    try:
        write(descriptor)
        sync(descriptor)
        return descriptor, supplant(path, suffix, new)
    except BaseException as error:
        os.close(descriptor)
        new.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage(path, error) from error
        raise
