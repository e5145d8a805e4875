"""Answers' bodies, whole and streamed: an answer or one of the project's own errors, and the same wherever a stream is cut."""

from __future__ import annotations

import json

from batch.errors import CallError
from batch.wires import WIRES, read_chunk, refusal, write_chunk
from batch.wires.answer import DONE, read_answer, read_stream, write_answer

BODY = write_answer("four", model="m", id="1", created=1, prompt_tokens=3, completion_tokens=1)
EVENT = write_chunk("four", model="m", id="1", created=1)
SEEDS = [
    b"\x00" + BODY,
    b"\x01" + EVENT + write_chunk("", model="m", id="1", created=1, finish_reason="stop") + DONE,
    b"\x00" + json.dumps({"error": {"message": "no", "type": "x", "param": None, "code": "insufficient_quota"}}).encode(),
    b'\x00{"error":"no","status":429}',
    b'\x00{"object":"error","message":"no","code":400}',
    b'\x00{"choices":[{"message":{"content":[{"type":"text","text":"a"}]},"finish_reason":null}],"usage":{"prompt_tokens":-1}}',
    b'\x00{"choices":[{"message":{"content":null},"finish_reason":"tool_calls"}]}',
    b"\x00<html><title>Bad gateway</title>\x1b[31m",
    b'\x00{"a":NaN}',
    b'\x00{"a":1,"a":2}',
    b"\x00" + b'{"a":' * 300,
    b'\x15data: {"error":{"message":"no"}}\n\n: comment\r\nevent: x\ndata:[DONE]\n',
    b'\x09data: {"choices":[]}\n\ndata: {"choices":[{"delta":{"content":1}}]}\n',
]
WORDS = [
    *(
        b'"%s":' % name
        for name in b"choices message content finish_reason usage prompt_tokens error code type delta object".split()
    ),
    *(b"data: ", b"[DONE]", b"\n\n", b"null", b"[]", b"{}", b'""', b"NaN", b"\\ud800", b"tool_calls", b"</title>", b"\x1b["),
]


def check(data: bytes) -> None:
    """The first byte tells whether the others are a whole body or a stream, and where that is cut."""
    options, data = data[0] if data else 0, data[1:]
    if options & 1:
        step = 1 + (options >> 1)
        assert streamed([data[at : at + step] for at in range(0, len(data), step)]) == streamed([data])
        return
    for status in (400, 401, 429, 500):
        error = refusal(status, data)
        assert isinstance(error, CallError) and "\n" not in str(error) and len(str(error)) < 700
    try:
        read_chunk(data)
    except CallError as error:
        assert str(error)
    try:
        answer = read_answer(data)
    except CallError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert b"\n" not in answer.body and json.loads(answer.body) == json.loads(data)
    again = read_answer(answer.body, strictly=False)
    assert (again.text, again.model, again.finish_reason, again.body) == (
        answer.text,
        answer.model,
        answer.finish_reason,
        answer.body,
    )
    for name in ("prompt_tokens", "completion_tokens"):  # -0 is an integer here and none there
        assert (getattr(again, name) or 0) == (getattr(answer, name) or 0)
    made = WIRES["openai"].write_answer(answer.text, model="m", id="1", created=1)
    assert read_answer(made).text == answer.text


def streamed(pieces: list[bytes]) -> tuple[list[str], str]:
    """The texts of a stream, and the error in which it ends."""
    texts: list[str] = []
    try:
        texts.extend(read_stream(pieces))
    except CallError as error:
        return texts, f"{type(error).__name__}: {error}"
    return texts, ""
