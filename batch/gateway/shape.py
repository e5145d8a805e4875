"""What a request may ask for: roles, texts and parameters within their bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..signature import content_of
from .model import Message
from .refusal import RefusalError

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
MAX_TOKENS = 32_768

Check = Callable[[Any], bool]


def _number(low: float, high: float) -> Check:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(low: int, high: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _stop(value: Any) -> bool:
    words = [value] if isinstance(value, str) else value
    return isinstance(words, list) and len(words) <= 4 and all(isinstance(word, str) and word for word in words)


PARAMETERS: Mapping[str, tuple[Check, str]] = {
    "temperature": (_number(0, 2), "a number from 0 to 2"),
    "top_p": (_number(0, 1), "a number from 0 to 1"),
    "min_p": (_number(0, 1), "a number from 0 to 1"),
    "top_k": (_whole(0, 1_000_000), "a whole number from 0"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "max_tokens": (_whole(1, MAX_TOKENS), f"a whole number from 1 to {MAX_TOKENS}"),
    "seed": (_whole(-(2**63), 2**64 - 1), "a whole number of 64 bits"),
    "stop": (_stop, "a text or up to four of them, none empty"),
}
"""The parameters a model here is given, what they may be, and that in words; any other has no meaning here and is left out."""


def _bad(message: str) -> RefusalError:
    return RefusalError(400, "shape", message)


def read_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages with their contents as texts, parts joined.

    Raises:
        RefusalError: 400, for a role or a part that is not known here.
    """
    texts: list[Message] = []
    for number, message in enumerate(messages, 1):
        if message["role"] not in ROLES:
            raise _bad(f"message {number}: the role must be one of {', '.join(sorted(ROLES))}")
        content = message.get("content") or ""
        if isinstance(content, list) and any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise _bad(f"message {number}: only parts of type text are understood here")
        texts.append({"role": message["role"], "content": content_of(content)})
    return texts


def read_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `PARAMETERS` that are set; null is not set.

    Raises:
        RefusalError: 400, naming the one that is out of bounds.
    """
    if given.get("n") not in (None, 1):
        raise _bad("n must be 1: a request has one answer")
    newer = given.get("max_completion_tokens")
    named = given if newer is None else {"max_tokens": newer, **given}
    kept = {name: named[name] for name in PARAMETERS if named.get(name) is not None}
    for name, value in kept.items():
        fits, words = PARAMETERS[name]
        if not fits(value):
            raise _bad(f"{name} must be {words}")
    return kept
