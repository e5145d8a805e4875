"""The whole trip: read, ask what is missing, journal, export."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from . import formats
from .alignment import Alignment
from .asking import Asking
from .connection import MOST, connect
from .ended import ended, exit_code
from .engines import Engine
from .engines.threads import Threads
from .errors import BatchError, Busy, Denied, Interrupted, JobError, TryLater
from .export import Written
from .flying import Flying
from .formats.frame import Frame
from .job import Job, dated
from .journal import Journal
from .judge import Judge, Stop
from .pace import Pace, Stopped
from .pulse import Pulse, late
from .records import Attempt, Failure, Outcome, Prompt
from .tally import Snapshot, Summary, Tally
from .telling import Telling

if TYPE_CHECKING:
    from .quota import Quota

DRAIN = 30.0
"""Seconds that requests in flight get to come home once the run is stopping."""

AFTER_SIGNAL = 10.0
"""Seconds that reading on and writing the output may take after a signal; what takes longer is left to `export`."""

AHEAD = 0.04
"""Seconds that reading on lets the first requests go ahead, whose threads would else wait for the interpreter's lock each time
that one wakes another, or comes back from the network."""

REST = 0.5
"""Seconds that writing the output beside the last requests rests, for each one that it has worked."""

BESIDE = 0.02
"""Seconds that writing the output beside the last requests rests at most, and between two looks at what it waits for."""

LOG = logging.getLogger("batch")

Watch = Callable[[Snapshot], None]


def run(job: Job, *, watch: Watch | None = None, stop: Stop | None = None, frame: Frame | None = None) -> Summary:
    """Ask what is missing and write the output.

    Args:
        job: What is to be done.
        watch: Called some times a second, from a thread of the run, with how far it is.
        stop: Ends the run from outside, for example from a signal handler.
        frame: Where rows come from and go to, where that is no file; see `frames`.

    Returns:
        How it ended; a run that ended early has the reason in `error` and its code in `exit_code`.

    Raises:
        BatchError: It could not begin: settings, input, output, journal or lock. All files are as they were.
    """
    stop = stop or Stop()
    with Telling(job) as telling:
        with ExitStack() as stack:
            trip = _opened(job, stop, watch or (lambda snapshot: None), telling, stack, frame)
            if not trip.is_done_already():
                trip.ask_what_is_missing()
                trip.write_the_output()
            summary = trip.summary()
        if job.journal_path is None and (trip.is_whole or not len(trip.journal)):
            shutil.rmtree(Path(summary.journal).parent, ignore_errors=True)
        return telling.ended(summary)


def _opened(job: Job, stop: Stop, watch: Watch, telling: Telling, stack: ExitStack, frame: Frame | None) -> Trip:
    """Open everything; a signal or the deadline that ends a wait meanwhile is the reason, not the wait."""
    deadline = threading.Timer(float(job.deadline or 0), lambda: stop.because(late(job)))
    deadline.daemon = True
    if job.deadline:
        deadline.start()
    try:
        return Trip(job, stop, watch, telling, stack, frame)
    except (Busy, formats.Stopped) as error:
        raise stop.error or error from None
    finally:
        deadline.cancel()


class Trip:
    """One run under way."""

    def __init__(
        self, job: Job, stop: Stop, watch: Watch, telling: Telling, stack: ExitStack, frame: Frame | None = None
    ) -> None:
        self.begun = monotonic()
        now = datetime.now().astimezone()
        self.job = job = msgspec.structs.replace(job, output=dated(job.output, now), errors=dated(job.errors, now))
        self.stop = stop
        self.watch = watch
        self.telling = telling
        job.refuse_shared_files()
        if job.output or not frame:
            formats.preflight_output(job.output, job.inputs, format=job.output_format or None)
        if job.errors:
            formats.preflight_output(job.errors, [*job.inputs, job.output], format=formats.format_of(job.errors) or "jsonl")
        self.stack = stack
        self.connection = connection = connect(job, stack)
        if connection.note:
            LOG.warning(connection.note)
        self.journal = stack.enter_context(
            Journal.open(_journal(job, stack), fresh=job.fresh, at_begin=True, wait=job.wait, stopping=stop.event)
        )
        self.asked = {
            "template": job.template_text(),
            "schema": job.schema_text(),
            "protocol": connection.wire.name,
            "identity": connection.identity,
            "model": connection.model,
        }
        self.ending = stop.ending(self.journal.folder)
        self.tally = Tally(job.price)
        self.alignment = Alignment(job, self.asked, self.journal, self.tally, stack, frame, stop.event)
        self.pace = Pace(
            rpm=job.rpm,
            tpm=job.tpm,
            burst=job.burst,
            concurrency=None if job.concurrency == "auto" else job.concurrency,
            max_outage=float(job.max_outage),
            rate=_shared(job, stack),
        )
        self.asking = Asking(
            connection.client.call,
            self.pace,
            attempts=job.attempts,
            sending=self._mark,
            attempted=self.tally.attempt,
            journal_id=self.journal.id,
            stopping=stop.event,
            schema=self.alignment.schema,
            repair=job.repair,
            unfit=self.tally.answered,
        )
        self.judge = Judge(job, self.tally, stop, keep=self.journal.append, drop=self._drop)
        self.journal.on_durable = self._durable
        self.flying = Flying()
        self.lost: type[BatchError] | tuple[()] = ()  # what leaves a row's mark where it is; only processes have it
        self.written: Written | None = None
        self.under_way = threading.Event()
        self.home = threading.Event()
        self.rested = 0.0
        self.went_ahead = False
        self.pulse = Pulse(
            job,
            self.begun,
            stop,
            self.home,
            tally=self.tally,
            alignment=self.alignment,
            pace=self.pace,
            journal=self.journal,
            stamps=connection.client.stamps,
            flying=self.flying,
            show=self._show,
        )

    def is_done_already(self) -> bool:
        """Whether an earlier run did exactly this, to the last row, and its output is still there."""
        self.written = self.alignment.done_already()
        return self.written is not None

    def ask_what_is_missing(self) -> None:
        """Read the input, ask every row that has no answer yet, and wait until all of it is durable.

        Raises:
            BatchError: The run did not begin: job or input must be changed, a pipe was waited for in vain, the disk refused.
        """
        self.pulse.start()
        try:
            self._ask_prompts()
        finally:
            self.home.set()
            self.pulse.join()

    def _ask_prompts(self) -> None:
        engine = self._engine()
        prompts = self.alignment.pending(self._reads_on)
        first: list[Prompt] = []
        with self.ending:
            if self.job.check_first:
                self.alignment.look_through(self._has_time)
            first += islice(prompts, 1)
        error = self.stop.error
        in_vain = not first and not self.tally.read and self.alignment.source.size is None
        # Until now all files are as they were: a misspelt column does not cost an earlier journal its place.
        if error and (in_vain or isinstance(error, JobError)):
            raise error
        self.journal.begin({"job": self.job.shown(), **self.asked})
        with self.ending:
            self.alignment.source.keep()
            for prompt in chain(first, prompts):
                engine.put(prompt)
        engine.finish()
        interrupted = isinstance(self.stop.error, Interrupted) and self._has_time()
        if interrupted and not self.alignment.reading.whole and self.alignment.source.size is not None:
            # An exception in its middle ended the pass; rows that are not asked any more have a place, too.
            with self.ending:
                for _ in self.alignment.pending(self._has_time, Tally()):
                    pass
        self._write_beside(engine)
        for _ in range(2):  # the second time for what an interrupt of the first one has left out there
            with self.ending:
                self._drain(engine)
        self._keep_all()

    def _keep_all(self) -> None:
        """Nothing is out any more: what was withheld counts, and what was kept becomes durable."""
        with self.ending:
            self.judge.close()
            if self.journal.failed is not None:  # perhaps after the pulse's last look
                raise self.journal.failed
            self.journal.flush()

    def _write_beside(self, engine: Engine) -> None:
        """Write the output while the last answers are on their way, each row once it has come to its end.

        Where anything is in the way, nothing has happened: it is written once all are home, and that says what is wrong.
        """
        if not self.alignment.reading.whole or not self.alignment.is_unseen:
            return
        with self.ending, contextlib.suppress(Exception):
            while not self.judge.is_clear:
                if engine.wait(BESIDE) or self.stop.event.is_set():
                    return
            self.journal.flush()  # what was withheld until then
            self.written = self.alignment.write(partial(self._settled, engine))

    def _settled(self, engine: Engine, position: int) -> int | None:
        """How many rows have come to their end, once those up to this one have; None once that is in vain.

        Before it looks, it rests for a share of the time that its caller has worked, for the loop needs the interpreter's lock.
        """
        rest = (monotonic() - self.rested) * REST
        while not self.home.is_set():
            if engine.wait(min(rest, BESIDE)):
                self._keep_all()
                self.home.set()
                break
            settled = self.flying.settled
            # Looked at after that: what has landed without an outcome has said why before.
            if self.stop.event.is_set():
                return None
            if settled > position and self.judge.is_clear:
                self.rested = monotonic()
                return settled
            rest = BESIDE
        return self._all_rows()

    def _all_rows(self) -> int | None:
        """How many rows there are; None where they cannot be written, or not in time."""
        return self.alignment.spool.count if self.journal.failed is None and self._has_time() else None

    def write_the_output(self) -> None:
        """Export, unless the input could not be read to its end."""
        if self.written or not self.alignment.reading.whole or self.journal.failed is not None or self.stop.hard.is_set():
            return
        try:
            self.written = self.alignment.write(lambda _: self._all_rows())
        except TryLater as error:
            self.stop.because(error)
        except BrokenPipeError:
            # What else ended the run, such as Ctrl-C, which reaches all of a pipeline, comes first.
            self.stop.because(Interrupted(signal.SIGPIPE, "nobody reads standard output any more"))
        except BatchError as error:
            self.stop.error = error

    @property
    def is_whole(self) -> bool:
        """Whether the output was written and every row has come to its end."""
        return self.written is not None and not self.written.pending

    def summary(self) -> Summary:
        """How it ended."""
        tally, written, error = self.tally, self.written, self.stop.error
        if self.is_whole and isinstance(error, Interrupted):
            error = None  # the signal came when nothing was left to stop
        if written is None:
            left = tally.read - tally.cached - tally.ok - tally.failed
            written = Written(tally.read, tally.cached + tally.ok, tally.failed, max(0, left))
        code = error.exit_status if error else exit_code(self.job, written)
        summary = ended(self.job, written, tally, self.journal, begun=self.begun, code=code, error=error)
        return msgspec.structs.replace(summary, bound_by=self.pulse.bound)

    def _show(self, now: Snapshot) -> None:
        self.telling.watch(now)
        self.watch(now)

    def _engine(self) -> Engine:
        job = self.job
        if job.engine == "threads":
            threads = Threads(
                self.asking,
                self.connection.client.start,
                self._admitted,
                self._see_home,
                self.stop.event,
                width=lambda: self.pace.width,
            )
            self.stack.callback(threads.close)
            return threads
        from .engines.processes import Lost, Processes

        self.lost = Lost
        processes = job.processes if isinstance(job.processes, int) else os.cpu_count() or 1
        most = job.concurrency if isinstance(job.concurrency, int) else MOST
        engine = Processes(
            self.asking,
            self._take_off,
            self._come_home,
            self.stop.event,
            arguments=self.connection.arguments,
            credentials=self.connection.credentials,
            processes=processes,
            threads=most,
        )
        self.stack.callback(engine.close)
        return engine

    def _admitted(self, prompt: Prompt, again: Callable[[], object]) -> bool | None:
        admitted: bool | None = False
        with self.ending:
            admitted = self._take_off(prompt, again)
        return admitted  # noqa: RET504 (what goes wrong ends there)

    def _see_home(self, prompt: Prompt, work: Callable[[], Outcome | None]) -> bool:
        """Do what may bring a prompt to its end; False where it has not."""
        # Above all MemoryError: a thread that just died would keep its permit, and the run would wait for it.
        with self.ending:
            try:
                end: Outcome | BatchError | None = work()
            except BatchError as error:
                end = error
            if end is None:
                return False
            self._come_home(prompt, end)
        return True

    def _take_off(self, prompt: Prompt, again: Callable[[], object] | None = None) -> bool | None:
        """Take the permit that a row holds from now until its outcome is durable, or dropped; see `Pace.ask`."""
        admitted = self.pace.ask(again) if again else self.pace.acquire()
        if admitted:
            self.flying.take_off(prompt)
        return admitted

    def _come_home(self, prompt: Prompt, end: Outcome | BatchError) -> None:
        """A row's end: judged and journaled, or the run's end, which leaves the row pending."""
        if not self.under_way.is_set():
            self.under_way.set()
        try:
            if isinstance(end, Outcome):
                self.judge.outcome(end)
                return
            if isinstance(end, Denied):
                refused = Failure("refused", str(end), end.status)
                attempts = (Attempt(end.status, end.seconds, "refused"),)
                self.judge.denied(end, Outcome(prompt.index, prompt.key, prompt.occurrence, refused, attempts))
            elif not isinstance(end, Stopped):
                self.stop.because(end)
            if isinstance(end, self.lost):
                return  # it keeps its mark, as after a kill
        except BatchError as error:
            # The journal cannot take it, but it was sent: it keeps its mark, and its permit, so that no other row is sent.
            self.stop.because(error)
            return
        except Exception as error:
            if not self.home.is_set():  # afterwards the journal is closed, and nobody waits for this row any more
                self.stop.because(BatchError(f"a bug, please report it: {type(error).__name__}: {error}"))
        self._landed(prompt.index)

    def _mark(self, prompt: Prompt) -> None:
        self.journal.mark(prompt.id, prompt.index)

    def _durable(self, outcomes: list[Outcome]) -> None:
        self.tally.durable(outcomes)
        self.telling.durable(outcomes)
        if landed := sum(self.flying.land(outcome.index) is not None for outcome in outcomes):
            self.pace.release(landed)

    def _drop(self, outcome: Outcome) -> None:
        self._landed(outcome.index)

    def _landed(self, index: int) -> None:
        """A row is in flight no longer; one that had landed before is no news."""
        name = self.flying.land(index)
        if name is None or self.home.is_set():  # the journal is closed by then, and what is out there keeps its mark
            return
        with contextlib.suppress(ValueError):  # closed between the look and the call
            self.journal.unmark(name)
        self.pace.release()

    def _reads_on(self) -> bool:
        """Whether there is time to read more, once what was read first is out."""
        if self.flying and not self.went_ahead:
            self.went_ahead = True
            self.under_way.wait(AHEAD)
        return self._has_time()

    def _has_time(self) -> bool:
        """Whether reading may go on: not for long after a signal, and once the run is stopping not on a pipe without an end."""
        if self.stop.error is None:
            return True
        if self.stop.hard.is_set():
            return False
        endless = self.alignment.source.size is None
        return monotonic() - self.stop.at < AFTER_SIGNAL or not (endless or isinstance(self.stop.error, Interrupted))

    def _drain(self, engine: Engine) -> None:
        while not engine.wait(0.1):
            if self.stop.hard.is_set() or (self.stop.event.is_set() and monotonic() - self.stop.at > DRAIN):
                return


def _shared(job: Job, stack: ExitStack) -> Quota | None:
    """The rate that this job has in common with others, where it names one."""
    if not job.quota:
        return None
    from .quota import Quota, place

    quota = Quota(place(job.quota), job.rpm, job.tpm, job.burst)
    stack.callback(quota.close)
    return quota


def _journal(job: Job, stack: ExitStack) -> Path:
    """The journal's path; with none named and the output on stdout a temporary one, which stays when that is not whole."""
    if job.journal_path:
        return job.journal_path
    folder = Path(tempfile.mkdtemp(prefix="ails-batch-"))
    stack.callback(_remove_empty, folder)
    return folder / "stdout.journal"


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
