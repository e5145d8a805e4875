"""The command line, as a person meets it: one clear line for each mistake, the right exit code, nothing lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from batch.gateway.embedded import Embedded
from batch.journal import Journal

from .conftest import Command, known

PROMPTS = "id,prompt\n007,first\n008,second\n"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    path.write_text(PROMPTS)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_csv_comes_back_with_an_answer_in_every_row(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    ended = cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo))
    assert (ended.code, ended.err) == (0, "")
    rows = table(tmp_path / "answers.csv")
    assert [row["id"] for row in rows] == ["007", "008"]
    assert all(row["response"] and not row["error"] for row in rows)
    assert "first" in rows[0]["response"]
    assert ended.summary | {"seconds": 0} == {
        "rows": 2,
        "ok": 2,
        "failed": 0,
        "pending": 0,
        "truncated": 0,
        "cached": 0,
        "requests": 2,
        "retries": 0,
        "prompt_tokens": ended.summary["prompt_tokens"],
        "completion_tokens": ended.summary["completion_tokens"],
        "cost_usd": None,
        "seconds": 0,
        "possibly_charged_twice": 0,
        "output": "answers.csv",
        "journal": "answers.csv.journal",
        "exit_code": 0,
        "bound_by": ended.summary["bound_by"],
    }


def test_the_same_command_again_sends_nothing_and_leaves_the_output_alone(
    cli: Command, prompts: Path, echo: Embedded, tmp_path: Path
) -> None:
    cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo))
    before = (tmp_path / "answers.csv").stat()
    ended = cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo))
    after = (tmp_path / "answers.csv").stat()
    assert (ended.summary["requests"], ended.summary["cached"]) == (0, 2)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_json_lines_keep_their_own_bytes(cli: Command, echo: Embedded, tmp_path: Path) -> None:
    lines = ['{"q": "one", "price":0.10, "big": 9007199254740993}', '{ "q" : "tw\\u00f6", "none": null }']
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    ended = cli("run", "in.jsonl", "-o", "out.jsonl", "--template", "{{ q }} {{ price | default('-') }}", env=known(echo))
    assert ended.code == 0
    out = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [line.startswith(given.rstrip("}").rstrip()) for line, given in zip(out, lines, strict=True)] == [True, True]
    assert "one 0.10" in json.loads(out[0])["response"]


def test_results_go_to_standard_output_alone_when_asked(cli: Command, prompts: Path, echo: Embedded) -> None:
    ended = cli("run", "prompts.csv", "-o", "-", env=known(echo))
    assert ended.code == 0
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == ["007", "008"]


def test_results_go_to_standard_output_every_time(cli: Command, prompts: Path, echo: Embedded) -> None:
    command = ("run", "prompts.csv", "-o", "-", "--journal", "kept")
    first, again = cli(*command, env=known(echo)), cli(*command, env=known(echo))
    assert (again.code, again.out) == (0, first.out)
    assert len(first.out.splitlines()) == 2


PIPES = {
    "a reader that takes nothing": ("true", "", "nobody reads standard output any more", 141),
    "a reader that has seen enough": ("head -c 1", "", "nobody reads standard output any more", 141),
    "a limit as well": ("true", "--deadline 4s --rpm 30", "stopped at --deadline 4 s", 6),
}


@pytest.mark.parametrize("pipe", PIPES)
def test_a_pipe_that_breaks_names_the_kept_journal_and_the_same_command_goes_on(
    cli: Command, echo: Embedded, tmp_path: Path, pipe: str
) -> None:
    reader, options, words, code = PIPES[pipe]
    count = 4 if options else 2000  # more than a pipe holds
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "{row} {"x" * 99}"}}\n' for row in range(count)))
    (tmp_path / "temporary").mkdir()
    command = f"run - --input-format jsonl -o - {options}"
    script = f'set -o pipefail; "$0" -m batch {command} --log-file run.log < in.jsonl | {reader}'
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "temporary"), **known(echo)}
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert ended.stderr.startswith(f"ails-batch: {words}\n")
    (journal,) = (tmp_path / "temporary").glob("*/stdout.journal")
    assert ended.stderr.endswith(f"what was answered is kept; the same command goes on with --journal {journal}\n")
    end = json.loads((tmp_path / "run.log").read_text().splitlines()[-1])
    assert (end["exit_code"], end["error"]) == (code, words)
    assert end["ok"] > 0
    again = cli("run", "-", "--input-format", "jsonl", "-o", "-", "--journal", str(journal), env=known(echo))
    assert (again.code, len(again.out.splitlines())) == (0, count)
    assert sum("choices" in line for line in journal.read_text().splitlines()) == count


def test_ctrl_c_in_a_pipeline_names_the_kept_journal(echo: Embedded, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "{row}"}}\n' for row in range(20)))
    reading, writing = os.pipe()
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "temporary"), **known(echo)}
    with subprocess.Popen(
        [sys.executable, "-m", "batch", "run", "in.jsonl", "-o", "-", "--rpm", "120"],
        cwd=tmp_path,
        env=environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        os.close(writing)
        while not any(b"choices" in path.read_bytes() for path in (tmp_path / "temporary").glob("*/stdout.journal")):
            assert run.poll() is None
            time.sleep(0.02)
        os.close(reading)  # Ctrl-C ends the reader, too
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
        assert run.stderr
        said = run.stderr.read().splitlines()
    assert said[0] == "ails-batch: stopped by SIGINT"
    assert "of 20 rows are not answered yet" in said[1]
    assert str(tmp_path / "temporary") in said[2]


def test_nothing_is_kept_of_a_run_whose_answers_all_went_out(cli: Command, prompts: Path, echo: Embedded) -> None:
    temporary = prompts.parent / "temporary"
    temporary.mkdir()
    assert cli("run", "prompts.csv", "-o", "-", env=known(echo) | {"TMPDIR": str(temporary)}).code == 0
    assert list(temporary.iterdir()) == []


def test_answers_that_cannot_be_written_to_standard_output_are_kept(cli: Command, prompts: Path, echo: Embedded) -> None:
    script = 'exec "$0" -m batch run prompts.csv -o - > /dev/full'
    environment = {"PATH": "/usr/bin:/bin", **known(echo)}
    ended = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=prompts.parent, env=environment, capture_output=True, text=True, check=False
    )
    journal = ended.stderr.partition("--journal ")[2].strip()
    assert ended.returncode == 3
    again = cli("run", "prompts.csv", "-o", "-", "--journal", journal, env=known(echo))
    assert (again.code, len(again.out.splitlines())) == (0, 2)
    shutil.rmtree(Path(journal).parent)


@pytest.mark.parametrize(("column", "code"), [("prompt", 0), ("promt", 2)])
def test_the_exit_code_stands_where_nothing_can_be_said(prompts: Path, echo: Embedded, column: str, code: int) -> None:
    script = f'exec "$0" -m batch run prompts.csv -o out.csv --prompt-column {column} 2> /dev/full'
    ended = subprocess.run(
        ["sh", "-c", script, sys.executable],
        cwd=prompts.parent,
        env={"PATH": "/usr/bin:/bin", **known(echo)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == code


def test_export_and_repair_take_no_standard_input_but_that_of_the_run(cli: Command, echo: Embedded, tmp_path: Path) -> None:
    cli("run", "-", "-o", "out.csv", "--input-format", "csv", env=known(echo), stdin=PROMPTS)
    before = (tmp_path / "out.csv").read_bytes()
    for other in ("", "id,prompt\n1,another\n"):
        assert cli("export", "out.csv", stdin=other).code == 0
        assert "2 rows remain" in cli("repair", "out.csv", "--compact", stdin=other).err
        assert (tmp_path / "out.csv").read_bytes() == before
    again = cli("run", "-", "-o", "out.csv", "--input-format", "csv", env=known(echo), stdin="")
    assert (again.code, again.summary["requests"], again.summary["ok"]) == (0, 0, 2)


def test_standard_input_is_an_input(cli: Command, echo: Embedded, tmp_path: Path) -> None:
    ended = cli("run", "-", "-o", "out.csv", "--input-format", "csv", env=known(echo), stdin=PROMPTS)
    assert ended.code == 0
    assert [row["id"] for row in table(tmp_path / "out.csv")] == ["007", "008"]


def test_pandas_reads_the_output_back_with_every_column_as_it_was(cli: Command, echo: Embedded, tmp_path: Path) -> None:
    given = pd.DataFrame({"id": ["007", "NA"], "text": ['a "quoted"\nline', " ,;\t"], "none": ["", "null"]})
    given.to_csv(tmp_path / "in.csv", index=False)
    assert cli("run", "in.csv", "-o", "out.csv", "--template", "{{ text }}!", env=known(echo)).code == 0
    back = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(back[list(given)].astype(object), given.astype(object))


def test_rows_that_cannot_be_asked_stay_in_their_place(cli: Command, echo: Embedded, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"prompt": "a"}\nnonsense\n{"prompt": ""}\n{"other": 1}\n{"prompt": "b"}\n{"prompt": "c"'
    )
    ended = cli("run", "in.jsonl", "-o", "out.jsonl", env=known(echo))
    assert ended.code == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["error_kind"] for row in rows] == ["", "input", "input", "input", "", "input"]
    assert rows[1]["raw_input"] == "nonsense"
    assert "in.jsonl, line 3" in rows[2]["error"]
    assert "4 of 6 rows failed (4 input)" in ended.err


def test_an_edited_template_asks_again_and_the_old_answers_stay(cli: Command, prompts: Path, echo: Embedded) -> None:
    first = ("run", "prompts.csv", "-o", "out.csv", "--template", "{{ prompt }}")
    other = ("run", "prompts.csv", "-o", "out.csv", "--template", "Say {{ prompt }}")
    assert [cli(*one, env=known(echo)).summary["requests"] for one in (first, other, first)] == [2, 2, 0]


@pytest.fixture
def broken_numpy(tmp_path: Path) -> dict[str, str]:
    broken = tmp_path / "broken/numpy/__init__.py"
    broken.parent.mkdir(parents=True)
    broken.write_text('raise ImportError("much to read\\n\\nOriginal error was: libopenblas is not here\\n")\n')
    return {"PYTHONPATH": str(broken.parent.parent)}


def test_a_broken_numpy_ends_a_run_soon_and_what_was_answered_is_kept(
    cli: Command, echo: Embedded, tmp_path: Path, broken_numpy: dict[str, str]
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt":"row {number}"}}\n' for number in range(300)))
    asked = ("run", "in.jsonl", "-o", "out.csv")
    ended = cli(*asked, "--rpm", "600", env=known(echo) | broken_numpy)
    assert ended.code == 70
    assert "numpy cannot be loaded, which this run needs: Original error was: libopenblas is not here" in ended.err
    assert "a bug" not in ended.err
    first = ended.summary["requests"]
    assert 0 < first < 100
    ended = cli(*asked, env=known(echo))
    assert (ended.code, ended.summary["ok"], ended.summary["requests"]) == (0, 300, 300 - first)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_some_thousand_rows_take_no_numpy(
    cli: Command, echo: Embedded, tmp_path: Path, broken_numpy: dict[str, str], form: str
) -> None:
    lines = [f'{{"prompt":"row {number}"}}' if form == "jsonl" else f"row {number}" for number in range(300)]
    lines[100:100] = ["nonsense", '"', '{"other":1}'] if form == "jsonl" else ["too,many"]
    (tmp_path / f"in.{form}").write_text("\n".join([*(["prompt"] if form == "csv" else []), *lines, ""]))
    asked = ("run", f"in.{form}", "-o", f"out.{form}", "--errors", f"failed.{form}")
    ended = cli(*asked, env=known(echo) | broken_numpy)
    assert (ended.code, ended.summary["ok"], ended.summary["rows"]) == (1, 300, len(lines)), ended.err
    ended = cli(*asked, env=known(echo) | broken_numpy)  # an earlier run's rows are read from its journal
    assert ended.code == 70
    assert "numpy cannot be loaded, which this run needs" in ended.err


def test_export_writes_a_lost_output_again_without_sending(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo))
    before = (tmp_path / "answers.csv").read_bytes()
    (tmp_path / "answers.csv").unlink()
    ended = cli("export", "answers.csv")
    assert (ended.code, ended.summary["requests"]) == (0, 0)
    assert (tmp_path / "answers.csv").read_bytes() == before


def test_repair_drops_what_no_row_uses(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo))
    prompts.write_text("id,prompt\n007,first\n")
    cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo))
    ended = cli("repair", "answers.csv", "--compact")
    assert ended.code == 0
    assert "1 rows remain" in ended.err
    assert cli("run", "prompts.csv", "-o", "answers.csv", env=known(echo)).summary["requests"] == 0


MISTAKES = {
    "no endpoint": (["run", "prompts.csv", "-o", "a.csv"], {}, "no endpoint: give --endpoint URL, set AILS_BASE_URL"),
    "no model": (["run", "prompts.csv", "-o", "a.csv", "--endpoint", "https://x.invalid"], {}, "no model: give --model"),
    "no key": (
        ["run", "prompts.csv", "-o", "a.csv", "--endpoint", "https://x.invalid", "--model", "m"],
        {},
        "set AILS_API_KEY",
    ),
    "no secret": (
        ["run", "prompts.csv", "-o", "a.csv", "--endpoint", "https://x.invalid", "--model", "m"],
        {"AILS_API_KEY": "canary-key"},
        "set AILS_SECRET",
    ),
    "two endpoints": (
        ["run", "prompts.csv", "-o", "a.csv"],
        {"AILS_BASE_URL": "https://a.invalid", "OPENAI_BASE_URL": "https://b.invalid"},
        "both set",
    ),
    "plain http": (
        ["run", "prompts.csv", "-o", "a.csv", "--endpoint", "http://x.invalid", "--model", "m"],
        {"AILS_API_KEY": "canary-key", "AILS_SECRET": "canary-secret"},
        "--allow-http",
    ),
    "no output": (["run", "prompts.csv"], {}, "where do the answers go? ails-batch run prompts.csv -o answers.csv"),
    "no such folder": (["run", "prompts.csv", "-o", "no/a.csv"], {}, "there is no directory no; make it first"),
    "output is the input": (["run", "prompts.csv", "-o", "prompts.csv"], {}, "prompts.csv is named as input and as output"),
    "no such job": (["run", "none.toml"], {}, "none.toml: no such job file"),
    "no such format": (["run", "prompts.csv", "-o", "a.xyz"], {}, "--output-format"),
    "misspelt option": (["run", "prompts.csv", "-o", "a.csv", "--modle", "m"], {}, "'--model'"),
    "no argument": (["verify", "prompts.csv"], {}, "Missing argument 'OUTPUT'; see ails-batch verify --help"),
    "no value": (["run", "prompts.csv", "-o"], {}, "Option '-o' requires an argument; see ails-batch --help"),
    "no rate": (
        ["run", "prompts.csv", "-o", "a.csv", "--rpm", "0"],
        {},
        "--rpm: must be greater than 0; leave it out for no limit",
    ),
    "no tokens": (["run", "prompts.csv", "-o", "a.csv", "--tpm", "-1"], {}, "--tpm: must be greater than 0"),
    "no burst": (
        ["run", "prompts.csv", "-o", "a.csv", "--burst", "0"],
        {},
        "--burst: must be greater than 0; leave it out for 0.01",
    ),
    "no money": (["run", "prompts.csv", "-o", "a.csv", "--max-cost", "0"], {}, "--max-cost: must be greater than 0"),
    "no attempts": (
        ["run", "prompts.csv", "-o", "a.csv", "--attempts", "0"],
        {},
        "--attempts: must be at least 1; leave it out for 5",
    ),
    "no rows": (
        ["run", "prompts.csv", "-o", "a.csv", "--limit", "0"],
        {},
        "--limit: must be at least 1; leave it out for all rows",
    ),
    "less than none": (["run", "prompts.csv", "-o", "a.csv", "--bad-rows", "-1"], {}, "--bad-rows: must be at least 0"),
    "too many": (
        ["run", "prompts.csv", "-o", "a.csv", "--concurrency", "1001"],
        {},
        "--concurrency: must be at most 1000; leave it out for auto",
    ),
    "no time": (["run", "prompts.csv", "-o", "a.csv", "--deadline", "0"], {}, "--deadline: '0' is no duration; write 90, 90s"),
    "no share": (["run", "prompts.csv", "-o", "a.csv", "--halt", "5x"], {}, "--halt: '5x' is not understood; write fail=20"),
    "a limit to check": (["check", "prompts.csv", "--limit", "0"], {}, "--limit: must be at least 1"),
    "a job that writes nowhere": (["run", "nowhere.toml"], {}, "nowhere.toml: the key 'output' is missing: write output ="),
    "a job that reads nothing": (["run", "nothing.toml"], {}, "nothing.toml: the key 'input' is missing: write input ="),
    "a job's own limit": (["run", "nothing.toml", "--rpm", "0"], {}, "--rpm: must be greater than 0"),
    "a limit in a job": (["run", "limit.toml"], {}, "limit.toml: limit: must be at least 1"),
    "misspelt command": (["rnu", "prompts.csv"], {}, "did you mean 'run'?"),
    "misread parameter": (["run", "prompts.csv", "-o", "a.csv", "--param", "stop=END"], {}, "--param stop: 'END' is no JSON"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_clear_line_and_exit_2(cli: Command, prompts: Path, mistake: str) -> None:
    (prompts.parent / "nowhere.toml").write_text('input = "prompts.csv"\n')
    (prompts.parent / "nothing.toml").write_text('output = "a.csv"\n')
    (prompts.parent / "limit.toml").write_text('input = "prompts.csv"\noutput = "a.csv"\nlimit = 0\n')
    arguments, env, words = MISTAKES[mistake]
    ended = cli(*arguments, env=env)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert "canary" not in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"id,text\n1,x\n", [], "in.csv: no column 'prompt'; the columns are 'id', 'text'; name one with --prompt-column"),
        (b"id,prompt\n1,x\n", ["--prompt-column", "promt"], "no column 'promt'; did you mean 'prompt'? the columns are 'id'"),
        (b"id,text\n1,x\n", ["--template", "{{ txt }}"], "in.csv: no column 'txt'; did you mean 'text'? the columns are"),
        (b"id,prompt\n1,caf\xe9\n", [], "not UTF-8"),
        (b'id,prompt\n1,"open\n2,x\n', [], "quote"),
        (b"", [], "empty"),
        (b"prompt,prompt\nx,y\n", [], "more than one column is called 'prompt'"),
        (b"prompt,response\nx,y\n", [], "--prefix"),
        (b"id,prompt\n1,x\n", ["--template", "{{ oh no }}"], "the template, line 1"),
        (b"id,prompt\n1,x\n", ["--where", "id =="], "--where"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_before_anything_is_sent(
    cli: Command, echo: Embedded, tmp_path: Path, content: bytes, options: list[str], words: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    ended = cli("run", "in.csv", "-o", "out.csv", *options, env=known(echo))
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out.csv").exists()
    if ended.out:
        assert ended.summary["requests"] == 0


REFUSED = {
    "misspelt column": ["--prompt-column", "promt"],
    "misspelt placeholder": ["--template", "{{ promt }}"],
    "no template": ["--template", "{{ oh no }}"],
    "bad rows": ["--bad-rows", "0", "--check-first"],
    "clash": ["--prefix", "a_"],
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_start_that_is_refused_leaves_no_trace(cli: Command, echo: Embedded, tmp_path: Path, mistake: str) -> None:
    (tmp_path / "in.csv").write_text("id,prompt,a_error\n1,x,\n2,,\n")
    ended = cli("run", "in.csv", "-o", "out.csv", *REFUSED[mistake], env=known(echo))
    assert (ended.code, ended.out) == (2, "")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert cli("run", "in.csv", "-o", "-", *REFUSED[mistake], env=known(echo) | {"TMPDIR": str(temporary)}).code == 2
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_fresh_start_that_is_refused_leaves_the_old_journal_alone(
    cli: Command, echo: Embedded, tmp_path: Path, mistake: str
) -> None:
    (tmp_path / "in.csv").write_text("id,prompt,a_error\n1,x,\n2,,\n")
    command = ("run", "in.csv", "-o", "out.csv", "--csv-guard")
    assert cli(*command, env=known(echo)).summary["requests"] == 1
    before = (tmp_path / "out.csv.journal").read_bytes()
    assert cli(*command, "--fresh", *REFUSED[mistake], env=known(echo)).code == 2
    assert (tmp_path / "out.csv.journal").read_bytes() == before
    assert not list(tmp_path.glob("*.old-*"))
    assert cli(*command, env=known(echo)).summary["requests"] == 0
    assert cli(*command, "--fresh", env=known(echo)).summary["requests"] == 1
    assert len(list(tmp_path.glob("*.old-*"))) == 1


def test_a_missing_input_is_named(cli: Command, echo: Embedded) -> None:
    ended = cli("run", "missing.csv", "-o", "out.csv", env=known(echo))
    assert (ended.code, ended.out) == (2, "")
    assert "missing.csv" in ended.err


def test_a_wrong_secret_ends_the_run_with_4_and_the_rows_stay_pending(
    cli: Command, prompts: Path, echo: Embedded, tmp_path: Path
) -> None:
    ended = cli("run", "prompts.csv", "-o", "out.csv", env=known(echo) | {"AILS_SECRET": "canary-" + "x" * 32})
    assert ended.code == 4
    assert "401" in ended.err
    assert "canary" not in ended.err + ended.out
    assert [row["error_kind"] for row in table(tmp_path / "out.csv")] == ["pending", "pending"]
    assert table(tmp_path / "out.csv")[0]["error"] == "not asked yet: the run ended before it; the same command goes on"
    again = cli("run", "prompts.csv", "-o", "out.csv", env=known(echo))
    assert (again.code, again.summary["ok"]) == (0, 2)


def test_an_unreachable_server_ends_with_75_after_the_longest_outage(cli: Command, prompts: Path) -> None:
    env = {"AILS_API_KEY": "k" * 20, "AILS_SECRET": "s" * 20, "AILS_MODEL": "m"}
    ended = cli("run", "prompts.csv", "-o", "out.csv", "--endpoint", "http://127.0.0.1:9", "--max-outage", "1s", env=env)
    assert ended.code == 75
    assert "127.0.0.1:9: no connection" in ended.err
    assert ended.summary["pending"] == 2


def test_complete_prints_one_answer(cli: Command, echo: Embedded) -> None:
    plain = cli("complete", "hello there", env=known(echo))
    assert (plain.code, plain.err) == (0, "")
    assert "hello there" in plain.out
    streamed = cli("complete", "hello there", "--stream", env=known(echo))
    assert (streamed.code, streamed.out) == (0, plain.out)


def test_help_of_every_command_is_shown(cli: Command) -> None:
    from batch.cli import COMMANDS

    for command in COMMANDS:
        ended = cli(command, "--help")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"Usage: ails-batch {command}")


def test_the_module_is_the_command(cli: Command) -> None:
    assert cli("--version").out.startswith("ails-batch ")
    assert Path(sys.executable).with_name("ails-batch").exists()


def test_a_signal_ends_the_wait_for_an_idle_standard_input(echo: Embedded, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "batch", "run", "-", "-o", "out.jsonl", "--input-format", "jsonl"]
    environment = {"PATH": os.environ["PATH"], **known(echo)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        while not (tmp_path / "out.jsonl.journal").exists():
            assert run.poll() is None
            time.sleep(0.02)
        run.terminate()
        assert run.wait(30) == 143
        assert run.stdin and run.stderr
        assert run.stderr.read() == b"ails-batch: stopped by SIGTERM\n"
    assert list(tmp_path.iterdir()) == []


def test_the_deadline_ends_the_wait_for_an_idle_standard_input(echo: Embedded, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "batch", "run", "-", "-o", "out.csv", "--input-format", "csv", "--deadline", "0.1"]
    environment = {"PATH": os.environ["PATH"], **known(echo)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.wait(60) == 6
        assert run.stderr
        assert run.stderr.read() == b"ails-batch: stopped at --deadline 0.1 s\n"
    assert list(tmp_path.iterdir()) == []


def test_the_deadline_ends_the_wait_for_another_run(echo: Embedded, prompts: Path, cli: Command) -> None:
    with Journal.open(prompts.with_name("out.csv.journal")):
        ended = cli("run", "prompts.csv", "-o", "out.csv", "--wait", "--deadline", "0.1", env=known(echo))
    assert (ended.code, ended.err) == (6, "ails-batch: stopped at --deadline 0.1 s\n")
