"""The bodies of both protocols, as they are written and as they are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch import exact
from batch.errors import BadBody, CallError, Denied, Refused, RowError, ServerFault, Throttled
from batch.wires import DONE, WIRES, clean, read_chunk, refusal, write_chunk

AILS, OPENAI = WIRES["ails"], WIRES["openai"]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "naïve 😀"}]

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_signed_request_says_everything_in_order() -> None:
    body, content = AILS.request("m", MESSAGES, {"top_p": 1, "max_tokens": 5})
    assert content == "naïve 😀"
    assert body.decode() == (
        '{"model":"m","temperature":0.6,"stream":false,"messages":[{"role":"system","content":"Be brief."},'
        '{"role":"user","content":"naïve 😀"}],"max_tokens":5,"top_p":1}'
    )


def test_the_other_protocol_sends_what_was_named_and_nothing_else() -> None:
    assert OPENAI.request("m", MESSAGES[1:], {})[0].decode() == (
        '{"model":"m","messages":[{"role":"user","content":"naïve 😀"}]}'
    )
    body = json.loads(OPENAI.request("m", MESSAGES, {"temperature": 0, "d": "x"}, stream=True)[0])
    assert body["temperature"] == 0 and body["d"] == "x" and body["stream"] is True


def test_numbers_go_out_as_they_were_written() -> None:
    parameters = exact.loads(b'{"temperature":0.10,"seed":9007199254740993}')
    assert b'"temperature":0.10' in AILS.request("m", MESSAGES, parameters)[0]
    assert b'"seed":9007199254740993' in AILS.request("m", MESSAGES, parameters)[0]


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
@pytest.mark.parametrize("parameters", [{"n": 2}, {"stream": True}, {"model": "x"}, {"messages": []}, {"x": object()}])
def test_what_the_request_sets_itself_is_no_parameter(wire: Any, parameters: dict[str, Any]) -> None:
    with pytest.raises(RowError):
        wire.request("m", MESSAGES, parameters)


@pytest.mark.parametrize("name", ["d", "t", "s"])
def test_stamp_and_signature_are_no_parameters(name: str) -> None:
    with pytest.raises(RowError, match=name):
        AILS.request("m", MESSAGES, {name: "x"})


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no messages"),
        (["hello"], "message 1 is no object"),
        ([{"content": "x"}], "role"),
        ([{"role": "user"}], "message 1: a message's content"),
        ([{"role": "user", "content": None}], "content"),
        ([{"role": "user", "content": {"a": 1}}], "content"),
        ([{"role": "user", "content": "half \ud83d"}], "surrogate"),
        ([{"role": "system", "content": "\udc00"}, {"role": "user", "content": "x"}], "message 1 holds half"),
    ],
)
def test_messages_that_cannot_be_sent_are_the_rows_fault(messages: Any, words: str) -> None:
    with pytest.raises(RowError, match=words):
        AILS.request("m", messages, {})


def test_a_tool_call_in_the_middle_has_no_content() -> None:
    messages = [MESSAGES[1], {"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "4"}]
    assert AILS.request("m", messages, {})[1] == "4"


@unhurried
@given(texts, texts.filter(bool), st.dictionaries(texts.filter(lambda name: name not in "dtsn"), st.integers()))
def test_the_gateway_reads_what_the_client_wrote(content: str, model: str, parameters: dict[str, int]) -> None:
    for name in ("model", "messages", "stream", "temperature"):
        parameters.pop(name, None)
    body, signed = AILS.request(model, [{"role": "user", "content": content}], parameters)
    asked = AILS.read_request(body)
    assert (asked.model, asked.content, asked.stream) == (model, signed, False)
    assert asked.parameters == {"temperature": 0.6, **parameters} and asked.fields == {}


@unhurried
@given(texts, texts, st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_client_reads_what_the_gateway_wrote(text: str, model: str, prompt: int, completion: int) -> None:
    body = AILS.write_answer(
        text, model=model, id="1", created=1, finish_reason="length", prompt_tokens=prompt, completion_tokens=completion
    )
    answer = AILS.answer(body, 200)
    assert (answer.text, answer.model, answer.finish_reason) == (text, model, "length")
    assert (answer.prompt_tokens, answer.completion_tokens) == (prompt, completion)
    assert json.loads(answer.body) == json.loads(body)


@unhurried
@given(texts)
def test_a_streamed_text_arrives(text: str) -> None:
    event = write_chunk(text, model="m", id="1", created=1)
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and b"\n" not in event[:-2]
    assert read_chunk(event[6:]) == text
    assert read_chunk(write_chunk("", model="m", id="1", created=1, finish_reason="stop")[6:]) == ""
    assert DONE == b"data: [DONE]\n\n"


@unhurried
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_an_answer_or_a_call_error(body: bytes) -> None:
    for read in (lambda: AILS.answer(body, 200), lambda: read_chunk(body)):
        try:
            read()
        except CallError as error:
            assert str(error).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "delta", "content", "finish_reason", "usage", "model", "error", "code", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@unhurried
@given(json_values)
def test_any_json_is_an_answer_or_a_call_error(value: Any) -> None:
    body = json.dumps(value).encode()
    for read in (lambda: AILS.answer(body, 200), lambda: read_chunk(body), lambda: refusal(500, body)):
        try:
            read()
        except CallError as error:
            assert str(error).isprintable() and len(str(error)) < 700


@unhurried
@given(json_values)
def test_any_json_is_a_request_or_a_value_error(value: Any) -> None:
    try:
        AILS.read_request(json.dumps(value).encode())
    except ValueError as error:
        assert str(error)


def reply(**members: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"} | members
    return json.dumps({"choices": [choice]}).encode()


@pytest.mark.parametrize("why", ["content_filter", "tool_calls", "length"])
def test_an_explained_null_is_an_empty_answer(why: str) -> None:
    answer = AILS.answer(reply(message={"content": None}, finish_reason=why), 200)
    assert (answer.text, answer.finish_reason) == ("", why)


@pytest.mark.parametrize("content", [None, 7, {"a": 1}, [{"type": "text"}]])
def test_an_unexplained_one_is_a_bad_body(content: Any) -> None:
    with pytest.raises(BadBody, match="does not say why"):
        AILS.answer(reply(message={"content": content}), 200)


@pytest.mark.parametrize(
    "usage", [None, [], {"prompt_tokens": -1}, {"prompt_tokens": "7"}, {"prompt_tokens": 1.5}, {"prompt_tokens": True}]
)
def test_a_usage_that_counts_nothing_is_none(usage: Any) -> None:
    body = json.dumps(json.loads(reply()) | {"usage": usage}).encode()
    assert AILS.answer(body, 200).prompt_tokens is None


def test_an_answers_body_is_one_line_and_the_same_json() -> None:
    body = json.dumps(json.loads(reply()), indent=2).replace("\n", "\r\n").encode()
    answer = AILS.answer(body, 200)
    assert b"\n" not in answer.body and b"\r" not in answer.body
    assert json.loads(answer.body) == json.loads(body)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"message": "x", "code": 429}, Throttled, 429),
        ({"message": "x", "code": "429"}, Throttled, 429),
        ({"message": "x", "status": 400}, Refused, 400),
        ({"message": "x", "type": "rate_limit_error"}, Throttled, 429),
        ({"message": "x", "code": "insufficient_quota"}, Denied, 429),
        ({"message": "x", "type": "invalid_request_error", "code": "invalid_api_key"}, Denied, 401),
        ({"message": "x", "type": ["odd"]}, ServerFault, 500),
        ("just words", ServerFault, 500),
    ],
)
def test_an_error_under_200_counts_as_what_it_says(error: Any, kind: type[CallError], status: int) -> None:
    for body in ({"error": error}, {"error": error, "choices": []}):
        with pytest.raises(CallError) as caught:
            AILS.answer(json.dumps(body).encode(), 200)
        assert (type(caught.value), caught.value.status) == (kind, status)


def test_an_error_member_that_is_null_is_no_error() -> None:
    assert AILS.answer(json.dumps(json.loads(reply()) | {"error": None}).encode(), 200).text == "x"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"too hot","type":"x"}}', "HTTP 400: too hot"),
        (b'{"error":"too hot"}', "HTTP 400: too hot"),
        (b'{"detail":"too hot"}', "HTTP 400: too hot"),
        (b'{"object":"error","message":"too hot"}', "HTTP 400: too hot"),
        (b'{"detail":[{"msg":"too hot"}]}', 'HTTP 400: {"detail":[{"msg":"too hot"}]}'),
        (b"too\r\n\x1b[31mhot\x1b]0;title\x07 \xc2\x9bnow", "HTTP 400: too hot now"),
        (b"<html><title>Too hot</title>", "HTTP 400: an HTML page (Too hot)"),
        (b"", "HTTP 400"),
        (b"\xff\xfe", "HTTP 400: \ufffd\ufffd"),
    ],
)
def test_the_server_has_the_last_word_on_one_line(body: bytes, words: str) -> None:
    assert str(refusal(400, body)) == words


@unhurried
@given(st.text())
def test_clean_text_is_short_and_printable(text: str) -> None:
    assert clean(text).isprintable() and len(clean(text * 50)) <= 500


def test_a_request_the_gateway_cannot_read_says_why() -> None:
    for body, words in (
        (b"{", "not JSON"),
        (b'{"messages":[]}', "'model'"),
        (b'{"model":"m"}', "'messages'"),
        (b'{"model":"m","messages":[]}', "no messages"),
        (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', "surrogate"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":1}', "'stream'"),
    ):
        with pytest.raises(ValueError, match=words):
            AILS.read_request(body)


words = st.text(st.characters(exclude_categories=()), max_size=20)
said = st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": words}, optional={"name": words})


@given(
    st.lists(said, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["temperature", "stop", "zz"]), words),
    st.booleans(),
)
def test_a_request_is_one_object_however_it_is_put_together(
    messages: list[dict[str, str]], parameters: dict[str, str], signed: bool
) -> None:
    ours = {"temperature": parameters.get("temperature", 0.6), "stream": False} if signed else {}
    others = {name: parameters[name] for name in sorted(parameters) if not (signed and name == "temperature")}
    write = WIRES["ails" if signed else "openai"].writer("m", parameters)
    try:
        "".join(message["content"] for message in messages).encode()
    except UnicodeEncodeError:
        with pytest.raises(RowError, match="half a surrogate pair"):
            write(messages)
        return

    assert write(messages) == (exact.dumps({"model": "m", **ours, "messages": messages, **others}), messages[-1]["content"])


@given(st.lists(words), st.dictionaries(st.sampled_from(["temperature", "stop", "zz"]), words), st.booleans())
def test_several_texts_are_written_as_each_of_them_is(several: list[str], parameters: dict[str, str], signed: bool) -> None:
    write = WIRES["ails" if signed else "openai"].writer("m", parameters)
    try:
        "".join([*several, *(parameters.values())]).encode()
    except UnicodeEncodeError:
        assert write.texts(several) is None
        return

    assert write.texts(several) == [write([{"role": "user", "content": text}])[0] for text in several]


kept = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.sampled_from(
            [[], [{"message": {"content": "x"}}], [{"message": {"content": None}, "finish_reason": "length"}]]
        ),
        "model": words | st.none(),
        "usage": st.sampled_from([None, {}, {"prompt_tokens": 3, "completion_tokens": 0}]),
        "object": st.sampled_from(["chat.completion", "error"]),
        "error": st.sampled_from([None, {"code": 429}]),
    },
).map(lambda body: json.dumps(body).encode())


@unhurried
@given(st.lists(kept, max_size=3))
def test_several_kept_answers_are_read_as_each_of_them_is(bodies: list[bytes]) -> None:
    found = AILS.answers(bodies, [200] * len(bodies))

    if found is not None:
        assert found == [AILS.answer(body, 200, strictly=False) for body in bodies]


def test_usual_answers_are_read_at_once() -> None:
    body = OPENAI.write_answer("hi", model="m", id="chatcmpl-1", created=1, prompt_tokens=3, completion_tokens=4)

    assert OPENAI.answers([body, body], [200, 201]) == [OPENAI.answer(body, status, strictly=False) for status in (200, 201)]
    assert OPENAI.answers([body, b'{"object":"error"}'], [200, 200]) is None
