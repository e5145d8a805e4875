"""JSON Lines keep their own bytes, and every line its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch import exact, formats
from batch.errors import InputError, JobError
from batch.formats import MISSING
from batch.formats.jsonl import splice, split

from .tables import copy, read, rows_of, seen, values_of, written

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(st.characters(), max_size=4), VALUES, max_size=4)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    value = draw(OBJECTS)
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "  :\r")]))
    line = json.dumps(value, separators=separators)
    return (draw(st.sampled_from(["", " ", "\t"])) + line + draw(st.sampled_from(["", " ", "\r", " \r"]))).encode()


@given(lines(), st.dictionaries(st.text("rx", min_size=1), VALUES, max_size=3))
def test_any_line_survives_byte_for_byte(line: bytes, members: dict[str, Any]) -> None:
    before = exact.loads(line)
    members = {name: value for name, value in members.items() if name not in before}
    after = splice(line, members)
    brace = line.rindex(b"}")
    assert after.startswith(line[:brace])
    assert after.endswith(line[brace:])
    assert b"\n" not in after
    assert json.dumps(exact.loads(after)) == json.dumps({**before, **members})


@given(st.lists(lines() | st.sampled_from([b"", b" ", b"{", b"[1]", b"7", b"null", b'{"a":1}x', b"\x00"])), st.integers(1, 50))
def test_as_many_rows_come_out_as_went_in(all_lines: list[bytes], block: int) -> None:
    data = b"\n".join(all_lines)
    chunks = read(data, "jsonl", block=block, rows=3)
    raw = [line for chunk in chunks for line in chunk.raw]
    expected = [line for line in all_lines if line.strip()]
    assert raw == expected
    assert [row.number for chunk in chunks for row in chunk.rows()] == list(range(len(expected)))
    for chunk in chunks:
        for position, row in enumerate(chunk.rows()):
            line = chunk.raw[position]
            if row.problem:
                assert chunk.raw_input[position] == line.decode().removesuffix("\r")
            else:
                assert json.dumps(row.values) == json.dumps(exact.loads(line))
    assert written(chunks, [], "jsonl") == b"".join(line + b"\n" for line in expected)


@given(st.binary(max_size=60) | st.text('{}[]":,a1\n é').map(str.encode), st.integers(1, 9), st.integers(1, 3))
def test_any_bytes_are_read_or_refused_in_words(data: bytes, block: int, rows: int) -> None:
    assert seen(data, "jsonl", block=block, rows=rows) == seen(data, "jsonl")


@given(st.binary(), st.integers(1, 9))
def test_lines_end_at_line_feeds_alone(data: bytes, block: int) -> None:
    blocks = [data[at : at + block] for at in range(0, len(data), block)]
    found = [line for some, _ in split(blocks) for line in some]
    assert b"\n".join(found) == data.removesuffix(b"\n")


def test_values_stay_as_they_were_written() -> None:
    line = '{"a":9007199254740993,"b":0.10,"c":1e5,"d":"007","e":null,"f":"\u2028\x85","g":"\\ud800","h":{"i":[0.10]}}'
    (chunk,) = read(line.encode() + b'\n{"d":"NA"}', "jsonl")
    first, second = chunk.rows()
    assert first.values["a"] == 2**53 + 1
    assert [str(first.values[name]) for name in "bcd"] == ["0.10", "1e5", "007"]
    assert (first.values["e"], first.values["f"], first.values["g"]) == (None, "\u2028\x85", "\ud800")
    assert exact.dumps(first.values["h"]) == b'{"i":[0.10]}'
    assert second.values == {"d": "NA"}
    assert chunk.frame["a"].tolist() == [2**53 + 1, MISSING]
    assert chunk.frame["e"].tolist() == [None, MISSING]
    assert chunk.frame.dtypes.tolist() == [object] * 8


def test_bad_lines_are_error_rows_with_their_text() -> None:
    data = b'{"a":1}\n{"a":\n[1]\n\n"x"\r\n{"a":2}\nnull\n{"a":3'
    (chunk,) = read(data, "jsonl")
    assert [row.place for row in chunk.rows()] == [f"prompts.jsonl, line {line}" for line in (1, 2, 3, 5, 6, 7, 8)]
    assert chunk.problems == {
        1: "not JSON: Expecting value at character 6",
        2: "JSON, but a list instead of an object",
        3: "JSON, but a text instead of an object",
        5: "JSON, but null instead of an object",
        6: "not JSON: Expecting ',' delimiter at character 7",
    }
    assert chunk.raw_input == {1: '{"a":', 2: "[1]", 3: '"x"', 5: "null", 6: '{"a":3'}


def test_of_a_key_twice_the_last_value_counts() -> None:
    (chunk,) = read(b'{"a":1,"a":2}', "jsonl")
    assert chunk.frame["a"].tolist() == [2]


def test_a_byte_order_mark_is_nothing() -> None:
    for block in (1, 2, 100):
        (chunk,) = read(b'\xef\xbb\xbf{"a":1}\n', "jsonl", block=block)
        assert chunk.raw == [b'{"a":1}']


def test_bytes_that_are_not_utf8_are_refused_but_a_torn_character_at_the_end_is_an_error_row() -> None:
    data = '{"a":"é"}\n{"a":"é"}'.encode()
    for block in (1, 3, 100):
        found, error = seen(data.replace(b"\xc3\xa9", b"\xe9"), "jsonl", block=block)
        assert error.startswith("InputError: prompts.jsonl is not UTF-8: byte 6 (from 0) is wrong")
        found, error = seen(data[:-3], "jsonl", block=block)
        assert error == ""
        assert found[1][4] == '{"a":"\ufffd'
    assert "byte 17 " in seen(data[:-3] + b"\n", "jsonl")[1]


def test_other_encodings_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a":"é"}\n{"a":"x"}\n'.encode("utf-16"))
    assert values_of(path, encoding="utf-16") == [{"a": "é"}, {"a": "x"}]


def test_a_giant_line_is_refused() -> None:
    found, error = seen(b'{"a":1}\n{"a":"' + b"x" * (17 << 20), "jsonl")
    assert error == "InputError: prompts.jsonl, line 2: a line of more than 16 MiB; is this JSON Lines?"
    assert found[0][2] == {"a": 1}


def test_deep_nesting_is_an_error_row() -> None:
    for depth in (300, 100_000):
        (chunk,) = read(b'{"a":' + b"[" * depth + b"]" * depth + b'}\n{"a":1}', "jsonl")
        assert list(chunk.problems) == [0]
        assert "nested" in chunk.problems[0]


def test_lines_that_all_have_other_keys_stay_small_chunks() -> None:
    data = b"".join(b'{"k%d":1,"k%d":2}\n' % (2 * n, 2 * n + 1) for n in range(3_000))
    chunks = read(data, "jsonl")
    assert sum(map(len, chunks)) == 3_000
    assert max(chunk.frame.size for chunk in chunks) < 100_000


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n \n")
    with formats.source(tmp_path / "a.jsonl") as source:
        assert list(source.chunks()) == []
        assert source.columns is None
        assert source.keys() == {}


def test_jsonl_to_jsonl_adds_members_before_the_last_brace(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{ "n" : 0.10 }\r\n{}\nbad\n')
    copy(
        tmp_path / "a.jsonl",
        tmp_path / "b.jsonl",
        ["response", "raw_input"],
        lambda row: {"response": None, "raw_input": "bad"} if row.problem else {"response": "a\u2028\n", "attempts": 1},
    )
    assert (tmp_path / "b.jsonl").read_bytes() == (
        '{ "n" : 0.10 ,"response":"a\u2028\\n","attempts":1}\r\n{"response":"a\u2028\\n","attempts":1}\n'
        '{"response":null,"raw_input":"bad"}\n'
    ).encode()


def test_without_names_lines_are_written_as_they_came(tmp_path: Path) -> None:
    data = b'{ "n" : 0.10 }\r\n{"a"\n[1]\n{}\n'
    (tmp_path / "a.jsonl").write_bytes(data)
    copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == data


def test_jsonl_to_csv_has_the_union_of_keys_and_nested_values_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"a":"007","b":0.10}\n{"b":true,"c":{"d":[1, 0.10]}}\nbad\n{"a":null,"e":9007199254740993,"c":"\\ud800"}\n'
    )
    copy(tmp_path / "a.jsonl", tmp_path / "b.csv", ["response"], lambda row: {"response": row.problem and "?"})
    assert (tmp_path / "b.csv").read_bytes() == (
        b'a,b,c,e,response\n007,0.10,,,\n,true,"{""d"":[1,0.10]}",,\n,,,,?\n,,\\ud800,9007199254740993,\n'
    )


def test_a_generated_name_that_a_row_has_is_refused_early_and_an_error_row_late(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2,"response":3}\n')
    with pytest.raises(JobError, match=r"line 2: the row already has 'response'; give .* with --prefix"):
        formats.source(path, reserved=["response"])
    path.write_bytes(b'{"a":"%s"}\n' % (b"x" * 1_000) * 3_000 + b'{"a":2,"response":3}\n')
    *_, last = rows_of(path, reserved=["response"])
    assert (last.number, last.values) == (3_000, {})
    assert last.problem == "the row already has 'response', a column of the output; use --prefix"


def test_too_many_keys_make_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"k%d":1}\n' % n for n in range(10_001)))
    with formats.source(tmp_path / "a.jsonl") as source, pytest.raises(JobError, match="write JSONL instead"):
        source.keys()


@pytest.mark.parametrize(("data", "rows"), [(b"", 0), (b'{"a":1}', 1), (b'{"a":1}\n', 1), (b'{"a":1}\n{"a":2}', 2)])
def test_rows_are_counted_without_reading_them(data: bytes, rows: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with formats.source(tmp_path / "a.jsonl") as source:
        assert source.estimate() == rows


def test_what_is_no_table_is_refused_at_once_where_the_first_mib_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' * 1_000 + b'{"a":"\xff"}\n')
    with pytest.raises(InputError, match="byte 8006 "):
        formats.source(path)
    path.write_bytes(b'{"a":1}\n' * 200_000 + b'{"a":"\xff"}\n')
    with formats.source(path) as source, pytest.raises(InputError, match="byte 1600006 "):
        assert sum(map(len, source.chunks())) == 200_000
