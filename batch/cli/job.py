"""`ails-batch job`: a job file written, shown and described."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import say
from .run import command as run_command

if TYPE_CHECKING:
    from ..job import Job

FILE_ONLY = {
    "input": "A file, `-` for standard input, or a list of files and patterns.",
    "output": "Where the answers go; `-` for JSON lines on stdout, `{date}` for today.",
    "parameters": "Members of every request beside model and messages: `max_tokens`, `temperature`, `seed`, …",
    "row_params": "Columns that override parameters row by row.",
    "sample_seed": "Another number, another sample.",
    "price": "US dollars a million tokens: `{ prompt = 0.15, completion = 0.60 }`.",
}
"""What fields mean that are no option, or are written otherwise than the option."""

EXAMPLES = {
    "parameters": {"max_tokens": 256, "temperature": 0},
    "row_params": ["temperature"],
    "sample": 100,
    "limit": 100,
    "send_schema": True,
    "protocol": "ails",
    "rpm": 600.0,
    "tpm": 90_000.0,
    "burst": 1.0,
    "deadline": "6h",
    "halt": "fail=20%",
    "tolerate": "fail=1%",
    "max_cost": 5.0,
    "price": {"prompt": 0.15, "completion": 0.60},
    "bad_rows": 10,
}
"""Values for fields that have none by default."""

FIRST = {"input": "prompts.csv", "output": "answers.csv", "template": "{{ prompt }}", "endpoint": "embedded"}
"""What a new job holds when nothing else is said."""

RUN_OPTIONS = [one for one in run_command.params if isinstance(one, click.Option) and one.name != "quiet"]


@click.group()
def command() -> None:
    """Job files: everything `run` can do, in TOML."""


@command.command("new", params=[*RUN_OPTIONS])
@click.argument("file", type=click.Path())
@click.argument("source", metavar="[INPUT]", required=False)
def new(file: str, source: str | None, **options: Any) -> None:
    """Write a commented job FILE; options that are given here stand in it.

    ails-batch job new nightly.toml prompts.csv -o answers.csv --template 'Translate to French: {{ text }}'
    """
    from ..errors import JobError
    from ..job import job as checked
    from .run import gathered

    if not file.endswith(".toml"):
        raise JobError(f"{file}: a job file's name ends in .toml, so that `ails-batch run {file}.toml` knows it for one")
    given = gathered(_given(options))
    if source:
        given["input"] = source
    asks = any(name in given for name in ("template", "template_file", "prompt_column"))
    settings = {name: value for name, value in FIRST.items() if name != "template" or not asks} | given
    checked(settings)
    text = _commented(file, settings)
    try:
        with Path(file).open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise JobError(f"{file} is there already; choose another name, or remove it") from None
    except OSError as error:
        raise JobError(f"{file}: {error.strerror}; choose a place that can be written") from None
    say(f"{file} is written; see what it would do with: ails-batch job show {file}")


@command.command("show", params=[*RUN_OPTIONS])
@click.argument("file", type=click.Path())
def show(file: str, **options: Any) -> None:
    """Print what `run` would do with FILE and these options: all fields that say something, then the first request.

    Nothing is sent and nothing is written. What is printed is a job file again.
    """
    from .run import the_job

    job = the_job(file, _given(options))
    click.echo(_shown(job), nl=False)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of job files, for editors.

    Kept beside a job file as job.schema.json, it is found by the line: #:schema ./job.schema.json
    """
    click.echo(json.dumps(_schema(), indent=2, ensure_ascii=False))


@command.command("fields")
def fields() -> None:
    """Print the table of all fields, with their options and defaults."""
    click.echo(_table(), nl=False)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != ()}


def _meanings() -> dict[str, str]:
    """What each field means: the words of its option, so that they are written once."""
    from ..job import Job

    helps = {str(one.name): one.help or "" for one in RUN_OPTIONS}
    return {name: FILE_ONLY.get(name) or helps.get(name, "") for name in Job.__struct_fields__}


def _defaults() -> dict[str, Any]:
    from ..job import Job

    return {name: getattr(Job(), name) for name in Job.__struct_fields__}


def _toml(value: Any) -> str:
    """A value as TOML; its strings are JSON's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _commented(file: str, settings: dict[str, Any]) -> str:
    lines = [
        f"# ails-batch run {file}",
        "#",
        "# Paths are relative to this file. What is commented out is the default, or an example where there is none.",
        "",
    ]
    meanings, defaults = _meanings(), _defaults()
    for name, default in defaults.items():
        mark, value = ("", settings[name]) if name in settings else ("# ", EXAMPLES.get(name, default))
        lines += [f"# {meanings[name]}", f"{mark}{name} = {_toml(value)}", ""]
    return "\n".join(lines)


def _shown(job: Job) -> str:
    defaults = _defaults()
    lines = [f"{name} = {_toml(value)}" for name, value in _plain(job).items() if value != defaults[name]]
    lines += ["", *(f"# {line}" for line in _about(job))]
    return "\n".join(lines) + "\n"


def _plain(job: Job) -> dict[str, Any]:
    """The job's fields as a file of any folder would say them."""
    import msgspec

    from ..job import PATHS

    plain: dict[str, Any] = msgspec.to_builtins(job)
    for name in PATHS:
        if plain[name] not in ("", "-") and isinstance(plain[name], str) and "://" not in plain[name]:
            plain[name] = os.path.abspath(plain[name])  # noqa: PTH100 (Path.absolute keeps the '..')
    plain["ping"] = plain["ping"] and "https://…"
    return {name: value for name, value in plain.items() if value is not None}


def _about(job: Job) -> list[str]:
    """What follows from the job, as lines."""
    from datetime import datetime

    from ..job import EMBEDDED, dated
    from ..settings import setting

    endpoint = job.resolved_endpoint()
    address = "the embedded gateway" if endpoint.url in EMBEDDED else endpoint.identity
    lines = [f"endpoint: {address}, protocol {endpoint.protocol}"]
    if endpoint.url not in EMBEDDED:
        lines.append(f"model: {job.model or setting('AILS_MODEL') or 'from each row'}")
        endpoint.credentials()
        lines.append("credentials: found")
    output = dated(job.output, datetime.now().astimezone())
    lines.append(f"output: {output}")
    journal = job.journal_path
    if journal:
        size = f"{journal.stat().st_size} bytes" if journal.exists() else "none yet"
        lines.append(f"journal: {journal} ({size})")
    if job.input != "-":
        lines += ["first request:", *_first_request(job, endpoint.protocol or "ails")]
    return lines


def _first_request(job: Job, protocol: str) -> list[str]:
    """The body of the first row that would be asked, or why nothing can be sent for it.

    Raises:
        BatchError: No request can be made, in the words of a run.
    """
    import msgspec

    from .. import formats
    from ..errors import RowError
    from ..reading import Selection, prompts_of

    asked = {
        "template": job.template_text(),
        "schema": job.schema_text(),
        "protocol": protocol,
        "identity": "",
        "model": job.model or "model",
    }
    # A sample would read everything, and a limit on bad rows is held against all of them.
    job = msgspec.structs.replace(job, sample=None, bad_rows=None)
    with formats.source(job.input, format=job.input_format or None, encoding=job.encoding) as source:
        for rows in Selection(job, source, prompts_of(job, asked)).chunks():
            for row, request in rows:
                if isinstance(request, RowError):
                    return [f"  none: {row.place}: {request}"]
                body = json.loads(request.body)
                return [f"  {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in body.items() if name != "model"]
    return ["  none: no row is selected"]


def _schema() -> dict[str, Any]:
    import msgspec

    from ..job import Job

    whole = msgspec.json.schema(Job)
    for kind in whole["$defs"].values():
        kind["description"] = kind["description"].partition("\n")[0]
    for name, words in _meanings().items():
        whole["$defs"]["Job"]["properties"][name]["description"] = words
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ails-batch job", **whole}


def _table() -> str:
    options = {str(one.name): max(one.opts, key=len) for one in RUN_OPTIONS} | {"parameters": "--param", "input": "INPUT"}
    lines = ["| field | option | default | meaning |", "|---|---|---|---|"]
    meanings = _meanings()
    for name, default in _defaults().items():
        option = f"`{options[name]}`" if name in options else ""
        shown = "" if default in (None, "", [], {}) else f"`{_toml(default)}`"
        meaning = meanings[name].replace("|", "\\|")
        lines.append(f"| `{name}` | {option} | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"
