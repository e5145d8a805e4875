"""What a run tells those who are not there: a log, a metrics file, a ping. None of it can fail the run, or hold it up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from ..errors import BatchError, Interrupted, JobError
from ..job import Job
from ..records import Answer, Outcome
from ..tally import Snapshot, Summary

if TYPE_CHECKING:
    from .log import Log
    from .metrics import Metrics
    from .ping import Ping

EVERY = 60.0
"""Seconds between lines of progress in the log."""

BUG = 70
"""The exit code whose reason may hold anything."""

_QUOTE = re.compile(r"(HTTP \d+|the answer is|the answer's content is|a streamed chunk is)\b.+")
"""Where a reason begins to quote the server, which may have repeated the prompt or the answer."""


class Telling:
    """Tells of one run, from its beginning to its end, however it ends; used as a context manager.

    Args:
        job: Its `log_file`, `metrics_file` and `ping` say where to.

    Raises:
        JobError: One of these cannot be used; the others are told so.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._begun = time.monotonic()
        self._said = self._begun
        self._log: Log | None = None
        self._metrics: Metrics | None = None
        self._ping: Ping | None = None
        self._over = False

    def __enter__(self) -> Telling:
        """Say that the run begins."""
        job = self._job
        try:
            self._open(job)
        except JobError as error:
            self._end(error.exit_code, None, str(error))
            raise
        if self._log:
            self._log.write("start", input=job.input, output=job.output, journal=str(job.journal_path or ""))
        if self._metrics:
            self._metrics.start()
        if self._ping:
            self._ping.start()
        return self

    def _open(self, job: Job) -> None:
        # Imported here, because most runs tell nobody.
        if job.ping:
            from .ping import Ping

            self._ping = Ping(job.ping)
        if job.log_file:
            from .log import Log

            self._log = Log(job.log_file)
        if job.metrics_file:
            from .metrics import Metrics

            self._metrics = Metrics(job.metrics_file)

    def watch(self, now: Snapshot) -> None:
        """Say how far it is."""
        if self._metrics:
            self._metrics.watch(now)
        if self._log and time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self._log.write("progress", **asdict(now) | {"waiting": bool(now.waiting)})

    def durable(self, outcomes: Iterable[Outcome]) -> None:
        """Log rows that have come to their end: never what was asked or answered, nor what a server said of it."""
        if self._log:
            for outcome in outcomes:
                self._log.write("row", **_row(outcome))

    def ended(self, summary: Summary) -> Summary:
        """Say how it ended."""
        self._end(summary.exit_code, summary, summary.error)
        return summary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Say how it ended when it did not come to a summary."""
        if error is not None:
            self._end(_code(error), None, str(error))

    def _end(self, code: int, summary: Summary | None, words: str) -> None:
        if self._over:
            return
        self._over = True
        seconds = round(time.monotonic() - self._begun, 3)
        error = "a bug" if code == BUG else _QUOTE.sub(r"\1 …", words)
        told: dict[str, Any] = {"exit_code": code, "seconds": seconds}
        if summary is not None:
            told = {name: value for name, value in asdict(summary).items() if name not in ("error", "first_failure")}
        if self._log:
            self._log.write("end", **told, error=error)
            self._log.close()
        if self._metrics:
            self._metrics.end(code, seconds, summary)
        if self._ping:
            self._ping.end(code, told)


def _row(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    told: dict[str, Any] = {
        "row": outcome.index,
        "key": outcome.key.hex(),
        "state": "ok" if isinstance(result, Answer) else result.kind,
        "http_status": result.status,
        "attempts": len(outcome.attempts),
        "latency_s": round(outcome.attempts[-1].seconds, 3) if outcome.attempts else None,
    }
    if isinstance(result, Answer):
        told |= {
            "finish_reason": result.finish_reason,
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
        }
    return told


def _code(error: BaseException) -> int:
    if isinstance(error, Interrupted):
        return error.exit_status
    if isinstance(error, BatchError):
        return error.exit_code
    return 130 if isinstance(error, KeyboardInterrupt) else 70
