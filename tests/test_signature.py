"""Stamps, signatures and their verification, both ends of the protocol."""

from __future__ import annotations

import json
import pickle
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch.errors import JobError, RowError
from batch.signature import (
    Credentials,
    Signature,
    SignatureError,
    Stamps,
    bind,
    content_of,
    format_timestamp,
    sign,
    verify,
    verify_bound,
)

VECTORS = json.loads((Path(__file__).parent / "data/protocol-vectors.json").read_text())
NOW = 1_700_000_000_000
SECRET = "local-development-secret"

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(st.characters(exclude_categories=["Cs"]))


class StoppedClock:
    """Stands still until somebody waits or sets it."""

    def __init__(self, seconds: float = NOW / 1000) -> None:
        self.now = seconds
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, _: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def fields(content: str, secret: str = SECRET, milliseconds: int = NOW, **changes: Any) -> dict[str, Any]:
    t = format_timestamp(milliseconds)
    d = datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
    return {"d": d, "t": t, "s": sign(t, content, secret)} | changes


def reason(given: dict[str, Any], content: str = "hello", now_ms: float = NOW) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(given, content, [SECRET], now_ms)
    return caught.value.reason


@pytest.mark.parametrize("vector", VECTORS["timestamps"])
def test_the_published_timestamps(vector: dict[str, Any]) -> None:
    assert format_timestamp(vector["milliseconds"]) == vector["t"]


@pytest.mark.parametrize("vector", VECTORS["signatures"])
def test_the_published_signatures(vector: dict[str, Any]) -> None:
    assert format_timestamp(vector["milliseconds"]) == vector["t"]
    assert sign(vector["t"], vector["content"], vector["secret"]) == vector["s"]
    verify(fields(vector["content"], vector["secret"], vector["milliseconds"]), vector["content"], [vector["secret"]], NOW)


@unhurried
@given(texts, texts, st.integers(10**12, 10**13 - 2))
def test_what_is_signed_verifies(content: str, secret: str, milliseconds: int) -> None:
    assert verify(fields(content, secret, milliseconds), content, ["another", secret], milliseconds) == secret


@unhurried
@given(texts, texts)
def test_another_content_does_not(one: str, other: str) -> None:
    if one != other:
        assert reason(fields(one), other) == "mac"


anything = st.one_of(
    st.text(),
    st.none(),
    st.integers(),
    st.floats(),
    st.binary(),
    st.lists(st.text()),
    st.from_regex(r"[0-9]{13}", fullmatch=True),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.dates().map(str),
)


@unhurried
@given(
    st.dictionaries(st.sampled_from(["d", "t", "s", "x"]), anything),
    st.text(),
    st.lists(st.text(), max_size=3),
    st.floats() | st.integers(),
)
@example(fields("\ud800x"[1:]), "\ud800", [SECRET], NOW)
@example(fields("x"), "x", ["\ud800"], NOW)
@example({"d": "0000-00-00", "t": "9999999999999", "s": "0" * 64}, "", ["x"], 9_999_999_999_999)
@example({"d": "2023-11-14", "t": "1700000000001", "s": "0" * 64}, "", ["x"], float("nan"))
def test_verify_raises_nothing_but_signature_errors(
    given_fields: dict[str, Any], content: str, secrets: list[str], now_ms: float
) -> None:
    try:
        verify(given_fields, content, secrets, now_ms)
    except SignatureError as error:
        assert error.reason in ("shape", "clock", "date", "mac")
        assert error.__suppress_context__ or error.__context__ is None


@unhurried
@given(st.text(), st.text(), st.binary())
def test_verify_bound_raises_nothing_but_signature_errors(header: str, odd: str, body: bytes) -> None:
    for candidate in (header, "v1=" + "0" * 64):
        with pytest.raises(SignatureError):
            verify_bound(candidate, SECRET, odd, odd, odd, odd, odd, body)


@pytest.mark.parametrize(
    "t", [" 1700000000001", "1700000000001\n", "1_70000000001", "１700000000001", "1700000000002", "17", 17, None]
)
def test_a_malformed_t_is_no_t(t: Any) -> None:
    assert reason(fields("hello", t=t)) == "shape"


@pytest.mark.parametrize("s", ["é" * 64, "A" * 64, "a" * 63, "a" * 64 + "\n", None, 7])
def test_a_malformed_s_is_no_s(s: Any) -> None:
    assert reason(fields("hello", s=s)) == "shape"


@pytest.mark.parametrize(("off", "fits"), [(299_000, True), (-299_000, True), (301_000, False), (-301_000, False)])
def test_t_holds_for_five_minutes_either_way(off: int, fits: bool) -> None:
    if fits:
        verify(fields("hello"), "hello", [SECRET], NOW + off)
    else:
        assert reason(fields("hello"), now_ms=NOW + off) == "clock"


@unhurried
@given(st.integers(10**12, 10**13 - 2), st.integers(-12 * 4, 14 * 4))
def test_d_may_be_the_date_of_any_zone(milliseconds: int, quarters: int) -> None:
    local = datetime.fromtimestamp((milliseconds | 1) / 1000, UTC) + timedelta(minutes=15 * quarters)
    verify(fields("hello", milliseconds=milliseconds, d=local.date().isoformat()), "hello", [SECRET], milliseconds)


def test_d_may_be_no_other_date() -> None:
    assert reason(fields("hello", d="2023-11-12")) == "date"
    assert reason(fields("hello", d="2023-11-16")) == "date"
    assert reason(fields("hello", d="2023-1-14")) == "shape"


def test_old_and_new_secret_hold_while_they_are_rotated() -> None:
    assert verify(fields("hello", "old"), "hello", ["new", "old"], NOW) == "old"
    assert reason(fields("hello", "older")) == "mac"


def test_the_bound_signature_covers_everything_sent() -> None:
    sent = ("POST", "/v1/chat/completions", "full=false", "1700000000001", "id", b"{}")
    header = bind(SECRET, *sent)
    verify_bound(header, SECRET, *sent)
    for place, part in enumerate(sent):
        changed: Any = [*sent]
        changed[place] = part + (b" " if isinstance(part, bytes) else "x")  # type: ignore[operator]
        with pytest.raises(SignatureError, match="mac"):
            verify_bound(header, SECRET, *changed)


def test_equal_contents_never_share_a_t() -> None:
    stamps = Stamps(StoppedClock())
    issued = [int(stamps.next("same").t) for _ in range(100)]
    assert issued == [NOW + 1 + 2 * step for step in range(100)]
    assert int(stamps.next("other").t) == NOW + 1


def test_t_runs_at_most_a_second_ahead_and_the_wait_is_counted() -> None:
    clock = StoppedClock()
    stamps = Stamps(clock)
    for _ in range(600):
        t = int(stamps.next("same").t)
        assert t - clock.now * 1000 <= 1000 + 1e-3
    assert stamps.waited == pytest.approx(sum(clock.waits)) and stamps.waited == pytest.approx(0.2, abs=0.01)


def test_stamps_forget_what_is_a_second_old() -> None:
    clock = StoppedClock()
    stamps = Stamps(clock)
    for number in range(5000):
        stamps.next(f"content {number}")
        clock.now += 0.01
    assert len(stamps._issued) <= 202


def test_a_clock_that_is_set_back_far_does_not_hold_anything_up() -> None:
    clock = StoppedClock()
    stamps = Stamps(clock)
    stamps.next("same")
    clock.now -= 3600
    assert int(stamps.next("same").t) == NOW - 3_600_000 + 1 and not clock.waits


@unhurried
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.01)), max_size=200))
def test_whatever_the_clock_does_forwards_stamps_stay_apart(steps: list[tuple[str, float]]) -> None:
    clock = StoppedClock()
    stamps = Stamps(clock)
    seen = set()
    for content, seconds in steps:
        stamp = content, stamps.next(content).t
        assert stamp not in seen and int(stamp[1]) % 2
        seen.add(stamp)
        clock.now += seconds


def test_threads_never_share_a_t() -> None:
    stamps = Stamps()
    with ThreadPoolExecutor(16) as pool:
        issued = [stamp.t for stamp in pool.map(lambda _: stamps.next("same"), range(400))]
    assert len(set(issued)) == 400


def test_a_learned_skew_moves_t_and_d() -> None:
    stamps = Stamps(StoppedClock())
    stamps.skew_ms = 86_400_000
    stamp = stamps.next("x")
    assert int(stamp.t) == NOW + 86_400_000 + 1
    assert stamp.d == time.strftime("%Y-%m-%d", time.localtime(int(stamp.t) / 1000))


def test_d_follows_t_over_midnight() -> None:
    clock = StoppedClock()
    stamps = Stamps(clock)
    for _ in range(200):
        stamp = stamps.next("x")
        assert stamp.d == time.strftime("%Y-%m-%d", time.localtime(int(stamp.t) / 1000))
        clock.now += 1000


def test_a_list_of_parts_is_signed_over_its_texts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    assert content_of([{"type": "text", "text": "a"}, image, {"type": "text", "text": "b"}]) == "ab"
    for wrong in (None, 7, {"a": 1}, [{"type": "text"}], [{"type": "text", "text": 7}]):
        with pytest.raises(ValueError, match=r"text|content"):
            content_of(wrong)


def test_the_signature_is_an_auth_object_of_requests() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"h\xc3\xa9"}]}'
    request = requests.Request(
        "POST", "https://example.com/a?full=false", data=body, auth=Signature(Credentials("key", SECRET))
    ).prepare()
    assert isinstance(request.body, bytes)
    sent = json.loads(request.body)
    assert list(sent) == ["model", "messages", "d", "t", "s"]
    assert request.headers["Content-Length"] == str(len(request.body))
    verify(sent, "hé", [SECRET], time.time() * 1000)
    client_id = str(request.headers["client-id"])
    name = uuid.UUID(client_id)
    assert (name.version, name.variant, str(name)) == (4, uuid.RFC_4122, client_id)
    bound = str(request.headers["x-batch-signature"])
    verify_bound(bound, SECRET, "POST", "/a", "full=false", sent["t"], client_id, request.body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages":[]}', b'{"messages":[{"content":7}]}', b"\xff"])
def test_a_body_without_messages_cannot_be_signed(body: bytes) -> None:
    with pytest.raises(RowError, match="cannot be signed"):
        requests.Request("POST", "https://example.com", data=body, auth=Signature(Credentials("key", SECRET))).prepare()


def test_half_a_surrogate_pair_cannot_be_signed_and_shows_no_secret() -> None:
    with pytest.raises(RowError, match="surrogate") as caught:
        sign("1", "\ud83d", SECRET)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("key", ["", "a b", "a\n", "a\r\nx: y", "\x7f", "ключ", "\ud800", "a\x00"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    with pytest.raises(JobError) as caught:
        Credentials(key, SECRET)
    assert len(key) < 2 or key not in str(caught.value)


def test_credentials_are_neither_shown_nor_pickled() -> None:
    credentials = Credentials("the-key", SECRET)
    assert "the-key" not in f"{credentials} {credentials!r}" and SECRET not in f"{credentials} {credentials!r}"
    with pytest.raises(TypeError):
        pickle.dumps(credentials)
