"""Proves an output against its input; shares no code with `export`, `spool`, `reading`, the journal's index or `formats`.

Input, output and journal are read anew by the plain readers beside this file, and keys are computed anew. So a mistake in the
way an output is made would have to be made a second time, differently written, to go unnoticed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from .. import exact
from ..answers import Schema, Unfit, fits, judged, response_format
from ..errors import JobError, RowError, TryLater
from ..prompts import Prompts, condition
from ..records import Row
from ..wires import WIRES
from .ledger import Ledger
from .plain import Line, cell, form_of, size_of, table

GENERATED = (
    "response",
    "error",
    "error_kind",
    "http_status",
    "answer_model",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "attempts",
    "latency_s",
)
"""The columns that every output has."""

OPTIONAL = ("raw", "raw_input")
"""Columns that an output may have beside them."""

OWN_WORDS = frozenset({"input", "pending", "bad_body", "bad_answer"})
"""Kinds of error whose words the output chooses; those of all others stand in the journal."""

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that `--csv-guard` defuses."""

ROWS = 1_000
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Break:
    """A row that is not in its place.

    Attributes:
        row: Its number among the selected rows, from 1.
        input, output: Where it stands; "" where it is in only one of them.
        found: What is wrong with it.
    """

    row: int
    input: str
    output: str
    found: str

    def __str__(self) -> str:
        return f"row {self.row} ({' | '.join(filter(None, (self.input, self.output)))}): {self.found}"


@dataclass(slots=True)
class Verdict:
    """What a check comes to.

    Attributes:
        rows: Selected input rows.
        output_rows: Rows of the output.
        ok, failed, pending: What the output's rows say of themselves.
        broken: Rows that are not in their place, with their own values and their own answer.
        first: The first of them.
        exit_code: 0 when it is proven that every input row has exactly one output row, in order, with its own answer or its own
            error; 1 when one has not; 75 when none is broken, but some have no answer yet.
    """

    input: str
    output: str
    journal: str
    rows: int = 0
    output_rows: int = 0
    ok: int = 0
    failed: int = 0
    pending: int = 0
    broken: int = 0
    first: Break | None = None

    @property
    def exit_code(self) -> int:
        """0, 1 or 75."""
        if self.broken:
            return 1
        return TryLater.exit_code if self.pending else 0

    def breaks(self, found: Break) -> None:
        """One row that is not as it must be."""
        self.broken += 1
        if self.first is None or found.row < self.first.row:
            self.first = found


@dataclass(slots=True)
class _Unsettled:
    """Rows with one key that hold another answer than their occurrence's: fine, if they only changed places."""

    balance: Counter[bytes] = field(default_factory=Counter)
    breaks: list[Break] = field(default_factory=list)


def verify(source: str, output: str, journal: str = "") -> Verdict:
    """Check that every selected row of an input has exactly one output row, in order, unchanged, with its own answer.

    What was asked (template, model, parameters, endpoint, selection) is taken from the journal's last run.

    Args:
        source: The input as it is now: a file or a pattern.
        output: The output.
        journal: Its journal, when it is not `OUTPUT.journal`.

    Raises:
        JobError: Input, output or journal cannot be read.
        JournalDamaged: The journal is damaged before its tail.
        TryLater: A run is going on, or began meanwhile.
    """
    path = Path(journal or output + ".journal")
    ledger = Ledger(path)
    size = size_of(path)
    try:
        verdict = _Check(source, output, ledger).verdict()
    finally:
        ledger.close()
    if verdict.broken and size_of(path) != size:
        raise TryLater(f"{path} grew while it was read: a run is going on; verify its output once it has ended")
    return verdict


class _Check:
    """One input against one output."""

    def __init__(self, source: str, output: str, ledger: Ledger) -> None:
        asked = ledger.run
        self._job = job = asked["job"]
        self._ledger = ledger
        schema = asked.get("schema", "")
        self._wire, self._schema = WIRES[asked["protocol"]], Schema(schema) if schema else None
        self._prefix = job.get("prefix", "")
        self._explode = self._schema if job.get("explode") else None
        self._generated = (*GENERATED, *(self._explode.columns if self._explode else ()))
        self._names = [self._prefix + name for name in self._generated]
        self._own = frozenset(self._names + [self._prefix + name for name in OPTIONAL])
        reserved = [*self._names, self._prefix + "raw"]
        self._source = table(source, job.get("input_format", ""), job.get("encoding", "utf-8"), reserved)
        self._output = table(output, (job.get("output_format") or "") if form_of(output) == "" else "")
        self._lines = "jsonl" == self._source.form == self._output.form
        self._guard = bool(job.get("csv_guard")) and self._output.form != "jsonl"
        self._prompts = Prompts(
            self._wire,
            asked["identity"],
            model=asked["model"],
            template=asked["template"],
            column=job.get("prompt_column", ""),
            system=job.get("system", ""),
            parameters=response_format(schema, asked["protocol"], job.get("send_schema"))
            | exact.loads(exact.dumps(job.get("parameters", {}))),
            row_params=job.get("row_params", ()),
            insist=bool(job.get("model")),
        )
        self._verdict = Verdict(source, output, str(ledger.path))
        self._unsettled: dict[bytes, _Unsettled] = {}

    def verdict(self) -> Verdict:
        """Read both files side by side."""
        verdict = self._verdict
        if self._output.form != "jsonl":
            self._header(self._output.columns)
        selected = self._selected()
        written = iter(self._output)
        while rows := list(islice(selected, ROWS)):
            keys = [key for _, key in rows if key]
            outcomes = iter(self._fitting(keys, self._ledger.take(keys)))
            for line, key in rows:
                verdict.rows += 1
                outcome = next(outcomes) if key else None
                found = next(written, None)
                if found is None:
                    verdict.breaks(Break(verdict.rows, line.place, "", "the output ends before it"))
                    continue
                self._count(found)
                self._row(line, key, outcome, found)
        for surplus in written:
            self._count(surplus)
            verdict.breaks(Break(verdict.output_rows, "", surplus.place, "no input row belongs to it"))
        for unsettled in self._unsettled.values():
            for one in unsettled.breaks:
                verdict.breaks(one)
        return verdict

    def _fitting(self, keys: list[bytes], outcomes: list[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
        """The same, with those in place of answers that fit the schema no more; what fits is an answer, whatever it was."""
        for row, outcome in enumerate(outcomes):
            if not outcome or "body" not in outcome:
                continue
            if fits(exact.dumps(outcome["body"]), outcome["status"], self._wire, self._schema):
                outcome["ok"] = 1
            elif outcome["ok"] and self._schema:
                (outcomes[row],) = self._ledger.find([self._schema.key(keys[row])], [outcome["n"]])
        return outcomes

    def _header(self, columns: Sequence[str]) -> None:
        missing = [name for name in (*self._source.columns, *self._names) if name not in columns]
        wrong = f"has no column {missing[0]!r}" if missing else ""
        if not wrong and list(columns[: len(self._source.columns)]) != self._source.columns:
            wrong = "does not begin with the input's columns, in their order"
        if wrong:
            self._verdict.breaks(Break(0, self._source.paths[0], f"{self._output.paths[0]}, line 1", f"the output {wrong}"))

    def _count(self, found: Line) -> None:
        self._verdict.output_rows += 1
        kind = found.values.get(self._prefix + "error_kind")
        if not kind:
            self._verdict.ok += 1
        elif kind == "pending":
            self._verdict.pending += 1
        else:
            self._verdict.failed += 1

    # Which rows there are, and what was sent for them

    def _selected(self) -> Iterator[tuple[Line, bytes]]:
        """The wanted rows in order, each with its key; an empty one where the row cannot be asked."""
        chosen = self._sample() if self._job.get("sample") else None
        wanted = (one for one in self._wanted() if chosen is None or one[0] in chosen)
        for number, line, unclear in islice(wanted, self._job.get("limit")):
            try:
                if line.unreadable or unclear:
                    raise RowError(unclear)
                key = self._prompts(Row(number, line.place, line.values)).key
            except RowError:
                key = b""
            for _ in range(self._job.get("repeat", 1)):
                yield line, key

    def _wanted(self) -> Iterator[tuple[int, Line, str]]:
        """Rows for which `--where` holds or cannot be told."""
        where = condition(self._job["where"]) if self._job.get("where") else None
        for number, line in enumerate(self._source):
            unclear = ""
            if where and not line.unreadable:
                try:
                    if not where(line.values):
                        continue
                except RowError as error:
                    unclear = str(error)
            yield number, line, unclear

    def _sample(self) -> frozenset[int]:
        """The numbers of the rows with the smallest seeded hashes of their content."""
        seed = str(self._job.get("sample_seed", 0)).encode()

        def ranked() -> Iterator[tuple[bytes, int]]:
            for number, line, _ in self._wanted():
                if line.unreadable:
                    raise JobError(f"{line.place} cannot be read, so the sample cannot be checked; mend the line")
                content = blake2b(seed, digest_size=16)
                content.update(exact.dumps(line.values))
                yield content.digest(), number

        return frozenset(number for _, number in heapq.nsmallest(self._job["sample"], ranked()))

    # One row

    def _row(self, line: Line, key: bytes, outcome: dict[str, Any] | None, found: Line) -> None:
        def broken(words: str) -> Break:
            return Break(self._verdict.rows, line.place, found.place, words)

        if found.unreadable:
            self._verdict.breaks(broken("the output's row cannot be read"))
            return
        generated, words = self._cells(line, found)
        if words:
            self._verdict.breaks(broken(words))
            return
        here = self._shown(generated)
        if not key:
            if here["error_kind"] != "input" or not here["error"] or here["response"]:
                self._verdict.breaks(broken(f"it cannot be asked, but the output says {_said(here)}"))
            return
        there = self._expected(outcome)
        if here["error_kind"] in OWN_WORDS and here["error"]:
            here["error"] = there["error"] if here["error_kind"] == there["error_kind"] else "…"
        if here == there:
            return
        name = next(name for name in self._generated if here[name] != there[name])
        if outcome is None:
            words = f"the journal has no answer for it, but the output says {_said(here)}"
        elif here["error_kind"] == "pending":
            words = "it is pending in the output, but the journal has its answer; ails-batch export writes it"
        else:
            words = f"column {self._prefix + name!r} is {_cut(here[name])}, its own answer has {_cut(there[name])}"
        self._unsettle(key, here, there, broken(words))

    def _unsettle(self, key: bytes, here: dict[str, str], there: dict[str, str], found: Break) -> None:
        unsettled = self._unsettled.setdefault(key, _Unsettled())
        unsettled.breaks.append(found)
        for values, weight in ((here, 1), (there, -1)):
            name = blake2b(repr(sorted(values.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            unsettled.balance[name] += weight
            if not unsettled.balance[name]:
                del unsettled.balance[name]
        if not unsettled.balance:
            del self._unsettled[key]

    def _cells(self, line: Line, found: Line) -> tuple[dict[str, Any], str]:
        """The generated values of an output row, and what is wrong with the others."""
        generated = {name: value for name, value in found.values.items() if name in self._own}
        kept = {name: value for name, value in found.values.items() if name not in self._own}
        if self._output.form != "jsonl":
            kept = {name: value for name, value in kept.items() if value != ""}
            given = {name: text for name, value in line.values.items() if (text := cell(value)) != ""}
        else:
            given = line.values
        for name in [*given, *kept]:
            if name not in kept or name not in given or not _same(given[name], kept[name]):
                there = _cut(given[name]) if name in given else "nothing"
                return generated, f"column {name!r} is {_cut(kept[name]) if name in kept else 'missing'}, the input has {there}"
        if self._lines and not line.unreadable:
            # Beyond equal values, the line's own bytes must be there, and nothing but the generated members behind them.
            own = line.raw[: line.raw.rindex(b"}")]
            try:
                added = exact.loads(b"{" + found.raw[len(own) :].removeprefix(b","))
            except ValueError:
                added = None
            if not found.raw.startswith(own) or not isinstance(added, dict) or not self._own.issuperset(added):
                return generated, "the input line's own bytes are not as they were"
        missing = [name for name in self._names if name not in generated]
        return generated, f"the output's row has no {missing[0]!r}" if missing else ""

    def _shown(self, generated: dict[str, Any]) -> dict[str, str]:
        return {name: _text(name, generated[self._prefix + name]) for name in self._generated}

    def _expected(self, outcome: dict[str, Any] | None) -> dict[str, str]:
        """What the output must say of a row that has this line in the journal."""
        members: dict[str, Any] = dict.fromkeys(self._generated)
        if outcome is None:
            members |= {"error_kind": "pending", "error": "…"}
        else:
            last = outcome["tries"][-1][1] if outcome["tries"] else None
            members |= {"http_status": outcome["status"], "attempts": len(outcome["tries"]), "latency_s": last}
            if outcome["ok"]:
                members |= _answer(outcome["body"]) | self._properties(outcome)
            else:
                members |= {"error_kind": outcome["kind"], "error": outcome["message"]}
        texts = {name: _text(name, value) for name, value in members.items()}
        if self._output.form != "jsonl":
            texts = {name: cell(text) for name, text in texts.items()}
        if self._guard:
            texts |= {
                name: f"'{text}"
                for name, text in texts.items()
                if isinstance(members[name], str) and text.startswith(DANGEROUS)
            }
        return texts

    def _properties(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """What the properties of an answer must be in their columns."""
        if not self._explode:
            return {}
        try:
            _, value = judged(exact.dumps(outcome["body"]), outcome["status"], self._wire, self._explode)
            return self._explode.explode(value)
        except Unfit:
            return dict.fromkeys(GENERATED[4:8]) | {"response": "", "error_kind": "bad_answer", "error": "…"}


def _answer(body: Any) -> dict[str, Any]:
    """What a chat completion says (OpenAI's API reference, "The chat completion object")."""
    try:
        choice = body["choices"][0]
        content = choice["message"].get("content")
        reason, usage = choice.get("finish_reason"), body.get("usage")
    except (TypeError, LookupError, AttributeError):
        return {"error_kind": "bad_body", "error": "…"}
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    usage = usage if isinstance(usage, dict) else {}
    return {
        "response": content or "",
        "answer_model": body.get("model") if isinstance(body.get("model"), str) else "",
        "finish_reason": reason if isinstance(reason, str) else "",
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "completion_tokens": _count(usage.get("completion_tokens")),
    }


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    return exact.dumps(one) == exact.dumps(other)


def _text(name: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    if name == "latency_s":
        try:
            return f"{float(value):.3f}"
        except ValueError:
            return str(value)
    return value if isinstance(value, str) else exact.dumps(value).decode("utf-8")


def _said(values: dict[str, str]) -> str:
    kind = values["error_kind"]
    return f"error_kind {kind!r}" if kind else f"response {_cut(values['response'])}"


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else exact.dumps(value).decode("utf-8")
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
