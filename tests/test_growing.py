"""An input that only grows: rows that are done are neither read nor written again, and nobody can tell by the output."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batch
from batch.errors import InputError

PROMPTS = ["one", "two", "three\nlines", "refuse me", "one", 'a "quoted" one', "\ufeffmarked", ""]
BROKEN = "broken"
"""Stands for a row that cannot be read."""


def lines(prompts: list[str], form: str, number: int) -> bytes:
    text = io.StringIO(newline="")
    for at, prompt in enumerate(prompts, number):
        if prompt == BROKEN:
            text.write('"a" b,c,d\n' if form == "csv" else "{not JSON\n")
        elif form == "csv":
            csv.writer(text, lineterminator="\r\n" if at % 3 else "\n").writerow([at, prompt])
        else:
            text.write(json.dumps({"id": at, "prompt": prompt}) + "\n")
    return text.getvalue().encode()


def append(path: Path, prompts: list[str], number: int = 0) -> None:
    with path.open("ab") as file:
        if path.suffix == ".csv" and not file.tell():
            file.write(b"id,prompt\n")
        file.write(lines(prompts, path.suffix[1:], number))


def run(source: str, output: str, **options: Any) -> batch.Summary:
    return batch.run(batch.Job(input=source, output=output, concurrency=4, **options))


def taken_for_granted(output: Path) -> bytes:
    """Change the output's last byte but one in a way that nobody can notice; what the output is then."""
    before = output.stat()
    content = output.read_bytes()[:-2] + b"!\n"
    output.write_bytes(content)
    os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))
    return content


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    steps=st.lists(st.lists(st.sampled_from([*PROMPTS, BROKEN]), min_size=1, max_size=6), min_size=2, max_size=4),
    forms=st.sampled_from(["csv csv", "csv jsonl", "jsonl jsonl", "jsonl csv"]),
    options=st.sampled_from([{}, {"repeat": 2}, {"where": "id != '1'"}, {"errors": True}]),
)
def test_the_output_is_that_of_reading_everything(
    folder: Path, steps: list[list[str]], forms: str, options: dict[str, Any]
) -> None:
    home = folder / uuid4().hex
    other = home / "other"
    other.mkdir(parents=True)
    read, written = forms.split()
    source, output = home / f"in.{read}", home / f"out.{written}"

    def go(output: Path) -> batch.Summary:
        named = options | ({"errors": str(output.with_name(f"errors.{read}"))} if "errors" in options else {})
        return run(str(source), str(output), **named)

    number = 0
    for prompts in steps:
        append(source, prompts, number)
        number += len(prompts)
        grown = go(output)
        shutil.copy(f"{output}.journal", other)
        whole = go(other / output.name)
        assert whole.requests == 0
        assert output.read_bytes() == (other / output.name).read_bytes()
        if "errors" in options:
            assert (home / f"errors.{read}").read_bytes() == (other / f"errors.{read}").read_bytes()
        assert (grown.rows, grown.ok, grown.failed, grown.kinds, grown.exit_code, grown.first_failure) == (
            (whole.rows, whole.ok, whole.failed, whole.kinds, whole.exit_code, whole.first_failure)
        )
        shutil.rmtree(other)
        other.mkdir()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_that_are_done_are_left_alone(folder: Path, form: str) -> None:
    source, output = Path(f"in.{form}"), Path(f"out.{form}")
    append(source, ["one", "two"])
    run(str(source), str(output))
    before = taken_for_granted(output)
    append(source, ["three"], 2)
    summary = run(str(source), str(output))
    assert (summary.rows, summary.cached, summary.requests) == (3, 2, 1)
    assert output.read_bytes().startswith(before)


def test_a_copy_of_an_earlier_prompt_is_a_row_of_its_own(folder: Path) -> None:
    append(Path("in.csv"), ["one", "one", "two"])
    assert run("in.csv", "out.csv").requests == 3
    append(Path("in.csv"), ["two", "one", "one"], 3)
    assert run("in.csv", "out.csv").requests == 3
    append(Path("in.csv"), ["one"], 6)
    assert run("in.csv", "out.csv").requests == 1
    Path("out.csv").unlink()
    assert run("in.csv", "out.csv").requests == 0


def changed_beginning(source: Path) -> None:
    source.write_bytes(source.read_bytes().replace(b"two", b"2"))


def touched_output(source: Path) -> None:
    os.utime("out.csv")


def unfinished_line(source: Path) -> None:
    source.write_bytes(source.read_bytes().rstrip())


@pytest.mark.parametrize("change", [changed_beginning, touched_output])
def test_where_anything_else_has_changed_everything_is_read(folder: Path, change: Any) -> None:
    source = Path("in.csv")
    append(source, ["one", "two"])
    run("in.csv", "out.csv")
    taken_for_granted(Path("out.csv"))
    change(source)
    append(source, ["three"], 2)
    run("in.csv", "out.csv")
    assert b"!" not in Path("out.csv").read_bytes()


def test_a_last_line_that_was_not_ended_may_have_grown(folder: Path) -> None:
    source = Path("in.csv")
    append(source, ["one", "two"])
    unfinished_line(source)
    run("in.csv", "out.csv")
    with source.open("ab") as file:
        file.write(b" and more\n")
    append(source, ["three"], 2)
    assert run("in.csv", "out.csv").requests == 2
    with Path("out.csv").open(newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == ["one", "two and more", "three"]


def test_blank_lines_at_the_end_count_once_rows_follow(folder: Path) -> None:
    source = Path("in.csv")
    append(source, ["one"])
    with source.open("ab") as file:
        file.write(b"\n")
    assert run("in.csv", "out.csv").rows == 1
    append(source, ["two"], 1)
    summary = run("in.csv", "out.csv")
    assert (summary.rows, summary.kinds) == (3, {"input": 1})


def test_failures_that_are_due_again_are_asked_again(folder: Path) -> None:
    append(Path("in.csv"), ["one", "refuse two"])
    run("in.csv", "out.csv")
    append(Path("in.csv"), ["three"], 2)
    assert run("in.csv", "out.csv", retry_failed=True).requests == 2


def test_lines_and_bytes_are_counted_from_the_beginning(folder: Path) -> None:
    source = Path("in.jsonl")
    append(source, ["one", "two"])
    run("in.jsonl", "out.jsonl")
    append(source, ["three", BROKEN], 2)
    run("in.jsonl", "out.jsonl")
    assert "in.jsonl, line 4: not JSON" in json.loads(Path("out.jsonl").read_text().splitlines()[3])["error"]


def test_a_wrong_byte_behind_what_was_read_is_found_at_its_place(folder: Path) -> None:
    source = Path("in.jsonl")
    append(source, [letter * 700_000 for letter in "xyz"])
    run("in.jsonl", "out.jsonl")
    with source.open("ab") as file:
        file.write(b'{"id": 3, "prompt": "\xff"}\n')
    with pytest.raises(InputError) as refused:
        if error := run("in.jsonl", "out.jsonl").error:
            raise InputError(error)
    assert f"byte {source.read_bytes().index(0xFF)} (from 0) is wrong" in str(refused.value)


def test_a_wrong_byte_is_found_at_its_place_behind_a_mark_of_the_encoding(folder: Path) -> None:
    Path("in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match=r"byte 15 \(from 0\) is wrong"):
        run("in.jsonl", "out.jsonl")


def test_an_error_names_the_file_as_it_is_called_now(folder: Path) -> None:
    append(Path("a-1.csv"), ["one", BROKEN])
    run("a-*.csv", "out.csv")
    Path("a-1.csv").rename("a-2.csv")
    append(Path("a-2.csv"), ["two"], 2)
    run("a-*.csv", "out.csv")
    assert b"a-1.csv" not in Path("out.csv").read_bytes()


def test_an_output_is_whole_though_nothing_can_be_noted_about_it(folder: Path) -> None:
    append(Path("in.csv"), ["one"])
    run("in.csv", "out.csv")
    Path("out.csv.journal.d/rows.new").mkdir()
    append(Path("in.csv"), ["two"], 1)
    assert [run("in.csv", "out.csv").requests for _ in range(2)] == [1, 0]


def test_a_killed_run_over_what_was_appended_costs_nothing(folder: Path) -> None:
    """Its rows stand behind those that the last whole pass has counted, and are cut off."""
    append(Path("in.csv"), ["one", "two"])
    run("in.csv", "out.csv")
    with Path("out.csv.journal.d/rows").open("ab") as file:
        file.write(b"x" * 60)
    with Path("out.csv.journal.d/problems").open("ab") as file:
        file.write(b'[7, "half')
    before = taken_for_granted(Path("out.csv"))
    append(Path("in.csv"), ["three", "four"], 2)
    assert run("in.csv", "out.csv").requests == 2
    assert Path("out.csv").read_bytes().startswith(before)


def test_ids_that_the_journal_does_not_know_are_not_believed(folder: Path) -> None:
    append(Path("in.csv"), ["one", "two"])
    run("in.csv", "out.csv")
    rows = Path("out.csv.journal.d/rows")
    rows.write_bytes(rows.read_bytes()[:-16] + bytes(range(16)))
    taken_for_granted(Path("out.csv"))
    append(Path("in.csv"), ["three"], 2)
    assert run("in.csv", "out.csv").requests == 1
    assert b"!" not in Path("out.csv").read_bytes()
