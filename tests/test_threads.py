"""Prompts worked on by threads of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from batch.clock import SystemClock
from batch.engines.threads import FEW, QUEUED, Threads
from batch.records import Prompt


def until(true: Callable[[], bool]) -> bool:
    """Wait until it is true; False when half a minute was not enough."""
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    return true()


def prompt(index: int) -> Prompt:
    return Prompt(index, index.to_bytes(16, "big"), 0, b"{}", "")


def test_every_prompt_is_worked_on_once() -> None:
    done: list[int] = []
    threads: Threads[Prompt] = Threads(lambda one: done.append(one.index), lambda: 8, threading.Event())
    for index in range(1000):
        assert threads.put(prompt(index))
    threads.finish()
    assert threads.wait(30)
    assert sorted(done) == list(range(1000))


def test_no_more_of_the_input_is_taken_than_the_queue_holds() -> None:
    gate, taken = threading.Event(), []

    def work(one: Prompt) -> None:
        gate.wait(30)

    threads = Threads(work, lambda: 4, threading.Event())

    def feed() -> None:
        for index in range(100):
            threads.put(prompt(index))
            taken.append(index)

    feeder = threading.Thread(target=feed)
    feeder.start()
    feeder.join(1.2)
    assert feeder.is_alive()
    assert len(taken) <= 4 + QUEUED * 4 + 1
    gate.set()
    feeder.join(30)
    threads.finish()
    assert threads.wait(30)


def test_never_more_threads_than_the_window_is_wide() -> None:
    width, names = 2, set()
    threads: Threads[Prompt] = Threads(lambda one: names.add(threading.current_thread().name), lambda: width, threading.Event())
    for index in range(200):
        threads.put(prompt(index))
    assert len(names) <= 2
    width = 5
    for index in range(200):
        threads.put(prompt(index))
    threads.finish()
    assert threads.wait(30)
    assert len(names) <= 5


def test_more_threads_are_started_only_while_the_processor_has_time_for_them() -> None:
    now, used, gate = 100.0, 0.0, threading.Semaphore(0)
    names: set[str] = set()
    done: list[int] = []

    class Stepped(SystemClock):
        def monotonic(self) -> float:
            return now

    def work(one: Prompt) -> None:
        names.add(threading.current_thread().name)
        gate.acquire()
        done.append(one.index)

    def put_after(ended: int, index: int) -> None:
        gate.release(ended - len(done))
        assert until(lambda: len(done) == ended and len(names) >= FEW)
        assert threads.put(prompt(index))

    threads = Threads(work, lambda: 64, threading.Event(), clock=Stepped(), cpu=lambda: used)
    for index in range(40):
        assert threads.put(prompt(index))
    now, used = now + 1, used + 1
    put_after(5, 40)
    now, used = now + 1, used + 1
    put_after(10, 41)
    assert len(names) == FEW
    now += 1
    put_after(15, 42)
    assert until(lambda: len(names) == 2 * FEW)
    gate.release(64)
    threads.finish()
    assert threads.wait(30)
    assert sorted(done) == list(range(43))


def test_there_are_as_many_threads_as_the_window_is_wide_while_the_server_takes_its_time() -> None:
    all_there = threading.Barrier(65)

    def work(one: Prompt) -> None:
        all_there.wait(30)

    threads = Threads(work, lambda: 64, threading.Event())
    for index in range(64):
        assert threads.put(prompt(index))
    feeder = threading.Thread(target=lambda: [threads.put(prompt(index)) for index in range(64, 64 * 4)])
    feeder.start()
    for _ in range(4):
        all_there.wait(30)
    feeder.join(30)
    threads.finish()
    assert threads.wait(30)


@pytest.mark.parametrize("finished", [True, False])
def test_threads_are_started_for_what_waits_also_when_nothing_new_comes(*, finished: bool) -> None:
    together = threading.Barrier(50)
    done: list[int] = []

    def work(number: int) -> None:
        together.wait(60)
        done.append(number)

    threads = Threads(work, lambda: 50, threading.Event(), cpu=lambda: 0.0)
    for number in range(100):  # as many as the queue takes at once
        threads.put(number)
    if finished:
        threads.finish()
    assert until(lambda: len(done) == 100)
    if not finished:
        threads.finish()
    assert threads.wait(30)


def test_stopping_drops_what_is_queued() -> None:
    stopping, started, gate, done = threading.Event(), threading.Event(), threading.Event(), []

    def work(one: Prompt) -> None:
        started.set()
        gate.wait(30)
        done.append(one.index)

    threads = Threads(work, lambda: 1, stopping)
    threads.put(prompt(0))
    threads.put(prompt(1))
    assert started.wait(30)
    stopping.set()
    assert not threads.put(prompt(2))
    gate.set()
    threads.finish()
    assert threads.wait(30)
    assert done == [0]


def test_what_was_admitted_is_seen_to_its_end_and_the_rest_is_dropped() -> None:
    stopping, permits, done = threading.Event(), threading.Semaphore(3), []

    def admit(one: Prompt) -> bool:
        while not permits.acquire(timeout=0.01):
            if stopping.is_set():
                return False
        return True

    threads: Threads[Prompt] = Threads(lambda one: done.append(one.index), lambda: 8, stopping, admit=admit)
    for index in range(8):
        assert threads.put(prompt(index))
    assert until(lambda: len(done) == 3)
    stopping.set()
    assert not threads.put(prompt(8))
    threads.finish()
    assert threads.wait(30)
    assert sorted(done) == [0, 1, 2]


def test_a_run_that_is_stopping_before_its_first_prompt_starts_no_threads() -> None:
    stopping, before = threading.Event(), threading.active_count()
    stopping.set()
    threads: Threads[Prompt] = Threads(lambda one: None, lambda: 8, stopping, admit=lambda one: True)
    assert not any(threads.put(prompt(index)) for index in range(100))
    assert threading.active_count() == before
    threads.finish()
    assert threads.wait(1)


def test_where_the_machine_gives_no_more_threads_those_there_are_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    threads: Threads[Prompt] = Threads(lambda one: done.append(one.index), lambda: 8, threading.Event())
    assert threads.put(prompt(0))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for index in range(1, 50):
            assert threads.put(prompt(index))
    threads.finish()
    assert threads.wait(30)
    assert sorted(done) == list(range(50))
