"""Answers as data: what is found in an answer stands in it, and an answer that is a value is found."""

from __future__ import annotations

from typing import Any

from batch import exact
from batch.answers import Schema, Unfit, values
from batch.records import Answer, Prompt

from .jsonl import leaves, same, standard

PARIS = b'{"city":"Paris","people":2100000,"area":105.40}'
SEEDS = [
    PARIS,
    b"\n  %s \n" % PARIS,
    b"```json\n%s\n```" % PARIS,
    b"Here you are:\n\n```\n%s\n```\nAnything else?" % PARIS,
    b"Sure! %s I hope this helps {really}." % PARIS,
    b"[note] The set {a, b} means: %s" % PARIS,
    b'<think>Perhaps {"city":"Rome","people":1}?</think>%s' % PARIS,
    b'First I thought of {"city": 5}, but: %s' % PARIS,
    b"```json\n%s" % PARIS,
    b'{"city":"\\ud800","people":1e5,"area":NaN}[-0, 3.0, 123456789012345678901234567890, 1e400]',
    b"[" * 300 + b"1" + b"]" * 300,
    b'{"a":' * 300,
    b'"text"',
    b"",
]
WORDS = [
    b"```",
    b"```json\n",
    b"\n```",
    b"<think>",
    b"</think>",
    b'{"city":"',
    b'"people":',
    b'"area":',
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"1e5",
    b"\\ud800",
    b"3.0",
]
SCHEMAS = [
    Schema(text)
    for text in (
        '{"type":"object","properties":{"city":{"type":"string"},"people":{"type":"integer"},"area":{"type":"number"}},"required":["city"]}',
        '{"properties":{"city":{"pattern":"^[A-Z]"},"people":{"minimum":0.1,"multipleOf":0.1},"area":{"anyOf":[{"type":"null"},{}]}}}',
        '{"type":"array","items":{"type":["integer","string"],"format":"date"},"uniqueItems":true}',
        "true",
    )
]
PROMPT = Prompt(0, b"k" * 16, 0, b'{"messages":[{"role":"user","content":"x"}]}', "x", 1)


def check(data: bytes) -> None:
    """The bytes are an answer's text."""
    text = data.decode("utf-8", "surrogatepass") if valid(data) else data.decode("latin-1")
    kept = text
    _, thought, rest = text.rpartition("</think>")
    if thought and rest.strip():
        kept = rest
    found = list(values(text))
    for value in found:
        for leaf in leaves(value):
            if isinstance(leaf, exact.Number):
                assert leaf.literal in kept
            elif type(leaf) is int:
                assert str(leaf) in kept
            elif isinstance(leaf, str):
                assert "\\" in kept or leaf in kept
    whole = standard(kept.strip().encode("utf-8", "surrogatepass"))
    if whole is not ...:
        assert same(found[0], whole)
    elif kept.count("{") + kept.count("[") == 1 and (value := standing(kept)) is not ...:
        assert any(same(one, value) for one in found), "what stands in chatter is not found"
    answer = Answer(text, "m", "length", 1, 1, b"{}")
    for schema in SCHEMAS:
        try:
            value = schema.fit(answer)
            assert any(same_text(value, one) for one in found)
            schema.explode(value)
        except Unfit as unfit:
            assert str(unfit).isprintable() and unfit.errors
            again = schema.again(PROMPT, answer, unfit)
            assert exact.loads(again.body)["messages"][-1]["content"] == again.content


def same_text(one: Any, other: Any) -> bool:
    """Whether two values are written alike."""
    return exact.dumps(one) == exact.dumps(other)


def valid(data: bytes) -> bool:
    """Whether bytes are a text, which may have halves of surrogate pairs."""
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def standing(text: str) -> Any:
    """The one object or list that stands in a text."""
    start = min(at for at in (text.find("{"), text.find("[")) if at >= 0)
    end = max(text.rfind("}"), text.rfind("]")) + 1
    return standard(text[start:end].encode("utf-8", "surrogatepass")) if start < end else ...
