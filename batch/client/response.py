"""A response, its head read strictly: without the mail parser, which would be a fifth of a call's CPU."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable

LONGEST_LINE = 65_536
MOST_HEADERS = 100

_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: (.*))?")


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
        while True:
            first, *lines = self._lines()
            match = _STATUS.fullmatch(first.rstrip("\r"))
            if not match:
                raise http.client.BadStatusLine(first[:80])
            status = int(match[2])
            if status >= 200:
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if colon and not line[0].isspace():  # a folded line continues a value nobody here reads
                name, value = name.rstrip().lower(), value.strip()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.code = self.status = status
        self.reason = match[3] or ""
        self.version = 10 if match[1] == "0" else 11
        self.headers = self.msg = headers  # type: ignore[assignment]
        coding = headers.get("transfer-encoding", "")
        self.chunked = coding.rpartition(",")[2].strip().lower() == "chunked"
        self.chunk_left = None
        length, *others = {length.strip() for length in headers.get("content-length", "").split(",")}
        if others:
            length = ""
        self.length = int(length) if length.isdecimal() and length.isascii() and len(length) < 19 and not self.chunked else None
        if status in (204, 304):
            self.length = 0
        connection = headers.get("connection", "").lower()
        stays = "close" not in connection if self.version == 11 else "keep-alive" in connection
        self.will_close = not stays or (self.length is None and not self.chunked)

    def _lines(self) -> list[str]:
        """The status line and the header lines, which may still end with a carriage return."""
        come = self.fp.peek()
        end = come.find(b"\n\r\n")
        if end < 0 or come.find(b"\n\n", 0, end + 1) >= 0:
            return self._line_by_line()
        lines: list[str] = self.fp.read(end + 3)[:end].decode("latin-1").split("\n")
        if len(lines) > 1 + MOST_HEADERS:
            raise http.client.HTTPException("too many headers")
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
