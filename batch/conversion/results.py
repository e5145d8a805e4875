"""Results of batch services, and rows of an output, as each other.

In between are the members of an output row, under the contract's names; with an answer also `raw`, the service's whole answer.
`formats.results` reads every shape, this writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args
from uuid import NAMESPACE_OID, uuid5

from .. import exact
from ..errors import RowError
from ..formats import openai_batch, results
from ..formats.table import MISSING
from ..formats.values import as_text
from ..records import Kind
from .losses import Losses

TEXTS = ("response", "error", "error_kind", "answer_model", "finish_reason")
NUMBERS = ("http_status", "prompt_tokens", "completion_tokens")
COLUMNS = ("custom_id", "response", "error", "error_kind", "http_status", "answer_model", "finish_reason", *NUMBERS[1:], "raw")

KINDS = frozenset(get_args(Kind))
STOP_REASONS = {reason: stop for stop, reason in reversed(results.REASONS.items())}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
"""Anthropic's errors by status: https://docs.claude.com/en/api/errors."""
STATUSES = {name: status for status, name in ERROR_TYPES.items()}

NOT_ASKED = "not asked: the batch expired"


def from_line(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """A result line of any service.

    Raises:
        RowError: It is none.
    """
    found = results.members(line)
    if found is None:
        raise RowError("this is no result line")
    if line.get("modelInput"):
        losses.add("'modelInput' of the line")
    error = _innermost(line)
    code = error.get("code") or error.get("errorCode") or error.get("type")
    if found["error_kind"]:
        status = code if type(code) is int else STATUSES.get(str(code)) if "result" in line else None
        if found["http_status"] is None and status is not None:
            found |= {"http_status": status, "error_kind": _kind_of(status)}
        found |= {"error_kind": code} if isinstance(code, str) and code in KINDS else {}
    return found


def _kind_of(status: int) -> str:
    return "refused" if 400 <= status < 500 and status not in (408, 425, 429) else "transient"


def _innermost(line: Mapping[str, Any]) -> dict[str, Any]:
    """The error object of a result line, however deep it stands; empty where there is none."""
    response, result = line.get("response"), line.get("result")
    error = line.get("error")
    if error is None and isinstance(response, dict):
        error = response.get("body")
    if error is None and isinstance(result, dict):
        error = result
    while isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    return error if isinstance(error, dict) else {}


def from_row(row: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """A row of an output, as `run` or a conversion wrote it."""
    name = "custom_id" if "custom_id" in row else "id"
    given = {key: None if value is MISSING else value for key, value in row.items()}
    if "response" not in given:
        raise RowError("no column 'response': this is no output")
    losses.members({key: value for key, value in given.items() if value != ""}, {*COLUMNS, name}, "the row")
    if given.get(name) is not None and not isinstance(given[name], str):
        losses.add("ids that are no text (they are written as text)")
    members: dict[str, Any] = {"custom_id": given.get(name)}
    for key in TEXTS:
        members[key] = as_text(given.get(key)) or None
    members |= {"response": members["response"] or "", "error_kind": members["error_kind"] or ""}
    for key in NUMBERS:
        members[key] = _number(key, given.get(key))
    if given.get("raw"):
        members["raw"] = as_text(given["raw"])
    return members


def _number(name: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(float(value)) if not isinstance(value, int) else value
    except (ValueError, TypeError, OverflowError):
        raise RowError(f"column {name!r} is no number: {str(value)[:40]!r}") from None


def to_row(members: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an output."""
    row = {name: members.get(name) for name in COLUMNS}
    row |= {"error": row["error"] or "", "error_kind": row["error_kind"] or "", "finish_reason": row["finish_reason"] or ""}
    return row if members.get("raw") else {name: value for name, value in row.items() if name != "raw"}


def to_openai(members: Mapping[str, Any], number: int, losses: Losses) -> bytes:
    """A line of OpenAI's, with the server's whole answer where that is a chat completion."""
    members = dict(members)
    if members.get("raw"):
        members["raw"] = exact.dumps(_completion(members, losses)).decode("utf-8")
    return openai_batch.result(as_text(members["custom_id"]), members, number)


def to_vllm(members: Mapping[str, Any], number: int, losses: Losses) -> bytes:
    """A line of vLLM's: like OpenAI's, but for failures, whose body is null and whose error is beside it."""
    line = exact.loads(to_openai(members, number, losses))
    name = uuid5(NAMESPACE_OID, line["id"]).hex
    line["id"] = f"vllm-{name}"
    if line["response"]:
        line["response"]["request_id"] = f"vllm-batch-{name}"
    if line["response"] and members.get("error_kind"):
        line["error"] = line["response"]["body"]["error"] | {"object": "error"}
        line["response"]["body"] = None
    return exact.dumps(line)


def to_anthropic(members: Mapping[str, Any], number: int, losses: Losses) -> bytes:
    """A line of Anthropic's."""
    kind, status = members.get("error_kind"), members.get("http_status")
    if not kind:
        result: dict[str, Any] = {"type": "succeeded", "message": _message(members, number, losses)}
    elif kind == "pending":
        if members.get("error") not in ("expired", "canceled", None, ""):
            losses.add("why rows were not asked")
        result = {"type": "expired"}
    else:
        same = status is not None and _kind_of(status) == kind
        name = ERROR_TYPES.get(status or 0, "") if same else ""
        if status is not None and not name:
            losses.add("the status of failures that have no name there")
        error = {"type": name or kind, "message": members.get("error") or ""}
        result = {"type": "errored", "error": {"type": "error", "error": error}}
    return exact.dumps({"custom_id": members["custom_id"], "result": result})


def to_bedrock(members: Mapping[str, Any], number: int, losses: Losses) -> bytes:
    """A line of Bedrock's, for a model of Anthropic's; what was asked is not known, so `modelInput` is empty."""
    kind, status = members.get("error_kind"), members.get("http_status")
    head = {"recordId": members["custom_id"], "modelInput": {}}
    if not kind:
        return exact.dumps(head | {"modelOutput": _message(members, number, losses)})
    told = status if status is not None and _kind_of(status) == kind else kind
    if status is not None and told == kind:
        losses.add("the status of failures that have no name there")
    return exact.dumps(head | {"error": {"errorCode": told, "errorMessage": members.get("error") or ""}})


def _raw(members: Mapping[str, Any]) -> dict[str, Any]:
    """The service's answer, or what is known of it as a chat completion."""
    if not members.get("raw"):
        return {}
    try:
        body = exact.loads(members["raw"].encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise RowError(f"column 'raw' is no JSON: {error}") from None
    return body if isinstance(body, dict) else {}


def _completion(members: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """The answer as a chat completion."""
    body = _raw(members)
    if "choices" in body:
        return body
    content = body.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    if len(blocks) > 1:
        losses.add("where one content block of an answer ends and the next begins")
    for block in blocks:
        if block.get("type") != "text":
            losses.add(f"content blocks of type {block.get('type')!r}")
        losses.members(block, {"type", "text"} if block.get("type") == "text" else set(block), "content blocks")
    if body.get("stop_reason") == "stop_sequence" or body.get("stop_reason") not in (None, *results.REASONS):
        losses.add(f"the stop reason {body.get('stop_reason')!r}")
    losses.members(body, {"id", "type", "role", "model", "content", "stop_reason", "usage"}, "answers")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    losses.members(usage or {}, {"input_tokens", "output_tokens"}, "usage")
    message = {"role": "assistant", "content": members["response"]}
    choice = {"index": 0, "message": message, "finish_reason": members.get("finish_reason")}
    made: dict[str, Any] = {"id": body.get("id"), "object": "chat.completion", "created": 0}
    made |= {"model": members.get("answer_model"), "choices": [choice]}
    prompt, completion = members.get("prompt_tokens"), members.get("completion_tokens")
    if prompt is not None and completion is not None:
        made["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return made


def _message(members: Mapping[str, Any], number: int, losses: Losses) -> dict[str, Any]:
    """The answer as one of Anthropic's messages."""
    body = _raw(members)
    if "choices" not in body and body:
        return body
    losses.members(body, {"id", "object", "created", "model", "choices", "usage"}, "answers")
    if body.get("created"):
        losses.add("when answers were made ('created')")
    choices = body.get("choices")
    choices = choices if isinstance(choices, list) and choices else [{}]
    if len(choices) > 1:
        losses.add("choices after the first")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    losses.members(choice, {"index", "message", "finish_reason"}, "choices")
    if isinstance(choice.get("message"), dict):
        losses.members(choice["message"], {"role", "content"}, "an answer's message")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    losses.members(usage or {}, {"prompt_tokens", "completion_tokens", "total_tokens"}, "usage")
    reason = members.get("finish_reason")
    if reason and reason not in STOP_REASONS:
        losses.add(f"the finish reason {reason!r}")
    counts = {"input_tokens": members.get("prompt_tokens"), "output_tokens": members.get("completion_tokens")}
    return {
        "id": body.get("id") or f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": members.get("answer_model"),
        "content": [{"type": "text", "text": members.get("response") or ""}],
        "stop_reason": STOP_REASONS.get(reason or "stop"),
        "stop_sequence": None,
        "usage": {name: count for name, count in counts.items() if count is not None},
    }
