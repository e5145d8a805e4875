"""A request on its way over a kept connection: what comes of its answer is taken as it comes, without waiting."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, cast

from .response import Fields, read_head, split_head

if TYPE_CHECKING:
    from .transport import Attempt, Connection

_PIECE = 16_384  # a larger buffer would cost more than the answer that comes in it
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\r\n]*)?\r\n")
_LINE = 256  # bytes within which an honest chunk says how long it is
_MOST = 1 << 20  # bytes of an answer from which on a thread of its own reads it
_AGAIN = (401, 409)  # after these the client may send once more


class Underway:
    """A request that is on its way, and what has come of its answer.

    Most answers come whole and plain, and then this is the response, with the names of urllib3's that are used. Whatever is
    unusual about one is left to a reader that may wait, who finds here all that has come.

    Args:
        connection: What it went out on; None where it did not.
        attempt: The attempt.
        request: The bytes that are still to be sent.
        error: Why it did not go out.

    Attributes:
        sock: What the answer comes on.
        whole: Whether the answer is all there and calls for no other request: reading it waits for nothing.
        error: Why nothing comes of it.
        status, headers, length_remaining: The answer's, once it is whole.
    """

    __slots__ = (
        "_at",
        "_come",
        "_fields",
        "_unsent",
        "attempt",
        "connection",
        "error",
        "headers",
        "length_remaining",
        "skew",
        "sock",
        "started",
        "status",
        "whole",
    )

    def __init__(
        self, connection: Connection | None, attempt: Attempt, request: bytes = b"", error: Exception | None = None
    ) -> None:
        self.attempt = attempt
        self.connection = connection
        self.started = 0.0
        self.skew = 0
        self.whole = False
        self.error = error
        self.length_remaining: int | None = None
        self._come = bytearray()
        self._at = 0
        self._fields: Fields | None = None
        self._unsent = request
        if connection:
            self.sock = cast("socket.socket", connection.sock)
            if self.sock.gettimeout() != 0:
                self.sock.settimeout(0)

    def send(self) -> None:
        """Send what the network takes without waiting."""
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except BrokenPipeError:
            self._unsent = b""  # a server may have answered and closed before it has read everything
        except OSError as error:
            self.error = error

    @property
    def stuck(self) -> bool:
        """Whether it did not all go out, so that no answer can be waited for."""
        return bool(self._unsent or self.error)

    def come(self) -> bool:
        """Take what has come; True once nothing more is to be waited for here: it is whole, or its reader has to wait."""
        try:
            while piece := self.sock.recv(_PIECE):
                self._come += piece
                self.attempt.moved = time.monotonic()
                if self._is_seen():
                    return True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            if not self._come:  # else the beginning of an answer was lost on its way, which is not the same
                self.error = error
        except MemoryError:
            self.error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return True

    def block(self) -> None:
        """From here on whoever reads waits; what could not be sent at once is sent first.

        Raises:
            OSError: The connection is lost.
        """
        self.sock.settimeout(None)
        if self._unsent:
            with contextlib.suppress(BrokenPipeError):  # the server may have answered already
                self.sock.sendall(self._unsent)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What has come, and behind it what is still to come; `http.client` asks its socket for a file, so this has one."""
        if self.whole:
            return io.BufferedReader(cast("io.RawIOBase", io.BytesIO(self._come)))
        return io.BufferedReader(_Come(self._come, self.sock.makefile("rb", buffering=0)))

    def read1(self, amt: int, decode_content: bool = False) -> bytes:
        """The body, at once; nothing the second time."""
        body = bytes(self._come[self._at :]) if self.length_remaining else b""
        self.length_remaining = 0
        return body

    def close(self) -> None:
        """Nothing to do: the connection is on its own again."""

    @property
    def is_plain(self) -> bool:
        """Whether the answer is whole and its bytes are the body's own."""
        fields = self._fields
        return self.whole and fields is not None and not fields.chunked and "content-encoding" not in fields.headers

    @property
    def will_close(self) -> bool:
        """Whether the connection ends with the answer, which is whole."""
        return self._fields is None or self._fields.will_close

    def _is_seen(self) -> bool:
        """Whether the answer is whole, or one whose end cannot be told from here."""
        come, fields = self._come, self._fields
        if len(come) > _MOST:
            return True
        if fields is None:
            try:
                lines, self._at = split_head(come)
                if not self._at:
                    return b"\n\n" in come
                self._fields = fields = read_head(*lines)
            except http.client.HTTPException:
                return True
            self.status, self.headers, self.length_remaining = fields.status, fields.headers, fields.length
            if fields.status < 200 or fields.status in _AGAIN:
                return True
        if fields.chunked:
            return self._is_last_chunk_seen()
        if fields.length is None:
            return True
        self.whole = len(come) == self._at + fields.length
        return len(come) >= self._at + fields.length

    def _is_last_chunk_seen(self) -> bool:
        come = self._come
        while line := _CHUNK.match(come, self._at):
            end = line.end() + int(line[1], 16) + 2
            if len(come) < end:
                return False
            if come[end - 2 : end] != b"\r\n":
                return True
            if int(line[1], 16) == 0:
                self.whole = True
                return True
            self._at = end
        return len(come) > self._at + _LINE


class _Come(io.RawIOBase):
    """Bytes that have come, and behind them a socket."""

    def __init__(self, come: bytearray, rest: socket.SocketIO) -> None:
        self._come = come
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        if not self._come:
            return self._rest.readinto(buffer)
        piece, self._come = self._come[: len(buffer)], self._come[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._rest.close()
        super().close()
