"""Templates and conditions over a row's columns, in Jinja2."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import JobError, RowError
from ..exact import dumps
from .columns import MAX_PROMPT, item, missing_column


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


def _spaced(source: str, error: TemplateSyntaxError) -> str:
    """What to do about a template that does not parse because a column's name has spaces or begins with a digit."""
    if "end of print statement" not in str(error.message):
        return ""
    names = re.findall(r"\{\{-?\s*(\w[\w ]*?)\s*-?\}\}", source.split("\n")[error.lineno - 1])
    name = next((name for name in names if not name.isidentifier()), "")
    return f" (a column of that name is written {{{{ {item(name)} }}}})" if name else ""


def _left_over(source: str) -> str:
    """What to do about an expression that does not parse, where that shows."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", source)
    if re.search(r"(?<![=!<>])=(?!=)", bare):
        return " (write == to compare; cells of CSV and TSV are texts, as in id == '3')"
    if found := re.match(r"\s*(\w+(?: +\w+)+)\s*(?:[=!<>]=|[<>]|$)", bare):
        return f" (a column of that name is written {item(found[1])})"
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
