"""The whole trip, in this process, against a server that behaves badly in every way."""

from __future__ import annotations

import contextlib
import csv
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batch
from batch.errors import Busy, JobError
from batch.judge import Stop
from batch.tally import Snapshot
from batch.trip import Watch

from .hostile import Hostile


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AILS_API_KEY", "k" * 24)
    monkeypatch.setenv("AILS_SECRET", "s" * 32)
    monkeypatch.setenv("AILS_MODEL", "m")
    return tmp_path


def ask(
    folder: Path, url: str, rows: int = 1, watch: Watch | None = None, **settings: Any
) -> tuple[batch.Summary, list[dict[str, str]]]:
    (folder / "in.csv").write_text("id,prompt\n" + "".join(f"{row:03},what is {row}?\n" for row in range(rows)))
    given = {
        "input": "in.csv",
        "output": "out.csv",
        "endpoint": url,
        "attempts": 2,
        "timeout": 1.0,
        "max_outage": 1.0,
        **settings,
    }
    summary = batch.run(batch.Job(**given), watch=watch)
    if not (folder / "out.csv").exists():
        return summary, []
    with (folder / "out.csv").open(newline="", encoding="utf-8") as file:
        return summary, list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("behaviour", "kind", "requests"),
    [
        ("html", "bad_body", 2),
        ("empty", "bad_body", 2),
        ("no_content", "bad_body", 2),
        ("nan", "bad_body", 2),
        ("infinity", "bad_body", 2),
        ("deep", "bad_body", 2),
        ("invalid_utf8", "bad_body", 2),
        ("duplicate_keys", "bad_body", 2),
        ("huge_number", "bad_body", 2),
        ("list", "bad_body", 2),
        ("no_choices", "bad_body", 2),
        ("null_content", "bad_body", 2),
        ("two_answers", "bad_body", 2),
        ("half_without_length", "bad_body", 2),
        ("cut_gzip", "bad_body", 2),
        ("bad_gzip", None, 2),
        ("half", "transient", 2),
        ("cut_chunk", "transient", 2),
        ("bad_chunk", "transient", 2),
        ("resets_half_way", "transient", 2),
        ("slow_body", "transient", 2),
        ("slow_head", "transient", 2),
        ("status_500", "transient", 2),
        ("bomb", "too_large", 1),
        ("large", "too_large", 1),
        ("status_400", "refused", 1),
        ("status_422", "refused", 1),
        ("escapes", "refused", 1),
        ("wrong_retry_after", "pending", None),
    ],
)
def test_a_hostile_answer_ends_as_the_right_row(
    server: Hostile, folder: Path, behaviour: str, kind: str | None, requests: int | None
) -> None:
    slow: dict[str, Any] = {} if behaviour.startswith("slow") else {"timeout": 30.0}
    summary, (row,) = ask(folder, server.url(behaviour), **slow)
    assert row["error_kind"] == kind or (kind is None and row["error_kind"] in ("bad_body", "transient"))
    assert row["id"] == "000"
    assert row["response"] == ""
    assert row["error"].isprintable()
    assert len(row["error"]) < 700
    assert summary.exit_code == (75 if kind == "pending" else 1)
    assert requests is None or (row["attempts"], summary.requests) == (str(requests), requests)


def test_a_bomb_a_row_leaves_memory_flat(server: Hostile, folder: Path) -> None:
    ask(folder, server.url("good"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary, _ = ask(folder, server.url("bomb"), rows=8, concurrency=2, timeout=60.0)
    assert summary.kinds == {"too_large": 8}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120 * 1024


@pytest.mark.parametrize("behaviour", ["status_302", "status_307"])
def test_a_redirect_ends_the_run_and_leaves_the_rows_pending(server: Hostile, folder: Path, behaviour: str) -> None:
    summary, rows = ask(folder, server.url(behaviour), rows=5, concurrency=1)
    assert (summary.exit_code, summary.pending, summary.requests) == (4, 5, 1)
    assert {row["error_kind"] for row in rows} == {"pending"}


def test_no_quota_ends_the_run(server: Hostile, folder: Path) -> None:
    summary, _ = ask(folder, server.url("quota"), rows=9, concurrency=1)
    assert (summary.exit_code, summary.pending, summary.requests) == (4, 9, 3)


def test_a_misspelt_model_ends_the_run_and_the_rows_stay_pending(server: Hostile, folder: Path) -> None:
    summary, rows = ask(folder, server.url("status_404"), rows=50, concurrency=1)
    assert (summary.exit_code, summary.requests, summary.failed, summary.pending) == (4, 20, 0, 50)
    assert "words of 404" in summary.error
    assert len(rows) == 50


def test_refused_rows_are_asked_again_only_when_told(server: Hostile, folder: Path) -> None:
    url = server.url("status_422")
    assert ask(folder, url)[0].requests == 1
    assert ask(folder, url)[0].requests == 0
    assert ask(folder, url, retry_failed=True)[0].requests == 1


def test_failed_rows_are_asked_again_by_the_same_command(server: Hostile, folder: Path) -> None:
    endpoint = batch.Endpoint(url=server.url("status_500"), name="one")
    ask(folder, "", endpoint=endpoint, rows=2)
    mended = batch.Endpoint(url=server.url("good"), name="one")
    summary, rows = ask(folder, "", endpoint=mended, rows=2)
    assert (summary.exit_code, summary.requests, [row["error"] for row in rows]) == (0, 2, ["", ""])


def test_halt_ends_a_failing_run(server: Hostile, folder: Path) -> None:
    summary, rows = ask(folder, server.url("status_500"), rows=40, concurrency=2, attempts=1, halt="fail=5")
    assert summary.exit_code == 6
    assert 5 <= summary.failed <= 7
    assert len(rows) == 40


def test_tolerated_failures_are_no_failure(server: Hostile, folder: Path) -> None:
    assert ask(folder, server.url("status_422"), rows=2, tolerate="fail=2")[0].exit_code == 0
    assert ask(folder, server.url("status_422"), rows=2, tolerate="fail=1", retry_failed=True)[0].exit_code == 1


def test_the_deadline_ends_the_run(server: Hostile, folder: Path) -> None:
    summary, rows = ask(folder, server.url("silent"), rows=3, timeout=1.0, attempts=9, deadline=0.5)
    assert (summary.exit_code, len(rows)) == (6, 3)


def test_the_deadline_ends_a_pipe_that_never_ends(server: Hostile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.trip.AFTER_SIGNAL", 0.1)
    os.mkfifo("endless.jsonl")

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), Path("endless.jsonl").open("wb", buffering=0) as pipe:
            while True:
                pipe.write(b'{"prompt": "again"}\n' * 100)

    writer = threading.Thread(target=write)
    writer.start()
    job = batch.Job(input="endless.jsonl", output="out.jsonl", endpoint=server.url("good"), deadline=0.5, concurrency=2)
    summary = batch.run(job)
    writer.join()
    assert (summary.exit_code, summary.error) == (6, "stopped at --deadline 0.5 s")
    assert summary.pending


def test_a_stopped_run_names_what_is_left_and_goes_on(server: Hostile, folder: Path) -> None:
    stop, seen = Stop(), []

    def watch(now: Snapshot) -> None:
        seen.append(now)
        if now.requests >= 5:
            stop.interrupt(signal.SIGTERM)

    (folder / "in.csv").write_text("prompt\n" + "".join(f"p{row}\n" for row in range(30)))
    job = batch.Job(input="in.csv", output="out.csv", endpoint=server.url("good"), rpm=600, concurrency=4)
    first = batch.run(job, watch=watch, stop=stop)
    assert first.exit_code == 143
    assert first.ok + first.pending == first.rows == 30
    assert first.pending
    second = batch.run(job)
    assert (second.exit_code, second.ok, second.requests, second.cached) == (0, 30, first.pending, first.ok)
    assert seen[-1].done <= 30


def test_a_run_that_has_read_everything_is_bound_by_the_server_not_by_its_input(server: Hostile, folder: Path) -> None:
    summary, _ = ask(folder, server.url("silent"), rows=2, timeout=1.0, attempts=1)
    assert summary.bound_by == "server"


def test_a_second_run_of_the_same_output_is_told_who_is_busy(server: Hostile, folder: Path) -> None:
    began = threading.Event()

    def watch(_: Snapshot) -> None:
        began.set()

    (folder / "in.csv").write_text("prompt\nx\n")
    job = batch.Job(input="in.csv", output="out.csv", endpoint=server.url("silent"), timeout=2.0, attempts=1)
    thread = threading.Thread(target=lambda: batch.run(job, watch=watch))
    thread.start()
    assert began.wait(30)
    with pytest.raises(Busy, match="held by process"):
        batch.run(job)
    thread.join()


def test_secrets_are_not_part_of_a_job(folder: Path) -> None:
    with pytest.raises(JobError, match="no endpoint"):
        batch.run(batch.Job(input="in.csv", output="out.csv"))


def test_what_the_echo_answered_is_asked_again_once_there_is_another_model(folder: Path) -> None:
    echoed, rows = ask(folder, "embedded:echo", rows=2, parameters={"max_tokens": 4})
    assert (echoed.exit_code, echoed.requests) == (0, 2)
    assert {row["answer_model"] for row in rows} == {"echo-1"}
    assert ask(folder, "embedded:echo", rows=2, parameters={"max_tokens": 4})[0].requests == 0
    real, rows = ask(folder, "embedded:local", rows=2, parameters={"max_tokens": 4}, timeout=60.0)
    assert (real.exit_code, real.requests) == (0, 2)
    assert {row["answer_model"] for row in rows} == {"smollm2-135m-instruct-q4_1"}


def test_an_interrupt_while_the_last_rows_are_out_ends_the_run_in_order(server: Hostile, folder: Path) -> None:
    sent = threading.Event()

    def watch(now: Snapshot) -> None:
        if now.in_flight == 2 and not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGINT)  # no handler of ours: KeyboardInterrupt, in the main thread

    summary, rows = ask(folder, server.url("silent"), rows=2, watch=watch, attempts=2)
    assert (summary.exit_code, len(rows)) == (130, 2)
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("pulse", "ask-0")]
