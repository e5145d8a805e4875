"""What the gateway lets in, and what it says to the rest."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from batch.gateway.app import BODY_BYTES
from batch.gateway.echo import Echo
from batch.gateway.model import Completion
from batch.gateway.refusal import RefusalError
from batch.signature import Credentials, Stamps, sign

from .conftest import CREDENTIALS, Caller, Stepped, code, gateway

URL = "/v1/chat/completions?full=false"


def with_fields(request: requests.PreparedRequest, **fields: Any) -> requests.PreparedRequest:
    """A prepared request whose body was changed after it was signed."""
    assert isinstance(request.body, bytes)
    body = {**json.loads(request.body), **fields}
    request.body = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
    request.headers["content-length"] = str(len(request.body))
    del request.headers["x-batch-signature"]
    return request


def test_a_signed_request_is_answered_in_the_protocols_form(echo: Caller) -> None:
    response = echo.ask("What is  the capital?\n")
    body = response.json()
    assert (response.status_code, body["object"], body["model"]) == (200, "chat.completion", "echo-1")
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "What is  the capital?\n"}, "finish_reason": "stop"}
    ]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    assert abs(parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()) < 60


def test_forty_equal_prompts_at_once_are_all_answered(echo: Caller) -> None:
    with ThreadPoolExecutor(40) as pool:
        statuses = Counter(pool.map(lambda _: echo.ask("the same").status_code, range(40)))
    assert statuses == {200: 40}


def test_a_streamed_answer_has_the_same_text_and_ends_with_done(echo: Caller) -> None:
    response = echo.ask(" two  words ", stream=True)
    events = response.text.split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert events[-2:] == ["data: [DONE]", ""]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == " two  words "
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_echo_keeps_to_max_tokens(echo: Caller) -> None:
    choice = echo.ask("one two three", max_tokens=2).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")


def test_text_parts_are_signed_and_answered_as_one_text(echo: Caller) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert echo.ask(parts).json()["choices"][0]["message"]["content"] == "one two"


def test_health_names_the_model_and_says_that_it_is_an_echo(echo: Caller) -> None:
    about = echo.health()
    assert (about["status"], about["model"], about["real"]) == ("ok", "echo-1", False)
    assert "no language model" in about["note"]


@pytest.mark.parametrize("s", ["é" * 64, "a" * 63, "A" * 64, "a" * 64 + "\n", 17, None, ["a"], ""])
def test_a_signature_that_is_none_is_401(echo: Caller, s: Any) -> None:
    response = echo.send(with_fields(echo.prepared(), s=s))
    assert (response.status_code, code(response)) == (401, "signature")


@pytest.mark.parametrize("write", [" {}\n", "{}_", "+{}", "{}0", "0x{}", "{}.0", "１{}"])
def test_a_time_that_int_would_accept_is_401(echo: Caller, write: str) -> None:
    t = write.format(str(int(time.time() * 1000) | 1)[: -1 if write == "１{}" else None])
    response = echo.send(with_fields(echo.prepared(), t=t, s=sign(t, "Hello", echo.credentials.secret)))
    assert (response.status_code, code(response)) == (401, "signature")


def test_an_even_time_is_401(echo: Caller) -> None:
    t = str((int(time.time() * 1000) | 1) + 1)
    response = echo.send(with_fields(echo.prepared(), t=t, s=sign(t, "Hello", echo.credentials.secret)))
    assert (response.status_code, code(response)) == (401, "signature")


@pytest.mark.parametrize("seconds", [-3600, -310, 310, 3600])
def test_a_clock_that_is_off_is_401_and_the_date_header_mends_it(seconds: int) -> None:
    with gateway(Stepped()) as caller:
        caller.stamps.skew_ms = seconds * 1000
        response = caller.ask()
        assert (response.status_code, code(response)) == (401, "clock")
        told = parsedate_to_datetime(response.headers["date"]).timestamp()
        caller.stamps.skew_ms = int((told + 1 - time.time()) * 1000)
        assert caller.ask().status_code == 200


def test_a_clock_within_five_minutes_passes() -> None:
    with gateway(Stepped(ahead=-290)) as caller:
        assert caller.ask().status_code == 200
    with gateway(Stepped()) as caller:
        caller.stamps.skew_ms = 290_000
        assert caller.ask().status_code == 200


@pytest.mark.parametrize("d", ["2001-01-01", "9999-99-99", "today", 20260101, None])
def test_a_date_that_t_has_nowhere_is_401(echo: Caller, d: Any) -> None:
    response = echo.send(with_fields(echo.prepared(), d=d))
    assert response.status_code == 401
    assert code(response) == ("date" if isinstance(d, str) and d != "today" else "signature")


def test_a_wrong_secret_and_a_wrong_key_are_401_and_nothing_of_them_is_shown(echo: Caller) -> None:
    forged = Caller(echo.url, Credentials(echo.credentials.api_key, "another secret")).ask()
    assert (forged.status_code, code(forged)) == (401, "signature")
    for key in ("another-key", echo.credentials.api_key + "x", echo.credentials.api_key[:-1], "é"):
        unknown = Caller(echo.url, Credentials(key, echo.credentials.secret), echo.stamps).ask()
        assert (unknown.status_code, code(unknown)) == (401, "key")
        assert key not in unknown.text
    keyless = echo.prepared()
    del keyless.headers["authorization"]
    assert code(echo.send(keyless)) == "key"


def test_the_signature_is_judged_before_the_key(echo: Caller) -> None:
    assert code(Caller(echo.url, Credentials("another-key", "another secret")).ask()) == "signature"


def test_a_replayed_request_is_409_and_signed_anew_it_passes(echo: Caller) -> None:
    request = echo.prepared()
    assert [echo.send(request).status_code for _ in range(3)] == [200, 409, 409]
    assert echo.ask().status_code == 200


def test_a_request_captured_before_a_restart_is_401() -> None:
    clock = Stepped()
    with gateway(clock) as caller:
        request = caller.prepared()
        assert caller.send(request).status_code == 200
    clock.ahead += 1
    with gateway(clock) as again:
        request.url = again.url + URL
        response = again.send(request)
        assert (response.status_code, code(response)) == (401, "clock")
        again.stamps.skew_ms = 2000
        assert again.ask().status_code == 200


def test_a_full_replay_cache_is_503_with_a_time_to_wait() -> None:
    with gateway(replay_capacity=2) as caller:
        assert [caller.ask().status_code for _ in range(3)] == [200, 200, 503]
        response = caller.ask()
        assert (code(response), response.headers["retry-after"]) == ("replay_full", "5")


def test_the_bound_signature_covers_what_the_old_one_does_not(echo: Caller) -> None:
    assert echo.ask().status_code == 200
    changed = echo.prepared(temperature=0.1)
    assert isinstance(changed.body, bytes)
    changed.body = changed.body.replace(b"0.1", b"0.2")
    assert code(echo.send(changed)) == "signature"
    elsewhere = echo.prepared()
    elsewhere.url = f"{echo.url}/v1/chat/completions?full=true"
    assert code(echo.send(elsewhere)) == "signature"
    other_id = echo.prepared()
    other_id.headers["client-id"] = "b"
    assert code(echo.send(other_id)) == "signature"


def test_without_the_bound_signature_only_who_asks_for_it_refuses(echo: Caller) -> None:
    assert echo.send(with_fields(echo.prepared())).status_code == 200
    with gateway(require_bound=True) as strict:
        assert strict.ask().status_code == 200
        response = strict.send(with_fields(strict.prepared()))
        assert (response.status_code, code(response)) == (401, "signature")


def test_several_secrets_and_keys_hold_side_by_side() -> None:
    newer = Credentials(api_key="newer-key", secret="newer secret")
    both: dict[str, Any] = {"secrets": [CREDENTIALS.secret, newer.secret], "api_keys": [CREDENTIALS.api_key, newer.api_key]}
    with gateway(**both) as caller:
        assert caller.ask().status_code == 200
        assert Caller(caller.url, newer).ask("Hello again").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"model":"a","model":"b"}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":' + b"[" * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"seed":' + b"1" * 5_000 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
    ],
)
def test_a_body_that_is_no_strict_json_is_400(echo: Caller, body: bytes) -> None:
    response = echo.resigned(body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("model", 3),
        ("messages", []),
        ("messages", "Hello"),
        ("messages", ["Hello"]),
        ("messages", [{"role": "king", "content": "x"}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": 3}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("stream", "yes"),
        ("temperature", "hot"),
        ("temperature", 3),
        ("temperature", True),
        ("top_p", -0.1),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_completion_tokens", -1),
        ("seed", "x"),
        ("stop", [""]),
        ("stop", ["a"] * 5),
        ("n", 2),
    ],
)
def test_a_wrong_field_is_400_and_named(echo: Caller, field: str, value: Any) -> None:
    response = echo.send(with_fields(echo.prepared(), **{field: value}))
    assert (response.status_code, code(response)) == (400, "shape")
    assert field.replace("max_completion_tokens", "max_tokens").split("s")[0] in response.json()["error"]["message"]


def test_unknown_and_null_parameters_do_no_harm(echo: Caller) -> None:
    assert echo.ask(user="me", logit_bias={}, max_tokens=None, n=1, response_format={"type": "text"}).status_code == 200


def test_the_shape_is_judged_before_the_signature(echo: Caller) -> None:
    assert echo.resigned(b'{"model":"m","messages":[]}').status_code == 400
    assert echo.resigned(b'{"model":"m","messages":[{"role":"user","content":"x"}]}').status_code == 401


def test_a_body_over_the_bound_is_413(echo: Caller) -> None:
    response = echo.resigned(b" " * (BODY_BYTES + 1))
    assert (response.status_code, code(response)) == (413, "size")


def test_allowed_models_are_the_only_ones() -> None:
    with gateway(models=["echo-1", "gpt-3.5-turbo"]) as caller:
        assert caller.ask(model="gpt-3.5-turbo").status_code == 200
        response = caller.ask(model="gpt-9")
        assert (response.status_code, code(response)) == (404, "model_not_found")


def test_paths_and_methods_that_are_not_served_are_refused_in_the_same_form(echo: Caller) -> None:
    for path, status in (("/", 404), ("/openai/v1/chat/completions", 404), ("/v1/chat/completions", 405)):
        response = requests.get(echo.url + path, timeout=60)
        assert (response.status_code, code(response)) == (status, "path")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "[::2]", "", "localhost:x"])
def test_a_foreign_host_header_is_refused(echo: Caller, host: str) -> None:
    response = requests.get(f"{echo.url}/healthz", headers={"host": host}, timeout=60)
    assert (response.status_code, code(response)) == (421, "host")


def test_own_host_names_pass_with_and_without_port() -> None:
    with gateway(hosts=["127.0.0.1", "batch.example.org"]) as caller:
        for host in ("batch.example.org", "BATCH.example.org:8443", "127.0.0.1:1"):
            assert requests.get(f"{caller.url}/healthz", headers={"host": host}, timeout=60).status_code == 200
        assert requests.get(f"{caller.url}/healthz", headers={"host": "localhost"}, timeout=60).status_code == 421


def test_the_openai_path_takes_a_key_alone_and_only_when_it_is_opened() -> None:
    body = {"model": "any", "messages": [{"role": "user", "content": "Hello"}]}
    with gateway(openai=True) as caller:
        url = f"{caller.url}/openai/v1/chat/completions"
        answered = requests.post(url, json=body, headers={"authorization": f"Bearer {CREDENTIALS.api_key}"}, timeout=60)
        assert answered.json()["choices"][0]["message"]["content"] == "Hello"
        assert code(requests.post(url, json=body, timeout=60)) == "key"
        assert code(requests.post(caller.url + URL, json=body, timeout=60)) == "signature"


class Counting(Echo):
    """An echo that counts, and fails when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.failing = False

    async def complete(self, messages: Any, parameters: Any) -> Completion:
        self.asked += 1
        if self.failing:
            raise RefusalError(502, "model_died", "gone")
        return await super().complete(messages, parameters)


@pytest.fixture
def counting() -> Iterator[tuple[Caller, Counting]]:
    model = Counting()
    with gateway(model=model, api_keys=[CREDENTIALS.api_key, "second-key"]) as caller:
        yield caller, model


def keyed(caller: Caller, key: str, content: str = "Hello", **fields: Any) -> requests.Response:
    request = caller.prepared(content, **fields)
    request.headers["idempotency-key"] = key
    return caller.send(request)


def test_an_idempotency_key_brings_the_stored_answer(counting: tuple[Caller, Counting]) -> None:
    caller, model = counting
    first, second = keyed(caller, "k1"), keyed(caller, "k1")
    assert first.content == second.content
    assert model.asked == 1
    assert keyed(caller, "k2").content != first.content


def test_equal_requests_at_once_under_one_key_are_answered_once(counting: tuple[Caller, Counting]) -> None:
    caller, model = counting
    with ThreadPoolExecutor(10) as pool:
        answers = {response.content for response in pool.map(lambda _: keyed(caller, "k"), range(10))}
    assert (len(answers), model.asked) == (1, 1)


def test_an_idempotency_key_with_another_body_is_422(counting: tuple[Caller, Counting]) -> None:
    caller, _ = counting
    assert keyed(caller, "k").status_code == 200
    for other in (keyed(caller, "k", "Other"), keyed(caller, "k", temperature=0.1), keyed(caller, "k", model="other")):
        assert (other.status_code, code(other)) == (422, "idempotency")


def test_a_failure_is_not_stored(counting: tuple[Caller, Counting]) -> None:
    caller, model = counting
    model.failing = True
    assert [keyed(caller, "k").status_code for _ in range(2)] == [502, 502]
    model.failing = False
    assert keyed(caller, "k").status_code == 200
    assert model.asked == 3


def test_idempotency_keys_of_different_clients_are_apart(counting: tuple[Caller, Counting]) -> None:
    caller, model = counting
    other = Caller(caller.url, Credentials("second-key", CREDENTIALS.secret), caller.stamps)
    assert keyed(caller, "k", "mine").status_code == keyed(other, "k", "theirs").status_code == 200
    assert model.asked == 2


def test_an_idempotency_key_of_absurd_length_is_400(counting: tuple[Caller, Counting]) -> None:
    assert keyed(counting[0], "k" * 256).status_code == 400


def test_a_replay_is_no_way_to_a_stored_answer(counting: tuple[Caller, Counting]) -> None:
    caller, _ = counting
    request = caller.prepared()
    request.headers["idempotency-key"] = "k"
    assert [caller.send(request).status_code for _ in range(2)] == [200, 409]


class Broken(Echo):
    """A model with a bug."""

    async def complete(self, messages: Any, parameters: Any) -> Completion:
        raise KeyError(messages[-1]["content"])


def test_a_bug_is_500_and_shows_nothing_of_the_prompt(capfd: pytest.CaptureFixture[str]) -> None:
    with gateway(model=Broken()) as caller:
        response = caller.ask("private words")
    assert (response.status_code, code(response)) == (500, "internal")
    shown = response.text + "".join(capfd.readouterr())
    assert "private" not in shown
    assert "Traceback" not in shown
    assert "KeyError" in shown


def test_stamps_of_one_client_never_collide_at_the_gateway(echo: Caller) -> None:
    stamps = Stamps()
    callers = [Caller(echo.url, echo.credentials, stamps) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(
            status
            for found in pool.map(lambda caller: [caller.ask().status_code for _ in range(25)], callers)
            for status in found
        )
    assert statuses == {200: 100}
