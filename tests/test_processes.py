"""Prompts sent by processes of their own: the same run, the same output."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batch
from batch.gateway.embedded import Embedded
from batch.judge import Stop
from batch.tally import Snapshot

from .conftest import known
from .hostile import KEY, SECRET, Hostile


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in {"AILS_API_KEY": KEY, "AILS_SECRET": SECRET, "AILS_MODEL": "m"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def prompts(rows: int, same: bool = False) -> None:
    Path("in.csv").write_text("id,prompt\n" + "".join(f"{row:03},what is {0 if same else row}?\n" for row in range(rows)))


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if name != "latency_s"} for row in csv.DictReader(file)]


def job(url: str, output: str = "out.csv", **settings: Any) -> batch.Job:
    given = {"input": "in.csv", "output": output, "endpoint": url, "engine": "processes", "processes": 2, **settings}
    return batch.Job(**given)


def children() -> dict[int, str]:
    """The sending processes of this one, with their arguments."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    found = (line.strip().partition(" ") for line in listed.splitlines() if "batch.engines.child" in line)
    return {int(pid): arguments for pid, _, arguments in found}


def test_processes_give_the_output_of_threads(folder: Path, echo: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in known(echo).items():
        monkeypatch.setenv(name, value)
    prompts(200)
    one = batch.run(job(echo.url, "one.csv", engine="threads"))
    two = batch.run(job(echo.url, "two.csv"))
    assert (one.exit_code, two.exit_code, two.requests) == (0, 0, 200)
    assert table("one.csv") == table("two.csv")
    assert children() == {}


def test_equal_prompts_never_share_a_timestamp(folder: Path, server: Hostile) -> None:
    prompts(40, same=True)
    summary = batch.run(job(server.url("signed"), concurrency=40))
    assert (summary.ok, summary.requests) == (40, 40)


def test_failures_are_tried_again_and_end_as_the_right_rows(folder: Path, server: Hostile) -> None:
    prompts(3)
    summary = batch.run(job(server.url("status_500"), attempts=2))
    assert (summary.exit_code, summary.kinds, summary.requests) == (1, {"transient": 3}, 6)
    summary = batch.run(job(server.url("status_422"), "other.csv"))
    assert (summary.kinds, summary.requests) == ({"refused": 3}, 3)


def test_a_refused_key_ends_the_run(folder: Path, server: Hostile) -> None:
    prompts(30)
    summary = batch.run(job(server.url("status_401"), concurrency=1))
    assert (summary.exit_code, summary.pending) == (4, 30)


def test_a_killed_child_costs_no_row(folder: Path, server: Hostile) -> None:
    prompts(60)
    killed = threading.Event()

    def watch(now: Snapshot) -> None:
        if now.requests >= 10 and not killed.is_set():
            killed.set()
            os.kill(next(iter(children())), signal.SIGKILL)

    summary = batch.run(job(server.url("good"), rpm=1200), watch=watch)
    assert killed.is_set()
    assert (summary.exit_code, summary.ok) == (0, 60)


def test_a_stopped_run_leaves_no_child_and_goes_on(folder: Path, server: Hostile) -> None:
    prompts(60)
    stop = Stop()

    def watch(now: Snapshot) -> None:
        if now.requests >= 10:
            stop.interrupt(signal.SIGTERM)

    first = batch.run(job(server.url("good"), rpm=1200), watch=watch, stop=stop)
    assert (first.exit_code, first.ok + first.pending) == (143, 60)
    assert children() == {}
    second = batch.run(job(server.url("good")))
    assert (second.ok, second.requests) == (60, first.pending)


def test_children_know_their_secrets_from_no_argument(folder: Path, server: Hostile) -> None:
    prompts(30)
    seen: list[str] = []

    def watch(now: Snapshot) -> None:
        seen.extend(children().values())

    batch.run(job(server.url("good"), rpm=1200), watch=watch)
    assert seen
    assert SECRET not in "".join(seen)
