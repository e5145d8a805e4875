"""How the gateway says no: a status, a code, and the error object OpenAI's clients know."""

from __future__ import annotations

from collections.abc import Mapping

from .. import exact

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class RefusalError(Exception):
    """A request that gets no answer.

    Args:
        status: The HTTP status.
        code: A word for programs: `clock`, `signature`, `key`, `replay`, `size`, `model_away`, …
        message: One sentence for people; never a secret, never a prompt.
        headers: Sent along, `Retry-After` for instance.
        close: Whether the connection ends with this response, because bytes of the request may still be under way.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        if close:
            self.headers["connection"] = "close"
        if status == 401:
            self.headers["www-authenticate"] = "Bearer"

    @property
    def body(self) -> bytes:
        """The error object as JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return exact.dumps({"error": {"message": str(self), "type": kind, "param": None, "code": self.code}})
