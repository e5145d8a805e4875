"""What is in flight: a slot a row in a mapped file, which outlives a SIGKILL and costs about a microsecond.

A row is marked just before its request goes out and unmarked once its outcome is durable, so after a hard kill the slots name
the rows that may be charged twice. The file's head says who holds the journal. Nothing here need survive a power cut.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from ..errors import Busy
from .lock import refusal, storage, write_all

BLOCK = 65536
HEAD = 4096
SLOT = 32
EMPTY = bytes(SLOT)
_slot = struct.Struct("<16sq")


class MarkedRow(msgspec.Struct, frozen=True):
    """A row whose request may have gone out before a run was killed."""

    id: bytes
    index: int


def holder(path: Path) -> dict[str, Any]:
    """Who holds the journal these marks belong to; empty where they cannot say."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.read(HEAD).rstrip(b"\0"))
    except (OSError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def folder_of(journal: Path) -> Path:
    """Where a journal keeps what can be made anew."""
    return journal.with_name(journal.name + ".d")


def held_by(journal: Path) -> Busy:
    """The error that says who holds a journal."""
    head = holder(folder_of(journal) / "marks")
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(head["since"]))
        whom = f"process {head['pid']} on {head['host']} since {since}: {head['command']}"
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        whom = "another run"
    return Busy(f"{journal}: held by {whom} (--wait waits for it)")


def leftovers(path: Path, journal: bytes) -> list[MarkedRow]:
    """The rows that a killed run of this journal left marked, read without touching them."""
    if holder(path).get("journal") != journal.hex():
        return []
    return list(_read(path.read_bytes()).values())


def _read(content: bytes) -> dict[int, MarkedRow]:
    marked: dict[int, MarkedRow] = {}
    if not content[HEAD:].strip(b"\0"):  # as most often; looking at every slot takes a hundred times longer
        return marked
    for place in range(HEAD, len(content) - SLOT + 1, SLOT):
        slot = content[place : place + SLOT]
        if slot != EMPTY and crc32(slot[:24]) == int.from_bytes(slot[24:28], "little"):
            marked[place] = MarkedRow(*_slot.unpack_from(slot))
    return marked


class Marks:
    """The mapped file, for the run that holds the journal.

    Args:
        path: The file; made anew when it belongs to another journal.
        journal: The journal's id.
        since: Seconds since the epoch, when the lock was taken.

    Attributes:
        left: The rows a killed run left marked; their slots stay as they are until `forget`.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(self, path: Path, journal: bytes, since: float) -> None:
        self.path = path
        self._free: deque[int] = deque()
        self._maps: list[mmap.mmap] = []
        self._growing = threading.Lock()
        ours = holder(path).get("journal") == journal.hex()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if ours else os.O_TRUNC)
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise refusal(path, error) from error
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        left = _read(content)
        self.left = list(left.values())
        self._placed = {mark.id: place for place, mark in left.items()}
        self._grow(content)
        while len(self._maps) * BLOCK < len(content):
            self._grow(content)
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": _command()}
        head = {"journal": journal.hex(), **who}
        self._maps[0][:HEAD] = json.dumps(head).encode().ljust(HEAD, b"\0")

    def _grow(self, content: bytes = b"") -> None:
        start = len(self._maps) * BLOCK
        try:
            # Zeros are written, not left as a hole: on a full disk a hole would end the process with SIGBUS.
            os.lseek(self._file, start, os.SEEK_SET)
            write_all(self._file, content[start : start + BLOCK].ljust(BLOCK, b"\0"))
            self._maps.append(mmap.mmap(self._file, BLOCK, offset=start))
        except OSError as error:
            raise storage(self.path, error) from error
        free = range(start or HEAD, start + BLOCK, SLOT)
        if self._placed:
            taken = set(self._placed.values())
            self._free.extend(place for place in free if place not in taken)
        else:
            self._free.extend(free)

    def _place(self) -> int:
        while True:
            try:
                return self._free.popleft()
            except IndexError:
                with self._growing:
                    if not self._free:
                        self._grow()

    def mark(self, name: bytes, index: int) -> None:
        """A row's request is about to go out; to say so again, for another attempt, changes nothing.

        Raises:
            StorageError: There is no room for another slot.
        """
        if name in self._placed:
            return
        place = self._placed[name] = self._place()
        body = _slot.pack(name, index)
        block, at = divmod(place, BLOCK)
        self._maps[block][at : at + 28] = body + crc32(body).to_bytes(4, "little")

    def unmark(self, names: Iterable[bytes]) -> None:
        """The rows' outcomes are durable, or nothing was sent for them after all."""
        for name in names:
            place = self._placed.pop(name, None)
            if place is not None:
                block, at = divmod(place, BLOCK)
                self._maps[block][at : at + SLOT] = EMPTY
                self._free.append(place)

    def forget(self) -> None:
        """The rows left by a killed run are written down elsewhere now."""
        self.unmark([mark.id for mark in self.left])

    def close(self) -> None:
        """Let go of the file; rows still marked stay so."""
        for block in self._maps:
            block.close()
        os.close(self._file)


def _command() -> str:
    """What was typed, fit to be shown: no control characters, no user or query in a URL, at most 200 characters."""
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    words = re.sub(r"//[^/@\s]*@", "//", words)
    words = re.sub(r"\?\S*", "", words)
    return "".join(sign for sign in words if sign.isprintable())[:200]
