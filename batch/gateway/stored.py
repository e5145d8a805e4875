"""Answers kept for `Idempotency-Key`: the same key with the same body brings the stored answer, not a second one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from ..clock import Clock
from .refusal import RefusalError

KEEP_SECONDS = 24 * 3600.0
_ENTRY_BYTES = 600  # what Python needs around a stored answer


@dataclass(slots=True)
class _Entry:
    digest: bytes
    born: float
    answer: bytes | None = None
    users: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Stored:
    """Answers by client and `Idempotency-Key`, oldest forgotten first.

    Args:
        clock: For the age of what is kept.
        budget: How many bytes of answers are kept.
    """

    def __init__(self, clock: Clock, budget: int = 64 << 20) -> None:
        self._clock = clock
        self._budget = budget
        self._held = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    async def answer(self, client: bytes, key: str, body: bytes, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        """The answer stored under `key`, or what `ask` brings, which is then stored; an `ask` that raises stores nothing.

        Requests with one key that come while the first is being answered wait for its answer.

        Args:
            client: Who asks; keys of different clients have nothing to do with each other.
            key: The header's value.
            body: Everything the request asks for, without date, time and signature, in one fixed form.
            ask: Makes the answer.

        Raises:
            RefusalError: 422 where the key came with another body before.
        """
        name = sha256(client + b"\n" + key.encode()).digest()
        digest = sha256(body).digest()
        self._forget()
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(digest, self._clock.monotonic())
        if entry.digest != digest:
            raise RefusalError(422, "idempotency", "this Idempotency-Key came with another body before")
        entry.users += 1
        try:
            async with entry.turn:
                if entry.answer is None:
                    answer = await ask()
                    entry.answer = answer
                    self._held += len(answer) + _ENTRY_BYTES
                return entry.answer
        finally:
            entry.users -= 1
            if entry.answer is None and not entry.users:
                del self._entries[name]

    def _forget(self) -> None:
        oldest_kept = self._clock.monotonic() - KEEP_SECONDS
        while self._entries:
            name, entry = next(iter(self._entries.items()))
            if entry.users or (self._held <= self._budget and entry.born >= oldest_kept):
                break
            self._held -= len(entry.answer or b"") + _ENTRY_BYTES
            del self._entries[name]
