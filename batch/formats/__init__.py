"""Rows in and out, one file a format.

Reading::

    with formats.source("prompts.csv") as source:      # or "-", several paths, a pattern; one Source
        for chunk in source.chunks():                  # again and again; later passes read the same bytes
            for row in chunk.rows(): ...

Writing, which follows a reading pass; the file takes its place at `commit`::

    sink = formats.sink("answers.jsonl", source, names)
    sink.write(chunk, positions, members)              # the chunk's rows at these positions, each with its generated members
    sink.commit()                                      # or abort()

`names` are the generated columns, all of them and in order; a dict gives their types too (`str`, `int`, `float`, `bool`), which
only Parquet needs. A row that cannot be read has its generated members alone (`chunk.raw_input` holds its text, for a member of
that name). With no names at all the sink repeats the input: rows that cannot be read are written as they came, where the
format is the same, else as a text that is no row either (JSONL), in the first cell (CSV), or as nulls (Parquet).

A format is a reader in `READERS` and a writer in `WRITERS`.
"""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import JobError
from .compression import COMPRESS
from .extras import require
from .sink import Sink, Writer
from .snapshot import Snapshot, Stopped, open_file, open_path, open_stdin
from .source import End, Reader, Source
from .table import CHUNK_ROWS, MISSING, Chunk, Layout, Places
from .target import URL, Standard, Target, preflight
from .text import Text, codec

__all__ = [
    "MISSING",
    "READERS",
    "SUFFIXES",
    "WRITERS",
    "Chunk",
    "End",
    "Places",
    "Reader",
    "Sink",
    "Source",
    "Stopped",
    "Writer",
    "format_of",
    "grows",
    "preflight_output",
    "sink",
    "source",
]


def _from(room: str, name: str, **options: Any) -> Callable[..., Any]:
    """What a format's own file makes; that is imported once something is read or written in the format."""

    def make(*arguments: Any) -> Any:
        return getattr(import_module(f".{room}", __name__), name)(*arguments, **options)

    return make


READERS: dict[str, Callable[[Text, Iterable[str]], Reader]] = {
    "csv": _from("delimited", "Delimited", delimiter=","),
    "tsv": _from("delimited", "Delimited", delimiter="\t"),
    "jsonl": _from("jsonl", "Lines"),
    "parquet": _from("parquet", "Table"),
    "openai-batch": _from("jsonl", "Lines"),
}
"""Formats that can be read: a text and the names its columns must not have become a reader."""

WRITERS: dict[str, Callable[[Any, Layout], Writer]] = {
    "csv": _from("delimited", "Writer", delimiter=","),
    "tsv": _from("delimited", "Writer", delimiter="\t"),
    "jsonl": _from("jsonl", "Writer"),
    "parquet": _from("parquet", "Writer"),
    "openai-batch": _from("openai_batch", "Writer"),
}
"""Formats that can be written: where the bytes go and a layout become a writer."""

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

TABLES = {"csv", "tsv", "parquet"}
"""Formats whose columns must be known before the first row is written."""


def compression_of(path: str) -> str:
    """`.gz` or `.zst` where the name ends so, else "" (what a file holds is never guessed from its content)."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in COMPRESS else ""


def format_of(path: str) -> str:
    """The format that a file's name tells, "" when it tells none."""
    name = path.lower().removesuffix(compression_of(path))
    return SUFFIXES.get(Path(name).suffix, "")


def source(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,  # noqa: A002  (the name that users know)
    encoding: str = "utf-8",
    chunk_rows: int = CHUNK_ROWS,
    spool: str | os.PathLike[str] | None = None,
    reserved: Iterable[str] = (),
    opener: Callable[[str], BinaryIO] | None = None,
    stopping: threading.Event | None = None,
    option: str = "--input-format",
) -> Source:
    """Open an input and look at its first MiB.

    Args:
        path: A file, a pattern (its files sorted), several of these, or `-` for standard input.
        format: One of `READERS`; None where the names tell it. JSON Lines that are OpenAI batch lines become `openai-batch`.
        encoding: Of text files.
        chunk_rows: The most rows in a chunk.
        spool: Where to keep a copy of standard input; None for an unnamed temporary file. When standard input is empty or a
            terminal and the copy of an earlier run is there, that copy is the input. Copies of named pipes are kept beside
            it, numbered as the inputs are.
        reserved: Names of generated columns. An input column of such a name is refused; one that turns up later than the first
            MiB of JSON Lines makes its row an error row.
        opener: Opens URLs as seekable binary files.
        stopping: Once set, standard input and named pipes are waited for no more.
        option: What messages call the option that names the format.

    Raises:
        JobError: No such file, or format, encoding or column names that cannot be.
        InputError: It is no table: a bad header, other encoding, an unclosed quote, a field of more than 16 MiB.
        StorageError: It cannot be read.
        Stopped: `stopping` was set while it was waited for; reading it may raise this, too.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    files = [file for one in paths for file in _expand(os.fspath(one))]
    if not files:
        raise JobError("name at least one input")
    if files.count("-") > 1:
        raise JobError("standard input (-) is named twice; it can be read as one input only")
    forms = {format or format_of(file) for file in files} - {""}
    if len(forms) > 1:
        raise JobError(
            f"the inputs have different formats ({', '.join(sorted(forms))}); convert them first, or name one {option}"
        )
    form = forms.pop() if forms else ""
    if form and form not in READERS:
        raise JobError(f"{option} {form}: there is no such format; there are {', '.join(READERS)}")
    opened: list[Snapshot] = []
    try:
        for number, file in enumerate(files, 1):
            opened.append(_open(file, number, Path(spool) if spool else None, opener, stopping))
        texts = [Text(snapshot, compression_of(snapshot.name), codec(encoding)) for snapshot in opened]
        form = form or _guess(texts[0], option)
        parts = [READERS[form](text, reserved) for text in texts]
        if form == "jsonl" and format is None and _is_batch(parts[0]):
            form = "openai-batch"
        return Source(parts, form, chunk_rows)
    except BaseException:
        for snapshot in opened:
            snapshot.close()
        raise


def _expand(path: str) -> list[str]:
    if path == "-" or not glob.has_magic(path) or os.path.lexists(path) or URL.match(path):
        return [path]
    files = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  (the pattern may be absolute)
    if not files:
        raise JobError(f"{path}: no file has a name like this")
    return files


def _open(
    path: str,
    number: int,
    spool: Path | None,
    opener: Callable[[str], BinaryIO] | None,
    stopping: threading.Event | None,
) -> Snapshot:
    if path == "-":
        return open_stdin(spool, stopping)
    if URL.match(path):
        if opener is None:
            raise JobError(f"{path}: inputs of this kind are not known here; name a file")
        return open_file(path, opener(path))
    return open_path(path, spool and spool.with_name(f"{spool.name}-{number}"), stopping)


def _guess(text: Text, option: str) -> str:
    """JSON Lines begin with a brace; nothing else is guessed."""
    head = b""
    for block in text.utf8():
        head += block.lstrip()
        if head:
            break
    if head.startswith(b"{") or (not head and text.name == "stdin"):
        return "jsonl"
    raise JobError(f"{text.name}: the name does not tell the format; name it with {option} ({', '.join(READERS)})")


def _is_batch(reader: Reader) -> bool:
    """Whether the first object is an OpenAI batch line."""
    from . import jsonl, openai_batch

    assert isinstance(reader, jsonl.Lines)
    for record in reader.records():
        if not isinstance(record, int) and not record[2]:
            return all(key in record[1] for key in openai_batch.KEYS)
    return False


def sink(
    path: str | os.PathLike[str],
    source: Source | None,
    names: Sequence[str] | Mapping[str, type] = (),
    *,
    format: str | None = None,  # noqa: A002
    columns: Sequence[str] | Mapping[str, str] | None = None,
    guard: bool = False,
    go_on: bool = False,
) -> Sink:
    """Open an output; the module's docstring shows its use.

    Args:
        path: The target, or `-` for standard output.
        source: The input whose rows will be written. It is read once where its columns are not known
            and the output needs them.
        names: The generated columns, with their types if it is a dict.
        format: One of `WRITERS`; None where the name tells it. `-` is JSON Lines unless another is named.
        columns: The input's columns, where there is no `source` or fewer are wanted.
        guard: Whether to put ' before generated CSV and TSV cells that a spreadsheet would execute.
        go_on: Whether what stands in the file stays, and rows come behind it; see `grows`.

    Raises:
        JobError: It cannot be an output: its kind, its directory, its format, or it is the input.
        StorageError: The storage fails.
    """
    path = os.fspath(path)
    form = output_format(path, format)
    if not isinstance(names, Mapping):
        names = dict.fromkeys(names, str)
    if columns is None and source is not None and form in TABLES:
        columns = source.keys()
    if not isinstance(columns, Mapping):
        columns = dict.fromkeys(columns or (), "string")
    if clashes := ", ".join(repr(name) for name in names if name in columns):
        raise JobError(f"the input already has a column {clashes}; give the output's columns other names with --prefix")
    layout = Layout(columns, names, guard, source.schema if source else None, go_on)
    compression = compression_of(path)
    target = Standard() if path == "-" else Target(path, source.names if source else ())
    try:
        if go_on and isinstance(target, Target):
            target.take_over()
        compressor = COMPRESS[compression](target) if compression else None
        return Sink(target, compressor, WRITERS[form](compressor or target, layout))
    except BaseException:
        target.abort()
        raise


def grows(path: str, source: Source, format: str | None = None) -> bool:  # noqa: A002
    """Whether what is appended to an input can be appended to its output: a plain text whose columns that cannot change."""
    form = output_format(path, format)
    known = form == "jsonl" or (form in {"csv", "tsv"} and source.columns is not None)
    return known and path != "-" and not compression_of(path)


def output_format(path: str, format: str | None = None, *, option: str = "--output-format") -> str:  # noqa: A002
    """The format of an output; messages call the option that names it `option`.

    Raises:
        JobError: The name does not tell it, or there is no such format.
    """
    form = format or ("jsonl" if path == "-" else format_of(path))
    if not form:
        raise JobError(f"{path}: the name does not tell the format; name it with {option} ({', '.join(WRITERS)})")
    if form not in WRITERS:
        raise JobError(f"{option} {form}: there is no such format; there are {', '.join(WRITERS)}")
    if form == "parquet" and (path == "-" or compression_of(path)):
        raise JobError(f"{path}: Parquet is written to a plain file, such as answers.parquet")
    return form


def preflight_output(path: str | os.PathLike[str], inputs: Iterable[str] = (), *, format: str | None = None) -> None:  # noqa: A002
    """Look whether an output can be written, before anything is sent for it.

    Args:
        path: The output; `-` is standard output.
        inputs: Files that it must not replace.
        format: One of `WRITERS`; None where the name tells it.

    Raises:
        JobError: Its kind, its directory or its format do not allow it; or it is an input; or a library that writes it is not
            installed.
    """
    path = os.fspath(path)
    form = output_format(path, format)
    preflight(path, inputs)
    if form == "parquet":
        require("parquet")
    if compression_of(path) == ".zst":
        require("zstd")
