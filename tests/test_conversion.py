"""Conversion: whatever is not reported as lost comes back when one converts back."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch import exact
from batch.conversion import Report, convert
from batch.errors import JobError

from .conftest import Command

SUFFIX = {"csv": ".csv", "tsv": ".tsv", "parquet": ".parquet"}
REQUEST_FORMS = ["csv", "tsv", "jsonl", "parquet", "anthropic", "bedrock", "openai-batch"]
RESULT_FORMS = ["csv", "tsv", "jsonl", "parquet", "openai-results", "vllm-results", "anthropic-results", "bedrock-results"]

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def there_and_back(lines: list[Any], read: str, form: str) -> tuple[Report, list[Any]]:
    """Lines of one format to another and back: what the way there reported, and what came back."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin, end, middle = folder / "a.jsonl", folder / "b.jsonl", folder / f"m{SUFFIX.get(form, '.jsonl')}"
        begin.write_bytes(b"".join(exact.dumps(line) + b"\n" for line in lines))
        report = convert(str(begin), str(middle), source_format=read, target_format=form)
        convert(str(middle), str(end), source_format=form, target_format=read)
        return report, [exact.loads(line) for line in end.read_bytes().splitlines()]


texts = st.text(st.characters(codec="utf-8"), max_size=12)
any_text = st.text(max_size=12)  # half surrogate pairs too
numbers = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False, width=32)
anything = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@few
@given(st.lists(st.lists(texts, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(1, 3))
def test_any_table_of_texts_survives_every_format(table: list[list[str]], width: int) -> None:
    rows = [dict(zip("abc"[:width], cells, strict=False)) for cells in table]
    for form in ("csv", "tsv", "parquet"):
        report, back = there_and_back(rows, "jsonl", form)
        assert (report.lost, report.exit_code, back) == ({}, 0, rows)


@few
@given(st.lists(st.dictionaries(st.sampled_from("abc"), anything, max_size=3), max_size=4), st.sampled_from([*SUFFIX]))
def test_what_a_table_cannot_hold_is_reported(rows: list[dict[str, Any]], form: str) -> None:
    if not any(rows):
        return  # a table without columns is refused
    report, back = there_and_back(rows, "jsonl", form)
    assert len(back) == len(rows)
    assert back == rows or report.exit_code == 1


parameters = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 9_000),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "seed": st.integers(0, 2**53),
        "stop": st.lists(texts, min_size=1, max_size=2),
        "user": texts,
        "response_format": st.just({"type": "json_object"}),
        "logit_bias": st.none() | st.dictionaries(st.sampled_from(["1", "22"]), st.integers(-100, 100)),
        "some_extension": anything,
    },
)
contents = any_text | st.lists(
    st.one_of(
        st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
        st.just({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
        st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}),
        st.just({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}),
    ),
    max_size=3,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]), "content": contents}),
    max_size=4,
) | st.builds(lambda text: [{"role": "user", "content": text}], any_text)


@st.composite
def request_lines(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(texts.filter(bool), max_size=3, unique=True))
    bodies = [{"model": draw(texts), "messages": draw(messages), **draw(parameters)} for _ in names]
    return [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in zip(names, bodies, strict=True)
    ]


@few
@given(request_lines(), st.sampled_from(REQUEST_FORMS))
def test_requests_come_back_or_their_losses_are_reported(lines: list[dict[str, Any]], form: str) -> None:
    report, back = there_and_back(lines, "openai-batch", form)
    assert len(back) == len(lines)
    assert back == lines or report.exit_code == 1


@few
@given(request_lines(), st.sampled_from(["csv", "tsv", "jsonl", "parquet", "openai-batch"]))
def test_a_table_holds_all_that_a_request_says(lines: list[dict[str, Any]], form: str) -> None:
    report, back = there_and_back(lines, "openai-batch", form)
    told = [what for what in report.lost if not what.startswith("half surrogate pairs")]
    assert told == []
    assert back == lines or report.lost


failures = st.fixed_dictionaries(
    {
        "response": st.just(""),
        "error": texts.filter(bool),
        "error_kind": st.sampled_from(["refused", "transient", "pending", "input", "bad_answer", "internal"]),
        "http_status": st.sampled_from([None, 400, 404, 429, 500, 503]),
    }
)
successes = st.fixed_dictionaries(
    {
        "response": texts,
        "error": st.just(""),
        "error_kind": st.just(""),
        "http_status": st.just(200),
        "answer_model": texts.filter(bool),
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
        "prompt_tokens": st.integers(0, 9),
        "completion_tokens": st.integers(0, 9),
    }
)


def settled(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an output without its raw answer; nothing said is nothing, however it is written."""
    return {name: value for name, value in row.items() if name != "raw" and value not in (None, "")}


@few
@given(st.lists(failures | successes, min_size=1, max_size=3), st.sampled_from(RESULT_FORMS))
def test_results_come_back_or_their_losses_are_reported(rows: list[dict[str, Any]], form: str) -> None:
    rows = [{"custom_id": f"r{number}", **row} for number, row in enumerate(rows)]
    report, back = there_and_back(rows, "jsonl", form)
    assert len(back) == len(rows)
    if report.exit_code == 0 and form.endswith("results"):
        assert list(map(settled, back)) == list(map(settled, rows))


BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1711652795,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 22, "completion_tokens": 2, "total_tokens": 24},
    "system_fingerprint": "fp_123",
}
OPENAI_RESULTS = [
    {"id": "b1", "custom_id": "a", "response": {"status_code": 200, "request_id": "r", "body": BODY}, "error": None},
    {"id": "v1", "custom_id": "b", "response": BODY, "error": None},
    {"id": "v2", "custom_id": "c", "response": {"status_code": 400, "request_id": "r", "body": None}, "error": "no such model"},
    {"id": "b2", "custom_id": "d", "response": None, "error": {"code": "batch_expired", "message": "too late"}},
]


def test_both_shapes_of_vllm_and_openais_own_become_one(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in OPENAI_RESULTS))
    report = convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert (report.source_format, report.target_format, report.lost) == ("openai-results", "jsonl", {})
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["custom_id"], row["response"], row["error_kind"], row["http_status"]) for row in rows] == [
        ("a", "4", "", 200),
        ("b", "4", "", 200),
        ("c", "", "refused", 400),
        ("d", "", "pending", None),
    ]
    assert json.loads(rows[0]["raw"]) == BODY
    convert(str(tmp_path / "out.jsonl"), str(tmp_path / "vllm.jsonl"), target_format="vllm-results")
    vllm = [json.loads(line) for line in (tmp_path / "vllm.jsonl").read_text().splitlines()]
    assert vllm[0]["response"]["body"] == BODY
    assert vllm[2]["response"]["body"] is None
    assert (vllm[2]["response"]["status_code"], vllm[2]["error"]["message"]) == (400, "no such model")


def test_an_answer_loses_what_another_service_has_no_place_for(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(OPENAI_RESULTS[0]) + "\n")
    report = convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), target_format="anthropic-results")
    assert set(report.lost) == {"when answers were made ('created')", "'system_fingerprint' of answers"}
    message = json.loads((tmp_path / "out.jsonl").read_text())["result"]["message"]
    assert (message["id"], message["content"], message["stop_reason"]) == (
        "chatcmpl-1",
        [{"type": "text", "text": "4"}],
        "end_turn",
    )


ANTHROPIC = {
    "custom_id": "one",
    "params": {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                ],
            }
        ],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "top_k": 3,
    },
}


@pytest.mark.parametrize("form", ["openai-batch", "csv", "parquet"])
def test_anthropics_requests_survive_as_others(form: str) -> None:
    report, back = there_and_back([ANTHROPIC], "anthropic", form)
    assert (report.lost, back) == ({}, [ANTHROPIC])


def test_a_table_of_prompts_becomes_requests_and_says_which_columns_stay_behind(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,prompt,max_tokens,stop,topic\n007,hi,5,"[""END""]",a\n008,ho,,END,b\n')
    report = convert(str(tmp_path / "in.csv"), str(tmp_path / "out.jsonl"), target_format="openai-batch")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["007", "008"]
    assert lines[0]["body"] == {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stop": ["END"]}
    assert lines[1]["body"] == {"messages": [{"role": "user", "content": "ho"}], "stop": "END"}
    assert report.lost == {"'topic' of the row": 2}
    assert report.first["'topic' of the row"].endswith("in.csv, line 2")


def test_types_that_json_has_not_are_reported(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"day": pd.to_datetime(["2024-01-01", "2024-01-02"]), "n": [1, 2]})
    frame.to_parquet(tmp_path / "in.parquet", index=False)
    report = convert(str(tmp_path / "in.parquet"), str(tmp_path / "out.jsonl"))
    assert list(report.lost.values()) == [2]
    assert next(iter(report.lost)).startswith("the type of column 'day', timestamp")
    assert convert(str(tmp_path / "in.parquet"), str(tmp_path / "same.parquet")).exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "same.parquet"), frame)


def test_unreadable_rows_are_counted_and_shift_none(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a":"1"}\nnonsense\n{"a":"3"}\n')
    report = convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.csv"))
    assert (report.rows, report.exit_code) == (3, 1)
    assert next(iter(report.first.values())).endswith("in.jsonl, line 2")
    assert (tmp_path / "out.csv").read_text() == "a\n1\nnonsense\n3\n"


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ('{"custom_id":"a","params":{}}', {"target_format": "openai-results"}, "holds requests, which cannot become results"),
        ('{"custom_id":"a","result":{}}', {"target_format": "anthropic"}, "holds results, which cannot become requests"),
        ('{"a":1}', {"target_format": "excel"}, "--to excel: there is no such format"),
    ],
)
def test_formats_that_do_not_fit_are_refused_and_nothing_is_left_behind(
    tmp_path: Path, content: str, options: dict[str, str], words: str
) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(JobError, match=words):
        convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_command_tells_what_was_lost_and_exits_1(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a":"x"}\n{"a":null}\n')
    ended = cli("convert", "in.jsonl", "out.csv")
    assert ended.code == 1
    assert (
        ended.err
        == "ails-batch: not carried over: nulls (they are written as empty cells): 1 times, first in in.jsonl, line 2\n"
    )
    assert ended.summary["rows"] == 2
    ended = cli("convert", "out.csv", "-")
    assert (ended.code, ended.out, ended.err) == (0, '{"a":"x"}\n{"a":""}\n', "")
    assert cli("convert", "in.jsonl", "in.jsonl").code == 2
    assert cli("convert", "none.jsonl", "out.csv").code == 2


def test_a_name_that_tells_no_format_is_answered_with_the_option_that_exists(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\na\n")
    (tmp_path / "in.dat").write_text("prompt\na\n")
    assert "c.xlsx: the name does not tell the format; name it with --to (csv" in cli("convert", "in.csv", "c.xlsx").err
    assert "in.dat: the name does not tell the format; name it with --from (csv" in cli("convert", "in.dat", "c.csv").err
    assert cli("convert", "in.dat", "out", "--from", "csv", "--to", "jsonl").code == 0
