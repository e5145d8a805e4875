"""The reading pass: every selected row gets its id, and those that are to be asked come out as prompts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice, repeat

import msgspec

from .answers import Schema, fits, response_format
from .errors import InputError, JobError, RowError
from .exact import dumps
from .formats import Chunk, End, Source
from .job import Job
from .journal import Journal
from .prompts import Prompts, Request, condition
from .records import Prompt, Row, row_id
from .spool import NO_ID, Spool
from .tally import Tally
from .wires import WIRES, Wire

AGAIN = frozenset({"transient", "bad_body", "internal", "pending"})
"""Failures that the next run tries again without being told."""

FINAL = frozenset({"refused", "bad_answer", "too_large"})
"""Failures that are tried again only with `retry_failed`."""

Asked = tuple[Row, Request | RowError]
"""A row, and what is sent for it or why nothing can be."""


class Kept(msgspec.Struct, frozen=True):
    """Rows at the beginning of an input that an earlier run has brought to their end, and that need not be read again.

    Attributes:
        rows: How many rows of the output they are.
        ok: How many of these have an answer; the others have failed.
        count: How many rows of the input were selected for them.
        bad: How many of those cannot be asked.
        unreadable: How many of these are no rows at all.
    """

    rows: int = 0
    ok: int = 0
    count: int = 0
    bad: int = 0
    unreadable: int = 0


NOTHING = Kept()


def prompts_of(job: Job, asked: Mapping[str, str]) -> Prompts:
    """How a job's rows become requests.

    Args:
        job: Which columns, texts and parameters are sent.
        asked: What decides a row's key beside these and its own values: `template`, `schema`, `protocol`, `identity` and
            `model`.

    Raises:
        JobError: A template does not parse.
    """
    return Prompts(
        WIRES[asked["protocol"]],
        asked["identity"],
        model=asked["model"],
        template=asked["template"],
        column=job.prompt_column,
        system=job.system,
        parameters=response_format(asked["schema"], asked["protocol"], job.send_schema) | job.parameters,
        row_params=job.row_params,
        insist=bool(job.model),
    )


class Selection:
    """The selected rows of an input, each with its request or the reason why it cannot be asked.

    Args:
        job: Which rows are wanted, and how many may be bad.
        source: The input.
        prompts: A row to its request.

    Attributes:
        count: How many rows of the input were selected so far.
        bad: How many of them cannot be asked.
        unreadable: How many of these were no rows at all.
        whole: Whether the pass has seen the whole input.
        kept: The rows behind which passes begin.
    """

    def __init__(self, job: Job, source: Source, prompts: Prompts) -> None:
        self._job = job
        self._source = source
        self._prompts = prompts
        self._wanted = condition(job.where) if job.where else None
        self.count = self.bad = self.unreadable = 0
        self.whole = False
        self.kept = NOTHING

    def go_on(self, end: End, kept: Kept) -> bool:
        """Let passes begin where the input ended when these rows were its last, if it is the same up to there.

        Returns:
            Whether it is, and rows that are appended change nothing about which ones are selected before them.
        """
        if self._job.sample or self._job.limit or not self._source.go_on(end):
            return False
        self.kept = kept
        return True

    def start_over(self) -> None:
        """Let passes begin with the first row again."""
        self._source.from_the_beginning()
        self.kept = NOTHING

    def chunks(self, going_on: Callable[[], bool] = lambda: True) -> Iterator[list[Asked]]:
        """The rows, some at a time, each as often as it is to be asked.

        Args:
            going_on: Asked before every chunk; once it says no, the pass ends where it is and is not whole.

        Raises:
            InputError: The input is no table, or no row has the column that is asked for.
            JobError: More rows than `bad_rows` cannot be asked.
        """
        self.count, self.bad, self.unreadable = self.kept.count, self.kept.bad, self.kept.unreadable
        self.whole = False
        limit = self._job.limit
        sampled = self._sample(self._job.sample) if self._job.sample else None
        for chunk in self._source.chunks():
            if not going_on():
                return
            wanted = self._selected(chunk)
            if sampled is not None:
                wanted = (one for one in wanted if one[0].number in sampled)
            rows = self._asked(islice(wanted, limit - self.count) if limit else wanted)
            if not self.count and rows:
                self._refuse_a_missing_column(rows)
            self.count += len(rows)
            repeat = self._job.repeat
            yield rows if repeat == 1 else [row for row in rows for _ in range(repeat)]
            if limit and self.count >= limit:
                break
        self.whole = True

    def _selected(self, chunk: Chunk) -> Iterator[tuple[Row, RowError | None]]:
        """The wanted rows; with an error where it cannot be told, for no row may go missing because of a condition."""
        return self._met(chunk) if self._wanted else zip(chunk.rows(), repeat(None))

    def _met(self, chunk: Chunk) -> Iterator[tuple[Row, RowError | None]]:
        assert self._wanted
        for row in chunk.rows():
            error = None
            if not row.problem:
                try:
                    if not self._wanted(row.values):
                        continue
                except RowError as unclear:
                    error = unclear
            yield row, error

    def _asked(self, wanted: Iterable[tuple[Row, RowError | None]]) -> list[Asked]:
        asked: list[Asked] = []
        rows = list(wanted)
        if not any(error for _, error in rows):
            plain = [row for row, _ in rows]
            if requests := self._prompts.several(plain):
                return list(zip(plain, requests, strict=True))
        for row, error in rows:
            try:
                if error:
                    raise error
                asked.append((row, self._prompts(row)))
            except RowError as reason:
                self.bad += 1
                self.unreadable += bool(row.problem)
                asked.append((row, reason))
        if self._job.bad_rows is not None and self.bad > self._job.bad_rows:
            place, why = next((row.place, reason) for row, reason in reversed(asked) if isinstance(reason, RowError))
            raise JobError(f"{place}: {why}: more than --bad-rows {self._job.bad_rows} rows cannot be asked")
        return asked

    def _refuse_a_missing_column(self, rows: list[Asked]) -> None:
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


class Reading:
    """Reads the input once.

    Args:
        job: Which failures are tried again.
        selection: The rows.
        journal: Knows which rows have an answer.
        spool: Keeps the ids, for the export.
        wire: Reads the journal's answers.
        schema: What answers must fit.

    Attributes:
        doubtful: Whether answers that the journal has may not fit the schema.
        replaced: The ids, one after the other, of answers that fit no more: another one stands or is asked for in their place.
    """

    def __init__(
        self,
        job: Job,
        selection: Selection,
        journal: Journal,
        spool: Spool,
        wire: Wire,
        schema: Schema | None = None,
    ) -> None:
        self._selection = selection
        self._wire = wire
        self._schema = schema
        # What was answered while the schema was the same fits it.
        self.doubtful = schema is not None and any(run["run"].get("schema", "") != schema.text for run in journal.runs)
        self._journal = journal
        self._spool = spool
        self._due = AGAIN | FINAL if job.retry_failed else AGAIN
        self.replaced = bytearray()

    @property
    def whole(self) -> bool:
        """Whether the pass has seen the whole input."""
        return self._selection.whole

    @property
    def unreadable(self) -> int:
        """How many lines were no rows."""
        return self._selection.unreadable

    def pending(self, going_on: Callable[[], bool], tally: Tally) -> Iterator[Prompt]:
        """The prompts that are to be asked, in input order.

        Args:
            going_on: Asked before every chunk; once it says no, the pass ends where it is and is not whole.
            tally: Counts rows that need no asking.

        Raises:
            InputError: The input is no table, or no row has the column that is asked for.
            JobError: More rows than `bad_rows` cannot be asked.
        """
        if not self._journal.restart_pass(self._spool.names(self._selection.kept.rows)):
            self._selection.start_over()
            self._journal.restart_pass()
        kept = self._selection.kept
        self._spool.begin(kept.rows)
        tally.cached += kept.ok
        tally.failed += kept.rows - kept.ok
        self.replaced.clear()
        try:
            for rows in self._selection.chunks(going_on):
                yield from self._unanswered(rows, tally)
                tally.read = self._spool.count
        finally:
            self._spool.close()

    def _unanswered(self, rows: list[Asked], tally: Tally) -> Iterator[Prompt]:
        requests = [request for _, request in rows if isinstance(request, Request)]
        keys, occurrences, states = self._states([request.key for request in requests])
        names = _ids(keys, occurrences)
        places: Sequence[int] = range(self._spool.count, self._spool.count + len(rows))
        if len(requests) < len(rows):
            places, names = self._with_problems(rows, names)
        self._spool.extend([row.number for row, _ in rows], names)
        left = [at for at, state in enumerate(states) if state != "ok"]
        due = [at for at in left if states[at] in self._due]
        tally.cached += len(states) - len(left)
        tally.failed += len(rows) - len(states) + len(left) - len(due)
        for at in due:
            request = requests[at]
            yield Prompt(places[at], keys[at], occurrences[at], request.body, request.content, request.tokens)

    def _with_problems(self, rows: list[Asked], names: list[bytes]) -> tuple[list[int], list[bytes]]:
        """Where the rows that can be asked stand among the selected ones, and `names` with a place for each of the others."""
        places, every, following = [], [], iter(names)
        for index, (row, request) in enumerate(rows, self._spool.count):
            if isinstance(request, RowError):
                every.append(NO_ID)
                self._spool.problem(index, f"{row.place}: {request}")
            else:
                every.append(next(following))
                places.append(index)
        return places, every

    def _states(self, keys: list[bytes]) -> tuple[list[bytes], list[int], list[str]]:
        """What is known of rows: the keys under which that stands, the occurrences, and what each row came to."""
        journal = self._journal
        occurrences = journal.occurrences(keys)
        handles = journal.handles(_ids(keys, occurrences))
        states = [journal.state(handle) if handle & 15 else "ok" for handle in handles]
        looked = [at for at, state in enumerate(states) if state == "bad_answer" or (state == "ok" and self.doubtful)]
        anew = []
        for at, recorded in zip(looked, journal.read_many([handles[at] for at in looked]), strict=True):
            if fits(recorded.body, recorded.status, self._wire, self._schema):
                states[at] = "ok"
            elif states[at] == "ok":
                anew.append(at)
        if anew:
            # An answer stands for good under its row's key; the one that is asked for in its place needs another.
            assert self._schema
            for at in anew:
                self.replaced += row_id(keys[at], occurrences[at])
                keys[at] = self._schema.key(keys[at])
            found = journal.handles([row_id(keys[at], occurrences[at]) for at in anew])
            for at, handle in zip(anew, found, strict=True):
                states[at] = journal.state(handle)
        return keys, occurrences, states


def _ids(keys: list[bytes], occurrences: list[int]) -> list[bytes]:
    return [row_id(key, nth) for key, nth in zip(keys, occurrences, strict=True)] if any(occurrences) else keys
