"""`ails-batch run`: the main job."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import say

if TYPE_CHECKING:
    from ..job import Job
    from ..tally import Snapshot, Summary


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of mallopt(3)."""

FILES = 4096
"""Descriptors that a run with a thousand connections may need."""


class Number(click.ParamType[Any]):
    """A number, or the word `auto`."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        if value == "auto" or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'", param, ctx)


def job_options(command: Any) -> Any:
    """The options that say what is read and asked, shared by the commands that need a job."""
    for option in reversed(
        [
            click.option("--input-format", metavar="FORMAT", help="csv, tsv, jsonl, …; by default from the suffix."),
            click.option("--encoding", metavar="NAME", help="Of CSV and TSV; utf-8 by default."),
            click.option("--prompt-column", metavar="COLUMN", help="The column to send; 'prompt' by default."),
            click.option("--template", metavar="TEXT", help="Jinja2 text of the prompt: 'Translate to French: {{ text }}'."),
            click.option("--template-file", metavar="FILE", help="The same from a file."),
            click.option("--system", metavar="TEXT", help="System message, a template too."),
            click.option("--model", metavar="NAME", help="Model name (or AILS_MODEL)."),
            click.option("--param", "params", multiple=True, metavar="KEY=JSON", help="Any other member of the request."),
            click.option("--temperature", type=float, help="Sampling temperature."),
            click.option("--max-tokens", type=int, help="Tokens an answer may have."),
            click.option("--row-params", metavar="A,B", help="Columns that override parameters row by row."),
            click.option("--where", metavar="EXPR", help="Only rows for which this Jinja2 expression holds: \"lang == 'de'\"."),
            click.option("--sample", type=int, metavar="N", help="Only N rows, chosen by content: the same ones every time."),
            click.option("--limit", type=int, metavar="N", help="Only the first N rows."),
            click.option("--repeat", type=int, metavar="K", help="Ask every row K times; its output rows stand side by side."),
            click.option("--schema", metavar="FILE", help="JSON Schema that every answer must fit; see docs/answers.md."),
            click.option("--send-schema/--no-send-schema", default=None, help="As response_format; only 'openai' by default."),
            click.option("--endpoint", metavar="URL", help="Base URL, or 'embedded' (or AILS_BASE_URL, OPENAI_BASE_URL)."),
            click.option("--protocol", type=click.Choice(["ails", "openai"]), help="ails (signed) by default."),
            click.option("--api-key-file", metavar="FILE", help="The API key, in a file of mode 0600."),
            click.option("--secret-file", metavar="FILE", help="The signing secret, in a file of mode 0600."),
            click.option("--allow-http", is_flag=True, default=None, help="Let plain http go to other machines."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="INPUT|JOB.toml", type=click.Path(path_type=str))
@click.option("-o", "--output", metavar="OUTPUT", help="Where the answers go; '-' for JSON lines on stdout.")
@job_options
@click.option("--output-format", metavar="FORMAT", help="By default from the suffix.")
@click.option("--journal", metavar="PATH", help="Where every answer is kept; OUTPUT.journal by default.")
@click.option("--concurrency", type=Number(), help="Requests in flight at most; 'auto' (default) finds the number.")
@click.option("--engine", type=click.Choice(["threads", "processes"]), help="Send from threads (default) or from processes.")
@click.option("--processes", type=Number(), help="How many processes; 'auto' (default) is one a core.")
@click.option("--rpm", type=float, help="Requests a minute at most.")
@click.option("--tpm", type=float, help="Tokens a minute at most.")
@click.option("--burst", type=float, help="Seconds of the rate that may go at once after a lull; 0.01 by default.")
@click.option("--attempts", type=int, help="Requests a row may use up; 5 by default.")
@click.option("--timeout", metavar="TIME", help="For one whole attempt; 600s by default.")
@click.option("--max-outage", metavar="TIME", help="How long to wait for a server that is away; 30m by default, then exit 75.")
@click.option("--deadline", metavar="TIME", help="Stop after this long, exit 6.")
@click.option("--halt", metavar="fail=N|N%", help="Stop once so many rows have failed, exit 6.")
@click.option("--tolerate", metavar="fail=N|N%", help="So many failed rows still exit 0.")
@click.option("--max-cost", type=float, metavar="USD", help="Stop once this is spent, exit 6; needs a price in the job file.")
@click.option("--repair", type=int, metavar="N", help="Ask up to N times again for an answer that fits --schema.")
@click.option("--explode", is_flag=True, default=None, help="Make the schema's top-level properties columns.")
@click.option("--check-first", is_flag=True, default=None, help="Read the whole input before anything is sent.")
@click.option("--errors", metavar="PATH", help="Also write the failed rows alone, ready to be an input.")
@click.option("--bad-rows", type=int, metavar="N", help="Refuse files with more rows that cannot be asked.")
@click.option("--prefix", metavar="P", help="Put P before the names of generated columns.")
@click.option("--keep-raw", is_flag=True, default=None, help="Add the server's whole answer as column 'raw'.")
@click.option("--csv-guard/--no-csv-guard", default=None, help="Defuse generated cells that a spreadsheet would execute.")
@click.option("--retry-failed", is_flag=True, default=None, help="Ask refused rows again, too.")
@click.option("--fresh", is_flag=True, default=None, help="Forget earlier answers (the old journal is moved aside).")
@click.option("--wait", is_flag=True, default=None, help="Wait for another run of the same output instead of exiting 75.")
@click.option("--quota", metavar="NAME|PATH", help="Share --rpm and --tpm with all jobs of this machine that name the same.")
@click.option("--log-file", metavar="PATH", help="JSON lines, without prompts or answers; may be rotated.")
@click.option("--metrics-file", metavar="X.prom", help="A text file for Prometheus' node exporter.")
@click.option("--ping", metavar="URL", help="A check to tell: URL/start, then URL/<exit code>, as healthchecks.io has it.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something is wrong.")
def command(source: str, quiet: bool, **options: Any) -> int:
    """Ask every prompt of INPUT and write the answers to OUTPUT, row for row.

    INPUT is a CSV or JSON lines file ('-' for standard input); JOB.toml holds all of this in a file, and options override it.
    The same command continues after any interruption and sends only what is missing.

    \b
    Exit codes: 0 every row has an answer, 1 some rows failed, 2 something must be changed, 3 storage failed,
    4 the server refuses the run, 5 the journal is damaged, 6 a limit was reached, 75 try later, 128+N signal N.
    """
    _make_room()  # first, for what is imported makes objects by the ten thousand, too
    from ..trip import run
    from .core import Core
    from .progress import Progress

    gc.freeze()  # what was imported stays
    settings = {name: value for name, value in options.items() if value is not None and value != ()}
    job = the_job(source, settings)
    _refuse_without_files(source, job)
    _hear()
    from ..judge import Stop

    stop = Stop()
    handle(stop)
    core = Core() if job.engine == "threads" else None
    with Progress(quiet=quiet) as progress:

        def watch(now: Snapshot) -> None:
            progress(now)
            if core:
                core(now)

        summary = run(job, watch=watch, stop=stop)
    tell(job, summary, quiet=quiet)
    return summary.exit_code


def _hear() -> None:
    """Say what the library has to say of things that fail no run."""
    import logging

    class Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logging.getLogger("batch").addHandler(Saying())


def _make_room() -> None:
    """What only a process of one's own may set: small stacks for many threads, and as many open files as are allowed."""
    threading.stack_size(256 * 1024)
    # Rows are made and dropped by the million and hold no cycles: looking for some every 700 objects costs a tenth of all.
    gc.set_threshold(100_000, 50, 50)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard) if hard > 0 else FILES, hard))
    if 0 < hard < FILES:
        from ..journal.index import load

        load()  # connections may leave no descriptor to do it with
    # glibc raises this threshold as large blocks are freed and then keeps them: a third more memory at ten million rows.
    # And it gives the rest back, and asks for it again, with every chunk of rows: a tenth of a long pass was spent on that.
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL(None)
        glibc.mallopt(M_MMAP_THRESHOLD, 65_536)
        glibc.mallopt(M_TRIM_THRESHOLD, 64 << 20)
        glibc.mallopt(M_TOP_PAD, 16 << 20)


def the_job(source: str, settings: dict[str, Any]) -> Job:
    """A job from INPUT or JOB.toml and the options given."""
    from .. import job as jobs
    from ..errors import JobError

    settings = gathered(settings)
    try:
        return _the_job(source, settings)
    except jobs.FieldError as error:
        if error.field not in settings:
            raise
        raise JobError(f"--{error.field.replace('_', '-')}: {error.words}") from None


def _the_job(source: str, settings: dict[str, Any]) -> Job:
    from .. import job as jobs
    from ..errors import JobError

    if source.endswith(".toml"):
        if "parameters" in settings:
            settings["parameters"] = {**jobs.load(source).parameters, **settings["parameters"]}
        return jobs.load(source, **settings)
    if not settings.get("output"):
        raise JobError(f"where do the answers go? ails-batch run {source} -o answers{Path(source).suffix or '.jsonl'}")
    return jobs.job({"input": source} | settings)


def _refuse_without_files(source: str, job: Job) -> None:
    """A job file that does not say what is read, or where the answers go."""
    from ..errors import JobError

    if not job.input:
        raise JobError(f"{source}: the key 'input' is missing: write input = \"prompts.csv\"")
    if not job.output:
        raise JobError(f"{source}: the key 'output' is missing: write output = \"answers.csv\", or give -o answers.csv")


def gathered(options: dict[str, Any]) -> dict[str, Any]:
    """Options as fields of a job: those that are parameters of the request in one table, lists as lists."""
    settings = dict(options)
    parameters = dict(_parameter(one) for one in settings.pop("params", ()))
    for name in ("temperature", "max_tokens"):
        if name in settings:
            parameters[name] = settings.pop(name)
    if "row_params" in settings:
        settings["row_params"] = [name.strip() for name in settings["row_params"].split(",") if name.strip()]
    if parameters:
        settings["parameters"] = parameters
    return settings


def _parameter(text: str) -> tuple[str, Any]:
    from ..errors import JobError
    from ..exact import loads

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise JobError(f"--param {text!r}: write KEY=JSON, such as --param top_p=0.9 or --param 'stop=[\"\\n\"]'")
    try:
        return name, loads(value.encode())
    except ValueError as error:
        raise JobError(f"--param {name}: {value!r} is no JSON ({error}); texts need quotes: --param '{name}=\"…\"'") from None


def handle(stop: Any) -> None:
    """Let signals end the run in order; those that the caller ignores stay ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: stop.interrupt(received))


def tell(job: Job, summary: Summary, *, quiet: bool) -> None:
    """The one JSON line for pipelines, and words for people."""
    if summary.error:
        say(summary.error)
    kept = job.journal_path is None and Path(summary.journal).exists()
    if summary.pending:
        goes_on = "" if kept else "; the same command goes on where this one stopped"
        say(f"{summary.pending} of {summary.rows} rows are not answered yet{goes_on}")
    if kept:
        import shlex

        say(f"what was answered is kept; the same command goes on with --journal {shlex.quote(summary.journal)}")
    if summary.failed and not (quiet and summary.exit_code == 0):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.kinds.items()))
        where = "the member 'error'" if job.output == "-" else f"the column 'error' of {summary.output}"
        say(f"{summary.failed} of {summary.rows} rows failed ({kinds}); see {where}; the first: {summary.first_failure}")
    if summary.possibly_charged_twice:
        say(
            f"{summary.possibly_charged_twice} rows were in flight when a run was killed and may have been charged twice: "
            f"rows {', '.join(map(str, summary.doubtful))}"
        )
    # A line on standard output is enough for cron to send a mail.
    if job.output != "-" and not (quiet and summary.exit_code == 0):
        tell_summary(summary)


def tell_summary(summary: Summary) -> None:
    """The one JSON line on standard output."""
    from msgspec.structs import asdict

    from ..exact import dumps

    line = {
        name: value for name, value in asdict(summary).items() if name not in ("kinds", "error", "first_failure", "doubtful")
    }
    sys.stdout.buffer.write(dumps(line) + b"\n")
    sys.stdout.buffer.flush()
