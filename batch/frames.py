"""From a pandas frame to a pandas frame."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .errors import Halted, Interrupted
from .formats.frame import Frame
from .job import Endpoint, Job
from .judge import Stop
from .trip import Watch, run

if TYPE_CHECKING:
    import pandas


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
        **fields: All others of `Job`, such as `model`, `parameters`, `rpm` or `schema`.

    Returns:
        The rows, with their index, columns and types as they were and in their order, and the generated columns, text as
        `string`, numbers as `Int64` and `Float64`. A row that failed has its reason in `error` and `error_kind`. The summary is
        in `attrs["summary"]`. When a limit of the job's own ended the run, the rest is `pending`, with a warning.

    Raises:
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
    stop = stop or Stop()
    frame = Frame(df)
    job = Job(template=template, endpoint=endpoint, output=output, journal=journal, **fields)
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
    out.attrs["summary"] = asdict(summary)
    return out
