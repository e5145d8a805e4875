"""What is not HTTP, never ends, or is too much."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.gateway import app as doorway
from batch.gateway import connection

from .conftest import Caller, drained, gateway

POST = b"POST /v1/chat/completions?full=false HTTP/1.1\r\nhost: localhost\r\n"


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "length",
    [
        b"content-length: -1",
        b"content-length: +3",
        b"content-length: 1_0",
        b"content-length: 0x10",
        b"content-length: 3\r\ncontent-length: 3",
        b"content-length: 3\r\ncontent-length: 4",
        b"transfer-encoding: chunked",
        b"content-length: 3\r\ntransfer-encoding: chunked",
        b"content-length: " + b"9" * 30,
        b"x: y",
        b"transfer-encoding: gzip",
        b"content-length: 3, 3",
    ],
)
def test_a_length_that_is_none_or_two_is_400_and_closes(echo: Caller, length: bytes) -> None:
    response = echo.raw(POST + length + b"\r\n\r\nabc")
    assert status(response) == 400
    assert b"connection: close" in response.lower()
    assert b'"error"' in response


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(echo: Caller, sent: bytes) -> None:
    assert status(echo.raw(sent)) == 400


@pytest.mark.parametrize("hosts", [b"", b"host: localhost\r\nhost: localhost\r\n"])
def test_a_request_with_no_host_or_two_is_400(echo: Caller, hosts: bytes) -> None:
    assert status(echo.raw(b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")) == 400


def test_a_declared_body_over_the_bound_is_413_before_it_comes(echo: Caller) -> None:
    assert status(echo.raw(POST + b"content-length: 99999999\r\n\r\n")) == 413


@pytest.mark.parametrize(
    "line", [b"x: " + b"a" * 40_000, b"\r\n".join(b"x%d: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" % n for n in range(900))]
)
def test_a_header_that_is_too_large_is_431(echo: Caller, line: bytes) -> None:
    assert status(echo.raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + line + b"\r\n\r\n")) == 431


def test_a_header_that_never_ends_is_cut_at_its_bound(echo: Caller) -> None:
    with echo.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(b"a" * 4096)
        assert drained(client)[:12] in (b"HTTP/1.1 431", b"")


def test_a_header_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.5)
    with gateway() as caller, caller.connect() as client:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 30:
                client.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() - began < 20


def test_a_second_header_on_one_connection_is_timed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.5)
    with gateway() as caller, caller.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /heal")
        client.settimeout(30)
        client.sendall(b"thz HTTP")
        assert drained(client).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "BODY_SECONDS", 0.3)
    with gateway() as caller:
        response = caller.raw(POST + b'content-length: 100\r\n\r\n{"model"')
    assert status(response) == 408
    assert b"connection: close" in response.lower()


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(echo: Caller) -> None:
    for _ in range(20):
        with echo.connect() as client:
            client.sendall(POST + b'content-length: 100\r\n\r\n{"model"')
    assert echo.ask().status_code == 200


def test_three_hundred_half_open_connections_leave_room_for_the_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 2.0)
    with gateway() as caller, contextlib.ExitStack() as stack:
        half_open = [stack.enter_context(caller.connect()) for _ in range(300)]
        for client in half_open:
            client.sendall(POST)
        assert caller.ask().status_code == 200
        assert {drained(client) for client in half_open} == {b""}


def test_one_connection_too_many_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    with gateway() as caller, contextlib.ExitStack() as stack:
        held = [stack.enter_context(caller.connect()) for _ in range(3)]
        for client in held:  # an answer shows that the connection was taken
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert status(caller.raw(b"")) == 503
        held[0].close()
        for _ in range(500):
            if (response := caller.raw(b"GET /healthz HTTP/1.0\r\nhost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                break
            time.sleep(0.01)
        assert status(response) == 200


def test_requests_in_one_piece_are_answered_in_order(echo: Caller) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    response = echo.raw(one * 3 + b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert response.count(b"HTTP/1.1 200") == 3
    assert b"HTTP/1.1 404" in response


def test_every_answer_has_a_date(echo: Caller) -> None:
    for path in (b"/healthz", b"/nowhere", b"/not http"):
        assert b"\r\ndate: " in echo.raw(b"GET " + path + b" HTTP/1.0\r\nhost: localhost\r\n\r\n").lower()


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_bring_it_down(echo: Caller, sent: bytes, framed: bool) -> None:
    head = POST + b"content-length: %d\r\n\r\n" % len(sent) if framed else b""
    with echo.connect() as client:
        client.sendall(head + sent)
        client.shutdown(socket.SHUT_WR)
        answer = drained(client)
    assert not answer or 400 <= status(answer) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = ("model", "messages", "stream", "temperature", "max_tokens", "seed", "stop", "n", "d", "t", "s", "stream_options")
MESSAGES = st.lists(st.fixed_dictionaries({"role": JSON | st.just("user"), "content": JSON | st.text()}))


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), MESSAGES)
def test_no_json_brings_it_down(echo: Caller, fields: dict[str, object], messages: list[object]) -> None:
    response = echo.resigned(json.dumps({"model": "m", "messages": messages, **fields}))
    assert response.status_code in (400, 401)
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_reset_while_streaming_does_no_harm(echo: Caller) -> None:
    request = echo.prepared("word " * 20_000, stream=True)
    assert isinstance(request.body, bytes)
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with echo.connect() as client:
        client.sendall(POST + headers.encode() + b"\r\n" + request.body)
        assert client.recv(10) == b"HTTP/1.1 2"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert echo.ask().status_code == 200
