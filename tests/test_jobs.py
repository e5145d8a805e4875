"""Job files: the shipped ones run, new ones are written and shown, and what the docs say of them is true."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import msgspec
import pandas as pd
import pytest

import batch
from batch.gateway.embedded import Embedded
from batch.job import Job, load

from .conftest import Command, known

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "jobs").glob("*.toml"))


@pytest.fixture(scope="module")
def model() -> Iterator[Embedded]:
    """What `endpoint = "embedded"` starts, started once: loading the model takes longer than a few rows of a job."""
    with Embedded() as gateway:
        yield gateway


def test_a_shipped_job_runs_as_shipped(tmp_path: Path, cli: Command) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    ended = cli("run", "jobs/quickstart.toml", "--limit", "2", "--max-tokens", "3", timeout=120)
    assert (ended.code, ended.summary["rows"], ended.summary["ok"]) == (0, 2, 2), ended.err
    assert pd.read_csv(tmp_path / "answers.csv")["response"].str.len().min() > 0


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_job_is_answered(file: Path, tmp_path: Path, model: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    for name, value in credentials(model).items():
        monkeypatch.setenv(name, value)
    job = load(tmp_path / "jobs" / file.name, limit=2)
    assert job.endpoint == "embedded"
    # Short answers, but where they have to fit a schema: a page of them takes the model inside half a minute on a busy machine.
    parameters = job.parameters if job.schema else job.parameters | {"max_tokens": 3}
    summary = batch.run(msgspec.structs.replace(job, endpoint=model.url, parameters=parameters))
    assert (summary.exit_code, summary.rows, summary.ok) == (0, 2, 2), summary.error
    assert Path(summary.output).parent == tmp_path
    frame = pd.read_json(summary.output, lines=True) if summary.output.endswith("l") else pd.read_csv(summary.output, dtype=str)
    assert frame["response"].str.len().min() > 0
    if job.explode:
        assert set(frame["label"]) <= {"positive", "negative"}


def credentials(gateway: Embedded) -> dict[str, str]:
    """What reaches a gateway that an option names."""
    return {name: value for name, value in known(gateway).items() if name != "AILS_BASE_URL"}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_job_begins_by_telling_how_to_run_it(file: Path) -> None:
    comment = re.match(r"(#.*\n)+", file.read_text())
    assert comment
    assert f"#   ails-batch run jobs/{file.name}" in comment[0]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_job_names_where_its_data_comes_from(file: Path) -> None:
    name = str(load(file).input).rpartition("/")[2]
    assert f"`{name}`" in (ROOT / "jobs/data/SOURCES.md").read_text()


def test_every_shipped_job_is_in_the_docs() -> None:
    assert set(re.findall(r"\.\./jobs/(\w+\.toml)", (ROOT / "docs/jobs.md").read_text())) == {file.name for file in SHIPPED}


# What the docs say of job files


def test_the_table_of_fields_is_current(cli: Command) -> None:
    page = (ROOT / "docs/jobs.md").read_text()
    table = page.partition("<!-- ails-batch job fields -->\n")[2].partition("<!-- end -->")[0]
    fields = cli("job", "fields").out
    assert table == fields, "run: make docs"
    assert all(line.split("|")[-2].strip() for line in fields.splitlines()), (
        "a field needs an option with help, or words of its own"
    )


def test_the_schema_is_current(cli: Command) -> None:
    ended = cli("job", "schema")
    assert (ROOT / "docs/job.schema.json").read_text() == ended.out, "run: make docs"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_schema_takes_what_the_code_takes(file: Path) -> None:
    validator = jsonschema_rs.validator_for(json.loads((ROOT / "docs/job.schema.json").read_text()))
    settings = tomllib.loads(file.read_text())
    validator.validate(settings)
    assert not validator.is_valid(settings | {"templat": "x"})
    assert not validator.is_valid(settings | {"rpm": 0})


def test_the_jobs_in_the_docs_are_jobs(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/jobs.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for nth, block in enumerate(blocks):
        (tmp_path / f"{nth}.toml").write_text(block)
        load(tmp_path / f"{nth}.toml")


def test_the_commands_in_the_docs_run(tmp_path: Path, cli: Command, model: Embedded) -> None:
    page = (ROOT / "docs/jobs.md").read_text()
    shutil.copy(ROOT / "jobs/data/phrases.csv", tmp_path)
    (tmp_path / "translate.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0] + '"stop" = ["."]\n')
    assert "$ ails-batch run translate.toml --limit 10 " in page
    options = ["--limit", "1", "--max-tokens", "3", "--endpoint", model.url]
    assert cli("run", "translate.toml", *options, env=credentials(model)).code == 0
    (tmp_path / "translate.toml").unlink()
    command = re.search(r"\$ ails-batch job new translate.toml (phrases.csv -o translated.csv --template) '(.*)'\n", page)
    assert command
    assert cli("job", "new", "translate.toml", *command[1].split(), command[2]).code == 0
    shown = cli("job", "show", "translate.toml")
    assert '#   messages: [{"role": "user", "content": "Translate to French: Where is the train station?"}]' in shown.out


# New ones


def test_a_new_job_is_a_job_with_every_field(tmp_path: Path, cli: Command) -> None:
    ended = cli("job", "new", "nightly.toml")
    assert (ended.code, ended.out) == (0, "")
    text = (tmp_path / "nightly.toml").read_text()
    job = load(tmp_path / "nightly.toml")
    assert (job.endpoint, job.template) == ("embedded", "{{ prompt }}")
    assert set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE)) == set(Job.__struct_fields__)


@pytest.mark.parametrize("name", Job.__struct_fields__)
def test_what_a_new_job_comments_out_can_be_put_in(name: str, tmp_path: Path, cli: Command) -> None:
    text = commented(tmp_path, cli)
    line = re.search(rf"^(?:# )?({name} = .*)$", text, re.MULTILINE)
    assert line
    alone = {"quota": "\nrpm = 1", "max_cost": "\nprice = {prompt = 1, completion = 1}", "send_schema": "\nschema = 'x'"}
    (tmp_path / "one.toml").write_text(line[1] + alone.get(name, ""))
    load(tmp_path / "one.toml")


_text: list[str] = []


def commented(tmp_path: Path, cli: Command) -> str:
    if not _text:
        cli("job", "new", "all.toml")
        _text.append((tmp_path / "all.toml").read_text())
    return _text[0]


def test_options_given_to_a_new_job_stand_in_it(tmp_path: Path, cli: Command) -> None:
    options = ["--template", 'Say "{{ a }}"\n\\ to {{ b }}: \x7f ü', "--rpm", "60", "--param", "top_p=0.9", "--max-tokens", "5"]
    assert cli("job", "new", "one.toml", "in.csv", "-o", "out.csv", *options, "--row-params", "a, b").code == 0
    job = load(tmp_path / "one.toml")
    assert job.template == 'Say "{{ a }}"\n\\ to {{ b }}: \x7f ü'
    assert (job.rpm, job.parameters, job.row_params) == (60.0, {"top_p": 0.9, "max_tokens": 5}, ["a", "b"])
    assert job.input == str(tmp_path / "in.csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["there.toml"], "there.toml is there already"),
        (["one.txt"], "a job file's name ends in .toml"),
        (["none/one.toml"], "No such file or directory; choose a place that can be written"),
        (["one.toml", "--timeout", "soon"], "'soon' is no duration"),
    ],
)
def test_a_new_job_that_cannot_be_is_refused(arguments: list[str], words: str, tmp_path: Path, cli: Command) -> None:
    (tmp_path / "there.toml").write_text("# mine")
    ended = cli("job", "new", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert (tmp_path / "there.toml").read_text() == "# mine"
    assert not (tmp_path / "one.toml").exists()


# Shown


def test_a_shown_job_is_the_same_job_wherever_it_stands(tmp_path: Path, cli: Command) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "in.csv").write_text("text\nhello\n")
    said = ['input = "../in.csv"', 'output = "out-{date}.csv"', 'journal = "out.journal"', 'template = "{{ text }}"']
    (tmp_path / "jobs/one.toml").write_text("\n".join([*said, 'endpoint = "embedded"']))
    shown = cli("job", "show", "jobs/one.toml", "--rpm", "60")
    assert shown.code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/again.toml").write_text(shown.out)
    again = msgspec.structs.asdict(load(tmp_path / "elsewhere/again.toml"))
    first = msgspec.structs.asdict(load(tmp_path / "jobs/one.toml", rpm=60))
    for name in ("input", "output", "journal"):
        first[name] = str(Path(first[name]).resolve())
    assert again == first
    assert re.search(r"# output: .*out-\d{4}-\d\d-\d\d\.csv\n", shown.out)
    assert not list(tmp_path.glob("**/*.journal"))


def test_a_shown_job_names_what_is_missing_and_shows_no_secret(tmp_path: Path, cli: Command, echo: Embedded) -> None:
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    (tmp_path / "one.toml").write_text('input = "in.csv"\noutput = "out.csv"\nping = "https://hc.example.com/canary"\n')
    assert "no endpoint: give --endpoint URL" in cli("job", "show", "one.toml").err
    environment = known(echo)
    shown = cli("job", "show", "one.toml", env=environment)
    assert "# credentials: found" in shown.out
    for secret in ("canary", environment["AILS_SECRET"], environment["AILS_API_KEY"]):
        assert secret not in shown.out + shown.err
    del environment["AILS_SECRET"]
    assert "set AILS_SECRET" in cli("job", "show", "one.toml", env=environment).err


def test_a_job_that_can_ask_nothing_is_refused_when_it_is_shown_as_when_it_is_run(tmp_path: Path, cli: Command) -> None:
    (tmp_path / "in.csv").write_text("text\nhello\nyou\n")
    (tmp_path / "one.toml").write_text('input = "in.csv"\noutput = "out.csv"\ntemplate = "{{ word }}"\nendpoint = "embedded"\n')
    shown, run = cli("job", "show", "one.toml"), cli("run", "one.toml")
    assert (shown.code, run.code) == (2, 2)
    assert shown.err == run.err == "ails-batch: in.csv: no column 'word'; the columns are 'text'\n"


def test_a_row_that_cannot_be_asked_does_not_condemn_the_job_that_is_shown(tmp_path: Path, cli: Command) -> None:
    (tmp_path / "in.jsonl").write_text('{"word": 1}\n{"text": "hello"}\n')
    said = 'input = "in.jsonl"\noutput = "out.csv"\ntemplate = "{{ text }}"\nendpoint = "embedded"\n'
    (tmp_path / "one.toml").write_text(said)
    shown = cli("job", "show", "one.toml")
    assert shown.code == 0
    assert "#   none: in.jsonl, line 1: no column 'text'" in shown.out


def test_a_shown_signed_request_has_the_temperature_that_the_page_names(tmp_path: Path, cli: Command) -> None:
    assert "carries `temperature`: 0.6 " in (ROOT / "docs/jobs.md").read_text()
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    (tmp_path / "one.toml").write_text('input = "in.csv"\noutput = "out.csv"\nendpoint = "embedded"\n')
    assert "#   temperature: 0.6\n" in cli("job", "show", "one.toml").out
    assert "#   temperature: 0.0\n" in cli("job", "show", "one.toml", "--temperature", "0").out
    assert "temperature" not in cli("job", "show", "one.toml", "--protocol", "openai").out


def test_an_output_with_a_date_must_name_its_journal(tmp_path: Path, cli: Command) -> None:
    (tmp_path / "one.toml").write_text('input = "in.csv"\noutput = "out-{date}.csv"\nendpoint = "embedded"\n')
    ended = cli("run", "one.toml")
    assert ended.code == 2
    assert "set journal" in ended.err


def test_secret_files_are_relative_to_the_job_file(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text('secret_file = "secret"\nquota = "./q"\nrpm = 1\n[endpoint]\nurl = "https://x"\napi_key_file = "key"\n')
    job = load(file)
    assert (job.secret_file, job.quota) == (str(tmp_path / "secret"), str(tmp_path / "q"))
    assert not isinstance(job.endpoint, str)
    assert job.endpoint.api_key_file == str(tmp_path / "key")
