"""Parquet keeps its types; what has none gets those that hold its values exactly."""

from __future__ import annotations

import io
import resource
import tracemalloc
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch import exact, formats
from batch.errors import BatchError, InputError, JobError, StorageError
from batch.formats.snapshot import open_file
from batch.formats.text import Text

from .tables import copy, rows_of, values_of

NAMES = {"response": str, "http_status": int, "latency_s": float}
TABLE = {
    "id": pyarrow.array([1, None, 3], pyarrow.int32()),
    "text": pyarrow.array(["007", "", "a\r\n\u2028"], pyarrow.large_string()),
    "when": pyarrow.array([datetime(2024, 2, 29, 1, 2, 3), None, None], pyarrow.timestamp("ms", "UTC")),
    "day": pyarrow.array([date(2024, 2, 29), None, None]),
    "price": pyarrow.array([Decimal("0.10"), None, Decimal("-7.00")]),
    "tags": pyarrow.array([["a"], [], None]),
    "half": pyarrow.array([0.5, None, 1e300]),
    "kind": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
    "data": pyarrow.array([b"ok", b"\xff", None]),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(TABLE), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def made(row: Any) -> dict[str, Any]:
    return {"response": f"r{row.number}", "http_status": 200, "latency_s": 0.25}


def test_parquet_to_parquet_keeps_columns_and_types(table: Path, tmp_path: Path) -> None:
    copy(table, tmp_path / "b.parquet", NAMES, made, wanted=lambda row: row.number != 1)
    before, after = pyarrow.parquet.read_table(table), pyarrow.parquet.read_table(tmp_path / "b.parquet")
    assert after.select(before.column_names).equals(before.take([0, 2]))
    assert after.schema.field("id").type == pyarrow.int32()
    assert after.select(["response", "http_status", "latency_s"]).to_pydict() == {
        "response": ["r0", "r2"],
        "http_status": [200, 200],
        "latency_s": [0.25, 0.25],
    }
    assert after.schema.field("http_status").type == pyarrow.int64()


def test_parquet_values_are_what_json_can_hold(table: Path) -> None:
    first, second, third = rows_of(table)
    assert first.place.endswith("a.parquet, row 1")
    assert exact.dumps(dict(first.values)) == (
        b'{"id":1,"text":"007","when":"2024-02-29T01:02:03+00:00","day":"2024-02-29","price":0.10,"tags":["a"],'
        b'"half":0.5,"kind":"x","data":"ok"}'
    )
    assert (second.values["id"], second.values["data"], second.values["tags"]) == (None, "/w==", [])
    assert third.values["text"] == "a\r\n\u2028"


def test_parquet_to_csv_and_jsonl(table: Path, tmp_path: Path) -> None:
    copy(table, tmp_path / "b.csv")
    assert values_of(tmp_path / "b.csv")[0] == {
        "id": "1",
        "text": "007",
        "when": "2024-02-29T01:02:03+00:00",
        "day": "2024-02-29",
        "price": "0.10",
        "tags": '["a"]',
        "half": "0.5",
        "kind": "x",
        "data": "ok",
    }
    copy(table, tmp_path / "b.jsonl")
    assert values_of(tmp_path / "b.jsonl")[2]["price"] == -7.00
    assert b'"price":-7.00,' in (tmp_path / "b.jsonl").read_bytes()


def test_jsonl_to_parquet_finds_types_that_hold_every_value(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"n":9007199254740993,"x":0.10,"m":1,"b":true,"s":"007","o":{"a":0.10},"big":123456789012345678901,"deep":"\\ud800"}\n'
        b'bad\n{"n":null,"x":2,"m":"one","e":0.1000000000000000055511151231257827,"late":1}\n'
    )
    copy(tmp_path / "a.jsonl", tmp_path / "b.parquet", NAMES, made)
    after = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    types = {field.name: str(field.type) for field in after.schema}
    assert types == {
        "n": "int64",
        "x": "double",
        "m": "string",
        "b": "bool",
        "s": "string",
        "o": "string",
        "big": "string",
        "deep": "string",
        "e": "string",
        "late": "int64",
        "response": "string",
        "http_status": "int64",
        "latency_s": "double",
    }
    assert after.drop_columns(list(NAMES)).to_pylist() == [
        {
            **dict.fromkeys(after.column_names[:10]),
            "n": 2**53 + 1,
            "x": 0.1,
            "m": "1",
            "b": True,
            "s": "007",
            "o": '{"a":0.10}',
            "big": "123456789012345678901",
            "deep": "\\ud800",
        },
        dict.fromkeys(after.column_names[:10]),
        {
            **dict.fromkeys(after.column_names[:10]),
            "x": 2.0,
            "m": "one",
            "e": "0.1000000000000000055511151231257827",
            "late": 1,
        },
    ]
    assert after.column("response").to_pylist() == ["r0", "r1", "r2"]


def test_csv_to_parquet_has_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,v\n007,\n")
    copy(tmp_path / "a.csv", tmp_path / "b.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "b.parquet").to_pylist() == [{"id": "007", "v": ""}]


def test_rows_stream_in_and_out_in_groups(tmp_path: Path) -> None:
    numbers = pyarrow.table({"n": pyarrow.array(range(130_000))})
    pyarrow.parquet.write_table(numbers, tmp_path / "a.parquet", row_group_size=10_000)
    with formats.source(tmp_path / "a.parquet") as source:
        lengths = [len(chunk) for chunk in source.chunks()]
        assert (sum(lengths), lengths[0], max(lengths)) == (130_000, 64, 2_000)
        assert source.estimate() == 130_000
        assert source.position == source.size
        assert len(source.sha256) == 64
    copy(tmp_path / "a.parquet", tmp_path / "b.parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "b.parquet")
    assert file.num_row_groups == 7
    assert file.read().equals(numbers)


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table(TABLE).slice(0, 0), tmp_path / "a.parquet")
    copy(tmp_path / "a.parquet", tmp_path / "b.parquet", NAMES, made)
    after = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    assert (after.num_rows, after.column_names) == (0, [*TABLE, *NAMES])
    assert after.schema.field("when").type == pyarrow.timestamp("ms", "UTC")


def test_what_is_no_parquet_file_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(table.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"b.parquet is no sound Parquet file: "):
        formats.source(tmp_path / "b.parquet")
    with pytest.raises(JobError, match="already has a column 'text'"):
        formats.source(table, reserved=["text"])
    (tmp_path / "b.parquet.gz").write_bytes(b"")
    with pytest.raises(JobError, match="compressed by itself"):
        formats.source(tmp_path / "b.parquet.gz")


SMALL = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"a": ["x", "y"], "b": [1, 2]}), SMALL)


@given(st.integers(0, len(SMALL.getvalue()) - 1), st.binary(min_size=1, max_size=4))
def test_any_damage_is_read_or_refused_in_words(at: int, damage: bytes) -> None:
    data = SMALL.getvalue()
    data = data[:at] + damage + data[at + len(damage) :]
    try:
        for _ in formats.READERS["parquet"](Text(open_file("a", io.BytesIO(data))), ()).chunks():
            pass
    except BatchError:
        pass


def test_a_write_beyond_the_limit_is_a_storage_error(table: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with formats.source(table) as source, formats.sink(tmp_path / "b.parquet", source) as sink:
        for chunk in source.chunks():
            sink.write(chunk, range(len(chunk)), [{}] * len(chunk))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(StorageError, match=r"b.parquet cannot be written: file too large"):
                sink.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "b.parquet").exists()


def test_reading_holds_a_row_group_not_the_file(tmp_path: Path) -> None:
    texts = pyarrow.table({"text": [f"{number:09d}" + "x" * 991 for number in range(40_000)]})
    pyarrow.parquet.write_table(texts, tmp_path / "a.parquet", row_group_size=1_000, compression="none", use_dictionary=False)
    tracemalloc.start()
    try:
        with formats.source(tmp_path / "a.parquet") as source:
            assert sum(map(len, source.chunks())) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
