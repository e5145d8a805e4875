"""Prompts sent by processes of their own: the same run, the same output."""

from __future__ import annotations

import csv
import io
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import batch
from batch.asking import Asking
from batch.engines.child import frame, read
from batch.engines.processes import End, Processes
from batch.errors import BatchError
from batch.gateway.embedded import Embedded
from batch.judge import Stop
from batch.pace import Pace
from batch.records import Answer, Failure, Outcome, Prompt
from batch.signature import Credentials
from batch.tally import Snapshot
from batch.wires import WIRES

from .conftest import known
from .hostile import BEHAVIOURS, KEY, SECRET, Hostile, Received


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


def deadly(name: str, *requests: int) -> str:
    """The name of a behaviour that is good, but the moment these requests arrive a sending process is killed."""
    arrived = itertools.count(1)
    killed: set[int] = set()

    def behaviour(server: Hostile, connection: socket.socket, received: Received) -> bool:
        if next(arrived) in requests:
            while not (living := children().keys() - killed):
                time.sleep(0.01)
            killed.add(pid := living.pop())
            os.kill(pid, signal.SIGKILL)
        return BEHAVIOURS["good"](server, connection, received)

    BEHAVIOURS[name] = behaviour
    return name


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


def test_children_that_are_killed_under_load_cost_no_row(folder: Path, server: Hostile) -> None:
    prompts(400)
    url = server.url(deadly("two_deaths", 40, 150))
    summary = batch.run(job(url, concurrency=32))
    assert (summary.exit_code, summary.ok, summary.error) == (0, 400, "")
    assert summary.requests >= 400
    assert children() == {}


def test_three_deaths_end_the_run(folder: Path, server: Hostile) -> None:
    prompts(2000)
    url = server.url(deadly("three_deaths", 40, 150, 300))
    summary = batch.run(job(url, concurrency=32, processes=1))
    assert (summary.exit_code, summary.error) == (70, "3 sending processes ended on their own; try --engine threads")
    assert summary.pending
    assert summary.ok + summary.pending == 2000
    assert children() == {}
    again = batch.run(job(url, concurrency=32))
    assert again.ok == 2000
    assert 1 <= again.possibly_charged_twice <= 32  # what the third one had in hand


# The engine alone


@dataclass
class Home:
    """An engine of one child, and what came home from it."""

    engine: Processes
    ends: list[End] = field(default_factory=list)

    def ask(self, rows: int) -> list[End]:
        """Ask so many prompts and wait until they have come home."""
        self.ends.clear()
        for row in range(rows):
            body, content = WIRES["ails"].request("m", [{"role": "user", "content": f"what is {row}?"}], {})
            assert self.engine.put(Prompt(row, row.to_bytes(16, "big"), 0, body, content))
        assert self.engine.wait(60)
        return self.ends


Open = Callable[..., Home]


@pytest.fixture
def opened(server: Hostile) -> Iterator[Open]:
    """Opens an engine; what is given goes to its `Asking`."""
    homes: list[Home] = []

    def open_engine(**given: Any) -> Home:
        asking = Asking(lambda prompt: None, Pace(concurrency=32), **given)  # type: ignore[arg-type, return-value]
        ends: list[End] = []
        engine = Processes(
            asking,
            lambda prompt: True,
            lambda prompt, end: ends.append(end),
            threading.Event(),
            arguments={"url": server.url("good"), "protocol": "ails", "connections": 8, "timeout": 60.0},
            credentials=Credentials(KEY, SECRET),
            processes=1,
            threads=8,
        )
        homes.append(Home(engine, ends))
        return homes[-1]

    yield open_engine
    for home in homes:
        home.engine.close()
    assert children() == {}


def the_child() -> int:
    """The only child, once it is there."""
    while len(found := children()) != 1:
        time.sleep(0.01)
    return next(iter(found))


def kill(pid: int) -> None:
    """Kill a child, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    while pid in children():
        time.sleep(0.01)


def answered(ends: list[End]) -> int:
    return sum(isinstance(end, Outcome) and isinstance(end.result, Answer) for end in ends)


def test_prompts_put_while_a_child_is_replaced_come_home(opened: Open) -> None:
    home = opened()
    assert answered(home.ask(20)) == 20
    for _ in range(2):
        killer = threading.Timer(0.02, kill, (the_child(),))
        killer.start()
        assert answered(home.ask(200)) == 200
        killer.join()


def hand_over(home: Home, rows: int) -> None:
    """More than a pipe holds."""
    home.ends.clear()
    for row in range(rows):
        body, content = WIRES["ails"].request("m", [{"role": "user", "content": f"{row}" * 16_384}], {})
        assert home.engine.put(Prompt(row, row.to_bytes(16, "big"), 0, body, content))


def test_a_child_that_is_stopped_holds_nobody_up_and_goes_on(opened: Open) -> None:
    home = opened()
    assert answered(home.ask(1)) == 1
    os.kill(the_child(), signal.SIGSTOP)
    hand_over(home, 32)
    assert home.ends == []
    os.kill(the_child(), signal.SIGCONT)
    assert home.engine.wait(60)
    assert answered(home.ends) == 32


def test_a_child_that_stays_stopped_is_left_behind(opened: Open) -> None:
    home = opened()
    assert answered(home.ask(1)) == 1
    os.kill(the_child(), signal.SIGSTOP)
    hand_over(home, 32)
    home.engine.close()
    assert children() == {}


def test_a_child_that_dies_with_a_full_pipe_costs_no_row(opened: Open) -> None:
    home = opened()
    assert answered(home.ask(1)) == 1
    os.kill(pid := the_child(), signal.SIGSTOP)
    hand_over(home, 32)
    kill(pid)
    assert home.engine.wait(60)
    assert answered(home.ends) == 32


def test_a_child_that_died_idle_too_often_ends_the_run_with_the_next_prompt(opened: Open) -> None:
    home = opened()
    for deaths in range(1, 4):
        assert answered(home.ask(5)) == 5
        kill(the_child())
        while home.engine._deaths < deaths:  # a prompt put before that is one that the process had in hand
            time.sleep(0.01)
    ends = home.ask(5)
    assert {str(end) for end in ends} == {"3 sending processes ended on their own; try --engine threads"}
    assert {type(end) for end in ends} == {BatchError}


def test_a_bug_in_the_bookkeeping_costs_its_row_alone(opened: Open) -> None:
    calls = itertools.count()

    def attempted(attempt: object, first: bool) -> None:
        if next(calls) == 3:
            raise ValueError("no such thing")

    home = opened(attempted=attempted)
    ends = home.ask(20)
    assert answered(ends) == 19
    (failed,) = (end.result for end in ends if isinstance(end, Outcome) and isinstance(end.result, Failure))
    assert (failed.kind, failed.message) == ("internal", "a bug: ValueError: no such thing")
    assert answered(home.ask(20)) == 20


@pytest.mark.parametrize("left", [0, 2, 4, 10])
def test_half_a_frame_is_the_end_of_a_process(left: int) -> None:
    with pytest.raises(EOFError):
        read(io.BytesIO(frame([(1, "a result")])[:left]))
