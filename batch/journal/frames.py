"""One line of the journal: how it is built, checked and read.

Format version 1. A line is JSON whose first member says what it is and whose last is the CRC32 of every byte before it:

    {"journal":1,"id":"<32 hex>","at":1700000000.000,"crc":"xxxxxxxx"}
    {"run":{…},"at":…,"crc":…}        and likewise "tick" and "end"
    {"k":"<32 hex>","n":0,"ok":1,"at":…,"tries":[[200,0.2130,"",1]],"status":200,"body":{…},"crc":…}
    {"k":"<32 hex>","n":0,"ok":0,"kind":"refused","at":…,"tries":[…],"status":400,"message":"…","crc":…}
    {"k":"<32 hex>","n":0,"ok":0,"kind":"bad_answer","at":…,"tries":[…],"status":200,"message":"…","body":{…},"crc":…}

`k` is the row's key, `n` its occurrence, `at` seconds since the epoch, `tries` a list of status, seconds, kind and charged, and
`body` the server's whole answer, byte for byte.
"""

from __future__ import annotations

import re
from binascii import hexlify, unhexlify
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast
from zlib import crc32

import msgspec

from .. import exact
from ..records import Answer, Attempt, Failure, Kind, Outcome, row_id

VERSION = 1
STATES = ("ok", "input", "refused", "transient", "bad_body", "bad_answer", "too_large", "internal", "pending")
"""What a line can say of its row: answered, or the kind of its failure. Handles carry the position in this tuple."""
CODES = {state: code for code, state in enumerate(STATES)}
LONGEST = 256 << 20
"""Bytes a line may have; anything longer is damage."""
SEAL = len(b',"crc":"xxxxxxxx"}\n')
HEADER = re.compile(rb'\{"journal":(\d{1,9})(?:,"id":"([0-9a-f]{32})")?[,}]')
ROW = re.compile(rb'\{"k":"([0-9a-f]{32})","n":(\d{1,18}),"ok":(?:1|0,"kind":"([a-z_]+)"),')
NOTE = re.compile(rb'\{"(run|tick|end)":')


class Recorded(NamedTuple):
    """What the journal holds of one row; a tuple, because export makes ten million of them.

    Attributes:
        key: The 16-byte digest of what was sent.
        occurrence: How many earlier rows had the same key.
        started: Seconds since the epoch, when the first attempt was about to be sent.
        attempts: The requests that were sent for it.
        status: The last HTTP status, when there was one.
        body: The server's whole answer; empty when the row failed, unless for an answer that did not fit.
        failure: Why it failed; None when it was answered.
    """

    key: bytes
    occurrence: int
    started: float
    attempts: tuple[Attempt, ...]
    status: int | None
    body: bytes
    failure: Failure | None

    @property
    def id(self) -> bytes:
        """Key and occurrence as one 16-byte name."""
        return row_id(self.key, self.occurrence)


class _Head(msgspec.Struct, gc=False):
    """What stands before message and body."""

    k: str
    n: int
    at: float
    tries: tuple[Attempt, ...]
    status: int | None
    kind: str = ""


_heads = msgspec.json.Decoder(_Head, strict=False)  # which takes 1 for true
_head = _heads.decode


def seal(line: bytes) -> bytes:
    """A JSON object without its closing brace becomes a whole line: CRC, brace, line feed."""
    return b'%b,"crc":"%08x"}\n' % (line, crc32(line))


def sound(line: bytes) -> bool:
    """Whether a line, with its line feed, is whole and carries the right CRC."""
    return line[-SEAL:] == b',"crc":"%08x"}\n' % crc32(line[:-SEAL])


def header(identity: bytes, at: float) -> bytes:
    """The first line of a journal."""
    return seal(b'{"journal":%d,"id":"%b","at":%.3f' % (VERSION, hexlify(identity), at))


def note(name: str, value: Any, at: float) -> bytes:
    """A line about the run rather than a row: `run`, `tick` or `end`.

    Raises:
        ValueError: `value` has no JSON form.
    """
    return seal(b'{"%b":%b,"at":%.3f' % (name.encode(), exact.dumps(value), at))


def row(outcome: Outcome) -> bytes:
    """The line of one row's outcome; the answer's body is embedded as it is.

    Raises:
        ValueError: The body is too long or not on one line, or the failure's kind is none of `STATES`.
    """
    result = outcome.result
    tries = _tries(outcome.attempts)
    if b"\n" in result.body:
        raise ValueError("an answer's body must be one line")
    if len(result.body) > LONGEST // 2:
        raise ValueError(f"an answer's body of {len(result.body)} bytes is too long")
    if isinstance(result, Answer):
        return seal(
            b'{"k":"%b","n":%d,"ok":1,"at":%.3f,"tries":[%b],"status":%d,"body":%b'
            % (hexlify(outcome.key), outcome.occurrence, outcome.started, tries, result.status, result.body)
        )
    if result.kind not in CODES:
        raise ValueError(f"no such kind of failure: {result.kind}")
    return seal(
        b'{"k":"%b","n":%d,"ok":0,"kind":"%b","at":%.3f,"tries":[%b],"status":%b,"message":%b%b'
        % (
            hexlify(outcome.key),
            outcome.occurrence,
            result.kind.encode(),
            outcome.started,
            tries,
            b"null" if result.status is None else b"%d" % result.status,
            exact.dumps(result.message),
            b',"body":' + result.body if result.body else b"",
        )
    )


def _tries(attempts: Iterable[Attempt]) -> bytes:
    return b",".join(
        b'[%b,%.4f,"%b",%d]'
        % (b"null" if one.status is None else b"%d" % one.status, one.seconds, one.kind.encode(), one.charged)
        for one in attempts
    )


def parse(line: bytes) -> Recorded:
    """A row's line, read back.

    Raises:
        ValueError: It is torn, damaged or no row's line.
    """
    # Inside a JSON text these signs would have a backslash among them, so they end what stands before.
    text, _, body = line[:-SEAL].partition(b',"body":')
    text, _, message = text.partition(b',"message":')
    try:
        head = _head(text + b"}") if sound(line) else None
    except msgspec.MsgspecError:
        head = None
    if head is None:
        raise ValueError("no whole line of a row")
    failure = None
    if head.kind:
        failure = Failure(cast(Kind, head.kind), exact.loads(message), head.status, body)
    return Recorded(unhexlify(head.k), head.n, head.at, head.tries, head.status, body, failure)


def answers(lines: Sequence[bytes]) -> list[Recorded] | None:
    """What `parse` makes of each of several lines, faster; None where not all are plainly those of answers."""
    contents = [line[:-SEAL] for line in lines]
    if [line[-SEAL:] for line in lines] != [b',"crc":"%08x"}\n' % crc32(content) for content in contents]:
        return None
    parts = [content.partition(b',"body":') for content in contents]
    try:
        heads = _heads.decode_lines(b"}\n".join([*[text for text, _, _ in parts], b""]))
    except msgspec.MsgspecError:
        return None
    if len(heads) != len(lines) or any(head.kind for head in heads):
        return None
    return [
        Recorded(unhexlify(head.k), head.n, head.at, head.tries, head.status, body, None)
        for head, (_, _, body) in zip(heads, parts, strict=True)
    ]


def parse_note(line: bytes) -> dict[str, Any]:
    """A run's, tick's or end's line as a dict, with `at` beside it.

    Raises:
        ValueError: It is torn, damaged or no such line.
    """
    match = NOTE.match(line)
    if not match or not sound(line):
        raise ValueError("no whole line of a run")
    members: dict[str, Any] = exact.loads(line[:-SEAL] + b"}")
    return members
