"""What travels along the street: frozen, picklable, no I/O.

What is made once a row, by the million, is a named tuple or a struct: a frozen dataclass takes three times as long to make, and
its class longer than fifty structs, which every start of a run would wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgspec

Kind = Literal["input", "refused", "transient", "bad_body", "bad_answer", "too_large", "internal", "pending"]
"""The values of the column `error_kind`; the contract names them."""

KEY_BYTES = 16

TEXT_PARAMETERS = frozenset({"model", "user", "reasoning_effort", "service_tier"})
"""Row parameters whose cells are taken as they are; all others are read as JSON."""


def row_id(key: bytes, occurrence: int) -> bytes:
    """What a row is known by: its key, with the occurrence among equal keys folded in.

    Args:
        key: The 16-byte digest of everything that is sent for the row.
        occurrence: 0 for the first row with that key in input order, 1 for the second, …

    Returns:
        16 bytes; the key itself for occurrence 0, so that most ids can be read off a journal line directly.
    """
    if not occurrence:
        return key
    return blake2b(key + occurrence.to_bytes(8, "big"), digest_size=KEY_BYTES).digest()


class Prompt(msgspec.Struct, frozen=True):
    """One row's request, resolved: everything that is sent but for date, time, signature and credentials.

    Attributes:
        index: The row's number among the selected rows, from 0.
        key: 16-byte BLAKE2b digest of the protocol, the endpoint's name and `body`.
        occurrence: How many earlier rows have the same key.
        body: The request body as compact UTF-8 JSON, an object.
        content: The text of the last message, which the signature covers.
        tokens: Estimated tokens, prompt and answer together, for the token limit.
    """

    index: int
    key: bytes
    occurrence: int
    body: bytes
    content: str
    tokens: int = 0

    @property
    def id(self) -> bytes:
        """Key and occurrence as one 16-byte name."""
        return row_id(self.key, self.occurrence)


class Hints(NamedTuple):
    """What a response's headers say about time and limits; None where they say nothing usable.

    Attributes:
        retry_after: Seconds to wait, from `Retry-After` (seconds, or a date that the response's `Date` is taken from) or
            `retry-after-ms`.
        date: The response's `Date` as seconds since the epoch.
        limit_requests, limit_tokens: Allowed per minute, from `x-ratelimit-limit-*`.
        remaining_requests, remaining_tokens: From `x-ratelimit-remaining-*`.
        reset_requests, reset_tokens: Seconds until the remaining ones are full again, from `x-ratelimit-reset-*`.
    """

    retry_after: float | None = None
    date: float | None = None
    limit_requests: float | None = None
    limit_tokens: float | None = None
    remaining_requests: float | None = None
    remaining_tokens: float | None = None
    reset_requests: float | None = None
    reset_tokens: float | None = None


class Answer(NamedTuple):
    """What the server answered.

    Attributes:
        text: `choices[0].message.content`; empty when the answer has no content and `finish_reason` explains it.
        body: The server's whole answer: strict JSON on one line (line breaks between tokens replaced by spaces), as bytes.
        prompt_tokens, completion_tokens: From `usage`; None when it was not sent.
    """

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    body: bytes
    status: int = 200


class Failure(msgspec.Struct, frozen=True):
    """Why a row has no answer.

    Attributes:
        kind: One of the contract's `error_kind` values.
        message: One line, place and finding.
        status: The last HTTP status, when there was one.
        body: The server's whole answer, where there is one that does not fit (`bad_answer`), as in `Answer`.
    """

    kind: Kind
    message: str
    status: int | None = None
    body: bytes = b""


class Reply(NamedTuple):
    """One attempt that brought an answer: the answer, what it took, and what the headers said."""

    answer: Answer
    seconds: float
    hints: Hints = Hints()


class Attempt(NamedTuple):
    """One request that was sent for a row.

    Attributes:
        status: The HTTP status; None when none came.
        seconds: From just before the send to the end of the body or the error.
        kind: "" for an answer, else the kind of the error.
        charged: Whether it counts against `--attempts` (an outage's do not).
    """

    status: int | None
    seconds: float
    kind: str = ""
    charged: bool = True


class Outcome(msgspec.Struct, frozen=True):
    """One row's end: an answer or a failure, and the attempts that led there.

    Attributes:
        started: Seconds since the epoch, when the first attempt was about to be sent.
    """

    index: int
    key: bytes
    occurrence: int
    result: Answer | Failure
    attempts: tuple[Attempt, ...] = ()
    started: float = 0.0

    @property
    def id(self) -> bytes:
        """Key and occurrence as one 16-byte name."""
        return row_id(self.key, self.occurrence)

    @property
    def answer(self) -> Answer | None:
        """The answer, or None when the row failed."""
        return self.result if isinstance(self.result, Answer) else None


class Row(NamedTuple):
    """One input row as the person wrote it.

    Attributes:
        number: The row's number in the input, from 0.
        place: Where it stands, for messages: ``prompts.csv, line 7``.
        values: Column name to value; a column the row does not have is absent.
        problem: Why the row could not be read, or "".
    """

    number: int
    place: str
    values: Mapping[str, Any]
    problem: str = ""
