"""CSV and TSV: cells are text and stay exactly that.

Rows follow RFC 4180 with Python's `csv`, strictly: a row that breaks the rules, or has another number of cells than the header,
is a row that cannot be read; it never moves a cell or another row. Lines end in LF, CRLF or CR.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from ..errors import InputError, JobError
from .compression import Writable
from .table import CAP, CHUNK_ROWS, MISSING, TOO_LONG, Chunk, Layout, Places, Record, frame, gather, look
from .text import Text, Torn
from .values import as_text

PLAIN = frozenset((str, int, float, type(None)))
"""What csv writes as it should be."""

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet would execute (OWASP, "CSV Injection")."""


class _RowTooLong(Exception):
    """A row of more than 32 MiB, by no line of which it is too long."""


class _Lines:
    """The lines of a text after the first `before`, a block at a time, and those of the row that is being read."""

    def __init__(self, text: Text, before: int) -> None:
        self._characters = text.characters()
        self._name = text.name
        self._kept: deque[tuple[int, int, str]] = deque()
        self._latest: list[str] = []
        self.end = before
        self.torn = False

    def __iter__(self) -> Iterator[list[str]]:
        rest: list[str] = []
        length = 0
        for text in self._characters:
            self.torn = isinstance(text, Torn)
            # A CR at the very end may be the first half of CRLF.
            if rest and rest[-1].endswith("\r"):
                length -= len(rest[-1])
                text = rest.pop() + text
            cut = max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
            if cut:
                yield self._keep("".join([*rest, text[:cut]]))
                rest, length = [], 0
            rest.append(text[cut:])
            length += len(text) - cut
            if length > CAP:
                raise InputError(f"{self._name}, line {self.end + 1}: a line of more than {TOO_LONG}; is this a text file?")
        if last := "".join(rest):
            yield self._keep(last)

    def _keep(self, text: str) -> list[str]:
        lines = _split(text)
        self._kept.append((self.end, len(lines), text))
        self._latest = lines
        if sum(len(kept) for _, _, kept in self._kept) > 2 * CAP:
            raise _RowTooLong
        self.end += len(lines)
        return lines

    def drop(self, line: int) -> int:
        """Forget the lines up to number `line`, where they fill blocks; returns how many characters that were."""
        dropped = 0
        while self._kept and self._kept[0][0] + self._kept[0][1] <= line:
            dropped += len(self._kept.popleft()[2])
        return dropped

    def between(self, start: int, end: int) -> list[str]:
        """The lines after number `start` up to number `end`."""
        found: list[str] = []
        for first, count, text in self._kept:
            if first < end and first + count > start:
                lines = self._latest if first + count == self.end else _split(text)
                found += lines[max(0, start - first) : end - first]
        return found


def _split(text: str) -> list[str]:
    return list(io.StringIO(text, newline=""))


def _joined(lines: list[str]) -> str:
    return "".join(lines).removesuffix("\n").removesuffix("\r")


def _open_quote(text: str, delimiter: str) -> int | None:
    """How many lines into `text` a quote opens that never closes; None when all are closed."""
    opened: int | None = None
    line = position = 0
    fresh = True
    while position < len(text):
        sign, following = text[position], text[position + 1 : position + 2]
        if opened is not None and sign == '"':
            if following == '"':
                position += 1
            else:
                opened = None
        elif opened is None:
            if sign == '"' and fresh:
                opened = line
            fresh = sign == delimiter or sign in "\r\n"
        if sign == "\n" or (sign == "\r" and following != "\n"):
            line += 1
        position += 1
    return opened


class Delimited:
    """A CSV or TSV file.

    Args:
        text: The file.
        delimiter: What separates cells.
        reserved: Names that its columns must not have.

    Attributes:
        columns: The header.
        before: How many lines stand before the place where passes begin.
        lines: How many lines there are up to where the latest whole pass ended.

    Raises:
        InputError: There is no header, or it has a name twice.
        JobError: A column has a reserved name.
    """

    before = 0
    lines = 0

    def __init__(self, text: Text, reserved: Iterable[str], delimiter: str) -> None:
        self.text = text
        self.snapshot = text.snapshot
        self.name = text.name
        self._delimiter = delimiter
        if csv.field_size_limit() < CAP:
            csv.field_size_limit(CAP)
        header = next((record for record in self._records() if not isinstance(record, int)), None)
        if header is None:
            raise InputError(f"{self.name} is empty; its first line must name the columns")
        self.columns: list[str] = header[1]
        if len(set(self.columns)) < len(self.columns):
            twice = ", ".join(repr(name) for name in dict.fromkeys(self.columns) if self.columns.count(name) > 1)
            raise InputError(f"{self.name}, line {header[0]}: more than one column is called {twice}; rename all but one")
        if clashes := ", ".join(repr(name) for name in reserved if name in self.columns):
            raise JobError(f"{self.name} already has a column {clashes}; give the output's columns other names with --prefix")
        self._nothing = [MISSING] * len(self.columns)

    def keys(self) -> dict[str, str]:
        """Column names and their types."""
        return dict.fromkeys(self.columns, "string")

    def look(self, weight: int, rows: int) -> tuple[int, int]:
        """Read at least so much; returns how many rows and bytes of the file that were."""
        return look(self.records(), weight, rows), self.snapshot.position

    def count(self) -> int | None:
        """How many rows there are, by counting line ends outside quotes; None where bytes are not text yet."""
        if not self.text.plain:
            return None
        count = inside = 0
        last = b""
        for block in self.snapshot.again():
            pieces = block.split(b'"')
            count += b"".join(pieces[inside::2]).count(b"\n")
            inside ^= len(pieces) - 1 & 1
            last = block[-1:]
        return max(0, count - (last == b"\n"))

    def records(self) -> Iterator[Record | int]:
        """The rows after the header, and between them the weight of every block that is used up."""
        records = self._records()
        while not self.before and isinstance(next(records), int):
            pass
        return records

    def chunks(self, first: int = 0, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The rows as chunks; `first` is the number of the first row."""
        return gather(self.records(), self._chunk, first=first, rows=rows, idle=self.snapshot.idle)

    def _chunk(self, batch: list[Record], first: int) -> Chunk:
        lines, table, problems, texts = zip(*batch, strict=True)
        said = {position: problem for position, problem in enumerate(problems) if problem}
        return Chunk(
            partial(frame, self.columns, zip(*table, strict=True), first, len(batch)),
            first,
            Places(self.name, lines),
            problems=said,
            raw_input={position: texts[position] for position in said},
            header=self.columns,
            table=list(table),
        )

    def _records(self) -> Iterator[Record | int]:
        lines = _Lines(self.text, self.before)
        feed = chain.from_iterable(lines)
        reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        start = end = apart = self.before
        width = len(self.columns) if start else 0
        blanks = 0
        while True:
            broken = ""
            try:
                for row in reader:
                    line = reader.line_num + apart
                    if len(row) == width and line < end and not blanks:
                        yield start + 1, row, "", ""
                        start = line
                        continue
                    break
                else:
                    self.lines = lines.end
                    return
            except csv.Error as error:
                row, line = self._mend(lines, feed, start, reader.line_num + apart, str(error))
                apart = line - reader.line_num
                broken = "characters after a closing quote"
            except _RowTooLong:
                place = f"{self.name}, line {start + 1}"
                raise InputError(f"{place}: a row of more than 32 MiB begins here; is a quote left open?") from None
            if not row:
                blanks += 1
            else:
                yield from self._blank(start - blanks, blanks if width else 0)
                blanks = 0
                if lines.torn and line == lines.end:
                    broken = "the file ends in the middle of a character"
                elif width and len(row) != width:
                    broken = broken or f"{len(row)} cell{'s' * (len(row) > 1)} where the header has {width}"
                if broken and not width:
                    raise InputError(f"{self.name}, line {start + 1}: {broken}, in the line that should name the columns")
                if broken:
                    yield start + 1, self._nothing, broken, _joined(lines.between(start, line))
                else:
                    yield start + 1, row, "", ""
                width = width or len(row)
            start = line
            if line >= end:
                yield lines.drop(line)
                end = lines.end

    def _blank(self, line: int, count: int) -> Iterator[Record]:
        """The blank lines after number `line`, now that they turn out not to end the file."""
        for number in range(line + 1, line + 1 + count):
            if len(self.columns) == 1:
                yield number, [""], "", ""
            else:
                yield number, self._nothing, "a blank line", ""

    def _mend(self, lines: _Lines, feed: Iterator[str], start: int, line: int, error: str) -> tuple[list[str], int]:
        """Where a row ends that breaks the rules: the next row begins there.

        Returns:
            The row's cells as a lenient reader sees them, and the number of its last line.
        """
        taken = lines.between(start, line)
        reader = csv.reader(chain(taken, feed), delimiter=self._delimiter)
        try:
            row = next(reader)
        except csv.Error as again:
            error = str(again)
        if "field limit" in error:
            raise InputError(
                f"{self.name}, line {start + 1}: a field of more than {TOO_LONG} begins in this row; is a quote left open?"
            )
        line = start + reader.line_num
        opened = _open_quote("".join(lines.between(start, line)), self._delimiter)
        if opened is not None:
            raise InputError(f"{self.name}, line {start + 1 + opened}: a quote opens here and is never closed")
        return row, line


class Writer:
    """Rows as CSV or TSV, quoted where they must be.

    Args:
        out: Where the bytes go.
        layout: Columns and names.
        delimiter: What separates cells.
    """

    def __init__(self, out: Writable, layout: Layout, delimiter: str) -> None:
        self._out = out
        self._columns = list(layout.columns)
        self._names = list(layout.names)
        self._guard = layout.guard
        self._delimiter = delimiter
        if not layout.goes_on:
            header = [*self._columns, *self._names]
            # A reader would drop a byte order mark that is the first name's own.
            self._write([header], quoted="".join(header).startswith("\ufeff"))

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows at `positions`, each with its generated members."""
        table = chunk.cells()
        given = chunk.columns
        if given != self._columns:
            at = {name: place for place, name in enumerate(given)}
            places = [at.get(name, -1) for name in self._columns]
            table = [[*cells, ""] for cells in table]
            table = [[cells[place] for place in places] for cells in table]
        names, guard = self._names, self._guard
        rows: list[list[Any]] = []
        for position, generated in zip(positions, members, strict=True):
            if not names and position in chunk.problems and chunk.raw is None:
                self._write(rows)
                rows = []
                self._out.write(chunk.raw_input[position].encode("utf-8", "backslashreplace") + b"\n")
                continue
            made = [generated.get(name) for name in names]
            if guard:
                made = [f"'{cell}" if isinstance(cell, str) and cell.startswith(DANGEROUS) else cell for cell in made]
            row = table[position] + made
            if not names and position in chunk.problems:
                row[0] = chunk.raw_input[position]
            rows.append(row if PLAIN.issuperset(map(type, row)) else [as_text(cell) for cell in row])
        self._write(rows)

    def _write(self, rows: list[list[Any]], *, quoted: bool = False) -> None:
        text = self._text(rows, quoted)
        if "\r" in text and not quoted:
            # csv quotes cells that hold its own line end, not those that hold another one.
            text = "".join(self._text([row], any("\r" in cell for cell in row if type(cell) is str)) for row in rows)
        self._out.write(text.encode("utf-8", "backslashreplace"))

    def _text(self, rows: list[list[Any]], quoted: bool) -> str:
        text = io.StringIO(newline="")
        make = partial(csv.writer, text, delimiter=self._delimiter, lineterminator="\n")
        writer = make(quoting=csv.QUOTE_ALL) if quoted else make()
        writer.writerows(rows)
        return text.getvalue()

    def finish(self) -> None:
        """Nothing is held back."""
