"""A server on loopback that behaves badly in any way asked for: `server.url("html")` is the base URL of one behaviour."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from batch.signature import SignatureError, content_of, verify, verify_bound

KEY = "test-key"
SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEPT = "-kept"
TLS = Path(__file__).parent / "data/tls"


@dataclass(frozen=True)
class Received:
    """One request as it came off the socket."""

    behaviour: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    connection: int
    number: int  # on its connection, from 1

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


Behaviour = Callable[["Hostile", socket.socket, Received], bool]
"""Answers one request; True keeps the connection."""

BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


def answer(text: str | None = "four", **members: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    whole = {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(whole | members).encode()


def refused(words: str, code: str | int | None = None) -> bytes:
    return json.dumps({"error": {"message": words, "type": None, "param": None, "code": code}}).encode()


def response(
    body: bytes, status: int = 200, content_type: str = "application/json", length: int | None = None, **headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status} Word", f"content-type: {content_type}"]
    if length is None or length >= 0:
        lines.append(f"content-length: {len(body) if length is None else length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@dataclass
class Hostile:
    """The server. `with Hostile() as server: ...`

    Attributes:
        requests: How many requests each behaviour got.
        seen: All of them, in order.
        connections: How many connections were accepted.
        offset: Seconds that the server's clock is ahead, for `signed`.
        tls: Which of the certificates in `data/tls` it shows; "" for plain HTTP.
    """

    requests: Counter[str] = field(default_factory=Counter)
    seen: list[Received] = field(default_factory=list)
    connections: int = 0
    offset: float = 0.0
    tls: str = ""
    stamps: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if self.tls else None
        if self._context:
            self._context.load_cert_chain(TLS / f"{self.tls}.pem")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def url(self, behaviour: str, kept: bool = False) -> str:
        """The base URL under which every request meets this behaviour, or every one but the first of a connection."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/{behaviour}{KEPT if kept else ''}"

    def __enter__(self) -> Hostile:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> bool:
        """Wait, but not beyond the server's end; True while it is up."""
        return not self._closing.wait(seconds)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        self._open.add(connection)
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            with connection, connection.makefile("rb") as reader:
                for received in self._read(connection, reader, number):
                    if not BEHAVIOURS[received.behaviour](self, connection, received):
                        return
        except (OSError, ValueError):
            pass  # the client went away, or the behaviour closed the socket
        finally:
            connection.close()
            self._open.discard(connection)

    def _read(self, connection: socket.socket, reader: Any, ordinal: int) -> Iterator[Received]:
        number = 0
        while line := reader.readline():
            method, _, rest = line.decode("latin-1").partition(" ")
            if method != "POST":  # for one, a TLS handshake
                connection.sendall(response(b"not here", 400, connection="close"))
                return
            target = rest.split(" ")[0].removeprefix("http://proxied.invalid")
            headers = {}
            while (header := reader.readline().decode("latin-1").strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", 0)))
            path, _, query = target.partition("?")
            number += 1
            behaviour, kept, _ = path.split("/")[1].partition(KEPT)
            if kept and number == 1:
                behaviour = "good"
            received = Received(behaviour, method, path, query, headers, body, ordinal, number)
            with self._lock:
                self.requests[received.behaviour] += 1
                self.seen.append(received)
            yield received


@behaviour
def good(_: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(response(answer()))
    return True


@behaviour
def signed(server: Hostile, connection: socket.socket, received: Received) -> bool:
    """Checks everything a gateway would, replay included, by a clock of its own."""
    now = time.time() + server.offset
    date = email.utils.formatdate(now, usegmt=True)
    body = received.json
    content = content_of(body["messages"][-1]["content"])
    status, words = 200, answer()
    try:
        verify(body, content, [SECRET], now * 1000)
        verify_bound(
            received.headers["x-batch-signature"],
            SECRET,
            received.method,
            received.path,
            received.query,
            body["t"],
            received.headers["client-id"],
            received.body,
        )
    except SignatureError as error:
        status, words = 401, refused(str(error), error.reason)
    else:
        with server._lock:
            server.stamps[content, body["t"]] += 1
            if server.stamps[content, body["t"]] > 1:
                status, words = 409, refused("this signature was used before", "replay")
    connection.sendall(response(words, status, date=date))
    return True


@behaviour
def replayed_once(server: Hostile, connection: socket.socket, _: Received) -> bool:
    first = server.requests["replayed_once"] == 1
    connection.sendall(response(refused("used before", "replay"), 409) if first else response(answer()))
    return True


def sends(name: str, data: bytes | Callable[[], bytes], *, keep: bool = False) -> None:
    """A behaviour that always sends the same bytes."""

    def send(_: Hostile, connection: socket.socket, __: Received) -> bool:
        connection.sendall(data if isinstance(data, bytes) else data())
        return keep

    BEHAVIOURS[name] = send


@cache
def bomb() -> bytes:
    return response(gzip.compress(bytes(256 * 1024 * 1024), 9), content_encoding="gzip")


PAGE = b"<!DOCTYPE html><html><head><title>502\x1b[31m Bad Gateway</title></head><body>\xff</body></html>"
EVENTS = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text for text in (b"one ", b"two ", b"three")]
STREAM = "text/event-stream"

sends("html", response(PAGE, content_type="text/html"), keep=True)
sends("empty", response(b""), keep=True)
sends("no_content", response(b"", 204, length=-1))
sends("nan", response(answer().replace(b'"prompt_tokens": 3', b'"prompt_tokens": NaN')), keep=True)
sends("infinity", response(answer().replace(b'"prompt_tokens": 3', b'"prompt_tokens": -Infinity')), keep=True)
sends("deep", response(b'{"choices":' + b"[" * 200_000 + b"]" * 200_000 + b"}"))
sends("invalid_utf8", response(answer().replace(b"four", b"f\xffur")), keep=True)
sends("duplicate_keys", response(answer().replace(b'"id"', b'"model": "n", "id"')), keep=True)
sends("huge_number", response(answer().replace(b'"prompt_tokens": 3', b'"prompt_tokens": ' + b"9" * 5000)), keep=True)
sends("list", response(b"[" + answer() + b"]"), keep=True)
sends("no_choices", response(answer(choices=[])), keep=True)
sends("null_content", response(answer(None)), keep=True)
sends("filtered", response(answer(None).replace(b'"stop"', b'"content_filter"')), keep=True)
sends("two_answers", response(answer() + answer()), keep=True)
sends("pretty", response(json.dumps(json.loads(answer()), indent=1).replace("\n", "\r\n").encode()), keep=True)
sends("surrogate", response(answer("half \ud83d")), keep=True)
sends("parts", response(answer([{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}])), keep=True)  # type: ignore[arg-type]
sends("error_in_200", response(refused("slow down", 429)), keep=True)
sends("denied_in_200", response(refused("no such key", "invalid_api_key")), keep=True)
sends("unnamed_error_in_200", response(refused("something\r\n\x1b]0;title\x07happened")), keep=True)

sends("half", response(answer()[:40], length=len(answer())))
sends("half_without_length", response(answer()[:40], length=-1))
sends("cut_chunk", chunked(answer()[:40], end=b""))
sends("bad_chunk", chunked(answer()[:40], end=b"zz\r\n"))
sends("in_chunks", chunked(answer()[:40], answer()[40:]), keep=True)
sends("cut_gzip", response(gzip.compress(answer())[:-30], content_encoding="gzip"))
sends("bad_gzip", response(b"not gzip at all", content_encoding="gzip"))
sends("gzip", response(gzip.compress(answer()), content_encoding="gzip"), keep=True)
sends("bomb", bomb)
sends("large", lambda: response(answer("x" * (17 * 1024 * 1024))))
sends("endless", chunked(b" " * 1000, end=b""))
sends("garbage", b"\x16\x03\x01 what is this\r\n\r\n")
sends("status_word", b"HTTP/1.1 twohundred OK\r\n\r\n")
sends("many_headers", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n")
sends("long_header", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n")
sends("two_lengths", response(answer(), content_length="7"))
sends("close", b"")
sends("cookie", response(answer(), set_cookie="a=b; Path=/"), keep=True)
sends("quota", response(refused("You exceeded your current quota", "insufficient_quota"), 429), keep=True)
sends("retry_after", response(refused("slow down"), 429, retry_after="7", x_ratelimit_remaining_requests="0"), keep=True)
sends("wrong_retry_after", response(refused("slow down"), 429, retry_after="-1e999, soon"), keep=True)
sends("escapes", response(refused("bad \x1b[31mred\x1b[0m\nline\x00" + "x" * 5000), 400), keep=True)
sends("detail", response(b'{"detail": "model not loaded"}', 422), keep=True)
sends("stream", chunked(*EVENTS, b"data: [DONE]\n\n", content_type=STREAM), keep=True)
sends("stream_cut", chunked(*EVENTS, content_type=STREAM), keep=True)
sends("stream_torn", chunked(*EVENTS, end=b"", content_type=STREAM))
sends("stream_error", chunked(EVENTS[0], b"data: " + refused("slow down", 429) + b"\n\n", content_type=STREAM), keep=True)
sends("stream_garbage", chunked(EVENTS[0], b"data: {nan\n\n", content_type=STREAM), keep=True)
sends("odd_redirect", response(b"", 307, location="http://[::1"))
for _status in (301, 302, 303, 307, 308):
    sends(f"status_{_status}", response(b"", _status, location="http://127.0.0.1:1/elsewhere?key=1"), keep=True)
for _status in (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 425, 429, 500, 501, 502, 503, 504, 529):
    sends(f"status_{_status}", response(refused(f"words of {_status}"), _status), keep=True)


@behaviour
def crlf_stream(_: Hostile, connection: socket.socket, __: Received) -> bool:
    """A stream in awkward pieces: comments, CRLF, no space after the colon, a character cut in two, usage at the end."""
    events = b': hello\r\n\r\nevent: x\r\ndata:{"choices":[{"delta":{"role":"assistant"}}]}\r\n\r\n'
    events += 'data:{"choices":[{"delta":{"content":"é"}}]}\r\n\r\n'.encode()
    events += b'data: {"choices":[],"usage":{}}\r\n\r\ndata: [DONE]\r\n\r\n'
    connection.sendall(chunked(*(events[i : i + 7] for i in range(0, len(events), 7)), content_type=STREAM))
    return True


@behaviour
def echo(_: Hostile, connection: socket.socket, received: Received) -> bool:
    """Repeats the whole request in its error, as debugging proxies do."""
    connection.sendall(response(f"{received.headers}\n{received.body.decode()}".encode(), 400, "text/plain"))
    return True


@behaviour
def echo_json(_: Hostile, connection: socket.socket, received: Received) -> bool:
    connection.sendall(response(refused(f"{received.headers['authorization']} may not ask {received.body.decode()}"), 403))
    return True


@behaviour
def resets(_: Hostile, connection: socket.socket, __: Received) -> bool:
    reset(connection)
    return False


@behaviour
def resets_half_way(server: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(response(answer()[:40], length=len(answer())))
    server.wait(0.1)
    reset(connection)
    return False


@behaviour
def idle_drop(_: Hostile, connection: socket.socket, received: Received) -> bool:
    """Answers the first request of a connection and hangs up on the second."""
    if received.number > 1:
        reset(connection)
        return False
    connection.sendall(response(answer()))
    return True


@behaviour
def answers_and_hangs_up(server: Hostile, connection: socket.socket, _: Received) -> bool:
    """Closes each connection a moment after its first answer, which does not say so."""
    connection.sendall(response(answer()))
    server.wait(0.05)
    return False


@behaviour
def drops_after_first(server: Hostile, connection: socket.socket, __: Received) -> bool:
    """Answers the first request of all, and no other."""
    if server.requests["drops_after_first"] > 1:
        return False
    connection.sendall(response(answer()))
    return True


@behaviour
def silent(server: Hostile, _: socket.socket, __: Received) -> bool:
    server.wait(60)
    return False


@behaviour
def stalls(server: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(response(answer()[:40], length=len(answer())))
    server.wait(60)
    return False


def dribble(server: Hostile, connection: socket.socket, data: bytes) -> bool:
    for letter in data:
        if not server.wait(0.05):
            break
        connection.sendall(bytes([letter]))
    return False


@behaviour
def slow_head(server: Hostile, connection: socket.socket, __: Received) -> bool:
    return dribble(server, connection, b"HTTP/1.1 200 OK\r\nx-long: " + b"y" * 10_000)


@behaviour
def slow_body(server: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(response(b"", length=10_000))
    return dribble(server, connection, b" " * 10_000)


@behaviour
def slow_chunks(server: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(chunked(b" ", end=b""))
    while server.wait(0.05):
        connection.sendall(b"1\r\n \r\n")
    return False


@behaviour
def slow_continue(server: Hostile, connection: socket.socket, __: Received) -> bool:
    while server.wait(0.05):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return False


@behaviour
def slow_stream(server: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(chunked(EVENTS[0], end=b"", content_type=STREAM))
    while server.wait(0.05):
        connection.sendall(b"3\r\n: \n\r\n")
    return False


@behaviour
def closes_by_head(_: Hostile, connection: socket.socket, __: Received) -> bool:
    connection.sendall(response(answer(), connection="close"))
    return False


class Tunnel:
    """An HTTP proxy that knows CONNECT alone, and leads every one to the same port. `with Tunnel(port) as url: ...`"""

    def __init__(self, port: int, status: int = 200) -> None:
        self.heads: list[str] = []
        self._port = port
        self._status = status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:word@127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Tunnel:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        self.heads.append(head.decode("latin-1"))
        connection.sendall(b"HTTP/1.1 %d Word\r\n\r\n" % self._status)
        with connection:
            if self._status == 200:
                with socket.create_connection(("127.0.0.1", self._port)) as onwards:
                    back = threading.Thread(target=self._pump, args=(onwards, connection), daemon=True)
                    back.start()
                    self._pump(connection, onwards)
                    back.join()

    @staticmethod
    def _pump(source: socket.socket, goal: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                goal.sendall(data)
        with contextlib.suppress(OSError):
            goal.shutdown(socket.SHUT_WR)


@behaviour
def twice(server: Hostile, connection: socket.socket, received: Received) -> bool:
    """Answers, and a moment later once more, with other words."""
    connection.sendall(response(answer()))
    server.wait(0.05)
    connection.sendall(response(answer().replace(b"four", b"five")))
    return True
