"""A response that is no answer, as the error its status and words make it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import exact
from ..errors import BadBody, CallError, Denied, Refused, ServerFault, Throttled

LONGEST_WORDS = 500
"""Characters of a server's text that an error carries."""

# Colours, cursor moves, window titles: what a terminal would obey, whole.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)

_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
# What the words of an error object mean when it arrives under a status of 200.
_MEANT = {
    "invalid_request_error": 400,
    "bad_request": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "api_error": 500,
    "internal_server_error": 500,
    "service_unavailable": 503,
    "overloaded_error": 503,
}


def refusal(status: int, body: bytes) -> CallError:
    """A response that is no answer, as the error its status and words make it.

    Args:
        status: The HTTP status, 3xx and certificates aside.
        body: As much of the body as was read; an OpenAI error object, another JSON or any text.
    """
    words, codes = _words(body)
    message = f"HTTP {status}" + (f": {words}" if words else "")
    if status in (401, 402, 403, 407) or (status == 429 and codes & _NO_QUOTA):
        return Denied(message, status=status)
    if status in (429, 503):
        return Throttled(message, status=status)
    if status in (408, 425) or status >= 500:
        return ServerFault(message, status=status)
    if status >= 400:
        return Refused(message, status=status)
    return BadBody(message, status=status)


def meant(data: Mapping[str, Any]) -> int:
    """The status of an error object that came under a 2xx; 500 where it does not say."""
    error = data.get("error")
    error = error if isinstance(error, dict) else data
    for name in ("status", "status_code", "code"):
        value = str(error.get(name))
        if re.fullmatch("[45][0-9]{2}", value, re.ASCII):
            return int(value)
    for name in ("code", "type"):
        if status_meant := _MEANT.get(str(error.get(name))):
            return status_meant
    return 500


def _words(body: bytes) -> tuple[str, set[str]]:
    """What an error's body says, on one line, and its codes."""
    if not body.strip():
        return "", set()
    try:
        data = exact.strict(body)
    except ValueError:
        return glimpse(body) or clean(body[:4096].decode("utf-8", "replace")), set()
    error = data.get("error")
    error = error if isinstance(error, dict) else data
    codes = {code for name in ("code", "type") if isinstance(code := error.get(name), str)}
    for words in (error.get("message"), data.get("error"), data.get("message"), data.get("detail")):
        if isinstance(words, str):
            return clean(words), codes
    return clean(body[:4096].decode("utf-8", "replace")), codes


def glimpse(body: bytes) -> str:
    """Words for a body that is plainly no JSON: empty, or a page; else nothing."""
    start = body[:4096].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not start:
        return "empty"
    if start[0] != "<":
        return ""
    title = _TITLE.search(start)
    return f"an HTML page ({clean(title[1])})" if title else "an HTML page"


def clean(text: str) -> str:
    """A server's text for a person's eyes: one line, nothing a terminal would obey, at most 500 characters."""
    text = _SEQUENCE.sub(" ", text[: 8 * LONGEST_WORDS])
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= LONGEST_WORDS else text[: LONGEST_WORDS - 1] + "…"
