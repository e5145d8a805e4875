"""A job looked through before it is run: everything is read and rendered, nothing is sent or written."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec

from .alignment import opened, schema_of, view_of
from .errors import JobError
from .exact import dumps, loads
from .job import EMBEDDED, Job
from .prompts import Request
from .reading import Selection, prompts_of
from .records import Row
from .settings import setting
from .wires import WIRES

SHOWN = 3
"""How many of the first requests are shown."""

TOLD_APART = 8
"""Bytes of a digest that are kept of each row: two of ten million rows are taken for equal once in 400,000 files."""

ID_COLUMNS = ("custom_id", "id")
"""Columns that name a row: the first one that the input has."""


@dataclass(slots=True)
class Report:
    """What a job comes to.

    Attributes:
        rows: Selected rows.
        bad: Those that cannot be asked; they would be error rows of kind `input`.
        unreadable: Those of them that are no rows at all.
        equal_prompts: Rows that ask exactly what an earlier one asks.
        id_column: The column that names the rows, or "".
        equal_ids: Rows whose name an earlier one has.
        prompt_tokens, completion_tokens: Estimated: a token is four characters, an answer takes `max_tokens`, else 256.
        cost_usd: Of these tokens; None when the job names no price.
        seconds: What the limits on requests and tokens allow at best; None when there are none.
        missing: What a run would still need, in words.
        examples: The messages of the first requests.
        exit_code: 0, 1 for bad rows, 2 for more of them than the job allows.
    """

    input: str
    rows: int = 0
    bad: int = 0
    unreadable: int = 0
    equal_prompts: int = 0
    id_column: str = ""
    equal_ids: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    seconds: float | None = None
    missing: tuple[str, ...] = ()
    examples: tuple[Any, ...] = ()
    exit_code: int = 0


def check(job: Job, *, bad: Callable[[str], object] = lambda words: None) -> Report:
    """Read the whole input and render every request.

    An earlier run's journal is not looked at: rows that it has answered count like all others.

    Args:
        job: Endpoint, credentials and model may be missing; the report says so.
        bad: Called with place and reason of every row that cannot be asked.

    Raises:
        InputError: The input is no table.
        JobError: A setting, a template or a column is wrong.
    """
    report = Report(job.input if isinstance(job.input, str) else " ".join(job.input), missing=tuple(_missing(job)))
    asked = {
        "template": job.template_text(),
        "schema": job.schema_text(),
        "protocol": _protocol(job),
        "identity": "",
        "model": job.model or setting("AILS_MODEL") or "model",
    }
    with ExitStack() as stack:
        view = view_of(job, WIRES[asked["protocol"]], schema_of(asked["schema"], job))
        source = stack.enter_context(opened(job, view))
        # Bad rows are all counted before the limit on them is held against their number.
        selection = Selection(msgspec.structs.replace(job, bad_rows=None, repeat=1), source, prompts_of(job, asked))
        keys, ids = array("Q"), array("Q")
        for rows in selection.chunks():
            requests = [request for _, request in rows if isinstance(request, Request)]
            for row, request in rows:
                if not isinstance(request, Request):
                    bad(f"{row.place}: {request}")
            report.id_column = report.id_column or next(
                (name for name in ID_COLUMNS if any(name in row.values for row, _ in rows)), ""
            )
            keys.frombytes(b"".join(request.key[:TOLD_APART] for request in requests))
            ids.frombytes(b"".join(_names(report.id_column, (row for row, _ in rows))))
            report.prompt_tokens += sum(request.tokens - request.answer_tokens for request in requests)
            report.completion_tokens += sum(request.answer_tokens for request in requests)
            more = islice(requests, max(0, SHOWN - len(report.examples)))
            report.examples += tuple(loads(request.body)["messages"] for request in more)
    report.equal_prompts, report.equal_ids = _repeated(keys), _repeated(ids)
    report.rows, report.bad, report.unreadable = selection.count, selection.bad, selection.unreadable
    _reckon(job, report)
    return report


def _repeated(digests: array[int]) -> int:
    """How many are equal to an earlier one; puts them in order."""
    import numpy as np

    names = np.frombuffer(digests, np.uint64)
    names.sort()
    return int((names[1:] == names[:-1]).sum())


def _names(column: str, rows: Iterable[Row]) -> list[bytes]:
    """A digest for each row that has a name."""
    names = (row.values.get(column) for row in rows)
    return [blake2b(dumps(name), digest_size=TOLD_APART).digest() for name in names if name not in (None, "")]


def _reckon(job: Job, report: Report) -> None:
    report.prompt_tokens *= job.repeat
    report.completion_tokens *= job.repeat
    requests, tokens = (report.rows - report.bad) * job.repeat, report.prompt_tokens + report.completion_tokens
    if job.price:
        report.cost_usd = (report.prompt_tokens * job.price.prompt + report.completion_tokens * job.price.completion) / 1e6
    if job.rpm or job.tpm:
        minutes = max(requests / job.rpm if job.rpm else 0.0, tokens / job.tpm if job.tpm else 0.0)
        report.seconds = round(minutes * 60, 1)
    report.exit_code = int(report.bad > 0)
    if job.bad_rows is not None and report.bad > job.bad_rows:
        report.exit_code = JobError.exit_code


def _protocol(job: Job) -> str:
    try:
        return job.resolved_endpoint().protocol or "ails"
    except JobError:
        return job.protocol or "ails"


def _missing(job: Job) -> list[str]:
    """What a run would refuse to begin without."""
    missing = []
    try:
        endpoint = job.resolved_endpoint()
    except JobError as error:
        return [str(error)]
    if endpoint.url in EMBEDDED:
        return []
    if not (job.model or setting("AILS_MODEL") or "model" in job.row_params):
        missing.append("no model: give --model, set AILS_MODEL, or name a column with --row-params model")
    try:
        endpoint.credentials()
    except JobError as error:
        missing.append(str(error))
    return missing
