"""JSON and numbers exactly as they were written."""

from __future__ import annotations

import contextlib
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch import exact

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("literal", ["0.10", "1e5", "-0.0", "1E400", "0.1000000000000000055511151231257827"])
def test_a_number_prints_as_it_was_written(literal: str) -> None:
    number = exact.loads(literal.encode())
    assert str(number) == f"{number}" == literal
    assert exact.dumps([number]) == f"[{literal}]".encode()
    assert str(pickle.loads(pickle.dumps(number))) == literal


def test_a_number_still_computes() -> None:
    assert exact.loads(b"0.10") * 2 == 0.2
    assert f"{exact.loads(b'2.50'):.1f}" == "2.5"


@pytest.mark.parametrize("number", [2**53 + 1, 2**64, 10**40, -(10**40)])
def test_large_integers_stay_whole(number: int) -> None:
    assert exact.loads(str(number).encode()) == number
    assert exact.dumps(number) == str(number).encode()


def test_half_a_surrogate_pair_survives() -> None:
    assert exact.loads(b'"\\ud83d"') == "\ud83d"
    assert exact.dumps("\ud83d") == b'"\\ud83d"'


@given(JSON)
def test_what_is_written_reads_back(value: Any) -> None:
    assert exact.loads(exact.dumps(value)) == value


@given(st.binary() | st.text().map(str.encode))
def test_loading_anything_raises_value_errors_alone(line: bytes) -> None:
    with contextlib.suppress(ValueError):
        exact.loads(line)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1, "a": 2}', "the same key twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "a list instead of an object"),
        (b'{"a": 1', "not JSON"),
    ],
)
def test_a_strange_body_is_refused_with_its_reason(body: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        exact.strict(body)


def test_brackets_in_strings_are_not_nesting() -> None:
    assert exact.strict(json.dumps({"code": "[" * 1000}).encode()) == {"code": "[" * 1000}


forms = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False}])


@given(st.dictionaries(st.text(), JSON, max_size=4), forms)
def test_a_strict_body_is_what_the_standard_library_reads(members: dict[str, object], form: dict[str, Any]) -> None:
    found = exact.strict(json.dumps(members, **form).encode())

    assert found == members
    assert repr(found) == repr(json.loads(json.dumps(members)))  # types and order, too


@given(st.text(), JSON, JSON, forms)
def test_a_key_twice_is_found_at_any_depth_and_in_any_form(
    name: str, first: object, second: object, form: dict[str, Any]
) -> None:
    key, one, other = (json.dumps(value, **form) for value in (name, first, second))

    for body in (f"{{{key}:{one},{key}:{other}}}", f'{{"a": [{{{key}: {one}, "b": 1, {key}: {other}}}]}}'):
        if key == '"b"':
            continue
        with pytest.raises(ValueError, match="the same key twice"):
            exact.strict(body.encode())


@given(
    st.lists(
        st.sampled_from([b"{}", b'{"a":1}', b'{"a":[{}', b'{}]}{"b":2}', b"", b"[]", b'{"a":-0}', b"{}{}", b'{"a":0.10} \r'])
        | st.dictionaries(st.text(), JSON, max_size=2).map(exact.dumps)
    )
)
def test_lines_read_at_once_are_those_read_singly(lines: list[bytes]) -> None:
    found = exact.objects(lines)

    if found is not None:
        assert repr(found) == repr([exact.loads(line) for line in lines])


@given(st.lists(JSON | st.just("\ud800") | st.just(2**80)))
def test_values_written_at_once_are_those_written_singly(values: list[Any]) -> None:
    each = [exact.utf8(value) for value in values]

    assert exact.lines(values) == (None if None in each else each)
