"""The line that all attempts stand in: what was given back may be taken again, what was used may not."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from batch.pace.gate import Gate
from batch.pace.line import HORIZON, Line, Ticket
from batch.pace.rate import Rate
from batch.pace.window import Window

RATE, BURST = 100.0, 20


def line() -> Line:
    return Line(Rate(60 * RATE, None, BURST / RATE), Gate(1800.0, Random(7)), Window(1_000))


def joined(one: Line, count: int) -> list[Ticket]:
    return [one.join(0) for _ in range(count)]


def times(tickets: list[Ticket]) -> list[float]:
    return [ticket.booking.at for ticket in tickets if ticket.booking]


def test_times_that_are_taken_back_are_given_out_again_alike() -> None:
    one = line()
    tickets = joined(one, 4)
    one.advance(0.0)
    before = times(tickets)
    one.unbook()
    assert not times(tickets)
    one.advance(0.0)
    assert times(tickets) == before


def test_what_was_used_out_of_turn_stays_used() -> None:
    one = line()
    first, *others = joined(one, BURST - 1)
    one.advance(0.0)
    for ticket in others:  # the holder of the first wakes late
        assert one.go(0.0, ticket)
    one.unbook()
    more = joined(one, BURST)
    one.advance(0.0)
    assert times([first]) == [0.0]
    assert sum(at <= 0.0 for at in times(more)) <= 1


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=10, max_size=60))
def test_late_and_recalled_ones_never_make_more_than_the_rate(moves: list[tuple[int, bool]]) -> None:
    one, now, went = line(), 0.0, 0
    for which, recall in moves:
        joined(one, 5)
        one.advance(now)
        due = [ticket for ticket in one._booked if ticket.booking and ticket.booking.at <= now]
        if due:
            assert one.go(now, due[which % len(due)])
            went += 1
        if recall:
            one.unbook()
        now += 0.004
        booked = [ticket.booking.at for ticket in one._booked if ticket.booking]
        # What has gone and what may still go until its time all fits into the rate.
        assert went + len(booked) <= BURST + RATE * max([now, *booked]) + 1e-6
        assert all(at <= now + HORIZON + 2 / RATE for at in booked)
