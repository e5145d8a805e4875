"""The laws of the rate: never more than burst + rate · time, nobody overtaken, refunds to the last token."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.pace.rate import BURST, MARGIN, SPARE, Rate

law = settings(deadline=None, max_examples=60)
gaps = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 400)), min_size=1, max_size=120)


def grants(rate: Rate, arrivals: list[tuple[float, int]]) -> list[tuple[float, int]]:
    now, granted = 0.0, []
    for gap, tokens in arrivals:
        now += gap
        granted.append((rate.reserve(now, 1, tokens).at, tokens))
    return granted


@law
@given(gaps, st.floats(1, 60_000), st.floats(0.01, 2))
def test_no_window_holds_more_requests_than_burst_and_rate_allow(
    arrivals: list[tuple[float, int]], rpm: float, burst: float
) -> None:
    times = [at for at, _ in grants(Rate(rpm, burst=burst), arrivals)]
    most = max(1.0, rpm / 60 * burst)
    for i, start in enumerate(times):
        for j in range(i, len(times)):
            assert j - i + 1 <= most + rpm / 60 * (times[j] - start) + 1e-6


@law
@given(gaps, st.floats(400, 1e6))
def test_no_window_holds_more_tokens_than_burst_and_rate_allow(arrivals: list[tuple[float, int]], tpm: float) -> None:
    granted = grants(Rate(None, tpm), arrivals)
    # A request that is larger than the burst goes whole; nothing can be done about that.
    most = max(SPARE * max(tokens for _, tokens in granted), tpm / 60 * BURST)
    for i, (start, _) in enumerate(granted):
        total = 0
        for at, tokens in granted[i:]:
            total += tokens
            assert total <= most + tpm / 60 * (at - start) + 1e-6


@law
@given(gaps, st.floats(1, 6_000), st.floats(400, 1e5))
def test_nobody_is_overtaken(arrivals: list[tuple[float, int]], rpm: float, tpm: float) -> None:
    times = [at for at, _ in grants(Rate(rpm, tpm), arrivals)]
    assert times == sorted(times)


@law
@given(gaps, st.lists(st.integers(1, 400), min_size=1, max_size=20), st.floats(1, 6_000), st.floats(400, 1e5))
def test_what_is_undone_never_was(arrivals: list[tuple[float, int]], tail: list[int], rpm: float, tpm: float) -> None:
    rate, same = Rate(rpm, tpm), Rate(rpm, tpm)
    now = sum(gap for gap, _ in arrivals)
    grants(rate, arrivals)
    grants(same, arrivals)
    bookings = [rate.reserve(now, 1, tokens) for tokens in tail]
    rate.undo(bookings[0])
    assert rate.reserve(now, 1, 7).at == same.reserve(now, 1, 7).at


@law
@given(st.integers(0, 400), st.integers(0, 4_000), st.floats(400, 1e5))
def test_settling_leaves_what_was_really_used(estimate: int, used: int, tpm: float) -> None:
    settled, exact = Rate(None, tpm), Rate(None, tpm)
    settled.reserve(0.0, 1, estimate)
    settled.settle(estimate, used)
    exact.reserve(0.0, 1, used)
    settled.reserve(0.0, 1, 400)
    exact.reserve(0.0, 1, 400)
    assert settled.reserve(0.0, 1, 400).at == pytest.approx(exact.reserve(0.0, 1, 400).at, abs=0.02 + 600 / tpm * 60)


def test_a_refund_is_exact_while_the_limit_binds() -> None:
    rate = Rate(600, 60_000)
    before = [rate.reserve(0.0, 1, 1_000).at for _ in range(5)]
    rate.refund(1, 1_000)
    after = rate.reserve(0.0, 1, 1_000).at
    assert after == pytest.approx(before[-1])


def test_a_steady_demand_gets_all_of_the_rate() -> None:
    for rpm, tpm, tokens in ((1_200, None, 0), (30_000, None, 0), (None, 600_000, 1_000), (1e9, 600_000, 40_000)):
        rate = Rate(rpm, tpm)
        last = [rate.reserve(0.0, 1, tokens).at for _ in range(1_000)][-1]
        allowed = min(rpm or 1e12, (tpm or 1e12) / max(tokens, 1)) / 60
        assert 999 / last == pytest.approx(allowed, rel=0.005)


def test_large_prompts_get_their_turn_among_small_ones() -> None:
    rate = Rate(None, 600_000)
    callers = [(0.0, number, 4_000 if number == 63 else 100) for number in range(64)]
    heapq.heapify(callers)
    waits: dict[int, list[float]] = {100: [], 4_000: []}
    while callers[0][0] < 8.0:
        now, number, tokens = heapq.heappop(callers)
        at = rate.reserve(now, 1, tokens).at
        waits[tokens].append(at - now)
        heapq.heappush(callers, (at, number, tokens))
    assert len(waits[4_000]) >= 7
    assert max(waits[4_000]) <= 1.1


def test_a_new_rate_takes_what_is_owed_along() -> None:
    rate = Rate(60)
    for _ in range(11):
        rate.reserve(0.0)
    rate.set(0.0, 600, None)
    assert rate.reserve(0.0).at == pytest.approx(1.1 / MARGIN, rel=0.02)
    rate.set(0.0, None, None)
    assert rate.reserve(5.0).at == 5.0


def test_a_request_larger_than_a_minute_never_fits() -> None:
    assert Rate(None, 1_000).holds(1_000)
    assert not Rate(None, 1_000).holds(1_001)
    assert Rate(60).holds(10**9)
