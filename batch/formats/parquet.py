"""Parquet: columns with types, which are kept; read and written some thousand rows at a time (needs pyarrow, an extra)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import BatchError, InputError, JobError
from .compression import Writable
from .extras import require
from .snapshot import Snapshot
from .table import BLOCK, CHUNK_ROWS, FIRST_ROWS, MISSING, Chunk, Layout, Places, frame
from .text import Text
from .values import as_json, as_text

GROUP_ROWS = 20_000
GROUP_BYTES = 4 << 20
"""A row group is written when it has this many rows or bytes."""


def _arrow() -> Any:
    require("parquet")
    import pyarrow
    import pyarrow.parquet

    return pyarrow


class _Seekable(io.RawIOBase):
    """A snapshot as a file that can be read anywhere."""

    def __init__(self, snapshot: Snapshot) -> None:
        if snapshot.size is None:
            for _ in snapshot.again():
                pass  # a pipe must be there as a whole before its end, where Parquet begins, can be read
        self._snapshot = snapshot
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._snapshot.size or 0)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        block = self._snapshot.source.read(self._at, len(buffer))
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)


class Table:
    """A Parquet file.

    Args:
        text: The file.
        reserved: Names that its columns must not have.

    Attributes:
        columns: The names of its columns.
        schema: Its Arrow schema.

    Raises:
        InputError: It is no Parquet file, or has a column name twice.
        JobError: pyarrow is not installed, or a column has a reserved name.
    """

    def __init__(self, text: Text, reserved: Iterable[str]) -> None:
        self.snapshot = text.snapshot
        self.name = text.name
        if text.compression:
            raise JobError(f"{self.name}: Parquet is compressed by itself; take {text.compression} off first")
        file = self._open()
        self.schema = file.schema_arrow
        self._count: int = file.metadata.num_rows
        self.columns: list[str] = list(self.schema.names)
        if len(set(self.columns)) < len(self.columns):
            twice = ", ".join(repr(name) for name in dict.fromkeys(self.columns) if self.columns.count(name) > 1)
            raise InputError(f"{self.name}: more than one column is called {twice}; rename all but one")
        if clashes := ", ".join(repr(name) for name in reserved if name in self.columns):
            raise JobError(f"{self.name} already has a column {clashes}; give the output's columns other names with --prefix")

    def _open(self) -> Any:
        arrow = _arrow()
        try:
            return arrow.parquet.ParquetFile(
                arrow.PythonFile(_Seekable(self.snapshot), mode="r"), buffer_size=BLOCK, pre_buffer=False
            )
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self.name} is no sound Parquet file: {str(error).splitlines()[0][:200] if str(error) else 'it ends early'}"
        )

    def keys(self) -> dict[str, str]:
        """Column names and the types that hold their values in another format."""
        types = _arrow().types
        tests = {"bool": types.is_boolean, "int64": types.is_signed_integer, "double": types.is_floating}
        return {field.name: next((name for name, test in tests.items() if test(field.type)), "string") for field in self.schema}

    def look(self, weight: int, rows: int) -> tuple[int, int]:
        """Nothing more: the file's end was read when it was opened."""
        return self._count, self.snapshot.size or 0

    def count(self) -> int | None:
        """How many rows there are, as the file says."""
        return self._count

    def chunks(self, first: int = 0, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The rows as chunks; `first` is the number of the first row."""
        arrow = _arrow()
        file = self._open()
        size = self.snapshot.size or 0
        done = 0
        want = min(FIRST_ROWS, rows)
        try:
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                start = 0
                while start < len(batch):
                    piece = batch.slice(start, want)
                    yield self._chunk(piece, first + done, done)
                    start += len(piece)
                    done += len(piece)
                    want = rows
                self.snapshot.position = size * done // max(1, self._count)
        except BatchError:
            raise
        except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise self._damaged(error) from None
        self.snapshot.digest()

    def _chunk(self, batch: Any, first: int, before: int) -> Chunk:
        types = _arrow().types
        plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string)
        table = (
            column.to_pylist() if any(test(column.type) for test in plain) else [as_json(cell) for cell in column.to_pylist()]
            for column in batch.columns
        )
        lines = range(before + 1, before + 1 + len(batch))
        made = frame(self.columns, table, first, len(batch))
        return Chunk(lambda: made, first, Places(self.name, lines, "row"), batch)


class Writer:
    """Rows as Parquet: the columns of a Parquet input keep their types, others get those of the layout.

    Args:
        out: Where the bytes go.
        layout: Columns and names.
    """

    def __init__(self, out: Writable, layout: Layout) -> None:
        arrow = self._arrow = _arrow()
        plain = {"bool": arrow.bool_(), "int64": arrow.int64(), "double": arrow.float64(), "string": arrow.string()}
        made = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
        own = {field.name: field for field in layout.schema or ()}
        fields = [own.get(name) or arrow.field(name, plain[form]) for name, form in layout.columns.items()]
        self._columns = list(layout.columns)
        self._names = list(layout.names)
        self._schema = arrow.schema([*fields, *(arrow.field(name, made[form]) for name, form in layout.names.items())])
        self._file = arrow.parquet.ParquetWriter(_Out(out), self._schema)
        self._held: list[Any] = []
        self._weight = self._rows = 0

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows at `positions`, each with its generated members."""
        if not positions:
            return
        arrow = self._arrow
        if isinstance(chunk.raw, arrow.RecordBatch) and chunk.columns == self._columns:
            whole = list(positions) == list(range(len(chunk)))
            taken = chunk.raw if whole else chunk.raw.take(arrow.array(positions, arrow.int64()))
            arrays = list(taken.columns)
        else:
            columns = dict(zip(chunk.columns, chunk.frame.to_numpy(dtype=object).T.tolist(), strict=True))
            nothing = [None] * len(chunk)
            arrays = []
            for place, name in enumerate(self._columns):
                cells = columns.get(name, nothing)
                arrays.append(self._array([cells[position] for position in positions], self._schema.field(place).type))
        for name in self._names:
            arrays.append(self._array([one.get(name) for one in members], self._schema.field(name).type))
        batch = arrow.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._held.append(batch)
        self._weight += batch.nbytes
        self._rows += len(batch)
        if self._weight >= GROUP_BYTES or self._rows >= GROUP_ROWS:
            self._flush()

    def _array(self, cells: list[Any], form: Any) -> Any:
        cells = [None if cell is MISSING else cell for cell in cells]
        types = self._arrow.types
        if types.is_string(form):
            cells = [cell if cell is None else as_text(cell) for cell in cells]
        elif types.is_float64(form):
            cells = [cell if cell is None else float(cell) for cell in cells]
        try:
            return self._arrow.array(cells, form)
        except UnicodeEncodeError:
            texts = [cell if cell is None else cell.encode("utf-8", "backslashreplace").decode() for cell in cells]
            return self._arrow.array(texts, form)

    def _flush(self) -> None:
        self._file.write_table(self._arrow.Table.from_batches(self._held, self._schema), row_group_size=self._rows)
        self._held = []
        self._weight = self._rows = 0

    def finish(self) -> None:
        """Write what is held back, and the file's end."""
        if self._held:
            self._flush()
        self._file.close()


class _Out(io.RawIOBase):
    """An output as the file that pyarrow wants."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._at += self._out.write(bytes(data))
        return len(data)
