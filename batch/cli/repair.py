"""`ails-batch repair`: what a damaged journal still holds."""

from __future__ import annotations

import time
from pathlib import Path

import click

from . import say


@click.command()
@click.argument("output", type=click.Path())
@click.option("--journal", metavar="PATH", help="The journal, when it is not OUTPUT.journal.")
@click.option("--compact", is_flag=True, help="Also drop the answers that no input row uses.")
def command(output: str, journal: str | None, compact: bool) -> int:
    """Save every whole line of the journal of OUTPUT into a new one; the old one stays beside it."""
    from ..errors import JobError
    from ..journal.repair import repair

    path = journal or output + ".journal"
    if not Path(path).exists():
        raise JobError(f"{path}: no such journal; name it with --journal")
    report = repair(path, at=time.time())
    if report.aside is None:
        say(f"{path} is sound: {report.rows} rows")
    else:
        places = ", ".join(f"{length} bytes at {offset}" for offset, length in report.damage[:5])
        more = f" and {len(report.damage) - 5} more places" if len(report.damage) > 5 else ""
        say(f"{path}: saved {report.rows} rows; lost {places or 'its first line'}{more}; the old journal is {report.aside}")
    if compact:
        from ..again import compact_again

        smaller = compact_again(output, journal or "")
        say(f"{path}: dropped {smaller.dropped} bytes; {smaller.rows} rows remain")
    return 0
