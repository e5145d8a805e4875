"""What a run has done so far, and what it comes to."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import msgspec

from .job import Price
from .records import Answer, Attempt, Outcome


class Summary(msgspec.Struct, frozen=True):
    """How a run ended: the one JSON line on standard output.

    `rows` to `cached` speak of the output; `requests` to `seconds` of this run alone.

    Attributes:
        rows: Selected input rows, each with one output row.
        ok, failed, pending: How many of them have an answer, an error, or were not asked yet.
        truncated: Answers that were cut at their token limit (`finish_reason` is `length`).
        cached: Rows that an earlier run had answered.
        requests: Requests sent, retries included.
        cost_usd: From the job's price; None when that is not known.
        possibly_charged_twice: Rows that were in flight when an earlier run was killed.
        bound_by: What held the run back most of the time, such as `rpm` or `server`; "" when nothing was sent.
        kinds: How many rows failed, by `error_kind`.
        first_failure: What the first of them says.
        doubtful: The rows possibly charged twice, counted from 1, as they stood when that run was killed.
        error: Why the run ended before its end, or "".

    Example:
        >>> import batch, pathlib
        >>> _ = pathlib.Path("prompts.jsonl").write_text('{"prompt": ""}')
        >>> job = batch.Job(input="prompts.jsonl", output="out.csv", endpoint="embedded:echo")
        >>> summary = batch.run(job)
        >>> summary.rows, summary.ok, summary.failed, summary.exit_code
        (1, 0, 1, 1)
        >>> summary.kinds
        {'input': 1}
    """

    rows: int = 0
    ok: int = 0
    failed: int = 0
    pending: int = 0
    truncated: int = 0
    cached: int = 0
    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0
    possibly_charged_twice: int = 0
    output: str = ""
    journal: str = ""
    exit_code: int = 0
    bound_by: str = ""
    error: str = ""
    kinds: dict[str, int] = {}
    first_failure: str = ""
    doubtful: tuple[int, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """How far a run is, for whoever watches.

    Attributes:
        total: Rows there are to do; an estimate until the input has been read (`exact`).
        done: Rows that need nothing more: answered, failed, or known from before.
        bound: What the run is bound by, such as `rpm` or `server`.
        waiting: What it is waiting for, in words, or "".
        stopping: Whether it takes in no more, and only what is in flight comes home.
    """

    total: int | None
    exact: bool
    done: int
    ok: int
    failed: int
    cached: int
    requests: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    in_flight: int
    width: int
    bound: str
    waiting: str
    stopping: bool = False


class Tally:
    """Counts what becomes of rows; safe to call from any thread.

    Args:
        price: US dollars a million tokens, when the job says.
    """

    def __init__(self, price: Price | None = None) -> None:
        self._lock = threading.Lock()
        self._price = price
        self.read = 0
        self.cached = 0
        self.ok = 0
        self.failed = 0
        self.requests = 0
        self.retries = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def attempt(self, attempt: Attempt, *, first: bool) -> None:
        """Count one request that was sent."""
        with self._lock:
            self.requests += 1
            self.retries += not first

    def answered(self, answer: Answer) -> None:
        """Count what an answer used."""
        with self._lock:
            self.prompt_tokens += answer.prompt_tokens or 0
            self.completion_tokens += answer.completion_tokens or 0

    def durable(self, outcomes: Iterable[Outcome]) -> None:
        """Count rows as done, now that the journal has them."""
        for outcome in outcomes:
            if isinstance(outcome.result, Answer):
                self.ok += 1
            else:
                self.failed += 1

    @property
    def done(self) -> int:
        """Rows that need nothing more in this run."""
        return self.cached + self.ok + self.failed

    @property
    def cost(self) -> float | None:
        """US dollars so far; None when the price is not known."""
        if self._price is None:
            return None
        return (self.prompt_tokens * self._price.prompt + self.completion_tokens * self._price.completion) / 1e6
