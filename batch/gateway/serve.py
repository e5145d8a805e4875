"""The gateway as a process: a port, a model and uvicorn, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import uvloop

from ..clock import SYSTEM
from ..errors import JobError
from .echo import Echo
from .local import start
from .model import Model

Choice = Literal["auto", "echo", "local"]

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """How a gateway is to be run.

    Attributes:
        secrets, api_keys: Those in force.
        model: `echo`; `local`, the real one or nothing; `auto`, the real one where it is installed, else the echo.
        host, port: Where it listens; port 0 takes a free one.
        hosts: Names by which clients may call it, loopback's own names aside.
        models: Model names clients may ask for; any when empty.
        require_bound: Refuse requests without `x-batch-signature`.
        openai: Also serve `/openai/v1/chat/completions`.
    """

    secrets: tuple[str, ...] = field(repr=False)
    api_keys: tuple[str, ...] = field(repr=False)
    model: Choice = "auto"
    host: str = "127.0.0.1"
    port: int = 0
    hosts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    require_bound: bool = False
    openai: bool = False


async def choose(choice: Choice) -> tuple[Model, str]:
    """The model that answers, ready, and why it is not the real one ("" where it is, or where the echo was asked for).

    Raises:
        JobError: `local` was asked for and cannot be had.
    """
    if choice == "echo":
        return Echo(), ""
    try:
        return await start(), ""
    except JobError as error:
        if choice == "local":
            raise
        return Echo(), str(error)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        JobError: The address is not this machine's, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise JobError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; try another --host or --port"
        ) from None
    return listening


def in_url(host: str) -> str:
    """A host as URLs and `Host` headers have it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


async def serve(settings: Settings, ready: Callable[[int, Model, str], None], stop: Awaitable[object]) -> None:
    """Serve until `stop` is done.

    Args:
        settings: What to serve, and where.
        ready: Called once with the port, the model that answers, and why it is not the real one; requests are taken from then.
        stop: Ends the server; requests under way get half a second.

    Raises:
        JobError: It could not begin.
    """
    started = SYSTEM.time()
    listening = listen(settings.host, settings.port)
    try:
        choosing = asyncio.create_task(choose(settings.model))
        await asyncio.sleep(0)
        # The model's process has started by now; it loads while this one imports the rest, a quarter of a second.
        from .app import LOOPBACK, make_app
        from .server import server_of

        model, why = await choosing
    except BaseException:
        listening.close()
        raise
    try:
        app = make_app(
            secrets=settings.secrets,
            api_keys=settings.api_keys,
            model=model,
            models=settings.models,
            hosts=[*LOOPBACK, *(in_url(host).lower() for host in (settings.host, *settings.hosts))],
            require_bound=settings.require_bound,
            openai=settings.openai,
            started=started,
        )
        server = server_of(app)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        stopping = asyncio.ensure_future(stop)
        ready(listening.getsockname()[1], model, why)
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = True
        await serving
    finally:
        await model.close()


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run a gateway's main coroutine on uvloop, with as many file descriptors as this machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())  # type: ignore[arg-type]
