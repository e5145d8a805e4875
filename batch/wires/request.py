"""A request's body: how a client writes it, how the gateway reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .. import exact
from ..errors import RowError
from ..signature import content_of

Message = Mapping[str, Any]

_OURS = frozenset({"model", "messages", "stream"})
_SIGNED = frozenset({"d", "t", "s"})


class Asked(msgspec.Struct, frozen=True):
    """A request as the gateway reads it.

    Attributes:
        content: The text of the last message, which the signature covers.
        parameters: Every other member but `d`, `t` and `s`.
        fields: `d`, `t` and `s` as they came, for `signature.verify`.
    """

    model: str
    messages: list[dict[str, Any]]
    content: str
    stream: bool
    parameters: dict[str, Any]
    fields: dict[str, Any]


class Write:
    """Messages become a request's body as compact JSON, and the content of the last one.

    Args:
        before: The members in front of the messages.
        behind: The parameters that follow these.
    """

    def __init__(self, before: dict[str, Any], behind: dict[str, Any]) -> None:
        self._before = before
        self._behind = behind
        opening, parameters = exact.utf8(before), exact.utf8(behind)
        self._plain = opening is not None and parameters is not None
        self._opening = (opening or b"")[:-1]
        self._end = b"%b%b" % (b"," if behind else b"", (parameters or b"")[1:])

    def __call__(self, messages: Sequence[Message]) -> tuple[bytes, str]:
        """The body of a request, and the content of its last message.

        Raises:
            RowError: No messages, a content that is neither text nor parts, half a surrogate pair, or a parameter that has no
                JSON form.
        """
        said = _said(messages)
        # Half a surrogate pair anywhere has the whole body written in ASCII.
        if said is not None and self._plain and (written := exact.utf8(messages)):
            return b'%b,"messages":%b%b' % (self._opening, written, self._end), said
        content = _last_content(messages)
        try:
            return exact.dumps({**self._before, "messages": messages, **self._behind}), content
        except (ValueError, RecursionError) as error:
            raise RowError(f"a parameter or message has no JSON form: {error}") from None

    def texts(self, texts: Sequence[str]) -> list[bytes] | None:
        """The bodies of requests that are one text of a user each, faster; None where one has to be looked at."""
        written = exact.lines(texts) if self._plain else None
        if written is None:
            return None
        opening = b'%b,"messages":[{"role":"user","content":' % self._opening
        end = b"}]%b" % self._end
        return [b"%b%b%b" % (opening, text, end) for text in written]


def writer(signed: bool, model: str, parameters: Mapping[str, Any], stream: bool = False) -> Write:
    """How requests of one model and one set of parameters are written.

    Raises:
        RowError: No model, `n` over 1, or a parameter that is none.
    """
    if not isinstance(model, str) or not model:
        raise RowError("the model must be a name")
    for name in (_OURS | _SIGNED if signed else _OURS) & parameters.keys():
        raise RowError(f"{name!r} is no parameter: it is set by the request itself")
    if parameters.get("n", 1) != 1:
        raise RowError("'n' is no parameter: each row has one answer (--repeat asks every row several times)")
    body: dict[str, Any] = {"model": model}
    if signed:
        temperature = parameters.get("temperature")
        body["temperature"] = 0.6 if temperature is None else temperature
        body["stream"] = stream
    elif stream:
        body["stream"] = True
    others = {name: parameters[name] for name in sorted(parameters) if not (signed and name == "temperature")}
    return Write(body, others)


def write_request(
    signed: bool, model: str, messages: Sequence[Message], parameters: Mapping[str, Any], stream: bool = False
) -> tuple[bytes, str]:
    """The body of a request, and the content of its last message; raises what `writer` and what that returns do."""
    return writer(signed, model, parameters, stream)(messages)


def _said(messages: Sequence[Message]) -> str | None:
    """The content of the last message, where all are plain dicts with a role and a text; else None."""
    content = None
    for message in messages:
        if type(message) is not dict or type(message.get("role")) is not str:
            return None
        content = message.get("content")
        if type(content) is not str:
            return None
    return content


def _last_content(messages: Sequence[Message]) -> str:
    if not messages:
        raise RowError("there are no messages")
    content = ""
    for number, message in enumerate(messages, 1):
        # A plain dict is told by its type alone: asking the abstract class costs more than all else here.
        if not (type(message) is dict or isinstance(message, Mapping)) or not isinstance(message.get("role"), str):
            raise RowError(f"message {number} is no object with a role")
        if message.get("content") is None and number < len(messages):
            continue  # an assistant's tool call in the middle of a conversation has no content
        try:
            content = content_of(message.get("content"))
            content.encode()
        except UnicodeEncodeError:
            raise RowError(f"message {number} holds half a surrogate pair, which UTF-8 cannot carry") from None
        except ValueError as error:
            raise RowError(f"message {number}: {error}") from None
    return content


def read_request(body: bytes) -> Asked:
    """A request as the gateway reads it, strictly.

    Raises:
        ValueError: It is malformed; the text says how.
    """
    data = exact.strict(body)
    model, messages, stream = data.get("model"), data.get("messages"), data.get("stream", False)
    if not isinstance(model, str) or not model:
        raise ValueError("'model' must be a name")
    if not isinstance(messages, list):
        raise ValueError("'messages' must be a list")
    if not isinstance(stream, bool):
        raise ValueError("'stream' must be true or false")
    try:
        content = _last_content(messages)
    except RowError as error:
        raise ValueError(str(error)) from None
    fields = {name: data[name] for name in _SIGNED & data.keys()}
    parameters = {name: value for name, value in data.items() if name not in _OURS | _SIGNED}
    return Asked(model, messages, content, stream, parameters, fields)
