"""A response, its head read strictly: without the mail parser, which would be a fifth of a call's CPU."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

LONGEST_LINE = 65_536
MOST_HEADERS = 100

_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: (.*))?")


class Fields(NamedTuple):
    """What a head says.

    Attributes:
        version: 10 or 11.
        headers: Names in lower case; values of equal names are joined by commas.
        length: Bytes of the body; None where the head does not say so.
        will_close: Whether the connection ends with the response.
    """

    status: int
    reason: str
    version: int
    headers: dict[str, str]
    chunked: bool
    length: int | None
    will_close: bool


def read_head(first: str, *lines: str) -> Fields:
    """The status line and the header lines of a response, which may still end with a carriage return.

    Raises:
        http.client.BadStatusLine: It is not HTTP/1.
    """
    match = _STATUS.fullmatch(first.rstrip("\r"))
    if not match:
        raise http.client.BadStatusLine(first[:80])
    status = int(match[2])
    headers: dict[str, str] = {}
    for name, value in map(_field, lines):
        if name:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    version = 10 if match[1] == "0" else 11
    coding = headers.get("transfer-encoding", "")
    chunked = coding.rpartition(",")[2].strip().lower() == "chunked"
    told, *others = {length.strip() for length in headers.get("content-length", "").split(",")}
    length = int(told) if not others and told.isdecimal() and told.isascii() and len(told) < 19 and not chunked else None
    if status in (204, 304):
        length = 0
    connection = headers.get("connection", "").lower()
    stays = "close" not in connection if version == 11 else "keep-alive" in connection
    will_close = not stays or (length is None and not chunked)
    return Fields(status, match[3] or "", version, headers, chunked, length, will_close)


@lru_cache(maxsize=64)
def _field(line: str) -> tuple[str, str]:
    """A header's name, in lower case, and value; no name for a line that is none. Most lines come with every response."""
    name, colon, value = line.partition(":")
    # A folded line continues a value nobody here reads.
    return (name.rstrip().lower(), value.strip()) if colon and not line[0].isspace() else ("", "")


def split_head(come: bytes | bytearray) -> tuple[list[str], int]:
    """The lines of a head that stands whole at the beginning of what has come, and where it ends; 0 where it does not.

    Raises:
        http.client.HTTPException: It is larger than any honest head.
    """
    end = come.find(b"\n\r\n")
    if end < 0 or come.find(b"\n\n", 0, end + 1) >= 0:
        return [], 0
    lines = come[:end].decode("latin-1").split("\n")
    if len(lines) > 1 + MOST_HEADERS:
        raise http.client.HTTPException("too many headers")
    return lines, end + 3


class Head(http.client.HTTPResponse):
    """An `http.client` response that begins by RFC 9112: interim responses are skipped, a head cut short is no head.

    Names in `headers` are in lower case.
    """

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.RemoteDisconnected: Nothing came at all.
            http.client.IncompleteRead: The head ends in the middle.
            http.client.HTTPException: It is not HTTP/1, or larger than any honest head.
        """
        while (fields := read_head(*self._lines())).status < 200:
            pass
        self.code = self.status = fields.status
        self.reason = fields.reason
        self.version = fields.version
        self.headers = self.msg = fields.headers  # type: ignore[assignment]
        self.chunked = fields.chunked
        self.chunk_left = None
        self.length = fields.length
        self.will_close = fields.will_close

    def _lines(self) -> list[str]:
        """The status line and the header lines, which may still end with a carriage return."""
        lines, end = split_head(self.fp.peek())
        if not end:
            return self._line_by_line()
        self.fp.read(end)
        return lines

    def _line_by_line(self) -> list[str]:
        """The same of a head that has not come as one piece, or ends its lines without carriage returns."""
        lines: list[str] = []
        while len(lines) <= 1 + MOST_HEADERS:
            line = self.fp.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:
                raise http.client.LineTooLong("head")
            if not line:
                raise http.client.IncompleteRead(b"") if lines else http.client.RemoteDisconnected("closed without a response")
            if lines and line in (b"\r\n", b"\n"):
                return lines
            lines.append(line.decode("latin-1").rstrip("\n"))
        raise http.client.HTTPException("too many headers")


class Plain:
    """The body of a response whose length is known and whose bytes are the answer's own.

    That is nearly every answer, and urllib3's own response, which can also decode and join chunks, costs more than it needs.
    What is used of that one is here under the same names.

    Args:
        head: The head, which has been read.
        keep: Told when the last byte was read.
        close: Ends the connection.
    """

    def __init__(self, head: Head, keep: Callable[[], None], close: Callable[[], None]) -> None:
        assert head.length is not None
        self.status = head.status
        self.headers: dict[str, str] = head.headers  # type: ignore[assignment]
        self.length_remaining = head.length
        self._head = head  # which closes its file when it is collected
        self._keep, self._close = keep, close
        if not head.length:
            self._end()

    def read1(self, amt: int, decode_content: bool = False) -> bytes:
        """The next bytes, as they come; none once all were read.

        Args:
            amt: How many at most.
            decode_content: Without meaning here.

        Raises:
            http.client.IncompleteRead: The connection ended before the body.
        """
        if not self.length_remaining:
            return b""
        try:
            piece: bytes = self._head.fp.read1(min(amt, self.length_remaining))
            if not piece:
                raise http.client.IncompleteRead(b"", self.length_remaining)
        except BaseException:
            self.close()
            raise
        self.length_remaining -= len(piece)
        if not self.length_remaining:
            self._end()
        return piece

    def close(self) -> None:
        """Give up what was not read, and the connection with it."""
        if self.length_remaining:
            self._head.fp.close()
            self._close()

    def _end(self) -> None:
        self._head.fp.close()
        self._keep()
