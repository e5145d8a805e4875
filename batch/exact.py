"""JSON and numbers exactly as they were written.

`0.10` stays `0.10`, 2^53+1 stays 2^53+1, and half a surrogate pair (which JSON can write and UTF-8 cannot) survives.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

MAX_DEPTH = 200
"""How deeply a server's body may nest; the deepest honest chat completion stays under 20."""


MINUS_ZERO = re.compile(rb"-0(?![0-9.eE])")
"""The one integer that Python's `int` cannot hold as it was written."""


class Number(float):
    """A JSON number with a point or an exponent, or `-0`: computes as a float, prints as it was written."""

    __slots__ = ("literal",)
    literal: str

    def __new__(cls, literal: str) -> Number:
        """A number from its literal."""
        number = super().__new__(cls, literal)
        number.literal = literal
        return number

    def __str__(self) -> str:
        return self.literal

    def __repr__(self) -> str:
        return self.literal

    def __format__(self, spec: str) -> str:
        return float.__format__(self, spec) if spec else self.literal

    def __reduce__(self) -> tuple[type[Number], tuple[str]]:
        return Number, (self.literal,)


def integer(literal: str) -> Number | int:
    """An integer as it was written, which `int` cannot hold of `-0`."""
    return Number(literal) if literal == "-0" else int(literal)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        return msgspec.Raw(value.literal.encode())
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


_fast = msgspec.json.Decoder(float_hook=Number)
_lines = msgspec.json.Decoder(dict[str, Any], float_hook=Number).decode_lines
_encoder = msgspec.json.Encoder(enc_hook=_plain)
_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


def loads(line: bytes) -> Any:
    """One JSON value, numbers as `Number` where they have a point or an exponent, or are `-0`.

    Args:
        line: UTF-8 bytes.

    Raises:
        ValueError: It is not JSON; the text says why in a few words.
    """
    try:
        if b"-0" not in line or not MINUS_ZERO.search(line):
            return _fast.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # lone surrogates are JSON but not msgspec's; the standard library knows them, and names the column
    try:
        return json.loads(line.decode("utf-8"), parse_float=Number, parse_int=integer, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise _told(error) from None


def objects(lines: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """What `loads` makes of each of several lines, at a fraction of the time; None where it is not plain that all are objects.

    Args:
        lines: UTF-8 bytes without a line feed in them.
    """
    text = b"\n".join(lines)
    # Between two lines nothing but a value's end and the next one's start has these signs, so no value goes over a line's end.
    if text.count(b"}\n{") != len(lines) - 1 or text[:1] != b"{" or (b"-0" in text and MINUS_ZERO.search(text)):
        return None
    try:
        found = _lines(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if len(found) == len(lines) else None


def _told(error: ValueError) -> ValueError:
    """Python's own words about numbers of absurd length are advice for programmers."""
    return ValueError("a number of thousands of digits") if "digits" in str(error) else error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("the same key twice")
    return members


def strict(body: bytes) -> dict[str, Any]:
    """A body from another machine: one JSON object, read strictly.

    Raises:
        ValueError: Not UTF-8, not JSON, NaN or Infinity, a key twice, numbers of absurd length, nested more than `MAX_DEPTH`
            deep, or not an object; the text says which.
    """
    value = None if b"\\u" in body else _same(body)  # an escape is hardly ever written as it was
    if value is None:
        value = _pedantic(body)
    if not isinstance(value, dict):
        raise ValueError(f"JSON, but {'null' if value is None else 'a ' + type(value).__name__} instead of an object")
    # Counting brackets overstates the depth by those inside strings, so only a suspicious body is measured.
    if max(body.count(b"["), body.count(b"{")) > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value


def _same(body: bytes) -> Any:
    """What a body holds, where writing that gives the very body again, but for white space; else None.

    Such a body has no key twice, for the second one would be missing, and nothing else that is not strict: it takes a third of
    the time to show that than to look at every pair.
    """
    try:
        value = _read(body)
        written = _write(value)
        return value if written == body or written == msgspec.json.format(body, indent=-1) else None
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None


def _pedantic(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise _told(error) from None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            break
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return depth


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; `Number`s as they were written, NaN as null, ASCII escapes only where a lone surrogate needs them.

    Raises:
        ValueError: The value has no JSON form: an object of a type JSON does not know.
    """
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, OverflowError):
        pass  # lone surrogates and integers beyond 64 bits: the standard library writes both
    except TypeError as error:
        raise ValueError(str(error)) from None
    try:
        return _written(value).encode("ascii")
    except TypeError as error:
        raise ValueError(str(error)) from None


def utf8(value: Any) -> bytes | None:
    """What `dumps` writes, if that is UTF-8 without escapes; else None, also for what has no JSON form."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def lines(values: Sequence[Any]) -> list[bytes] | None:
    """What `utf8` writes of each of several values, faster; None where it writes nothing of one of them."""
    try:
        return _encoder.encode_lines(values).split(b"\n")[:-1]  # no JSON that is written here has a line feed in it
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _written(value: Any) -> str:
    """What `json.dumps` writes, but for the numbers."""
    if isinstance(value, Number):
        return value.literal
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(name))}:{_written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return json.dumps(value)
