"""`check` reads everything and sends nothing: what it counts, says and leaves alone."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

import batch
from batch.checking import Report, check
from batch.errors import InputError, JobError

from .conftest import Command

ROWS = "id,prompt\n1,what\n2,\n1,what\n3,more\n4,\n"


def report(folder: Path, content: str = ROWS, name: str = "in.csv", **settings: object) -> tuple[Report, list[str]]:
    (folder / name).write_text(content)
    bad: list[str] = []
    return check(batch.Job(input=str(folder / name), **settings), bad=bad.append), bad  # type: ignore[arg-type]


def test_bad_rows_are_named_by_line_and_the_rest_is_counted(tmp_path: Path) -> None:
    found, bad = report(tmp_path, parameters={"max_tokens": 10})
    assert [words.removeprefix(f"{tmp_path}/").partition(": ")[0] for words in bad] == ["in.csv, line 3", "in.csv, line 6"]
    assert (found.rows, found.bad, found.unreadable, found.exit_code) == (5, 2, 0, 1)
    assert (found.equal_prompts, found.id_column, found.equal_ids) == (1, "id", 1)
    assert (found.prompt_tokens, found.completion_tokens) == (3, 30)
    assert [messages[-1]["content"] for messages in found.examples] == ["what", "what", "more"]


def test_time_and_cost_are_reckoned_from_limits_and_price_and_else_unknown(tmp_path: Path) -> None:
    found, _ = report(tmp_path, "prompt\nabcd\nefgh\n", parameters={"max_tokens": 99})
    assert (found.seconds, found.cost_usd) == (None, None)
    price = batch.Price(prompt=1.0, completion=10.0)
    found, _ = report(tmp_path, "prompt\nabcd\nefgh\n", parameters={"max_tokens": 99}, price=price, rpm=1.0, tpm=400.0)
    assert (found.seconds, found.cost_usd) == (120.0, (2 * 1.0 + 198 * 10.0) / 1e6)
    assert report(tmp_path, "prompt\nabcd\nefgh\n", parameters={"max_tokens": 99}, tpm=50.0)[0].seconds == 240.0


def test_only_selected_rows_count(tmp_path: Path) -> None:
    content = "prompt,lang\n" + "".join(f"{row},{'de' if row % 2 else 'en'}\n" for row in range(9_000))
    assert report(tmp_path, content, where="lang == 'de'", limit=70)[0].rows == 70
    assert report(tmp_path, content, where="lang == 'de'")[0].rows == 4_500
    assert report(tmp_path, content, sample=5)[0].rows == 5


def test_more_bad_rows_than_allowed_are_counted_to_the_last(tmp_path: Path) -> None:
    found, bad = report(tmp_path, bad_rows=1)
    assert (found.bad, len(bad), found.exit_code) == (2, 2, 2)
    assert report(tmp_path, bad_rows=2)[0].exit_code == 1


def test_what_is_no_table_is_refused_wherever_that_shows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a quote opens here and is never closed"):
        report(tmp_path, "prompt\n" + "fine\n" * 400_000 + '"open\n')
    with pytest.raises(InputError, match="no column 'prompt'"):
        report(tmp_path, "text\na\n")
    with pytest.raises(JobError, match="--prefix"):
        report(tmp_path, "prompt,error\na,b\n")


def test_memory_stays_flat(tmp_path: Path) -> None:
    (tmp_path / "small.csv").write_text("prompt\n" + "x" * 900 + "\n")
    (tmp_path / "big.csv").write_text("prompt\n" + "".join(f"{row}" + "x" * 900 + "\n" for row in range(60_000)))
    check(batch.Job(input=str(tmp_path / "small.csv")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert check(batch.Job(input=str(tmp_path / "big.csv"))).rows == 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024


def test_the_command_needs_no_endpoint_and_says_what_a_run_would_need(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(ROWS)
    ended = cli("check", "in.csv")
    assert ended.code == 1
    assert ended.summary["missing"] == ["no endpoint: give --endpoint URL, set AILS_BASE_URL, or try --endpoint embedded"]
    assert ended.summary["bad"] == 2
    for words in ("in.csv, line 3: column 'prompt' is empty", "user: what", "time unknown", "cost unknown", "no endpoint"):
        assert words in ended.err
    assert "or try --endpoint embedded; a run needs that, this check did not\n" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]
    ended = cli("check", "in.csv", "--where", "prompt", env={"AILS_BASE_URL": "https://x.invalid", "AILS_API_KEY": "canary"})
    assert ended.code == 0
    assert [words.partition(":")[0] for words in ended.summary["missing"]] == [
        "no model",
        "set AILS_SECRET (environment or .env), the secret that signs requests to https",
    ]
    assert "canary" not in ended.err + ended.out


def test_the_first_twenty_bad_rows_are_told_and_all_are_counted(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt":"a"}\n' + "nonsense\n" * 30)
    ended = cli("check", "in.jsonl", "-q", "--endpoint", "embedded")
    assert (ended.code, ended.summary["bad"], ended.summary["unreadable"]) == (1, 30, 30)
    assert ended.err.count("not JSON") == 20
    assert "and 10 more rows that cannot be asked" in ended.err
    assert cli("check", "in.jsonl", "--bad-rows", "5", "-q").code == 2


def test_a_job_file_and_standard_input_can_be_checked(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nhello\x1b[31m\n")
    (tmp_path / "job.toml").write_text(
        'input = "in.csv"\noutput = "out.csv"\ntemplate = "Say: {{ text }}"\nendpoint = "embedded"\n'
    )
    ended = cli("check", "job.toml", "--rpm", "6")
    assert (ended.code, ended.summary["rows"], ended.summary["missing"], ended.summary["seconds"]) == (0, 1, [], 10.0)
    assert "user: Say: hello [31m" in ended.err
    ended = cli("check", "-", "--endpoint", "embedded", stdin='{"prompt":"a"}\n')
    assert (ended.code, ended.summary["rows"]) == (0, 1)
