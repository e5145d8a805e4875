"""What readers yield: some rows at a time, as a frame with every value as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property
from itertools import starmap
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import InputError
from ..records import Row

if TYPE_CHECKING:
    import pandas

FIRST_ROWS = 64
"""Rows in the first chunk: few, so that the first request leaves early."""

CHUNK_ROWS = 2_000
CHUNK_WEIGHT = 1 << 20
"""Characters or bytes after which a chunk ends, however few rows it has."""

CHUNK_CELLS = 500_000
"""Rows times columns after which a chunk ends: lines that all have other keys make wide frames."""

BLOCK = 1 << 18
"""Bytes read at a time."""

CAP = 16 << 20
"""The longest field (CSV) and the longest line (JSONL); in characters and bytes."""

TOO_LONG = "16 MiB"


class Missing(Enum):
    """A key that a JSONL row does not have, which is not the same as null."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING = Missing.MISSING


class Places(msgspec.Struct, frozen=True):
    """Where rows stand, said only when asked: ``places[3]`` is ``prompts.csv, line 7``.

    Attributes:
        lines: The number of each row's first line, from 1.
        unit: What the numbers count: ``line``, or ``row`` where a format has no lines.
    """

    name: str
    lines: Sequence[int]
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[str]:
        return (f"{self.name}, {self.unit} {line}" for line in self.lines)

    def __getitem__(self, position: int) -> str:
        return f"{self.name}, {self.unit} {self.lines[position]}"


class Chunk(msgspec.Struct, frozen=True, dict=True):
    """Rows that follow one another.

    Attributes:
        build: Makes the frame, when somebody wants it.
        first: The number of the first row, from 0.
        places: Where each row stands, for messages.
        raw: What gives the rows back untouched: the lines' own bytes without line end (JSONL), the record batch (Parquet), or
            None (CSV: the cells are enough).
        problems: Position in the chunk to the reason why this row cannot be read.
        raw_input: Position in the chunk to the unreadable row's own text, without line end.
        objects: JSONL rows as they were read, keys in their own order.
        header, table: The names of the columns and the rows of a CSV file as they were read, a list a row.
    """

    build: Callable[[], pandas.DataFrame]
    first: int
    places: Places
    raw: Any = None
    problems: dict[int, str] = {}
    raw_input: dict[int, str] = {}
    objects: Sequence[dict[str, Any]] | None = None
    header: Sequence[str] | None = None
    table: list[list[Any]] | None = None

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """The rows.

        Columns are the union of those seen in the chunk, all of dtype object, every value exact; the index holds the rows'
        numbers in the input. A key that a row does not have is `MISSING`, as is every cell of a row in `problems`.
        """
        return self.build()

    @property
    def columns(self) -> list[str]:
        """The names of the frame's columns."""
        return list(self.frame.columns if self.header is None else self.header)

    def cells(self) -> list[list[Any]]:
        """The frame's values, a list a row; not to be changed."""
        if self.table is not None:
            return self.table
        table: list[list[Any]] = self.frame.to_numpy(dtype=object).tolist()
        return table

    def rows(self) -> Iterator[Row]:
        """The chunk's rows, one by one."""
        objects: Iterable[dict[str, Any]] | None = self.objects
        if objects is None:
            names = self.columns
            objects = (dict(zip(names, cells, strict=True)) for cells in self.cells())
        numbers = range(self.first, self.first + len(self))
        rows = starmap(Row, zip(numbers, self.places, objects, strict=True))
        return map(self._unread, rows) if self.problems else rows

    def _unread(self, row: Row) -> Row:
        """A row with its problem, where it has one."""
        problem = self.problems.get(row.number - self.first)
        return Row(row.number, row.place, {}, problem) if problem else row


class Layout(msgspec.Struct, frozen=True):
    """What an output looks like.

    Attributes:
        columns: The input's columns and their types (bool, int64, double, string); empty where each row brings its own keys.
        names: The generated columns and their types; none when the input is only repeated.
        guard: Whether to put ' before generated cells that a spreadsheet would execute.
        schema: The Arrow schema of the input, when it has one.
        goes_on: Whether rows of the same layout stand in it already.
    """

    columns: Mapping[str, str] = {}
    names: Mapping[str, type] = {}
    guard: bool = False
    schema: Any = None
    goes_on: bool = False


Record = tuple[int, Any, str, Any]
"""One row on its way into a chunk: its line, its values, why it cannot be read or "", its own text."""


def gather(
    records: Iterable[Record | list[Record] | int],
    build: Callable[[list[Record], int], Chunk],
    *,
    first: int,
    rows: int,
    idle: Callable[[], bool],
) -> Iterator[Chunk]:
    """Rows become chunks.

    Args:
        records: Rows, one or several at a time, and between them the weight of every block of input that is used up, as an int.
        build: Makes a chunk of rows and the number of the first.
        first: The number of the first row.
        rows: The most rows in a chunk.
        idle: Whether the next block is not there yet (a pipe that waits), so that what is there should go on its way.
    """
    batch: list[Record] = []
    want, weight = min(FIRST_ROWS, rows), 0
    try:
        for record in records:
            if isinstance(record, int):
                weight += record
                if not batch or (weight < CHUNK_WEIGHT and not idle()):
                    continue
            elif isinstance(record, list):
                batch += record
                while len(batch) > want:
                    yield build(batch[:want], first)
                    first += want
                    batch, want, weight = batch[want:], rows, 0
                if len(batch) < want:
                    continue
            else:
                batch.append(record)
                if len(batch) < want:
                    continue
            yield build(batch, first)
            first += len(batch)
            batch, want, weight = [], rows, 0
    except InputError:
        if batch:
            yield build(batch, first)
        raise
    if batch:
        yield build(batch, first)


def look(records: Iterable[Record | int], weight: int, rows: int) -> int:
    """Read records until they have this weight or are this many; returns how many they were."""
    seen = count = 0
    for record in records:
        if isinstance(record, int):
            seen += record
        else:
            count += 1
        if seen >= weight or count >= rows:
            break
    return count


def frame(columns: Sequence[str], table: Iterable[Iterable[Any]], first: int, rows: int) -> pandas.DataFrame:
    """A frame of Python objects that pandas leaves alone.

    Args:
        columns: The names.
        table: The values, an iterable a column.
        first: The number of the first row, where the index begins.
        rows: How many rows.
    """
    import numpy as np
    import pandas as pd

    values = np.empty((len(columns), rows), dtype=object)
    for position, cells in enumerate(table):
        values[position] = cells if isinstance(cells, (list, tuple)) else list(cells)
    return pd.DataFrame(
        values.T,
        columns=pd.Index(list(columns), dtype=object),
        index=pd.RangeIndex(first, first + rows),
        dtype=object,
        copy=False,
    )
