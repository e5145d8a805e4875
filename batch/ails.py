"""The names users of the signed protocol know: one signed completion a call, one attempt, no retries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from . import exact
from .client import Client
from .errors import JobError
from .records import Prompt
from .settings import setting
from .signature import SHA256, Credentials, SignatureError, format_timestamp, sign, verify
from .wires import WIRES

__all__ = ["SHA256", "SignatureError", "Utils", "create_completion", "format_timestamp", "sign", "verify"]


class Utils:
    """The protocol's two computations.

    Example:
        >>> import os
        >>> from batch.ails import Utils
        >>> os.environ["AILS_SECRET"] = "local-development-secret"
        >>> t = Utils.format_timestamp(1700000000000)
        >>> t
        '1700000000001'
        >>> Utils.hash({"t": t, "m": "Hello, world!"})
        '660e33b78e80df3450e01b9112dac3c2f0aec12d406156a393594d1119ab8528'
    """

    @staticmethod
    def hash(json_data: dict[str, str]) -> SHA256:
        """The signature of `{"t": …, "m": …}` with the secret in `AILS_SECRET`.

        Raises:
            JobError: The secret is not set.
            RowError: The content holds half a surrogate pair.
        """
        return sign(json_data["t"], json_data["m"], _needed("AILS_SECRET", None))

    @staticmethod
    def format_timestamp(timestamp: int) -> str:
        """Milliseconds since the epoch as the protocol writes them: a decimal string whose last digit is odd."""
        return format_timestamp(timestamp)


def _create_completion(
    model: str,
    messages: list[dict[str, Any]],
    temperature: float = 0.6,
    stream: bool = False,
    *,
    api_key: str | None = None,
    secret: str | None = None,
    base_url: str | None = None,
    **kwargs: Any,
) -> Iterator[str] | str | None:
    """One signed completion.

    Args:
        model: The model's name.
        messages: Objects with `role` and `content`; the last content is signed.
        temperature: Of the sampling.
        stream: Whether to yield the text in pieces as they come.
        api_key: Instead of the setting `AILS_API_KEY` (environment or `.env`).
        secret: Instead of the setting `AILS_SECRET`.
        base_url: Instead of the setting `AILS_BASE_URL`.
        kwargs: Further members of the body, such as `top_p` or `max_tokens`.

    Returns:
        The text; None when a well-formed answer has no content; with `stream` an iterator of pieces, which sends the request
        when it is first asked for one.

    Raises:
        JobError: A setting is missing, or the address is none that may be asked.
        RowError: The messages or a parameter cannot be sent.
        CallError: The request brought no answer; nothing is tried again.

    Example:
        >>> import batch
        >>> from batch.gateway.embedded import Embedded
        >>> with Embedded("echo") as gateway:
        ...     batch.create_completion(
        ...         model="echo-1",
        ...         messages=[{"role": "user", "content": "Hello, world!"}],
        ...         base_url=gateway.url,
        ...         api_key=gateway.credentials.api_key,
        ...         secret=gateway.credentials.secret,
        ...     )
        'Hello, world!'
    """
    client = _client(_needed("AILS_BASE_URL", base_url), _needed("AILS_API_KEY", api_key), _needed("AILS_SECRET", secret))
    body, content = WIRES["ails"].request(model, messages, {"temperature": temperature, **kwargs}, stream=stream)
    prompt = Prompt(0, b"", 0, body, content)
    if stream:
        return client.stream(prompt)
    answer = client.call(prompt).answer
    if not answer.text and exact.strict(answer.body)["choices"][0]["message"].get("content") is None:
        return None
    return answer.text


create_completion = _create_completion


def _needed(name: str, given: str | None) -> str:
    value = given or setting(name)
    if not value:
        raise JobError(f"set {name} (environment or .env)")
    return value


def _client(url: str, api_key: str, secret: str) -> Client:
    with _making:
        return _made(os.getpid(), url, api_key, secret)


# Kept, because one client keeps the stamps of equal prompts apart, and connections are worth reusing; but never across a fork.
@lru_cache(maxsize=8)
def _made(_: int, url: str, api_key: str, secret: str) -> Client:
    return Client(url, "ails", Credentials(api_key, secret))


_making = threading.Lock()
