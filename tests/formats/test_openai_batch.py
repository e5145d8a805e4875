"""OpenAI batch lines: recognised on the way in, written with every id on the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batch import formats

from .tables import copy, values_of

REQUEST = '{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}\n'


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(REQUEST % n for n in range(1, 6)) + '{"custom_id":"request-6","method":"PO')
    return path


def outcome(row: Any) -> dict[str, Any]:
    ends: list[dict[str, Any]] = [
        {"response": "2", "error_kind": "", "http_status": 200, "raw": '{"id":"chatcmpl-1","choices":[],"x":0.10}'},
        {"response": "2", "error_kind": "", "answer_model": "m", "prompt_tokens": 3, "completion_tokens": 1},
        {"error": "400: no", "error_kind": "refused", "http_status": 400},
        {"error": "503: busy", "error_kind": "transient", "http_status": 503},
        {"error": "not asked yet", "error_kind": "pending", "http_status": None},
        {"error": "the line is no JSON", "error_kind": "input"},
    ]
    number: int = row.number
    return ends[number]


def test_request_lines_are_recognised(requests: Path, tmp_path: Path) -> None:
    with formats.source(requests) as source:
        assert source.format == "openai-batch"
    assert values_of(requests)[0]["body"] == {"model": "m", "messages": []}
    (tmp_path / "a.jsonl").write_bytes(b'\n{"custom_id":"1"}\n')
    with formats.source(tmp_path / "a.jsonl") as source:
        assert source.format == "jsonl"
    with formats.source(requests, format="jsonl") as source:
        assert source.format == "jsonl"


def test_every_request_has_a_result_in_the_shape_of_its_end(requests: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    copy(requests, out, ["response"], outcome, format="openai-batch")
    assert b'"body":{"id":"chatcmpl-1","choices":[],"x":0.10}},"error":null}' in out.read_bytes()
    results = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert [result["custom_id"] for result in results] == [f"request-{n}" for n in range(1, 7)]
    assert all(list(result) == ["id", "custom_id", "response", "error"] for result in results)
    assert len({result["id"] for result in results}) == 6
    assert all(result["id"].startswith("batch_req_") for result in results)
    ids = [result["response"]["request_id"] for result in results[:4]]
    assert all(name.startswith("req_") for name in ids)

    made = results[1]["response"]
    assert made["status_code"] == 200
    assert made["body"]["choices"][0]["message"] == {"role": "assistant", "content": "2"}
    assert made["body"]["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}

    for result, status, kind in ((results[2], 400, "invalid_request_error"), (results[3], 503, "server_error")):
        assert (result["response"]["status_code"], result["error"]) == (status, None)
        assert result["response"]["body"]["error"]["type"] == kind
    assert (results[4]["response"], results[4]["error"]) == (None, {"code": "batch_expired", "message": "not asked yet"})
    assert results[5]["error"]["code"] == "input"


def test_results_are_the_same_every_time(requests: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        copy(requests, tmp_path / name, ["response"], outcome, format="openai-batch")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_without_an_id_are_called_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"custom_id,prompt\nx,1\n,2\n")
    (tmp_path / "b.csv").write_bytes(b"prompt\n1\n2\n")
    for name, ids in (("a.csv", ["x", "row-2"]), ("b.csv", ["row-1", "row-2"])):
        copy(tmp_path / name, tmp_path / "out", ["response"], outcome, format="openai-batch")
        assert [json.loads(line)["custom_id"] for line in (tmp_path / "out").read_bytes().splitlines()] == ids
