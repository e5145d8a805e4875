"""Small inputs and what readers make of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batch import formats
from batch.errors import BatchError
from batch.formats.snapshot import open_file
from batch.formats.table import BLOCK, Chunk, Layout
from batch.formats.text import Text
from batch.records import Row

Seen = tuple[int, str, Mapping[str, Any], str, str | None]


def read(data: bytes, form: str, *, block: int = BLOCK, rows: int = 2_000, **options: Any) -> list[Chunk]:
    """All chunks of some bytes, read in blocks of any size."""
    snapshot = open_file(f"prompts.{form}", io.BytesIO(data))
    reader = formats.READERS[form](Text(snapshot, block=block, **options), ())
    return list(reader.chunks(rows=rows))


def seen(data: bytes, form: str, *, block: int = BLOCK, rows: int = 2_000) -> tuple[list[Seen], str]:
    """Every row that a reader sees, and the error with which it ends, if it does."""
    found: list[Seen] = []
    try:
        snapshot = open_file(f"prompts.{form}", io.BytesIO(data))
        for chunk in formats.READERS[form](Text(snapshot, block=block), ()).chunks(rows=rows):
            for position, row in enumerate(chunk.rows()):
                found.append((row.number, row.place, row.values, row.problem, chunk.raw_input.get(position)))
    except BatchError as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def rows_of(path: Path | str, **options: Any) -> list[Row]:
    """All rows of a file."""
    with formats.source(path, **options) as source:
        return [row for chunk in source.chunks() for row in chunk.rows()]


def values_of(path: Path | str, **options: Any) -> list[dict[str, Any]]:
    """The values of all rows of a file."""
    return [dict(row.values) for row in rows_of(path, **options)]


def cells_of(data: bytes, form: str = "csv", **options: Any) -> list[list[Any]]:
    """All cells of a table."""
    return [cells for chunk in read(data, form, **options) for cells in chunk.cells()]


def copy(
    before: Path | str,
    after: Path | str,
    names: Sequence[str] | Mapping[str, type] = (),
    made: Callable[[Row], Mapping[str, Any]] = lambda row: {},
    *,
    wanted: Callable[[Row], bool] = lambda row: True,
    encoding: str = "utf-8",
    **options: Any,
) -> None:
    """An input becomes an output, each wanted row with the members that `made` makes for it."""
    with formats.source(before, encoding=encoding) as source:
        sink = formats.sink(after, source, names, **options)
        for chunk in source.chunks():
            rows = list(chunk.rows())
            positions = [position for position, row in enumerate(rows) if wanted(row)]
            sink.write(chunk, positions, [made(rows[position]) for position in positions])
        sink.commit()


class Bytes:
    """An output in memory."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def written(chunks: Sequence[Chunk], columns: Sequence[str], form: str, names: Sequence[str] = ()) -> bytes:
    """The bytes of chunks in a format, with empty generated members."""
    out = Bytes()
    writer = formats.WRITERS[form](out, Layout(dict.fromkeys(columns, "string"), dict.fromkeys(names, str)))
    for chunk in chunks:
        writer.write(chunk, range(len(chunk)), [dict.fromkeys(names, "")] * len(chunk))
    writer.finish()
    return out.data
