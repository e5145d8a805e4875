"""Encodings: a text that can be decoded is read as its UTF-8 would be; another is refused in words."""

from __future__ import annotations

import io

from batch import formats
from batch.errors import BatchError, InputError
from batch.formats.snapshot import open_file
from batch.formats.text import Text, Torn, codec

MANY = (
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "cp1252",
    "latin-1",
    "shift-jis",
    "gb18030",
    "big5",
    "utf-7",
    "iso2022_jp",
    "cp037",
)
MARKS = {"utf-16": (b"\xff\xfe", b"\xfe\xff"), "utf-32": (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")}
NAMES = [codec(name) for name in MANY]
CSV = 'a,b\r\n1,"x\n"\r\n2,é\r\n'
SEEDS = [
    *(
        bytes([16 * block + number]) + CSV.encode(name, "replace")
        for block, number, name in zip(range(12), range(12), NAMES, strict=True)
    ),
    b"\x10a,b\n1,caf\xe9\n",
    b"\x30\xef\xbb\xbfa,b\n1,\xf0\x9f\x98",
    b"\x21\xff\xfea\x00\x00\xd8",
    b"\x22\x00\xd8\x00\xd8",
    b"\x49+2D0-",
    b'\x3a\x1b$B$"',
]
WORDS = [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\x00\xd8",
    b"\x00\xdc",
    b"\xf0\x9f\x98\x80",
    b"\x1b$B",
    b"\x1b(B",
    b"+2D0-",
    b"\n",
    b'"',
]


def check(data: bytes) -> None:
    """The first byte tells the encoding and the size of the blocks; the others are the file."""
    options, data = data[0] if data else 0, data[1:]
    encoding, block = NAMES[(options & 15) % len(NAMES)], 1 + (options >> 4)
    found, torn, error = characters(data, encoding, block)
    *same, other = characters(data, encoding, 4096)
    assert (same, bool(other)) == ([found, torn], bool(error)), "blocks make a difference"
    marks = MARKS.get(encoding, (b"",))
    try:
        if data and not data.startswith(marks):
            raise UnicodeError("Python reads one piece of such a text without a mark, but not pieces")
        expected = data.decode(encoding)
    except UnicodeError:
        assert torn or error
    else:
        assert (found, torn, error) == (expected.removeprefix("\ufeff"), False, "")
    for form in ("csv", "jsonl"):
        outcomes = []
        for text, name in ((data, encoding), (found.encode("utf-8", "surrogatepass"), "utf-8")):
            try:
                reader = formats.READERS[form](Text(open_file("a", io.BytesIO(text)), encoding=name, block=block), ())
                outcomes.append([dict(row.values) or row.problem for chunk in reader.chunks(rows=3) for row in chunk.rows()])
            except BatchError as refusal:
                assert str(refusal)
                outcomes.append([])
        if not (torn or error) and found.isprintable() and not found.startswith("\ufeff"):
            assert outcomes[0] == outcomes[1]


def characters(data: bytes, encoding: str, block: int) -> tuple[str, bool, str]:
    """The text as far as it goes, whether it ends in the middle of a character, and the refusal."""
    pieces: list[str] = []
    try:
        pieces.extend(Text(open_file("a", io.BytesIO(data)), encoding=encoding, block=block).characters())
    except InputError as error:
        return "", False, str(error)
    return "".join(pieces), any(isinstance(piece, Torn) for piece in pieces), ""
