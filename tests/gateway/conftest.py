"""Gateways on loopback, and clients that may misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from starlette.applications import Starlette

from batch.clock import SYSTEM, Clock
from batch.gateway.app import make_app
from batch.gateway.echo import Echo
from batch.gateway.embedded import Embedded
from batch.gateway.serve import listen
from batch.gateway.server import server_of
from batch.signature import Credentials, Signature, Stamps

CREDENTIALS = Credentials(api_key="the-api-key", secret="a secret of more than thirty-two bytes")


@dataclass
class Stepped:
    """A clock whose wall is moved by hand."""

    ahead: float = 0.0

    def time(self) -> float:
        return SYSTEM.time() + self.ahead

    def monotonic(self) -> float:
        return SYSTEM.monotonic() + self.ahead

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return SYSTEM.wait(event, seconds)


@dataclass
class Caller:
    """A client of one gateway."""

    url: str
    credentials: Credentials
    stamps: Stamps = field(default_factory=Stamps)
    session: requests.Session = field(default_factory=requests.Session)

    def prepared(
        self, content: Any = "Hello", path: str = "/v1/chat/completions?full=false", **fields: Any
    ) -> requests.PreparedRequest:
        """A signed request that has not been sent."""
        body = {"model": "any", "messages": [{"role": "user", "content": content}], **fields}
        return requests.Request(
            "POST",
            self.url + path,
            data=json.dumps(body, separators=(",", ":")).encode(),
            headers={"authorization": f"Bearer {self.credentials.api_key}", "content-type": "application/json"},
            auth=Signature(self.credentials, self.stamps),
        ).prepare()

    def send(self, request: requests.PreparedRequest, stream: bool = False) -> requests.Response:
        return self.session.send(request, timeout=60, stream=stream, allow_redirects=False)

    def ask(self, content: Any = "Hello", **fields: Any) -> requests.Response:
        return self.send(self.prepared(content, **fields))

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = self.session.get(self.url + "/healthz", timeout=60).json()
        return found

    def resigned(self, body: bytes | str, **headers: str) -> requests.Response:
        """Any bytes as a body, with the key but without a signature of ours."""
        given = {"authorization": f"Bearer {self.credentials.api_key}", **headers}
        return self.session.post(self.url + "/v1/chat/completions?full=false", data=body, headers=given, timeout=60)

    def raw(self, sent: bytes) -> bytes:
        """What comes back for bytes on a new connection, until the gateway closes it."""
        with self.connect() as connection:
            connection.sendall(sent)
            return drained(connection)

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=60)


def drained(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            received += more
    return received


def code(response: requests.Response) -> str:
    """The word for programs in a refusal."""
    word: str = response.json()["error"]["code"]
    return word


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """An application under the gateway's own server, in a thread."""
    listening = listen("127.0.0.1", 0)
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def gateway(clock: Clock = SYSTEM, **options: Any) -> Iterator[Caller]:
    """A gateway with chosen options, and its client."""
    given: dict[str, Any] = {"secrets": [CREDENTIALS.secret], "api_keys": [CREDENTIALS.api_key], "model": Echo(), **options}
    with serving(make_app(clock=clock, **given)) as url:
        yield Caller(url, CREDENTIALS)


def until(true: Any, seconds: float = 30.0) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def echo() -> Iterator[Caller]:
    """The embedded gateway with its echo, a process of its own."""
    with Embedded("echo") as running:
        yield Caller(running.url, running.credentials)
