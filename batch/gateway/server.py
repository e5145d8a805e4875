"""Uvicorn around the application: our connections, no logs of its own, signals left to the caller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from .connection import Connection

KEEP_ALIVE = 75
GRACE = 0.5


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield


def server_of(app: Starlette) -> uvicorn.Server:
    """A server for an application, to be given its listening sockets.

    Idle connections are kept for longer than clients keep them, so that it is the client who closes; requests under way get
    half a second once the server is told to stop.
    """
    return _Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,  # type: ignore[arg-type]
        )
    )
