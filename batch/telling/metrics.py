"""A run's figures as a text file for Prometheus' node exporter.

The format is the exposition format 0.0.4; names follow https://prometheus.io/docs/practices/naming/. Everything is a gauge: the
figures speak of the last run and begin anew with the next.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import JobError
from ..tally import Snapshot, Summary

EVERY = 15.0
"""Seconds between two writes of a run under way; Prometheus is commonly set to look that often."""

HELP = {
    "ails_batch_running": "Whether the run is under way (1) or over (0).",
    "ails_batch_start_timestamp_seconds": "When the last run began.",
    "ails_batch_end_timestamp_seconds": "When the last run ended.",
    "ails_batch_success_timestamp_seconds": "When a run last ended with exit code 0.",
    "ails_batch_duration_seconds": "How long the last run took.",
    "ails_batch_exit_code": "Exit code of the last run.",
    "ails_batch_rows": "Rows of the output, by state.",
    "ails_batch_cached_rows": "Rows that an earlier run had answered.",
    "ails_batch_truncated_rows": "Answers that were cut at their token limit.",
    "ails_batch_requests": "Requests that the last run sent, retries included.",
    "ails_batch_retries": "Requests of the last run that were sent again.",
    "ails_batch_tokens": "Tokens that the last run used, by kind.",
    "ails_batch_cost_dollars": "US dollars that the last run cost, where the price is known.",
}

Sample = tuple[str, str, float]
"""A metric's name, its labels beside `batch`, and its value."""


class Metrics:
    """Writes the file when the run begins, now and then while it lasts, and when it ends.

    Every sample has the label `batch`, the file's name without suffix, so that several jobs' files can stand in one directory.
    The file is readable by all (mode 0644), for node exporter has an account of its own; it holds numbers alone.

    Args:
        path: The file; its name must end in `.prom`, or node exporter would not read it.

    Raises:
        JobError: The name does not end so, or the directory cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.suffix != ".prom":
            raise JobError(f"metrics_file {path}: node exporter reads only names that end in .prom; name it so")
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise JobError(f"metrics_file {path}: the directory {self._path.parent} is not there or cannot be written")
        self._began = time.time()
        self._wrote = float("-inf")
        self._failed = False
        self._before = dict(self._kept())

    def start(self) -> None:
        """The run begins."""
        self._write([("ails_batch_running", "", 1)])

    def watch(self, now: Snapshot) -> None:
        """The run is under way."""
        if time.monotonic() - self._wrote < EVERY:
            return
        pending = max(0, (now.total or 0) - now.done)
        self._write([("ails_batch_running", "", 1), *_figures(now, now.cached + now.ok, pending)])

    def end(self, code: int, seconds: float, summary: Summary | None) -> None:
        """The run is over."""
        now = time.time()
        if code == 0:
            self._before["ails_batch_success_timestamp_seconds"] = now
        figures = list(_figures(summary, summary.ok, summary.pending)) if summary else []
        if summary:
            figures.append(("ails_batch_truncated_rows", "", summary.truncated))
        self._write(
            [
                ("ails_batch_running", "", 0),
                ("ails_batch_end_timestamp_seconds", "", now),
                ("ails_batch_duration_seconds", "", seconds),
                ("ails_batch_exit_code", "", code),
                *figures,
            ]
        )

    def _write(self, samples: list[Sample]) -> None:
        self._wrote = time.monotonic()
        kept = [(name, "", value) for name, value in self._before.items()]
        samples = sorted([("ails_batch_start_timestamp_seconds", "", self._began), *samples, *kept])
        part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        try:
            part.write_text(self._text(samples), encoding="utf-8")
            part.chmod(0o644)
            part.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if not self._failed:
                logging.getLogger("batch").warning("metrics_file %s: %s", self._path, error.strerror)
            self._failed = True

    def _text(self, samples: list[Sample]) -> str:
        batch = self._path.stem.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines: list[str] = []
        told = ""
        for name, labels, value in samples:
            if name != told:
                lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
            told = name
            lines.append(f'{name}{{batch="{batch}"{"," if labels else ""}{labels}}} {value:.17g}')
        return "\n".join(lines) + "\n"

    def _kept(self) -> Iterator[tuple[str, float]]:
        """What stays true over runs that fail."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        for name in ("ails_batch_success_timestamp_seconds",):
            if found := re.search(rf"^{name}\{{.*\}} (\d+(?:\.\d+)?)$", text, re.MULTILINE):
                yield name, float(found[1])


def _figures(of: Snapshot | Summary, ok: int, pending: int) -> Iterator[Sample]:
    yield "ails_batch_rows", 'state="ok"', ok
    yield "ails_batch_rows", 'state="failed"', of.failed
    yield "ails_batch_rows", 'state="pending"', pending
    yield "ails_batch_cached_rows", "", of.cached
    yield "ails_batch_requests", "", of.requests
    yield "ails_batch_retries", "", of.retries
    yield "ails_batch_tokens", 'kind="prompt"', of.prompt_tokens
    yield "ails_batch_tokens", 'kind="completion"', of.completion_tokens
    if of.cost_usd is not None:
        yield "ails_batch_cost_dollars", "", of.cost_usd
