"""Answers as data: the JSON in an answer, held against a JSON Schema, and asked for again where it does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import msgspec

from . import exact
from .errors import CallError, JobError, installed_by
from .records import KEY_BYTES, Answer, Prompt
from .wires import Wire, clean

FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
THOUGHT = "</think>"
"""What ends the thoughts of models that think aloud; what they try there is no answer."""

OPENINGS = re.compile(r"[\[{]")
EFFORT = 8
"""How often a text may be gone through in search of JSON: text that only looks like it could otherwise take minutes."""

SHOWN = 8
"""Errors that are told of one answer."""

AGAIN = """Your answer does not fit:
{errors}

It must be JSON that fits this JSON Schema:
{schema}

Answer again, with the corrected JSON alone."""

TYPES: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}


class Unfit(ValueError):
    """An answer that does not fit.

    Args:
        errors: What is wrong with it, each with its place.
    """

    def __init__(self, errors: list[str]) -> None:
        more = f"; and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        super().__init__(clean("the answer does not fit the schema: " + "; ".join(errors[:SHOWN]) + more))
        self.errors = errors


class Schema:
    """A JSON Schema that every answer must fit.

    Args:
        text: The schema; its draft is that of its `$schema`, else 2020-12. Nothing is fetched for a `$ref`.
        name: What messages call it.

    Raises:
        JobError: It is no JSON Schema, or jsonschema-rs is not installed.
    """

    def __init__(self, text: str, name: str = "--schema") -> None:
        if find_spec("jsonschema_rs") is None:
            raise JobError(f"--schema needs one more library: {installed_by('schema')}")
        import jsonschema_rs

        try:
            self._document: Any = json.loads(text)
            self._validator = jsonschema_rs.validator_for(self._document, validate_formats=True, retriever=_fetch_nothing)
        except RecursionError:
            raise JobError(f"{name}: nested too deeply") from None
        except ValueError as error:
            raise JobError(f"{name} is no JSON Schema: {clean(str(error).partition('Failed validating')[0])}") from None
        self.text = text
        properties = self._document.get("properties") if isinstance(self._document, dict) else None
        self._columns = {name: _type(one) for name, one in properties.items()} if isinstance(properties, dict) else {}
        self._digest = blake2b(exact.dumps(self._document), digest_size=KEY_BYTES).digest()

    def fit(self, answer: Answer) -> Any:
        """The value in an answer, numbers as they were written.

        Raises:
            Unfit: There is no JSON in it, or none that fits.
        """
        worst: list[str] = []
        for value in values(answer.text):
            errors = self._errors(value)
            if not errors:
                return value
            worst = worst or errors
        cut = " (it was cut at its token limit: raise --max-tokens)" if answer.finish_reason == "length" else ""
        raise Unfit(worst or ["there is no JSON in it" + cut])

    def _errors(self, value: Any) -> list[str]:
        try:
            found = self._validator.iter_errors(_plain(value))
            return [f"{_place(error.instance_path)}: {_short(error.message)}" for error in found]
        except UnicodeEncodeError:
            return ["$: half a surrogate pair in a text"]
        except InvalidOperation:
            return ["$: a number with an exponent beyond all measure"]
        except (ValueError, RecursionError):
            return ["$: nested too deeply"]

    def key(self, key: bytes) -> bytes:
        """What a row is known by that has an answer from before, which does not fit this schema, and is asked anew for it."""
        return blake2b(key + self._digest, digest_size=KEY_BYTES).digest()

    @property
    def columns(self) -> dict[str, type]:
        """The top-level properties and the types of their columns.

        Raises:
            JobError: It names none.
        """
        if not self._columns:
            raise JobError("--explode: the schema names no properties at its top")
        return self._columns

    def explode(self, value: Any) -> dict[str, Any]:
        """An answer's top-level properties, each for its column; null where it has none.

        Raises:
            Unfit: An integer is too large for a column.
        """
        members = value if isinstance(value, dict) else {}
        cells = {name: _cell(members.get(name), form) for name, form in self._columns.items()}
        for name, form in self._columns.items():
            if form is int and isinstance(cells[name], int) and not -(1 << 63) <= cells[name] < 1 << 63:
                raise Unfit([f"$.{name}: more than 64 bits, which a column of integers cannot hold"])
        return cells

    def again(self, prompt: Prompt, answer: Answer, unfit: Unfit) -> Prompt:
        """The prompt that asks once more: the conversation so far, and what is wrong with its last answer."""
        schema = exact.dumps(self._document).decode("utf-8")
        words = AGAIN.format(errors="\n".join(f"- {error}" for error in unfit.errors[:SHOWN]), schema=schema)
        body = exact.loads(prompt.body)
        said = [{"role": "assistant", "content": answer.text}] if answer.text else []
        body["messages"] = [*body["messages"], *said, {"role": "user", "content": words}]
        tokens = prompt.tokens + (len(answer.text) + len(words)) // 4
        return msgspec.structs.replace(prompt, body=exact.dumps(body), content=words, tokens=tokens)


def response_format(text: str, protocol: str, wanted: bool | None) -> dict[str, Any]:
    """The parameter that sends a schema along, empty where it is not sent.

    Args:
        text: The schema, or "".
        protocol: Of the endpoint; by default only `openai` is told.
        wanted: Whether to send it, where the job says.
    """
    if not text or not (protocol == "openai" if wanted is None else wanted):
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": exact.loads(text.encode())}}}


def judged(body: bytes, status: int | None, wire: Wire, schema: Schema | None) -> tuple[Answer, Any]:
    """A journaled answer, and the value in it, which is None without a schema.

    Raises:
        Unfit: It does not fit.
        CallError: The body is none of this protocol.
    """
    answer = wire.answer(body, status or 200, strictly=False)
    return answer, schema.fit(answer) if schema else None


def fits(body: bytes, status: int | None, wire: Wire, schema: Schema | None) -> bool:
    """Whether a journaled answer fits; one that did not fit an earlier schema may fit the one of now."""
    if not body:
        return False
    try:
        judged(body, status, wire, schema)
    except (Unfit, CallError):
        return False
    return True


def values(text: str) -> Iterator[Any]:
    """The JSON values in a text: the whole of it, in fenced code, or in the middle of chatter, in this order."""
    _, thought, rest = text.rpartition(THOUGHT)
    if thought and rest.strip():
        text = rest
    for candidate in (text, *(block[1] for block in FENCED.finditer(text))):
        try:
            yield exact.loads(candidate.strip().encode("utf-8", "surrogatepass"))
        except ValueError:
            continue
    yield from _embedded(text)


def _embedded(text: str) -> Iterator[Any]:
    """Objects and lists that stand anywhere in a text."""
    decoder = json.JSONDecoder(parse_float=exact.Number, parse_int=exact.integer, parse_constant=_refuse)
    at, effort = 0, EFFORT * len(text) + 4096
    while effort > 0 and (opening := OPENINGS.search(text, at)):
        start = opening.start()
        try:
            value, at = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            at = start + 1
            effort -= 64 + error.pos - start + start // 64  # finding out the line of an error goes through all before it
        except (ValueError, RecursionError):
            at = start + 1
            effort -= 4096
        else:
            yield value


def _plain(value: Any) -> Any:
    """A value with exact decimals, as the validator takes them."""
    if isinstance(value, exact.Number):
        return Decimal(value.literal)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _place(path: list[str | int]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "$" + "".join(steps)


def _short(message: str) -> str:
    return message if len(message) <= 160 else f"{message[:100]}…{message[-59:]}"


def _type(property_: Any) -> type:
    """The type of the column that holds a property: text where several or nested ones are allowed."""
    if not isinstance(property_, Mapping):
        return str
    forms = property_.get("type")
    if forms is None and isinstance(options := property_.get("anyOf", property_.get("oneOf")), list):
        forms = [option.get("type") if isinstance(option, dict) else None for option in options]
    told = {forms} if isinstance(forms, str) else set(map(str, forms or ()))
    (one,) = told - {"null"} if len(told - {"null"}) == 1 else {""}
    return TYPES.get(one, str)


def _cell(value: Any, form: type) -> Any:
    if form is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 3.0 is an integer to JSON Schema
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is another document, and none is fetched; put it into the schema's $defs")
