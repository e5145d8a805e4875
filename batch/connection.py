"""A job's endpoint, opened: the gateway started where it is the embedded one, credentials read, a client ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from .client import Client
from .errors import JobError, RowError
from .job import EMBEDDED, Job
from .records import KEY_BYTES, Prompt
from .settings import setting
from .signature import Credentials
from .wires import WIRES, Wire

MOST = 1000
"""Connections kept where the concurrency finds itself."""


class Connection(msgspec.Struct, frozen=True):
    """An endpoint that can be asked.

    Attributes:
        client: Sends one attempt.
        wire: How its protocol writes and reads.
        identity: What it counts as in a row's key.
        model: Who is asked when a row names no model.
        note: What a person should know of it, or "".
        arguments, credentials: What the client was made with, so that another process can make one.
    """

    client: Client
    wire: Wire
    identity: str
    model: str
    note: str
    arguments: Mapping[str, Any]
    credentials: Credentials

    def complete(self, messages: list[dict[str, Any]], parameters: Mapping[str, Any]) -> str:
        """One answer's text, one attempt.

        Raises:
            CallError: What went wrong.
            JobError: The messages or parameters cannot be sent.
        """
        return self.client.call(self._prompt(messages, parameters)).answer.text

    def stream(self, messages: list[dict[str, Any]], parameters: Mapping[str, Any]) -> Iterator[str]:
        """One answer's text as it comes.

        Raises:
            CallError: What went wrong.
            JobError: The messages or parameters cannot be sent.
        """
        return self.client.stream(self._prompt(messages, parameters, stream=True))

    def _prompt(self, messages: list[dict[str, Any]], parameters: Mapping[str, Any], *, stream: bool = False) -> Prompt:
        try:
            body, content = self.wire.request(self.model, messages, parameters, stream=stream)
        except RowError as error:
            raise JobError(str(error)) from None
        return Prompt(0, bytes(KEY_BYTES), 0, body, content)


def connect(job: Job, stack: ExitStack) -> Connection:
    """Open a job's endpoint.

    Args:
        job: Names it.
        stack: Closes it.

    Raises:
        JobError: No endpoint, credentials or model are named, or the embedded gateway lacks its packages.
    """
    endpoint = job.resolved_endpoint()
    arguments: dict[str, Any] = {
        "url": endpoint.url,
        "protocol": endpoint.protocol or "ails",
        "connections": job.concurrency if isinstance(job.concurrency, int) else MOST,
        "timeout": float(job.timeout),
        "client_version": endpoint.client_version,
        "allow_http": endpoint.allow_http,
    }
    identity, model, note = endpoint.identity, job.model, ""
    if endpoint.url in EMBEDDED:
        from .gateway.embedded import Embedded

        gateway = stack.enter_context(Embedded(EMBEDDED[endpoint.url]))
        credentials = gateway.credentials
        arguments |= {"url": gateway.url, "protocol": "ails"}
        # The key holds the model that answers, not the port: what the echo answered is asked again once there is a real model.
        identity, model, note = f"embedded:{gateway.answers_as}", model or gateway.answers_as, gateway.why
    else:
        model = model or setting("AILS_MODEL") or ""
        if not model and "model" not in job.row_params and job.input_format != "openai-batch":
            raise JobError(
                "no model: give --model, set AILS_MODEL, or name a column with --row-params model "
                "(OpenAI batch lines bring their own: --input-format openai-batch)"
            )
        credentials = endpoint.credentials()
    client = Client(credentials=credentials, **arguments)
    stack.callback(client.close)
    return Connection(client, WIRES[arguments["protocol"]], identity, model, note, arguments, credentials)
