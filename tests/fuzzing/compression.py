"""gz and zst: damaged, cut or hostile, they are expanded as the libraries do it or refused in words, a few MiB at a time."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator

import zstandard

from batch.errors import InputError
from batch.formats.compression import EXPAND, Gzip, Zstd
from tests.formats.tables import Bytes

MOST = 17 << 20
"""The largest piece: what half a kilobyte of zstd data may make, and a little."""

ENOUGH = 64 << 20
TEXT = b'{"a":1}\n' * 40
SEEDS = [
    b"\x00" + gzip.compress(TEXT, mtime=0) + gzip.compress(b"x", mtime=0),
    b"\x01" + zstandard.compress(TEXT) + zstandard.compress(b""),
    b"\x01" + zstandard.compress(b"\x00" * (2 << 20)),
    b"\x00" + gzip.compress(b"\x00" * (1 << 20), mtime=0)[:900],
    b"\x01\x28\xb5\x2f\xfd\x04\x88",
    b"\x00\x1f\x8b\x08\x08",
    b"\x02" + TEXT,
    b"\x23" + TEXT,
]
WORDS = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00"]


def check(data: bytes) -> None:
    """The first byte tells the format, whether the others are a text to compress, and the size of the blocks."""
    options, data = data[0] if data else 0, data[1:]
    suffix, whole, block = (".gz", ".zst")[options & 1], options & 2, 1 + (options >> 2)
    if whole:
        out = Bytes()
        compressor = (Gzip, Zstd)[options & 1](out)
        compressor.write(data)
        compressor.finish()
        assert expand(out.data, suffix, block) == (data, False)
        expand(out.data[:-1], suffix, block)
        return
    found, refused = expand(data, suffix, block)
    again = expand(data, suffix, 4096)
    # Where damage shows depends on the pieces: only in one does libzstd hold the length that a frame claims against a last
    # block of nothing.
    assert again == (found, refused) or ((refused or again[1]) and (again[0].startswith(found) or found.startswith(again[0])))
    if suffix == ".gz":
        try:
            expected = gzip.GzipFile(fileobj=io.BytesIO(data)).read(ENOUGH)
        except (OSError, EOFError, zlib.error):
            assert refused
        else:
            assert found == expected[:ENOUGH] and not refused


def expand(data: bytes, suffix: str, block: int) -> tuple[bytes, bool]:
    """The text, up to where it is enough, and whether the rest was refused."""
    pieces: list[bytes] = []
    length = 0
    try:
        for piece in EXPAND[suffix](cut(data, block), "a"):
            assert 0 < len(piece) <= MOST
            length += len(piece)
            pieces.append(piece)
            if length > ENOUGH:
                break
    except InputError:
        return b"".join(pieces), True
    return b"".join(pieces)[:ENOUGH], False


def cut(data: bytes, block: int) -> Iterator[bytes]:
    """Bytes as blocks."""
    return (data[at : at + block] for at in range(0, len(data), block))
