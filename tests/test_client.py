"""One attempt against a server that behaves in every way a server can."""

from __future__ import annotations

import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batch.client import Client, transport
from batch.clock import SystemClock
from batch.errors import (
    BadBody,
    CallError,
    Denied,
    Dropped,
    JobError,
    Refused,
    ServerFault,
    Skewed,
    Throttled,
    TimedOut,
    TooLarge,
    Unreachable,
)
from batch.records import Prompt, Reply
from batch.signature import Credentials
from batch.wires import WIRES
from tests.hostile import KEY, SECRET, TLS, Hostile, Tunnel, refused, response, sends

CONTENT = "What is two and two, canary?"


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def call(asked: Client, one: Prompt) -> Reply:
    """One attempt, waited for by whoever sends it."""
    return asked.call(one)


def by_readiness(asked: Client, one: Prompt) -> Reply:
    """One attempt, sent and awaited as the loop does it."""
    under = asked.start(one) or asked.start(one, wait=True)
    assert under
    if not under.stuck:
        with selectors.DefaultSelector() as selector:
            selector.register(under.sock, selectors.EVENT_READ)
            while not under.come():
                assert selector.select(60)
    return asked.call(one, under=under)


Ask = Callable[[Client, Prompt], Reply]

every_way = pytest.mark.parametrize("ask", [call, by_readiness])
both = pytest.mark.parametrize("kept", [False, True], ids=["first", "later"])
"""Whether the request that fails is the first one of its connection: later ones go past requests and urllib3."""


def prompt(content: Any = CONTENT, protocol: str = "ails", stream: bool = False) -> Prompt:
    body, signed = WIRES[protocol].request("m", [{"role": "user", "content": content}], {}, stream=stream)
    return Prompt(0, b"0" * 16, 0, body, signed)


def client(url: str, protocol: str = "ails", **options: Any) -> Client:
    return Client(url, protocol, Credentials(KEY, SECRET), **{"connections": 4, "timeout": 60.0} | options)


def failure(server: Hostile, behaviour: str, kept: bool = False, ask: Ask = call, **options: Any) -> CallError:
    """What becomes of a request that meets a behaviour, the first of its connection or not."""
    asked = client(server.url(behaviour, kept), **options)
    if kept:
        assert ask(asked, prompt()).answer.text == "four"
    before = server.connections
    with pytest.raises(CallError) as caught:
        ask(asked, prompt())
    assert server.connections == before + (not kept)
    error = caught.value
    told = "".join(traceback.format_exception(error))
    assert KEY not in told and SECRET not in told and CONTENT not in told
    assert error.__cause__ is None and error.__suppress_context__
    assert str(error).isprintable() and 0 < len(str(error)) < 700
    assert error.seconds > 0
    return error


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("e", "refused: ***, an Eskimo, elsewhere"),
        ("refused", "***: e, an Eskimo, elsewhere"),
        ("elsewher", "refused: e, an Eskimo, ***e"),
        ("kimo", "refused: e, an Eskimo, elsewhere"),
    ],
)
def test_a_short_secret_is_hidden_where_it_is_a_word_and_a_long_one_everywhere(server: Hostile, key: str, words: str) -> None:
    sends("says", response(refused(f"refused: e, an Eskimo, elsewhere and{SECRET}"), 400), keep=True)
    with pytest.raises(Refused) as caught:
        Client(server.url("says"), "ails", Credentials(key, SECRET)).call(prompt())
    assert f"{words} and***" in str(caught.value)


@every_way
def test_an_answer_arrives_with_its_time_and_usage(server: Hostile, ask: Ask) -> None:
    reply = ask(client(server.url("good")), prompt())
    assert (reply.answer.text, reply.answer.model, reply.answer.finish_reason) == ("four", "m", "stop")
    assert (reply.answer.prompt_tokens, reply.answer.completion_tokens, reply.answer.status) == (3, 1, 200)
    assert reply.seconds > 0


@pytest.mark.parametrize(
    "behaviour", ["pretty", "in_chunks", "gzip", "cookie", "parts", "closes_by_head", "surrogate", "filtered"]
)
@every_way
def test_unusual_answers_are_answers(server: Hostile, behaviour: str, ask: Ask) -> None:
    asked = client(server.url(behaviour))
    for _ in range(3):
        answer = ask(asked, prompt()).answer
        assert answer.text == {"surrogate": "half \ud83d", "filtered": ""}.get(behaviour, "four")
        assert b"\n" not in answer.body and b"\r" not in answer.body
    assert not any("cookie" in received.headers for received in server.seen)


@pytest.mark.parametrize(
    ("behaviour", "kind", "status"),
    [
        ("html", BadBody, 200),
        ("empty", BadBody, 200),
        ("no_content", BadBody, 204),
        ("nan", BadBody, 200),
        ("infinity", BadBody, 200),
        ("deep", BadBody, 200),
        ("invalid_utf8", BadBody, 200),
        ("duplicate_keys", BadBody, 200),
        ("huge_number", BadBody, 200),
        ("list", BadBody, 200),
        ("no_choices", BadBody, 200),
        ("null_content", BadBody, 200),
        ("two_answers", BadBody, 200),
        ("half_without_length", BadBody, 200),
        ("cut_gzip", BadBody, 200),
        ("bad_gzip", BadBody, None),
        ("garbage", BadBody, None),
        ("status_word", BadBody, None),
        ("many_headers", BadBody, None),
        ("long_header", BadBody, None),
        ("two_lengths", BadBody, None),
        ("error_in_200", Throttled, 429),
        ("denied_in_200", Denied, 401),
        ("unnamed_error_in_200", ServerFault, 500),
        ("half", Dropped, None),
        ("cut_chunk", Dropped, None),
        ("bad_chunk", Dropped, None),
        ("endless", Dropped, None),
        ("close", Dropped, None),
        ("resets", Dropped, None),
        ("resets_half_way", Dropped, None),
        ("bomb", TooLarge, 200),
        ("large", TooLarge, 200),
        ("quota", Denied, 429),
        ("retry_after", Throttled, 429),
        ("wrong_retry_after", Throttled, 429),
        ("escapes", Refused, 400),
        ("detail", Refused, 422),
        ("echo", Refused, 400),
        ("echo_json", Denied, 403),
    ],
)
@both
@every_way
def test_a_hostile_answer_ends_as_the_error_it_is(
    server: Hostile, behaviour: str, kind: type[CallError], status: int | None, kept: bool, ask: Ask
) -> None:
    if kept and behaviour in ("close", "resets"):
        # A kept connection that was lost is no fault of the row's: the request goes out once more, on a new one.
        asked = client(server.url(behaviour, kept))
        assert [ask(asked, prompt()).answer.text for _ in range(2)] == ["four"] * 2
        return
    before = server.requests[behaviour]
    error = failure(server, behaviour, kept, ask)
    assert (type(error), error.status) == (kind, status), str(error)
    assert server.requests[behaviour] == before + 1
    assert not isinstance(error, Denied) or not error.at_once


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Denied) for status in (401, 402, 403)),
        *((status, Refused) for status in (400, 404, 413, 418, 422)),
        *((status, Throttled) for status in (429, 503)),
        *((status, ServerFault) for status in (408, 425, 500, 501, 502, 504, 529)),
    ],
)
@both
@every_way
def test_a_status_decides_and_the_server_has_the_word(
    server: Hostile, status: int, kind: type[CallError], kept: bool, ask: Ask
) -> None:
    error = failure(server, f"status_{status}", kept, ask)
    assert (type(error), error.status) == (kind, status)
    assert f"words of {status}" in str(error)
    assert error.hints is not None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(server: Hostile, status: int) -> None:
    error = failure(server, f"status_{status}")
    assert isinstance(error, Denied) and error.at_once and error.status == status
    assert "http://127.0.0.1" in str(error) and "key=1" not in str(error)


def test_a_redirect_to_nowhere_is_one_too(server: Hostile) -> None:
    assert "redirects, and" in str(failure(server, "odd_redirect"))


def test_retry_after_is_a_hint_and_nonsense_is_none(server: Hostile) -> None:
    hints = failure(server, "retry_after").hints
    assert hints is not None and (hints.retry_after, hints.remaining_requests) == (7.0, 0.0)
    hints = failure(server, "wrong_retry_after").hints
    assert hints is not None and hints.retry_after is None


def test_server_text_cannot_steer_a_terminal(server: Hostile) -> None:
    for behaviour in ("html", "escapes", "unnamed_error_in_200"):
        assert "\x1b" not in str(failure(server, behaviour))


@pytest.mark.parametrize("behaviour", ["silent", "stalls", "slow_head", "slow_body", "slow_chunks", "slow_continue"])
@both
@every_way
def test_the_whole_attempt_has_a_deadline(server: Hostile, behaviour: str, kept: bool, ask: Ask) -> None:
    started = time.monotonic()
    error = failure(server, behaviour, kept, ask, timeout=0.4)
    assert type(error) is TimedOut
    assert time.monotonic() - started < 10


def test_a_forks_child_leaves_its_parents_attempts_alone() -> None:
    script = """
import os
from batch.client.transport import WATCH, Attempt
WATCH.begin(Attempt(0.001))
child = os.fork()
if not child:
    os._exit(len(WATCH._attempts))
print(os.waitpid(child, 0)[1], len(WATCH._attempts))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "0 1\n"


def test_a_body_that_stops_half_way_is_not_waited_for(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "IDLE", 0.3)
    assert "half-way" in str(failure(server, "stalls"))


def test_a_silent_model_may_think_longer_than_the_idle_time(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "IDLE", 0.1)
    assert "no answer within 0.8 s" in str(failure(server, "silent", timeout=0.8))


def test_a_bomb_leaves_memory_flat(server: Hostile) -> None:
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from tests.test_client import client, prompt
from batch.errors import TooLarge
asked = client({server.url("bomb")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(3):
    try: asked.call(prompt())
    except TooLarge: pass
    else: raise SystemExit("no error")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert grown < 64 * 1024  # KiB; the cap is 16 MiB, the bomb 256
    assert resource.RUSAGE_SELF == 0


@every_way
def test_a_connection_lost_while_idle_costs_nothing(server: Hostile, ask: Ask) -> None:
    asked = client(server.url("idle_drop"))
    before = server.requests["idle_drop"]
    assert [ask(asked, prompt()).answer.text for _ in range(4)] == ["four"] * 4
    first, *rest = [received for received in server.seen if received.behaviour == "idle_drop"][before:]
    assert first.number == 1 and [received.number for received in rest] == [2, 1] * 3
    stamps = [received.json["t"] for received in (first, *rest)]
    assert len(set(stamps)) == len(stamps)


@every_way
def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_rows(server: Hostile, ask: Ask) -> None:
    asked = client(server.url("twice"))
    for _ in range(3):
        assert ask(asked, prompt()).answer.text == "four"
        time.sleep(0.2)  # the second answer is on its way meanwhile


@every_way
def test_the_free_retry_happens_once(ask: Ask) -> None:
    with Hostile() as server:
        asked = client(server.url("drops_after_first"))
        ask(asked, prompt())
        with pytest.raises(Dropped):
            ask(asked, prompt())
        assert server.requests["drops_after_first"] == 3


def test_a_request_larger_than_what_the_network_takes_at_once_is_sent_to_its_end(server: Hostile) -> None:
    asked = client(server.url("good"))
    asked.call(prompt())
    large = prompt("x" * 30_000_000)
    under = asked.start(large)
    assert under and under.stuck
    assert asked.call(large, under=under).answer.text == "four"
    assert len(server.seen[-1].body) > 30_000_000


def test_nothing_is_sent_without_waiting_where_a_connection_or_a_stamp_would_have_to_be_waited_for(server: Hostile) -> None:
    class Still(SystemClock):
        def time(self) -> float:
            return 1_800_000_000.0

    asked = client(server.url("good"), clock=Still())
    assert asked.start(prompt()) is None
    asked.call(prompt())
    while asked.stamps.ready(CONTENT):
        asked.stamps.next(CONTENT)
    before = server.requests["good"]
    assert asked.start(prompt()) is None
    assert server.requests["good"] == before


@every_way
def test_a_refused_connection_is_unreachable(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match="refused"):
        ask(client(url), prompt())


@every_way
def test_a_name_that_does_not_resolve_is_unreachable(ask: Ask) -> None:
    with pytest.raises(Unreachable, match="does not resolve"):
        ask(client("https://no-such-host.invalid"), prompt())


def test_forty_equal_prompts_at_once_all_verify(server: Hostile) -> None:
    server.stamps.clear()
    before = server.requests["signed"]
    asked = client(server.url("signed"), connections=40)
    start = threading.Barrier(40)

    def ask(_: int) -> str:
        start.wait()
        return asked.call(prompt("the same for all")).answer.text

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(ask, range(40))) == ["four"] * 40
    assert server.requests["signed"] - before == len(server.stamps) == 40


@pytest.mark.parametrize(
    "content", ["", "naïve 😀", "two\r\nlines\t", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]]
)
@every_way
def test_any_content_verifies(server: Hostile, content: Any, ask: Ask) -> None:
    assert ask(client(server.url("signed")), prompt(content)).answer.text == "four"


@every_way
def test_a_wrong_clock_is_corrected_once_and_for_free(ask: Ask) -> None:
    with Hostile(offset=3600) as server:
        asked = client(server.url("signed"))
        assert ask(asked, prompt()).answer.text == "four"
        assert ask(asked, prompt("another")).answer.text == "four"
        assert server.requests["signed"] == 3
        assert abs(asked.stamps.skew_ms - 3_600_000) < 60_000
        server.offset = -7200
        with pytest.raises(Skewed, match="clock"):
            ask(asked, prompt())
        assert server.requests["signed"] == 4


def test_many_threads_share_one_correction_of_the_clock() -> None:
    with Hostile(offset=-3600) as server:
        asked = client(server.url("signed"), connections=8)
        start = threading.Barrier(8)

        def ask(number: int) -> str:
            start.wait()
            return asked.call(prompt(f"prompt {number}")).answer.text

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == ["four"] * 8


@every_way
def test_a_replayed_stamp_is_signed_anew_once(server: Hostile, ask: Ask) -> None:
    assert ask(client(server.url("replayed_once")), prompt()).answer.text == "four"
    first, second = [received for received in server.seen if received.behaviour == "replayed_once"][-2:]
    assert first.json["t"] != second.json["t"] and first.headers["client-id"] != second.headers["client-id"]
    before = server.requests["status_409"]
    assert type(failure(server, "status_409", ask=ask)) is ServerFault
    assert server.requests["status_409"] == before + 2


def test_the_second_protocol_carries_nothing_of_the_first(server: Hostile) -> None:
    client(server.url("good"), "openai").call(prompt(protocol="openai"))
    received = server.seen[-1]
    assert received.path == "/good/chat/completions" and received.query == ""
    assert received.json == {"model": "m", "messages": [{"role": "user", "content": CONTENT}]}
    assert not {"client-id", "client-v", "x-batch-signature"} & received.headers.keys()
    assert received.headers["authorization"] == f"Bearer {KEY}"


def test_an_idempotency_key_is_a_header_and_no_more(server: Hostile) -> None:
    before = len(server.seen)
    with pytest.raises(ValueError, match="header"):
        client(server.url("good")).call(prompt(), idempotency_key="a\r\nx: y")
    assert len(server.seen) == before


def test_a_signed_request_carries_what_the_protocol_names(server: Hostile) -> None:
    client(server.url("good"), client_version="9").call(prompt(), idempotency_key="a1")
    received = server.seen[-1]
    assert (received.method, received.path, received.query) == ("POST", "/good/v1/chat/completions", "full=false")
    assert received.headers["client-v"] == "9" and received.headers["idempotency-key"] == "a1"
    assert received.headers["content-type"] == "application/json"
    assert list(received.json) == ["model", "temperature", "stream", "messages", "d", "t", "s"]
    assert b" " not in received.body.replace(CONTENT.encode(), b"")


def test_loopback_is_direct_and_netrc_is_never_read(server: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert client(server.url("good")).call(prompt()).answer.text == "four"
    assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_user_in_the_url_goes_nowhere_and_a_query_stays(server: Hostile) -> None:
    url = server.url("good").replace("http://", "http://someone:else@") + "?version=1"
    client(url).call(prompt())
    received = server.seen[-1]
    assert received.query == "version=1&full=false"
    assert received.headers["authorization"] == f"Bearer {KEY}" and received.headers["host"] == f"127.0.0.1:{server.port}"


@every_way
def test_a_proxy_of_the_environment_is_resolved_once(server: Hostile, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    # Seen from a client, a forward proxy is a server that gets whole URLs.
    monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{server.port}")
    asked = client("http://proxied.invalid/signed", allow_http=True)
    monkeypatch.delenv("http_proxy")
    assert ask(asked, prompt()).answer.text == "four"
    assert server.seen[-1].headers["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("http_proxy", "http://user:word@127.0.0.1:1")
    with pytest.raises(Unreachable, match="proxy") as caught:
        ask(client("http://proxied.invalid/signed", allow_http=True), prompt())
    assert "word" not in str(caught.value)


@every_way
def test_tls_goes_through_a_proxys_tunnel(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "authority.pem"))
    with Hostile(tls="good") as server, Tunnel(server.port) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        asked = client("https://proxied.invalid/signed")
        assert [ask(asked, prompt()).answer.text for _ in range(2)] == ["four"] * 2
        assert len(proxy.heads) == 1 and proxy.heads[0].startswith("CONNECT proxied.invalid:443 ")
        assert KEY not in proxy.heads[0] and "proxy-authorization: basic" in proxy.heads[0].lower()
        asked = client("https://proxied.invalid/idle_drop")
        assert [ask(asked, prompt()).answer.text for _ in range(3)] == ["four"] * 3
        assert all(head.startswith("CONNECT proxied.invalid:443 ") for head in proxy.heads)
        with pytest.raises(TimedOut):
            ask(client("https://proxied.invalid/slow_head", timeout=2), prompt())


@every_way
def test_a_proxy_that_wants_a_password_ends_the_run(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    with Tunnel(0, status=407) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(Denied, match="proxy") as caught:
            ask(client("https://proxied.invalid"), prompt())
    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com", "in the clear"),
        ("ftp://example.com", "must look like"),
        ("example.com", "must look like"),
        ("https://", "must look like"),
        ("https://host:port", "cannot be read"),
        ("https://[::1", "cannot be read"),
        ("https://a b", "must look like"),
        ("https://*.example.com", "no host"),
    ],
)
def test_an_address_that_cannot_be_asked_is_refused(url: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        client(url)


def test_a_missing_certificate_bundle_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(JobError, match="REQUESTS_CA_BUNDLE"):
        client("https://example.com")


@every_way
def test_plain_http_on_a_tls_port_ends_at_once(server: Hostile, ask: Ask) -> None:
    with pytest.raises(Denied, match="plain HTTP") as caught:
        ask(client(server.url("garbage").replace("http:", "https:")), prompt())
    assert caught.value.at_once


@every_way
def test_a_server_with_a_known_certificate_is_trusted(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "authority.pem"))
    with Hostile(tls="good") as server:
        asked = client(server.url("signed"))
        assert [ask(asked, prompt()).answer.text for _ in range(3)] == ["four"] * 3
        assert server.connections == 1
        for behaviour, kind in (("half", Dropped), ("half_without_length", BadBody), ("resets", Dropped), ("idle_drop", None)):
            asked = client(server.url(behaviour))
            if kind is None:
                assert [ask(asked, prompt()).answer.text for _ in range(3)] == ["four"] * 3
                continue
            with pytest.raises(kind):
                ask(asked, prompt())
        with pytest.raises(TimedOut):
            ask(client(server.url("slow_body"), timeout=2), prompt())


@pytest.mark.parametrize(
    ("certificate", "bundle", "words"),
    [
        ("good", "", "self.signed|unable to get"),
        ("expired", "authority.pem", "expired"),
        ("other_name", "authority.pem", "mismatch"),
    ],
)
def test_a_bad_certificate_ends_at_once(monkeypatch: pytest.MonkeyPatch, certificate: str, bundle: str, words: str) -> None:
    if bundle:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / bundle))
    with Hostile(tls=certificate) as server:
        with pytest.raises(Denied, match=words) as caught:
            client(server.url("good")).call(prompt())
        assert caught.value.at_once and not server.requests


def test_a_handshake_that_ends_early_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(Unreachable):
            client(f"https://127.0.0.1:{listener.getsockname()[1]}").call(prompt())


def test_a_handshake_that_never_ends_has_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(CallError) as caught:
        client(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5).call(prompt())
    assert type(caught.value) in (TimedOut, Unreachable)


def test_a_stream_yields_its_pieces(server: Hostile) -> None:
    asked = client(server.url("stream"))
    assert list(asked.stream(prompt(stream=True))) == ["one ", "two ", "three"]
    assert list(client(server.url("crlf_stream")).stream(prompt(stream=True))) == ["é"]
    assert server.seen[-1].json["stream"] is True


@pytest.mark.parametrize(
    ("behaviour", "kind", "limit"),
    [
        ("stream_cut", Dropped, 60),
        ("stream_torn", Dropped, 60),
        ("stream_error", Throttled, 60),
        ("stream_garbage", BadBody, 60),
        ("slow_stream", TimedOut, 2),
    ],
)
def test_a_broken_stream_ends_as_the_error_it_is(server: Hostile, behaviour: str, kind: type[CallError], limit: float) -> None:
    pieces = []
    with pytest.raises(CallError) as caught:
        for piece in client(server.url(behaviour), timeout=limit).stream(prompt(stream=True)):
            pieces.append(piece)  # noqa: PERF402 (what came before the error counts)
    assert type(caught.value) is kind and pieces[0] == "one "


def test_a_stream_may_be_left_half_way(server: Hostile) -> None:
    asked = client(server.url("stream"))
    stream = asked.stream(prompt(stream=True))
    assert next(stream) == "one "
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.close()  # type: ignore[attr-defined]
    assert list(asked.stream(prompt(stream=True))) == ["one ", "two ", "three"]


def test_connections_are_reused(server: Hostile) -> None:
    asked = client(server.url("status_429"))
    before = server.connections
    for _ in range(5):
        with pytest.raises(Throttled):
            asked.call(prompt())
    assert server.connections == before + 1
