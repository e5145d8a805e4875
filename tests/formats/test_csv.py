"""CSV and TSV keep every cell, and every row in its place."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch import formats
from batch.errors import InputError, JobError
from batch.formats import MISSING
from batch.formats.table import Places, frame
from batch.records import Row

from .tables import cells_of, copy, read, rows_of, seen, values_of, written

SPECTRUM = Path(__file__).parent.parent / "data" / "csv-spectrum"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text('a",\r\n\t ;\x00\u2028\x85\ufeff', max_size=6)


def spectrum(name: str) -> list[dict[str, str]]:
    expected = json.loads((SPECTRUM / "json" / f"{name}.json").read_bytes())
    if name == "location_coordinates":
        # The one file whose JSON is no list and has another telephone number than its CSV.
        expected = [expected | {"Contact Phone Number": "2095257564"}]
    rows: list[dict[str, str]] = expected
    return rows


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    columns = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))
    row = st.lists(TEXT, min_size=len(columns), max_size=len(columns))
    return columns, draw(st.lists(row, max_size=8))


@pytest.mark.parametrize("name", sorted(path.stem for path in (SPECTRUM / "csvs").glob("*.csv")))
def test_csv_spectrum_is_read_as_it_says(name: str) -> None:
    assert values_of(SPECTRUM / "csvs" / f"{name}.csv") == spectrum(name)


@pytest.mark.parametrize("name", sorted(path.stem for path in (SPECTRUM / "csvs").glob("*.csv")))
def test_csv_spectrum_survives_a_copy(name: str, tmp_path: Path) -> None:
    copy(SPECTRUM / "csvs" / f"{name}.csv", tmp_path / "copy.csv")
    assert values_of(tmp_path / "copy.csv") == spectrum(name)


@given(tables(), st.integers(1, 40), st.integers(1, 5), st.sampled_from(["csv", "tsv"]))
def test_any_table_of_texts_survives_cell_for_cell(
    table: tuple[list[str], list[list[str]]], block: int, rows: int, form: str
) -> None:
    columns, expected = table
    chunk = formats.Chunk(
        lambda: frame(columns, zip(*expected, strict=True) if expected else [[] for _ in columns], 0, len(expected)),
        0,
        Places("prompts.csv", range(len(expected))),
    )
    data = written([chunk], columns, form)
    again = read(data, form, block=block, rows=rows)
    assert [cells for part in again for cells in part.cells()] == expected
    assert all(part.columns == columns for part in again)
    assert written(again or [chunk], columns, form) == data


@given(st.text('a",\r\n\t\x00é'), st.integers(1, 9), st.integers(1, 3), st.sampled_from(["csv", "tsv"]))
def test_blocks_and_chunks_make_no_difference(text: str, block: int, rows: int, form: str) -> None:
    data = ("p,q\n" + text).encode()
    assert seen(data, form, block=block, rows=rows) == seen(data, form)


@given(st.binary(max_size=60) | st.text('a",\r\né').map(lambda text: text.encode()[:-1]), st.integers(1, 9))
def test_any_bytes_are_read_or_refused_in_words(data: bytes, block: int) -> None:
    assert seen(data, "csv", block=block, rows=3) == seen(data, "csv")


GOOD = st.tuples(st.text('a",\r\n', max_size=5), st.text('a",\r\n', max_size=5))
BAD = st.sampled_from([b"one", b"1,2,3", b'"a"b,c', b'"a"b,"c\nd"', b"", b'"a"b', b",,,"])


@given(st.lists(GOOD | BAD, max_size=12), st.integers(1, 30), st.integers(1, 4), st.sampled_from(["\n", "\r\n"]))
def test_as_many_rows_come_out_as_went_in(lines: list[tuple[str, str] | bytes], block: int, rows: int, end: str) -> None:
    while lines and lines[-1] == b"":
        lines.pop()  # blank lines at the end are nothing
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow(["p", "q"])
    for line in lines:
        if isinstance(line, bytes):
            text.write(line.decode() + end)
        else:
            writer.writerow(line)
    found, error = seen(text.getvalue().encode(), "csv", block=block, rows=rows)
    assert error == ""
    assert [number for number, *_ in found] == list(range(len(lines)))
    for line, (_, _, values, problem, own) in zip(lines, found, strict=True):
        if isinstance(line, bytes):
            assert (values, own) == ({}, line.decode())
            assert problem
        else:
            assert (values, problem, own) == ({"p": line[0], "q": line[1]}, "", None)


def test_values_stay_as_they_were_written() -> None:
    values = ["007", "+1", "NA", "null", "nan", "None", "", " x ", "9007199254740993", "0.10", "1e5", "a\u2028b\x85c", "\x00"]
    data = ("id,value\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values))).encode()
    (chunk,) = read(data, "csv")
    assert chunk.frame["value"].tolist() == values
    assert chunk.frame.dtypes.tolist() == [object, object]
    assert chunk.frame.index.equals(pandas.RangeIndex(len(values)))


def test_line_ends_inside_quotes_are_kept_and_lines_are_counted() -> None:
    data = b'\xef\xbb\xbfid,text\r\n1,"a\r\nb"\r\n2,"c\nd"\r\n3,"e\rf"\r\n4,g'
    (chunk,) = read(data, "csv")
    assert chunk.columns == ["id", "text"]
    assert chunk.frame["text"].tolist() == ["a\r\nb", "c\nd", "e\rf", "g"]
    assert list(chunk.places) == [f"prompts.csv, line {line}" for line in (2, 4, 6, 8)]


def test_rows_are_there_before_pandas_is(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("id,text\n007,hello\n")
    code = (
        "import sys; from batch import formats; chunks = list(formats.source('prompts.csv').chunks()); "
        "print([dict(row.values) for chunk in chunks for row in chunk.rows()], 'pandas' in sys.modules); "
        "print(chunks[0].frame['id'].tolist(), 'pandas' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[{'id': '007', 'text': 'hello'}] False", "['007'] True"]


def test_a_lone_carriage_return_ends_a_line() -> None:
    assert cells_of(b"a,b\r1,2\r3,4\r", block=3) == [["1", "2"], ["3", "4"]]


def test_ragged_rows_are_errors_and_shift_nothing() -> None:
    (chunk,) = read(b"a,b\n1,2,\n3\n4,5\n6,7,8\n9,10\n", "csv")
    assert chunk.problems == {
        0: "3 cells where the header has 2",
        1: "1 cell where the header has 2",
        3: "3 cells where the header has 2",
    }
    assert chunk.raw_input == {0: "1,2,", 1: "3", 3: "6,7,8"}
    assert chunk.cells() == [[MISSING] * 2, [MISSING] * 2, ["4", "5"], [MISSING] * 2, ["9", "10"]]
    assert [row.place for row in chunk.rows()] == [f"prompts.csv, line {line}" for line in range(2, 7)]


def test_a_trailing_comma_in_the_header_is_a_column_without_a_name() -> None:
    assert [dict(row.values) for chunk in read(b"a,\n1,2\n", "csv") for row in chunk.rows()] == [{"a": "1", "": "2"}]


def test_blank_lines_in_a_table_of_one_column_are_rows_but_not_at_its_end() -> None:
    assert cells_of(b"prompt\na\n\n\r\nb\n\n\n") == [["a"], [""], [""], ["b"]]


def test_blank_lines_in_a_wider_table_are_errors_but_not_at_its_end() -> None:
    (chunk,) = read(b"a,b\n1,2\n\n3,4\n\n\n", "csv")
    assert chunk.problems == {1: "a blank line"}
    assert list(chunk.places) == [f"prompts.csv, line {line}" for line in (2, 3, 4)]


def test_blank_lines_before_the_header_are_nothing() -> None:
    (chunk,) = read(b"\n\r\na,b\n1,2\n", "csv")
    assert (chunk.columns, chunk.places[0]) == (["a", "b"], "prompts.csv, line 4")


def test_names_that_come_twice_are_refused() -> None:
    with pytest.raises(InputError, match="line 1: more than one column is called 'b', 'c'; rename"):
        read(b"a,b,c,b,c\n", "csv")


def test_a_file_without_a_header_is_refused() -> None:
    for data in (b"", b"\n\n", b"\xef\xbb\xbf"):
        with pytest.raises(InputError, match="is empty; its first line must name the columns"):
            read(data, "csv")


def test_a_header_alone_is_a_table_without_rows() -> None:
    assert read(b"a,b", "csv") == read(b"a,b\r\n\r\n", "csv") == []


def test_a_torn_last_line_is_an_error_row() -> None:
    (chunk,) = read("a,b\n1,2\n3,é".encode()[:-1], "csv")
    assert chunk.problems == {1: "the file ends in the middle of a character"}
    assert chunk.raw_input == {1: "3,\ufffd"}
    assert read(b"a,b\n1,2\n3", "csv")[0].problems == {1: "1 cell where the header has 2"}


@pytest.mark.parametrize(("tail", "line"), [(b'3,"four', 3), (b'3,"x\n4,5\n6,7\n', 3), (b'"3\n4",5\n6,"7', 5), (b'"a"b,"c', 3)])
def test_an_unclosed_quote_is_refused_with_the_line_where_it_opens(tail: bytes, line: int) -> None:
    found, error = seen(b"a,b\n1,2\n" + tail, "csv")
    assert error == f"InputError: prompts.csv, line {line}: a quote opens here and is never closed"
    assert found[0][2] == {"a": "1", "b": "2"}


def test_a_giant_field_is_refused() -> None:
    for start in (b"", b'"'):
        data = b"a,b\n1,2\n3," + start + b"x\n" * 10 + b"y" * (17 << 20)
        found, error = seen(data, "csv")
        assert "more than 16 MiB" in error
        assert found[0][2] == {"a": "1", "b": "2"}


def test_a_giant_row_of_many_lines_is_refused() -> None:
    data = b"a,b\n1,2\n" + b",".join([b'"' + (b"x" * 99 + b"\n") * 120_000 + b'"'] * 3)
    assert seen(data, "csv")[1].startswith("InputError: prompts.csv, line 3: a row of more than 32 MiB begins here")


def test_bytes_that_are_not_utf8_are_refused_with_place_and_remedy(tmp_path: Path) -> None:
    for block in (1, 2, 3, 5, 1000):
        found, error = seen(b"a,b\n1,caf\xc3\xa9\n2,caf\xe9\n", "csv", block=block)
        assert [values for _, _, values, *_ in found] == [{"a": "1", "b": "café"}]
        assert error.startswith(
            "InputError: prompts.csv is not UTF-8: byte 17 (from 0) is wrong; name the encoding with --encoding"
        )
    path = tmp_path / "latin.csv"
    path.write_bytes("a,b\n1,café\n".encode("cp1252"))
    with pytest.raises(InputError, match="byte 9"):
        formats.source(path)
    assert values_of(path, encoding="cp1252") == [{"a": "1", "b": "café"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf_32", "shift-jis", "L1"])
def test_other_encodings_are_read_by_name(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes("a,b\r\n1,x\r\n".encode(encoding))
    assert values_of(path, encoding=encoding) == [{"a": "1", "b": "x"}]


def test_utf16_is_recognised_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_bytes("a,b\n".encode("utf-16"))
    with pytest.raises(InputError, match="name the encoding with --encoding utf-16"):
        formats.source(path)


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a\n1\n")
    for encoding in ("utf-9", "base64", "rot13", "idna\x00"):
        with pytest.raises(JobError, match="no such text encoding"):
            formats.source(tmp_path / "a.csv", encoding=encoding)


def test_the_first_chunk_is_small_and_no_chunk_is_large() -> None:
    data = b"a\n" + b"x\n" * 5_000
    assert [len(chunk) for chunk in read(data, "csv")] == [64, 2_000, 2_000, 936]
    wide = b"a\n" + (b"x" * 100_000 + b"\n") * 100
    assert max(len(chunk) for chunk in read(wide, "csv")) < 20


def test_a_generated_name_that_the_input_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt,response,error\n")
    with pytest.raises(
        JobError, match="already has a column 'response', 'error'; give the output's columns other names with --prefix"
    ):
        formats.source(tmp_path / "a.csv", reserved=["response", "error", "raw"])


def test_csv_to_csv_has_the_input_first_and_then_the_generated_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,prompt\n007,"say ""hi"""\nbad\n008,\n')
    copy(
        tmp_path / "a.csv",
        tmp_path / "b.csv",
        ["response", "attempts", "latency_s"],
        lambda row: {"response": "", "attempts": None, "latency_s": 0.25} if row.problem else {"response": "=1", "attempts": 2},
    )
    assert (tmp_path / "b.csv").read_bytes() == (
        b'id,prompt,response,attempts,latency_s\n007,"say ""hi""",=1,2,\n,,,,0.25\n008,,=1,2,\n'
    )


def test_selected_rows_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"n\n" + b"".join(b"%d\n" % n for n in range(5_000)))
    copy(tmp_path / "a.csv", tmp_path / "b.csv", wanted=lambda row: int(row.values["n"]) % 1_000 == 999)
    assert (tmp_path / "b.csv").read_bytes() == b"n\n999\n1999\n2999\n3999\n4999\n"


def test_without_names_unreadable_rows_are_written_as_they_came(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'a,b\r\n1,2\r\n"x"y,3\r\n4\r\n5,6,"7\n8"\r\n')
    copy(tmp_path / "a.csv", tmp_path / "errors.csv", wanted=lambda row: bool(row.problem))
    assert (tmp_path / "errors.csv").read_bytes() == b'a,b\n"x"y,3\n4\n5,6,"7\n8"\n'
    assert [row.problem for row in rows_of(tmp_path / "errors.csv")] == [
        "characters after a closing quote",
        "1 cell where the header has 2",
        "3 cells where the header has 2",
    ]


def test_without_names_unreadable_rows_of_another_format_stay_rows_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a":1,"b":2}\n"torn\n')
    copy(tmp_path / "a.jsonl", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == b'a,b\n1,2\n"""torn",\n'
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,2\n1,"2\n3",4\n')
    copy(tmp_path / "a.csv", tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == b'{"a":"1","b":"2"}\n"1,\\"2\\n3\\",4"\n'
    assert [row.problem for row in rows_of(tmp_path / "b.jsonl")] == ["", "JSON, but a text instead of an object"]
    copy(tmp_path / "a.csv", tmp_path / "b.parquet")
    assert values_of(tmp_path / "b.parquet") == [{"a": "1", "b": "2"}, {"a": None, "b": None}]


def test_the_guard_is_for_generated_cells_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"p\n=1+1\n")
    made: dict[str, Any] = {"n": -3}

    def response(row: Row) -> dict[str, Any]:
        return made

    for sign in "=+-@\t\r\n":
        made["response"] = sign + "x"
        copy(tmp_path / "a.csv", tmp_path / "b.csv", ["response", "n"], response, guard=True)
        assert values_of(tmp_path / "b.csv") == [{"p": "=1+1", "response": f"'{sign}x", "n": "-3"}]
        copy(tmp_path / "a.csv", tmp_path / "b.csv", ["response", "n"], response)
        assert values_of(tmp_path / "b.csv") == [{"p": "=1+1", "response": f"{sign}x", "n": "-3"}]


def test_csv_to_jsonl_has_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,v\n007,0.10\nbad\n")
    copy(tmp_path / "a.csv", tmp_path / "b.jsonl", ["response"], lambda row: {"response": row.problem})
    assert (tmp_path / "b.jsonl").read_bytes() == (
        b'{"id":"007","v":"0.10","response":""}\n{"response":"1 cell where the header has 2"}\n'
    )


@pytest.mark.parametrize(
    ("data", "rows"), [(b"a\n", 0), (b"a", 0), (b"a\n1", 1), (b"a\n1\n", 1), (b'a\n"1\n2"\n"3"', 2), (b'"a\nb"\n"1""\n"\n', 1)]
)
def test_rows_are_counted_without_reading_them(data: bytes, rows: int, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with formats.source(tmp_path / "a.csv") as source:
        assert source.estimate() == rows == sum(map(len, source.chunks()))
