"""The output as a view of input and journal, in input order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .answers import Schema, Unfit, judged
from .errors import BatchError, CallError, JobError, TryLater
from .formats import Sink, Source
from .journal import Journal, Recorded
from .records import Answer, Attempt
from .spool import NO_ID, Spool
from .wires import Wire

COLUMNS: dict[str, type] = {
    "response": str,
    "error": str,
    "error_kind": str,
    "http_status": int,
    "answer_model": str,
    "finish_reason": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "attempts": int,
    "latency_s": float,
}
"""The generated columns, in the contract's order."""

RAW = "raw"
"""The column of `--keep-raw`: the server's whole answer."""

RAW_INPUT = "raw_input"
"""The column for the text of lines that could not be read; there only when there are such lines."""

FEW = 250
"""Rows whose answers are read and shown at a time: with more of them, most would have left the processor's cache in between."""

NOT_ASKED = "not asked yet: the run ended before it; the same command goes on"


class Written(msgspec.Struct):
    """What an output holds.

    Attributes:
        first: What the first failed row says.
        kinds: How many rows failed, by `error_kind`.
    """

    rows: int = 0
    ok: int = 0
    failed: int = 0
    pending: int = 0
    truncated: int = 0
    first: str = ""
    kinds: dict[str, int] = msgspec.field(default_factory=dict)

    def count(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Count rows; returns which of them have no answer."""
        kinds = [one["error_kind"] for one in rows]
        without = [at for at, kind in enumerate(kinds) if kind]
        self.rows += len(rows)
        self.ok += len(rows) - len(without)
        self.truncated += [one["finish_reason"] for one in rows].count("length")  # which only an answer has
        for at in without:
            if (kind := kinds[at]) == "pending":
                self.pending += 1
            else:
                self.first = self.first or rows[at]["error"]
                self.failed += 1
                self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return without


class View(msgspec.Struct, frozen=True):
    """How answers are shown.

    Attributes:
        wire: Reads them.
        prefix: Put before the names of generated columns.
        keep_raw: Whether to add the server's whole answer.
        schema: What they must fit.
        explode: Whether the schema's properties become columns.
    """

    wire: Wire
    prefix: str = ""
    keep_raw: bool = False
    schema: Schema | None = None
    explode: bool = False

    @property
    def columns(self) -> dict[str, type]:
        """The generated columns without prefix, but for `raw_input`.

        Raises:
            JobError: A property of the schema has the name of another one of them, or there are none.
        """
        columns = dict(COLUMNS)
        if self.explode and self.schema:
            properties = self.schema.columns
            if taken := [name for name in properties if name in (*COLUMNS, RAW, RAW_INPUT)]:
                raise JobError(f"--explode: the schema's property {taken[0]!r} has the name of another column; rename it")
            columns |= properties
        return columns | {RAW: str} if self.keep_raw else columns


def generated(recorded: Recorded | None, view: View) -> dict[str, Any]:
    """The generated columns of one row.

    Args:
        recorded: What the journal holds for it; None when it was not asked.
        view: How it is shown.
    """
    if recorded is None:
        return failed("pending", NOT_ASKED)
    body, failure = recorded.body, recorded.failure
    if failure and not body:
        return failed(failure.kind, failure.message, recorded)
    raw = {RAW: body.decode("utf-8")} if view.keep_raw else {}
    try:
        answer, value = judged(body, recorded.status, view.wire, view.schema)
        properties = view.schema.explode(value) if view.explode and view.schema else {}
    except CallError as error:
        return failed("bad_body", str(error), recorded) | raw
    except Unfit as unfit:
        words = str(unfit)
        if failure and failure.message.startswith(words):
            words = failure.message  # it may also say what became of asking again
        return failed("bad_answer", words, recorded) | raw
    told = _answered(recorded, answer)
    return told | properties | raw if properties or raw else told


def several(recorded: Sequence[Recorded], view: View) -> list[dict[str, Any]]:
    """`generated` of each of several rows; faster where all have a plain answer."""
    answers = None
    if not (view.keep_raw or view.schema or any(one.failure for one in recorded)):
        answers = view.wire.answers([one.body for one in recorded], [one.status or 200 for one in recorded])
    return [generated(one, view) for one in recorded] if answers is None else list(map(_answered, recorded, answers))


def _answered(recorded: Recorded, answer: Answer) -> dict[str, Any]:
    """The generated columns of a row that has an answer."""
    attempts = recorded.attempts
    return {
        "response": answer.text,
        "error": "",
        "error_kind": "",
        "http_status": recorded.status,
        "answer_model": answer.model,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "attempts": len(attempts),
        "latency_s": round(attempts[-1].seconds, 3) if attempts else None,
    }


def failed(kind: str, words: str, recorded: Recorded | None = None) -> dict[str, Any]:
    """The generated columns of a row without an answer.

    Args:
        kind: The column `error_kind`.
        words: The column `error`.
        recorded: What the journal holds for it, where it was asked.
    """
    members: dict[str, Any] = dict.fromkeys(COLUMNS)
    members |= {"response": "", "error": words, "error_kind": kind, "finish_reason": ""}
    if recorded:
        attempts = recorded.attempts
        members |= {"http_status": recorded.status, "attempts": len(attempts), "latency_s": _latency(attempts)}
    return members


def _latency(attempts: Sequence[Attempt]) -> float | None:
    return round(attempts[-1].seconds, 3) if attempts else None


def export(
    source: Source,
    spool: Spool,
    journal: Journal,
    sink: Sink,
    view: View,
    errors: Sink | None = None,
    settled: Callable[[int], int | None] | None = None,
    written: Written | None = None,
) -> Written:
    """Write the output: one row for every selected row of the input, in its order.

    Args:
        source: The input, read a second time.
        spool: The ids of its selected rows.
        journal: What is known of each.
        sink: Where rows go; committed here, once every row is in it.
        view: How answers are shown.
        errors: Where failed rows go once more, as they stand in the input; committed here, too.
        settled: Asked before every few rows with the position of the first of them among the selected rows, and in the end
            with the count of all: waits until all rows up to there have come to their end, and says how many have, from the
            first on; None when there is no time, and the old output stays. By default all have.
        written: What the sinks hold already, for the rows behind which the source's passes begin.

    Raises:
        TryLater: There was no time for it.
        InputChanged: The input's bytes are no longer those of the reading pass; the old output stays.
        StorageError: The output cannot be written; the old one stays.
        BatchError: Not one row out for every row in (a bug).
    """
    # A copy: where this is let go of, what stands in the files is as it was.
    written = msgspec.structs.replace(written, kinds=dict(written.kinds)) if written else Written()
    prefix = view.prefix
    nothing = dict.fromkeys(view.schema.columns) if view.explode and view.schema else {}
    problems = spool.problems(written.rows)
    trouble = next(problems, None)
    records = _Records(spool, journal, settled or (lambda position: spool.count), written.rows)
    try:
        # While some are still waited for, others want the interpreter's lock every few milliseconds.
        few = None if records.settled() == spool.count else FEW
        for chunk in source.chunks(few):
            records.settled()
            wanted, handles = records.below(chunk.first + len(chunk))
            found = [handle for handle in handles if handle >= 0]
            members: list[dict[str, Any]] = []
            for at in range(0, len(found), FEW):
                members += several(journal.read_many(found[at : at + FEW]), view)
            positions = [number - chunk.first for number, _ in wanted]
            if len(members) < len(positions):
                known = iter(members)
                members = []
                for position, (_, name), handle in zip(positions, wanted, handles, strict=True):
                    if name != NO_ID:
                        members.append(next(known) if handle >= 0 else failed("pending", NOT_ASKED))
                        continue
                    row = written.rows + len(members)
                    if trouble is None or trouble[0] != row:
                        raise BatchError(f"row {row + 1} has lost its reason: please run again with --fresh")
                    one = failed("input", trouble[1])
                    if (text := chunk.raw_input.get(position)) is not None:
                        one[RAW_INPUT] = text
                    trouble = next(problems, None)
                    members.append(one)
            without = written.count(members)
            for at in without:
                members[at] |= nothing
            failures = dict.fromkeys(positions[at] for at in without if members[at]["error_kind"] != "pending")
            if prefix:
                members = [{prefix + name: value for name, value in one.items()} for one in members]
            sink.write(chunk, positions, members)
            if errors and failures:
                errors.write(chunk, list(failures), [{}] * len(failures))
        records.settled(spool.count)
        if written.rows != spool.count:
            raise BatchError(f"{written.rows} rows for {spool.count} selected ones: the output is not replaced")
        if errors:
            errors.commit()
        sink.commit()
    except BaseException:
        sink.abort()
        if errors:
            errors.abort()
        raise
    return written


class _Records:
    """The spool's records and what the journal knows of them, taken off in input order.

    Args:
        spool: Has the records.
        journal: Is asked for as many as have come to their end: looking names up in sorted columns goes the faster the more
            they are.
        settled: See `export`.
        at: The position of the first record that is wanted.
    """

    def __init__(self, spool: Spool, journal: Journal, settled: Callable[[int], int | None], at: int) -> None:
        self._spool = spool
        self._journal = journal
        self._settled = settled
        self._at = at
        self._block: list[tuple[int, bytes]] = []
        self._handles: list[int] = []
        self._used = 0

    def settled(self, position: int | None = None) -> int:
        """How many rows have come to their end, once those up to a position have, by default that of the next record.

        Raises:
            TryLater: There was no time to wait for them.
        """
        count = self._settled(self._at if position is None else position)
        if count is None:
            raise TryLater("the output is not written yet: that would have taken too long; ails-batch export writes it")
        return count

    def below(self, number: int) -> tuple[list[tuple[int, bytes]], list[int]]:
        """Take off the records of all rows before `number`, with their handles.

        Raises:
            TryLater: There was no time to wait for them.
        """
        taken: list[tuple[int, bytes]] = []
        handles: list[int] = []
        while True:
            cut = bisect_left(self._block, (number,), self._used)  # before every record of that number
            taken += self._block[self._used : cut]
            handles += self._handles[self._used : cut]
            self._at += cut - self._used
            self._used = cut
            if cut < len(self._block) or self._at == self._spool.count:
                return taken, handles
            self._block = self._spool.records(self._at, self.settled())
            self._handles = self._journal.handles([name for _, name in self._block])
            self._used = 0
