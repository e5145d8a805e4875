"""How a job ended: counts, tokens, money and the exit code."""

from __future__ import annotations

from time import monotonic
from typing import Any

from .errors import BatchError, TryLater
from .export import Written
from .job import Job, share
from .journal import Journal
from .tally import Summary, Tally


def ended(
    job: Job, written: Written, tally: Tally, journal: Journal, *, begun: float, code: int, error: BatchError | None = None
) -> Summary:
    """How a job ended, in one record.

    Args:
        job: The job.
        written: What its output holds.
        tally: What this run did for it.
        journal: Names the rows possibly charged twice.
        begun: When this run began, on the monotonic clock.
        code: Its exit code.
        error: Why it ended before its end, if it did.
    """
    return Summary(
        rows=written.rows,
        ok=written.ok,
        failed=written.failed,
        pending=written.pending,
        truncated=written.truncated,
        **spent(tally),
        seconds=round(monotonic() - begun, 3),
        possibly_charged_twice=len(journal.possibly_charged),
        output=job.output,
        journal=str(journal.path),
        exit_code=code,
        error=str(error or ""),
        kinds=written.kinds,
        first_failure=written.first,
        doubtful=tuple(sorted(mark.index + 1 for mark in journal.possibly_charged)),
    )


def spent(tally: Tally) -> dict[str, Any]:
    """What a run has taken up and spent, under the names of `Summary` and `Snapshot`."""
    names = ("cached", "requests", "retries", "prompt_tokens", "completion_tokens")
    return {name: getattr(tally, name) for name in names} | {"cost_usd": tally.cost}


def exit_code(job: Job, written: Written) -> int:
    """The exit code that an output stands for: 0, 1, or 75 while rows are pending."""
    if written.pending:
        return TryLater.exit_code
    limit, percent = share(job.tolerate, "tolerate") if job.tolerate else (0.0, False)
    return int(written.failed > (written.rows * limit / 100 if percent else limit))
