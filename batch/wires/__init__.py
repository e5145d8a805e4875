"""The request and answer bodies of each protocol, the client's end and the gateway's side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import msgspec

from ..records import Answer
from .answer import DONE, read_answer, read_answers, read_chunk, read_stream, write_answer, write_chunk
from .refusal import clean, refusal
from .request import Asked, Message, Write, read_request, write_request, writer

__all__ = ["DONE", "WIRES", "Asked", "Message", "Wire", "Write", "clean", "read_chunk", "read_stream", "refusal", "write_chunk"]


class Wire(msgspec.Struct, frozen=True):
    """How one protocol is written and read: a client's functions, a gateway's two.

    Attributes:
        name: The protocol's.
        path, query: Follow the base URL.
        signed: Whether requests carry `d`, `t`, `s`, `client-id` and `client-v`.
        writer: `(model, parameters, stream=False) -> (messages) -> (body, content)`; both raise `RowError`.
        request: `(model, messages, parameters, stream=False) -> (body, content)`; raises `RowError`.
        answer: `(body, status, strictly=True) -> Answer`; raises `BadBody`, or for an error object what its status means.
        answers: `(bodies, statuses) -> [Answer, …]` of bodies that were read strictly when they came; None where not all are
            of the usual ones, and `answer` is to be asked for each.
        read_request: `(body) -> Asked`; raises `ValueError`.
        write_answer: `(text, model=…, …) -> body`.
    """

    name: Literal["ails", "openai"]
    path: str
    query: str
    signed: bool
    writer: Callable[..., Write]
    request: Callable[..., tuple[bytes, str]]
    answer: Callable[..., Answer]
    answers: Callable[[Sequence[bytes], Sequence[int]], list[Answer] | None]
    read_request: Callable[[bytes], Asked]
    write_answer: Callable[..., bytes]


def _wire(name: Literal["ails", "openai"], path: str, query: str, signed: bool) -> Wire:
    write = partial(writer, signed), partial(write_request, signed)
    return Wire(name, path, query, signed, *write, read_answer, read_answers, read_request, write_answer)


WIRES: dict[str, Wire] = {
    "ails": _wire("ails", "/v1/chat/completions", "full=false", signed=True),
    "openai": _wire("openai", "/chat/completions", "", signed=False),
}
"""Protocols by name."""
