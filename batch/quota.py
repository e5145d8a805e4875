"""Jobs of one machine that share one rate without a server: their arrival times stand in a small locked file."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from .errors import JobError, StorageError
from .pace.rate import Booking, Rate

STATE = struct.Struct("<8s16sQ6d")
"""Magic, boot, bookings so far; arrival and settled seconds of requests, the same of tokens; the last time given out; the
end of the rest."""

CHECK = struct.Struct("<I")
MAGIC = b"ailsquo1"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")

PATIENCE = 0.2
"""Seconds to wait for the lock, which is held for microseconds; who holds it longer was stopped in that very moment."""

REMEMBERED = 4096
"""Bookings that can still be taken back: a twentieth of a second's worth is ever open."""


def place(quota: str) -> Path:
    """Where a quota's file is.

    A name stands for a file in the home directory of the account, as the password database knows it and not as `HOME` or
    `XDG_STATE_HOME` say: a job from cron and one from a terminal must find the same file, whatever their environments.

    Args:
        quota: A name of letters, digits, `.`, `_`, `-`, or a path, which has a `/` in it.

    Raises:
        JobError: It is neither, or the account has no home directory.
    """
    if "/" in quota:
        return Path(quota)
    if not NAME.fullmatch(quota):
        raise JobError(f"quota: {quota!r} is no name; use letters, digits, '.', '_' and '-', or a path with a '/'")
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise JobError(
            f'quota: user {os.getuid()} has no home directory; name a file instead: quota = "/path/to/{quota}"'
        ) from None
    return Path(home, ".local/state/ails-batch/quota", quota)


class _Claim(NamedTuple):
    """One booking of this job, its place among all jobs' bookings, and what was taken."""

    booking: Booking
    sequence: int
    requests: float
    tokens: float


class Quota(Rate):
    """A `Rate` whose arrival times are shared with every other job of this machine that names the same file.

    Each job says the limits itself: one with half the rate takes twice the time a request, of the same time. First come,
    first served, across jobs. A job that dies leaves at most the times it had booked unused; a reboot begins anew.

    Args:
        file: The quota's file, made with mode 0600 where there is none; see `place`.
        rpm, tpm, burst: As for `Rate`.

    Raises:
        JobError: The file cannot be used: not made, not opened, no quota's, no locks there; or there is no limit to share.
    """

    def __init__(self, file: Path, rpm: float | None = None, tpm: float | None = None, burst: float | None = None) -> None:
        if rpm is None and tpm is None:
            raise JobError("a quota shares a rate: say how much with rpm or tpm")
        self.file = file
        self._boot = _boot()
        self._patience = PATIENCE
        self._sequence = 0
        self._rest = float("-inf")
        self._mine: deque[_Claim] = deque(maxlen=REMEMBERED)
        self._kept: deque[_Claim] = deque()
        self._descriptor = self._open()
        super().__init__(rpm, tpm, burst)

    def reserve(self, now: float, requests: float = 1.0, tokens: float = 0.0) -> Booking:
        """Take requests and tokens together, from what all jobs share; as `Rate.reserve`."""
        with self._shared():
            first = max(now, self._rest)
            while self._kept and self._kept[0].booking.at <= first:
                self._kept.popleft()  # its time has passed, or is taken by the rest; nobody may save it up
            if self._kept:
                kept = self._kept.popleft()
                super().refund(kept.requests - requests, kept.tokens - tokens)
                claim = _Claim(kept.booking, kept.sequence, requests, tokens)
            else:
                booking = super().reserve(first, requests, tokens)
                if now < booking.at == first:
                    booking = msgspec.structs.replace(booking, binds="rpm")
                self._sequence += 1
                claim = _Claim(booking, self._sequence, requests, tokens)
            self._mine.append(claim)
            return claim.booking

    def undo(self, booking: Booking) -> None:
        """Forget this booking and all that this job made after it.

        Where other jobs have booked since, the times cannot be given back: this job keeps them, and takes them up again first.
        """
        back: deque[_Claim] = deque()
        while self._mine and (not back or back[0].booking is not booking):
            back.appendleft(self._mine.pop())
        with self._shared():
            if back and not self._kept and self._sequence - back[0].sequence == len(back) - 1:
                super().undo(booking)
                self._sequence = back[0].sequence - 1
            else:
                self._kept.extendleft(reversed(back))

    def refund(self, requests: float = 1.0, tokens: float = 0.0) -> None:
        """Give back what was taken and not sent."""
        with self._shared():
            super().refund(requests, tokens)

    def settle(self, estimated: float, actual: float) -> None:
        """Put the tokens that were really used in the place of the estimate, more or fewer."""
        with self._shared():
            super().settle(estimated, actual)

    def rest(self, until: float) -> None:
        """Let no job go before this time: the server has told one of them to wait, and means them all.

        Args:
            until: Monotonic seconds; an earlier time than one that was said before changes nothing.
        """
        with self._shared():
            self._rest = max(self._rest, until)

    def close(self) -> None:
        """Close the file; it stays where it is."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> int:
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as error:
            words = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise JobError(f'quota {self.file}: {words}; name a file that can be written: quota = "/path/to/file"') from None
        found = os.fstat(descriptor)
        content = os.pread(descriptor, STATE.size + CHECK.size, 0) if stat.S_ISREG(found.st_mode) else b""
        if not stat.S_ISREG(found.st_mode) or (found.st_size and not content.startswith(MAGIC)):
            os.close(descriptor)
            raise JobError(f"quota {self.file}: is not a quota's file; name another one")
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError as error:
            os.close(descriptor)
            raise JobError(
                f"quota {self.file}: its file system has no locks ({error.strerror}); name a file on another"
            ) from None
        return descriptor

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """The state of all jobs, read before and written after, with nobody in between."""
        if self._descriptor < 0:  # a request that outlived its run; the number may be another file's by now
            yield
            return
        self._lock()
        try:
            self._read()
            yield
            self._write()
        except OSError as error:
            raise StorageError(f"quota {self.file}: {error.strerror}; mend that and run the same command again") from error
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _lock(self) -> None:
        if not os.fstat(self._descriptor).st_nlink:  # somebody tidied up; the others will use the new file, too
            os.close(self._descriptor)
            self._descriptor = self._open()
        until = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    self._patience = 0.0  # passed by until it lets go: at worst one booking is counted once instead of twice
                    return
                time.sleep(0.0002)
            else:
                self._patience = PATIENCE
                return

    def _read(self) -> None:
        content = os.pread(self._descriptor, STATE.size + CHECK.size, 0)
        values: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, float("-inf"), float("-inf"))
        sequence = 0
        if len(content) == STATE.size + CHECK.size and CHECK.unpack_from(content, STATE.size)[0] == zlib.crc32(
            content[: STATE.size]
        ):
            magic, boot, count, *found = STATE.unpack_from(content)
            if (magic, boot) == (MAGIC, self._boot):  # before the last boot this clock was another
                sequence, values = count, tuple(found)
        self._sequence, self._values = sequence, values
        if self._requests is not None:
            self._requests.arrival, self._requests.settled = values[0], values[1]
        if self._tokens is not None:
            self._tokens.arrival, self._tokens.settled = values[2], values[3]
        self._last, self._rest = values[4:]

    def _write(self) -> None:
        values = [*self._values[:4], self._last, self._rest]
        if self._requests is not None:
            values[0:2] = self._requests.arrival, self._requests.settled
        if self._tokens is not None:
            values[2:4] = self._tokens.arrival, self._tokens.settled
        content = STATE.pack(MAGIC, self._boot, self._sequence, *values)
        os.pwrite(self._descriptor, content + CHECK.pack(zlib.crc32(content)), 0)


def _boot() -> bytes:
    """This boot of this machine, 16 bytes: a reading of `CLOCK_MONOTONIC` means something only within one."""
    if sys.platform == "darwin":
        asked = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True)
        return UUID(asked.stdout.strip()).bytes
    return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
