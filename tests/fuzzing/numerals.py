"""JSON as it was written: what is read can be written and read again, and every number keeps its own digits."""

from __future__ import annotations

import json
import pickle
import re

from batch import exact

from .jsonl import leaves, same, standard

SEEDS = [
    b'[0.10, 1e5, 1E+5, -0.0, 9007199254740993, 123456789012345678901234567890, 1e400, -1e-400, 0, -0, "\\ud800", "\xc3\xa9"]',
    b'{"a":{"b":[null,true,false,[]]},"":{}}',
    b'{"a":1,"a":2}',
    b"[NaN,Infinity]",
    b"1" * 4400,
    b"[" * 2000,
    b'{"a":' * 230 + b"1" + b"}" * 230,
    b'"\\ud83d\\ude00\\ude00\x7f"',
    b"\xef\xbb\xbf1",
]
WORDS = [
    b"0.10",
    b"1e5",
    b"E+",
    b"-0",
    b"-0.0",
    b"9007199254740993",
    b"1e400",
    b"NaN",
    b"Infinity",
    b"\\ud83d\\ude00",
    b"\\u0000",
    b'{"":',
    b"[[",
]
NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def check(data: bytes) -> None:
    """The bytes are one JSON value."""
    told = standard(data)
    try:
        value = exact.loads(data)
    except ValueError as error:
        assert told is ... and str(error)
        return
    finally:
        strict(data)
    assert same(value, told)
    written = exact.dumps(value)
    assert same(exact.loads(written), value if told is ... else told)
    numbers = [str(leaf) for leaf in leaves(value) if isinstance(leaf, (int, float)) and not isinstance(leaf, bool)]
    if b'"' not in data:
        assert [number.decode() for number in NUMBER.findall(data)] == numbers
        assert NUMBER.findall(written) == [number.encode() for number in numbers]
    assert same(pickle.loads(pickle.dumps(value)), told)


def strict(data: bytes) -> None:
    """Bodies from another machine are read as objects, or refused in words; what is read has each key once."""
    try:
        value = exact.strict(data)
    except ValueError as error:
        assert str(error).isprintable() and str(error)
    else:
        assert json.loads(data) == value
