"""How the bytes travel: a requests adapter for one address, whose connections end when the whole attempt's time is over."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from queue import Empty, Full
from typing import Any, cast

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util import create_urllib3_context

from .response import Head, Plain
from .underway import Underway

IDLE = 60.0
"""Seconds that may pass between two pieces of a body."""

TICK = 0.2
"""Seconds between two looks at the deadlines."""


class Attempt:
    """One attempt on its way, as the watch sees it.

    Attributes:
        deadline: When it is to be over, on the monotonic clock.
        moved: When the last piece of the response came; 0 before the first.
        fresh: Whether it must not reuse a connection.
        sent: Whether anything of the request may have left.
        over: Why it was cut, or "".
    """

    __slots__ = ("connection", "deadline", "fresh", "moved", "over", "seconds", "sent", "sock")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.moved = 0.0
        self.fresh = False
        self.sent = False
        self.over = ""
        self.connection: Connection | None = None
        self.sock: socket.socket | None = None

    @property
    def reused(self) -> bool:
        """Whether its connection had answered a request before."""
        return self.connection is not None and self.connection.served > 0

    def cut(self, why: str) -> None:
        """End it now: whoever waits for its socket wakes up."""
        self.over = self.over or why
        connection = self.connection
        # The connection may have gone on to another attempt a moment ago.
        if connection is None or connection.attempt is not self:
            return
        sock = self.sock or connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not the TLS socket's own `shutdown`, which would take its state away under the reader.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Watch:
    """Cuts attempts whose time is over; sockets alone would wait as long as a byte comes now and then.

    One daemon thread a process, started with the first attempt and asleep while there is none.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as a fork's child must: the attempts and their sockets are its parent's."""
        self._attempts: dict[int, Attempt] = {}
        self._busy = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, attempt: Attempt) -> None:
        """Watch an attempt until `end`."""
        self._attempts[id(attempt)] = attempt
        if not self._busy.is_set():
            self._busy.set()
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def end(self, attempt: Attempt) -> None:
        """The attempt is over."""
        self._attempts.pop(id(attempt), None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            if not self._attempts:
                self._busy.clear()
                if not self._attempts:
                    self._busy.wait()
            now = time.monotonic()
            for attempt in list(self._attempts.values()):
                if now > attempt.deadline:
                    attempt.cut(f"no answer within {attempt.seconds:g} s")
                elif attempt.moved and now > attempt.moved + IDLE:
                    attempt.cut(f"the answer stopped half-way for {IDLE:g} s")
            time.sleep(TICK)


WATCH = Watch()
os.register_at_fork(after_in_child=WATCH.forget)

_here = threading.local()


class Connection(HTTPConnection):
    """A connection that tells its attempt how far it came, and sends each request in one piece.

    `http.client` would write head and body apart and check each header anew, which costs more than everything else here; all
    headers but `Proxy-Authorization` (base64) were checked by the client.
    """

    served = 0
    attempt: Attempt | None = None
    _poll: select.poll

    @property
    def is_connected(self) -> bool:
        """Whether the pool may hand it out again."""
        # Also one on which something came that nobody asked for is none: it would be taken for the next row's answer.
        return not _here.attempt.fresh and self.sock is not None and not self._poll.poll(0)

    def connect(self) -> None:
        """Connect, within urllib3's connect timeout; from then on the watch alone keeps time."""
        attempt: Attempt = _here.attempt
        self.served = 0
        self.attempt, attempt.connection, attempt.sock = attempt, self, None
        super().connect()
        self.sock.settimeout(None)
        self._poll = select.poll()  # made once: urllib3 makes one for each look
        self._poll.register(self.sock, select.POLLIN)

    def request(self, method: str, url: str, body: Any = None, headers: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Write the request."""
        if self.sock is None:
            self.connect()
        elif self.sock.gettimeout() is not None:
            self.sock.settimeout(None)  # it was used by somebody who does not wait
        self._goes(_here.attempt)
        self.sock.sendall(_written(method, url, headers or {}, body))

    def start(self, url: str, headers: Mapping[str, str], body: bytes, attempt: Attempt) -> Underway:
        """Write a request without waiting, on a connection that is kept."""
        self._goes(attempt)
        under = Underway(self, attempt, _written("POST", url, headers, body))
        under.send()
        return under

    def _goes(self, attempt: Attempt) -> None:
        self.attempt, attempt.connection, attempt.sock = attempt, self, self.sock
        attempt.sent = True

    def head(self, under: Underway | None = None) -> Head:
        """Wait for the response's head.

        Args:
            under: Holds what has come already.
        """
        if under:
            under.block()
        head = Head(cast("socket.socket", under or self.sock), method="POST")
        try:
            head.begin()
        except BaseException:
            head.close()
            raise
        self.served += 1
        assert self.attempt
        self.attempt.moved = time.monotonic()
        if head.will_close:
            self.close()  # the response holds on to the socket
        return head

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 does
        """Wait for the response's head, and let urllib3 read the body; or let somebody else do both."""
        return cast("HTTPResponse", Sent(self)) if getattr(_here, "ahead", False) else _response(self.head())


def _written(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    head = "\r\n".join([f"{method} {url} HTTP/1.1", *map(": ".join, headers.items()), "", ""])
    return head.encode("latin-1") + body


def _response(head: Head, **where: Any) -> HTTPResponse:
    try:
        return HTTPResponse(
            body=head,
            headers=HTTPHeaderDict(head.headers),  # type: ignore[arg-type]
            status=head.status,
            reason=head.reason,
            preload_content=False,
            original_response=head,
            request_method="POST",
            **where,
        )
    except BaseException:
        head.close()
        raise


class Sent(BaseHTTPResponse):
    """The response to a request that went out a moment ago: nothing of it has come yet, and others will wait for it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(status=0, version=0, version_string="HTTP/?", reason=None, decode_content=False, request_url=None)
        self.on = connection
        self.length_remaining = None


class SecureConnection(Connection, HTTPSConnection):
    """The same over TLS."""


class _Bare(Response):
    def __init__(self) -> None:
        """Without the cookie jar and the rest."""


class Transport(HTTPAdapter):
    """A requests adapter for one URL: proxy, certificates and pool are looked up once.

    requests and urllib3 connect, and send the first request of each connection. Its later ones go straight to it, because
    a quarter of a request's processor time was spent between `Session.send` and the socket, and on urllib3's response.

    Args:
        request: The request all others are copies of.
        connections: How many are kept.
        proxies, verify: As requests resolved them from the environment.

    Raises:
        OSError: The certificate bundle is missing or none.
        requests.RequestException: The proxy's URL is none.
    """

    def __init__(self, request: PreparedRequest, *, connections: int, proxies: dict[str, str], verify: bool | str) -> None:
        url = request.url or ""
        self._context = _context(verify) if url.startswith("https:") else None
        super().__init__(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._pool = cast("HTTPConnectionPool", super().get_connection_with_tls_context(request, True, proxies=proxies))
        self._pool.ConnectionCls = SecureConnection if self._pool.scheme == "https" else Connection
        self._target = super().request_url(request, proxies)
        self._proxy_headers = {} if self._context else self._pool.proxy_headers  # a tunnel's proxy has had them

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Give every connection the one TLS context: reading the certificates anew costs 20 ms each time."""
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        """The same for connections through a proxy."""
        return cast("ProxyManager", super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs))

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        """The one pool."""
        return self._pool

    def request_url(self, *_: Any) -> str:
        """The one target."""
        return self._target

    def cert_verify(self, *_: Any) -> None:
        """Nothing to do: the context verifies."""

    def build_response(self, _: PreparedRequest, raw: Any) -> Response:
        """A response of which only `raw` is asked; no cookies are kept, so none are read."""
        response = _Bare()
        response.raw = raw
        return response

    def post(self, request: PreparedRequest, attempt: Attempt, timeout: Any) -> HTTPResponse | Plain:
        """Send one request; the response's head has come, its body has not been read.

        Raises:
            Exception: Whatever requests and urllib3 raise; `faults.fault` knows them.
        """
        connection = self.kept(attempt)
        if connection is None:
            raw: HTTPResponse = self.send(request, stream=True, timeout=timeout).raw
            return raw
        try:
            # A server may have answered and closed before it has read everything.
            with contextlib.suppress(BrokenPipeError):
                connection.request("POST", self._target, request.body, self._all_headers(request))
        except BaseException:
            connection.close()
            raise
        return self._answer(connection)

    def start(self, connection: Connection, request: PreparedRequest, attempt: Attempt) -> Underway:
        """Send one request on a kept connection without waiting, to be ended by `receive`."""
        return connection.start(self._target, self._all_headers(request), cast("bytes", request.body), attempt)

    def open(self, request: PreparedRequest, attempt: Attempt, timeout: Any) -> Underway:
        """Send one request, on a new connection if need be, without waiting for its answer.

        Raises:
            Exception: As `post`.
        """
        _here.attempt, _here.ahead = attempt, True
        try:
            sent = cast("Sent", self.send(request, stream=True, timeout=timeout).raw)
        finally:
            _here.ahead = False
        return Underway(sent.on, attempt)

    def receive(self, under: Underway) -> HTTPResponse | Plain | Underway:
        """The response to what `start` or `open` has sent; its head has come, its body has not been read.

        Raises:
            Exception: As `post`.
        """
        connection = under.connection
        if under.error or not connection:
            if connection:
                connection.close()
            raise under.error or ConnectionError
        if not under.is_plain:
            return self._answer(connection, under)
        connection.served += 1
        if under.will_close:
            connection.close()
        else:
            self._keep(connection)
        return under

    def _all_headers(self, request: PreparedRequest) -> dict[str, str]:
        return {**request.headers, **self._proxy_headers}

    def _answer(self, connection: Connection, under: Underway | None = None) -> HTTPResponse | Plain:
        """The response, its head read, of a connection that requests does not look after any more."""
        try:
            head = connection.head(under)
        except BaseException:
            connection.close()
            raise
        if head.length is None or "content-encoding" in head.headers:
            return _response(head, connection=connection, pool=self._pool)
        return Plain(head, partial(self._keep, connection), connection.close)

    def kept(self, attempt: Attempt) -> Connection | None:
        """A connection that was used before and may be used again by this attempt."""
        _here.attempt = attempt
        if attempt.fresh:
            return None
        pool = self._pool.pool  # None once it was closed; None in it stands for a connection that was not made yet
        with contextlib.suppress(Empty):
            while pool and (connection := pool.get(block=False)):
                if connection.is_connected:
                    return cast("Connection", connection)
                connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        """Its answer was read, so it may be used again."""
        pool = self._pool.pool
        try:
            if pool:
                pool.put(connection, block=False)
                return
        except Full:
            pass
        connection.close()


def _context(verify: bool | str) -> ssl.SSLContext:
    context = create_urllib3_context()
    bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    if Path(bundle).is_dir():
        context.load_verify_locations(capath=bundle)
    else:
        context.load_verify_locations(cafile=bundle)
    return context
