"""A pandas frame as an input, and what becomes of its rows as columns beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import JobError
from .sink import Sink
from .snapshot import Snapshot
from .source import Source
from .table import CHUNK_ROWS, FIRST_ROWS, Chunk, Places, frame
from .target import Standard
from .values import as_json, column_type, kind

if TYPE_CHECKING:
    import pandas

NAME = "the frame"

DTYPES = {int: "Int64", float: "Float64", bool: "boolean"}
"""pandas' types for generated columns that are no text; all of them know of missing values."""


class _Nothing:
    """The bytes of an input that has none."""

    def read(self, offset: int, count: int) -> bytes:
        """None."""
        return b""

    def size(self) -> int | None:
        """None of them."""
        return 0

    def idle(self, offset: int) -> bool:
        """Never."""
        return False

    def keep(self) -> None:
        """Nothing is copied."""

    def close(self) -> None:
        """There is nothing to let go of."""


class Table:
    """A frame that is read: a `Reader`.

    Values become what JSON has: numpy's numbers Python's, dates ISO 8601; NaN, NA, NaT and None are null.

    Args:
        data: The frame. Its columns are known by their names as text.
        reserved: Names that they must not have.

    Raises:
        JobError: Two columns have one name, or one has a reserved one.
    """

    name = NAME
    schema = None

    def __init__(self, data: pandas.DataFrame, reserved: Sequence[str] = ()) -> None:
        self.data = data
        self.snapshot = Snapshot(NAME, _Nothing())
        self.columns: list[str] = [str(name) for name in data.columns]
        if len(set(self.columns)) < len(self.columns):
            twice = next(name for name in self.columns if self.columns.count(name) > 1)
            raise JobError(f"{NAME} has more than one column called {twice!r}; rename all but one")
        if clashes := ", ".join(repr(name) for name in reserved if name in self.columns):
            raise JobError(f"{NAME} already has a column {clashes}; give the generated ones other names with prefix")

    def keys(self) -> dict[str, str]:
        """Column names and the types that hold their values in another format."""
        return {
            name: column_type({kind(cell) for cell in _cells(self.data.iloc[:, at])}) for at, name in enumerate(self.columns)
        }

    def look(self, weight: int, rows: int) -> tuple[int, int]:
        """Nothing more: all of it is here."""
        return len(self.data), 0

    def count(self) -> int | None:
        """How many rows there are."""
        return len(self.data)

    def chunks(self, first: int = 0, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The rows as chunks."""
        start, want = 0, min(FIRST_ROWS, rows)
        while start < len(self.data):
            yield self._chunk(first, start, self.data.iloc[start : start + want])
            start, want = start + want, rows

    def _chunk(self, first: int, start: int, part: pandas.DataFrame) -> Chunk:
        cells = (_cells(part.iloc[:, at]) for at in range(len(self.columns)))
        made = frame(self.columns, cells, first + start, len(part))
        return Chunk(lambda: made, first + start, Places(NAME, range(start + 1, start + 1 + len(part)), "row"))


def _cells(column: pandas.Series[Any]) -> list[Any]:
    missing = column.isna().tolist()
    return [None if gone else _plain(cell) for cell, gone in zip(column.tolist(), missing, strict=True)]


def _plain(cell: Any) -> Any:
    if hasattr(cell, "tolist"):  # numpy's numbers and arrays
        cell = cell.tolist()
    return as_json(cell)


class Frame:
    """Both ends of a run from a frame to a frame.

    Args:
        data: The input; never changed.
    """

    def __init__(self, data: pandas.DataFrame) -> None:
        self._data = data
        self._names: Mapping[str, type] = {}
        self._rows: list[int] = []
        self._members: list[Mapping[str, Any]] = []

    def source(self, reserved: Sequence[str]) -> Source:
        """The frame's rows.

        Args:
            reserved: Names that its columns must not have.

        Raises:
            JobError: Its columns have names that cannot be.
        """
        return Source([Table(self._data, reserved)], "frame")

    def sink(self, names: Mapping[str, type], file: Sink | None = None) -> Sink:
        """Where rows go.

        Args:
            names: The generated columns and their types.
            file: Where they go, too.
        """
        self._names, self._rows, self._members = names, [], []
        return _Both(self, file)

    def take(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Keep some rows of a chunk, each with its generated members."""
        self._rows += [chunk.first + position for position in positions]
        self._members += members

    def result(self) -> pandas.DataFrame:
        """The selected rows with index and columns as they were, and the generated columns behind them."""
        out = self._data.iloc[self._rows].copy()
        table = [[members.get(name) for members in self._members] for name in self._names]
        made = frame(list(self._names), table, 0, len(out))
        for (name, form), cells in zip(self._names.items(), table, strict=True):
            text = form is str and all(cell is None or isinstance(cell, str) for cell in cells)
            dtype: Any = "string" if text else DTYPES.get(form)
            out[name] = (made[name].astype(dtype) if dtype else made[name]).array
        return out


class _Both(Sink):
    """A sink that a frame collects from, and perhaps a file, too."""

    def __init__(self, frame: Frame, file: Sink | None) -> None:
        super().__init__(Standard(), None, _Taking(frame))
        self._file = file

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows of a chunk, in this order."""
        super().write(chunk, positions, members)
        if self._file:
            self._file.write(chunk, positions, members)

    def commit(self) -> None:
        """Let the file take its target's place."""
        if self._file:
            self._file.commit()

    def abort(self) -> None:
        """Leave the file's target as it was."""
        if self._file:
            self._file.abort()


class _Taking:
    def __init__(self, frame: Frame) -> None:
        self.write = frame.take

    def finish(self) -> None:
        """Nothing is held back."""
