"""What answers: a gateway model is a function from messages to text, whole or in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Message = Mapping[str, str]
"""One message, `{"role": …, "content": …}`, its content a string."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    Attributes:
        finish_reason: `stop` where the model ended by itself, `length` where `max_tokens` cut it.
        prompt_tokens, completion_tokens: As the model counts them.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class Model(Protocol):
    """Anything that answers messages.

    Attributes:
        name: The name answers carry in `model`; it is part of what a row is known by, so a model that answers differently
            has another name.
        licence: The licence of the model's weights, or "" where there are none.
        real: Whether a language model answers.
    """

    name: str
    licence: str
    real: bool

    @property
    def trouble(self) -> str:
        """Why it cannot answer just now, or ""."""

    async def complete(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Completion:
        """The answer to `messages`.

        Args:
            messages: The conversation, at least one message.
            parameters: What the request said besides (`temperature`, `max_tokens`, `seed`, …), already checked.

        Raises:
            RefusalError: 400 where the model cannot take the messages, 502 or 503 where it is away.
        """

    def stream(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> AsyncGenerator[str | Completion]:
        """The same answer in pieces of text as they come, and at the end the `Completion` as a whole."""

    async def close(self) -> None:
        """Give back what it holds."""
