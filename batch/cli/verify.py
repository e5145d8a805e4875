"""`ails-batch verify`: proves an output against its input."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from . import say


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path())
@click.argument("output", metavar="OUTPUT", type=click.Path())
@click.option("--journal", metavar="PATH", help="The journal, when it is not OUTPUT.journal.")
def command(source: str, output: str, journal: str | None) -> int:
    """Prove that every row of INPUT has exactly one row of OUTPUT, in order, unchanged, with its own answer.

    Everything is read and computed anew; what was asked (template, model, options) is taken from the journal's last run.
    Standard output gets one JSON line with counts and the first row that breaks the proof.

    \b
    Exit codes: 0 proven, 1 broken, 2 cannot be checked, 5 the journal is damaged, 75 a run is going on or rows are pending.
    """
    from ..exact import dumps
    from ..verify import verify

    verdict = verify(source, output, journal or "")
    if verdict.first:
        say(f"{output} does not fit {source}: {verdict.first}")
        say("if the input was edited, or the run was interrupted, the same ails-batch run mends it")
    elif verdict.pending:
        say(
            f"{verdict.pending} of {verdict.rows} rows are pending, each in its place but without an answer; the other "
            f"{verdict.rows - verdict.pending} are proven; the same ails-batch run goes on"
        )
    sys.stdout.buffer.write(dumps(asdict(verdict) | {"exit_code": verdict.exit_code}) + b"\n")
    sys.stdout.buffer.flush()
    return verdict.exit_code
