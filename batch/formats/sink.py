"""Where rows go: a writer of one format, perhaps a compressor, and the file that takes its target's place in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from .compression import Gzip, Zstd
from .table import Chunk
from .target import Standard, Target


class Writer(Protocol):
    """Rows in one format."""

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows at `positions`, each with its generated members."""

    def finish(self) -> None:
        """Write what is held back."""


class Sink:
    """An output under way. Nothing is seen of it before `commit`; standard output is written through."""

    def __init__(self, target: Target | Standard, compressor: Gzip | Zstd | None, writer: Writer) -> None:
        self._target = target
        self._compressor = compressor
        self._writer = writer

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows of a chunk, in this order.

        Args:
            chunk: The rows' chunk.
            positions: Which rows of it, from 0.
            members: The generated members of each of these.

        Raises:
            StorageError: The storage fails; the old output is as it was.
            BrokenPipeError: Nobody reads standard output any more.
        """
        self._writer.write(chunk, positions, members)

    def commit(self) -> None:
        """Write what is held back, make it durable and let it take the target's place.

        Raises:
            StorageError: The storage fails; the old output is as it was.
        """
        self._writer.finish()
        if self._compressor:
            self._compressor.finish()
        self._target.commit()

    def abort(self) -> None:
        """Leave the old output as it was; nothing to do after a commit."""
        self._target.abort()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()
