"""One client's connection: uvicorn's, with an end to waiting for headers and a bound on how many and how large they are."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from email.utils import formatdate

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .refusal import RefusalError

HEADER_SECONDS = 10.0
HEADER_BYTES = 32 << 10
MAX_CONNECTIONS = 2_000


class Connection(HttpToolsProtocol):
    """uvicorn's connection with faults answered that it leaves to a proxy in front: slow, large and half-open requests."""

    _awaiting = True  # no complete header is at hand
    _begun = False  # but a part of one
    _header_bytes = 0
    _header_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; turn away what is one too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._turn_away(RefusalError(503, "connections", "too many connections", headers={"retry-after": "5"}))
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see to it that a header ends, in time and in size."""
        if self.transport.is_closing():
            return
        if self._awaiting:
            self._header_bytes += len(data)
        super().data_received(data)
        if not self._awaiting or self.transport.is_closing():
            return
        if self._header_bytes > HEADER_BYTES:
            self._turn_away(RefusalError(431, "header", "the request's header is too large"))
        elif self.cycle is None or self.cycle.response_complete:
            self._arm()

    def on_message_begin(self) -> None:
        """The first byte of a header."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A whole header: the clock for it stops."""
        self._awaiting = self._begun = False
        self._header_bytes = 0
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A whole request: what follows on this connection is the next header."""
        self._awaiting = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has gone out: what has begun meanwhile must end in time as well."""
        super().on_response_complete()
        if self._begun and not self.transport.is_closing():
            self._arm()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the same form as every other refusal."""
        self._turn_away(RefusalError(400, "http", "this is not an HTTP request that can be read"))

    def _turn_away(self, refusal: RefusalError) -> None:
        body = refusal.body
        lines = [f"HTTP/1.1 {refusal.status} Refused", f"date: {formatdate(usegmt=True)}"]
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in refusal.headers.items()]
        self.transport.write("\r\n".join([*lines, "connection: close", "", ""]).encode("ascii") + body)
        self.transport.close()

    def _give_up(self) -> None:
        self._header_timer = None
        self.transport.close()

    def _arm(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
