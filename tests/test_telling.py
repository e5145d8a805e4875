"""What a run tells those who are not there."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import batch
from batch.errors import CallError, JobError
from batch.gateway.embedded import Embedded
from batch.job import Job
from batch.records import Answer, Attempt, Failure, Outcome
from batch.tally import Snapshot, Summary
from batch.telling import Telling
from batch.telling.log import Log
from batch.telling.metrics import HELP, Metrics
from batch.wires import refusal
from batch.wires.answer import read_answer

from .conftest import Command, known

SUMMARY = Summary(
    rows=3, ok=2, failed=1, requests=4, retries=1, prompt_tokens=70, completion_tokens=30, exit_code=1, seconds=1.5
)


@dataclass
class Check:
    """A service that is pinged."""

    url: str = ""
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    delay: float = 0.0


@pytest.fixture
def check() -> Iterator[Check]:
    check = Check()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            check.heard.append((self.path, body))
            time.sleep(check.delay)
            self.send_response(check.answers.pop(0) if check.answers else 200)
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        check.url = f"http://127.0.0.1:{server.server_port}/uuid"
        yield check
        server.shutdown()


def samples(path: Path) -> dict[str, float]:
    """A metrics file, read by the grammar of the exposition format."""
    found = {}
    seen: set[str] = set()
    last = ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ gauge)", line)
            continue
        match = re.fullmatch(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\} (\S+)', line)
        assert match, line
        if match[1] != last:
            assert match[1] not in seen  # the samples of one metric stand together
            seen.add(match[1])
        last = match[1]
        found[f"{match[1]} {match[2]}"] = float(match[3])
    return found


# The metrics file


def test_the_metrics_file_holds_the_run(tmp_path: Path) -> None:
    file = tmp_path / "nightly.prom"
    metrics = Metrics(str(file))
    metrics.start()
    assert samples(file)['ails_batch_running batch="nightly"'] == 1
    metrics.end(1, 1.5, SUMMARY)
    told = samples(file)
    assert told['ails_batch_rows batch="nightly",state="failed"'] == 1
    assert told['ails_batch_tokens batch="nightly",kind="completion"'] == 30
    assert told['ails_batch_exit_code batch="nightly"'] == 1
    assert told['ails_batch_running batch="nightly"'] == 0
    assert {name.split()[0] for name in told} <= set(HELP)
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_the_last_success_outlives_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "nightly.prom"
    Metrics(str(file)).end(0, 1.0, Summary(rows=3, ok=3))
    name = 'ails_batch_success_timestamp_seconds batch="nightly"'
    success = samples(file)[name]
    again = Metrics(str(file))
    again.start()
    assert samples(file)[name] == success
    again.end(75, 1.0, None)
    assert samples(file)[name] == success


def test_a_run_under_way_is_told_now_and_then(tmp_path: Path) -> None:
    file = tmp_path / "nightly.prom"
    metrics = Metrics(str(file))
    metrics.watch(snapshot(ok=1))
    metrics.watch(snapshot(ok=2))
    assert samples(file)['ails_batch_rows batch="nightly",state="ok"'] == 1
    assert samples(file)['ails_batch_rows batch="nightly",state="pending"'] == 9


def snapshot(ok: int) -> Snapshot:
    return Snapshot(10, True, ok, ok, 0, 0, ok, 0, 0, 0, 0.25, 1, 2, "rpm", "a server's words")


def test_readers_see_a_whole_file_at_any_time(tmp_path: Path) -> None:
    file = tmp_path / "nightly.prom"
    metrics = Metrics(str(file))
    metrics.start()
    over = threading.Event()

    def rewrite() -> None:
        for _ in range(200):
            metrics.end(1, 1.0, SUMMARY)
            metrics.start()
        over.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not over.is_set():
        assert "ails_batch_start_timestamp_seconds" in " ".join(samples(file))
    writer.join()


def test_a_metrics_file_that_node_exporter_would_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"end in \.prom"):
        Metrics(str(tmp_path / "nightly.txt"))
    with pytest.raises(JobError, match="is not there or cannot be written"):
        Metrics(str(tmp_path / "none/nightly.prom"))


def test_a_metrics_file_that_fails_later_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    metrics = Metrics(str(folder / "nightly.prom"))
    folder.rmdir()
    metrics.start()
    metrics.end(0, 1.0, None)
    assert len(caplog.records) == 1
    assert "No such file or directory" in caplog.text


# The log


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_goes_on_in_the_new_file_after_its_rotation(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    log = Log(str(file))
    log.write("one")
    file.rename(tmp_path / "run.log.1")
    log.write("two")  # nobody has made a new file yet: it is made
    file.rename(tmp_path / "run.log.2")
    file.touch(0o640)  # as `create 0640` in logrotate
    log.write("three")
    log.close()
    log.write("four")
    told = [[line["event"] for line in lines(tmp_path / name)] for name in ("run.log.1", "run.log.2", "run.log")]
    assert told == [["one"], ["two"], ["three"]]
    assert (tmp_path / "run.log.1").stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(lines(file)[0]["time"]))


def test_a_log_cut_off_by_copytruncate_goes_on_at_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    log = Log(str(file))
    log.write("one")
    os.truncate(file, 0)
    log.write("two")
    assert [line["event"] for line in lines(file)] == ["two"]
    log.close()


def test_a_full_disk_ends_the_log_and_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    log = Log("/dev/full")
    log.write("one")
    log.write("two")
    log.close()
    assert len(caplog.records) == 1
    assert "No space left on device; going on without it" in caplog.text


def test_a_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"log_file .*: Is a directory; name a file that can be written"):
        Log(str(tmp_path))


def test_rows_are_logged_without_what_was_asked_and_answered(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    answer = Answer("canary answer", "m", "stop", 3, 4, b'{"canary":"answer"}')
    with Telling(Job(log_file=str(file), output="out.csv")) as telling:
        telling.durable(
            [
                Outcome(0, b"k" * 16, 0, answer, (Attempt(200, 0.25),)),
                Outcome(1, b"l" * 16, 0, Failure("refused", "canary words", 400), (Attempt(400, 0.5),)),
            ]
        )
        words = "HTTP 401: canary of a server"
        telling.ended(Summary(rows=2, ok=1, failed=1, exit_code=4, error=words, first_failure="canary of an answer"))
    start, first, second, end = lines(file)
    assert (start["event"], start["journal"]) == ("start", "out.csv.journal")
    assert (first["state"], first["http_status"], first["latency_s"], first["prompt_tokens"]) == ("ok", 200, 0.25, 3)
    assert (second["state"], second["row"]) == ("refused", 1)
    assert (end["exit_code"], end["failed"], end["error"]) == (4, 1, "HTTP 401 …")
    assert "canary" not in file.read_text()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b'{"error": {"message": "canary; canary: HTTP 500: canary"}}', "the server: HTTP 401 …"),
        (404, b"canary", "the server: HTTP 404 …"),
        (403, b"", "the server: HTTP 403"),
        (200, b"<html><title>canary</title></html>", "the server: the answer is …"),
        (200, b'{"error": {"message": "canary", "type": "server_error"}}', "the server: HTTP 500 …"),
        (200, b'{"choices": [{"message": {"content": null}, "finish_reason": "canary"}]}', "the answer's content is …"),
    ],
)
def test_a_reason_is_logged_up_to_where_it_quotes_the_server(tmp_path: Path, status: int, body: bytes, told: str) -> None:
    if status == 200:
        with pytest.raises(CallError) as caught:
            read_answer(body, status)
        words = str(caught.value)
    else:
        words = str(refusal(status, body))
    file = tmp_path / "run.log"
    with Telling(Job(log_file=str(file))) as telling:
        telling.ended(Summary(exit_code=4, error=f"the server: {words}"))
    error = str(lines(file)[-1]["error"])
    assert error.endswith(told)
    assert "canary" not in error


def test_the_log_says_why_a_run_with_a_wrong_secret_ended(tmp_path: Path, cli: Command, echo: Embedded) -> None:
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    ended = cli("run", "in.csv", "-o", "out.csv", "--log-file", "run.log", env=known(echo) | {"AILS_SECRET": "x" * 32})
    end = lines(tmp_path / "run.log")[-1]
    assert (ended.code, end["exit_code"]) == (4, 4)
    assert re.fullmatch(r"127\.0\.0\.1:\d+ does not accept the API key or the signature: HTTP 401 …", str(end["error"]))


def test_the_log_says_that_the_server_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILS_API_KEY", "k" * 20)
    monkeypatch.setenv("AILS_SECRET", "s" * 32)
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    file = tmp_path / "run.log"
    job = batch.Job(
        input=str(tmp_path / "in.csv"),
        output=str(tmp_path / "out.csv"),
        endpoint="http://127.0.0.1:9",
        model="m",
        max_outage=0.5,
        log_file=str(file),
    )
    summary = batch.run(job)
    end = lines(file)[-1]
    assert (summary.exit_code, end["exit_code"], end["error"]) == (75, 75, summary.error)
    assert "127.0.0.1:9: no connection (connection refused); run the same command again later" in summary.error


def test_the_log_says_of_a_bug_only_that_there_was_one(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    with pytest.raises(RuntimeError), Telling(Job(log_file=str(file))):
        raise RuntimeError("canary")
    assert (lines(file)[-1]["exit_code"], lines(file)[-1]["error"]) == (70, "a bug")


# The ping


def test_a_run_pings_its_start_and_its_exit_code(check: Check) -> None:
    with Telling(Job(ping=check.url)) as telling:
        telling.ended(SUMMARY)
    assert [path for path, _ in check.heard] == ["/uuid/start", "/uuid/1"]
    body = json.loads(check.heard[1][1])
    assert (body["failed"], body["exit_code"]) == (1, 1)
    assert "error" not in body


def test_a_run_that_could_not_begin_pings_its_code(check: Check, tmp_path: Path) -> None:
    with pytest.raises(JobError), Telling(Job(ping=check.url)):
        raise JobError("no such file")
    with pytest.raises(RuntimeError), Telling(Job(ping=check.url)):
        raise RuntimeError
    with pytest.raises(JobError), Telling(Job(ping=check.url, log_file=str(tmp_path))):
        pass
    assert [path for path, _ in check.heard] == ["/uuid/start", "/uuid/2", "/uuid/start", "/uuid/70", "/uuid/2"]


def test_a_ping_is_tried_again(check: Check) -> None:
    check.answers = [200, 500, 301, 200]
    with Telling(Job(ping=check.url + "?rid=1")) as telling:
        telling.ended(Summary())
    assert [path for path, _ in check.heard] == ["/uuid/start?rid=1", *["/uuid/0?rid=1"] * 3]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/uuid", "https://127.0.0.1:1/uuid"])
def test_a_ping_that_nobody_hears_fails_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    begun = time.monotonic()
    with Telling(Job(ping=url)) as telling:
        assert telling.ended(SUMMARY) is SUMMARY
    assert time.monotonic() - begun < 20
    assert [record.getMessage() for record in caplog.records] == ["ping: 127.0.0.1 did not take /1: ConnectionError"]
    assert "uuid" not in caplog.text


def test_a_slow_check_holds_nothing_up_but_the_end(check: Check) -> None:
    check.delay = 1.0
    with Telling(Job(ping=check.url)) as telling:
        begun = time.monotonic()
        telling.watch(snapshot(1))
        assert time.monotonic() - begun < 0.9
        telling.ended(SUMMARY)
    assert [path for path, _ in check.heard] == ["/uuid/start", "/uuid/1"]


def test_a_long_body_is_cut(check: Check) -> None:
    with Telling(Job(ping=check.url)) as telling:
        telling.ended(Summary(output="x" * 200_000))
    assert len(check.heard[1][1]) == 100_000


@pytest.mark.parametrize("url", ["http://hc.example.com/uuid", "ftp://x/y", "uuid", "https://", "https://[::1/x"])
def test_a_ping_goes_by_https_or_to_this_machine(url: str) -> None:
    with pytest.raises(JobError, match="ping: the URL must look like") as caught, Telling(Job(ping=url)):
        pass
    assert "uuid" not in str(caught.value).replace("https://host/uuid", "")


def test_a_ping_ignores_netrc_and_proxies_for_this_machine(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Telling(Job(ping=check.url)) as telling:
        telling.ended(Summary())
    assert [path for path, _ in check.heard] == ["/uuid/start", "/uuid/0"]


# All three, by a run


def test_a_run_tells_all_of_them(tmp_path: Path, cli: Command, echo: Embedded, check: Check) -> None:
    (tmp_path / "in.csv").write_text("id,prompt\n1,canary question\n2,\n")
    told = ["--log-file", "run.log", "--metrics-file", "run.prom", "--ping", check.url]
    ended = cli("run", "in.csv", "-o", "out.csv", *told, env=known(echo))
    assert ended.code == 1
    events = [line["event"] for line in lines(tmp_path / "run.log")]
    assert events == ["start", "row", "end"]
    assert samples(tmp_path / "run.prom")['ails_batch_exit_code batch="run"'] == 1
    assert [path for path, _ in check.heard] == ["/uuid/start", "/uuid/1"]
    for text in (*(tmp_path / name for name in ("run.log", "run.prom")),):
        assert "canary" not in text.read_text()
    assert check.url.encode() not in (tmp_path / "out.csv.journal").read_bytes()


def test_the_library_tells_them_too(tmp_path: Path, echo: Embedded, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in known(echo).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    batch.run(batch.Job(input=str(tmp_path / "in.csv"), output=str(tmp_path / "out.csv"), ping=check.url))
    assert [path for path, _ in check.heard] == ["/uuid/start", "/uuid/0"]
