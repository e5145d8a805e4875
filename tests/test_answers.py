"""Answers as data: the JSON found, held against a schema, asked for again, and never paid for twice."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batch
from batch import exact
from batch.again import compact_again, export_again
from batch.answers import Schema, Unfit, values
from batch.errors import JobError
from batch.records import Answer, Prompt
from batch.verify import verify

from .rules import Ruled

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}, "area": {"type": "number"}},
    "required": ["city", "people"],
}
PARIS = '{"city":"Paris","people":2100000,"area":105.40}'


def answer(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text, "m", finish_reason, 1, 1, b"{}")


# Finding


@pytest.mark.parametrize(
    "text",
    [
        PARIS,
        f"\n  {PARIS} \n",
        f"```json\n{PARIS}\n```",
        f"Here you are:\n\n```\n{PARIS}\n```\nAnything else?",
        f"Sure! {PARIS} I hope this helps {{really}}.",
        f"[note] The set {{a, b}} means: {PARIS}",
        f'<think>Perhaps {{"city":"Rome","people":1}}?</think>{PARIS}',
        f'First I thought of {{"city": 5}}, but: {PARIS}',
        f"~~~{PARIS}",
        f"```json\n{PARIS}",
    ],
)
def test_the_json_is_found_whatever_stands_around_it(text: str) -> None:
    value = Schema(json.dumps(CITY)).fit(answer(text))
    assert exact.dumps(value).decode() == PARIS


@given(st.text(), st.text())
def test_any_chatter_around_a_json_object_is_borne(before: str, after: str) -> None:
    if '"' in before or "</think>" in before + after or "[" in before or "{" in before:
        return  # chatter that opens something may swallow what follows
    assert any(value == {"a": 1} for value in values(f'{before}{{"a":1}}{after}'))


@given(st.text(alphabet='{}[]",:01eE.-truefalsn\\u` \n'))
def test_any_text_is_gone_through_without_error(text: str) -> None:
    list(values(text))


@pytest.mark.parametrize("text", ["[0," * 200_000, "[" * 300_000, '{"a":' * 100_000, "[" * 900 + "0," * 200_000, '{"' * 99_999])
def test_a_text_that_only_looks_like_json_takes_no_time(text: str) -> None:
    assert [value for value in values(text) if isinstance(value, dict)] == []


# Fitting


def test_all_errors_are_told_with_their_places() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}, "required": ["b"]}
    with pytest.raises(Unfit) as caught:
        Schema(json.dumps(schema)).fit(answer('{"a":[1,"x",2.5]}'))
    assert sorted(caught.value.errors) == [
        '$.a[1]: "x" is not of type "integer"',
        '$.a[2]: 2.5 is not of type "integer"',
        '$: "b" is a required property',
    ]
    assert str(caught.value).startswith("the answer does not fit the schema: ")


def test_numbers_are_held_against_the_schema_exactly() -> None:
    schema = Schema('{"multipleOf": 0.01, "maximum": 9007199254740992}')
    assert str(schema.fit(answer("0.10"))) == "0.10"
    for text in ("0.105", "9007199254740993", "1e999"):
        with pytest.raises(Unfit):
            schema.fit(answer(text))


def test_an_answer_that_was_cut_says_so() -> None:
    with pytest.raises(Unfit, match=r"there is no JSON in it \(it was cut at its token limit"):
        Schema("{}").fit(answer('{"a": "begi', "length"))


def test_a_text_of_half_a_surrogate_pair_does_not_fit() -> None:
    with pytest.raises(Unfit, match="half a surrogate pair"):
        Schema('{"properties":{"a":{"const":"x"}}}').fit(answer('{"a":"\\ud800"}'))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "is no JSON Schema: Expecting value"),
        ('{"type":"nope"}', 'is no JSON Schema: "nope" is not valid'),
        ('{"$ref":"http://127.0.0.1:9/x"}', "none is fetched"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_schema_is_refused(text: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        Schema(text, "s.json")


def test_the_next_request_holds_the_conversation_and_what_was_wrong() -> None:
    schema = Schema(json.dumps(CITY))
    prompt = Prompt(3, bytes(16), 1, b'{"model":"m","messages":[{"role":"user","content":"Paris?"}],"seed":0.10}', "Paris?", 9)
    with pytest.raises(Unfit) as caught:
        schema.fit(answer('{"city":1}'))
    again = schema.again(prompt, answer('{"city":1}'), caught.value)
    assert (again.index, again.key, again.occurrence, again.id) == (3, bytes(16), 1, prompt.id)
    assert again.tokens > prompt.tokens
    body = json.loads(again.body)
    assert b'"seed":0.10' in again.body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][-1]["content"] == again.content
    assert '$.city: 1 is not of type "string"' in again.content
    assert json.dumps(CITY, separators=(",", ":")) in again.content


# The whole way


Run = Callable[..., tuple[batch.Summary, list[dict[str, str]]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs rows against a rule; the server keeps its name whatever its port, so that a row stays the same row."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 24)

    def call(server: Ruled, schema: Any = CITY, rows: int = 1, **settings: Any) -> tuple[batch.Summary, list[dict[str, str]]]:
        Path("in.csv").write_text("id,prompt\n" + "".join(f"{row:03},city {row}\n" for row in range(rows)))
        if schema is not None:
            Path("s.json").write_text(json.dumps(schema))
            settings = {"schema": "s.json", "send_schema": False, **settings}
        endpoint = batch.Endpoint(url=server.url, protocol="openai", name="ruled", allow_http=True)
        given: dict[str, Any] = {"input": "in.csv", "output": "out.csv", "model": "m", "attempts": 2, "concurrency": 2}
        summary = batch.run(batch.Job(endpoint=endpoint, **given | settings))
        output = str(settings.get("output", "out.csv"))
        assert output.endswith("parquet") or verify("in.csv", output, "out.csv.journal").broken == 0
        with Path("out.csv").open(newline="", encoding="utf-8") as file:
            return summary, list(csv.DictReader(file))

    yield call


def after(texts: list[str]) -> Callable[[list[dict[str, Any]]], str]:
    """A rule: the first of `texts` to the first question, the next when asked again, and so on."""
    return lambda messages: texts[min(len(messages) // 2, len(texts) - 1)]


def test_an_answer_that_fits_is_an_answer_and_its_properties_are_columns(run: Run) -> None:
    with Ruled(after([f"Of course: {PARIS}"])) as server:
        summary, (row,) = run(server, explode=True)
    assert (summary.exit_code, summary.requests, row["error"]) == (0, 1, "")
    assert (row["city"], row["people"], row["area"]) == ("Paris", "2100000", "105.40")
    assert row["response"] == f"Of course: {PARIS}"


def test_verify_holds_the_columns_of_properties_to_the_answer(run: Run, tmp_path: Path) -> None:
    with Ruled(after([PARIS])) as server:
        run(server, explode=True)
    text = (tmp_path / "out.csv").read_text()
    (tmp_path / "out.csv").write_text(text.replace(",105.40", ",105.4"))
    found = verify("in.csv", "out.csv").first
    assert found
    assert found.found == "column 'area' is '105.4', its own answer has '105.40'"


def test_an_answer_that_does_not_fit_is_asked_again_openly(run: Run) -> None:
    with Ruled(after(["Paris is nice.", '{"city":"Paris"}', PARIS])) as server:
        summary, (row,) = run(server, repair=2)
        assert [len(body["messages"]) for body in server.requests] == [1, 3, 5]
        assert len(set(server.keys)) == 3
    assert (summary.exit_code, summary.ok, summary.requests) == (0, 1, 3)
    assert (summary.prompt_tokens, summary.completion_tokens) == (30, 15)
    assert (row["attempts"], row["response"], row["error_kind"]) == ("3", PARIS, "")


@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_an_answer_that_never_fits_ends_as_bad_answer_and_is_not_asked_again(run: Run, engine: str) -> None:
    with Ruled(after(["no JSON"])) as server:
        summary, (row,) = run(server, repair=1, engine=engine)
        assert (summary.exit_code, summary.kinds, summary.requests) == (1, {"bad_answer": 1}, 2)
        assert (row["attempts"], row["response"], row["error_kind"]) == ("2", "", "bad_answer")
        assert row["error"] == "the answer does not fit the schema: there is no JSON in it"
        assert run(server, repair=1)[0].requests == 0
        assert run(server, repair=1, retry_failed=True)[0].requests == 2


def test_every_request_is_paid_for_and_ends_the_run_at_its_cost(run: Run) -> None:
    price = batch.Price(prompt=100_000.0, completion=0.0)  # a dollar for ten prompt tokens
    with Ruled(after(["no JSON"])) as server:
        summary, _ = run(server, rows=8, repair=1, price=price, max_cost=3.0, concurrency=1)
    assert summary.exit_code == 6
    assert summary.cost_usd == pytest.approx(4.0)


def test_a_changed_schema_asks_again_only_for_answers_that_no_longer_fit(run: Run) -> None:
    def rule(messages: list[dict[str, Any]]) -> str:
        number = int(messages[0]["content"].split()[1])
        return json.dumps({"city": f"c{number}", "people": number, **({"area": 1.5} if number % 2 else {})})

    strict = CITY | {"required": ["city", "people", "area"]}
    with Ruled(rule) as server:
        assert run(server, rows=6)[0].requests == 6
        Path("s2.json").write_text(json.dumps(strict))
        server.rule = lambda messages: '{"city":"new","people":0,"area":2.5}'
        summary, rows = run(server, strict, rows=6)
        assert (summary.requests, summary.cached, summary.exit_code) == (3, 3, 0)
        assert [json.loads(row["response"])["city"] for row in rows] == ["new", "c1", "new", "c3", "new", "c5"]
        assert run(server, strict, rows=6)[0].requests == 0
        assert (compact_again("out.csv").rows, export_again("out.csv").ok) == (9, 6)
        assert run(server, strict, rows=6, retry_failed=True, explode=True)[0].requests == 0
        # And back: the old answers fit the old schema still.
        summary, rows = run(server, rows=6)
        assert (summary.requests, json.loads(rows[0]["response"])["city"]) == (0, "c0")


def test_a_looser_schema_takes_answers_that_did_not_fit_before(run: Run) -> None:
    with Ruled(after(['{"city":"Paris"}'])) as server:
        assert run(server)[0].kinds == {"bad_answer": 1}
        summary, (row,) = run(server, CITY | {"required": ["city"]})
        assert (summary.requests, summary.ok, row["response"]) == (0, 1, '{"city":"Paris"}')
        summary, (row,) = run(server, None)
        assert (summary.requests, summary.ok, row["error"]) == (0, 1, "")
        assert run(server)[0].requests == 0


def test_a_schema_given_later_asks_again_what_does_not_fit(run: Run) -> None:
    with Ruled(after(["Paris is nice."])) as server:
        assert run(server, None)[0].ok == 1
        server.rule = after([PARIS])
        assert run(server)[0].requests == 1
        assert run(server)[0].requests == 0


def test_a_repair_that_is_refused_leaves_the_row_a_bad_answer(run: Run) -> None:
    with Ruled(lambda messages: "no JSON" if len(messages) == 1 else 413) as server:
        summary, (row,) = run(server, repair=3)
    assert (summary.requests, row["error_kind"], row["attempts"]) == (2, "bad_answer", "2")
    assert "asked again: HTTP 413" in row["error"]


def test_a_repair_that_the_server_fails_at_is_tried_again_by_the_next_run(run: Run) -> None:
    with Ruled(lambda messages: "no JSON" if len(messages) == 1 else 500) as server:
        summary, (row,) = run(server, repair=1)
        assert (summary.requests, row["error_kind"]) == (3, "transient")
        server.rule = after([PARIS])
        assert run(server, repair=1)[0].ok == 1


def test_the_schema_is_sent_where_the_endpoint_takes_it(run: Run) -> None:
    with Ruled(after([PARIS])) as server:
        run(server, send_schema=None)
        sent = server.requests[0]["response_format"]
        assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY}}
        run(server, send_schema=False)
        assert "response_format" not in server.requests[1]
        run(server, send_schema=None, parameters={"response_format": {"type": "json_object"}})
        assert server.requests[2]["response_format"] == {"type": "json_object"}


def test_properties_of_an_answer_keep_their_types_in_json_lines_and_parquet(run: Run, tmp_path: Path) -> None:
    import pandas as pd

    nested = CITY | {"properties": CITY["properties"] | {"river": {"type": ["object", "null"]}}}
    texts = ['{"city":"Paris","people":3.0,"area":1.50,"river":{"name":"Seine"}}', "no"]
    with Ruled(lambda messages: texts[int(messages[0]["content"].split()[1])]) as server:
        run(server, nested, rows=2, explode=True)
        run(server, nested, rows=2, explode=True, output="out.jsonl", journal="out.csv.journal", prefix="p_")
        run(server, nested, rows=2, explode=True, output="out.parquet", journal="out.csv.journal")
    first, second = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert '"p_area":1.50' in (tmp_path / "out.jsonl").read_text()
    assert (first["p_city"], first["p_people"], first["p_river"]) == ("Paris", 3, {"name": "Seine"})
    assert (second["p_error_kind"], second["p_city"], second["p_river"]) == ("bad_answer", None, None)
    frame = pd.read_parquet(tmp_path / "out.parquet", dtype_backend="pyarrow")
    assert [str(frame[name].dtype) for name in ("city", "people", "area")] == [
        "string[pyarrow]",
        "int64[pyarrow]",
        "double[pyarrow]",
    ]
    assert frame["people"].tolist()[0] == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schema": "none.json"}, "none.json: cannot be read as a schema"),
        ({"repair": 1}, "name its file with schema"),
        ({"schema": "list.json", "explode": True}, "names no properties"),
        ({"schema": "clash.json", "explode": True}, "property 'error' has the name of another column"),
        ({"schema": "prompt.json", "explode": True}, "already has a column 'prompt'"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 24)
    Path("in.csv").write_text("prompt\na\n")
    Path("list.json").write_text('{"type":"array"}')
    Path("clash.json").write_text('{"properties":{"error":{}}}')
    Path("prompt.json").write_text('{"properties":{"prompt":{}}}')
    with Ruled(after([PARIS])) as server, pytest.raises(JobError, match=words):
        batch.run(batch.Job(input="in.csv", output="out.csv", endpoint=server.url, protocol="openai", model="m", **settings))
    assert server.requests == []
