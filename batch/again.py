"""An earlier run's output and journal, taken up again without sending anything."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import msgspec
import numpy as np

from . import formats
from .alignment import ASKED, STDIN, Alignment
from .ended import ended, exit_code
from .errors import JobError
from .job import Job
from .job import job as checked
from .journal import Journal
from .journal.repair import RepairReport, compact
from .records import KEY_BYTES
from .spool import RECORD
from .tally import Summary, Tally


def export_again(output: str, journal: str = "") -> Summary:
    """Write an output from its journal and its input; nothing is sent.

    Args:
        output: The output of an earlier run.
        journal: Its journal, when it is not `OUTPUT.journal`.

    Raises:
        BatchError: There is no journal, another run holds it, or the input or the output cannot be used.
    """
    begun = monotonic()
    with ExitStack() as stack:
        job, alignment, opened, tally = _again(output, journal, stack)
        formats.preflight_output(output, job.inputs, format=job.output_format or None)
        written = alignment.write()
        return ended(job, written, tally, opened, begun=begun, code=exit_code(job, written))


def compact_again(output: str, journal: str = "") -> RepairReport:
    """Drop the answers that no row of the input uses any more; the old journal stays beside the new one.

    Args:
        output: The output of an earlier run.
        journal: Its journal, when it is not `OUTPUT.journal`.

    Raises:
        BatchError: There is no journal, another run holds it, or the input cannot be used.
    """
    with ExitStack() as stack:
        _, alignment, opened, _ = _again(output, journal, stack, every=True)
        used = np.concatenate([np.empty(0, RECORD), *alignment.spool.blocks()])["id"].tobytes()
        used += alignment.reading.replaced  # what stands in their place is found by way of them
        path = opened.path
    return compact(path, np.frombuffer(used, np.uint8).reshape(-1, KEY_BYTES))


def _again(output: str, journal: str, stack: ExitStack, *, every: bool = False) -> tuple[Job, Alignment, Journal, Tally]:
    """An earlier run's job, with its rows as the input has them now; with `every`, also those that were not selected."""
    path = Path(journal or output + ".journal")
    if not path.exists():
        raise JobError(f"{path}: no such journal; name it with --journal")
    opened = stack.enter_context(Journal.open(path))
    if not opened.runs:
        raise JobError(f"{path} holds no run; ails-batch run begins one")
    asked = opened.runs[-1]["run"]
    job = msgspec.structs.replace(checked(asked["job"]), output=output)
    if job.input == "-":  # the run's, not this command's
        job = msgspec.structs.replace(job, input=str(opened.folder / STDIN))
    if every:
        job = msgspec.structs.replace(job, limit=None, sample=None, where="")
    tally = Tally()
    alignment = Alignment(job, {name: asked.get(name, "") for name in ASKED}, opened, tally, stack)
    for _ in alignment.pending(lambda: True):
        pass
    return job, alignment, opened, tally
