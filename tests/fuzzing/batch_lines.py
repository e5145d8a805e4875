"""OpenAI batch lines: whatever is asked, and in whatever shape results come, there is a result line for every row."""

from __future__ import annotations

import io
import json
from typing import Any

from batch import formats
from batch.errors import BatchError
from batch.formats.openai_batch import Writer
from batch.formats.results import members
from batch.formats.table import Layout
from tests.formats.tables import Bytes, read

SEEDS = [
    b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}\n{"custom_id":"b"\nnull\n',
    b'{"custom_id":7,"method":0,"url":[],"body":{}}\n{"custom_id":null}\n{"custom_id":"\\ud800"}\n"custom_id" : "x\\',
    b'{"custom_id":"a","response":{"status_code":200,"body":{"choices":[{"message":{"content":"x"}}]}},"error":null}',
    b'{"custom_id":"a","response":{"status_code":400,"body":{"error":{"message":"no","code":"x"}}},"error":null}',
    b'{"custom_id":"a","response":null,"error":{"code":"batch_expired","message":"late"}}',
    b'{"custom_id":"a","response":{"choices":[{"message":{"content":[{"text":"x"}]}}],"usage":{"prompt_tokens":1}},"error":"x"}',
    b'{"custom_id":"a","result":{"type":"succeeded","message":{"content":[{"type":"text","text":"x"}],"stop_reason":"end_turn"}}}',
    b'{"custom_id":"a","result":{"type":"errored","error":{"error":{"type":"x","message":"y"}}}}',
    b'{"recordId":"a","modelInput":{},"modelOutput":{"content":[{"text":"x"}]}}\n{"recordId":"a","modelInput":{},"error":{"errorCode":400}}',
]
WORDS = [
    *(
        b'"%s":' % name
        for name in b"custom_id method url body response error status_code choices message content usage".split()
    ),
    *(b'"%s":' % name for name in b"result type errored succeeded recordId modelInput modelOutput finish_reason code".split()),
    *(b"null", b"[]", b"{}", b'""', b"\n", b"\\ud800", b"1e5", b"200", b"400", b"batch_expired"),
]
PLAIN = {"response": "x", "http_status": 200, "prompt_tokens": 1, "completion_tokens": 2}


def check(data: bytes) -> None:
    """Read the bytes as batch lines, as result lines, and as an input whose format is to be recognised."""
    try:
        chunks = read(data, "openai-batch", rows=3)
    except BatchError:
        return
    with formats.source("memory://a.jsonl", opener=lambda _: io.BytesIO(data)) as source:
        count = sum(map(len, source.chunks()))
        assert source.format in ("jsonl", "openai-batch")
    told: list[dict[str, Any]] = []
    for chunk in chunks:
        for row in chunk.rows():
            result = members(row.values) or PLAIN
            told.append({name: value for name, value in result.items() if name != "custom_id"})
    out = Bytes()
    writer = Writer(out, Layout())
    for chunk in chunks:
        writer.write(chunk, range(len(chunk)), told[chunk.first : chunk.first + len(chunk)])
    lines = out.data.split(b"\n")[:-1]
    assert len(lines) == len(told) == count
    for line, made in zip(lines, told, strict=True):
        value = json.loads(line)
        assert isinstance(value["custom_id"], str) and value["custom_id"]
        assert (value["error"] is None) == (value["response"] is not None)
        again = members(value)
        assert again and bool(again["error_kind"]) == bool(made.get("error_kind")), (made, again)
        if not made.get("error_kind"):
            assert again["response"].encode("utf-8", "surrogatepass") == made["response"].encode("utf-8", "surrogatepass")
