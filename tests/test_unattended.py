"""Nobody watches, and something else acts on the exit code: each code from its real cause, and nothing said in vain."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batch.gateway.embedded import Embedded

from .conftest import Command, Ended, known

ROWS = 8
RUN = ("run", "in.csv", "-o", "out.csv", "--quiet")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("id,prompt\n" + "".join(f"{row:03},what is {row}?\n" for row in range(ROWS)))
    return path


def output(folder: Path, name: str = "out.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_one_useful_paragraph(err: str) -> bool:
    """A few lines, each from us, none of them a traceback."""
    lines = err.splitlines()
    return 1 <= len(lines) <= 3 and all(line.startswith("ails-batch: ") and len(line) < 600 for line in lines)


class Slow:
    """A run that takes half a second a row, so that something can happen to it."""

    def __init__(self, folder: Path, echo: Embedded, *options: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "batch", *RUN, "--rpm", "120", *options],
            cwd=folder,
            env={**known(echo), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        journal = folder / "out.csv.journal"
        while not (journal.exists() and b"choices" in journal.read_bytes()):  # an answer
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=60)
        return Ended(self.process.returncode, out, err)


# Exit codes


def test_0_says_nothing_at_all(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    ended = cli(*RUN, env=known(echo))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert all(row["response"] for row in output(tmp_path))


def test_1_for_a_row_that_cannot_be_asked(cli: Command, prompts: Path, echo: Embedded) -> None:
    prompts.write_text(prompts.read_text() + "999,\n")
    ended = cli(*RUN, env=known(echo))
    assert ended.code == ended.summary["exit_code"] == 1
    assert is_one_useful_paragraph(ended.err)
    assert "1 of 9 rows failed (1 input); see the column 'error' of out.csv" in ended.err


def test_a_row_that_never_succeeds_is_tolerated_every_night(cli: Command, prompts: Path, echo: Embedded) -> None:
    prompts.write_text(prompts.read_text() + "999,\n")
    for _ in range(2):
        ended = cli(*RUN, "--tolerate", "fail=1", env=known(echo))
        assert (ended.code, ended.out, ended.err) == (0, "", "")
    prompts.write_text(prompts.read_text() + "999,\n")
    assert cli(*RUN, "--tolerate", "fail=1", env=known(echo)).code == 1
    assert cli(*RUN, "--tolerate", "fail=50%", env=known(echo)).code == 0


def test_2_for_a_column_that_is_not_there(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    ended = cli(*RUN, "--template", "{{ text }}", env=known(echo))
    assert ended.code == 2
    assert is_one_useful_paragraph(ended.err)
    assert "no column 'text'; the columns are 'id', 'prompt'" in ended.err
    assert not (tmp_path / "out.csv").exists()


def test_3_for_a_full_disk_and_what_was_answered_stays(prompts: Path, echo: Embedded, tmp_path: Path, cli: Command) -> None:
    prompts.write_text("id,prompt\n" + "".join(f"{row:03},what is {row}?\n" for row in range(1500)))
    done = subprocess.run(
        [sys.executable, "-m", "batch", *RUN],
        cwd=tmp_path,
        env=known(echo),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert done.returncode == 3
    assert is_one_useful_paragraph(done.stderr)
    assert "size limit" in done.stderr
    ended = cli("run", "in.csv", "-o", "out.csv", env=known(echo))
    assert ended.code == 0
    assert 0 < ended.summary["cached"] < 1500
    assert ended.summary["requests"] == 1500 - ended.summary["cached"]


def test_4_for_a_wrong_secret_and_no_row_is_lost(cli: Command, prompts: Path, echo: Embedded) -> None:
    ended = cli(*RUN, env=known(echo) | {"AILS_SECRET": "x" * 32})
    assert ended.code == 4
    assert is_one_useful_paragraph(ended.err)
    assert "401" in ended.err
    assert (ended.summary["pending"], ended.summary["failed"]) == (ROWS, 0)
    assert cli(*RUN, env=known(echo)).code == 0


def test_5_for_a_journal_that_was_changed_in_its_middle(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    assert cli(*RUN, env=known(echo)).code == 0
    journal = tmp_path / "out.csv.journal"
    content = bytearray(journal.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = b"\0" * 8
    journal.write_bytes(content)
    prompts.write_text(prompts.read_text() + "009,one more\n")
    ended = cli(*RUN, env=known(echo))
    assert ended.code == 5
    assert is_one_useful_paragraph(ended.err)
    assert "ails-batch repair" in ended.err


def test_6_for_a_deadline_and_the_same_command_goes_on(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    ended = cli(*RUN, "--rpm", "60", "--deadline", "1.5s", env=known(echo))
    assert ended.code == 6
    assert is_one_useful_paragraph(ended.err)
    assert "stopped at --deadline 1.5 s" in ended.err
    assert 0 < ended.summary["ok"] < ROWS
    assert [row["error_kind"] for row in output(tmp_path)].count("pending") == ended.summary["pending"]
    assert cli(*RUN, env=known(echo)).code == 0


def test_75_for_a_server_that_is_away(cli: Command, prompts: Path) -> None:
    environment = {"AILS_BASE_URL": "http://127.0.0.1:9", "AILS_API_KEY": "k" * 20, "AILS_SECRET": "s" * 32, "AILS_MODEL": "m"}
    ended = cli(*RUN, "--max-outage", "1s", env=environment)
    assert ended.code == 75
    assert is_one_useful_paragraph(ended.err)
    assert "run the same command again later" in ended.err
    assert ended.summary["pending"] == ROWS


def test_75_for_a_second_run_while_the_first_goes_on_undisturbed(
    cli: Command, prompts: Path, echo: Embedded, tmp_path: Path
) -> None:
    first = Slow(tmp_path, echo)
    second = cli(*RUN, env=known(echo))
    assert first.process.poll() is None
    assert (second.code, second.out) == (75, "")
    assert is_one_useful_paragraph(second.err)
    assert str(first.process.pid) in second.err
    ended = first.end()
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert all(row["response"] for row in output(tmp_path))


def test_a_second_run_may_wait_for_the_first(cli: Command, prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    first = Slow(tmp_path, echo)
    second = cli("run", "in.csv", "-o", "out.csv", "--wait", env=known(echo))
    assert first.end().code == 0
    assert (second.code, second.summary["requests"], second.summary["cached"]) == (0, 0, ROWS)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_128_and_the_signal_after_a_drain(
    signum: int, code: int, cli: Command, prompts: Path, echo: Embedded, tmp_path: Path
) -> None:
    run = Slow(tmp_path, echo)
    run.process.send_signal(signum)
    ended = run.end()
    assert ended.code == code
    assert is_one_useful_paragraph(ended.err)
    assert f"stopped by {signal.Signals(signum).name}" in ended.err
    kinds = [row["error_kind"] for row in output(tmp_path)]
    assert 0 < kinds.count("pending") < ROWS
    assert set(kinds) == {"", "pending"}
    again = cli("run", "in.csv", "-o", "out.csv", env=known(echo))
    assert (again.code, again.summary["requests"]) == (0, kinds.count("pending"))


def test_a_signal_that_the_caller_ignores_stays_ignored(prompts: Path, echo: Embedded, tmp_path: Path) -> None:
    """As under nohup, or with & in a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = Slow(tmp_path, echo)
    finally:
        signal.signal(signal.SIGHUP, before)
    run.process.send_signal(signal.SIGHUP)
    assert run.end().code == 0


# A bare environment


def bare(folder: Path, *arguments: str, **environment: str) -> Ended:
    """As cron has it and less: no HOME, no PATH, no LANG, no terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "batch", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_same_bytes_whatever_the_environment(tmp_path: Path, echo: Embedded) -> None:
    name = "größe-€.csv"
    (tmp_path / name).write_text("id,prompt\n007,Grüße aus 東京 😀\nNA,0.10 null\n", encoding="utf-8")
    credentials = known(echo)
    for file in ("key", "secret"):
        (tmp_path / file).touch(0o600)
    (tmp_path / "key").write_text(credentials["AILS_API_KEY"] + "\n")
    (tmp_path / "secret").write_text(credentials["AILS_SECRET"] + "\n")
    named = ["--endpoint", credentials["AILS_BASE_URL"], "--model", credentials["AILS_MODEL"]]
    files = ["--api-key-file", "key", "--secret-file", "secret"]
    seen = set()
    for number, environment in enumerate([{}, {"LC_ALL": "POSIX", "TZ": "Asia/Kolkata"}, {"LANG": "C.UTF-8"}]):
        out = f"out-€-{number}.csv"
        ended = bare(tmp_path, "run", name, "-o", out, *named, *files, **environment)
        assert (ended.code, ended.err) == (0, "")
        assert ended.summary["output"] == out
        rows = output(tmp_path, out)
        assert "東京 😀" in rows[0]["response"]
        seen.add(json.dumps([{column: cell for column, cell in row.items() if column != "latency_s"} for row in rows]))
    assert len(seen) == 1


def test_the_embedded_endpoint_needs_no_environment(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    ended = bare(tmp_path, *RUN, "--endpoint", "embedded", "--max-tokens", "2")
    assert (ended.code, ended.out) == (0, "")


def test_credentials_come_from_a_closed_dotenv_beside_the_job(tmp_path: Path, prompts: Path, echo: Embedded) -> None:
    (tmp_path / ".env").touch(0o600)
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in known(echo).items()))
    assert bare(tmp_path, *RUN).code == 0
    (tmp_path / ".env").chmod(0o644)
    ended = bare(tmp_path, *RUN)
    assert ended.code == 2
    assert "chmod 600 .env" in ended.err


def test_without_a_terminal_there_is_no_bar(cli: Command, prompts: Path, echo: Embedded) -> None:
    ended = cli("run", "in.csv", "-o", "out.csv", env=known(echo))
    assert ended.err == ""
    assert len(ended.out.splitlines()) == 1


# Secrets

CANARIES = {"AILS_API_KEY": "canary-key-4f1c8e", "AILS_SECRET": "canary-secret-9b27d1a0c3e8f6547788"}


@pytest.fixture
def parrot() -> Iterator[str]:
    """A server that repeats the key in everything it says, as careless ones do."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
            status = next((int(word) for word in re.findall(r"\d{3}", content)), 200)
            words = f"you sent {self.headers['authorization']} and {CANARIES['AILS_SECRET']}"
            body = json.dumps({"error": {"message": words, "code": None}}).encode()
            if status == 200:
                choice = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
                body = json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}).encode()
            self.send_response(status, words)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("x-request-id", words)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def found_in(folder: Path, *texts: str) -> list[str]:
    """Where a canary sings: files below a folder, and texts."""
    everything = [(str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    everything += [(text[:60], text.encode()) for text in texts]
    return [where for where, content in everything for canary in CANARIES.values() if canary.encode() in content]


@pytest.mark.parametrize("statuses", ["200 400 404 500", "401", "403", "302", "429"])
def test_no_secret_is_in_any_output_log_journal_or_traceback(statuses: str, tmp_path: Path, parrot: str, cli: Command) -> None:
    (tmp_path / "in.csv").write_text("prompt\n" + "".join(f"answer {status}\n" for status in statuses.split()))
    environment = {**CANARIES, "AILS_BASE_URL": parrot + "?user=me", "AILS_MODEL": "m", "AILS_DEBUG": "1"}
    options = ["--attempts", "2", "--max-outage", "1s", "--keep-raw", "--log-file", "run.log", "--metrics-file", "run.prom"]
    ended = cli("run", "in.csv", "-o", "out.csv", *options, env=environment)
    assert ended.code in (0, 1, 4, 75)
    assert found_in(tmp_path, ended.out, ended.err) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"AILS_API_KEY": "canary-key-4f1c8e\nx: y"},
        {"AILS_API_KEY": "canary-key-4f1c8e ü€"},
        {"AILS_SECRET": ""},
        {"AILS_BASE_URL": "http://canary-key-4f1c8e:canary-secret-9b27d1a0c3e8f6547788@127.0.0.1:9/?k=canary-key-4f1c8e"},
        {"AILS_BASE_URL": "http://canary-key-4f1c8e:1:2"},
        {
            "HTTPS_PROXY": "http://canary-key-4f1c8e:canary-secret-9b27d1a0c3e8f6547788@127.0.0.1:9",
            "AILS_BASE_URL": "https://x.invalid",
        },
    ],
)
def test_no_secret_is_in_the_words_of_a_mistake(broken: dict[str, str], tmp_path: Path, cli: Command) -> None:
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    environment = {**CANARIES, "AILS_BASE_URL": "http://127.0.0.1:9", "AILS_MODEL": "m", "AILS_DEBUG": "1", **broken}
    ended = cli("run", "in.csv", "-o", "out.csv", "--max-outage", "1s", "--log-file", "run.log", env=environment)
    assert ended.code != 0
    assert found_in(tmp_path, ended.out, ended.err) == []


def test_no_secret_is_in_the_process_list(prompts: Path, tmp_path: Path) -> None:
    """The embedded gateway is a process of its own, which must be told the secret of the run."""
    prompts.write_text("prompt\n" + "what is it?\n" * 50)
    with subprocess.Popen(
        [sys.executable, "-m", "batch", *RUN, "--endpoint", "embedded", "--rpm", "60"],
        cwd=tmp_path,
        env={**CANARIES, "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
    ) as run:
        journal = tmp_path / "out.csv.journal"
        while not journal.exists() or journal.stat().st_size < 1000:
            assert run.poll() is None
            time.sleep(0.02)
        group = [process for process in Path("/proc").iterdir() if process.name.isdigit()]
        lines = [process.joinpath("cmdline").read_bytes() for process in group if is_below(process, run.pid)]
        environments = [process.joinpath("environ").read_bytes() for process in group if is_child(process, run.pid)]
        run.terminate()
    assert len(lines) >= 2
    assert not any(canary.encode() in line for line in lines for canary in CANARIES.values())
    assert environments
    assert not any(canary.encode() in one for one in environments for canary in CANARIES.values())
    assert found_in(tmp_path) == []


def parents(process: Path) -> Iterator[int]:
    """A process and those it comes from."""
    pid = int(process.name)
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return


def is_below(process: Path, pid: int) -> bool:
    return pid in parents(process)


def is_child(process: Path, pid: int) -> bool:
    return int(process.name) != pid and is_below(process, pid)


# Two jobs, one key


def test_two_runs_that_name_one_quota_stay_within_it_and_both_get_on(
    tmp_path: Path, cli: Command, echo: Embedded, prompts: Path
) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "batch", "run", "in.csv", "-o", f"{name}.csv", "--rpm", "600", "--quota", "./quota"],
            cwd=tmp_path,
            env=known(echo),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    prompts.write_text("prompt\n" + "".join(f"what is {row}?\n" for row in range(20)))
    summaries = [json.loads(run.communicate()[0]) for run in runs]
    assert [summary["ok"] for summary in summaries] == [20, 20]
    # 40 requests, a tenth of a second apart, whoever sends them.
    assert max(summary["seconds"] for summary in summaries) > 3.9 - 0.5


def test_runs_of_different_quotas_do_not_wait_for_each_other(
    cli: Command, prompts: Path, echo: Embedded, tmp_path: Path
) -> None:
    assert cli(*RUN, "--rpm", "1", "--quota", "./one", "--limit", "1", env=known(echo)).code == 0
    begun = time.monotonic()
    assert cli("run", "in.csv", "-o", "b.csv", "--rpm", "1", "--quota", "./two", "--limit", "1", env=known(echo)).code == 0
    assert time.monotonic() - begun < 30


def test_a_quota_without_a_limit_is_a_mistake(cli: Command, prompts: Path, echo: Embedded) -> None:
    ended = cli(*RUN, "--quota", "house", env=known(echo))
    assert ended.code == 2
    assert "say how much with rpm or tpm" in ended.err
