"""Prompts sent by this process, and the threads that wait so that its loop need not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from batch.asking import Asking
from batch.client import Client
from batch.clock import SystemClock
from batch.engines.pool import FEW, Pool
from batch.engines.threads import QUEUED, Threads
from batch.pace import Pace
from batch.records import Answer, Failure, Outcome, Prompt
from batch.signature import Credentials
from batch.wires import WIRES

from .hostile import KEY, SECRET, Hostile
from .waiting import until


def prompt(index: int) -> Prompt:
    body, signed = WIRES["ails"].request("m", [{"role": "user", "content": f"what is {index}?"}], {})
    return Prompt(index, index.to_bytes(16, "big"), 0, body, signed)


@dataclass
class Run:
    """An engine, the permits of its prompts, and what came home."""

    server: Hostile
    behaviour: str = "good"
    width: int = 8
    permits: int = 1_000_000
    stopping: threading.Event = field(default_factory=threading.Event)
    home: dict[int, Outcome | Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = Client(self.server.url(self.behaviour), "ails", Credentials(KEY, SECRET), connections=self.width)
        asking = Asking(self.client.call, Pace(), stopping=self.stopping)
        self.left = threading.Semaphore(self.permits)
        self.again: Callable[[], object] = lambda: None
        self.engine = Threads(asking, self.client.start, self.take_off, self.see_home, self.stopping, width=lambda: self.width)

    def take_off(self, one: Prompt, again: Callable[[], object]) -> bool | None:
        self.again = again
        if self.left.acquire(blocking=False):
            return True
        return False if self.stopping.is_set() else None

    def release(self, count: int = 1) -> None:
        self.left.release(count)
        self.again()

    def stop(self) -> None:
        self.stopping.set()
        self.again()

    def see_home(self, one: Prompt, work: Callable[[], Outcome | None]) -> bool:
        try:
            end: Outcome | Exception | None = work()
        except Exception as error:
            end = error
        if end is None:
            return False
        assert one.index not in self.home
        self.home[one.index] = end
        return True

    def close(self) -> None:
        self.engine.close()
        self.client.close()


Open = Callable[..., Run]


@pytest.fixture
def opened() -> Iterator[Open]:
    runs: list[Run] = []
    with Hostile() as server:

        def new(*arguments: str, **options: int) -> Run:
            runs.append(Run(server, *arguments, **options))  # type: ignore[arg-type]
            return runs[-1]

        yield new
        for run in runs:
            run.close()


def test_every_prompt_is_answered_once_over_no_more_connections_than_are_in_flight(opened: Open) -> None:
    run = opened("signed")

    def see_home(one: Prompt, work: Callable[[], Outcome | None]) -> bool:
        came = run.see_home(one, work)
        if came:
            run.release()
        return came

    run.left, run.engine._see_home = threading.Semaphore(8), see_home
    for index in range(1000):
        assert run.engine.put(prompt(index))
    run.engine.finish()
    assert run.engine.wait(60)
    assert sorted(run.home) == list(range(1000))
    assert all(isinstance(end, Outcome) and isinstance(end.result, Answer) for end in run.home.values())
    assert run.server.requests["signed"] == 1000
    assert run.server.connections <= 8


def test_what_is_refused_comes_home_as_well(opened: Open) -> None:
    run = opened("status_422")
    for index in range(20):
        run.engine.put(prompt(index))
    run.engine.finish()
    assert run.engine.wait(60)
    assert run.server.requests["status_422"] == 20
    assert [end.result.kind for end in run.home.values() if isinstance(end, Outcome) and isinstance(end.result, Failure)] == [
        "refused"
    ] * 20


def test_no_more_of_the_input_is_taken_than_the_queue_holds(opened: Open) -> None:
    run, taken = opened(width=4, permits=0), []

    def feed() -> None:
        for index in range(100):
            run.engine.put(prompt(index))
            taken.append(index)

    feeder = threading.Thread(target=feed)
    feeder.start()
    feeder.join(1.2)
    assert feeder.is_alive()
    assert len(taken) <= QUEUED * 4 + 1
    run.release(100)
    feeder.join(30)
    run.engine.finish()
    assert run.engine.wait(30)
    assert len(run.home) == 100


def test_what_was_admitted_is_seen_to_its_end_and_the_rest_is_dropped(opened: Open) -> None:
    run = opened(permits=3)
    for index in range(8):
        assert run.engine.put(prompt(index))
    assert until(lambda: len(run.home) == 3)
    run.stop()
    assert not run.engine.put(prompt(8))
    run.engine.finish()
    assert run.engine.wait(30)
    assert sorted(run.home) == [0, 1, 2]


def test_a_run_that_is_stopping_before_its_first_prompt_starts_no_threads(opened: Open) -> None:
    run, before = opened(), threading.active_count()
    run.stopping.set()
    assert not any(run.engine.put(prompt(index)) for index in range(100))
    assert threading.active_count() == before
    run.engine.finish()
    assert run.engine.wait(1)


def test_its_threads_end_with_it(opened: Open) -> None:
    before = set(threading.enumerate())
    run = opened()
    for index in range(50):
        run.engine.put(prompt(index))
    run.engine.finish()
    assert run.engine.wait(30)
    run.engine.close()
    # But for the watch over deadlines, which serves a whole process, and the server's own.
    names = ("loop", "hire", "ask-")
    assert not [one for one in set(threading.enumerate()) - before if one.name.startswith(names)]


def test_the_loop_sleeps_whatever_becomes_of_connections_that_nobody_uses(opened: Open) -> None:
    run = opened("answers_and_hangs_up")
    for index in range(20):
        run.engine.put(prompt(index))
    assert until(lambda: len(run.home) == 20)
    loop, rounds = run.engine._loop, []
    assert loop
    more = loop._more
    loop._more = lambda: rounds.append(0) or more()  # type: ignore[func-returns-value]
    loop.wake()
    time.sleep(0.5)
    assert len(rounds) <= 20
    for index in range(20, 40):
        run.engine.put(prompt(index))
    run.engine.finish()
    assert run.engine.wait(30)
    assert all(isinstance(end, Outcome) and end.answer for end in run.home.values())
    assert len(run.home) == 40


def test_a_bug_costs_its_row_alone(opened: Open) -> None:
    run = opened()
    start = run.client.start
    run.engine._start = lambda one, **how: start(one, **how) if one.index != 3 else 1 / 0  # type: ignore[assignment]
    for index in range(20):
        run.engine.put(prompt(index))
    run.engine.finish()
    assert run.engine.wait(30)
    assert isinstance(run.home.pop(3), ZeroDivisionError)
    assert len(run.home) == 19


def test_the_pool_works_on_each_item_once() -> None:
    done: list[int] = []
    pool: Pool[int] = Pool(done.append, lambda: 8)
    for number in range(1000):
        pool.put(number)
    pool.close()
    assert until(lambda: len(done) == 1000)
    assert sorted(done) == list(range(1000))


def test_the_pool_never_has_more_threads_than_it_may() -> None:
    width, names, done = 2, set(), []

    def work(number: int) -> None:
        names.add(threading.current_thread().name)
        done.append(number)

    pool: Pool[int] = Pool(work, lambda: width)
    for number in range(200):
        pool.put(number)
    assert until(lambda: len(done) == 200)
    assert len(names) <= 2
    width = 5
    for number in range(200):
        pool.put(number)
    pool.close()
    assert until(lambda: len(done) == 400)
    assert len(names) <= 5


def test_the_pool_grows_only_while_the_processor_has_time_for_more() -> None:
    now, used, gate = 100.0, 0.0, threading.Semaphore(0)
    names: set[str] = set()
    done: list[int] = []

    class Stepped(SystemClock):
        def monotonic(self) -> float:
            return now

    def work(number: int) -> None:
        names.add(threading.current_thread().name)
        gate.acquire()
        done.append(number)

    def end(ended: int) -> None:
        gate.release(ended - len(done))
        assert until(lambda: len(done) == ended and len(names) >= FEW)

    pool: Pool[int] = Pool(work, lambda: 64, clock=Stepped(), cpu=lambda: used)
    for number in range(43):
        pool.put(number)
    end(5)
    now, used = now + 1, used + 1
    end(10)
    now, used = now + 1, used + 1
    end(15)
    time.sleep(0.2)
    assert len(names) == FEW
    now += 1
    assert until(lambda: len(names) == 2 * FEW)
    gate.release(64)
    pool.close()
    assert until(lambda: len(done) == 43)


def test_the_pool_is_as_large_as_it_may_be_while_all_of_it_waits() -> None:
    all_there = threading.Barrier(51)
    done: list[int] = []

    def work(number: int) -> None:
        all_there.wait(60)
        done.append(number)

    pool: Pool[int] = Pool(work, lambda: 50, cpu=lambda: 0.0)
    for number in range(100):
        pool.put(number)
    for _ in range(2):
        all_there.wait(60)
    pool.close()
    assert until(lambda: len(done) == 100)


@pytest.mark.parametrize("given", [0, 1])
def test_where_the_machine_gives_no_more_threads_those_there_are_do_the_work(
    monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    done: list[int] = []
    pool: Pool[int] = Pool(done.append, lambda: 8)
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) > given:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for number in range(50):
            pool.put(number)
        assert until(lambda: len(done) == 50)
    pool.close()
    assert sorted(done) == list(range(50))
