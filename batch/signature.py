"""The signed protocol, both ends side by side: stamp and sign a request, verify one."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal, NewType, NoReturn, cast
from urllib.parse import urlsplit

import msgspec
from requests.auth import AuthBase
from requests.models import PreparedRequest

from . import exact
from .clock import SYSTEM, Clock
from .errors import BatchError, JobError, RowError

SHA256 = NewType("SHA256", str)
"""64 lower-case hex digits."""

WINDOW = 300.0
"""Seconds that `t` may be off the gateway's clock, either way."""

AHEAD = 1000
"""Milliseconds that `t` may run ahead of the clock to keep equal contents apart."""

_STALE = 10_000
"""Milliseconds of lead that no queue of equal contents reaches: the clock was set back, so what was issued counts no more."""

_T = re.compile(r"[0-9]{13}")
_S = re.compile(r"[0-9a-f]{64}")
_D = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BOUND = re.compile(r"v1=[0-9a-f]{64}")
_HEADER = re.compile(r"[\x21-\x7e\xa1-\xff]+")

_random = Random()  # noqa: S311 (it tells attempts apart, and is no secret)
os.register_at_fork(after_in_child=_random.seed)

Reason = Literal["shape", "clock", "date", "mac"]


class SignatureError(BatchError):
    """A request whose signature does not hold.

    Args:
        reason: `shape` (a field is missing or malformed), `clock` (`t` outside the window), `date` (`d` is no date that `t` has
            anywhere), `mac` (the digest is another).

    Example:
        >>> from batch.signature import SignatureError, verify
        >>> try:
        ...     verify({"t": "1700000000001"}, "Hello, world!", ["a secret"], 1700000000000)
        ... except SignatureError as error:
        ...     print(error.reason)
        shape
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the signature does not hold: {reason}")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Credentials:
    """An API key and a signing secret; neither is ever shown or pickled.

    Args:
        api_key: What follows `Bearer`; printable Latin-1 without spaces, because it is a header's value.
        secret: What signs; empty for a protocol that does not sign.

    Raises:
        JobError: The key cannot be a header's value. The text does not show it.

    Example:
        >>> from batch.signature import Credentials
        >>> Credentials(api_key="key-of-mine", secret="local-development-secret")
        Credentials()
    """

    api_key: str = field(repr=False)
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _HEADER.fullmatch(self.api_key):
            found = "holds a space, a control character or one outside Latin-1" if self.api_key else "is empty"
            raise JobError(f"the API key {found}; set it again, without quotes or line breaks")
        try:
            self.secret.encode()
        except UnicodeEncodeError:
            raise JobError("the signing secret is not UTF-8; set it again") from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are never pickled; name the variable that holds them instead")


def format_timestamp(milliseconds: int) -> str:
    """`t` as the protocol writes it: a decimal string whose last digit is odd, an even one raised by one.

    Args:
        milliseconds: Since the epoch.

    Example:
        >>> from batch.signature import format_timestamp
        >>> format_timestamp(1700000000008)
        '1700000000009'
    """
    return str(milliseconds | 1)


def content_of(content: object) -> str:
    """What the signature covers of a message's content: the string, or the concatenation of the text parts of a list.

    Raises:
        ValueError: It is neither.

    Example:
        >>> from batch.signature import content_of
        >>> content_of([{"type": "text", "text": "Hello, "}, {"type": "text", "text": "world!"}])
        'Hello, world!'
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise ValueError("a message's content must be a string or a list of parts")
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text part without text")
    return "".join(cast("list[str]", texts))


def sign(t: str, content: str, secret: str) -> SHA256:
    """`s` of the protocol: SHA-256 of `t:content:secret:len(content)` in UTF-8, the length in Unicode code points.

    Raises:
        RowError: The content holds half a surrogate pair, which UTF-8 cannot carry.

    Example:
        >>> from batch.signature import sign
        >>> sign("1700000000001", "Hello, world!", "local-development-secret")
        '660e33b78e80df3450e01b9112dac3c2f0aec12d406156a393594d1119ab8528'
    """
    try:
        return SHA256(hashlib.sha256(f"{t}:{content}:{secret}:{len(content)}".encode()).hexdigest())
    except UnicodeEncodeError:
        # `from None`, because the original error carries the secret.
        raise RowError("the content holds half a surrogate pair, which UTF-8 cannot carry") from None


def bind(secret: str, method: str, path: str, query: str, t: str, client_id: str, body: bytes) -> str:
    """The value of `x-batch-signature`: `v1=` and the hex HMAC-SHA256 over everything that is sent, joined by newlines.

    Args:
        secret: What signs.
        method: Of the request.
        path: Of its target.
        query: Of its target, without the question mark.
        t: The timestamp of the body.
        client_id: The header of that name.
        body: As it is sent.

    Example:
        >>> from batch.signature import bind
        >>> bind("a secret", "POST", "/v1/chat/completions", "", "1700000000001", "an id", b"{}")
        'v1=daca3b2fbce0c01776d571c3be942afb95d3384a3e7ad5b18ef4c08a5bbe1ffd'
    """
    parts = (method, path, query, t, client_id, hashlib.sha256(body).hexdigest())
    # Not hmac.digest: it gives the interpreter's lock away for these few microseconds, and has to wait for it afterwards.
    return "v1=" + hmac.new(secret.encode(), "\n".join(parts).encode(), "sha256").hexdigest()


def verify_bound(header: str, secret: str, method: str, path: str, query: str, t: str, client_id: str, body: bytes) -> None:
    """Check an `x-batch-signature`, in constant time.

    Raises:
        SignatureError: `shape` when it is no `v1=` and 64 hex digits, `mac` when it belongs to another request.

    Example:
        >>> from batch.signature import bind, verify_bound
        >>> sent = ("a secret", "POST", "/v1/chat/completions", "", "1700000000001", "an id", b"{}")
        >>> verify_bound(bind(*sent), *sent)
    """
    if not _BOUND.fullmatch(header):
        raise SignatureError("shape")
    try:
        expected = bind(secret, method, path, query, t, client_id, body)
    except UnicodeEncodeError:
        raise SignatureError("shape") from None
    if not hmac.compare_digest(header, expected):
        raise SignatureError("mac")


def verify(fields: Mapping[str, Any], content: str, secrets: Sequence[str], now_ms: float) -> str:
    """Check `d`, `t` and `s` of a request, cheapest check first.

    Args:
        fields: The request's body, or any mapping with `d`, `t` and `s`.
        content: The content of the last message, as `content_of` gives it.
        secrets: The secrets in force; more than one while they are rotated.
        now_ms: The gateway's clock, milliseconds since the epoch.

    Returns:
        The secret that signed it.

    Raises:
        SignatureError: Its `reason` says which check failed.

    Example:
        >>> from batch.signature import sign, verify
        >>> t = "1700000000001"
        >>> fields = {"d": "2023-11-14", "t": t, "s": sign(t, "Hello, world!", "the new one")}
        >>> verify(fields, "Hello, world!", ["the old one", "the new one"], now_ms=1700000000500)
        'the new one'
    """
    d, t, s = fields.get("d"), fields.get("t"), fields.get("s")
    # Patterns first: `int` takes ' 17\n' and '1_7', `compare_digest` raises TypeError on non-ASCII text.
    if not (isinstance(t, str) and _T.fullmatch(t) and t[-1] in "13579" and isinstance(s, str) and _S.fullmatch(s)):
        raise SignatureError("shape")
    if not (isinstance(d, str) and _D.fullmatch(d)):
        raise SignatureError("shape")
    if not abs(now_ms - int(t)) <= WINDOW * 1000:
        raise SignatureError("clock")
    moment = datetime.fromtimestamp(int(t) / 1000, UTC)
    # Zones reach from UTC-12 to UTC+14; these 26 hours touch at most three dates, the middle one at +1.
    if d not in {(moment + timedelta(hours=zone)).date().isoformat() for zone in (-12, 1, 14)}:
        raise SignatureError("date")
    found = None
    try:
        for secret in secrets:  # all of them, so that the time does not tell which
            if hmac.compare_digest(s, sign(t, content, secret)):
                found = secret
    except (RowError, UnicodeEncodeError):
        raise SignatureError("shape") from None
    if found is None:
        raise SignatureError("mac")
    return found


def _uuid4() -> str:
    """A random UUID, RFC 9562 version 4.

    Not `uuid.uuid4`, which asks the kernel each time, and gives the interpreter's lock away for that.
    """
    fixed = 0xF000 << 64 | 0xC000 << 48  # where version and variant stand
    digits = f"{_random.getrandbits(128) & ~fixed | 0x4000 << 64 | 0x8000 << 48:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Stamp(msgspec.Struct, frozen=True):
    """One reading of the clock: `t` in milliseconds as the protocol writes it, `d` its date in the local zone."""

    t: str
    d: str


class Stamps:
    """Stamps for one process and server: equal contents never share a `t`.

    Args:
        clock: What is read, once a stamp.

    Attributes:
        skew_ms: Added to every reading; learned from the server's `Date` when the machine's clock is off.
        waited: Seconds spent waiting because equal contents came faster than `t` can tell them apart.

    Example:
        >>> from batch.signature import Stamps
        >>> stamps = Stamps()
        >>> first, second = stamps.next("Hello"), stamps.next("Hello")
        >>> int(first.t) % 2, int(second.t) > int(first.t)
        (1, True)
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self.skew_ms = 0
        self.waited = 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._issued: dict[int, int] = {}
        self._swept = 0
        self._never = threading.Event()
        self._date = (-1, "")

    def next(self, content: str) -> Stamp:
        """A stamp for a request that is about to be sent.

        On a collision `t` moves up by 2, at most one second ahead of the clock; beyond that this waits.
        """
        name = hash(content)  # a collision of hashes costs 2 ms of `t`, keeping contents would cost their memory
        with self._lock:
            now = int(self._clock.time() * 1000) + self.skew_ms
            if not 0 <= now - self._swept < 1000:
                self._sweep(now)
            t = now | 1
            last = self._issued.get(name)
            if last is not None and last >= t:
                t = last + 2
            self._issued[name] = t
        ahead = t - now - AHEAD
        if ahead > 0:
            self._clock.wait(self._never, ahead / 1000)
            with self._lock:
                self.waited += ahead / 1000
        return Stamp(str(t), self._day(t))

    def ready(self, content: str) -> bool:
        """Whether `next` has a stamp for this content without waiting."""
        last = self._issued.get(hash(content))
        return last is None or last + 2 - AHEAD <= int(self._clock.time() * 1000) + self.skew_ms

    def _sweep(self, now: int) -> None:
        """Forget what lies more than a second back, and what a clock since set back has left in the future."""
        self._issued = {name: t for name, t in self._issued.items() if now - 1000 <= t < now + _STALE}
        self._swept = now

    def _day(self, t: int) -> str:
        # Zones differ by quarters of an hour, so the date holds for the rest of one.
        quarter = t // 900_000
        known = self._date
        if known[0] != quarter:
            known = (quarter, time.strftime("%Y-%m-%d", time.localtime(t / 1000)))
            self._date = known
        return known[1]


class Signature(AuthBase):
    """Stamps and signs a prepared request, last: `d`, `t` and `s` into the body, a fresh `client-id`, `x-batch-signature`.

    It is a `requests` auth object: `requests.post(url, data=body, auth=Signature(credentials))`.

    Args:
        credentials: Their secret signs.
        stamps: Where `t` comes from; one for all requests of a process to a server.

    Example:
        >>> import requests
        >>> from batch.gateway.embedded import Embedded
        >>> from batch.signature import Signature
        >>> question = {"role": "user", "content": "Hello, world!"}
        >>> with Embedded("echo") as gateway:
        ...     answer = requests.post(
        ...         f"{gateway.url}/v1/chat/completions?full=false",
        ...         json={"model": "echo-1", "messages": [question]},
        ...         headers={"authorization": f"Bearer {gateway.credentials.api_key}"},
        ...         auth=Signature(gateway.credentials),
        ...         timeout=60,
        ...     )
        >>> answer.json()["choices"][0]["message"]["content"]
        'Hello, world!'
    """

    def __init__(self, credentials: Credentials, stamps: Stamps | None = None) -> None:
        self.stamps = stamps or Stamps()
        self._secret = credentials.secret

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request whose body is a JSON object with `messages`.

        Raises:
            RowError: The body is something else.
        """
        body = request.body.encode() if isinstance(request.body, str) else request.body
        try:
            if not isinstance(body, bytes):
                raise TypeError("not bytes")
            content = content_of(exact.loads(body)["messages"][-1]["content"])
        except (ValueError, TypeError, LookupError):
            raise RowError("the request's body is no JSON object with messages, so it cannot be signed") from None
        request.body = body
        target = urlsplit(cast("str", request.url))
        self.seal(request, content, target.path or "/", target.query)
        return request

    def seal(self, request: PreparedRequest, content: str, path: str, query: str) -> None:
        """Stamp and sign a request whose content is known, without reading its body again.

        Args:
            request: Prepared; its body is compact JSON bytes, a non-empty object.
            content: The content of its last message.
            path: The path of its target, for `x-batch-signature`.
            query: The query of its target, without the question mark.
        """
        stamp = self.stamps.next(content)
        s = sign(stamp.t, content, self._secret)
        body = b'%b,"d":"%b","t":"%b","s":"%b"}' % (
            cast("bytes", request.body).rstrip()[:-1],
            stamp.d.encode(),
            stamp.t.encode(),
            s.encode(),
        )
        client_id = _uuid4()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        request.headers["client-id"] = client_id
        request.headers["x-batch-signature"] = bind(
            self._secret, cast("str", request.method), path, query, stamp.t, client_id, body
        )
