"""From a pandas frame to a pandas frame, and from files to frames and back without a value being changed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import msgspec

from . import formats
from .errors import Halted, InputError, Interrupted, JobError
from .formats.frame import Frame
from .job import Endpoint
from .job import job as checked
from .judge import Stop
from .trip import Watch, run

if TYPE_CHECKING:
    from os import PathLike

    import pandas


def read(path: str | PathLike[str], *, format: str = "", encoding: str = "utf-8") -> pandas.DataFrame:  # noqa: A002
    """A file's rows with every value as it is written there, which pandas' own readers change: `007`, `NA`, `0.10`.

    Args:
        path: CSV, TSV, JSON Lines or Parquet, the text ones perhaps compressed, or a pattern of such files.
        format: One of `csv`, `tsv`, `jsonl`, `parquet`; by default the name tells it.
        encoding: Of a text file.

    Returns:
        Columns of dtype object: text of CSV and TSV, JSON's own values of JSON Lines; a key that a line does not have is
        `pandas.NA`.

    Raises:
        JobError: There is no such file, or its format or encoding cannot be.
        InputError: It is no table, or a row of it cannot be read.
        StorageError: The disk refused.

    Example:
        >>> import batch, pandas
        >>> batch.write(pandas.DataFrame({"id": ["007"], "country": ["NA"]}), "spies.csv")
        >>> batch.read("spies.csv").to_dict("records")
        [{'id': '007', 'country': 'NA'}]
    """
    import pandas as pd

    count = 0
    with formats.source(path, format=format or None, encoding=encoding) as source:
        columns: dict[str, list[Any]] = {name: [] for name in source.columns or ()}
        for chunk in source.chunks():
            for position, reason in chunk.problems.items():
                raise InputError(f"{chunk.places[position]}: {reason}")
            for name in chunk.columns:
                cells = columns.setdefault(name, [pd.NA] * count)
                cells += [pd.NA if cell is formats.MISSING else cell for cell in chunk.frame[name].tolist()]
            count += len(chunk)
            for cells in columns.values():
                cells += [pd.NA] * (count - len(cells))
    return pd.DataFrame(columns, index=range(count), dtype=object)


def write(df: pandas.DataFrame, path: str | PathLike[str], *, format: str = "") -> None:  # noqa: A002
    """Write a frame's rows, so that readers see the old file or the new one, whole.

    Args:
        df: The rows; its index is left out. What is missing (None, NaN, NA, NaT) is null, in CSV and TSV empty.
        path: The file.
        format: One of `csv`, `tsv`, `jsonl`, `parquet`; by default the name tells it.

    Raises:
        JobError: The file cannot be an output, or two columns have one name.
        StorageError: The disk refused; the old file is as it was.

    Example:
        >>> import batch, pandas, pathlib
        >>> batch.write(pandas.DataFrame({"n": [1, None]}, dtype="Int64"), "numbers.jsonl")
        >>> print(pathlib.Path("numbers.jsonl").read_text(), end="")
        {"n":1}
        {"n":null}
    """
    source = Frame(df).source(())
    with formats.sink(path, source, format=format or None) as sink:
        for chunk in source.chunks():
            sink.write(chunk, range(len(chunk)), [{}] * len(chunk))
        sink.commit()


def run_frame(
    df: pandas.DataFrame,
    *,
    template: str = "",
    endpoint: str | Endpoint = "",
    output: str = "",
    journal: str = "",
    watch: Watch | None = None,
    stop: Stop | None = None,
    **fields: Any,
) -> pandas.DataFrame:
    """Ask every row of a frame.

    What is missing (None, NaN, NA, NaT) is null; dates and the like are text. The call returns when all rows are done; inside a
    running event loop, `await asyncio.to_thread(batch.run_frame, …)` lets others go on. With a journal, the same call goes on
    where an earlier one ended, and asks only what is new or different.

    Args:
        df: One row a prompt; never changed.
        template: Jinja2 text of the prompt over the columns; without one the column `prompt` is asked.
        endpoint: A base URL, `embedded`, or an `Endpoint`; by default from the environment.
        output: A file to write, too; its journal is OUTPUT.journal.
        journal: Where every answer is kept; by default a temporary one, which stays only when the call fails.
        watch: Called some times a second, from a thread, with how far it is.
        stop: Ends the run from outside.
        **fields: All others of `Job` but `input` and `input_format`, such as `model`, `parameters`, `rpm` or `schema`.

    Returns:
        The rows, with their index, columns and types as they were and in their order, and the generated columns, text as
        `string`, numbers as `Int64` and `Float64`. A row that failed has its reason in `error` and `error_kind`. The summary is
        in `attrs["summary"]`. When a limit of the job's own ended the run, the rest is `pending`, with a warning.

    Raises:
        JobError: A field is unknown, or its value does not fit.
        BatchError: The run could not begin or go on; what was answered is in the journal.
        KeyboardInterrupt: Ctrl-C, after what was in flight has come home; the same.

    Example:
        >>> import batch, pandas
        >>> words = pandas.DataFrame({"id": ["007", "008"], "word": ["cat", "dog"]})
        >>> template = "Translate to French: {{ word }}"
        >>> french = batch.run_frame(words, template=template, endpoint="embedded:echo")
        >>> print(french[["id", "response"]])
            id                  response
        0  007  Translate to French: cat
        1  008  Translate to French: dog
    """
    for name in ("input", "input_format"):
        if name in fields:
            raise JobError(f"{name}: the rows are those of the frame; leave it out, or ask a file with batch.run(batch.Job(…))")
    stop = stop or Stop()
    frame = Frame(df)
    job = checked({"template": template, "endpoint": endpoint, "output": output, "journal": journal} | fields)
    summary = run(job, watch=watch, stop=stop, frame=frame)
    error = stop.error
    if isinstance(error, Halted):
        warnings.warn(f"{error}; {summary.pending} of {summary.rows} rows are pending", RuntimeWarning, stacklevel=2)
    elif isinstance(error, Interrupted):
        raise KeyboardInterrupt(f"{error}; what was answered is in {summary.journal}")
    elif error:
        error.add_note(f"What was answered is in {summary.journal}; the same call with that journal goes on.")
        raise error
    out = frame.result()
    out.attrs["summary"] = msgspec.structs.asdict(summary)
    return out
