"""An answer's body, whole or streamed: how a client reads it, how the gateway writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated

import msgspec

from .. import exact
from ..errors import BadBody, Dropped
from ..records import Answer
from ..signature import content_of
from .refusal import clean, glimpse, meant, refusal

DONE = b"data: [DONE]\n\n"
"""What ends a stream."""

# An answer without content that is an answer all the same.
_EXPLAINED = frozenset({"content_filter", "tool_calls", "function_call", "length"})


_Tokens = Annotated[int, msgspec.Meta(gt=0, lt=2**53)] | None


class _Message(msgspec.Struct, gc=False):
    content: str


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Tokens = None  # none of 0: msgspec does not tell that from -0, which is no count
    completion_tokens: _Tokens = None


_UNTOLD = _Usage()


class _Usual(msgspec.Struct, gc=False):
    """A body as nearly every one is; any other is looked at member by member."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    model: str = ""
    usage: _Usage | None = None
    object: str = ""
    error: None = None


_usual = msgspec.json.Decoder(_Usual)


def _read_usual(body: bytes, status: int) -> Answer | None:
    """The answer in a body that is known to be strict JSON; None where it is none of the usual ones."""
    try:
        data = _usual.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return None if data.object == "error" else _answer(data, body, status)


def _answer(data: _Usual, body: bytes, status: int) -> Answer:
    choice, usage = data.choices[0], data.usage or _UNTOLD
    reason = choice.finish_reason or ""
    return Answer(choice.message.content, data.model, reason, usage.prompt_tokens, usage.completion_tokens, body, status)


def read_answers(bodies: Sequence[bytes], statuses: Sequence[int]) -> list[Answer] | None:
    """What `read_answer` makes of each of several bodies of the journal's; None where not all are of the usual ones."""
    try:
        found = _usual.decode_lines(b"\n".join(bodies))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if len(found) != len(bodies) or any(data.object == "error" for data in found):
        return None
    return list(map(_answer, found, bodies, statuses))


def read_answer(body: bytes, status: int = 200, *, strictly: bool = True) -> Answer:
    """The answer in a 2xx body.

    Args:
        body: As the server sent it, or as the journal kept it.
        status: The response's.
        strictly: False for a body that was read strictly when it came: several times faster.

    Raises:
        BadBody: It holds none.
        CallError: It holds an error object; the type is what its status means.
    """
    if not strictly and (usual := _read_usual(body, status)):
        return usual
    try:
        data = exact.strict(body) if strictly else exact.loads(body)
    except ValueError as error:
        raise BadBody(f"the answer is {glimpse(body) or error}", status=status) from None
    if data.get("error") or data.get("object") == "error":
        raise refusal(meant(data), body)
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise BadBody("the answer has no choices[0].message", status=status)
    finish_reason = _text(choice.get("finish_reason"))
    content = message.get("content")
    if content is None and (finish_reason in _EXPLAINED or message.get("refusal")):
        content = ""
    try:
        text = content_of(content)
    except ValueError:
        found = "null" if content is None else f"a {type(content).__name__}"
        raise BadBody(
            f"the answer's content is {found}, and its finish_reason {clean(finish_reason)!r} does not say why", status=status
        ) from None
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(
        text,
        _text(data.get("model")),
        finish_reason,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        body.replace(b"\r", b" ").replace(b"\n", b" ") if strictly else body,
        status,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def read_chunk(data: bytes) -> str:
    """The text of one streamed chunk, "" when it carries none.

    Args:
        data: What follows `data:` in one line.

    Raises:
        BadBody: It is no chunk.
        CallError: It is an error object; the type is what its status means.
    """
    try:
        chunk = exact.strict(data)
    except ValueError as error:
        raise BadBody(f"a streamed chunk is {error}", status=200) from None
    if chunk.get("error"):
        raise refusal(meant(chunk), data)
    choices = chunk.get("choices")
    if not choices:
        return ""  # the last chunk may carry the usage alone
    delta = choices[0].get("delta") if isinstance(choices, list) and isinstance(choices[0], dict) else None
    content = delta.get("content") if isinstance(delta, dict) else None
    if content is not None and not isinstance(content, str):
        raise BadBody("a streamed chunk's content is no text", status=200)
    return content or ""


def read_stream(pieces: Iterable[bytes]) -> Iterator[str]:
    """The texts of a streamed answer, as server-sent events bring them.

    Args:
        pieces: The body, cut anywhere.

    Raises:
        Dropped: It ended without `[DONE]`.
        CallError: As `read_chunk`.
    """
    rest = b""
    for piece in chain(pieces, [b"\n"]):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            if line.startswith(b"data:") and (text := read_chunk(data)):
                yield text
    raise Dropped("the stream ended before its end", status=200)


def write_answer(
    text: str,
    *,
    model: str,
    id: str,  # noqa: A002 (the field's name)
    created: int,
    finish_reason: str = "stop",
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
) -> bytes:
    """One chat completion object.

    `created` is in seconds since the epoch, `id` (`chatcmpl-…`) names this completion.
    """
    message = {"role": "assistant", "content": text}
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return exact.dumps(
        {
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": usage,
        }
    )


def write_chunk(
    text: str,
    *,
    model: str,
    id: str,  # noqa: A002 (the field's name)
    created: int,
    finish_reason: str | None = None,
) -> bytes:
    """One streamed chunk as a server-sent event; the last one has a `finish_reason`, and `DONE` follows it."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish_reason}
    chunk = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": [choice]}
    return b"data: " + exact.dumps(chunk) + b"\n\n"
