"""Result lines are read in every shape that batch services write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch import exact
from batch.formats.openai_batch import result
from batch.formats.results import members

BODY = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
}
MESSAGE = {
    "model": "m",
    "content": [{"type": "text", "text": "4"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 22, "output_tokens": 2},
}


@pytest.mark.parametrize(
    "line",
    [
        {
            "id": "batch_req_1",
            "custom_id": "a",
            "response": {"status_code": 200, "request_id": "r", "body": BODY},
            "error": None,
        },
        {"id": "vllm-1", "custom_id": "a", "response": BODY, "error": None},
        {"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}},
        {"recordId": "a", "modelInput": {}, "modelOutput": MESSAGE},
        {"recordId": "a", "modelInput": {}, "modelOutput": BODY},
    ],
)
def test_answers(line: dict[str, Any]) -> None:
    found = members(line)
    assert found is not None
    assert json.loads(found.pop("raw")) in (BODY, MESSAGE)
    assert found == {
        "custom_id": "a",
        "response": "4",
        "error": None,
        "error_kind": None,
        "http_status": 200,
        "answer_model": "m",
        "finish_reason": "stop",
        "prompt_tokens": 22,
        "completion_tokens": 2,
    }


REFUSAL = {"message": "no such model", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}


@pytest.mark.parametrize(
    ("line", "words", "kind", "status"),
    [
        ({"response": {"status_code": 400, "body": {"error": REFUSAL}}, "error": None}, "no such model", "refused", 400),
        ({"response": {"status_code": 429, "body": {"error": REFUSAL}}, "error": None}, "no such model", "transient", 429),
        ({"response": {"status_code": 500, "body": None}, "error": None}, "no answer and no error", "transient", 500),
        ({"response": None, "error": {"code": "batch_expired", "message": "too late"}}, "too late", "pending", None),
        ({"response": {"status_code": 400, "body": None}, "error": "no such model"}, "no such model", "refused", 400),
        ({"response": {"status_code": 404, "body": None}, "error": {"error": REFUSAL}}, "no such model", "refused", 404),
        ({"response": None, "error": {"object": "error", "message": "no", "code": 404}}, "no", "refused", 404),
        ({"result": {"type": "errored", "error": {"type": "error", "error": REFUSAL}}}, "no such model", "transient", None),
        ({"result": {"type": "expired"}}, "expired", "pending", None),
        ({"modelInput": {}, "error": {"errorCode": 400, "errorMessage": "bad"}}, "bad", "transient", None),
        ({"response": {"status_code": 200, "body": {}}, "error": None}, "the answer has neither choices", "bad_body", 200),
    ],
)
def test_failures(line: dict[str, Any], words: str, kind: str, status: int | None) -> None:
    found = members({"custom_id": "a", **line})
    assert found is not None
    assert found["error"].startswith(words)
    assert (found["error_kind"], found["http_status"], found["response"]) == (kind, status, "")


def test_other_lines_are_no_results() -> None:
    assert members({"custom_id": "a", "method": "POST", "url": "/", "body": {}}) is None
    assert members({"recordId": "a", "modelInput": {}}) is None


@given(
    st.text(),
    st.sampled_from([("", None), ("refused", 400), ("transient", 503), ("pending", None)]),
    st.text(min_size=1),
)
def test_what_is_written_is_read_again(name: str, end: tuple[str, int | None], words: str) -> None:
    kind, status = end
    before = {"response": "" if kind else words, "error": words if kind else None, "error_kind": kind, "http_status": status}
    found = members(exact.loads(result(name, before, 0)))
    assert found is not None
    assert found["custom_id"] == name
    assert (found["response"], found["error"], found["error_kind"] or "") == (before["response"], before["error"], kind)


ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["response", "error", "body", "status_code", "choices", "message", "content", "usage", "result", "type", "code"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["custom_id", "response", "error", "result", "modelInput", "modelOutput"]), ANY))
def test_any_line_is_read_or_is_no_result(line: dict[str, Any]) -> None:
    found = members(line)
    assert found is None or "error_kind" in found
