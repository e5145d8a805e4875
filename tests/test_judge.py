"""When a run must end before its end."""

from __future__ import annotations

import pytest

from batch.errors import BatchError, Denied, Halted, Interrupted, RunRefused
from batch.job import Job, Price
from batch.judge import Judge, Stop
from batch.records import Answer, Failure, Kind, Outcome
from batch.tally import Tally


class Court:
    """A judge, and what it kept and dropped."""

    def __init__(self, job: Job | None = None) -> None:
        self.kept: list[int] = []
        self.dropped: list[int] = []
        self.stop = Stop()
        job = job or Job()
        self.judge = Judge(
            job,
            Tally(job.price),
            self.stop,
            keep=lambda outcome: self.kept.append(outcome.index),
            drop=lambda outcome: self.dropped.append(outcome.index),
        )
        self.heard = 0

    def answer(self, tokens: int = 1) -> None:
        self._hear(Answer("yes", "m", "stop", tokens, tokens, b"{}"))

    def fail(self, kind: Kind = "transient", message: str = "no", status: int | None = 500) -> None:
        self._hear(Failure(kind, message, status))

    def refuse(self, message: str = "no such model") -> None:
        self.fail("refused", message, 404)

    def deny(self, error: Denied) -> None:
        refused = Failure("refused", str(error), error.status)
        self.judge.denied(error, Outcome(self.heard, bytes(16), 0, refused))
        self.heard += 1

    def _hear(self, result: Answer | Failure) -> None:
        self.judge.outcome(Outcome(self.heard, bytes(16), 0, result))
        self.heard += 1


def test_twenty_equal_refusals_and_no_answer_end_the_run_and_leave_the_rows_pending() -> None:
    court = Court()
    for _ in range(20):
        court.refuse()
    assert isinstance(court.stop.error, RunRefused)
    assert "no such model" in str(court.stop.error)
    court.judge.close()
    assert court.kept == []
    assert court.dropped == list(range(20))


def test_one_answer_among_refusals_makes_them_count() -> None:
    court = Court()
    court.refuse()
    court.refuse()
    court.answer()
    for _ in range(30):
        court.refuse()
    assert not court.stop.event.is_set()
    assert sorted(court.kept) == list(range(33))


def test_different_refusals_speak_of_rows() -> None:
    court = Court()
    for number in range(30):
        court.refuse(f"row {number} is odd")
    assert not court.stop.event.is_set()
    assert len(court.kept) == 30


def test_a_short_input_of_refusals_ends_as_refused_rows() -> None:
    court = Court()
    for _ in range(5):
        court.refuse()
    court.judge.close()
    assert court.kept == list(range(5))
    assert not court.stop.event.is_set()


def test_three_denials_in_a_row_end_the_run_and_fewer_do_not() -> None:
    court = Court()
    for _ in range(2):
        court.deny(Denied("401: wrong key", status=401))
    court.answer()
    for _ in range(2):
        court.deny(Denied("401: wrong key", status=401))
    assert not court.stop.event.is_set()
    court.deny(Denied("401: wrong key", status=401))
    assert isinstance(court.stop.error, RunRefused)


def test_a_redirect_ends_the_run_at_once() -> None:
    court = Court()
    court.deny(Denied("302 to elsewhere", status=302, at_once=True))
    assert isinstance(court.stop.error, RunRefused)


def test_a_denial_on_the_last_rows_is_not_passed_over() -> None:
    court = Court()
    court.deny(Denied("403: forbidden", status=403))
    court.judge.close()
    assert isinstance(court.stop.error, RunRefused)


def test_halt_counts_failed_rows() -> None:
    court = Court(Job(halt="fail=3"))
    court.answer()
    for _ in range(2):
        court.fail()
    assert not court.stop.event.is_set()
    court.fail()
    assert isinstance(court.stop.error, Halted)


def test_halt_by_share_waits_for_a_hundred_rows() -> None:
    court = Court(Job(halt="fail=50%"))
    for _ in range(60):
        court.fail()
    assert not court.stop.event.is_set()
    for _ in range(40):
        court.answer()
    court.fail()
    assert isinstance(court.stop.error, Halted)


def test_the_run_ends_when_the_money_is_spent() -> None:
    court = Court(Job(max_cost=0.01, price=Price(prompt=1000.0, completion=3000.0)))
    court.answer(tokens=2)
    assert not court.stop.event.is_set()
    court.answer(tokens=1)
    assert isinstance(court.stop.error, Halted)
    assert "0.01" in str(court.stop.error)


def test_a_repeated_bug_ends_the_run_as_a_bug() -> None:
    court = Court()
    for _ in range(5):
        court.fail("internal", "a bug: KeyError")
    assert court.stop.error is not None
    assert court.stop.error.exit_code == 70


def test_the_first_reason_to_stop_counts_and_a_second_signal_is_hard() -> None:
    stop = Stop()
    stop.because(Halted("enough"))
    stop.interrupt(15)
    assert isinstance(stop.error, Halted)
    assert stop.hard.is_set()
    other = Stop()
    other.interrupt(15)
    other.because(BatchError("late"))
    assert isinstance(other.error, Interrupted)
    assert other.error.exit_status == 143
    assert not other.hard.is_set()


@pytest.mark.parametrize("signum", [1, 2, 15])
def test_a_signal_is_its_exit_code(signum: int) -> None:
    assert Interrupted(signum).exit_status == 128 + signum


def test_refusals_that_were_withheld_count_for_halt() -> None:
    court = Court(Job(halt="fail=3"))
    for _ in range(3):
        court.refuse()
    court.answer()
    assert isinstance(court.stop.error, Halted)


def test_a_row_that_was_denied_among_answers_ends_as_refused() -> None:
    court = Court()
    court.deny(Denied("no", status=403))
    court.answer()
    court.judge.close()
    assert court.kept == [1, 0]
    assert not court.stop.event.is_set()
