"""One attempt over HTTP: a `Reply`, or a `CallError` whose type says what to do."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from requests import PreparedRequest, Request, RequestException, Session
from urllib3 import Timeout
from urllib3.response import HTTPResponse

from .. import __version__, exact
from ..clock import SYSTEM, Clock
from ..errors import CallError, Denied, JobError, ServerFault, Skewed, TooLarge
from ..pace.hints import read_hints
from ..records import Hints, Prompt, Reply
from ..signature import Credentials, Signature, Stamps
from ..wires import WIRES, read_stream, refusal
from .address import address, goal, loopback
from .faults import fault, lost_while_idle
from .response import Plain
from .transport import WATCH, Attempt, Transport
from .underway import Underway

LARGEST = 16 * 1024 * 1024
"""Bytes of an answer, decompressed."""

OFF = 60.0
"""Seconds of difference to a server's clock that may explain a 401: some servers' windows are narrower than the protocol's."""

Raw = HTTPResponse | Plain | Underway
"""A response whose body has not been read."""

_WORDS = 65_536
_PIECE = 65_536
_TELLING = 12  # characters from which on a repeated prompt is worth hiding
_LONG = 8  # bytes from which on a secret is looked for within words, too: a shorter one would be found in innocent ones
_VALUE = re.compile(r"[\x20-\x7e\xa1-\xff]*")


class Client:
    """Sends prompts to one server, from many threads.

    Environment proxies and certificates are resolved here, once; loopback is always direct, netrc is never read, redirects are
    never followed, cookies are never kept.

    Args:
        url: Base URL; a user in it is dropped, a query is kept.
        protocol: `ails` or `openai`.
        credentials: The key, and for `ails` the secret.
        connections: How many are kept open.
        timeout: Seconds for one whole attempt, from connecting to the last byte.
        connect_timeout: Seconds to connect.
        client_version: Sent as `client-v`; this project's by default.
        clock: For `t`, and for how long an attempt took; sockets wait in real time.
        allow_http: Whether plain `http` may go to another machine.

    Raises:
        JobError: The URL is none that can be asked, or the environment's proxy or certificate bundle is none.
    """

    def __init__(
        self,
        url: str,
        protocol: str,
        credentials: Credentials,
        *,
        connections: int = 64,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        client_version: str = "",
        clock: Clock = SYSTEM,
        allow_http: bool = False,
    ) -> None:
        self._wire = WIRES[protocol]
        self._secrets = _pattern(credentials)
        self._clock = clock
        self._seconds = timeout
        self._timeout = Timeout(connect=min(connect_timeout, timeout), read=None)
        self.stamps = Stamps(clock)
        self._lock = threading.Lock()
        self._adjusted = False
        self._signature = Signature(credentials, self.stamps) if self._wire.signed else None
        version = client_version or f"ails-batch/{__version__}"
        if not _VALUE.fullmatch(version):
            raise JobError("the client version holds a character that no header can carry")
        base = address(url, allow_http)
        self._place = base.netloc
        target = urlunsplit(
            base._replace(
                path=base.path.rstrip("/") + self._wire.path,
                query="&".join(filter(None, (base.query, self._wire.query))),
            )
        )
        headers = {
            "accept-encoding": "identity",
            "authorization": f"Bearer {credentials.api_key}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "user-agent": f"ails-batch/{__version__}",
        }
        if self._wire.signed:
            headers["client-v"] = version
        try:
            self._template = Request("POST", target, headers=headers).prepare()
            with Session() as session:
                environment = session.merge_environment_settings(target, {}, True, None, None)
        except (RequestException, ValueError):
            raise JobError(f"the server's URL names no host that can be asked: {self._place}") from None
        sent = urlsplit(self._template.url or "")  # as requests quotes it
        self._path, self._query = sent.path, sent.query
        proxies = {} if loopback(base.hostname or "") else dict(environment["proxies"])
        bundle = environment["verify"] or True
        try:
            self._transport = Transport(self._template, connections=connections, proxies=proxies, verify=bundle)
        except (OSError, ValueError):  # among them requests' own; their words may hold a proxy's password
            raise JobError(
                f"{self._place}: the environment's proxy or certificate bundle cannot be used; "
                "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"
            ) from None
        self._headers = {"host": sent.netloc, **headers}

    def start(self, prompt: Prompt, *, idempotency_key: str | None = None, wait: bool = False) -> Underway | None:
        """Send one attempt, and leave waiting for its answer to others; `call` ends it.

        Args:
            prompt: What is asked.
            idempotency_key: As for `call`.
            wait: Whether sending may wait, for a new connection above all.

        Returns:
            What is under way; None where it would have to wait and may not.
        """
        if not wait and self._signature and not self.stamps.ready(prompt.content):
            return None
        started, skew = self._clock.monotonic(), self.stamps.skew_ms
        attempt = Attempt(self._seconds)
        connection = self._transport.kept(attempt)
        if not connection and not wait:
            return None
        WATCH.begin(attempt)
        try:
            request = self._request(prompt, idempotency_key)
            if connection:
                under = self._transport.start(connection, request, attempt)
            else:
                under = self._transport.open(request, attempt, self._timeout)
        except Exception as error:
            under = Underway(connection, attempt, error=error)
        under.started, under.skew = started, skew
        return under

    def call(self, prompt: Prompt, *, idempotency_key: str | None = None, under: Underway | None = None) -> Reply:
        """One attempt.

        Args:
            prompt: What is asked.
            idempotency_key: Sent as `Idempotency-Key`; the same for every attempt at a row.
            under: The attempt, where `start` has begun it.

        Raises:
            CallError: It brought no answer; the type says whether another attempt is worth it.
        """
        started = under.started if under else self._clock.monotonic()
        attempt = under.attempt if under else Attempt(self._seconds)
        hints = None
        if not under:
            WATCH.begin(attempt)
        try:
            raw = self._post(prompt, idempotency_key, attempt, under)
            hints = read_hints(raw.headers, self._clock.time())
            body = self._body(raw, attempt)
            answer = self._wire.answer(body, raw.status)
        except CallError as error:
            raise self._told(error, prompt, started, hints) from None
        finally:
            WATCH.end(attempt)
        return Reply(answer, self._clock.monotonic() - started, hints)

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """One attempt whose answer comes in pieces; the prompt's body says `"stream":true`.

        Raises:
            CallError: While iterating; a stream that ends without `[DONE]` is `Dropped`.
        """
        started = self._clock.monotonic()
        attempt = Attempt(self._seconds)
        hints = raw = None
        WATCH.begin(attempt)
        try:
            raw = self._post(prompt, None, attempt)
            hints = read_hints(raw.headers, self._clock.time())
            yield from read_stream(self._pieces(raw, attempt))
        except CallError as error:
            raise self._told(error, prompt, started, hints) from None
        finally:
            WATCH.end(attempt)
            if raw is not None:
                raw.close()

    def close(self) -> None:
        """Close the kept connections."""
        self._transport.close()

    def _request(self, prompt: Prompt, idempotency_key: str | None) -> PreparedRequest:
        request = PreparedRequest()
        request.method, request.url = self._template.method, self._template.url
        # A plain dictionary: nobody looks names up here, and it copies ten times faster.
        headers = self._headers.copy()
        request.headers = headers  # type: ignore[assignment]
        request.body = prompt.body
        if idempotency_key is not None:
            if not _VALUE.fullmatch(idempotency_key):
                raise ValueError("the idempotency key holds a character that no header can carry")
            headers["idempotency-key"] = idempotency_key
        if self._signature:
            self._signature.seal(request, prompt.content, self._path, self._query)
        else:
            headers["Content-Length"] = str(len(prompt.body))
        return request

    def _post(self, prompt: Prompt, idempotency_key: str | None, attempt: Attempt, under: Underway | None = None) -> Raw:
        """Send, at most once more for each of three reasons that are no fault of the row's; a 2xx comes back.

        The reasons: a kept connection was closed while idle, this machine's clock is off, the stamp had been used before.
        """
        adjusted = resigned = False
        while True:
            skew = under.skew if under else self.stamps.skew_ms
            receive: Callable[[], Raw]
            if under:
                receive = partial(self._transport.receive, under)
            else:
                receive = partial(self._transport.post, self._request(prompt, idempotency_key), attempt, self._timeout)
            under = None
            try:
                raw = receive()
            except Exception as error:
                if not attempt.fresh and lost_while_idle(error, attempt):
                    attempt.fresh, attempt.sent = True, False
                    continue
                raise fault(error, attempt, self._place) from None
            if 200 <= raw.status < 300:
                return raw
            refused = self._refused(raw, attempt, prompt, skew)
            if isinstance(refused, Skewed) and not adjusted and self._adjust(refused, skew):
                adjusted = True
            elif raw.status == 409 and self._signature and not resigned:
                resigned = True
            else:
                raise refused

    def _refused(self, raw: Raw, attempt: Attempt, prompt: Prompt, skew: int) -> CallError:
        """A response other than 2xx, as the error it is."""
        now = self._clock.time()
        status, hints = raw.status, read_hints(raw.headers, now)
        if 300 <= status < 400:
            raw.close()
            where = goal(raw.headers.get("location", ""))
            error: CallError = Denied(
                f"{self._place} redirects{where}, and redirects are never followed; set the address it should be", at_once=True
            )
        else:
            error = refusal(status, self._hide(self._some(raw, attempt), prompt))
            if status == 401 and self._signature and hints.date is not None and abs(hints.date - now - skew / 1000) > OFF:
                error = Skewed(f"{error}; this machine's clock is {hints.date - now:+.0f} s off the server's, set it")
            elif status in (401, 403):
                held = "the API key or the signature" if self._signature else "the API key"
                error = Denied(f"{self._place} does not accept {held}: {error}")
            elif status == 409 and self._signature:
                error = ServerFault(str(error))
        error.status, error.hints = status, hints
        return error

    def _adjust(self, error: Skewed, skew: int) -> bool:
        """Learn the server's clock, once; True when a new stamp will differ from the one that was refused."""
        assert error.hints is not None and error.hints.date is not None
        with self._lock:
            if not self._adjusted:
                self._adjusted = True
                self.stamps.skew_ms = round((error.hints.date - self._clock.time()) * 1000)
        return self.stamps.skew_ms != skew

    def _body(self, raw: Raw, attempt: Attempt) -> bytes:
        pieces = list(self._pieces(raw, attempt))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _pieces(self, raw: Raw, attempt: Attempt) -> Iterator[bytes]:
        """The body as it comes, decompressed; never more than `LARGEST`."""
        size = 0
        encoded = "content-encoding" in raw.headers
        try:
            while piece := raw.read1(_PIECE, decode_content=encoded):
                size += len(piece)
                if size > LARGEST:
                    raise TooLarge(f"{self._place}: the answer is larger than {LARGEST >> 20} MiB", status=raw.status)
                attempt.moved = 0.0  # the time until the next piece is asked for is not the server's
                yield piece
                if raw.length_remaining == 0 and not encoded:
                    return
                attempt.moved = time.monotonic()
        except CallError:
            raw.close()
            raise
        except Exception as error:
            raise fault(error, attempt, self._place) from None

    def _some(self, raw: Raw, attempt: Attempt) -> bytes:
        """The beginning of an error's body, enough for its words; nothing when it does not come."""
        body = b""
        try:
            for piece in self._pieces(raw, attempt):
                body += piece
                if len(body) >= _WORDS:
                    break
        except CallError:
            pass
        raw.close()
        return body

    def _told(self, error: CallError, prompt: Prompt, started: float, hints: Hints | None) -> CallError:
        """The error with what the attempt took and learned."""
        error.seconds = self._clock.monotonic() - started
        error.hints = error.hints or hints
        error.args = (self._hide(str(error).encode("utf-8", "replace"), prompt).decode("utf-8", "replace"),)
        return error

    def _hide(self, text: bytes, prompt: Prompt) -> bytes:
        """A server's text without what it may have repeated of the request."""
        text = self._secrets.sub(b"***", text)
        if len(prompt.content) >= _TELLING:
            for form in (prompt.content.encode("utf-8", "replace"), exact.dumps(prompt.content)[1:-1]):
                text = text.replace(form, b"(the prompt)")
        return text


def _pattern(credentials: Credentials) -> re.Pattern[bytes]:
    """What finds the key and the secret in a text; the longer one first, for it may hold the other."""
    secrets = sorted(filter(None, (credentials.api_key.encode(), credentials.secret.encode())), key=len, reverse=True)
    forms = (re.escape(secret) if len(secret) >= _LONG else rb"(?<!\w)%b(?!\w)" % re.escape(secret) for secret in secrets)
    return re.compile(b"|".join(forms))
