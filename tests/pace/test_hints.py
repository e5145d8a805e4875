"""Headers as servers send them, and as they should not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.pace.hints import LONGEST, read_hints
from batch.records import Hints

NOW = 1_763_900_000.0
DATE = "Sun, 23 Nov 2025 12:13:20 GMT"  # NOW


def test_no_headers_say_nothing() -> None:
    assert read_hints({}, NOW) == Hints()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1.0), ("0", 0.0), (" 2.5 ", 2.5), ("1e9", None), ("1000000000", LONGEST), ("9" * 400, None)]
    + [(text, None) for text in ("-1", "nan", "inf", "-inf", "Infinity", "", "soon", "1_0", "1, 5", "٣", "²")],
)
def test_seconds_are_believed_within_a_day(text: str, seconds: float | None) -> None:
    assert read_hints({"Retry-After": text}, NOW).retry_after == seconds


def test_a_date_counts_from_the_responses_own_date() -> None:
    headers = {"DATE": DATE, "retry-after": "Sun, 23 Nov 2025 12:13:27 GMT"}
    assert read_hints(headers, NOW + 5_000).retry_after == 7.0
    assert read_hints(headers, NOW + 5_000).date == NOW


def test_a_date_counts_from_now_where_the_response_has_none() -> None:
    assert read_hints({"retry-after": "Sun, 23 Nov 2025 12:13:27 GMT"}, NOW).retry_after == 7.0


def test_a_date_that_is_past_means_at_once() -> None:
    assert read_hints({"Date": DATE, "Retry-After": "Sun, 23 Nov 2025 12:00:00 GMT"}, NOW).retry_after == 0.0


def test_milliseconds_win_over_seconds() -> None:
    assert read_hints({"retry-after-ms": "1500", "retry-after": "2"}, NOW).retry_after == 1.5
    assert read_hints({"retry-after-ms": "nan", "retry-after": "2"}, NOW).retry_after == 2.0


def test_openai_sends_durations() -> None:
    hints = read_hints(
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        NOW,
    )
    assert hints == Hints(None, None, 60.0, 150_000.0, 59.0, 149_984.0, 1.0, 360.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2m59.56s", 179.56),
        ("20ms", 0.02),
        ("1h2m3s", 3_723.0),
        ("59.5", 59.5),
        (str(int(NOW) + 30), 30.0),
        (str(int(NOW) * 1_000 + 30_000), 30.0),
        ("2025-11-23T12:13:50Z", 30.0),
    ]
    + [(text, None) for text in ("-1", "0", "0s", "-5s", "1e9", "99999999", "nan", "s", "soon", "2025-11-23T12:00:00Z")],
)
def test_a_reset_lies_ahead_or_says_nothing(text: str, seconds: float | None) -> None:
    assert read_hints({"date": DATE, "x-ratelimit-reset-requests": text}, NOW).reset_requests == pytest.approx(seconds)


def test_other_houses_use_other_names() -> None:
    anthropic = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2025-11-23T12:13:30Z"}
    assert read_hints({"date": DATE, **anthropic}, NOW).reset_requests == 10.0
    assert read_hints({"RateLimit-Remaining": "3", "RateLimit-Reset": "9"}, NOW) == Hints(
        remaining_requests=3.0, reset_requests=9.0
    )
    assert read_hints({"x-ratelimit-remaining-tokens-minute": "12"}, NOW).remaining_tokens == 12.0


def test_the_name_that_says_what_it_counts_wins() -> None:
    named, bare = ("x-ratelimit-remaining-requests", "5"), ("x-ratelimit-remaining", "1")
    assert read_hints(dict([named, bare]), NOW).remaining_requests == 5.0
    assert read_hints(dict([bare, named]), NOW).remaining_requests == 5.0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["Date", "Retry-After", "retry-after-ms", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
        st.text(st.characters(codec="latin-1")) | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str),
    )
)
def test_nothing_a_server_sends_does_harm(headers: dict[str, str]) -> None:
    hints = read_hints(headers, NOW)
    assert hints.retry_after is None or 0.0 <= hints.retry_after <= LONGEST
    assert hints.reset_tokens is None or 0.0 < hints.reset_tokens <= LONGEST
    assert hints.remaining_tokens is None or hints.remaining_tokens >= 0.0
