"""A row and a template become a request and its key."""

from __future__ import annotations

import difflib
import re
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import JobError, RowError
from .exact import dumps, loads
from .records import KEY_BYTES, TEXT_PARAMETERS, Row
from .wires import Wire, Write

MAX_PROMPT = 16 * 2**20
"""Characters a rendered text may have; a template of 19 characters can otherwise make 10^8 of them."""

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


def _said(value: Any) -> Any:
    """A value as a template prints it: JSON's words for JSON's values, so that nothing turns into Python on the way."""
    if isinstance(value, (str, StrictUndefined)):
        return value
    if value is None:
        raise RowError("a value used by the template is null (write {{ column or '' }} to allow that)")
    if isinstance(value, (bool, dict, list)):
        return dumps(value).decode("utf-8")
    if isinstance(value, Iterator) or callable(value):
        # Their words hold an address, so the row would be another one in every run.
        raise RowError(f"the template prints a {type(value).__name__}, which is no value (write | list or | join after it)")
    return value


class _Columns(StrictUndefined):
    """What `row` is where no column is called so: its items are the columns, and all else fails as any missing column does."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(name="row")
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name] if name in self._values else StrictUndefined(name=name)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # so that Jinja2 takes row.name for row["name"]

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self._values)

    def __contains__(self, name: object) -> bool:  # type: ignore[override]
        return name in self._values


def _columns(source: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a template knows beside the columns; most do not name it."""
    return {"row": _Columns(values)} if "row" in source and "row" not in values else {}


_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_said, keep_trailing_newline=True)
_environment.filters["json"] = lambda value: dumps(value).decode("utf-8")


class Text:
    """A Jinja2 text over a row's columns, sandboxed; a column that a row does not have is an error of that row.

    ``row["Customer Name"]`` is the column of that name, unless there is a column ``row``.

    Args:
        source: The template.
        name: What messages call it, such as ``--template``.

    Raises:
        JobError: It is no template; the text names the line.
    """

    def __init__(self, source: str, name: str) -> None:
        try:
            self._template = _environment.from_string(source)
        except TemplateSyntaxError as error:
            raise JobError(f"{name}, line {error.lineno}: {error.message}{_spaced(source, error)}") from None
        self._source = source
        self.name = name

    def __call__(self, values: Mapping[str, Any]) -> str:
        """The text for one row.

        Raises:
            RowError: A column is missing or null, or the text grows past `MAX_PROMPT`.
        """
        try:
            parts, length = [], 0
            for part in self._template.generate(values, **_columns(self._source, values)):
                length += len(part)
                if length > MAX_PROMPT:
                    raise RowError(f"{self.name} renders to more than {MAX_PROMPT >> 20} Mi characters")
                parts.append(part)
        except UndefinedError as error:
            raise RowError(_undefined(error, values, "{{ %s }}")) from None
        except RowError:
            raise
        except Exception as error:  # whatever a filter raises on a value it was not made for
            raise RowError(f"{self.name} fails on this row: {error}") from None
        return "".join(parts)


class Condition:
    """A Jinja2 expression over a row's columns, such as ``lang == 'de'`` or ``row["First language"] == 'de'``.

    Raises:
        JobError: It is no expression.
    """

    def __init__(self, source: str) -> None:
        try:
            self._expression = _environment.compile_expression(source, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise JobError(f"--where: {error.message}{_left_over(source)}") from None
        self._source = source

    def __call__(self, values: Mapping[str, Any]) -> bool:
        """Whether the row is wanted.

        Raises:
            RowError: It cannot be told, for a column is missing or does not compare.
        """
        try:
            return bool(self._expression(values, **_columns(self._source, values)))
        except UndefinedError as error:
            raise RowError(_undefined(error, values, "%s")) from None
        except Exception as error:
            raise RowError(f"--where fails on this row: {error}") from None


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
        self._template = Text(template, "the template") if template else None
        self._system = Text(system, "the system message") if system else None
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
        key = self._seed.copy()
        key.update(written)
        size = 0
        for message in messages:
            if isinstance(said := message.get("content"), str):
                size += len(said)
        return Request(key.digest(), written, content, size // CHARACTERS_A_TOKEN + answer, answer)

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
            several = self._messages_too and not _separated(tuple(values))
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


def missing_column(name: str, values: Iterable[str], written: str = "") -> str:
    """The words for a column that is not there, with the one that may have been meant and those that are.

    Args:
        name: What was asked for.
        values: The columns that are there.
        written: How an expression is written in that place, with ``%s`` for itself; "" where none is understood.
    """
    return _missing_column(name, tuple(values), written)


@lru_cache(64)  # for a file of rows that all lack it
def _missing_column(name: str, columns: tuple[str, ...], written: str) -> str:
    if how := _separated(columns):
        return f"no column {name!r}; the only one is {columns[0]!r}: {how}"
    near = difflib.get_close_matches(name, columns, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    if near and written and not near[0].isidentifier():
        meant += f"write {written % _item(near[0])}; "
    return f"no column {name!r}; {meant}the columns are {', '.join(map(repr, columns)) or 'none'}"


def _separated(columns: tuple[str, ...]) -> str:
    """What to do about a table whose only column looks like several with another separator, or nothing."""
    if len(columns) != 1:
        return ""
    for sign, what, remedy in (
        ("\t", "tabs", "name it .tsv, or give --input-format tsv"),
        (";", "';'", "save it with commas as .csv, or with tabs as .tsv"),
        ("|", "'|'", "save it with commas as .csv, or with tabs as .tsv"),
        (",", "commas", "name it .csv, or give --input-format csv"),
    ):
        if re.search(rf"\S{re.escape(sign)}\S", columns[0]):  # with a space it is punctuation, not a separator
            return f"the file seems to be separated by {what}; {remedy}"
    return ""


def _item(name: str) -> str:
    return f"row[{dumps(name).decode('utf-8')}]"


def _spaced(source: str, error: TemplateSyntaxError) -> str:
    """What to do about a template that does not parse because a column's name has spaces or begins with a digit."""
    if "end of print statement" not in str(error.message):
        return ""
    names = re.findall(r"\{\{-?\s*(\w[\w ]*?)\s*-?\}\}", source.split("\n")[error.lineno - 1])
    name = next((name for name in names if not name.isidentifier()), "")
    return f" (a column of that name is written {{{{ {_item(name)} }}}})" if name else ""


def _left_over(source: str) -> str:
    """What to do about an expression that does not parse, where that shows."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", source)
    if re.search(r"(?<![=!<>])=(?!=)", bare):
        return " (write == to compare; cells of CSV and TSV are texts, as in id == '3')"
    if found := re.match(r"\s*(\w+(?: +\w+)+)\s*(?:[=!<>]=|[<>]|$)", bare):
        return f" (a column of that name is written {_item(found[1])})"
    return ""


def _undefined(error: UndefinedError, values: Iterable[str], written: str) -> str:
    message = error.message or "undefined"
    try:
        name = literal_eval(message.removesuffix(" is undefined"))
    except (ValueError, SyntaxError):  # it is not a name alone that is undefined
        name = None
    if isinstance(name, str):
        return missing_column(name, values, written)
    return f"the template asks for something a value does not have: {message}"


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
