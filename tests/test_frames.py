"""From a frame to a frame: index, types, order and everything else of it stay as they were."""

from __future__ import annotations

import asyncio
import decimal
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batch
from batch.errors import InputError, JobError, RunRefused
from batch.formats.frame import Table

from .rules import Ruled


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ruled]:
    """Says every prompt again, and refuses those that begin with "bad"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 24)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def rule(messages: list[dict[str, Any]]) -> str | int:
        text = str(messages[-1]["content"])
        return 422 if text.startswith("bad") else f"re: {text}"

    with Ruled(rule) as ruled:
        yield ruled


def ask(server: Ruled, df: pd.DataFrame, **fields: Any) -> pd.DataFrame:
    endpoint = batch.Endpoint(url=server.url, protocol="openai", name="ruled")
    given: dict[str, Any] = {"model": "m", "attempts": 1, "concurrency": 2}
    return batch.run_frame(df, endpoint=endpoint, **given | fields)


INDEXES: dict[str, Any] = {
    "default": None,
    "texts": list("cab"),
    "duplicates": [7, 7, 7],
    "dates": pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin"),
    "several levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["x", "y"]),
    "missing": [np.nan, None, 1.5],
    "intervals": pd.interval_range(0, 3),
}


@pytest.mark.parametrize("index", INDEXES)
def test_index_types_and_order_stay_whatever_they_are(server: Ruled, index: str) -> None:
    df = pd.DataFrame(
        {
            "prompt": ["c", "a", "b"],
            "small": np.array([1, 2, 3], np.int8),
            "share": pd.Series([0.1, np.nan, np.inf]),
            "whole": pd.array([2**60 + 1, None, 3], "Int64"),
            "when": pd.to_datetime(pd.Series(["2024-01-01", None, "2024-01-03"]).array),
            "kind": pd.Categorical(["x", "y", "x"]),
            "list": [[1, "a"], {"k": None}, None],
            "yes": [True, False, True],
            "text": pd.array(["007", pd.NA, "NA"], "string"),
        },
        index=INDEXES[index],
    )
    before = df.copy(deep=True)
    out = ask(server, df)
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(out[df.columns.tolist()], df)
    assert out["response"].tolist() == ["re: c", "re: a", "re: b"]
    assert {name: str(out[name].dtype) for name in out.columns[9:]} == {
        "response": "string",
        "error": "string",
        "error_kind": "string",
        "http_status": "Int64",
        "answer_model": "string",
        "finish_reason": "string",
        "prompt_tokens": "Int64",
        "completion_tokens": "Int64",
        "attempts": "Int64",
        "latency_s": "Float64",
    }
    assert out.attrs["summary"]["ok"] == 3


def test_failed_rows_say_why_and_the_others_stand(server: Ruled) -> None:
    df = pd.DataFrame({"prompt": ["fine", "bad", None, "", np.nan, 5]}, index=list("abcdef"))
    out = ask(server, df)
    assert out["error_kind"].tolist() == ["", "refused", "input", "input", "input", "input"]
    assert out.loc["c", "error"] == "the frame, row 3: column 'prompt' is null (use --where to leave such rows out)"
    assert out["http_status"].tolist() == [200, 422, pd.NA, pd.NA, pd.NA, pd.NA]
    assert out["response"].tolist()[:3] == ["re: fine", "", ""]


def test_templates_selection_and_repetition_work_as_with_files(server: Ruled) -> None:
    df = pd.DataFrame({"n": [1, 2, 3, 4], "day": pd.to_datetime(["2024-01-01"] * 4)}, index=list("wxyz"))
    out = ask(server, df, template="{{ n }} on {{ day }}", where="n != 2", limit=2, repeat=2)
    assert out.index.tolist() == ["w", "w", "y", "y"]
    assert out["response"].tolist() == ["re: 1 on 2024-01-01T00:00:00"] * 2 + ["re: 3 on 2024-01-01T00:00:00"] * 2
    assert (out["day"].dtype, out["n"].dtype) == (df["day"].dtype, df["n"].dtype)


def test_messages_and_row_parameters_come_from_columns(server: Ruled) -> None:
    messages = [[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]] * 2
    out = ask(server, pd.DataFrame({"messages": messages, "max_tokens": [3, 4]}), row_params=["max_tokens"])
    assert out["response"].tolist() == ["re: u", "re: u"]
    assert sorted(body["max_tokens"] for body in server.requests) == [3, 4]


def test_an_answers_properties_are_columns_of_their_types(server: Ruled) -> None:
    properties = {"a": {"type": "integer"}, "b": {"type": "array"}, "c": {"type": "string"}}
    Path("s.json").write_text(json.dumps({"type": "object", "properties": properties}))
    server.rule = lambda messages: '{"a":5,"b":[1,2],"c":"x"}' if messages[0]["content"] == "one" else "no"
    out = ask(server, pd.DataFrame({"prompt": ["one", "two"]}), schema="s.json", send_schema=False, explode=True)
    assert (out["a"].tolist(), str(out["a"].dtype)) == ([5, pd.NA], "Int64")
    assert (out["b"].tolist(), out["c"].tolist()) == ([[1, 2], None], ["x", pd.NA])
    assert out["error_kind"].tolist() == ["", "bad_answer"]


def test_a_named_journal_asks_only_for_what_is_new(server: Ruled, tmp_path: Path) -> None:
    df = pd.DataFrame({"prompt": ["a", "b"]})
    ask(server, df, journal="kept.journal")
    out = ask(server, pd.DataFrame({"prompt": ["b", "new", "a"]}, index=[2, 5, 1]), journal="kept.journal")
    assert (len(server.requests), out["response"].tolist()) == (3, ["re: b", "re: new", "re: a"])
    ask(server, df)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.journal", "kept.journal.d"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_output_can_be_written_too(server: Ruled, tmp_path: Path, form: str) -> None:
    df = pd.DataFrame({"prompt": ["a", "bad"], "n": [1, 2], "none": [None, None]})
    out = ask(server, df, output=f"out.{form}", errors="failed.jsonl")
    assert out["response"].tolist() == ["re: a", ""]
    readers: dict[str, Any] = {
        "csv": lambda path: pd.read_csv(path, keep_default_na=False),
        "jsonl": lambda path: pd.read_json(path, lines=True),
        "parquet": pd.read_parquet,
    }
    written = readers[form](tmp_path / f"out.{form}")
    assert written["response"].tolist() == ["re: a", ""]
    assert written["n"].tolist() == [1, 2]
    assert (tmp_path / "failed.jsonl").read_text() == '{"prompt":"bad","n":2,"none":null}\n'
    assert (tmp_path / f"out.{form}.journal").exists()


def test_an_empty_frame_is_answered_with_one(server: Ruled) -> None:
    out = ask(server, pd.DataFrame({"prompt": pd.Series([], dtype="str"), "n": pd.Series([], dtype="int8")}))
    assert len(out) == 0
    assert [str(out[name].dtype) for name in ("n", "response", "attempts")] == ["int8", "string", "Int64"]


def test_columns_that_clash_are_refused_before_anything_is_sent(server: Ruled) -> None:
    with pytest.raises(JobError, match="already has a column 'error'"):
        ask(server, pd.DataFrame({"prompt": ["a"], "error": [1]}))
    assert ask(server, pd.DataFrame({"prompt": ["a"], "error": [1]}), prefix="x_")["x_error"].tolist() == [""]
    with pytest.raises(JobError, match="more than one column called '1'"):
        ask(server, pd.DataFrame([["a", "b"]], columns=[1, "1"]))
    with pytest.raises(JobError, match="no column 'prompt'"):
        ask(server, pd.DataFrame({"text": ["a"]}))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("input", "nosuch.csv", "input: the rows are those of the frame; leave it out"),
        ("input_format", "csv", "input_format: the rows are those of the frame; leave it out"),
        ("max_tokens", 5, "unknown key 'max_tokens'; it is a parameter of the request: write it under [parameters]"),
        ("rpm", "600", "rpm: must be a number, not a text"),
    ],
)
def test_a_field_that_a_frame_cannot_use_is_refused(server: Ruled, field: str, value: Any, words: str) -> None:
    with pytest.raises(JobError) as refused:
        ask(server, pd.DataFrame({"prompt": ["a"]}), **{field: value})
    assert str(refused.value).startswith(words)
    assert server.requests == []


def test_a_run_that_the_server_refuses_raises_and_a_limit_of_ones_own_warns(server: Ruled, tmp_path: Path) -> None:
    server.rule = lambda messages: 401
    with pytest.raises(RunRefused, match="401") as caught:
        ask(server, pd.DataFrame({"prompt": list("abcdef")}), journal="j")
    assert caught.value.__notes__ == ["What was answered is in j; the same call with that journal goes on."]
    server.rule = lambda messages: 500
    with pytest.warns(RuntimeWarning, match="--halt fail=2"):
        out = ask(server, pd.DataFrame({"prompt": ["bad 1", "bad 2", *"cdefghijkl"]}), halt="fail=2", tolerate="fail=50%")
    assert len(out) == 12
    assert "pending" in out["error_kind"].tolist()


def test_it_can_be_called_inside_a_running_event_loop(server: Ruled) -> None:
    df = pd.DataFrame({"prompt": ["a", "b"]})

    async def both() -> tuple[pd.DataFrame, pd.DataFrame]:
        direct = ask(server, df)  # as a cell of a notebook does
        beside = await asyncio.to_thread(ask, server, df)
        return direct, beside

    direct, beside = asyncio.run(both())
    assert direct["response"].tolist() == beside["response"].tolist() == ["re: a", "re: b"]


INTERRUPTED = """
import pandas as pd, batch, sys
endpoint = batch.Endpoint(url=sys.argv[1], protocol="openai", name="ruled")
df = pd.DataFrame({"prompt": [f"row {number}" for number in range(4000)]})
try:
    batch.run_frame(df, endpoint=endpoint, model="m", concurrency=2, journal="kept.journal")
except KeyboardInterrupt as error:
    print("stopped:", error)
"""


def test_ctrl_c_keeps_what_is_done(server: Ruled, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server.url], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as script:
        while len(server.requests) < 20:
            assert script.poll() is None
            time.sleep(0.02)
        script.send_signal(signal.SIGINT)
        out, _ = script.communicate(timeout=60)
    assert out.startswith("stopped: ")
    assert "kept.journal" in out
    sent = len(server.requests)
    assert 20 <= sent < 4000
    df = pd.DataFrame({"prompt": [f"row {number}" for number in range(25)]})
    ask(server, df, journal="kept.journal")
    assert len(server.requests) - sent <= 25 - 15


values = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.just(pd.NA),
    st.just(np.float32(0.5)),
    st.just(np.array([1, 2])),
    st.just(decimal.Decimal("0.10")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(values, max_size=6))
def test_any_value_is_something_that_json_can_hold(cells: list[Any]) -> None:
    data = pd.DataFrame({"x": pd.Series(cells, dtype="object")})
    for chunk in Table(data).chunks():
        for row in chunk.rows():
            json.dumps(row.values["x"])


# Files to frames and back


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
CELLS = st.text(CHARACTERS, max_size=8) | st.sampled_from(["007", "NA", ""])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([".csv", ".tsv", ".jsonl", ".csv.gz"]))
def test_a_frame_of_text_survives_a_file_cell_for_cell(tmp_path: Path, rows: list[tuple[str, str]], suffix: str) -> None:
    df = pd.DataFrame(rows, columns=["a", "b"], dtype=object)
    batch.write(df, tmp_path / f"table{suffix}")
    pd.testing.assert_frame_equal(batch.read(tmp_path / f"table{suffix}"), df)


def test_json_lines_are_read_as_they_are(tmp_path: Path) -> None:
    lines = ['{"n": 9007199254740993, "price": 0.10}', '{"n": null, "more": ["007"]}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    rows = batch.read(tmp_path / "in.jsonl")
    assert [list(map(str, cells)) for cells in rows.itertuples(index=False)] == [
        ["9007199254740993", "0.10", "<NA>"],
        ["None", "<NA>", "['007']"],
    ]


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(InputError, match=r"in\.csv, line 3: 1 cell where the header has 2"):
        batch.read(tmp_path / "in.csv")


def test_an_empty_table_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n")
    assert (list(batch.read(tmp_path / "in.csv").columns), len(batch.read(tmp_path / "in.csv"))) == (["a", "b"], 0)


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old\n")
    with pytest.raises(JobError, match="more than one column called 'a'"):
        batch.write(pd.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "old\n"
