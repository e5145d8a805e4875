"""Which signatures were seen: a captured request is answered once, as long as its time would still pass.

A signature fixes its `t`, so the cache is one set a second of `t`, and whole seconds are dropped once the time window has
passed them. What was dropped, or was stamped before the start, is refused by its `t` alone: neither a restart nor a clock that
steps back opens a second chance.
"""

from __future__ import annotations

from .refusal import RefusalError

WINDOW_MS = 300_000
"""How far `t` may be from the gateway's clock, either way."""


class Replays:
    """The signatures of the last ten minutes at most.

    Args:
        started_ms: When this gateway started, in milliseconds since the epoch; any earlier `t` is refused.
        capacity: How many signatures are remembered (150 bytes each); none still valid is forgotten for room.
    """

    def __init__(self, started_ms: int, capacity: int = 500_000) -> None:
        self._floor = started_ms
        self._capacity = capacity
        self._count = 0
        self._seconds: dict[int, set[bytes]] = {}
        self._swept = 0

    def admit(self, t: int, signature: str, now_ms: int) -> None:
        """Let a verified request pass, once.

        Args:
            t: The request's time in milliseconds, already found within the window.
            signature: Its 64 hex digits.
            now_ms: The gateway's clock.

        Raises:
            RefusalError: 401 `clock` from before the start, 409 `replay` for one seen before, 503 when the cache is full.
        """
        self._sweep(now_ms)
        if t < self._floor:
            raise RefusalError(401, "clock", "the request was stamped before this gateway started; stamp and sign it again")
        digest = bytes.fromhex(signature)[:16]
        seen = self._seconds.setdefault(t // 1000, set())
        if digest in seen:
            raise RefusalError(409, "replay", "this signature was used before; stamp and sign the request again")
        if self._count >= self._capacity:
            raise RefusalError(503, "replay_full", "too many requests within the time window", headers={"retry-after": "5"})
        seen.add(digest)
        self._count += 1

    def _sweep(self, now_ms: int) -> None:
        second = now_ms // 1000
        if second == self._swept:
            return
        self._swept = second
        for old in [known for known in self._seconds if now_ms - (known * 1000 + 999) > WINDOW_MS]:
            self._count -= len(self._seconds.pop(old))
            self._floor = max(self._floor, (old + 1) * 1000)
