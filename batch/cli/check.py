"""`ails-batch check`: everything read, nothing sent."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from . import say
from .run import job_options, the_job

if TYPE_CHECKING:
    from ..checking import Report

BAD_SHOWN = 20
LINES_SHOWN = 12
WIDTH = 200


@click.command()
@click.argument("source", metavar="INPUT|JOB.toml", type=click.Path(path_type=str))
@job_options
@click.option("--rpm", type=float, help="Requests a minute at most, for the estimate of the time.")
@click.option("--tpm", type=float, help="Tokens a minute at most, for the same.")
@click.option("--bad-rows", type=int, metavar="N", help="Exit 2 when more rows than this cannot be asked.")
@click.option("--prefix", metavar="P", help="Put P before the names of generated columns.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what is wrong.")
def command(source: str, quiet: bool, **options: Any) -> int:
    """Read all of INPUT, render every prompt, and say what a run would come to; nothing is sent, nothing is written.

    On standard error come the rows that cannot be asked, with line and reason, and the first prompts as they would be sent; on
    standard output one JSON line. Endpoint, model and credentials are not needed.

    \b
    Exit codes: 0 every row can be asked, 1 some cannot, 2 the file or the settings must be changed.
    """
    from ..checking import check
    from ..exact import dumps

    settings = {name: value for name, value in options.items() if value is not None and value != ()}
    job = the_job(source, settings if source.endswith(".toml") else {"output": "-"} | settings)
    bad = 0

    def tell_bad(words: str) -> None:
        nonlocal bad
        bad += 1
        if bad <= BAD_SHOWN:
            say(words)

    report = check(job, bad=tell_bad)
    if bad > BAD_SHOWN:
        say(f"and {bad - BAD_SHOWN} more rows that cannot be asked")
    if report.exit_code == 2:
        say(f"{bad} rows cannot be asked, and --bad-rows allows {job.bad_rows}")
    if not quiet:
        _tell(report)
    sys.stdout.buffer.write(dumps({name: value for name, value in asdict(report).items() if name != "examples"}) + b"\n")
    sys.stdout.buffer.flush()
    return report.exit_code


def _tell(report: Report) -> None:
    """What the numbers mean, and the first prompts."""
    for number, messages in enumerate(report.examples, 1):
        say(f"prompt {number}:")
        for message in messages:
            content = message["content"]
            lines = (content if isinstance(content, str) else str(content)).split("\n")
            for line in [f"{message['role']}: {lines[0]}", *lines[1:LINES_SHOWN]]:
                shown = "".join(sign if sign.isprintable() else " " for sign in line[:WIDTH])
                click.echo(f"  {shown}{'…' if len(line) > WIDTH else ''}", err=True)
            if len(lines) > LINES_SHOWN:
                click.echo(f"  … {len(lines) - LINES_SHOWN} more lines", err=True)
    cost = "unknown (the job names no price)" if report.cost_usd is None else f"about {report.cost_usd:.2f} USD"
    time = "unknown (no --rpm or --tpm)" if report.seconds is None else f"at least {_spoken(report.seconds)}"
    say(
        f"{report.rows} rows, {report.bad} of them cannot be asked; about {report.prompt_tokens} prompt and "
        f"{report.completion_tokens} answer tokens; cost {cost}; time {time}"
    )
    if report.equal_prompts:
        say(f"{report.equal_prompts} rows ask exactly what an earlier row asks")
    if report.equal_ids:
        say(f"{report.equal_ids} rows have a {report.id_column!r} that an earlier row has")
    for words in report.missing:
        say(f"{words}; a run needs that, this check did not")


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
