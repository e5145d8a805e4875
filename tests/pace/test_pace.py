"""`Pace` among threads: nobody starves, everybody can be stopped, and real servers on loopback see what was promised."""

from __future__ import annotations

import http.client
import random
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch.errors import CallError, Dropped, Outage, Throttled, TooLarge, Unreachable
from batch.pace import Pace, Stopped, Turn, read_hints
from batch.records import Answer, Reply


def reply(seconds: float = 0.01, used: int | None = None) -> Reply:
    return Reply(Answer("", "m", "stop", used, 0 if used is not None else None, b"{}"), seconds)


class Stepped:
    """A clock that moves only when the test says so; whoever waits sleeps in truth until then."""

    def __init__(self) -> None:
        self._now = 0.0
        self._moved = threading.Condition()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        until = self._now + seconds
        with self._moved:
            while not event.is_set() and self._now < until:
                self._moved.wait(0.002)
        return event.is_set()

    def step(self, seconds: float) -> None:
        with self._moved:
            self._now += seconds
            self._moved.notify_all()


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_window_is_as_wide_as_it_was_told() -> None:
    pace = Pace(concurrency=2)
    assert pace.acquire()
    assert pace.acquire()
    thread, results = in_thread(pace.acquire)
    time.sleep(0.05)
    assert not results
    pace.release()
    thread.join()
    assert results == [True]
    assert pace.state().in_flight == 2


def test_who_does_not_wait_for_a_permit_is_told_once_to_ask_again() -> None:
    told: list[int] = []
    pace = Pace(concurrency=1)
    assert pace.ask(lambda: told.append(1))
    assert pace.ask(lambda: told.append(2)) is None
    assert not told
    pace.release()
    assert told == [2]
    assert pace.ask(lambda: told.append(3))
    pace.release()
    assert told == [2]
    assert pace.state().in_flight == 0


def test_who_does_not_wait_for_a_permit_is_told_when_there_will_be_none() -> None:
    told: list[int] = []
    pace = Pace(concurrency=1)
    assert pace.acquire()
    assert pace.ask(lambda: told.append(1)) is None
    pace.stop()
    assert told == [1]
    assert pace.ask(lambda: told.append(2)) is False


def test_a_place_in_line_says_when_to_look_again_and_is_woken_when_that_is_sooner() -> None:
    woken: list[int] = []
    clock = Stepped()
    pace = Pace(rpm=1, clock=clock)
    first = pace.place(0, lambda: woken.append(1)).turn()
    assert isinstance(first, Turn)
    place = pace.place(0, lambda: woken.append(2))
    pause = place.turn()
    assert pause == pytest.approx(60, abs=1)
    pace.set(rpm=600)
    assert woken == [2]
    pause = place.turn()
    assert isinstance(pause, float)
    assert pause == pytest.approx(0.1, abs=0.01)
    clock.step(pause)
    assert isinstance(place.turn(), Turn)


def test_a_place_that_is_given_up_goes_to_the_next() -> None:
    clock = Stepped()
    pace = Pace(rpm=60, clock=clock)
    pace.turn(0)
    woken: list[int] = []
    place, behind = pace.place(0, lambda: None), pace.place(0, lambda: woken.append(1))
    assert place.turn() == pytest.approx(1, abs=0.1)
    assert isinstance(behind.turn(), float)
    place.leave()
    assert woken
    assert behind.turn() == pytest.approx(1, abs=0.1)
    assert pace.state().waiting == 1


def test_a_place_ends_with_the_run() -> None:
    woken: list[int] = []
    pace = Pace(rpm=1)
    pace.turn(0)
    place = pace.place(0, lambda: woken.append(1))
    assert isinstance(place.turn(), float)
    pace.stop()
    assert woken
    with pytest.raises(Stopped):
        place.turn()
    assert pace.state().waiting == 0


def test_stopping_wakes_everybody() -> None:
    pace = Pace(rpm=1, concurrency=2)
    pace.acquire()
    pace.acquire()
    pace.turn(0).done(reply())
    waiting = [in_thread(pace.acquire), in_thread(lambda: pace.turn(0)), in_thread(lambda: pace.turn(0))]
    until(lambda: pace.state().waiting == 2)
    pace.stop()
    for thread, _ in waiting:
        thread.join(10)
    assert waiting[0][1] == [False]
    assert all(isinstance(results[0], Stopped) for _, results in waiting[1:])
    assert not pace.acquire()
    with pytest.raises(Stopped):
        pace.turn(0)


def test_a_request_larger_than_the_token_limit_is_told_so_at_once() -> None:
    with pytest.raises(TooLarge, match="5000 tokens"):
        Pace(tpm=4_000).turn(5_000)


def test_turns_come_in_the_order_of_arrival() -> None:
    def stand(number: int) -> None:
        pace.turn(0)
        order.append(number)

    clock = Stepped()
    pace = Pace(rpm=60, clock=clock, concurrency=64)
    order: list[int] = []
    threads = []
    for number in range(12):
        threads.append(in_thread(partial(stand, number))[0])
        until(lambda: pace.state().waiting + pace.state().out == len(threads))
    for served in range(1, 13):
        until(lambda: len(order) == served)  # noqa: B023 called at once
        clock.step(1.01)
    assert order == list(range(12))


def test_a_cancelled_turn_gives_its_time_back() -> None:
    clock = Stepped()
    pace = Pace(rpm=60, clock=clock)
    pace.turn(0).cancel()
    pace.turn(0)
    thread, results = in_thread(lambda: pace.turn(0))
    until(lambda: pace.state().waiting == 1)
    assert not results
    clock.step(1.01)
    thread.join(10)
    assert len(results) == 1


def test_a_new_rate_reaches_those_who_already_wait() -> None:
    clock = Stepped()
    pace = Pace(rpm=1, clock=clock)
    pace.turn(0)
    thread, results = in_thread(lambda: pace.turn(0))
    until(lambda: pace.state().waiting == 1)
    pace.set(rpm=600)
    clock.step(0.2)
    thread.join(10)
    assert len(results) == 1


def test_a_pause_holds_everybody_until_it_ends() -> None:
    pace = Pace()
    pace.set(paused=True)
    thread, results = in_thread(lambda: pace.turn(0))
    until(lambda: pace.state().waiting == 1)
    assert not pace.state().open
    assert not results
    pace.set(paused=False)
    thread.join(10)
    assert len(results) == 1


def test_estimates_that_were_too_high_give_time_back() -> None:
    clock = Stepped()
    pace = Pace(tpm=60_000, clock=clock)
    first = pace.turn(30_000)
    thread, results = in_thread(lambda: pace.turn(30_000))
    until(lambda: pace.state().waiting == 1)
    assert pace.state().bound_by == "tpm"
    first.done(reply(used=1_000))
    clock.step(31.5)
    thread.join(10)
    assert len(results) == 1


def test_an_outage_ends_the_wait() -> None:
    clock = Stepped()
    pace = Pace(max_outage=60.0, clock=clock, concurrency=8)
    for _ in range(20):
        assert not pace.turn(0).failed(Unreachable("connection refused")) or pace.state().open
        if not pace.state().open:
            break
    waiting = [in_thread(lambda: pace.turn(0)) for _ in range(4)]

    def stepping() -> bool:
        clock.step(1.0)
        time.sleep(0.002)
        return not any(thread.is_alive() for thread, _ in waiting)

    def probing() -> bool:
        for _, results in waiting:
            for turn in results[:]:
                if not isinstance(turn, Exception):
                    results.remove(turn)
                    turn.failed(Unreachable("connection refused"))  # type: ignore[attr-defined]
                    waiting.append(in_thread(lambda: pace.turn(0)))
        return stepping() and not any(not isinstance(turn, Exception) for _, results in waiting for turn in results)

    until(probing)
    ends = [results[0] for _, results in waiting if results]
    assert ends
    assert all(isinstance(end, Outage) for end in ends)
    assert "connection refused" in str(ends[0])
    assert not pace.acquire()


class Limited(ThreadingHTTPServer):
    """Takes `capacity` at once and answers others 429 with `Retry-After`; is down (connections cut) for a while."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, capacity: int, latency: float, retry_after: str = "1", down: tuple[float, float] = (1e9, 1e9)) -> None:
        self.capacity, self.latency, self.retry_after, self.down = capacity, latency, retry_after, down
        self.inside = self.highest = self.refused = 0
        self.arrivals: list[float] = []
        self.guard = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Limited

    def do_POST(self) -> None:
        server = self.server
        now = time.monotonic()
        with server.guard:
            server.arrivals.append(now)
            away = server.down[0] <= now - server.arrivals[0] < server.down[1]
            taken = not away and server.inside < server.capacity
            if taken:
                server.inside += 1
                server.highest = max(server.highest, server.inside)
            elif not away:
                server.refused += 1
        if away:
            self.close_connection = True
            return
        if taken:
            time.sleep(server.latency)
            with server.guard:
                server.inside -= 1
        self.send_response(200 if taken else 429)
        if not taken:
            self.send_header("Retry-After", server.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: Limited) -> Iterator[Limited]:
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def attempt(connection: http.client.HTTPConnection) -> Reply:
    start = time.monotonic()
    try:
        connection.request("POST", "/")
        response = connection.getresponse()
        response.read()
    except ConnectionRefusedError as error:
        connection.close()
        raise Unreachable(str(error), seconds=time.monotonic() - start) from None
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise Dropped(str(error), seconds=time.monotonic() - start) from None
    seconds = time.monotonic() - start
    if response.status == 429:
        hints = read_hints(dict(response.getheaders()), time.time())
        raise Throttled("429", status=429, seconds=seconds, hints=hints)
    return reply(seconds)


def drive(server: Limited, pace: Pace, rows: int, workers: int, attempts: int = 5) -> tuple[int, int]:
    """Ask so many rows; how many requests it took and how many rows were lost."""
    left = iter(range(rows))
    guard = threading.Lock()
    requests, lost = 0, 0

    def work() -> None:
        nonlocal requests, lost
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        while pace.acquire():
            with guard:
                row = next(left, None)
            charged = 0
            while row is not None and charged < attempts:
                turn = pace.turn(0)
                with guard:
                    requests += 1
                try:
                    turn.done(attempt(connection))
                    break
                except CallError as error:
                    if turn.failed(error):
                        charged += 1
                        time.sleep(random.random() * 0.5 * 2**charged)  # as whoever asks for rows waits before the next attempt
            else:
                with guard:
                    lost += row is not None
            pace.release()
            if row is None:
                break
        connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return requests, lost


@contextmanager
def watching_for_stalls() -> Iterator[list[float]]:
    """Seconds by which this machine was late, the worst alone, for what is blamed on it."""
    worst, over = [0.0], threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not over.wait(0.005):
            now = time.monotonic()
            worst[0] = max(worst[0], now - last - 0.005)
            last = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield worst
    over.set()
    thread.join()


def test_sixty_four_workers_use_the_whole_rate_and_no_second_more() -> None:
    with serving(Limited(1_000, 0.05)) as server, watching_for_stalls() as stall:
        pace = Pace(rpm=1_200, concurrency=64)
        requests, lost = drive(server, pace, 100, 64)
    times = sorted(server.arrivals)
    assert (requests, lost) == (100, 0)
    # What a slow machine delays comes too late at the end, or in a second that others have, too.
    assert 99 / (times[-1] - times[0] - 2 * stall[0]) >= 0.99 * 20
    assert max(bisect_right(times, at + 1.0) - i for i, at in enumerate(times)) <= 22 + 40 * stall[0]


def test_a_server_that_refuses_and_goes_down_costs_no_row() -> None:
    with serving(Limited(10, 0.02, retry_after="0.25", down=(0.8, 1.8))) as server:
        requests, lost = drive(server, Pace(seed=1), 1_000, 64)
    assert lost == 0
    assert requests <= 1.2 * 1_000
    assert server.highest <= 10
