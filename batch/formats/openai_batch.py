"""OpenAI batch lines: requests are JSON Lines with `custom_id`, `method`, `url`, `body`; this is the file of their results.

The shapes are those of https://platform.openai.com/docs/guides/batch: an answer and a refusal by the server are a `response`
with its status and body, everything else is an `error` with a code and a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from .. import exact
from .compression import Writable
from .table import MISSING, Chunk, Layout
from .values import as_text

KEYS = ("custom_id", "method", "url", "body")
"""What every request line has."""

EXPIRED = "batch_expired"
"""The code of a request that was not sent: readers of these files know it, and ask again."""

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")')


class Writer:
    """Rows as result lines, in input order.

    A row's members are those of any output: `response`, `error`, `error_kind`, `http_status`, `answer_model`, `finish_reason`,
    `prompt_tokens`, `completion_tokens`, under exactly these names; with `raw`, the server's whole answer goes out as it came.

    Args:
        out: Where the bytes go.
        layout: Not needed: all lines have the same members.
    """

    def __init__(self, out: Writable, layout: Layout) -> None:
        self._out = out

    def write(self, chunk: Chunk, positions: Sequence[int], members: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows at `positions`, each with what became of it."""
        ids: list[Any] = [MISSING] * len(chunk)
        if "custom_id" in (columns := chunk.columns):
            at = columns.index("custom_id")
            ids = [cells[at] for cells in chunk.cells()]
        lines = []
        for position, one in zip(positions, members, strict=True):
            name = ids[position]
            if name is MISSING or name is None or name == "":
                name = _torn_id(chunk, position) or f"row-{chunk.first + position + 1}"
            lines.append(result(as_text(name), one, chunk.first + position))
        if lines:
            self._out.write(b"\n".join(lines) + b"\n")

    def finish(self) -> None:
        """Nothing is held back."""


def _torn_id(chunk: Chunk, position: int) -> str:
    """The `custom_id` that can still be made out in a line that cannot be read."""
    found = CUSTOM_ID.search(chunk.raw_input.get(position, "").encode("utf-8", "backslashreplace"))
    try:
        return str(exact.loads(found[1])) if found else ""
    except ValueError:
        return ""


def result(custom_id: str, members: Mapping[str, Any], number: int) -> bytes:
    """One result line.

    Args:
        custom_id: The request's name.
        members: What became of it; see `Writer`.
        number: The row's number, from which the line's own id is made, the same every time.
    """
    digest = blake2b(f"{number}:{custom_id}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    kind, status = members.get("error_kind") or "", members.get("http_status")
    response: bytes = b"null"
    error: Any = None
    if not kind:
        raw = members.get("raw")
        body = raw.encode("utf-8", "surrogatepass") if raw else exact.dumps(_completion(members, digest))
        response = _response(int(status or 200), digest, body)
    elif status and status >= 400:
        form = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        told = {"message": members.get("error") or "", "type": form, "param": None, "code": kind}
        response = _response(int(status), digest, exact.dumps({"error": told}))
    else:
        error = {"code": EXPIRED if kind == "pending" else kind, "message": members.get("error") or ""}
    head = exact.dumps({"id": f"batch_req_{digest}", "custom_id": custom_id})[:-1]
    return b"".join((head, b',"response":', response, b',"error":', exact.dumps(error), b"}"))


def _response(status: int, digest: str, body: bytes) -> bytes:
    return b'{"status_code":%d,"request_id":"req_%s","body":%s}' % (status, digest.encode(), body)


def _completion(members: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """A chat completion made of the generated columns, for an answer whose whole body is not at hand."""
    prompt, completion = members.get("prompt_tokens"), members.get("completion_tokens")
    body: dict[str, Any] = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": 0,
        "model": members.get("answer_model") or "",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": members.get("response") or ""},
                "finish_reason": members.get("finish_reason") or "stop",
            }
        ],
    }
    if prompt is not None and completion is not None:
        tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        body["usage"] = tokens
    return body
