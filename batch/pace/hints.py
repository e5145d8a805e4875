"""What a response's headers say about time and limits, in seconds and plain numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from ..records import Hints

LONGEST = 86_400.0
"""Seconds: nothing is believed to lie further ahead than a day; what does is capped (`Retry-After`) or ignored (resets)."""

# OpenAI, Groq, Azure and most compatibles; Cerebras names the minute; Anthropic turns the words round; the IETF draft
# (draft-ietf-httpapi-ratelimit-headers-07) and others count requests without saying so.
_NAMES = {
    "x-ratelimit-limit-requests": "limit_requests",
    "x-ratelimit-limit-tokens": "limit_tokens",
    "x-ratelimit-remaining-requests": "remaining_requests",
    "x-ratelimit-remaining-tokens": "remaining_tokens",
    "x-ratelimit-reset-requests": "reset_requests",
    "x-ratelimit-reset-tokens": "reset_tokens",
    "x-ratelimit-limit-requests-minute": "limit_requests",
    "x-ratelimit-limit-tokens-minute": "limit_tokens",
    "x-ratelimit-remaining-requests-minute": "remaining_requests",
    "x-ratelimit-remaining-tokens-minute": "remaining_tokens",
    "x-ratelimit-reset-requests-minute": "reset_requests",
    "x-ratelimit-reset-tokens-minute": "reset_tokens",
    "anthropic-ratelimit-requests-limit": "limit_requests",
    "anthropic-ratelimit-tokens-limit": "limit_tokens",
    "anthropic-ratelimit-requests-remaining": "remaining_requests",
    "anthropic-ratelimit-tokens-remaining": "remaining_tokens",
    "anthropic-ratelimit-requests-reset": "reset_requests",
    "anthropic-ratelimit-tokens-reset": "reset_tokens",
    "x-ratelimit-remaining": "remaining_requests",
    "x-ratelimit-reset": "reset_requests",
    "ratelimit-remaining": "remaining_requests",
    "ratelimit-reset": "reset_requests",
}

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_DURATION = re.compile(r"(?:(?:\d+(?:\.\d*)?|\.\d+)(?:d|h|ms|m|s|us|µs|ns))+", re.ASCII)
_PART = re.compile(r"([\d.]+)(d|h|ms|m|s|us|µs|ns)")
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def read_hints(headers: Mapping[str, str], now: float) -> Hints:
    """What the headers of one response say; whatever is negative, not finite or unreadable says nothing.

    Args:
        headers: Names in any case.
        now: Seconds since the epoch as this machine believes; the response's own `Date`, where there is one, is believed more.
    """
    found: dict[str, str] = {}
    after = after_ms = date = None
    for name, value in headers.items():
        name = name.lower()
        if name == "date":
            date = _date(value.strip())
        elif name == "retry-after":
            after = value.strip()
        elif name == "retry-after-ms":
            after_ms = value.strip()
        elif (
            "ratelimit" in name
            and (field := _NAMES.get(name))
            # The name that says what it counts wins over the one that does not.
            and (field not in found or name.endswith(("-requests", "-tokens")))
        ):
            found[field] = value.strip()
    if not found and after is None and after_ms is None:
        return Hints(date=date)
    then = now if date is None else date
    values = {
        field: _seconds_ahead(text, then) if field.startswith("reset") else _number(text) for field, text in found.items()
    }
    return Hints(retry_after=_retry_after(after, after_ms, then), date=date, **values)


def _retry_after(after: str | None, after_ms: str | None, then: float) -> float | None:
    if after_ms is not None and (milliseconds := _number(after_ms)) is not None:
        return min(milliseconds / 1_000, LONGEST)
    if after is None:
        return None
    if (seconds := _number(after)) is not None:
        return min(seconds, LONGEST)
    when = _date(after)
    return None if when is None else min(max(0.0, when - then), LONGEST)


def _number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _seconds_ahead(text: str, then: float) -> float | None:
    """A reset: `6m0s`, `59.5`, an epoch in seconds or milliseconds, or a date; None unless it lies ahead and within a day."""
    if (number := _number(text)) is not None:
        seconds = number - then if 1e9 < number < 1e11 else number / 1_000 - then if number >= 1e11 else number
    elif _DURATION.fullmatch(text):
        seconds = sum(float(part) * _UNITS[unit] for part, unit in _PART.findall(text))
    elif (when := _date(text)) is not None:
        seconds = when - then
    else:
        return None
    return seconds if 0.0 < seconds <= LONGEST else None


@lru_cache(maxsize=64)
def _date(text: str) -> float | None:
    """An HTTP date or an ISO timestamp as seconds since the epoch; the cache makes a header that changes once a second free."""
    try:
        when = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
