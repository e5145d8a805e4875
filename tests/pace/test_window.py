"""The number that is found: for servers that queue or refuse, that grow slow, that are fast enough for whoever asks."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from batch.errors import CallError, ServerFault, Throttled, Unreachable

from .judged import judge
from .simulated import Run, Server, mixed, simulate

QUICK = [3, 7, 10, 12, 15, 18]


@pytest.mark.parametrize("number", QUICK)
def test_a_drawn_server_is_driven_at_nine_tenths_of_its_best(number: int) -> None:
    verdict = judge(number)
    assert verdict.share >= 0.90
    assert verdict.peak <= 3.0 or verdict.peak * verdict.capacity <= 16
    assert verdict.wasted <= 0.02


def test_a_server_that_queues_silently_is_found_out() -> None:
    server = Server(32, mixed(0.1, 0.3))
    run = simulate(server, seconds=60)
    assert run.rate >= 0.9 * 32 / 0.2
    assert run.highest <= 3 * 32


def test_a_server_that_refuses_is_filled_and_seldom_tried() -> None:
    run = simulate(Server(40, mixed(0.1, 0.3), refuses=True), seconds=60)
    assert run.rate >= 0.9 * 40 / 0.2
    assert run.refused <= 0.02 * run.requests


@pytest.mark.parametrize("way", [0.0, 0.03])
@pytest.mark.parametrize(
    ("capacity", "service", "retry_after"),
    [(5, 0.2, 1.0), (13, 1.0, 5.0), (20, 0.05, None), (32, 0.2, 1.0), (33, 0.05, 5.0), (50, 5.0, None), (100, 0.2, 1.0)],
)
def test_half_a_minute_is_enough_to_find_what_a_server_takes_that_refuses_the_rest(
    capacity: int, service: float, retry_after: float | None, way: float
) -> None:
    def run(concurrency: int | None) -> Run:
        latency = mixed(0.8 * service, 1.2 * service)
        server = Server(capacity, latency, refuses=True, retry_after=retry_after, way=way * service)
        return simulate(server, seconds=33 / 0.2 * service, concurrency=concurrency)

    auto = run(None)
    assert auto.rate >= 0.9 * max(run(capacity).rate, run(round(1.25 * capacity)).rate)
    assert auto.refused <= 0.02 * auto.requests


def test_a_larger_number_is_tried_ever_more_rarely() -> None:
    run = simulate(Server(32, mixed(0.16, 0.24), refuses=True), seconds=600)
    tries = [at for at, size, phase in run.sizes if phase == "up" and size > 32]
    assert sum(at < 60 for at in tries) >= 5
    assert sum(at >= 300 for at in tries) <= 15
    assert run.refused <= 0.001 * run.requests


def test_a_server_that_takes_more_than_it_did_is_found_out_within_half_a_minute() -> None:
    class Growing(Server):
        def serve(self, now: float, random: Random) -> tuple[float, CallError | None]:
            self.capacity = 32 if now < 60 else 64
            return super().serve(now, random)

    run = simulate(Growing(32, mixed(0.16, 0.24), refuses=True), seconds=120)
    assert run.between(30, 60) >= 0.97 * 32 / 0.2
    assert run.between(90, 120) >= 0.9 * 64 / 0.2
    assert run.refused <= 0.02 * run.requests


def test_slower_answers_are_not_taken_for_a_full_server() -> None:
    run = simulate(Server(32, mixed(0.05, 0.15), shift=30.0), seconds=120)
    assert run.between(60, 120) >= 0.9 * 32 / 0.5
    assert run.highest <= 3 * 32


def test_a_rate_that_binds_keeps_the_number_small() -> None:
    run = simulate(Server(400, mixed(0.05, 0.15)), seconds=60, rpm=1_200)
    assert run.rate >= 0.99 * 20
    assert run.highest <= 8


def test_a_slow_input_keeps_the_number_small() -> None:
    assert simulate(Server(400, mixed(0.05, 0.15)), seconds=60, supply=30).highest <= 16


def test_a_busy_client_is_not_taken_for_a_full_server() -> None:
    # 500 a second is all that this client can send, 50 out at once are enough for it.
    run = simulate(Server(10_000, mixed(0.05, 0.15)), seconds=30, cpu=0.002)
    assert run.rate >= 0.9 * 500
    assert run.highest <= 3 * 50


def test_the_number_ends_at_the_ceiling() -> None:
    run = simulate(Server(10_000, mixed(0.5, 1.0)), seconds=30, ceiling=100)
    assert run.highest == 100


def test_a_server_with_a_rate_of_its_own_is_used_up_to_it() -> None:
    run = simulate(Server(400, mixed(0.05, 0.15), rpm=1_200, retry_after=None), seconds=120)
    assert run.rate >= 0.9 * 20
    assert run.refused <= 0.02 * run.requests + 20


@pytest.mark.parametrize("concurrency", [None, 64])
@pytest.mark.parametrize("slowly", [False, True])
def test_a_server_that_refuses_one_in_twenty_is_used_nonetheless(concurrency: int | None, slowly: bool) -> None:
    run = simulate(Server(10_000, mixed(0.01, 0.4), moody=0.05, slowly=slowly), rows=5_000, concurrency=concurrency)
    assert run.seconds <= 2 * 5_000 * 0.205 / 0.95 / 64
    assert run.requests <= 1.07 * 5_000


@pytest.mark.parametrize("moody", [0.01, 0.05])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_refusals_at_random_do_not_hold_the_number_down(moody: float, seed: int) -> None:
    run = simulate(Server(10_000, mixed(0.01, 0.4), moody=moody), rows=5_000, seed=seed)
    assert run.seconds <= 20
    assert run.sizes[-1][1] > 100


@pytest.mark.parametrize("concurrency", [40, 64, 256])
def test_a_number_that_was_chosen_too_large_is_brought_down_to_what_is_let_in(concurrency: int) -> None:
    run = simulate(Server(32, mixed(0.16, 0.24), refuses=True), rows=5_000, concurrency=concurrency)
    assert run.rate >= 0.9 * 32 / 0.2
    assert run.requests <= 5_000 + concurrency + 0.02 * 5_000


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_a_number_that_a_rate_does_not_bear_costs_a_quarter_more_requests_at_most(retry_after: float | None) -> None:
    run = simulate(Server(400, mixed(0.045, 0.055), rpm=1_200, retry_after=retry_after), rows=1_000, concurrency=64)
    assert run.failed_rows == 0
    assert run.requests <= 1.25 * 1_000


def test_a_short_run_on_a_large_server_doubles_every_second_round_trip_at_least() -> None:
    # 4, 8, 16, … until 2,000 are answered: nine times.
    assert simulate(Server(500, mixed(0.19, 0.21)), rows=2_000).seconds <= 2 * 9 * 0.2


def test_a_limit_told_in_headers_is_used_up_and_never_passed() -> None:
    run = simulate(Server(400, mixed(0.05, 0.15), quota=(200, 10.0)), seconds=100)
    assert run.answered >= 0.97 * 2_000
    assert run.refused <= 0.01 * run.requests


def test_a_client_that_is_busy_with_something_else_still_finds_the_number() -> None:
    run = simulate(Server(64, mixed(0.05, 0.15)), seconds=60, load=1.0)
    assert run.rate >= 0.8 * 64 / 0.1


@pytest.mark.parametrize("fails", [Unreachable, Throttled, ServerFault])
def test_an_outage_costs_no_row_and_few_requests(fails: type[CallError]) -> None:
    run = simulate(Server(40, mixed(0.05, 0.15), refuses=True, away=(5.0, 11.0), fails=fails), rows=3_000)
    assert run.failed_rows == 0
    assert run.requests <= 1.2 * 3_000
    long = simulate(Server(40, mixed(0.05, 0.15), away=(5.0, 1_205.0), fails=fails), rows=3_000)
    assert long.failed_rows == 0
    assert not long.outage


def test_an_endless_outage_ends_the_run() -> None:
    run = simulate(Server(40, mixed(0.05, 0.15), away=(5.0, 1e9)), rows=3_000, max_outage=600.0)
    assert run.outage
    assert run.failed_rows == 0
    assert run.seconds == pytest.approx(605, abs=15)


@pytest.mark.parametrize("concurrency", [None, 1, 4])
def test_rows_that_alone_break_the_server_end_and_cost_no_other(concurrency: int | None) -> None:
    run = simulate(Server(40, mixed(0.05, 0.15)), rows=300, poison=frozenset({5, 77, 150}), concurrency=concurrency)
    assert run.failed_rows == 3
    assert run.answered == 297


def test_tokens_bind_and_are_settled() -> None:
    def tokens(estimate: int, random: Random) -> tuple[int, int]:
        return estimate, 500

    # 10,000 tokens a second are twenty requests, whatever the estimates said.
    for estimate in (250, 500, 1_000, 5_000):
        run = simulate(Server(400, mixed(0.05, 0.15)), seconds=120, tpm=600_000, tokens=partial(tokens, estimate))
        assert run.between(20, 120) == pytest.approx(20.0, rel=0.01)
