"""Inputs and outputs read a second way: plain `csv` and JSON lines, nothing of `formats`, so that its mistakes show."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .. import exact
from ..errors import InputError, JobError, installed_by

FORMS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
DELIMITERS = {"csv": ",", "tsv": "\t"}
COMPRESSIONS = (".gz", ".zst")
LONGEST = 16 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One row as it stands in a file.

    Attributes:
        place: Where: ``prompts.csv, line 7``.
        values: Column to value; empty where the row cannot be read.
        raw: A JSON line's own bytes, without the line's end; empty for other formats.
        unreadable: Whether the row cannot be read.
    """

    place: str
    values: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A file, or the files that a pattern names, in order.

    Attributes:
        form: `csv`, `tsv` or `jsonl`.
        reserved: Names that make a JSON line unreadable, for they are the output's own.
    """

    paths: tuple[str, ...]
    form: str
    encoding: str = "utf-8"
    reserved: frozenset[str] = frozenset()

    @property
    def columns(self) -> list[str]:
        """The header; empty for JSON lines, which have none."""
        if self.form == "jsonl":
            return []
        with _characters(self.paths[0], self.encoding) as text:
            reader = csv.reader(text, delimiter=DELIMITERS[self.form])
            return next((row for row in reader if row), [])

    def __iter__(self) -> Iterator[Line]:
        for path in self.paths:
            try:
                yield from self._objects(path) if self.form == "jsonl" else self._cells(path)
            except OSError as error:
                raise JobError(f"{path} cannot be read: {error.strerror or error}") from None
            except (EOFError, UnicodeError, csv.Error) as error:
                raise InputError(f"{path} cannot be read to its end: {error}") from None

    def _objects(self, path: str) -> Iterator[Line]:
        for number, line in enumerate(_lines(path, self.encoding), 1):
            raw = line.removesuffix(b"\n")
            if not raw.strip(b" \t\r"):
                continue
            place = f"{path}, line {number}"
            try:
                value = exact.loads(raw)
            except ValueError:
                value = None
            if not isinstance(value, dict) or not self.reserved.isdisjoint(value) or _deeper(value, exact.MAX_DEPTH):
                yield Line(place, raw=raw, unreadable=True)
            else:
                yield Line(place, value, raw)

    def _cells(self, path: str) -> Iterator[Line]:
        delimiter = DELIMITERS[self.form]
        with _characters(path, self.encoding) as text:
            taken: list[str] = []
            reader = csv.reader(_noting(text, taken), delimiter=delimiter)
            header: list[str] = []
            blank: list[int] = []
            start = 1
            for row in reader:
                place, lines = f"{path}, line {start}", "".join(taken)
                taken.clear()
                if not header:
                    header = row
                elif not row:
                    blank.append(start)
                else:
                    alone = len(header) == 1
                    for number in blank:
                        yield Line(f"{path}, line {number}", {header[0]: ""} if alone else {}, unreadable=not alone)
                    blank = []
                    if len(row) != len(header) or _broken(lines, delimiter):
                        yield Line(place, unreadable=True)
                    else:
                        yield Line(place, dict(zip(header, row, strict=True)))
                start = reader.line_num + 1


def table(name: str, form: str = "", encoding: str = "utf-8", reserved: Iterable[str] = ()) -> Table:
    """A file, or the files of a pattern.

    Args:
        name: Its path.
        form: Its format; "" where the name tells it.
        encoding: Of its text.
        reserved: See `Table`.

    Raises:
        JobError: No such file, or a format that this check cannot read.
    """
    paths = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))  # noqa: PTH207  (the pattern may be absolute)
    if not paths:
        raise JobError(f"{name}: no such file")
    form = "jsonl" if form == "openai-batch" else form or form_of(paths[0])
    if form not in (*DELIMITERS, "jsonl"):
        found = form or f"the name {name}"
        raise JobError(f"verify reads CSV, TSV and JSON lines, not {found}; ails-batch convert makes one of the other")
    return Table(tuple(paths), form, encoding, frozenset(reserved))


def form_of(path: str) -> str:
    """The format that a name tells, "" when it tells none."""
    name = Path(path.lower())
    return FORMS.get(Path(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix, "")


def _open(path: str) -> BinaryIO:
    suffix = Path(path).suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise JobError(f"{path}: zstd files need one more library: {installed_by('zstd')}") from None
        opened: BinaryIO = zstandard.open(path, "rb")
        return opened
    return Path(path).open("rb")


def _lines(path: str, encoding: str) -> Iterator[bytes]:
    """Lines as UTF-8; they end at the byte 0A and nowhere else."""
    with _open(path) as file:
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
            first = file.readline().removeprefix(b"\xef\xbb\xbf")
            yield first
            yield from file
            return
        with io.TextIOWrapper(file, encoding=encoding, newline="\n") as text:
            for line in text:
                yield line.removeprefix("\ufeff").encode("utf-8", "surrogatepass")


def _characters(path: str, encoding: str) -> io.TextIOWrapper:
    if csv.field_size_limit() < LONGEST:
        csv.field_size_limit(LONGEST)
    plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    # Bytes that are no UTF-8 become lone surrogates, which `_broken` finds.
    return io.TextIOWrapper(
        _open(path), encoding="utf-8-sig" if plain else encoding, errors="surrogateescape" if plain else "strict", newline=""
    )


def _noting(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _broken(lines: str, delimiter: str) -> bool:
    """Whether a row's text breaks the rules of CSV, or was no UTF-8."""
    if not lines.isascii() and any("\udc80" <= sign <= "\udcff" for sign in lines):
        return True
    if '"' not in lines:
        return False
    try:
        return len(list(csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter, strict=True))) != 1
    except csv.Error:
        return True


def _deeper(value: Any, most: int) -> bool:
    """Whether lists and objects nest more than `most` deep."""
    level = [value]
    for _ in range(most):
        level = [
            one
            for outer in level
            for one in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(one, (dict, list))
        ]
        if not level:
            return False
    return True


def cell(value: Any) -> str:
    """A value as a CSV cell holds it: text as it is, nothing as "", the rest as compact JSON."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return exact.dumps(value).decode("utf-8")
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def size_of(path: str | os.PathLike[str]) -> int:
    """Bytes in a file, -1 where there is none."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1
