"""A signature passes once, for as long as it could pass at all."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.gateway.refusal import RefusalError
from batch.gateway.replay import WINDOW_MS, Replays

NOW = 1_700_000_000_000


def signature(t: int, content: str = "") -> str:
    return hashlib.sha256(f"{t}{content}".encode()).hexdigest()


def refused(replays: Replays, t: int, now: int, content: str = "") -> int:
    """The status of the refusal, 0 where the request passed."""
    try:
        replays.admit(t, signature(t, content), now)
    except RefusalError as refusal:
        return refusal.status
    return 0


def test_the_same_signature_passes_once() -> None:
    replays = Replays(NOW)
    assert [refused(replays, NOW + 1, NOW) for _ in range(3)] == [0, 409, 409]
    assert refused(replays, NOW + 1, NOW, "another prompt") == 0


def test_what_was_stamped_before_the_start_does_not_pass() -> None:
    replays = Replays(NOW)
    assert refused(replays, NOW - 1, NOW) == 401
    assert refused(replays, NOW, NOW) == 0


def test_a_full_cache_says_later_and_forgets_nothing() -> None:
    replays = Replays(NOW, capacity=3)
    assert [refused(replays, NOW + at, NOW) for at in range(4)] == [0, 0, 0, 503]
    assert refused(replays, NOW, NOW) == 409
    later = NOW + WINDOW_MS + 2000
    assert refused(replays, later, later) == 0


@given(
    st.lists(
        st.tuples(st.integers(-400_000, 400_000), st.integers(-WINDOW_MS, WINDOW_MS), st.booleans()), min_size=2, max_size=30
    )
)
def test_no_signature_passes_twice_however_the_clock_steps(steps: list[tuple[int, int, bool]]) -> None:
    replays, now = Replays(NOW), NOW
    passed: list[int] = []
    for step, offset, again in steps:
        now += step
        t = passed[-1] if again and passed else now + offset
        if abs(now - t) <= WINDOW_MS and not refused(replays, t, now):
            passed.append(t)
    assert len(passed) == len(set(passed))


@given(st.lists(st.integers(0, WINDOW_MS), min_size=1, max_size=50))
def test_memory_is_given_back_after_the_window(offsets: list[int]) -> None:
    replays = Replays(NOW, capacity=50)
    for offset in offsets:
        refused(replays, NOW + offset, NOW + offset)
    end = NOW + 3 * WINDOW_MS
    for at in range(50):
        assert refused(replays, end + at, end) == 0
    with pytest.raises(RefusalError):
        replays.admit(end + 99, signature(end + 99), end)
