"""Compressed text, expanded as it is read: never more than a few blocks in memory, whatever the file claims to hold."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ..errors import InputError
from .extras import require
from .table import BLOCK

LEVEL = 6
"""For gzip; for zstd it is the library's 3."""

WINDOW = 1 << 25
"""The largest zstd window that is accepted, in bytes: what `zstd -20` makes, and a fourth of what `zstd --long` may ask for."""

PACKED_BLOCK = 1 << 14
"""Bytes of a compressed file read at a time: few, so that its position says how far the text is."""

SLICE = 512
"""Bytes of zstd data expanded at a time: at its best ratio they make 16 MiB."""


class Writable(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


class _Blocks(io.RawIOBase):
    """Blocks as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def gunzip(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Expand gzip members.

    Raises:
        InputError: The data are damaged or end early.
    """
    file = gzip.GzipFile(fileobj=io.BufferedReader(_Blocks(blocks), PACKED_BLOCK))
    while True:
        try:
            block = file.read(BLOCK)
        except EOFError:
            raise InputError(f"{name} ends in the middle of its gzip data: fetch it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{name} is no sound gzip file: {error}") from None
        if not block:
            return
        yield block


def unzstd(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Expand zstd frames.

    Raises:
        InputError: The data are damaged, end early, or need a window of more than 32 MiB.
        JobError: The library is not installed.
    """
    zstandard = _zstandard()
    frame: Any = None
    for block in blocks:
        for start in range(0, len(block), SLICE):
            data = block[start : start + SLICE]
            while data:
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
                try:
                    text = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise InputError(f"{name} is no sound zstd file: {str(error).rpartition(': ')[2]}") from None
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
                if text:
                    yield text
    if frame is not None:
        raise InputError(f"{name} ends in the middle of its zstd data: fetch it again")


def _zstandard() -> Any:
    require("zstd")
    import zstandard

    return zstandard


class Gzip:
    """A gzip file without name and date, so that equal rows make equal bytes."""

    def __init__(self, out: Writable) -> None:
        self._engine = zlib.compressobj(LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        self._out = out

    def write(self, data: bytes) -> int:
        """Compress `data`."""
        self._out.write(self._engine.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write what is left."""
        self._out.write(self._engine.flush())


class Zstd:
    """A zstd frame."""

    def __init__(self, out: Writable) -> None:
        self._engine = _zstandard().ZstdCompressor().compressobj()
        self._out = out

    def write(self, data: bytes) -> int:
        """Compress `data`."""
        self._out.write(self._engine.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write what is left."""
        self._out.write(self._engine.flush())


EXPAND: dict[str, Callable[[Iterator[bytes], str], Iterator[bytes]]] = {
    ".gz": gunzip,
    ".zst": unzstd,
}
COMPRESS: dict[str, Callable[[Writable], Gzip | Zstd]] = {".gz": Gzip, ".zst": Zstd}
