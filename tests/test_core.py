"""A run that keeps a core busy keeps its threads on one, where there is room, and gives the others back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batch
from batch.cli.core import BETTER, CROWDED, EVERY, Core, Ticks, chosen, ticks
from batch.tally import Snapshot

from .counting import Counting

if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
    pytest.skip("threads cannot be moved here: one core, or another system", allow_module_level=True)

SHARES = st.dictionaries(st.integers(0, 7), st.floats(0, 1), min_size=1)


def snapshot(in_flight: int) -> Snapshot:
    return Snapshot(None, False, 0, 0, 0, 0, 0, 0, 0, 0, None, in_flight, 64, "cpu", "")


class Machine:
    """Cores as busy as a test says; time goes on before every look.

    Attributes:
        others: How much of each core other programs use.
        ours: How much of a core this process would use.
    """

    def __init__(self, cores: set[int]) -> None:
        self.cores = cores
        self.others = dict.fromkeys(cores, 0.0)
        self.ours = 1.0
        self.now = 0.0
        self._spent = 0.0
        self._busy = dict.fromkeys(cores, 0.0)
        self.core = Core(lambda: self.now, lambda: self._spent, self._ticks)

    def _ticks(self) -> Ticks:
        return {core: (round(100 * busy), round(100 * self.now)) for core, busy in self._busy.items()}

    def look(self, in_flight: int = 64) -> set[int]:
        """Where this thread may run after one more look."""
        on = os.sched_getaffinity(0)
        for core in self.cores:
            taken = min(self.ours / len(on), 1 - self.others[core]) if core in on else 0.0
            self._busy[core] += EVERY[1] * (self.others[core] + taken)
            self._spent += EVERY[1] * taken
        self.now += EVERY[1]
        self.core(snapshot(in_flight))
        return os.sched_getaffinity(0)


@pytest.fixture
def machine() -> Iterator[Machine]:
    cores = os.sched_getaffinity(0)
    yield Machine(cores)
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def test_a_busy_run_is_on_the_core_that_others_use_least(machine: Machine) -> None:
    first, second = sorted(machine.cores)[:2]
    machine.others |= dict.fromkeys(machine.cores, 0.4) | {second: 0.1}
    machine.look()  # from which its own use, spread over all cores, can be told only roughly
    assert machine.look() == {second}
    assert machine.look() == {second}, "its own use is no reason to leave"
    machine.others |= {first: 0.0}
    assert machine.look() == {second}, "a little more room is none either"
    machine.others |= {second: 0.5}
    assert machine.look() == {first}


def test_all_cores_are_given_back_once_nothing_is_in_flight(machine: Machine) -> None:
    assert len(machine.look()) == 1
    assert machine.look(in_flight=0) == machine.cores


def test_a_run_that_needs_little_stays_where_the_kernel_has_it(machine: Machine) -> None:
    machine.ours = 0.1
    assert machine.look() == machine.cores


def test_where_all_cores_are_busy_the_kernel_decides(machine: Machine) -> None:
    machine.others = dict.fromkeys(machine.cores, 0.7)
    assert machine.look() == machine.cores
    machine.others = dict.fromkeys(machine.cores, 0.2)
    assert len(machine.look()) == 1
    machine.others = dict.fromkeys(machine.cores, 0.6)
    assert machine.look() == machine.cores


@given(SHARES, st.none() | st.integers(0, 7))
def test_no_core_is_chosen_that_others_use_most_of(others: dict[int, float], core: int | None) -> None:
    found = chosen(others, core)
    assert found is None or others[found] <= CROWDED
    assert (found is None) == (min(others.values()) > CROWDED)


@given(SHARES)
def test_a_choice_stands_as_long_as_nothing_changes(others: dict[int, float]) -> None:
    found = chosen(others, None)
    assert chosen(others, found) == found
    if found is not None:
        assert chosen(others | {found: min(CROWDED, min(others.values()) + BETTER)}, found) == found


class Run:
    """One of several runs on one simulated machine, each of which would use a whole core."""

    def __init__(self, seed: int, clock: Callable[[], float], ticks: Callable[[], Ticks]) -> None:
        self.on = os.sched_getaffinity(0)
        self.spent = 0.0
        self.core = Core(clock, lambda: self.spent, ticks, self.move, seed)

    def move(self, cores: set[int]) -> None:
        self.on = cores


@given(st.integers(0, 10**6))
def test_two_runs_that_began_together_soon_have_a_core_each(seed: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    now, busy = 0.0, dict.fromkeys(cores, 0.0)

    def ticks() -> Ticks:
        return {core: (round(100 * used), round(100 * now)) for core, used in busy.items()}

    runs = [Run(seed + number, lambda: now, ticks) for number in range(2)]
    for _ in range(600):
        now += 0.1
        here = Counter(core for run in runs for core in run.on if len(run.on) == 1)
        for run in runs:
            for core in run.on:
                share = 1 / here[core] if len(run.on) == 1 else 1 / len(cores)
                busy[core] += 0.1 * share
                run.spent += 0.1 * share
        for run in runs:
            run.core(snapshot(64))
    assert all(len(run.on) == 1 for run in runs)
    assert runs[0].on != runs[1].on


def test_the_machine_tells_how_busy_its_cores_are() -> None:
    before = ticks()
    assert os.sched_getaffinity(0) <= before.keys()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    now = ticks()
    assert sum(now[core][0] - before[core][0] for core in now) > 0
    assert all(busy <= there for busy, there in now.values())


def test_the_command_keeps_its_threads_on_one_core_and_the_library_touches_nothing(server: Counting, folder: Path) -> None:
    lines = "".join(f'{{"prompt": "question {number}"}}\n' for number in range(60_000))
    Path("in.jsonl").write_text(lines)
    command = [sys.executable, "-m", "batch", "run", "in.jsonl", "-o", "out.jsonl", "--quiet"]
    began, before = time.monotonic(), ticks()
    run = subprocess.Popen(command, env=dict(os.environ))
    try:
        while not (moved := len(os.sched_getaffinity(run.pid)) == 1) and time.monotonic() - began < 15:
            assert run.poll() is None
            time.sleep(0.05)
        now, cores = ticks(), len(os.sched_getaffinity(0))
        busy = sum((now[core][0] - before[core][0]) / (now[core][1] - before[core][1]) for core in before)
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait()
    assert moved or busy > 0.9 * cores, "there was room"
    allowed = os.sched_getaffinity(0)
    seen: list[set[int]] = []
    batch.run(
        batch.Job(input="in.jsonl", output="few.jsonl", limit=500), watch=lambda now: seen.append(os.sched_getaffinity(0))
    )
    assert seen
    assert all(cores == allowed for cores in seen)
