"""An input of one file or several, read in order as one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import msgspec

from ..errors import InputError
from .snapshot import Snapshot
from .table import CHUNK_ROWS, Chunk
from .text import Text

HEAD = 1 << 20
"""How much of an input is looked at before anything is sent."""

HEAD_ROWS = 100_000
EXACT = 1 << 30
"""The largest input whose rows are counted; larger ones are estimated."""


class End(msgspec.Struct, frozen=True):
    """Where an input ended that may grow.

    Attributes:
        size: Its bytes.
        sha256: Their hex digest.
        rows: How many rows they hold.
        lines: How many lines.
    """

    size: int
    sha256: str
    rows: int
    lines: int


class Reader(Protocol):
    """One file in one format."""

    name: str
    snapshot: Snapshot

    @property
    def columns(self) -> list[str] | None:
        """The names of the columns, where the format tells them."""

    def keys(self) -> dict[str, str]:
        """Names and types of all columns; a whole pass where the format does not tell them."""

    def chunks(self, first: int = 0, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The rows."""

    def look(self, weight: int, rows: int) -> tuple[int, int]:
        """Read at least so much; returns how many rows and bytes of the file that were."""

    def count(self) -> int | None:
        """How many rows there are, where that is found out fast."""


@runtime_checkable
class Lined(Protocol):
    """A reader of lines, to which more may be appended.

    Attributes:
        text: The file.
        before: How many lines stand before the place where passes begin.
        lines: How many lines there are up to where the latest whole pass ended.
    """

    text: Text
    before: int
    lines: int


class Source:
    """An input.

    Args:
        parts: Its files, in order.
        form: Their format.
        rows: The most rows in a chunk.

    Raises:
        InputError: The files differ in their columns, or the first MiB shows that a file is no table.
    """

    def __init__(self, parts: Sequence[Reader], form: str, rows: int = CHUNK_ROWS) -> None:
        self._parts = list(parts)
        self._rows = rows
        self.format = form
        first = self._parts[0]
        self.columns = first.columns
        for part in self._parts:
            if part.columns != self.columns:
                raise InputError(
                    f"{part.name} has other columns than {first.name}; files that are read as one need the same header"
                )
        self._before = self._rows_read = 0
        self._looked: tuple[int, int] | None = None
        if first.snapshot.size is not None:
            self._looked = first.look(HEAD, HEAD_ROWS)

    @property
    def name(self) -> str:
        """What the input is called in messages."""
        more = len(self._parts) - 1
        return self._parts[0].name + (f" and {more} more" if more else "")

    @property
    def names(self) -> list[str]:
        """The files, in order."""
        return [part.name for part in self._parts]

    @property
    def size(self) -> int | None:
        """Bytes in the input when it was opened; None for a pipe that has not ended."""
        sizes = [part.snapshot.size for part in self._parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def position(self) -> int:
        """How many of these bytes the latest pass has read."""
        return sum(part.snapshot.position for part in self._parts)

    @property
    def sha256(self) -> str:
        """After a whole pass, the hex digest of the bytes it read (of several files: of their digests); "" before.

        A file of less than a MiB is read whole when it is opened.
        """
        digests = [part.snapshot.sha256 for part in self._parts]
        if "" in digests:
            return ""
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def digest(self) -> str:
        """The same digest, by reading the bytes alone.

        Raises:
            InputChanged: The bytes changed since they were first read.
            StorageError: They cannot be read.
        """
        for part in self._parts:
            for _ in part.snapshot.blocks():
                pass
        return self.sha256

    @property
    def schema(self) -> Any:
        """The Arrow schema of a Parquet input; None for others."""
        return getattr(self._parts[0], "schema", None)

    def chunks(self, rows: int | None = None) -> Iterator[Chunk]:
        """The rows, in constant memory; may be called again and then reads the same bytes.

        Args:
            rows: The most rows in a chunk, where they are to be fewer than usual.

        Raises:
            InputError: What comes is no table; everything before it was yielded.
            InputChanged: The bytes changed since they were first read.
            StorageError: They cannot be read.
        """
        first = self._before
        for part in self._parts:
            for chunk in part.chunks(first, min(rows or self._rows, self._rows)):
                yield chunk
                first = chunk.first + len(chunk)
        self._rows_read = first

    def end(self) -> End | None:
        """After a whole pass, where the input ended; None where rows that are appended to it could not be read alone."""
        part = self._growing()
        if part is None or not self.sha256 or not part.text.ends_a_row():
            return None
        return End(self.size or 0, self.sha256, self._rows_read, part.lines)

    def go_on(self, end: End) -> bool:
        """Let passes begin where the input ended once, if it is the same up to there; returns whether it is.

        Raises:
            StorageError: The input cannot be read.
        """
        part = self._growing()
        if part is None or not part.text.snapshot.skip(end.size, end.sha256):
            return False
        self._before, part.before = end.rows, end.lines
        return True

    def from_the_beginning(self) -> None:
        """Let passes begin with the first row again."""
        if part := self._growing():
            part.text.snapshot.rewind()
            self._before = part.before = 0

    def _growing(self) -> Lined | None:
        """The reader of a single plain file of lines; None where the input is another one."""
        part = self._parts[0]
        return part if len(self._parts) == 1 and isinstance(part, Lined) and part.text.plain else None

    def keys(self) -> dict[str, str]:
        """All columns with the types (bool, int64, double, string) that hold their values; for JSONL a whole pass."""
        if len(self._parts) == 1:
            return self._parts[0].keys()
        merged: dict[str, str] = {}
        for part in self._parts:
            for key, form in part.keys().items():
                merged[key] = form if merged.get(key, form) == form else "string"
        return merged

    def estimate(self) -> int | None:
        """How many rows there are: counted up to 1 GiB of plain text, else reckoned from the beginning; None for a pipe.

        Counting reads the whole input (JSONL 2 GB/s, CSV about 1 GB/s), so it may run beside the first requests, in a thread.
        """
        size = self.size
        if size is None or self._looked is None:
            return None
        if size <= EXACT:
            counts = [part.count() for part in self._parts]
            if None not in counts:
                return sum(count for count in counts if count is not None)
        rows, weight = self._looked
        return round(rows * size / weight) if weight else rows

    def keep(self) -> None:
        """The run has begun: copies of pipes take the place of an earlier run's, as soon as they are whole.

        Raises:
            StorageError: They cannot.
        """
        for part in self._parts:
            part.snapshot.keep()

    def close(self) -> None:
        """Let go of the files."""
        for part in self._parts:
            part.snapshot.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
