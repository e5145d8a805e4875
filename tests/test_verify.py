"""`verify` believes nothing: it finds every row that is not in its place, and lets go whatever is."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batch
from batch import formats
from batch.errors import Busy, InputError, JobError, JournalDamaged
from batch.journal import Journal
from batch.judge import Stop
from batch.tally import Snapshot
from batch.verify import Verdict, verify
from batch.verify.plain import table

from .conftest import Command
from .counting import Counting

ROWS = [
    ("007", "say one"),
    ("NA", "say two, or 'three'"),
    ("", 'a "quoted"\nline'),
    ("1e5", "say two, or 'three'"),
    ("x", "refuse this"),
    ("y", ""),
    ("z", "the last"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    with Counting(tmp_path_factory.mktemp("counting")) as counting:
        yield counting


@pytest.fixture(scope="module")
def answered(server: Counting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs, outputs and journals of two formats each."""
    folder = tmp_path_factory.mktemp("answered")
    with (folder / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "prompt"), *ROWS])
    lines = [json.dumps({"id": name, "prompt": prompt, "n": 2**53 + 1}) for name, prompt in ROWS]
    (folder / "in.jsonl").write_text("\n".join([*lines, '{"torn', ' {"prompt": "0.10", "x": 0.10 } ']) + "\n")
    environment = pytest.MonkeyPatch()
    with environment.context() as patch:
        patch.chdir(folder)
        for name, value in server.environment().items():
            patch.setenv(name, value)
        for source in ("in.csv", "in.jsonl"):
            for output in ("out.csv", "out.jsonl"):
                name = f"{source[3:]}-{output}"
                summary = batch.run(batch.Job(input=source, output=name, concurrency=4))
                assert summary.exit_code == 1, summary
    return folder


@pytest.fixture
def folder(answered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(answered, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def broken(source: str, output: str, journal: str = "") -> Verdict:
    verdict = verify(source, output, journal)
    assert verdict.exit_code == 1
    assert verdict.first
    return verdict


@pytest.mark.parametrize("output", ["csv-out.csv", "csv-out.jsonl", "jsonl-out.csv", "jsonl-out.jsonl"])
def test_what_a_run_wrote_is_proven(folder: Path, output: str) -> None:
    source = "in." + output.partition("-")[0]
    verdict = verify(source, output)
    assert verdict.first is None
    assert verdict.rows == verdict.output_rows == len(ROWS) + 2 * (source == "in.jsonl")
    assert (verdict.exit_code, verdict.failed, verdict.pending) == (0, 2 + (source == "in.jsonl"), 0)


def edit(path: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    """Change the rows of a CSV file."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = change(list(reader))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def swapped(rows: list[dict[str, str]], one: int, other: int) -> list[dict[str, str]]:
    for name in rows[0].keys() - {"id", "prompt"}:
        rows[one][name], rows[other][name] = rows[other][name], rows[one][name]
    return rows


def test_two_swapped_answers_are_found(folder: Path) -> None:
    edit(folder / "csv-out.csv", lambda rows: swapped(rows, 0, 6))
    verdict = broken("in.csv", "csv-out.csv")
    assert verdict.broken == 2
    assert (verdict.first.row, verdict.first.input, verdict.first.output) == (1, "in.csv, line 2", "csv-out.csv, line 2")  # type: ignore[union-attr]
    assert "column 'response'" in str(verdict.first)


def test_equal_rows_may_hold_each_others_answers(folder: Path) -> None:
    edit(folder / "csv-out.csv", lambda rows: swapped(rows, 1, 3))
    assert verify("in.csv", "csv-out.csv").exit_code == 0


def test_equal_rows_may_not_hold_the_same_answer_when_theirs_differ(folder: Path) -> None:
    def latency(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        rows[1]["latency_s"] = "99.000"
        return rows

    edit(folder / "csv-out.csv", latency)
    assert broken("in.csv", "csv-out.csv").first.row == 2  # type: ignore[union-attr]


def test_a_doubled_row_is_found(folder: Path) -> None:
    edit(folder / "csv-out.csv", lambda rows: [*rows[:2], rows[1], *rows[2:]])
    verdict = broken("in.csv", "csv-out.csv")
    assert (verdict.rows, verdict.output_rows, verdict.first.row) == (7, 8, 3)  # type: ignore[union-attr]


def test_the_last_row_doubled_is_found(folder: Path) -> None:
    edit(folder / "csv-out.csv", lambda rows: [*rows, rows[-1]])
    verdict = broken("in.csv", "csv-out.csv")
    assert str(verdict.first) == "row 8 (csv-out.csv, line 11): no input row belongs to it"


def test_a_missing_row_is_found(folder: Path) -> None:
    edit(folder / "csv-out.csv", lambda rows: rows[:2] + rows[3:])
    assert broken("in.csv", "csv-out.csv").first.row == 3  # type: ignore[union-attr]


def test_a_missing_last_row_is_found(folder: Path) -> None:
    edit(folder / "csv-out.csv", lambda rows: rows[:-1])
    verdict = broken("in.csv", "csv-out.csv")
    assert (verdict.broken, str(verdict.first)) == (1, "row 7 (in.csv, line 9): the output ends before it")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "7"),
        ("prompt", "say One"),
        ("response", "say something else"),
        ("error", "it broke"),
        ("finish_reason", "length"),
    ],
)
def test_one_changed_cell_is_found(folder: Path, name: str, value: str) -> None:
    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        rows[0][name] = value
        return rows

    edit(folder / "csv-out.csv", change)
    verdict = broken("in.csv", "csv-out.csv")
    assert verdict.broken == 1
    assert f"column {name!r}" in str(verdict.first)


def test_a_row_that_cannot_be_asked_must_say_so(folder: Path) -> None:
    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        rows[5] |= {"error": "", "error_kind": "", "response": "made up"}
        return rows

    edit(folder / "csv-out.csv", change)
    assert "it cannot be asked" in str(broken("in.csv", "csv-out.csv").first)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"x": 0.10 ', b'"x": 0.1 '),
        (b'"n": 9007199254740993', b'"n": 9007199254740992'),
        (b'"prompt": "0.10", "x"', b'"prompt":"0.10", "x"'),
        (b'"response":"0.10 ~', b'"response":"0.1 ~'),
        (b'"id": "007"', b'"id": 7'),
        (b'"error_kind":""', b'"error_kind":"","id":"007"'),
    ],
)
def test_one_changed_byte_of_a_json_line_is_found(folder: Path, old: bytes, new: bytes) -> None:
    output = folder / "jsonl-out.jsonl"
    content = output.read_bytes()
    assert old in content
    output.write_bytes(content.replace(old, new, 1))
    assert broken("in.jsonl", "jsonl-out.jsonl").broken == 1


def test_a_changed_input_is_found(folder: Path) -> None:
    content = (folder / "in.csv").read_text()
    (folder / "in.csv").write_text(content.replace("say one", "say four"))
    assert "'say one', the input has 'say four'" in str(broken("in.csv", "csv-out.csv").first)


def test_an_answer_that_only_the_output_knows_is_found(folder: Path) -> None:
    journal = folder / "csv-out.csv.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b"the last" not in line))
    assert "the journal has no answer for it" in str(broken("in.csv", "csv-out.csv").first)


def test_another_model_than_the_journals_breaks_every_answer(folder: Path) -> None:
    with Journal.open(folder / "csv-out.csv.journal") as journal:
        asked = journal.runs[-1]["run"]
        journal.begin({**asked, "model": "another"})
    assert broken("in.csv", "csv-out.csv").broken == len(ROWS) - 1


def test_neither_spool_nor_index_is_needed(folder: Path) -> None:
    shutil.rmtree(folder / "csv-out.csv.journal.d")
    assert verify("in.csv", "csv-out.csv").exit_code == 0


def test_a_torn_tail_of_the_journal_is_no_damage(folder: Path) -> None:
    with (folder / "csv-out.csv.journal").open("ab") as file:
        file.write(b'{"k":"00')
    assert verify("in.csv", "csv-out.csv").exit_code == 0


def test_damage_before_the_tail_is_named(folder: Path) -> None:
    journal = folder / "csv-out.csv.journal"
    content = bytearray(journal.read_bytes())
    content[content.index(b'"tries"')] ^= 1
    journal.write_bytes(content)
    with pytest.raises(JournalDamaged, match="damaged at byte"):
        verify("in.csv", "csv-out.csv")


def test_while_a_run_goes_on_nothing_is_proven(folder: Path) -> None:
    with Journal.open(folder / "csv-out.csv.journal"), pytest.raises(Busy, match="a run is going on"):
        verify("in.csv", "csv-out.csv")


@pytest.mark.parametrize(
    ("source", "output", "words"),
    [
        ("no.csv", "csv-out.csv", "no.csv: no such file"),
        ("in.csv", "no.csv", "no.csv.journal cannot be opened"),
        ("in.csv", "in.csv", "in.csv.journal cannot be opened"),
    ],
)
def test_what_cannot_be_checked_is_said(folder: Path, source: str, output: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        verify(source, output)


def test_selection_and_prefix_are_taken_from_the_journal(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    lines = [f"{number},{'de' if number % 3 else 'en'},text {number}" for number in range(60)]
    Path("in.csv").write_text("\n".join(["id,lang,text", *lines]) + "\n")
    job: dict[str, Any] = {
        "input": "in.csv",
        "output": "out.csv",
        "where": "lang == 'de'",
        "limit": 9,
        "sample": 20,
        "prefix": "a_",
    }
    job |= {"template": "{{ lang }}: {{ text }}", "csv_guard": True, "parameters": {"temperature": 0.10, "top_p": 1e-7}}
    assert batch.run(batch.Job(**job)).ok == 9
    assert (verify("in.csv", "out.csv").exit_code, verify("in.csv", "out.csv").rows) == (0, 9)
    edit(Path("out.csv"), lambda rows: rows[:-1])
    assert broken("in.csv", "out.csv").broken == 1


def test_the_command_says_it_in_one_json_line(folder: Path, cli: Command) -> None:
    ended = cli("verify", "in.csv", "csv-out.csv")
    assert (ended.code, ended.err) == (0, "")
    assert (ended.summary["rows"], ended.summary["broken"], ended.summary["first"]) == (7, 0, None)
    edit(folder / "csv-out.csv", lambda rows: rows[1:])
    ended = cli("verify", "in.csv", "csv-out.csv")
    assert ended.code == ended.summary["exit_code"] == 1
    assert ended.summary["first"]["row"] == 1
    assert "csv-out.csv does not fit in.csv: row 1 (in.csv, line 2 | csv-out.csv, line 2)" in ended.err
    (folder / "csv-out.csv.journal").unlink()
    ended = cli("verify", "in.csv", "csv-out.csv")
    assert (ended.code, ended.out) == (2, "")


def test_rows_that_are_pending_are_counted_and_end_with_75(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    Path("in.csv").write_text("prompt\n" + "".join(f"say {number}\n" for number in range(12)))
    stop = Stop()

    def watch(now: Snapshot) -> None:
        if now.ok and not stop.event.is_set():
            stop.interrupt(signal.SIGTERM)

    summary = batch.run(batch.Job(input="in.csv", output="out.csv", rpm=60), watch=watch, stop=stop)
    assert 0 < summary.pending < 12
    ended = cli("verify", "in.csv", "out.csv")
    assert (ended.code, ended.summary["pending"], ended.summary["first"]) == (75, summary.pending, None)
    assert ended.err.startswith(
        f"ails-batch: {summary.pending} of 12 rows are pending, each in its place but without an answer;"
    )
    assert len(ended.err.splitlines()) == 1
    edit(tmp_path / "out.csv", lambda rows: [*rows[1:], rows[0]])
    assert verify("in.csv", "out.csv").exit_code == 1


def read_both_ways(path: Path) -> tuple[list[tuple[str, dict[str, Any], bool]], list[tuple[str, dict[str, Any], bool]]]:
    plain = [(line.place, line.values, line.unreadable) for line in table(str(path))]
    with formats.source(path) as source:
        rows = [(row.place, dict(row.values), bool(row.problem)) for chunk in source.chunks() for row in chunk.rows()]
    return plain, rows


CSV = ["a", "é", '"', '""', ",", "\n", "\r\n", "\r", " ", "\u2028", "b,c\n", '"x\ny",z\n']
JSON = ['{"a":1}', '{"a":', "}", "\n", "\r", " ", '"', "\u2028", "[", "{", ",", "null", '"b":0.10']


@given(st.lists(st.sampled_from(CSV), max_size=30))
def test_both_readers_of_csv_see_the_same_rows(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "both.csv"
    path.write_bytes(("one,two\n" + "".join(pieces)).encode())
    try:
        plain, rows = read_both_ways(path)
    except InputError:
        return  # no table at all: then there is no output either
    assert plain == rows


@given(st.lists(st.sampled_from(JSON), max_size=30))
def test_both_readers_of_json_lines_see_the_same_rows(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "both.jsonl"
    path.write_bytes("".join(pieces).encode())
    plain, rows = read_both_ways(path)
    assert plain == rows


def test_nothing_of_the_export_is_used() -> None:
    """The proof is worth as much as its independence."""
    text = io.StringIO()
    for path in (Path(__file__).parent.parent / "batch/verify").glob("*.py"):
        text.write(path.read_text())
    for room in ("export", "spool", "reading", "journal", "formats", "alignment"):
        assert f"from ..{room}" not in text.getvalue()
        assert f"import {room}" not in text.getvalue()
