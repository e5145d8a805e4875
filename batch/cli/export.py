"""`ails-batch export`: the output from the journal, without sending anything."""

from __future__ import annotations

import click

from . import say


@click.command()
@click.argument("output", type=click.Path())
@click.option("--journal", metavar="PATH", help="The journal, when it is not OUTPUT.journal.")
def command(output: str, journal: str | None) -> int:
    """Write OUTPUT again from its journal and its input: what is answered with its answer, the rest as `pending`."""
    from ..again import export_again
    from .run import tell_summary

    summary = export_again(output, journal or "")
    if summary.pending:
        say(f"{summary.pending} of {summary.rows} rows are not answered yet")
    tell_summary(summary)
    return summary.exit_code
