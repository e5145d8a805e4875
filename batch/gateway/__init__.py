"""The server side of the protocol: an endpoint of one's own, answered by a small real model or by an echo."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import JobError, installed_by

NEEDED = ("starlette", "uvicorn", "uvloop", "httptools")


def needs(what: str) -> None:
    """Check that the extra `gateway` is installed, without importing it.

    Args:
        what: What needs it, for the message.

    Raises:
        JobError: It is not.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise JobError(f"{what} needs {', '.join(missing)}: {installed_by('gateway')}")
