"""The output as a view of input and journal, in input order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import BatchError, CallError
from .formats import Sink, Source
from .journal import Journal, Recorded
from .records import Answer
from .spool import NO_ID, RECORD, Spool, ids
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

NOT_ASKED = "not asked yet: the run was interrupted; the same command goes on"


@dataclass(slots=True)
class Written:
    """What an output holds.

    Attributes:
        kinds: How many rows failed, by `error_kind`.
    """

    rows: int = 0
    ok: int = 0
    failed: int = 0
    pending: int = 0
    truncated: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def count(self, members: dict[str, Any]) -> None:
        """Count one row."""
        self.rows += 1
        kind = members["error_kind"]
        if not kind:
            self.ok += 1
            self.truncated += members["finish_reason"] == "length"
        elif kind == "pending":
            self.pending += 1
        else:
            self.failed += 1
            self.kinds[kind] = self.kinds.get(kind, 0) + 1


def generated(recorded: Recorded | None, wire: Wire, *, keep_raw: bool = False) -> dict[str, Any]:
    """The generated columns of one row.

    Args:
        recorded: What the journal holds for it; None when it was not asked.
        wire: Reads the server's answer.
        keep_raw: Whether to add the server's whole answer.
    """
    if recorded is None:
        return failed("pending", NOT_ASKED)
    last = recorded.attempts[-1].seconds if recorded.attempts else None
    failure = recorded.failure
    members = failed(failure.kind, failure.message) if failure else failed("", "")
    members |= {
        "http_status": recorded.status,
        "attempts": len(recorded.attempts),
        "latency_s": last if last is None else round(last, 3),
    }
    if failure:
        return members
    try:
        answer: Answer = wire.answer(recorded.body, recorded.status or 200, strictly=False)
    except CallError as error:
        return members | {"error": str(error), "error_kind": "bad_body"}
    members |= {
        "response": answer.text,
        "answer_model": answer.model,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }
    if keep_raw:
        members[RAW] = recorded.body.decode("utf-8")
    return members


def failed(kind: str, words: str) -> dict[str, Any]:
    """The generated columns of a row without an answer."""
    return dict.fromkeys(COLUMNS) | {"response": "", "error": words, "error_kind": kind, "finish_reason": ""}


def export(
    source: Source, spool: Spool, journal: Journal, sink: Sink, wire: Wire, *, prefix: str = "", keep_raw: bool = False
) -> Written:
    """Write the output: one row for every selected row of the input, in its order.

    Args:
        source: The input, read a second time.
        spool: The ids of its selected rows.
        journal: What is known of each.
        sink: Where rows go; committed here, once every row is in it.
        wire: Reads the servers' answers.
        prefix: Put before the names of generated columns.
        keep_raw: Whether to add the servers' whole answers.

    Raises:
        InputChanged: The input's bytes are no longer those of the reading pass; the old output stays.
        StorageError: The output cannot be written; the old one stays.
        BatchError: Not one row out for every row in (a bug).
    """
    written = Written()
    problems = spool.problems()
    trouble = next(problems, None)
    records = _Records(spool)
    try:
        for chunk in source.chunks():
            wanted = records.below(chunk.first + len(chunk))
            names = ids(wanted)
            handles = journal.find(names)
            known = iter(journal.read_many(handles[handles >= 0]))
            positions, members = [], []
            for number, name, handle in zip(wanted["number"].tolist(), names, handles.tolist(), strict=True):
                if name == NO_ID:
                    if trouble is None or trouble[0] != written.rows:
                        raise BatchError(f"row {written.rows + 1} has lost its reason: please run again with --fresh")
                    one = failed("input", trouble[1])
                    if (text := chunk.raw_input.get(number - chunk.first)) is not None:
                        one[RAW_INPUT] = text
                    trouble = next(problems, None)
                else:
                    one = generated(next(known) if handle >= 0 else None, wire, keep_raw=keep_raw)
                written.count(one)
                positions.append(number - chunk.first)
                members.append({prefix + name: value for name, value in one.items()} if prefix else one)
            sink.write(chunk, positions, members)
        if written.rows != spool.count:
            raise BatchError(f"{written.rows} rows for {spool.count} selected ones: the output is not replaced")
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    return written


class _Records:
    """The spool's records, taken off in input order."""

    def __init__(self, spool: Spool) -> None:
        self._blocks: Iterator[np.ndarray[Any, Any]] = spool.blocks()
        self._rest: np.ndarray[Any, Any] | None = next(self._blocks, None)

    def below(self, number: int) -> np.ndarray[Any, Any]:
        """Take off the records of all rows before `number`."""
        taken = []
        while self._rest is not None:
            cut = int(np.searchsorted(self._rest["number"], number))
            taken.append(self._rest[:cut])
            if cut < len(self._rest):
                self._rest = self._rest[cut:]
                break
            self._rest = next(self._blocks, None)
        return np.concatenate(taken) if taken else np.empty(0, RECORD)
