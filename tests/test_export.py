"""Beside the answers: the failed rows alone, rows asked several times, and inputs read before anything is sent."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batch
from batch.errors import InputError, JobError
from batch.verify import verify

from .rules import Ruled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 24)
    return tmp_path


def rule(messages: list[dict[str, Any]]) -> str | int:
    """Refuses what begins with "bad", fails at what begins with "down"; else says it again."""
    text = str(messages[-1]["content"])
    return 422 if text.startswith("bad") else 500 if text.startswith("down") else f"re: {text}"


def run(server: Ruled, source: str, output: str, **given: Any) -> batch.Summary:
    endpoint = batch.Endpoint(url=server.url, protocol="openai", name="ruled")
    wanted = {"model": "m", "attempts": 1, "concurrency": 2, **given}
    return batch.run(batch.Job(input=source, output=output, endpoint=endpoint, **wanted))


def test_failed_rows_go_to_a_file_of_their_own_ready_to_be_an_input(folder: Path) -> None:
    text = 'id,prompt\n007,fine\n008,"bad, ""very"""\n009,\n010,down\nragged\n011,fine too\n'
    (folder / "in.csv").write_text(text)
    with Ruled(rule) as server:
        summary = run(server, "in.csv", "out.csv", errors="failed.csv")
        assert (summary.ok, summary.failed) == (2, 4)
        assert (folder / "failed.csv").read_text() == 'id,prompt\n008,"bad, ""very"""\n009,\n010,down\nragged\n'
        server.rule = lambda messages: "now"
        assert run(server, "failed.csv", "again.csv", errors="still.csv").ok == 2
        assert (folder / "still.csv").read_text() == "id,prompt\n009,\nragged\n"


def test_failed_json_lines_keep_their_own_bytes(folder: Path) -> None:
    lines = [
        '{"prompt": "bad", "n":0.10}',
        "nonsense {",
        '{"prompt":"fine"}',
        '{ "prompt":"down" ,"x":null}',
        '{"other":1}',
        "[1",
    ]
    (folder / "in.jsonl").write_text("\n".join(lines))
    with Ruled(rule) as server:
        run(server, "in.jsonl", "out.csv", errors="failed.jsonl")
    assert (folder / "failed.jsonl").read_text().splitlines() == [line for line in lines if "fine" not in line]


def test_the_file_of_failed_rows_is_current_and_may_be_empty(folder: Path) -> None:
    (folder / "in.csv").write_text("prompt\ndown\nfine\n")
    with Ruled(rule) as server:
        run(server, "in.csv", "out.csv", errors="failed.csv")
        server.rule = lambda messages: "now"
        run(server, "in.csv", "out.csv", errors="failed.csv")
        assert (folder / "failed.csv").read_text() == "prompt\n"
        (folder / "failed.csv").unlink()
        summary = run(server, "in.csv", "out.csv", errors="failed.csv")
    assert (summary.requests, (folder / "failed.csv").read_text()) == (0, "prompt\n")


def test_failed_parquet_rows_keep_their_types(folder: Path) -> None:
    frame = pd.DataFrame(
        {"prompt": ["bad", "fine", "bad too"], "day": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"])}
    )
    frame.to_parquet("in.parquet", index=False)
    with Ruled(rule) as server:
        run(server, "in.parquet", "out.parquet", errors="failed.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet("failed.parquet"), frame.iloc[[0, 2]].reset_index(drop=True))


@pytest.mark.parametrize("errors", ["out.csv", "-", "in.csv", "no/where.csv"])
def test_the_file_of_failed_rows_is_a_file_of_its_own(folder: Path, errors: str) -> None:
    (folder / "in.csv").write_text("prompt\na\n")
    (folder / "out.csv").write_text("")
    with Ruled(rule) as server, pytest.raises(JobError):
        run(server, "in.csv", "out.csv", errors=errors)
    assert server.requests == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_row_is_asked_as_often_as_told(folder: Path, form: str) -> None:
    (folder / "in.jsonl").write_text('{"prompt":"one"}\n{"prompt":"bad"}\n{}\n{"prompt":"one"}\n{"prompt":"left out"}\n')
    count = iter(range(100))
    with Ruled(lambda messages: rule(messages) if "bad" in messages[0]["content"] else f"{next(count)}") as server:
        given: dict[str, Any] = {"repeat": 3, "limit": 4, "errors": "failed.jsonl"}
        summary = run(server, "in.jsonl", f"out.{form}", **given)
        assert (summary.rows, summary.ok, summary.failed, summary.requests) == (12, 6, 6, 9)
        assert run(server, "in.jsonl", f"out.{form}", **given).requests == 0
        assert run(server, "in.jsonl", f"out.{form}", **given | {"repeat": 4}).requests == 3
    assert (folder / "failed.jsonl").read_text() == '{"prompt":"bad"}\n{}\n'
    if form == "parquet":
        prompts = pd.read_parquet("out.parquet")["prompt"].fillna("").tolist()
    else:
        assert verify("in.jsonl", f"out.{form}").exit_code == 0
        text = (folder / f"out.{form}").read_text().splitlines()
        rows = list(csv.DictReader(text)) if form == "csv" else [json.loads(line) for line in text]
        prompts = [row.get("prompt", "") for row in rows]
        answers = [row["response"] for row in rows if row["response"]]
        assert len(set(answers)) == len(answers) == 8
    assert prompts == ["one"] * 4 + ["bad"] * 4 + [""] * 4 + ["one"] * 4


def test_repeated_parquet_rows_are_not_mistaken_for_a_whole_chunk(folder: Path) -> None:
    pd.DataFrame({"prompt": ["a", "b", "c", "d"]}).to_parquet("in.parquet", index=False)
    with Ruled(rule) as server:
        run(server, "in.parquet", "out.parquet", repeat=2, where="prompt in ['b', 'd']")
    out = pd.read_parquet("out.parquet")
    assert list(zip(out["prompt"], out["response"], strict=True)) == [("b", "re: b")] * 2 + [("d", "re: d")] * 2


def test_a_table_that_breaks_late_sends_nothing_when_it_is_checked_first(folder: Path) -> None:
    (folder / "in.csv").write_text("prompt\n" + "fine\n" * 250_000 + '"open\n')
    with Ruled(rule) as server:
        with pytest.raises(InputError, match="never closed"):
            run(server, "in.csv", "out.csv", check_first=True)
        (folder / "in.csv").write_text("prompt\n" + "fine\n" * 10 + '""\n')
        with pytest.raises(JobError, match="more than --bad-rows 0 rows"):
            run(server, "in.csv", "out.csv", check_first=True, bad_rows=0)
        assert server.requests == []
        summary = run(server, "in.csv", "out.csv", check_first=True)
        assert (summary.exit_code, summary.rows, summary.ok) == (1, 11, 10)


LINES = st.sampled_from(
    ['{"prompt":"fine"}', '{"prompt":"bad"}', '{"prompt":""}', "nonsense", '{"prompt": "x", "k": [1, {"a": 0.10}]}', "[]", "{"]
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(lines=st.lists(LINES, max_size=12))
def test_n_rows_in_are_n_rows_out_in_order_for_any_mixture(folder: Path, lines: list[str]) -> None:
    (folder / "in.jsonl").write_text("".join(line + "\n" for line in lines))
    for old in folder.glob("out*"):
        if old.is_file():
            old.unlink()
    with Ruled(rule) as server:
        run(server, "in.jsonl", "out.jsonl", errors="failed.jsonl")
    out = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len(out) == len(lines)
    for line, row in zip(lines, out, strict=True):
        assert bool(row["error"]) == (line not in ('{"prompt":"fine"}', '{"prompt": "x", "k": [1, {"a": 0.10}]}'))
        assert row.get("raw_input", line) == line
    failed = [line for line, row in zip(lines, out, strict=True) if row["error"]]
    assert (folder / "failed.jsonl").read_text().splitlines() == failed
