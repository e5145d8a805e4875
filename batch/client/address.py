"""The address of a server, checked once."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from ..errors import JobError
from ..wires import clean


def address(url: str, allow_http: bool) -> SplitResult:
    """A base URL without user and fragment.

    Args:
        url: `https://host[:port][/path][?query]`.
        allow_http: Whether plain `http` may go to another machine.

    Raises:
        JobError: It is none, or it would send key and prompts in the clear. A user or query in it is never shown.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise JobError("the server's URL cannot be read; it looks like https://host:port/path") from None
    if parts.scheme not in ("http", "https") or not host or any(ord(letter) <= 32 for letter in parts.netloc + parts.path):
        raise JobError(f"the server's URL must look like https://host:port/path, not like {_shown(parts)!r}")
    if parts.scheme == "http" and not allow_http and not loopback(host):
        raise JobError(
            f"http://{host} would carry the key and every prompt in the clear; use https, or --allow-http where that is meant"
        )
    netloc = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=netloc if port is None else f"{netloc}:{port}", fragment="")


def loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def goal(location: str) -> str:
    """Where a redirect points, for the words: without user and query, "" when it does not say."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    return f" to {clean(_shown(parts))}" if parts.netloc else ""


def _shown(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()
