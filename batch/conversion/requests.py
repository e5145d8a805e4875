"""Requests of batch services, and rows of a table that ask the same.

In between each is a chat completion: `custom_id` and the `body` of an OpenAI batch line. Anthropic's lines are described at
https://docs.claude.com/en/api/creating-message-batches, Bedrock's at
https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html (the model stands outside of its lines).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import RowError
from ..exact import dumps, loads
from ..formats.table import MISSING
from ..formats.values import as_text
from ..records import TEXT_PARAMETERS
from .losses import Losses

METHOD, URL = "POST", "/v1/chat/completions"

PARAMETERS = (TEXT_PARAMETERS - {"model"}) | {
    *("frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "n", "parallel_tool_calls"),
    *("presence_penalty", "response_format", "seed", "stop", "temperature", "tool_choice", "tools", "top_k"),
    *("top_logprobs", "top_p", "verbosity"),
}
"""Members of a request that have a column of their own; all others share the column `extra_body`."""

COLUMNS = frozenset({"custom_id", "method", "url", "model", "prompt", "messages", "extra_body"})
"""The other columns that a request is made of."""

ANTHROPIC = frozenset(
    {"model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "metadata"}
)
SHARED = ("temperature", "top_p", "top_k")
VERSION = "bedrock-2023-05-31"
MAX_TOKENS = 4096
"""Written where a request names no limit, for Anthropic's needs one."""

DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError(f"{what} is no object")
    return value


def _parsed(value: Any, what: str) -> Any:
    """A cell that holds JSON; in a format that nests it may be the value already."""
    if not isinstance(value, str):
        return value
    try:
        return loads(value.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise RowError(f"{what} is no JSON: {error}") from None


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RowError("the request has no list of messages")
    return messages


def from_openai(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """An OpenAI batch line: what all others are turned into."""
    _object(line.get("body"), "'body'")
    losses.members(dict(line), {"custom_id", "method", "url", "body"}, "the line")
    return {name: line[name] for name in ("custom_id", "method", "url", "body") if name in line}


def to_openai(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """An OpenAI batch line with its members in order."""
    return {
        "custom_id": line["custom_id"],
        "method": line.get("method", METHOD),
        "url": line.get("url", URL),
        "body": line["body"],
    }


def from_row(row: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """A row of a table: `prompt` or `messages`, `model`, and parameters as `--row-params` reads them."""
    row = {name: value for name, value in row.items() if value is not MISSING and value is not None and value != ""}
    body: dict[str, Any] = {"model": as_text(row["model"])} if "model" in row else {}
    if "messages" in row:
        body["messages"] = _parsed(row["messages"], "column 'messages'")
    elif "prompt" in row:
        body["messages"] = [{"role": "user", "content": as_text(row["prompt"])}]
    elif "extra_body" not in row:
        raise RowError("neither 'prompt' nor 'messages' says what is asked")
    for name in [name for name in row if name in PARAMETERS]:
        body[name] = as_text(row[name]) if name in TEXT_PARAMETERS else _cell(name, row[name])
    if "extra_body" in row:
        body |= _object(_parsed(row["extra_body"], "column 'extra_body'"), "column 'extra_body'")
    name = "custom_id" if "custom_id" in row else "id"
    losses.members(row, COLUMNS | PARAMETERS | {name}, "the row")
    if name in row and not isinstance(row[name], str):
        losses.add("ids that are no text (they are written as text)")
    line = {"custom_id": as_text(row[name])} if name in row else {}
    return line | {name: as_text(row[name]) for name in ("method", "url") if name in row} | {"body": body}


def _cell(name: str, value: Any) -> Any:
    try:
        return _parsed(value, f"column {name!r}")
    except RowError:
        if name == "stop":
            return value
        raise


def is_prompt(line: Mapping[str, Any]) -> bool:
    """Whether a request asks with one text and nothing else, so that the column `prompt` can hold it."""
    messages = line["body"].get("messages")
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        return False
    one = messages[0]
    return (
        one.keys() == {"role", "content"} and one["role"] == "user" and isinstance(one["content"], str) and one["content"] != ""
    )


def to_row(line: Mapping[str, Any], *, prompts: bool) -> dict[str, Any]:
    """A row of a table.

    Args:
        line: An OpenAI batch line.
        prompts: Whether all of the file's requests are single texts, so that the column `prompt` says them.
    """
    row = {"custom_id": line["custom_id"]}
    if (line.get("method", METHOD), line.get("url", URL)) != (METHOD, URL):
        row |= {"method": line.get("method", METHOD), "url": line.get("url", URL)}
    extra = {}
    for name, value in line["body"].items():
        if name == "messages" and value:
            row |= {"prompt": value[0]["content"]} if prompts else {"messages": value}
        elif name in TEXT_PARAMETERS and isinstance(value, str) and value:
            row[name] = value
        elif name in PARAMETERS - TEXT_PARAMETERS and value is not None:
            row[name] = dumps(value).decode() if isinstance(value, str) else value
        else:
            extra[name] = value
    return row | ({"extra_body": extra} if extra else {})


def from_anthropic(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """One of Anthropic's batch lines, `custom_id` and `params`."""
    losses.members(dict(line), {"custom_id", "params"}, "the line")
    return {"custom_id": line.get("custom_id"), "body": _from_params(_object(line.get("params"), "'params'"), losses)}


def to_anthropic(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """One of Anthropic's batch lines."""
    return {"custom_id": line["custom_id"], "params": _to_params(line, losses)}


def from_bedrock(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """One of Bedrock's lines, `recordId` and `modelInput`; its input is one of Anthropic's requests, or a chat completion."""
    losses.members(dict(line), {"recordId", "modelInput"}, "the line")
    given = dict(_object(line.get("modelInput"), "'modelInput'"))
    if "anthropic_version" in given:
        if given.pop("anthropic_version") != VERSION:
            losses.add("the 'anthropic_version' of requests")
        return {"custom_id": line.get("recordId"), "body": _from_params(given, losses)}
    _messages(given)
    return {"custom_id": line.get("recordId"), "body": given}


def to_bedrock(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """One of Bedrock's lines, for a model of Anthropic's."""
    params = _to_params(line, losses)
    if params.pop("model", None) is not None:
        losses.add("the model (for Bedrock it stands in the job, not in its lines)")
    return {"recordId": line["custom_id"], "modelInput": {"anthropic_version": VERSION, **params}}


def refuse_other_urls(line: Mapping[str, Any]) -> None:
    """Only a chat completion has a form of another service.

    Raises:
        RowError: The request is another one, or has no messages.
    """
    if not str(line.get("url", URL)).endswith("/chat/completions"):
        raise RowError(f"url {str(line.get('url'))[:60]!r} is none of chat completions")
    _messages(line["body"])


def _from_params(params: dict[str, Any], losses: Losses) -> dict[str, Any]:
    body: dict[str, Any] = {"model": params["model"]} if "model" in params else {}
    system = params.get("system")
    blocks = [system] if isinstance(system, str) else [_text_of(block, losses) for block in system or ()]
    messages = [{"role": "system", "content": text} for text in blocks if text is not None]
    for message in _messages(params):
        losses.members(message, {"role", "content"}, "messages")
        if message.get("role") not in ("user", "assistant") or message.get("content") is None:
            losses.add(f"messages with the role {message.get('role')!r} or without content")
        messages.append(message | {"content": _from_blocks(message.get("content"), losses)})
    body["messages"] = messages
    body |= {name: params[name] for name in ("max_tokens", *SHARED) if name in params}
    if "stop_sequences" in params:
        body["stop"] = params["stop_sequences"]
    metadata = params.get("metadata")
    if isinstance(metadata, dict):
        losses.members(metadata, {"user_id"}, "'metadata'")
        body |= {"user": metadata["user_id"]} if metadata.get("user_id") is not None else {}
    losses.members(params, ANTHROPIC, "requests")
    return body


def _text_of(block: Any, losses: Losses) -> str | None:
    if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
        losses.members(block, {"type", "text"}, "text blocks")
        return str(block["text"])
    losses.add("parts of a system message that are no text")
    return None


def _from_blocks(content: Any, losses: Losses) -> Any:
    if not isinstance(content, list):
        return content
    parts: list[dict[str, Any]] = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        source = block.get("source") if kind == "image" else None
        if kind == "text":
            losses.members(block, {"type", "text"}, "text blocks")
            parts.append({"type": "text", "text": block.get("text")})
        elif isinstance(source, dict) and source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif isinstance(source, dict) and source.get("type") == "url":
            parts.append({"type": "image_url", "image_url": {"url": source.get("url")}})
        else:
            losses.add(f"content blocks of type {kind!r}")
    return parts


def _to_params(line: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    body = line["body"]
    params = {"model": body["model"]} if body.get("model") is not None else {}
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    if limit is None:
        losses.add(f"requests without max_tokens (it is needed there, so {MAX_TOKENS} is written)")
    params["max_tokens"] = MAX_TOKENS if limit is None else limit
    system: list[str] = []
    messages: list[dict[str, Any]] = []
    for message in _messages(body):
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            if messages or role == "developer":
                losses.add("where system messages stand, and the role 'developer' (they are put first, as 'system')")
            system += _system_texts(content, losses)
        elif role in ("user", "assistant") and content is not None:
            losses.members(message, {"role", "content"}, "messages")
            messages.append({"role": role, "content": _to_blocks(content, losses)})
        else:
            losses.add(f"messages with the role {role!r} or without content")
    if system:
        params["system"] = system[0] if len(system) == 1 else [{"type": "text", "text": text} for text in system]
    params["messages"] = messages
    params |= {name: body[name] for name in SHARED if body.get(name) is not None}
    if body.get("stop") is not None:
        params["stop_sequences"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    if body.get("user") is not None:
        params["metadata"] = {"user_id": body["user"]}
    known = {"model", "messages", "max_tokens", "max_completion_tokens", "stop", "user", "stream", *SHARED}
    losses.members(body, known, "requests")
    return params


def _system_texts(content: Any, losses: Losses) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else [content]
    losses.add("that a system message had parts (each is a message of its own there)")
    return [text for part in parts if (text := _text_of(part, losses)) is not None]


def _to_blocks(content: Any, losses: Losses) -> Any:
    if not isinstance(content, list):
        return content
    blocks: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        image = part.get("image_url") if kind == "image_url" else None
        if kind == "text":
            losses.members(part, {"type", "text"}, "text parts")
            blocks.append({"type": "text", "text": part.get("text")})
        elif isinstance(image, dict) and isinstance(image.get("url"), str):
            losses.members(image, {"url"}, "images")
            data = DATA_URL.fullmatch(image["url"])
            where = {"type": "base64", "media_type": data[1], "data": data[2]} if data else {"type": "url", "url": image["url"]}
            blocks.append({"type": "image", "source": where})
        else:
            losses.add(f"content parts of type {kind!r}")
    return blocks
