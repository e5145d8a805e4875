"""`ails-batch serve`: the gateway, an endpoint of one's own."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from typing import TYPE_CHECKING

import click

from . import say

if TYPE_CHECKING:
    from ..gateway.model import Model
    from ..gateway.serve import Settings

SECRET_BYTES = 32
NEW_SECRETS = (
    "(umask 077; python3 -c \"import secrets; print('AILS_SECRET=' + secrets.token_urlsafe(32));"
    " print('AILS_API_KEY=' + secrets.token_urlsafe(24))\" >> .env)"
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option(
    "--model",
    type=click.Choice(["auto", "echo", "local"]),
    default="auto",
    show_default=True,
    help="What answers: the small real model, an echo for tests, or the real one where it is installed.",
)
@click.option("--public", multiple=True, metavar="NAME", help="Serve other machines, who call this one NAME; repeatable.")
@click.option("--secret-file", multiple=True, metavar="FILE", help="More signing secrets (files of mode 0600), to rotate them.")
@click.option("--api-key-file", multiple=True, metavar="FILE", help="More API keys (files of mode 0600).")
@click.option("--allow-model", multiple=True, metavar="NAME", help="Model names clients may ask for; any by default.")
@click.option("--require-bound", is_flag=True, help="Refuse requests whose x-batch-signature does not bind the whole request.")
@click.option("--openai", is_flag=True, help="Also serve /openai/v1/chat/completions, where the API key alone suffices.")
def command(
    host: str,
    port: int,
    model: str,
    public: tuple[str, ...],
    secret_file: tuple[str, ...],
    api_key_file: tuple[str, ...],
    allow_model: tuple[str, ...],
    require_bound: bool,
    openai: bool,
) -> int:
    """Serve the signed protocol: requests signed with AILS_SECRET and carrying AILS_API_KEY are answered.

    The model is a real but very small one (SmolLM2-135M-Instruct, Apache-2.0) where it is installed, otherwise an echo that
    says so. Ctrl-C stops it.
    """
    from ..errors import JobError
    from ..gateway import needs

    needs("ails-batch serve")
    from ..gateway.serve import Settings
    from ..signature import Credentials

    settings = Settings(
        secrets=collected("AILS_SECRET", secret_file, "--secret-file"),
        api_keys=collected("AILS_API_KEY", api_key_file, "--api-key-file"),
        model=model,  # type: ignore[arg-type]
        host=host,
        port=port,
        hosts=public,
        models=allow_model,
        require_bound=require_bound,
        openai=openai,
    )
    for key in settings.api_keys:
        Credentials(key)  # refuses what cannot be a header's value
    if not loopback(host):
        if not public:
            raise JobError(f"--host {host} is open to other machines; add --public NAME, the name by which they call this one")
        if any(len(secret.encode()) < SECRET_BYTES for secret in settings.secrets):
            raise JobError(f"a secret other machines rely on needs {SECRET_BYTES} bytes or more; make a new one: {NEW_SECRETS}")
    return serve(settings)


def collected(name: str, files: tuple[str, ...], option: str) -> tuple[str, ...]:
    """The values of a setting: from the environment or `.env`, and from files.

    Raises:
        JobError: There is none.
    """
    from ..errors import JobError
    from ..settings import secret_file, setting

    found = [setting(name), *(secret_file(path) for path in files)]
    values = tuple(value for value in found if value)
    if not values:
        raise JobError(f"{name} is not set, nor {option} given; make new ones for server and clients: {NEW_SECRETS}")
    return values


def loopback(host: str) -> bool:
    """Whether a host's addresses can be reached from this machine alone."""
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)


def serve(settings: Settings) -> int:
    """Serve until a signal comes.

    Returns:
        0 after SIGTERM, 130 after SIGINT.
    """
    import asyncio

    from ..gateway import serve as gateway

    async def trip() -> int:
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[int] = loop.create_future()

        def stop(code: int) -> None:
            if not stopped.done():
                stopped.set_result(code)

        loop.add_signal_handler(signal.SIGTERM, stop, 0)
        loop.add_signal_handler(signal.SIGINT, stop, 130)
        await gateway.serve(settings, lambda port, model, why: banner(settings, port, model, why), stopped)
        return stopped.result() if stopped.done() and not stopped.cancelled() else 0

    return gateway.run(trip)


def banner(settings: Settings, port: int, model: Model, why: str) -> None:
    """What a person needs to know, on standard error; names of secrets, never secrets."""
    from ..gateway.serve import in_url

    url = f"http://{in_url(settings.hosts[0] if settings.hosts else settings.host)}:{port}"
    say(f"the gateway listens on {url}")
    if model.real:
        say(f"{model.name} answers, a real language model, though a very small one; its licence is {model.licence}")
    else:
        say(
            f"{model.name} answers: AN ECHO, NO LANGUAGE MODEL; every answer is the last message" + (f" ({why})" if why else "")
        )
    say(f"clients set AILS_BASE_URL={url} and AILS_MODEL={model.name}; AILS_SECRET and AILS_API_KEY are those of this gateway")
    if settings.openai:
        say(f"without signatures: OPENAI_BASE_URL={url}/openai/v1, and OPENAI_API_KEY to the same key")
    if settings.hosts:
        say("this is plain HTTP: other machines should come through a proxy that speaks TLS")
    say("Ctrl-C stops it")
    sys.stderr.flush()
