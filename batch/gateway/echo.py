"""A model for tests and for machines without a real one: it answers with the last message, and its name says so."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from .model import Completion, Message

_TOKEN = re.compile(r"\s*\S+|\s+$")


class Echo:
    """Answers with the last message's own text: the same request always brings the same answer.

    A token is a word with the space before it; `max_tokens` cuts after so many.
    """

    name = "echo-1"
    licence = ""
    real = False
    trouble = ""

    def _pieces(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> tuple[list[str], Completion]:
        words = _TOKEN.findall(messages[-1]["content"])
        limit = parameters.get("max_tokens")
        kept = words if limit is None else words[:limit]
        prompt_tokens = sum(len(_TOKEN.findall(message["content"])) for message in messages)
        reason: Literal["stop", "length"] = "stop" if len(kept) == len(words) else "length"
        return kept, Completion("".join(kept), reason, prompt_tokens, len(kept))

    async def complete(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Completion:
        """The last message, cut to `max_tokens` words."""
        return self._pieces(messages, parameters)[1]

    async def stream(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> AsyncGenerator[str | Completion]:
        """The last message, word by word."""
        pieces, completion = self._pieces(messages, parameters)
        for piece in pieces:
            yield piece
        yield completion

    async def close(self) -> None:
        """Nothing to give back."""
