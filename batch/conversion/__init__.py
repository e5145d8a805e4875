"""Files of prompts and answers from one format into another, with an account of what did not arrive.

A file is a table (CSV, TSV, JSON Lines, Parquet), requests of a batch service, or its results. Tables become tables cell by
cell; requests go by way of OpenAI's batch lines, results by way of the members of an output row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from .. import formats
from ..errors import JobError, RowError
from ..exact import dumps
from ..formats import Chunk, Sink, Source
from ..formats.table import CHUNK_ROWS, MISSING, Places, frame
from ..formats.values import column_type, kind
from . import requests, results
from .losses import Losses

__all__ = ["FORMATS", "Report", "convert"]

TABLES = ("csv", "tsv", "jsonl", "parquet")
READ_REQUESTS: dict[str, Callable[[Mapping[str, Any], Losses], dict[str, Any]]] = {
    "openai-batch": requests.from_openai,
    "anthropic": requests.from_anthropic,
    "bedrock": requests.from_bedrock,
}
WRITE_REQUESTS: dict[str, Callable[[Mapping[str, Any], Losses], dict[str, Any]]] = {
    "openai-batch": requests.to_openai,
    "anthropic": requests.to_anthropic,
    "bedrock": requests.to_bedrock,
}
WRITE_RESULTS: dict[str, Callable[[Mapping[str, Any], int, Losses], bytes]] = {
    "openai-results": results.to_openai,
    "vllm-results": results.to_vllm,
    "anthropic-results": results.to_anthropic,
    "bedrock-results": results.to_bedrock,
}
FORMATS = (*TABLES, *WRITE_REQUESTS, *WRITE_RESULTS)
"""What can be read and written."""

Numbered = tuple[int, dict[str, Any]]
"""A request or a result, with the number of its row."""

EXAMPLES = {"requests": "openai-batch", "results": "openai-results"}


@dataclass(slots=True)
class Report:
    """What a conversion came to.

    Attributes:
        rows: Rows written.
        source_format, target_format: Of `FORMATS`.
        lost: What did not arrive, in words, to how often.
        first: The same to where it was first met.
    """

    source_format: str
    target_format: str
    rows: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when everything arrived: converting back brings all of it back."""
        return int(bool(self.lost))


def convert(source: str, target: str, *, source_format: str = "", target_format: str = "", encoding: str = "utf-8") -> Report:
    """Write a file in another format.

    Args:
        source: A file, a pattern, or `-` for standard input.
        target: A file, or `-` for JSON lines on standard output.
        source_format: Of `FORMATS`; "" where the name, or the first line, tells it.
        target_format: Of `FORMATS`; "" where the name tells it.
        encoding: Of the source, where that is text.

    Raises:
        JobError: The formats do not fit each other, or a file cannot be used.
        InputError: The source is no table.
        StorageError: The target cannot be written; an old one stays.
    """
    for name, option in ((source_format, "--from"), (target_format, "--to")):
        if name and name not in FORMATS:
            raise JobError(f"{option} {name}: there is no such format; there are {', '.join(FORMATS)}")
    write = target_format or formats.output_format(target, option="--to")
    formats.preflight_output(target, format=write if write in TABLES else "jsonl")
    plain = source_format if source_format in (*TABLES, "openai-batch", "") else "jsonl"
    with formats.source(source, format=plain or None, encoding=encoding, option="--from") as opened:
        read = source_format or _recognised(opened)
        losses, report = Losses(), Report(read, write)
        if write in TABLES and read in TABLES:
            _tables(opened, target, write, losses, report)
        elif write in TABLES:
            _into_a_table(opened, target, losses, report)
        else:
            _into_lines(opened, target, losses, report)
    report.lost, report.first = losses.counts, losses.first
    return report


def _recognised(source: Source) -> str:
    """The format of a file, JSON Lines by their first object."""
    if source.format != "jsonl":
        return source.format
    rows = (row.values for chunk in source.chunks() for row in chunk.rows() if not row.problem)
    keys = next((values.keys() for values in rows), {}.keys())
    if keys >= {"custom_id", "params"}:
        return "anthropic"
    if keys >= {"custom_id", "result"}:
        return "anthropic-results"
    if keys >= {"recordId", "modelInput"}:
        return "bedrock-results" if keys & {"modelOutput", "error"} else "bedrock"
    if keys >= {"custom_id", "response", "error"} and "error_kind" not in keys:
        return "openai-results"
    return "jsonl"


def _tables(source: Source, target: str, write: str, losses: Losses, report: Report) -> None:
    """A table as a table: the writers' own way with every value, and beside it the account."""
    columns = source.keys() if write != "jsonl" else None
    if columns is not None and not columns:
        raise JobError(f"{source.name} has no columns, and {write} needs some")
    strange = _strange(source) if write != "parquet" else {}
    with formats.sink(target, source, format=write, columns=columns) as sink:
        for chunk in source.chunks():
            _account(chunk, columns or {}, write, strange, losses)
            sink.write(chunk, range(len(chunk)), [{}] * len(chunk))
            report.rows += len(chunk)
        if write == "jsonl" and source.columns and not report.rows:
            losses.place = source.name
            losses.add("the names of the columns, for there are no rows")
        sink.commit()


def _account(chunk: Chunk, columns: Mapping[str, str], write: str, strange: Mapping[str, str], losses: Losses) -> None:
    for position, why in chunk.problems.items():
        losses.place = chunk.places[position]
        losses.add(f"rows that cannot be read, such as: {why.partition(' at ')[0]}")
    names = chunk.columns
    absent = [name for name in columns if name not in names]
    for position, cells in enumerate(chunk.cells()):
        if position in chunk.problems:
            continue
        losses.place = chunk.places[position]
        for name, cell in zip(names, cells, strict=True):
            if name in strange and cell is not None:
                losses.add(f"the type of column {name!r}, {strange[name]}")
            elif cell is not MISSING or write != "jsonl":
                losses.cell(cell, columns.get(name, ""), write)
        for _ in absent:
            losses.cell(MISSING, "string", write)


def _strange(source: Source) -> dict[str, str]:
    """The columns of a Parquet file that JSON has no type for."""
    if source.schema is None:
        return {}
    from pyarrow import types

    def told(form: Any) -> bool:
        if types.is_list(form) or types.is_large_list(form):
            return told(form.value_type)
        if types.is_struct(form):
            return all(told(form.field(at).type) for at in range(form.num_fields))
        tests = (types.is_boolean, types.is_int64, types.is_float64, types.is_string, types.is_large_string, types.is_null)
        return any(test(form) for test in tests)

    return {field.name: str(field.type) for field in source.schema if not told(field.type)}


def _read(source: Source, read: str, aim: str, losses: Losses) -> Iterator[Numbered]:
    """The source's requests, or results, each with the row's number; what cannot be read as one does not arrive.

    Args:
        source: The file.
        read: Its format.
        aim: `requests` or `results`.
        losses: Told of what does not fit.
    """
    own = "requests" if read in READ_REQUESTS else "results" if read in WRITE_RESULTS else aim
    if own != aim:
        raise JobError(f"{source.name} holds {own}, which cannot become {aim}; choose a table or --to {EXAMPLES[own]}")
    take = READ_REQUESTS.get(read, requests.from_row) if aim == "requests" else _result_reader(read)
    for chunk in source.chunks():
        for row in chunk.rows():
            losses.place = row.place
            try:
                if row.problem:
                    raise RowError(row.problem)
                one = take(row.values, losses)
            except RowError as error:
                losses.add(f"rows that cannot be read: {str(error).partition(' at ')[0]}")
                continue
            if one.get("custom_id") is None or one["custom_id"] == "":
                one["custom_id"] = f"row-{row.number + 1}"
            yield row.number, one


def _result_reader(read: str) -> Callable[[Mapping[str, Any], Losses], dict[str, Any]]:
    return results.from_line if read in WRITE_RESULTS else results.from_row


def _into_lines(source: Source, target: str, losses: Losses, report: Report) -> None:
    """Anything as a service's lines."""
    write = report.target_format
    aim = "requests" if write in WRITE_REQUESTS else "results"
    found = _read(source, report.source_format, aim, losses)
    if aim == "requests":
        lines = (dumps(WRITE_REQUESTS[write](one, losses)) for _, one in _convertible(found, write, losses))
    else:
        lines = (WRITE_RESULTS[write](one, number, losses) for number, one in found)
    with formats.sink(target, None, format="jsonl") as sink:
        while block := list(islice(lines, CHUNK_ROWS)):
            _write(sink, [], [[]] * len(block), block)
            report.rows += len(block)
        sink.commit()


def _convertible(found: Iterator[Numbered], write: str, losses: Losses) -> Iterator[Numbered]:
    """Those requests that have a form there."""
    for number, one in found:
        try:
            if write != "openai-batch":
                requests.refuse_other_urls(one)
            yield number, one
        except RowError as error:
            losses.add(f"rows that cannot be written: {error}")


def _into_a_table(source: Source, target: str, losses: Losses, report: Report) -> None:
    """A service's lines as a table; read twice, for a table's columns stand before its rows."""
    read, write = report.source_format, report.target_format
    aim = "requests" if read in READ_REQUESTS else "results"
    prompts = aim == "requests" and all(requests.is_prompt(one) for _, one in _read(source, read, aim, Losses()))

    def rows(told: Losses) -> Iterator[dict[str, Any]]:
        for _, one in _read(source, read, aim, told):
            row = requests.to_row(one, prompts=prompts) if aim == "requests" else results.to_row(one)
            if write != "jsonl":
                for text in [cell for cell in row.values() if isinstance(cell, str)]:
                    told.cell(text, "string", write)
            yield row

    kinds: dict[str, set[str]] = {name: set() for name in (("custom_id",) if aim == "requests" else results.COLUMNS[:-1])}
    for row in rows(Losses()):
        for name, value in row.items():
            kinds.setdefault(name, set()).add(kind(value))
    columns = {name: column_type(found) for name, found in kinds.items()}
    every = rows(losses)
    with formats.sink(target, None, format=write, columns=columns) as sink:
        while block := list(islice(every, CHUNK_ROWS)):
            raw = [dumps(row) for row in block] if write == "jsonl" else None
            _write(sink, list(columns), [[row.get(name) for name in columns] for row in block], raw)
            report.rows += len(block)
        sink.commit()


def _write(sink: Sink, columns: list[str], rows: Sequence[Sequence[Any]], raw: list[bytes] | None) -> None:
    build = partial(frame, columns, zip(*rows, strict=True), 0, len(rows))
    chunk = Chunk(build, 0, Places("", range(len(rows))), raw)
    sink.write(chunk, range(len(rows)), [{}] * len(rows))
