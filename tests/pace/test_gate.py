"""One gate: closed by refusals and outages, probed by one at a time, opened slowly, and fair to rows."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.errors import BadBody, CallError, Dropped, ServerFault, Throttled, TimedOut, Unreachable
from batch.pace.allowance import CAP
from batch.pace.gate import LONGEST_PAUSE, REFUSALS, Gate
from batch.records import Hints

SIZE = 64
STORM = round(REFUSALS)


def gate(max_outage: float = 1800.0) -> Gate:
    return Gate(max_outage, Random(7))


def throttled(retry_after: float | None = None) -> Throttled:
    return Throttled("slow down", status=429, hints=Hints(retry_after=retry_after))


def opens(one: Gate, now: float) -> float:
    return one.opens(now, SIZE, 1, 0.0)


def closed_by(error: CallError, times: int = 20, now: float = 0.0) -> Gate:
    one = gate()
    numbers = [one.send(now, 0.0)[0] for _ in range(SIZE)]
    for number in numbers[:times]:
        one.failed(now, error, number, SIZE, SIZE)
    assert one.closed
    return one


SAID = pytest.mark.parametrize(("said", "least", "most"), [(3.0, 3.0, 3.3), (0.0, 0.1, 0.11), (86_400.0, CAP, 1.1 * CAP)])


@SAID
def test_refusals_with_retry_after_close_the_gate_for_everybody(said: float, least: float, most: float) -> None:
    assert least <= opens(closed_by(throttled(said), STORM), 0.0) <= most


@SAID
def test_a_refusal_among_answers_keeps_its_place_empty_for_as_long(said: float, least: float, most: float) -> None:
    one = gate()
    one.failed(0.0, throttled(said), one.send(0.0, 0.0)[0], SIZE, SIZE)
    assert opens(one, 0.0) == 0.0
    assert one.limit(SIZE) == SIZE - 1
    assert least <= one.rested <= most
    assert opens(one, one.rested) == one.rested or one.limit(SIZE) == SIZE
    assert one.limit(SIZE) == SIZE


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_gate_without_a_place_left_is_closed(size: int) -> None:
    one = gate()
    for left in reversed(range(size)):
        assert not one.closed
        one.failed(0.0, throttled(2.0), one.send(0.0, 0.0)[0], size, size)
        assert one.closed == (not left)
    assert 2.0 <= opens(one, 0.0) <= 2.2
    assert not one.storm


def test_refusals_far_apart_never_close_the_gate() -> None:
    one, now = gate(), 0.0
    for _ in range(1_000):
        for _ in range(19):
            one.answered(now, SIZE, one.send(now, 0.0)[0])
        one.failed(now, throttled(1.0), one.send(now, 0.0)[0], SIZE, SIZE)
        assert not one.closed
        now += 0.3
        opens(one, now)


def test_a_considerable_share_of_refusals_closes_the_gate() -> None:
    one, refused = gate(), 0
    while not one.storm:
        for _ in range(4):
            one.answered(0.0, SIZE, one.send(0.0, 0.0)[0])
        one.failed(0.0, throttled(1.0), one.send(0.0, 0.0)[0], SIZE, SIZE)
        refused += 1
    assert 4 < refused <= 10


def test_a_window_that_has_given_a_place_up_does_not_leave_another_empty_for_it() -> None:
    one = gate()
    one.failed(0.0, throttled(1.0), one.send(0.0, 0.0)[0], SIZE, SIZE)
    assert one.limit(SIZE) == one.limit(SIZE - 1) == SIZE - 1
    assert one.limit(SIZE - 2) == SIZE - 2


def test_what_the_window_has_just_grown_by_closes_no_gate() -> None:
    one = gate()
    numbers = [one.send(0.0, 0.0)[0] for _ in range(SIZE)]
    for number in numbers[: SIZE // 2]:
        one.failed(0.0, throttled(1.0), number, SIZE, SIZE, excess=True)
    assert not one.closed
    for number in numbers[SIZE // 2 :]:
        one.failed(0.0, throttled(1.0), number, SIZE, SIZE)
    assert one.storm


def test_after_a_storm_half_of_those_let_in_may_go_and_past_their_number_one_more_a_round_trip() -> None:
    one = gate()
    numbers = [one.send(0.0, 0.0)[0] for _ in range(SIZE)]
    for number in numbers[32:]:
        one.failed(0.0, throttled(1.0), number, SIZE, SIZE)
    for number in numbers[:32]:
        one.answered(0.5, SIZE, number)
    at = opens(one, 0.5)
    one.answered(at, SIZE, one.send(at, 0.0)[0])
    limits = [one.limit(SIZE)]
    for _ in range(16 + 32):
        one.answered(at, SIZE, one.send(at, 0.0)[0])
        limits.append(one.limit(SIZE))
    assert limits[:17] == list(range(16, 33))
    assert 32.9 < limits[-1] <= 33.0


def test_refusals_that_were_under_way_do_not_make_the_pause_grow() -> None:
    one = gate()
    numbers = [one.send(0.0, 0.0)[0] for _ in range(SIZE)]
    for number in numbers[:STORM]:
        one.failed(0.0, throttled(), number, SIZE, SIZE)
    first = opens(one, 0.0)
    for number in numbers[STORM:]:
        assert not one.failed(0.1, throttled(), number, SIZE, SIZE)
    assert opens(one, 0.0) == first


def test_refusals_without_retry_after_make_growing_pauses() -> None:
    one, now, pauses = closed_by(throttled(), STORM), 0.0, []
    for _ in range(12):
        at = opens(one, now)
        pauses.append(at - now)
        number, _ = one.send(at, 0.0)
        one.failed(at, throttled(), number, SIZE, SIZE)
        now = at
    assert pauses[0] <= 0.5
    assert pauses[9] > 4.0
    assert max(pauses) <= LONGEST_PAUSE


def test_a_probe_that_outlives_a_refusal_opens_the_gate() -> None:
    one = closed_by(throttled(1.0), STORM)
    at = opens(one, 0.0)
    one.send(at, 0.0)
    assert one.closed
    let_in = opens(one, at)
    assert at < let_in <= at + 0.2
    assert opens(one, let_in) == let_in
    assert not one.closed


@pytest.mark.parametrize(
    "error", [ServerFault("502"), Dropped("reset"), TimedOut("late"), BadBody("html"), Unreachable("refused")]
)
def test_twenty_failures_in_a_row_close_the_gate(error: CallError) -> None:
    one = gate()
    numbers = [one.send(0.0, 0.0)[0] for _ in range(SIZE)]
    for number in numbers[:19]:
        one.failed(0.0, error, number, SIZE, SIZE)
    assert not one.closed
    one.failed(0.0, error, numbers[19], SIZE, SIZE)
    assert one.closed


def test_an_answer_between_failures_keeps_the_gate_open() -> None:
    one = gate()
    for _ in range(10):
        for _ in range(19):
            one.failed(0.0, ServerFault("500"), one.send(0.0, 0.0)[0], SIZE, SIZE)
        one.answered(0.0, SIZE, one.send(0.0, 0.0)[0])
    assert not one.closed


def test_few_rows_that_all_fail_to_connect_are_enough() -> None:
    one = gate()
    for _ in range(4):
        one.failed(0.0, Unreachable("refused"), one.send(0.0, 0.0)[0], SIZE, 4)
    assert one.closed


def test_an_outage_is_probed_by_one_at_a_time_every_ten_seconds_at_most() -> None:
    one, now = closed_by(Unreachable("refused")), 0.0
    for _ in range(10):
        at = opens(one, now)
        assert at - now <= LONGEST_PAUSE
        number, _ = one.send(at, 0.0)
        assert opens(one, at + 1) == float("inf")
        one.failed(at + 1, Unreachable("refused"), number, SIZE, SIZE)
        now = at + 1
    at = opens(one, now)
    number, _ = one.send(at, 0.0)
    one.answered(at, SIZE, number)
    assert not one.closed


def test_after_an_outage_the_window_opens_slowly() -> None:
    one = closed_by(Unreachable("refused"))
    at = opens(one, 0.0)
    one.answered(at, SIZE, one.send(at, 0.0)[0])
    limits = [one.limit(SIZE)]
    while one.opening:
        one.answered(at, SIZE, one.send(at, 0.0)[0])
        limits.append(one.limit(SIZE))
    assert limits == [min(SIZE, 2 + i) for i in range(len(limits))]
    assert limits[-1] == SIZE


def test_an_outage_charges_each_row_once_at_most_within_ten_minutes() -> None:
    one, now, charged = gate(), 0.0, 0
    for number in [one.send(0.0, 0.0)[0] for _ in range(20)]:
        one.failed(now, ServerFault("502"), number, SIZE, 4)
    while now < 590:
        now = opens(one, now)
        charged += one.failed(now, ServerFault("502"), one.send(now, 0.0)[0], SIZE, 4)
    assert charged == 4


def test_the_server_is_away_when_no_success_came_for_long_enough() -> None:
    one = gate(30.0)
    early = one.send(0.0, 0.0)[0]
    for number in [one.send(0.0, 0.0)[0] for _ in range(20)]:
        one.failed(5.0, Unreachable("refused"), number, SIZE, SIZE)
    one.answered(6.0, SIZE, early)  # it was under way before the gate closed
    assert not one.away(35.9)
    assert one.away(36.0)


def test_a_remaining_zero_holds_everybody_until_the_reset() -> None:
    one = gate()
    number, tokens = one.send(0.0, 10.0)
    assert one.hear(0.0, Hints(remaining_requests=0.0, reset_requests=4.0), number, tokens)
    assert opens(one, 0.0) == 4.0
    assert opens(one, 4.0) == 4.0


def test_what_remains_may_be_used_before_the_reset() -> None:
    one = gate()
    number, tokens = one.send(0.0, 10.0)
    one.hear(0.0, Hints(remaining_requests=3.0, reset_requests=4.0, remaining_tokens=50.0, reset_tokens=9.0), number, tokens)
    assert one.opens(0.0, SIZE, 3, 30.0) == 0.0
    assert one.opens(0.0, SIZE, 4, 30.0) == 4.0
    assert one.opens(0.0, SIZE, 4, 60.0) == 9.0


def test_late_news_do_not_replace_newer_ones() -> None:
    one = gate()
    first, second = one.send(0.0, 0.0)[0], one.send(0.0, 0.0)[0]
    one.hear(0.0, Hints(remaining_requests=100.0, reset_requests=4.0), second, 0.0)
    one.hear(0.1, Hints(remaining_requests=0.0, reset_requests=9.0), first, 0.0)
    assert opens(one, 0.2) == 0.2


@pytest.mark.parametrize("hints", [Hints(remaining_requests=0.0), Hints(reset_requests=5.0), Hints()])
def test_half_of_a_limit_says_nothing(hints: Hints) -> None:
    one = gate()
    assert not one.hear(0.0, hints, *one.send(0.0, 0.0))
    assert opens(one, 0.0) == 0.0


EVENTS = st.lists(
    st.tuples(st.sampled_from(["ok", "429", "429 after 1", "connect", "500", "timeout"]), st.integers(0, 63), st.floats(0, 3)),
    max_size=200,
)
ERRORS = {
    "429": throttled(),
    "429 after 1": throttled(1.0),
    "connect": Unreachable("refused"),
    "500": ServerFault("500"),
    "timeout": TimedOut("late"),
}


@settings(deadline=None, max_examples=100)
@given(EVENTS)
def test_never_two_probes_and_only_just_charges(events: list[tuple[str, int, float]]) -> None:
    one, now = gate(1e9), 0.0
    out: list[int] = []
    for end, which, gap in events:
        now += gap
        while len(out) < SIZE and opens(one, now) <= now:
            assert not any(one.is_probe(number) for number in out)
            out.append(one.send(now, 0.0)[0])
        if not out:
            continue
        number = out.pop(which % len(out))
        was_closed, is_probe = one.closed, one.is_probe(number)
        if end == "ok":
            one.answered(now, SIZE, number)
            continue
        charged = one.failed(now, ERRORS[end], number, SIZE, SIZE)
        if end in ("429", "429 after 1", "connect"):
            assert not charged
        elif was_closed:
            assert not charged or is_probe
        else:
            assert charged
