"""A row and a template become a request and its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RowError
from ..exact import loads
from ..records import KEY_BYTES, TEXT_PARAMETERS, Row
from ..wires import Wire, Write
from .columns import MAX_PROMPT, missing_column, separated

if TYPE_CHECKING:
    from .template import Condition, Text

CHARACTERS_A_TOKEN = 4
ANSWER_TOKENS = 256
"""What an answer is taken to need while nothing says otherwise; settled from `usage` afterwards."""


class Request(NamedTuple):
    """What is sent for one row, and the key it is known by.

    Attributes:
        tokens: Estimated tokens, prompt and answer together.
        answer_tokens: Those of them that the answer is taken to need.
    """

    key: bytes
    body: bytes
    content: str
    tokens: int
    answer_tokens: int = 0


def text(source: str, name: str) -> Text:
    """A template; only who has one waits for Jinja2.

    Raises:
        JobError: It is no template.
    """
    from .template import Text

    return Text(source, name)


def condition(source: str) -> Condition:
    """What ``--where`` says; only who says something waits for Jinja2.

    Raises:
        JobError: It is no expression.
    """
    from .template import Condition

    return Condition(source)


class Prompts:
    """Rows to requests, for one job.

    Args:
        wire: How the protocol writes a request.
        identity: What the endpoint counts as.
        model: The job's model; a row may name its own.
        insist: Whether the job's model is asked even where an OpenAI batch line names another.
        template: Jinja2 text of the user message; without one the column is taken as it is.
        column: The column to take when there is no template.
        system: Jinja2 text of a system message, or "".
        parameters: Members of every request body.
        row_params: Columns that override them.

    Raises:
        JobError: A template does not parse.
    """

    def __init__(
        self,
        wire: Wire,
        identity: str,
        *,
        model: str = "",
        template: str = "",
        column: str = "",
        system: str = "",
        parameters: Mapping[str, Any] | None = None,
        row_params: Iterable[str] = (),
        insist: bool = False,
    ) -> None:
        self._writer = wire.writer
        self._own: tuple[Write, int] | None = None
        self._seed = blake2b(f"{wire.name}\0{identity}\0".encode(), digest_size=KEY_BYTES)
        self._model = model
        self._template = text(template, "the template") if template else None
        self._system = text(system, "the system message") if system else None
        self._parameters = dict(parameters or {})
        self._row_params = tuple(row_params)
        self._column = column or "prompt"
        self._messages_too = not template and not column
        self._insist = insist

    def __call__(self, row: Row) -> Request:
        """What is sent for `row`.

        Raises:
            RowError: It cannot be asked: unreadable, a column missing or null, an empty prompt, a parameter that does not read.
        """
        if row.problem:
            raise RowError(row.problem)
        values = row.values
        model, parameters = self._model, self._parameters
        if self._row_params:
            model, parameters = self._overridden(values)
        if self._messages_too and (body := _batch_line(values)) is not None:
            named = body.pop("model", "")
            model = model if model and self._insist else named or model
            messages = self._with_system(_messages(body.pop("messages", None)), values)
            parameters = {**parameters, **body}
        else:
            messages = self._asked(values)
        if not model:
            raise RowError("no model: give --model, or a column 'model' with --row-params model")
        write, answer = self._written(model, parameters)
        written, content = write(messages)
        size = 0
        for message in messages:
            if isinstance(said := message.get("content"), str):
                size += len(said)
        return Request(self._key(written), written, content, size // CHARACTERS_A_TOKEN + answer, answer)

    def several(self, rows: Sequence[Row]) -> list[Request] | None:
        """What is sent for each of several rows, faster; None where it is not plain that each is its column."""
        if self._template or self._system or self._row_params or not self._model:
            return None
        name = self._column
        # A column that a row has is asked, also where the job has not named it.
        texts: list[str] = [row.values.get(name) for row in rows]  # type: ignore[misc]
        if set(map(type, texts)) != {str} or not all(map(str.strip, texts)):
            return None
        sizes = list(map(len, texts))
        try:
            write, answer = self._written(self._model, self._parameters)
        except RowError:
            return None
        bodies = write.texts(texts) if max(sizes) <= MAX_PROMPT else None
        if bodies is None:
            return None
        tokens = [size // CHARACTERS_A_TOKEN + answer for size in sizes]
        return list(map(Request, map(self._key, bodies), bodies, texts, tokens, repeat(answer)))

    def _key(self, body: bytes) -> bytes:
        key = self._seed.copy()
        key.update(body)
        return key.digest()

    def _written(self, model: str, parameters: dict[str, Any]) -> tuple[Write, int]:
        """How a request is written, and how many tokens its answer may have; made once for rows without their own."""
        if parameters is not self._parameters or model is not self._model:
            return self._writer(model, parameters), _answer_tokens(parameters)
        if self._own is None:
            self._own = self._writer(model, parameters), _answer_tokens(parameters)
        return self._own

    def _asked(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._template:
            content = self._template(values)
        elif self._messages_too and "messages" in values and "prompt" not in values:
            return self._with_system(_messages(values["messages"]), values)
        else:
            content = self._cell(values)
        if not content.strip():
            raise RowError("the prompt is empty")
        return self._with_system([{"role": "user", "content": content}], values)

    def _cell(self, values: Mapping[str, Any]) -> str:
        if self._column not in values:
            several = self._messages_too and not separated(tuple(values))
            unnamed = "; name one with --prompt-column, or several with --template" if several else ""
            raise RowError(missing_column(self._column, values) + unnamed)
        value = values[self._column]
        if value is None:
            raise RowError(f"column {self._column!r} is null (use --where to leave such rows out)")
        if not isinstance(value, str):
            raise RowError(f"column {self._column!r} is no text (use --template '{{{{ {self._column} }}}}' to write it as one)")
        if not value.strip():
            raise RowError(f"column {self._column!r} is empty (use --where to leave such rows out)")
        if len(value) > MAX_PROMPT:
            raise RowError(f"column {self._column!r} has more than {MAX_PROMPT >> 20} Mi characters")
        return value

    def _with_system(self, messages: list[dict[str, Any]], values: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._system:
            return [{"role": "system", "content": self._system(values)}, *messages]
        return messages

    def _overridden(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        model, parameters = self._model, dict(self._parameters)
        for name in self._row_params:
            if name not in values:
                continue
            cell = values[name]
            if cell is None or cell == "":
                continue
            if name == "model":
                model = str(cell)
            elif isinstance(cell, str) and name not in TEXT_PARAMETERS:
                parameters[name] = _parameter(name, cell)
            else:
                parameters[name] = cell
        return model, parameters


def _answer_tokens(parameters: Mapping[str, Any]) -> int:
    limit = parameters.get("max_tokens") or parameters.get("max_completion_tokens")
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < 2**31 else ANSWER_TOKENS


def _batch_line(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """A copy of the request in an OpenAI batch line (`custom_id`, `method`, `url`, `body`); None where the row is none."""
    if "custom_id" not in values or "prompt" in values or "messages" in values or not {"url", "body"} & values.keys():
        return None
    url, body = values.get("url"), values.get("body")
    if url is not None and not str(url).endswith("/chat/completions"):
        raise RowError(f"url {str(url)[:60]!r}: only chat completions are asked")
    if isinstance(body, str):
        try:
            body = loads(body.encode("utf-8"))
        except (ValueError, UnicodeEncodeError) as error:
            raise RowError(f"'body' is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise RowError("'body' is no object: an OpenAI batch line has its request there")
    return {name: value for name, value in body.items() if name != "stream" or value}


def _parameter(name: str, cell: str) -> Any:
    try:
        return loads(cell.encode("utf-8"))
    except (ValueError, UnicodeEncodeError):
        if name == "stop":
            return cell
        raise RowError(f"column {name!r} is no JSON value: {cell[:60]!r}") from None


def _messages(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        try:
            value = loads(value.encode("utf-8"))
        except (ValueError, UnicodeEncodeError) as error:
            raise RowError(f"column 'messages' is no JSON: {error}") from None
    if not isinstance(value, list) or not value:
        raise RowError("column 'messages' is no list of messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise RowError("column 'messages': every message needs a role and content")
    return value
