"""When a run must end before its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType

from .errors import BatchError, Denied, Halted, Interrupted, RunRefused
from .job import Job, share
from .journal.lock import storage
from .records import Answer, Failure, Outcome
from .tally import Tally

SAME_REFUSALS = 20
"""So many first outcomes that are the same refusal speak of the job, not of its rows."""

DENIALS = 3
"""So many 401s or 403s in a row speak of the key."""

BUGS = 5
"""So many `internal` failures in a row are a bug that more rows will not mend."""

SHARE_FROM = 100
"""Finished rows before a share of failed ones means anything."""


class Flag(threading.Event):
    """An event that a signal handler may set while the thread it interrupted is setting it, too."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())


class Stop:
    """A run's end, called from anywhere; the first reason counts.

    Attributes:
        event: Set once the run is to take in no more; what is in flight may come home.
        hard: Set by a second signal: commit what has arrived and leave.
        error: The reason.
        at: When, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.event = Flag()
        self.hard = Flag()
        self.error: BatchError | None = None
        self.at = 0.0
        self._lock = threading.Lock()

    def because(self, error: BatchError) -> None:
        """End the run for this reason."""
        with self._lock:
            self.error, self.at = self.error or error, self.at or monotonic()
        self.event.set()

    def interrupt(self, signum: int) -> None:
        """End the run by a signal; the second one ends it at once."""
        # No lock here: a signal handler runs between two steps of the main thread, which may hold it.
        if self.event.is_set():
            self.hard.set()
        self.error, self.at = self.error or Interrupted(signum), self.at or monotonic()
        self.event.set()

    def ending(self, folder: Path) -> Ending:
        """Whatever goes wrong inside ends the run in order: nothing more is sent, and the summary says why.

        Args:
            folder: Where storage failed that does not say where.
        """
        return Ending(self, folder)


class Ending:
    """See `Stop.ending`; used again and again, twice a row, and several times as fast as a generator with `contextmanager`."""

    def __init__(self, stop: Stop, folder: Path) -> None:
        self._stop = stop
        self._folder = folder

    def __enter__(self) -> None:
        """Nothing went wrong yet."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """End the run for what went wrong, if anything did."""
        if error is None:
            return False
        if isinstance(error, BatchError):
            self._stop.because(error)
        elif isinstance(error, OSError):
            self._stop.because(storage(Path(error.filename or self._folder), error))
        elif isinstance(error, KeyboardInterrupt):
            self._stop.interrupt(signal.SIGINT)
        elif isinstance(error, Exception):
            self._stop.because(BatchError(f"a bug, please report it: {type(error).__name__}: {error}"))
        else:
            return False
        return True


class Judge:
    """Looks at every outcome and ends the run where going on would only cost.

    Args:
        job: Its `halt`, `max_cost`.
        tally: What has been counted; consulted for money and shares.
        stop: Called when it is time.
        keep: What to do with an outcome that counts (the journal's `append`).
        drop: What to do with one that does not: its row stays pending.
    """

    def __init__(
        self, job: Job, tally: Tally, stop: Stop, *, keep: Callable[[Outcome], None], drop: Callable[[Outcome], None]
    ) -> None:
        self._halt = share(job.halt, "halt") if job.halt else None
        self._max_cost = job.max_cost
        self._tally = tally
        self._stop = stop
        self._keep = keep
        self._drop = drop
        self._lock = threading.Lock()
        self._withheld: list[Outcome] | None = []
        self._kept_all = False
        self._denials = 0
        self._denied: list[tuple[Denied, Outcome]] = []
        self._answered = False
        self._bugs = 0
        self._finished = 0
        self._failed = 0

    def outcome(self, outcome: Outcome) -> None:
        """Judge one row's end, and keep it, unless it may yet prove to speak of the whole job."""
        result = outcome.result
        if isinstance(result, Answer):
            self._tally.answered(result)
        if self._withheld is not None and not self._may_keep(outcome):
            return
        self._keep(outcome)
        if self._max_cost is not None and (self._tally.cost or 0.0) >= self._max_cost:
            self._stop.because(Halted(f"stopped at --max-cost {self._max_cost:g}: {self._tally.cost:.2f} US dollars spent"))
        if isinstance(result, Answer):
            self._answered = True
            self._denials = self._bugs = 0
            self._finished += 1
            return
        with self._lock:
            self._finished += 1
            self._failed += 1
            if result.kind == "internal":
                self._bugs += 1
                if self._bugs >= BUGS:
                    self._stop.because(BatchError(f"{BUGS} rows in a row ended in a bug, the last one: {result.message}"))
        self._look_at_share()

    def denied(self, error: Denied, outcome: Outcome) -> None:
        """A response that speaks of this client: its row stays pending, and a few of them in a row end the run.

        Args:
            error: The response.
            outcome: What the row comes to if it proves to be the row's fault after all.
        """
        with self._lock:
            self._denied.append((error, outcome))
            self._denials += 1
            enough = error.at_once or self._denials >= DENIALS
        if enough:
            self._stop.because(RunRefused(str(error)))

    @property
    def is_clear(self) -> bool:
        """Whether every outcome so far was kept, and all that follow will be, but for what is denied."""
        return self._kept_all and not self._denied

    def close(self) -> None:
        """The input is at its end: what was withheld counts, and so does what was denied between answers."""
        with self._lock:
            withheld, self._withheld = self._withheld or [], None
            denied, self._denied = self._denied, []
        if denied and not self._stop.event.is_set():
            if self._answered:
                withheld += [outcome for _, outcome in denied]
            else:
                self._stop.because(RunRefused(str(denied[-1][0])))
        if isinstance(self._stop.error, RunRefused):
            return
        for outcome in withheld:
            self._keep(outcome)
            self._failed += 1

    def _may_keep(self, outcome: Outcome) -> bool:
        """False while every outcome so far is the same refusal: then it is withheld, and its row may stay pending."""
        result = outcome.result
        with self._lock:
            if self._withheld is None:
                return True
            first = self._withheld[0].result if self._withheld else result
            if (
                isinstance(result, Failure)
                and result.kind == "refused"
                and isinstance(first, Failure)
                and (first.status, first.message) == (result.status, result.message)
            ):
                self._withheld.append(outcome)
                count = len(self._withheld)
                if count < SAME_REFUSALS:
                    self._drop(outcome)
                    return False
                self._drop(outcome)
                refused = RunRefused(f"the first {count} rows were all refused alike: {result.message}")
            else:
                withheld, self._withheld = self._withheld, None
                refused = None
        if refused:
            self._stop.because(refused)
            return False
        for earlier in withheld:
            self._keep(earlier)
            self._finished += 1
            self._failed += 1
        self._kept_all = True
        self._look_at_share()
        return True

    def _look_at_share(self) -> None:
        if self._halt is None:
            return
        limit, percent = self._halt
        if percent:
            over = self._finished >= SHARE_FROM and self._failed * 100 >= limit * self._finished
        else:
            over = self._failed >= limit
        if over:
            said = f"{limit:g}{'%' if percent else ''}"
            self._stop.because(Halted(f"stopped by --halt fail={said}: {self._failed} of {self._finished} rows failed"))
