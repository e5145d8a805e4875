"""A server that counts: its own process, every request written down with its prompt before it is answered.

    python -m tests.counting FOLDER        # says its port on a line, and serves until its stdin ends

Requests must be signed with `SECRET`. Each API key has a log of its own, `FOLDER/<api key>.log`, a JSON line a request. An
answer depends on the request alone (see `answer_to`); the model's name says how long it takes: `wait-20` is 0 to 40 ms, 20 on
average. A prompt that begins with `refuse` is refused with 400.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECRET = "a secret of the tests, thirty-two"
PING = b"are you there?"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it reached the server.

    Attributes:
        prompt: The content of its last message.
        at: Seconds since the epoch.
        idempotency: Its `Idempotency-Key`.
        body: Everything that was sent but `d`, `t` and `s`.
    """

    prompt: str
    at: float
    idempotency: str
    body: dict[str, Any]


class Counting:
    """The server, for one `with`.

    Args:
        folder: Where its logs go.

    Attributes:
        url: Its base URL.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.counting", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def environment(self, name: str = "tests") -> dict[str, str]:
        """What a client needs to reach this server under a name of its own."""
        return {"AILS_BASE_URL": self.url, "AILS_API_KEY": name, "AILS_SECRET": SECRET, "AILS_MODEL": "wait-0"}

    def settle(self) -> None:
        """Wait until every request that was sent before now stands in its log, even if its sender is dead."""
        for _ in range(2):  # connections are taken in order, but two that are ready at once are read in any
            with socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), timeout=60) as connection:
                connection.sendall(PING)
                connection.recv(16)

    def asked(self, name: str = "tests", since: int = 0) -> list[Asked]:
        """The requests sent under a name, in the order in which they came, without the first `since`."""
        log = self.folder / f"{name}.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [Asked(**json.loads(line)) for line in lines[since:]]


def answer_to(body: dict[str, Any]) -> str:
    """The text of the answer: the prompt, and a digest of everything that was sent beside date, time and signature."""
    sent = json.dumps({name: value for name, value in body.items() if name not in ("d", "t", "s")}, sort_keys=True)
    return f"{prompt_of(body)} ~ {blake2b(sent.encode(), digest_size=8).hexdigest()}"


def prompt_of(body: dict[str, Any]) -> str:
    """The content of the last message."""
    return str(body["messages"][-1]["content"])


def _completion(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    if prompt_of(body).startswith("refuse"):
        return 400, {"error": {"message": f"cannot be answered: {prompt_of(body)}", "type": "invalid_request_error"}}
    text = answer_to(body)
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": len(prompt_of(body).split()), "completion_tokens": len(text.split())}
    return 200, {
        "id": "chatcmpl-" + text[-16:],
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }


class _Connection(asyncio.Protocol):
    """One keep-alive connection: a request, its answer, the next request."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data == PING:
            self._transport.write(b"here")
            return
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers["content-length"])
        if len(rest) >= length:
            self._received = rest[length:]
            self._answer(headers, json.loads(rest[:length]))

    def _answer(self, headers: dict[str, str], body: dict[str, Any]) -> None:
        from batch.signature import SignatureError, verify

        try:
            verify(body, prompt_of(body), [SECRET], time.time() * 1000)
        except SignatureError as error:
            self._send(401, {"error": {"message": f"signature: {error}"}})
            return
        name = headers["authorization"].removeprefix("Bearer ")
        asked = {key: value for key, value in body.items() if key not in ("d", "t", "s")}
        line = {
            "prompt": prompt_of(body),
            "at": time.time(),
            "idempotency": headers.get("idempotency-key", ""),
            "body": asked,
        }
        log = os.open(self._logs / f"{Path(name).name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(log, json.dumps(line).encode() + b"\n")
        os.close(log)
        model = str(body["model"])
        wait = float(model.removeprefix("wait-")) / 1000 if model.startswith("wait-") else 0.0
        asyncio.get_running_loop().call_later(random.uniform(0, 2 * wait), self._send, *_completion(body))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self._transport.write(head.encode() + content)


async def _serve(logs: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(logs), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
