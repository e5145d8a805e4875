"""What went wrong on the way, by the exception that came of it."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import TypeVar

import requests
import urllib3.exceptions as lower

from ..errors import BadBody, CallError, Denied, Dropped, TimedOut, Unreachable
from .transport import Attempt

E = TypeVar("E", bound=BaseException)

# What ends a handshake or a connection without saying that the other side refuses.
_TORN = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_GARBLED = (http.client.HTTPException, lower.InvalidHeader, requests.exceptions.InvalidHeader, lower.InvalidChunkLength)


def lost_while_idle(error: Exception, attempt: Attempt) -> bool:
    """Whether a kept connection turned out to be closed: the request goes out once more, on a new one, at no charge."""
    lost = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, *_TORN)
    return attempt.reused and not attempt.over and any(isinstance(cause, lost) for cause in _causes(error))


def fault(error: Exception, attempt: Attempt, place: str) -> CallError:
    """An exception of requests, urllib3, http.client or the socket, as one of ours.

    Args:
        error: What was raised; its own text is not used, it may hold the request.
        attempt: How far it came.
        place: The server's name, for the words.
    """
    if attempt.over:
        return TimedOut(f"{place}: {attempt.over}")
    causes = list(_causes(error))

    def first(*kinds: type[E]) -> E | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    through = " (through the proxy of the environment)" if first(lower.ProxyError) else ""
    # Certificates first: their errors are connection errors too.
    if certificate := first(ssl.SSLCertVerificationError):
        return Denied(f"{place}: the certificate is not accepted: {certificate.verify_message}{through}", at_once=True)
    if first(lower.SSLError) and "certificate" in str(error).lower() and not first(ssl.SSLError):
        return Denied(f"{place}: the certificate is for another name{through}", at_once=True)
    tls = first(ssl.SSLError)
    if tls and not isinstance(tls, (*_TORN, TimeoutError)) and not attempt.sent:
        reason = (tls.reason or "handshake failed").replace("_", " ").lower()
        hint = "; does it speak plain HTTP?" if tls.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") else ""
        return Denied(f"{place}: no TLS connection ({reason}{hint}){through}", at_once=True)
    if first(OSError) and "Tunnel connection failed: 407" in str(first(OSError)):
        return Denied(f"{place}: the proxy of the environment asks for a name and password (407)", status=407)
    if name := first(socket.gaierror):
        return Unreachable(f"{place}: the name does not resolve ({name.strerror}){through}")
    if first(lower.ConnectTimeoutError) and not first(lower.NewConnectionError):
        return Unreachable(f"{place}: no connection in time{through}")
    if first(lower.ReadTimeoutError, TimeoutError):
        return TimedOut(f"{place}: no answer within {attempt.seconds:g} s{through}")
    if first(lower.DecodeError):
        return BadBody(f"{place}: the answer's compression is damaged")
    if first(http.client.IncompleteRead):
        return Dropped(f"{place}: the connection ended in the middle of the answer")
    if first(*_GARBLED) and not first(ConnectionError):
        return BadBody(f"{place}: the answer is not HTTP")
    if not first(OSError, http.client.HTTPException, lower.HTTPError):
        return CallError(f"{place}: a bug on the way: {type(error).__name__}")
    system = (cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror)
    reason = "the TLS connection was closed" if tls else next(system, "closed by the server").lower()
    if not attempt.sent:
        return Unreachable(f"{place}: no connection ({reason}){through}")
    return Dropped(f"{place}: the connection was lost ({reason}){through}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it was made from, outermost first."""
    waiting, seen = [error], set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = [getattr(cause, "reason", None), *cause.args, cause.__cause__, cause.__context__]
        waiting += [one for one in inner if isinstance(one, BaseException)]
