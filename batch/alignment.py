"""Input and output side by side: which rows there are, whether the output still fits them, and writing it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

from msgspec.structs import asdict

from . import __version__, formats
from .answers import Schema
from .errors import StorageError
from .export import RAW, RAW_INPUT, View, Written, export
from .formats import Sink, Source
from .formats.frame import Frame
from .job import Job, digest
from .journal import Journal
from .journal.index import RECENT, load
from .reading import AGAIN, Kept, Reading, Selection, prompts_of
from .records import Prompt
from .spool import Spool
from .tally import Tally
from .wires import WIRES, Wire


def schema_of(text: str, job: Job) -> Schema | None:
    """A job's schema from its text; None when it has none.

    Raises:
        JobError: It is none, or its properties cannot be columns.
    """
    return Schema(text, job.schema or "--schema") if text else None


def view_of(job: Job, wire: Wire, schema: Schema | None) -> View:
    """How a job's answers are shown.

    Raises:
        JobError: The schema's properties cannot be columns.
    """
    batch = job.output_format == "openai-batch"
    # The lines of a batch have no columns that could clash, and hold whole answers.
    view = View(wire, "" if batch else job.prefix, job.keep_raw or batch, schema, job.explode)
    view.columns  # noqa: B018  (a clash is told before anything is sent)
    return view


PLAIN = frozenset({"csv", "tsv", "jsonl"})
"""Formats that are read as what they are written as: no table is made in between."""

ASKED = ("template", "schema", "protocol", "identity", "model")
"""What decides a row's key beside the job and the row; the journal's run line has it."""

STDIN = "stdin"
"""The copy of standard input, beside the journal: what the next run without one, `export` and `repair` read."""


def opened(
    job: Job,
    view: View,
    spool: Path | None = None,
    frame: Frame | None = None,
    stopping: threading.Event | None = None,
) -> formats.Source:
    """A job's input.

    Args:
        job: Names it.
        view: Says which columns it must not have.
        spool: Where to keep a copy of standard input; None for an unnamed temporary file.
        frame: The input, where it is no file.
        stopping: Ends the wait for an idle pipe.

    Raises:
        JobError: It cannot be opened, or has a column of the output.
        InputError: Its beginning shows that it is no table.
    """
    reserved = [view.prefix + name for name in (*view.columns, RAW, RAW_INPUT)]
    if frame:
        return frame.source(reserved)
    return formats.source(
        job.input,
        format=job.input_format or None,
        encoding=job.encoding,
        spool=spool,
        reserved=reserved,
        stopping=stopping,
    )


class Alignment:
    """A job's rows, as its input has them now.

    Args:
        job: What is read and written.
        asked: What decides a row's key beside its own values: `template`, `schema`, `protocol`, `identity` and
            `model`.
        journal: What is known of each row.
        tally: Counts rows that need no asking.
        stack: Closes the input.
        frame: Where rows come from and go to, where that is no file.
        stopping: Ends the wait for an idle pipe.
    """

    def __init__(
        self,
        job: Job,
        asked: dict[str, Any],
        journal: Journal,
        tally: Tally,
        stack: ExitStack,
        frame: Frame | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._job = job
        self._frame = frame
        self._journal = journal
        self._tally = tally
        wire = WIRES[asked["protocol"]]
        self.schema = schema_of(asked["schema"], job)
        self.view = view_of(job, wire, self.schema)
        self.source = stack.enter_context(opened(job, self.view, journal.folder / STDIN, frame, stopping))
        self.spool = Spool(journal.folder)
        self.selection = Selection(job, self.source, prompts_of(job, asked))
        self.reading = Reading(job, self.selection, journal, self.spool, wire, self.schema)
        self._there = _state(job.output)
        self._written = Written()
        # The journal's id, too: after --fresh, or once it was moved away, nothing is done that another journal knew.
        self._asked = digest([journal.id.hex(), job.asked(), asked, self.source.format, job.bad_rows])
        shape = ("output", "output_format", "prefix", "keep_raw", "explode", "csv_guard", "errors")
        self._shape = digest([__version__, self.source.names, *(getattr(job, name) for name in shape)])

    def look_through(self, going_on: Callable[[], bool]) -> None:
        """Read everything once before anything is sent.

        Args:
            going_on: Asked from time to time; once it says no, the pass ends where it is.

        Raises:
            InputError: The input is no table.
            JobError: More rows than `bad_rows` cannot be asked.
        """
        for _ in self.selection.chunks(going_on):
            pass

    def pending(self, going_on: Callable[[], bool], tally: Tally | None = None) -> Iterator[Prompt]:
        """The prompts that are to be asked; see `Reading.pending`."""
        return self.reading.pending(going_on, tally or self._tally)

    def done_already(self) -> Written | None:
        """What an earlier run wrote, if it did exactly this, to the last row, and its output is still as it left it."""
        if self._job.output == "-" or self._frame:
            return None  # whoever reads that wants it again
        about = self.spool.about()
        if (about.get("asked"), about.get("shape"), about.get("left")) != (self._asked, self._shape, 0):
            return None
        if about["known"] > len(self._journal):
            return None  # it was repaired, compacted, or comes from a backup
        written = Written(**about["written"])
        if self._job.retry_failed and written.failed:
            return None
        if about["output"] != _state(self._job.output) or about.get("errors") != _state(self._job.errors):
            return None
        if about["size"] != self.source.size:
            self._go_on(about, written)
            return None
        if about["sha256"] != self.source.digest():
            return None
        self._tally.cached = written.ok
        return written

    def _go_on(self, about: dict[str, Any], written: Written) -> None:
        """Where rows were only appended to the input, leave alone those that an earlier run has read, asked and written."""
        if not about["end"] or self.reading.doubtful:
            return
        end = formats.End(**about["end"])
        if end.size >= (self.source.size or 0) or not all(formats.grows(*file) for file in self._files()):
            return
        if self.selection.go_on(end, Kept(**about["kept"])):
            self._written = written

    def _files(self) -> Iterator[tuple[str, Source, str | None]]:
        """The files that are written: path, input, and the format that was named or None."""
        yield self._job.output, self.source, self._job.output_format or None
        if self._job.errors:
            yield self._job.errors, self.source, self._errors_format()

    def takes_numpy(self, rows: int | None) -> bool:
        """Whether so many rows are kept track of and written only with numpy; None for a number that is not known."""
        job = self._job
        forms = {self.source.format, formats.output_format(job.output, job.output_format) if job.output else ""}
        if job.errors:
            forms.add(self._errors_format())
        return rows is None or rows > RECENT or len(forms) > 1 or not forms <= PLAIN

    @property
    def is_unseen(self) -> bool:
        """Whether nothing is seen of the output before all of it is written: it is no pipe and no frame."""
        return not self._frame and "-" not in (self._job.output, self._job.errors)

    def write(self, settled: Callable[[int], int | None] | None = None) -> Written:
        """Write the output, once the reading pass is whole.

        Args:
            settled: Tells how many rows have come to their end; see `export`.

        Raises:
            TryLater: There was no time for it.
            InputChanged: The input is no longer what the reading pass saw; the old output stays.
            StorageError: The output cannot be written; the old one stays.
            BatchError: numpy is needed and cannot be loaded.
        """
        job = self._job
        if self.takes_numpy(self.spool.count):
            load()
        if _state(job.output) not in (None, self._there):
            raise StorageError(
                f"{job.output} was replaced while the run went on; move it away, then: ails-batch export {job.output}"
            )
        selection = self.selection
        if selection.unreadable and not selection.kept.unreadable:
            selection.start_over()  # the output has no column yet for what could not be read
        sink = self._sink()
        try:
            errors = self._errors() if job.errors else None
        except BaseException:
            sink.abort()
            raise
        before = self._written if self._goes_on else None
        written = export(self.source, self.spool, self._journal, sink, self.view, errors, settled, before)
        end = self.source.end()
        about = {
            "asked": self._asked,
            "shape": self._shape,
            "size": self.source.size,
            "sha256": self.source.sha256,
            "end": end and asdict(end),
            "kept": asdict(Kept(written.rows, written.ok, selection.count, selection.bad, selection.unreadable)),
            "left": written.pending + sum(written.kinds.get(kind, 0) for kind in AGAIN),
            "known": len(self._journal),
            "written": asdict(written),
            "output": _state(job.output),
            "errors": _state(job.errors),
        }
        with suppress(OSError):  # the output is written; the next run only has more to do
            self.spool.describe(about)
        return written

    @property
    def _goes_on(self) -> bool:
        """Whether the files that are written keep what stands in them."""
        return bool(self.selection.kept.rows)

    def _sink(self) -> Sink:
        """Where rows go: the output, the frame that is wanted, or both."""
        job = self._job
        columns = self.view.columns | ({RAW_INPUT: str} if self.reading.unreadable else {})
        names = {self.view.prefix + name: kind for name, kind in columns.items()}
        file = None
        if job.output or not self._frame:
            form = job.output_format or None
            file = formats.sink(job.output, self.source, names, format=form, guard=job.csv_guard, go_on=self._goes_on)
        return self._frame.sink(names, file) if self._frame else cast(Sink, file)

    def _errors(self) -> Sink:
        """Where failed rows go: a file that repeats the input."""
        return formats.sink(self._job.errors, self.source, format=self._errors_format(), go_on=self._goes_on)

    def _errors_format(self) -> str:
        """That of the input, unless the name tells another."""
        own = "jsonl" if self.source.format == "openai-batch" else self.source.format
        return formats.format_of(self._job.errors) or own


def _state(output: str) -> list[int] | None:
    """What tells a file that was touched from one that was not; None where there is none."""
    if not output:
        return None
    try:
        state = Path(output).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ino]
