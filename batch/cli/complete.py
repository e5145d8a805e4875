"""`ails-batch complete`: one signed completion."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import click

from . import say


@click.command()
@click.argument("text")
@click.option("--stream", is_flag=True, help="Show the answer as it comes.")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--model", metavar="NAME", help="Model name (or AILS_MODEL).")
@click.option("--temperature", type=float, help="Sampling temperature.")
@click.option("--max-tokens", type=int, help="Tokens the answer may have.")
@click.option("--endpoint", metavar="URL", help="Base URL, or 'embedded' (or AILS_BASE_URL, OPENAI_BASE_URL).")
@click.option("--protocol", type=click.Choice(["ails", "openai"]), help="How the endpoint is spoken to; ails by default.")
@click.option("--api-key-file", metavar="FILE", help="The API key, in a file of mode 0600.")
@click.option("--secret-file", metavar="FILE", help="The signing secret, in a file of mode 0600.")
@click.option("--allow-http", is_flag=True, default=None, help="Let plain http go to other machines.")
def command(text: str, stream: bool, **options: Any) -> int:
    """Ask TEXT ('-' reads standard input) and print the answer."""
    from ..connection import connect
    from ..errors import CallError, Denied, RunRefused, Transient, TryLater
    from ..job import job as checked

    content = sys.stdin.read() if text == "-" else text
    parameters = {name: value for name in ("temperature", "max_tokens") if (value := options.pop(name)) is not None}
    system = options.pop("system")
    settings = {name: value for name, value in options.items() if value is not None}
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": content})
    with ExitStack() as stack:
        one = connect(checked(settings | {"concurrency": 1}), stack)
        try:
            if stream:
                for piece in one.stream(messages, parameters):
                    click.echo(piece, nl=False)
                click.echo()
            else:
                click.echo(one.complete(messages, parameters))
        except Denied as error:
            raise RunRefused(str(error)) from None
        except Transient as error:
            raise TryLater(str(error)) from None
        except CallError as error:
            say(str(error))
            return 1
    return 0
