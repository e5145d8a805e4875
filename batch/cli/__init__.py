"""A command a file; options to a `Job`, tqdm around the run. Only click is imported until a command runs."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "run": "ask every prompt of a file and write the answers beside it",
    "check": "read everything, send nothing: bad rows, tokens, cost, time, the first prompts",
    "export": "write the output from the journal; sends nothing",
    "convert": "between CSV, TSV, JSON lines, Parquet and the lines of batch services",
    "verify": "prove that every input row has its own answer, in order",
    "repair": "save what a damaged journal holds",
    "job": "job files: write one, see what it would do, all fields",
    "complete": "one signed completion, to standard output",
    "serve": "the gateway: an endpoint of one's own that speaks the protocol",
}


class Lazy(click.Group):
    """A group that imports a command when it is called, not when help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order of the street."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's file."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{cmd_name}", __name__).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click itself would end a broken pipe with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader has gone; Python would complain once more when it flushes on the way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from text."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ails-batch", message="%(package)s %(version)s")
def group() -> None:
    """Ask a file of prompts: nothing lost, nothing paid twice, every row in its place.

    Start with: ails-batch run prompts.csv -o answers.csv --endpoint embedded
    """


def command_line(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code of the contract.
    """
    # Arrow's own pools keep what they have freed: 14 MiB more beside every file that pandas reads.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # numpy is asked for no linear algebra, whose threads, one a core, would spin from the import on.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        result: Any = group.main(arguments, prog_name="ails-batch", standalone_mode=False)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.Abort:
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        asked = context.command_path if context else "ails-batch"
        say(f"{error.format_message().rstrip('.')}; see {asked} --help")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _failed(error)
    return result if isinstance(result, int) else 0


def _failed(error: Exception) -> int:
    from ..errors import BatchError

    if os.environ.get("AILS_DEBUG"):
        import traceback

        traceback.print_exc()
    if isinstance(error, BatchError):
        say(str(error))
        return error.exit_status
    if isinstance(error, OSError):
        say(f"{error.filename or 'storage'}: {error.strerror or error}")
        return 3
    say(f"a bug, please report it: {type(error).__name__}: {error} (AILS_DEBUG=1 shows where)")
    return 70


def say(words: str) -> None:
    """One line for the person, without anything that would steer their terminal."""
    try:
        click.echo("ails-batch: " + "".join(sign for sign in " ".join(words.split()) if sign.isprintable()), err=True)
    except OSError:
        # A log on a full disk, perhaps. What Python still holds of it would make the exit code 120.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
