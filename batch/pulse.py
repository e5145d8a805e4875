"""A run's pulse: ten times a second, whether it is time to end, and how far it is."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Sized
from time import monotonic

import msgspec

from .alignment import Alignment
from .ended import spent
from .errors import BatchError, Halted
from .job import Job
from .journal import Journal
from .journal.index import load
from .judge import Stop
from .pace import Pace
from .signature import Stamps
from .tally import Snapshot, Tally

UNCOUNTED = 1.0
"""Seconds before the input's rows are counted, and numpy is loaded where they take it: the first requests shall not wait."""

EVERY = 0.1
"""Seconds between two looks."""


def late(job: Job) -> Halted:
    """What ends a run at its deadline."""
    return Halted(f"stopped at --deadline {job.deadline:g} s")


class Pulse:
    """Looks after a run, from a thread of its own.

    Args:
        job: Its deadline, and how many rows it wants.
        begun: When the run began, on the monotonic clock.
        stop: Called when it is time.
        home: Set once everything has come home: the pulse ends.
        tally, alignment, pace: How far it is, and what it waits for.
        journal: Gets a line a second about the pace; where it fails, the run ends.
        stamps: Tell when requests wait for a time stamp of their own.
        flying: The rows in flight.
        show: Told how far it is.
    """

    def __init__(
        self,
        job: Job,
        begun: float,
        stop: Stop,
        home: threading.Event,
        *,
        tally: Tally,
        alignment: Alignment,
        pace: Pace,
        journal: Journal,
        stamps: Stamps,
        flying: Sized,
        show: Callable[[Snapshot], None],
    ) -> None:
        self._job = job
        self._begun = begun
        self._stop = stop
        self._home = home
        self._tally = tally
        self._alignment = alignment
        self._pace = pace
        self._journal = journal
        self._stamps = stamps
        self._flying = flying
        self._show = show
        self._estimate: int | None = None
        self._waited = 0.0
        self._bounds: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()
        threading.Thread(target=self._prepare, name="prepare", daemon=True).start()

    def join(self) -> None:
        """Wait for the last look, which follows `home`."""
        self._thread.join()

    @property
    def bound(self) -> str:
        """What held the run back most of the time; "" when nothing was sent."""
        return self._bounds.most_common(1)[0][0] if self._bounds and self._tally.requests else ""

    def _prepare(self) -> None:
        """Do beside the requests what takes its time."""
        if self._home.wait(UNCOUNTED):
            return
        self._count()
        with self._stop.ending(self._journal.folder):
            if self._alignment.takes_numpy(self._estimate):
                load()

    def _count(self) -> None:
        with contextlib.suppress(BatchError):  # the reading pass comes to the same place and says so
            total = self._alignment.source.estimate()
            rows = min(total, self._job.limit) if total and self._job.limit else total
            self._estimate = rows * self._job.repeat if rows else rows

    def _beat(self) -> None:
        while not self._home.wait(EVERY):
            with self._stop.ending(self._journal.folder):
                self._look()
        with self._stop.ending(self._journal.folder):
            # What it was bound by and waited for is over; the summary says how it ended.
            self._show(msgspec.structs.replace(self._snapshot(), bound="", waiting="", stopping=False))

    def _look(self) -> None:
        if self._journal.failed is not None:
            self._stop.because(self._journal.failed)
        if self._job.deadline and monotonic() - self._begun > float(self._job.deadline):
            self._stop.because(late(self._job))
        if self._stop.event.is_set():
            self._pace.stop()
        self._show(self._snapshot())
        with contextlib.suppress(BatchError):  # the next look finds out
            self._journal.tick(msgspec.structs.asdict(self._pace.state()))  # which drops more than one a second

    def _snapshot(self) -> Snapshot:
        tally, pace, alignment = self._tally, self._pace.state(), self._alignment
        waited = self._stamps.waited
        bound: str = "signature" if waited > self._waited else pace.bound_by
        if bound == "input" and alignment.reading.whole:
            bound = "server"  # there is nothing more to read: its last answers are what is waited for
        self._waited = waited
        self._bounds[bound] += 1
        stopping = self._stop.event.is_set()
        return Snapshot(
            total=alignment.spool.count if alignment.reading.whole else self._estimate,
            exact=alignment.reading.whole,
            done=tally.done,
            ok=tally.ok,
            failed=tally.failed,
            **spent(tally),
            in_flight=pace.in_flight,
            width=pace.window,
            bound=bound,
            waiting=f"stopping, {len(self._flying)} in flight" if stopping else pace.why,
            stopping=stopping,
        )
