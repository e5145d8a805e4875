"""CSV and TSV: every line is in exactly one row, which has the cells that its lines say, and all can be written again."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from batch import formats
from batch.formats.snapshot import open_file
from batch.formats.text import Text
from tests.formats.tables import Seen, read, seen, written

SPECTRUM = Path(__file__).parent.parent / "data/csv-spectrum/csvs"
SEEDS = [
    *(b"\x04" + path.read_bytes() for path in sorted(SPECTRUM.glob("*.csv"))),
    b"\x00a,b\n1,2,\n3\n4,5\n6,7,8\n9,10\n",
    b'\x03a\tb\r\n"x"y\t3\r\n4\r\n5\t6\t"7\n8"\r\n',
    b"\x06prompt\na\n\n\r\nb\n\n\n",
    b"\x02\xef\xbb\xbf\n\r\na,b\r1,2\r\n\r\n3,4",
    b'\x04a,b\n"3\n4",5\n6,"7',
    b"\x08a,b\n1,caf\xc3\xa9\n2,caf\xe9\n",
    b"\x01a,b\n1,2\n3,\xc3",
    b'\x04"a\nb"\n"1""\n"\n\x00,\xe2\x80\xa8,\xc2\x85',
]
WORDS = [b'"', b'""', b",", b"\t", b"\n", b"\r", b"\r\n", b'","', b'"\n"', b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc3", b"\x00"]


def check(data: bytes) -> None:
    """The first byte tells the delimiter, the size of the blocks and of the chunks; the others are the file."""
    options, data = data[0] if data else 0, data[1:]
    form, block, rows = ("csv", "tsv")[options & 1], 1 + (options >> 1 & 15), 1 + (options >> 5)
    found, error = seen(data, form)
    again, other = seen(data, form, block=block, rows=rows)
    assert again == found, "blocks and chunks make a difference"
    assert other.partition("--encoding")[0] == error.partition("--encoding")[0]  # a mark is recognised when it is there whole
    if not found:
        return
    delimiter = ",\t"[options & 1]
    width = len(header(data, form))
    if not error:
        lines = list(io.StringIO(data.decode("utf-8", "replace").removeprefix("\ufeff"), newline=""))
        accounted(lines, found, width, delimiter, torn=not sound(data))
        if sound(data):
            survives(data, found, form)


def header(data: bytes, form: str) -> list[str]:
    """The names of the columns."""
    columns = formats.READERS[form](Text(open_file("a", io.BytesIO(data))), ()).columns
    assert columns
    return columns


def sound(data: bytes) -> bool:
    """Whether these bytes are UTF-8 to their end."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def accounted(lines: list[str], found: list[Seen], width: int, delimiter: str, *, torn: bool) -> None:
    """Hold every row against the lines from its first one up to the next row's first one."""
    starts = [int(place.rpartition(" ")[2]) - 1 for _, place, *_ in found]
    assert [number for number, *_ in found] == list(range(len(found)))
    for (_, _, values, problem, own), start, end in zip(found, starts, [*starts[1:], len(lines)], strict=True):
        assert start < end
        text = "".join(lines[start:end])
        if end == len(lines):
            text = text.rstrip("\r\n") if problem != "a blank line" else text
        if problem:
            assert own is not None and text.rstrip("\r\n") == own.rstrip("\r\n"), (text, own)
            continue
        (cells,) = (
            csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if text.strip("\r\n") else ([""],)
        )
        assert list(values.values()) == (cells or [""]) and len(values) == width and not (torn and end == len(lines))


def survives(data: bytes, found: list[Seen], form: str) -> None:
    """Write all rows, and read what was written."""
    columns = header(data, form)
    copy = written(read(data, form), columns, form)
    again, error = seen(copy, form)
    assert header(copy, form) == columns
    assert [(values, bool(problem)) for _, _, values, problem, _ in again] == [
        (values, bool(problem)) for _, _, values, problem, _ in found
    ], error
