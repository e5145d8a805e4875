"""JSON Lines: a row for every line, its own bytes kept, its values those of the standard library, its numbers as written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from batch import exact
from batch.formats.jsonl import splice
from tests.formats.tables import read, seen, written

SEEDS = [
    b'\x00{"a":9007199254740993,"b":0.10,"c":1e5,"d":"007","e":null,"f":"\xe2\x80\xa8","g":"\\ud800","h":{"i":[0.10]}}\n{"d":"NA"}',
    b'\x11{"a":1}\n{"a":\n[1]\n\n"x"\r\n{"a":2}\nnull\n{"a":3',
    b'\x02\xef\xbb\xbf {"a" : 1 }\r\n\t{}\n{"a":1,"a":2}\n',
    b'\x05{"a":NaN}\n{"a":-0}\n{"a":123456789012345678901234567890}\n{"a":1e400}\n',
    b'\x23{"caf\xe9":1}\n',
    b'\x03{"a":"\xc3',
    b"\x04" + b'{"a":' * 250 + b"1" + b"}" * 250,
]
WORDS = [
    b'{"',
    b'":',
    b'"}',
    b"\n",
    b"\r\n",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"NaN",
    b"-0",
    b"1e5",
    b"0.10",
    b"\\u",
    b"\\ud800",
    b'\\"',
]
BLANK = b" \t\r"


def check(data: bytes) -> None:
    """The first byte tells the size of the blocks and of the chunks; the others are the file."""
    options, data = data[0] if data else 0, data[1:]
    block, rows = 1 + (options & 31), 1 + (options >> 5)
    found, error = seen(data, "jsonl")
    again, other = seen(data, "jsonl", block=block, rows=rows)
    assert again == found, "blocks and chunks make a difference"
    assert other.partition("--encoding")[0] == error.partition("--encoding")[0]  # a mark is recognised when it is there whole
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip(BLANK)]
    places = [f"prompts.jsonl, line {number}" for number, _ in numbered]
    assert [place for _, place, *_ in found] == (places[: len(found)] if error else places)
    if not error:
        chunks = read(data, "jsonl", block=block, rows=rows)
        assert written(chunks, [], "jsonl") == b"".join(line + b"\n" for _, line in numbered)
    for (_, line), (_, _, values, problem, _) in zip(numbered, found, strict=False):
        told = standard(line)
        if problem:
            assert type(told) is not dict or "deep" in problem, problem
            continue
        assert same(values, told), (values, told)
        members = {name: '}"' for name in ("response", "error") if name not in values}
        after = splice(line, members)
        assert after.startswith(line[: line.rindex(b"}")]) and same(exact.loads(after), {**told, **members})


class Literal(str):
    """A number as it is written."""


def standard(line: bytes) -> Any:
    """What the standard library reads, numbers as they are written; `...` where it reads nothing."""
    try:
        return json.loads(line.decode(), parse_float=Literal, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return ...


def _integer(literal: str) -> Literal | int:
    return Literal(literal) if literal == "-0" else int(literal)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def same(value: Any, told: Any) -> bool:
    """Whether two values are the same, in all their members and their order, and numbers in how they are written."""
    if isinstance(told, Literal):
        return type(value) is exact.Number and value.literal == told and str(value) == told
    if type(value) is not type(told):
        return False
    if isinstance(told, dict):
        return list(value) == list(told) and all(same(value[name], told[name]) for name in told)
    if isinstance(told, list):
        return len(value) == len(told) and all(map(same, value, told))
    return bool(value == told)


def leaves(value: Any) -> Iterator[Any]:
    """The values in a value that hold no others, and the names of members."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value
