"""The head of a response reads the same however it comes."""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.client.response import MOST_HEADERS, Head


class Pieces(io.RawIOBase):
    """Bytes that come so many at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._rest, self._size = content, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self._rest = self._rest[: self._size], self._rest[self._size :]
        buffer[: len(piece)] = piece
        return len(piece)


class Socket:
    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size = content, size

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(Pieces(self._content, self._size))


def read(content: bytes, size: int) -> tuple[Any, ...]:
    """What a head says, or how it fails; and what is left behind it."""
    head = Head(cast("socket.socket", Socket(content, size)), method="POST")
    try:
        head.begin()
        told = (head.status, head.reason, head.version, dict(head.headers), head.length, head.chunked, head.will_close)
    except http.client.HTTPException as error:
        return (type(error),)
    return (*told, head.fp.read())


ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\n\r\n"])
LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.0 204",
        b"Content-Length: 5",
        b"content-length: 5, 5",
        b"Content-Length: 6",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: close",
        b" folded: line",
        b"no colon",
        b"",
        b"X-Odd\xff: caf\xe9",
    ]
)


@given(st.lists(st.tuples(LINES, ENDS), max_size=8), st.booleans(), st.integers(1, 9))
def test_a_head_in_one_piece_says_what_it_says_byte_by_byte(parts: list[tuple[bytes, bytes]], sane: bool, size: int) -> None:
    start = b"HTTP/1.1 200 OK\r\n" if sane else b""
    content = start + b"".join(line + end for line, end in parts) + (b"\r\nhello" if sane else b"")
    assert read(content, 8192) == read(content, size)


def test_equal_names_are_joined_and_lower_case() -> None:
    _, _, _, headers, *_ = read(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:2\r\n\r\n", 8192)
    assert headers == {"x-a": "1, 2"}


@pytest.mark.parametrize("size", [1, 8192])
@pytest.mark.parametrize(("count", "fails"), [(MOST_HEADERS, False), (MOST_HEADERS + 1, True)])
def test_so_many_headers_and_no_more(size: int, count: int, fails: bool) -> None:
    content = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * count + b"\r\n"
    assert (read(content, size) == (http.client.HTTPException,)) is fails
