"""The head of a response, read strictly and without the mail parser, which would be a fifth of a call's CPU."""

from __future__ import annotations

import http.client
import re

from urllib3 import HTTPHeaderDict

LONGEST_LINE = 65_536
MOST_HEADERS = 100

_STATUS = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: (.*))?")


class Head(http.client.HTTPResponse):
    """An `http.client` response that begins by RFC 9112: interim responses are skipped, a head cut short is no head."""

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.RemoteDisconnected: Nothing came at all.
            http.client.IncompleteRead: The head ends in the middle.
            http.client.HTTPException: It is not HTTP/1, or larger than any honest head.
        """
        while True:
            line = self._line()
            if not line:
                raise http.client.RemoteDisconnected("closed without a response")
            match = _STATUS.fullmatch(line.rstrip("\r\n"))
            if not match:
                raise http.client.BadStatusLine(line[:80])
            status = int(match[2])
            headers = self._fields()
            if status >= 200:
                break
        self.code = self.status = status
        self.reason = match[3] or ""
        self.version = 10 if match[1] == "0" else 11
        self.headers = self.msg = headers  # type: ignore[assignment]
        coding = headers.get("transfer-encoding", "").lower()
        self.chunked = coding.rpartition(",")[2].strip() == "chunked"
        self.chunk_left = None
        lengths = {length.strip() for length in headers.get("content-length", "").split(",")}
        length = lengths.pop() if len(lengths) == 1 else ""
        self.length = int(length) if length.isdecimal() and length.isascii() and len(length) < 19 and not self.chunked else None
        if status in (204, 304):
            self.length = 0
        connection = headers.get("connection", "").lower()
        stays = "close" not in connection if self.version == 11 else "keep-alive" in connection
        self.will_close = not stays or (self.length is None and not self.chunked)

    def _line(self) -> str:
        line = self.fp.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise http.client.LineTooLong("head")
        return line.decode("latin-1")

    def _fields(self) -> HTTPHeaderDict:
        headers = HTTPHeaderDict()
        for _ in range(MOST_HEADERS + 1):
            line = self._line()
            if not line:
                raise http.client.IncompleteRead(b"")
            if line in ("\r\n", "\n"):
                return headers
            name, colon, value = line.partition(":")
            if colon and not line[0].isspace():  # a folded line continues a value nobody here reads
                headers.add(name.rstrip(), value.strip())
        raise http.client.HTTPException("too many headers")
