"""The reading pass: every selected row gets its id, and those that are to be asked come out as prompts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from hashlib import blake2b

from .errors import InputError, JobError, RowError
from .exact import dumps
from .formats import Chunk, Source
from .job import Job
from .journal import Journal
from .prompts import Condition, Prompts, Request
from .records import Prompt, Row, row_id
from .spool import Spool
from .tally import Tally

AGAIN = frozenset({"transient", "bad_body", "internal", "pending"})
"""Failures that the next run tries again without being told."""

FINAL = frozenset({"refused", "bad_answer", "too_large"})
"""Failures that are tried again only with `retry_failed`."""


class Reading:
    """Reads the input once.

    Args:
        job: Which rows are wanted, and which failures are tried again.
        source: The input.
        prompts: A row to its request.
        journal: Knows which rows have an answer.
        spool: Keeps the ids, for the export.
        tally: Counts rows that need no asking.

    Attributes:
        whole: Whether the pass has seen the whole input.
        unreadable: How many lines were no rows.
    """

    def __init__(self, job: Job, source: Source, prompts: Prompts, journal: Journal, spool: Spool, tally: Tally) -> None:
        self._job = job
        self._source = source
        self._prompts = prompts
        self._journal = journal
        self._spool = spool
        self._tally = tally
        self._wanted = Condition(job.where) if job.where else None
        self._sampled: frozenset[int] | None = None
        self._due = AGAIN | FINAL if job.retry_failed else AGAIN
        self._sampling = False
        self._bad = 0
        self.unreadable = 0
        self.whole = False

    def pending(self, going_on: Callable[[], bool]) -> Iterator[Prompt]:
        """The prompts that are to be asked, in input order.

        Args:
            going_on: Asked before every chunk; once it says no, the pass ends where it is and is not whole.

        Raises:
            InputError: The input is no table, or no row has the column that is asked for.
            JobError: More rows than `bad_rows` cannot be asked.
        """
        if self._job.sample:
            self._sampling = True
            self._sampled = self._sample(self._job.sample)
            self._sampling = False
        self._spool.begin()
        self._journal.restart_pass()
        for chunk in self._source.chunks():
            if not going_on():
                self._spool.close()
                return
            first = self._spool.count
            rows = self._asked(self._selected(chunk))
            if not first and rows:
                self._refuse_a_missing_column(rows)
            yield from self._unanswered(rows)
            self._tally.read = self._spool.count
            if self._job.limit and self._spool.count >= self._job.limit:
                break
        self._spool.close()
        self.whole = True

    def _selected(self, chunk: Chunk) -> Iterator[tuple[Row, RowError | None]]:
        """The wanted rows; with an error where it cannot be told, for no row may go missing because of a condition."""
        room = self._job.limit - self._spool.count if self._job.limit and not self._sampling else -1
        for row in chunk.rows():
            if room == 0:
                return
            if self._sampled is not None and row.number not in self._sampled:
                continue
            error = None
            if self._wanted is not None and not row.problem:
                try:
                    if not self._wanted(row.values):
                        continue
                except RowError as unclear:
                    error = unclear
            yield row, error
            room -= 1

    def _asked(self, rows: Iterator[tuple[Row, RowError | None]]) -> list[tuple[Row, Request | RowError]]:
        asked: list[tuple[Row, Request | RowError]] = []
        for row, error in rows:
            try:
                if error:
                    raise error
                asked.append((row, self._prompts(row)))
            except RowError as reason:
                self._bad += 1
                self.unreadable += bool(row.problem)
                asked.append((row, reason))
        if self._job.bad_rows is not None and self._bad > self._job.bad_rows:
            place, why = next((row.place, reason) for row, reason in reversed(asked) if isinstance(reason, RowError))
            raise JobError(f"{place}: {why}: more than --bad-rows {self._job.bad_rows} rows cannot be asked")
        return asked

    def _unanswered(self, rows: list[tuple[Row, Request | RowError]]) -> Iterator[Prompt]:
        requests = [request for _, request in rows if isinstance(request, Request)]
        occurrences = self._journal.occurrences([request.key for request in requests])
        names = [row_id(request.key, nth) for request, nth in zip(requests, occurrences, strict=True)]
        states = iter(zip(occurrences, names, self._journal.find(names).tolist(), strict=True))
        due: list[Prompt] = []
        for row, request in rows:
            index = self._spool.count
            if isinstance(request, RowError):
                self._spool.problem(row.number, f"{row.place}: {request}")
                self._tally.row(failed=True)
                continue
            occurrence, name, handle = next(states)
            self._spool.append(row.number, name)
            state = self._journal.state(handle) if handle >= 0 else "pending"
            if state in self._due:
                due.append(Prompt(index, request.key, occurrence, request.body, request.content, request.tokens))
            else:
                self._tally.row(cached=state == "ok", failed=state != "ok")
        yield from due

    def _refuse_a_missing_column(self, rows: list[tuple[Row, Request | RowError]]) -> None:
        """A column that no row of the first chunk has is a mistake in the job, not in its rows."""
        errors = {str(request) if isinstance(request, RowError) else "" for _, request in rows}
        if len(errors) == 1 and (words := errors.pop()).startswith("no column "):
            raise InputError(f"{self._source.name}: {words}")

    def _sample(self, size: int) -> frozenset[int]:
        """The numbers of the rows with the smallest seeded content hashes: the same rows after edits elsewhere."""
        seed = blake2b(str(self._job.sample_seed).encode(), digest_size=16)

        def ranked() -> Iterator[tuple[bytes, int]]:
            for chunk in self._source.chunks():
                for row, _ in self._selected(chunk):
                    content = seed.copy()
                    content.update(row.problem.encode() or dumps(dict(row.values)))
                    yield content.digest(), row.number

        return frozenset(number for _, number in heapq.nsmallest(size, ranked()))
