"""Result lines of batch services, in every shape they are known to have, as the members of an output row.

OpenAI: `response` with status and body, or `error`. vLLM: both at once, the error as a text or an object, the body null; its
older releases put the completion itself into `response`. Anthropic: `result` with a type. Bedrock: `modelOutput` or `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import exact
from .values import as_text

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Anthropic's stop reasons in OpenAI's words."""


def members(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a result line says, or None when it is no result line.

    Args:
        line: The parsed line.

    Returns:
        `custom_id` and, as in any output, `response`, `error`, `error_kind`, `http_status`, `answer_model`, `finish_reason`,
        `prompt_tokens`, `completion_tokens`; with an answer also `raw`, its whole body.
    """
    name = line.get("custom_id", line.get("recordId"))
    if isinstance(line.get("result"), dict):
        found = _anthropic(line["result"])
    elif "modelInput" in line and ("modelOutput" in line or "error" in line):
        found = _answer(line["modelOutput"], 200) if line.get("modelOutput") else _failure(line.get("error"), None)
    elif "response" in line and "error" in line:
        found = _openai(line["response"], line["error"])
    else:
        return None
    return {"custom_id": name, **found}


def _openai(response: Any, error: Any) -> dict[str, Any]:
    if isinstance(response, dict) and "choices" in response:
        return _answer(response, 200)
    status, body = _count(_object(response).get("status_code")), _object(response).get("body")
    # A refusal by the server has no error of its own: its status tells.
    if error is None and isinstance(body, dict) and status is not None and status < 400:
        return _answer(body, status)
    return _failure(error if error is not None else body, status)


def _anthropic(result: dict[str, Any]) -> dict[str, Any]:
    if result.get("type") == "succeeded":
        return _answer(result.get("message"), 200)
    return _failure(result.get("error") or str(result.get("type")), None)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _answer(body: Any, status: int) -> dict[str, Any]:
    if not isinstance(body, dict):
        return _failure("the answer is no object", status) | {"error_kind": "bad_body"}
    usage = _object(body.get("usage"))
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        text = _object(choices[0].get("message")).get("content")
        reason = choices[0].get("finish_reason")
    else:
        text, reason = body.get("content"), REASONS.get(str(body.get("stop_reason")), body.get("stop_reason"))
        if text is None:
            return _failure("the answer has neither choices nor content", status) | {"error_kind": "bad_body"}
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
    return {
        "response": as_text(text),
        "error": None,
        "error_kind": None,
        "http_status": status,
        "answer_model": _word(body.get("model")),
        "finish_reason": _word(reason),
        "prompt_tokens": _count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        "completion_tokens": _count(usage.get("completion_tokens", usage.get("output_tokens"))),
        "raw": exact.dumps(body).decode("utf-8"),
    }


def _failure(error: Any, status: int | None) -> dict[str, Any]:
    while isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    code, words = "", as_text(error)
    if isinstance(error, dict):
        code = as_text(error.get("code") or error.get("errorCode") or error.get("type"))
        words = as_text(error.get("message") or error.get("errorMessage")) or words
    if status is None and isinstance(error, dict):
        status = _count(error.get("code"))
    refused = status is not None and 400 <= status < 500 and status not in (408, 425, 429)
    unsent = code in ("batch_expired", "batch_cancelled") or words in ("expired", "canceled")
    return {
        "response": "",
        "error": words or code or "no answer and no error",
        "error_kind": "pending" if unsent else "refused" if refused else "transient",
        "http_status": status,
        "answer_model": None,
        "finish_reason": None,
        "prompt_tokens": None,
        "completion_tokens": None,
    }
