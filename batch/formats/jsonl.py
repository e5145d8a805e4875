"""JSON Lines: an object a line; a line's own bytes are kept, and new members go before its last brace.

Lines end at the byte 0A and nowhere else. Blank lines are nothing. Of a key that a line has twice, the last value counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .. import exact
from ..errors import InputError, JobError
from .compression import Writable
from .table import CAP, CHUNK_ROWS, CHUNK_WEIGHT, MISSING, TOO_LONG, Chunk, Layout, Places, Record, frame, gather, look
from .text import BOM, Text, not_text
from .values import as_json, column_type, kind

if TYPE_CHECKING:
    import pandas

BLANK = b" \t\r"

_NO_MEMBER = (b"{", b" ", b"\t", b"\r")
"""What may stand before the last brace of an object that is empty."""

WIDE = 256
"""Columns that a chunk may gather from different lines before it ends."""

FEW = 250
"""Rows that are put together at a time; with more of them, what is put together leaves the processor's cache."""

MOST_KEYS = 10_000
"""Columns that a table may have."""


def split(blocks: Iterable[bytes], name: str = "", before: int = 0) -> Iterator[tuple[list[bytes], bool]]:
    """Blocks of bytes as lists of lines without their line ends; with the last, unfinished line comes True.

    Args:
        blocks: The bytes.
        name: Where they are from, for messages.
        before: How many lines came before them.

    Raises:
        InputError: A line of more than 16 MiB.
    """
    rest: list[bytes] = []
    length, number = 0, before
    for block in blocks:
        lines = block.split(b"\n")
        last = lines.pop()
        if lines:
            lines[0] = b"".join([*rest, lines[0]])
            number += len(lines)
            yield lines, False
            rest, length = [], 0
        rest.append(last)
        length += len(last)
        if length > CAP:
            raise InputError(f"{name}, line {number + 1}: a line of more than {TOO_LONG}; is this JSON Lines?")
    if length:
        yield [b"".join(rest)], True


def _nested(line: bytes) -> bool:
    """Whether a line has signs enough to nest deeper than `exact.MAX_DEPTH`."""
    return len(line) > 2 * exact.MAX_DEPTH and line.count(b"{") + line.count(b"[") > exact.MAX_DEPTH


def _deep(value: Any) -> bool:
    """Whether a value nests deeper than `exact.MAX_DEPTH`."""
    level = [value]
    for _ in range(exact.MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


class Lines:
    """A file of JSON Lines.

    Args:
        text: The file.
        reserved: Names that its objects must not have: an early one ends the job, a later one makes an error row.

    Attributes:
        columns: None: they are not known before every line is read.
        before: How many lines stand before the place where passes begin.
        lines: How many lines there are up to where the latest whole pass ended.
    """

    columns: list[str] | None = None
    before = 0
    lines = 0

    def __init__(self, text: Text, reserved: Iterable[str] = ()) -> None:
        self.text = text
        self.snapshot = text.snapshot
        self.name = text.name
        self._reserved = frozenset(reserved)

    def keys(self) -> dict[str, str]:
        """The union of all keys in the order in which they come, with the types that hold their values exactly; a whole pass.

        Raises:
            JobError: More keys than a table can have columns.
        """
        kinds: dict[str, set[str]] = {}
        for record in self.records():
            if isinstance(record, int):
                continue
            for key, value in record[1].items():
                if key not in kinds:
                    kinds[key] = set()
                    if len(kinds) > MOST_KEYS:
                        raise JobError(
                            f"{self.name}, line {record[0]}: more than {MOST_KEYS} different keys; write JSONL instead"
                        )
                kinds[key].add(kind(value))
        return {key: column_type(found) for key, found in kinds.items()}

    def look(self, weight: int, rows: int) -> tuple[int, int]:
        """Read at least so much; returns how many rows and bytes of the file that were."""
        return look(self.records(refuse=True), weight, rows), self.snapshot.position

    def count(self) -> int | None:
        """How many lines there are; None where bytes are not text yet."""
        if not self.text.plain:
            return None
        count = 0
        last = b"\n"
        for block in self.snapshot.again():
            count += block.count(b"\n")
            last = block[-1:]
        return count + (last != b"\n")

    def records(self, *, refuse: bool = False) -> Iterator[Record | int]:
        """The objects, and between them the weight of every block that is used up.

        Args:
            refuse: Whether an object with a reserved name ends the job.
        """
        for one in self._several(refuse=refuse):
            if isinstance(one, list):
                yield from one
            else:
                yield one

    def _several(self, *, refuse: bool = False) -> Iterator[Record | list[Record] | int]:
        """The same, with a block's objects all at once where there is nothing to say about any of them."""
        number, done = self.before, self.snapshot.start
        seen: set[str] = set()
        for lines, unfinished in split(self.text.utf8(), self.name, number):
            start = done
            plain = self._plain(lines, seen)
            if plain:
                yield list(zip(range(number + 1, number + 1 + len(lines)), plain, repeat(""), lines, strict=False))
                number += len(lines)
            for line in () if plain else lines:
                number += 1
                try:
                    value = exact.loads(line)
                except ValueError as error:
                    if not line.strip(BLANK):
                        continue
                    self._text(line, start, lines, unfinished)
                    yield number, {}, f"not JSON: {error}", line
                    continue
                if type(value) is not dict:
                    yield number, {}, f"JSON, but {_named(value)} instead of an object", line
                    continue
                if _nested(line) and _deep(value):
                    yield number, {}, f"nested more than {exact.MAX_DEPTH} deep", line
                    continue
                if not value.keys() <= seen:
                    seen |= value.keys()
                    if len(seen) > WIDE and len(seen) > len(value):
                        yield CHUNK_WEIGHT
                        seen = set(value)
                if self._reserved and not self._reserved.isdisjoint(value):
                    clash = ", ".join(repr(name) for name in value if name in self._reserved)
                    if refuse:
                        found = f"{self.name}, line {number}: the row already has {clash}"
                        raise JobError(f"{found}; give the output's columns other names with --prefix")
                    yield number, {}, f"the row already has {clash}, a column of the output; use --prefix", line
                    continue
                yield number, value, "", line
            weight = sum(map(len, lines)) + len(lines)
            done += weight
            yield weight
        self.lines = number

    def _plain(self, lines: list[bytes], seen: set[str]) -> list[dict[str, Any]] | None:
        """The objects of some lines; None where one of these has to be looked at.

        Args:
            lines: All there is of a block.
            seen: The keys of those before, to which theirs are added.
        """
        values = exact.objects(lines)
        if values is None:
            return None
        keys = set().union(*values)
        if not self._reserved.isdisjoint(keys) or len(seen | keys) > WIDE:
            return None
        longest = max(map(len, lines))
        if longest > 2 * exact.MAX_DEPTH and any(
            _nested(line) and _deep(value) for line, value in zip(lines, values, strict=True)
        ):
            return None
        seen |= keys
        return values

    def _text(self, line: bytes, start: int, lines: list[bytes], unfinished: bool) -> None:
        """Refuse a line that is not UTF-8; the last one may end in the middle of a character."""
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            if unfinished and error.end == len(line) and error.reason == "unexpected end of data":
                return
            before = 0
            for other in lines:
                if other is line:
                    break
                before += len(other) + 1
            marked = start == 0 and self.text.plain and self.snapshot.source.read(0, len(BOM)) == BOM
            raise not_text(self.name, "utf-8", len(BOM) * marked + start + before + error.start, line) from None

    def chunks(self, first: int = 0, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The objects as chunks; `first` is the number of the first row."""
        return gather(self._several(), self._chunk, first=first, rows=rows, idle=self.snapshot.idle)

    def _chunk(self, batch: list[Record], first: int) -> Chunk:
        lines, objects, problems, raw = zip(*batch, strict=True)
        said = {position: problem for position, problem in enumerate(problems) if problem}
        return Chunk(
            partial(_frame, objects, first),
            first,
            Places(self.name, lines),
            list(raw),
            said,
            {position: raw[position].decode("utf-8", "replace").removesuffix("\r") for position in said},
            objects,
        )


def _frame(objects: Sequence[dict[str, Any]], first: int) -> pandas.DataFrame:
    columns = list(dict.fromkeys(key for value in objects for key in value))
    return frame(columns, ([value.get(key, MISSING) for value in objects] for key in columns), first, len(objects))


def _named(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")


class Writer:
    """Rows as JSON Lines.

    Args:
        out: Where the bytes go.
        layout: With no names in it, unreadable rows are written as they came.
    """

    def __init__(self, out: Writable, layout: Layout) -> None:
        self._out = out
        self._names = list(layout.names)

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows at `positions`, each with its generated members."""
        own = chunk.raw if isinstance(chunk.raw, list) else None
        if own and not chunk.problems:
            for at in range(0, len(positions), FEW):
                self._put(_spliced([own[position] for position in positions[at : at + FEW]], members[at : at + FEW]))
            return
        lines: list[bytes] = []
        columns, table = ([], []) if own else (chunk.columns, chunk.cells())
        for position, generated in zip(positions, members, strict=True):
            if position in chunk.problems:
                if self._names:
                    line = exact.dumps(dict(generated))
                else:
                    line = own[position] if own else exact.dumps(chunk.raw_input[position])
            elif own:
                line = splice(own[position], generated)
            else:
                cells = zip(columns, table[position], strict=True)
                line = exact.dumps({key: as_json(cell) for key, cell in cells} | dict(generated))
            lines.append(line)
        self._put(lines)

    def _put(self, lines: list[bytes]) -> None:
        if lines:
            self._out.write(b"\n".join([*lines, b""]))

    def finish(self) -> None:
        """Nothing is held back."""


def _spliced(lines: list[bytes], members: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """What `splice` makes of each of several lines."""
    added = exact.lines(members) if all(members) else None
    return list(map(splice, lines, members)) if added is None else list(map(_added, lines, added))


def splice(line: bytes, members: Mapping[str, Any]) -> bytes:
    """A JSON object's own bytes with members added before its last brace.

    Args:
        line: An object, perhaps with white space around it.
        members: What to add.
    """
    return _added(line, exact.dumps(members if type(members) is dict else dict(members))) if members else line


def _added(line: bytes, members: bytes) -> bytes:
    if line[-1:] == b"}" and line[-2:-1] not in _NO_MEMBER:
        return b"%b,%b" % (line[:-1], members[1:])
    brace = line.rindex(b"}")
    head = line[:brace]
    comma = b"" if head.strip(b" \t\r\n") == b"{" else b","
    return b"".join((head, comma, members[1:-1], line[brace:]))
