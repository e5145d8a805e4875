"""What is to be done, said once and checked once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batch.errors import JobError
from batch.job import ELSEWHERE, Endpoint, Job, Price, dated, duration, job, load, share


def test_paths_in_a_job_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "jobs/one.toml"
    file.parent.mkdir()
    file.write_text('input = "data/in.csv"\noutput = "../out.csv"\n[parameters]\nseed = 7\n')
    loaded = load(file)
    assert loaded.input == str(tmp_path / "jobs/data/in.csv")
    assert loaded.output == str(tmp_path / "out.csv")
    assert loaded.parameters == {"seed": 7}


def test_options_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text('input = "in.csv"\nrpm = 60\n')
    assert load(file, rpm=600).rpm == 600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("templat = 'x'", "one.toml: unknown key 'templat'; did you mean 'template'?"),
        ("rpm = 'fast'", "one.toml: rpm: must be a number, not a text"),
        ("rpm = 0", "one.toml: rpm: must be greater than 0; leave it out for no limit"),
        ("concurrency = 5000", "one.toml: concurrency: must be at most 1000; leave it out for auto"),
        ("concurrency = 'many'", "one.toml: concurrency: must be a whole number or 'auto', not 'many'"),
        ("protocol = 'http'", "one.toml: protocol: must be 'ails' or 'openai', not 'http'"),
        ("row_params = 'seed'", "one.toml: row_params: must be a list, not a text"),
        ("price = {prompt = -1, completion = 1}", "one.toml: price.prompt: must be at least 0"),
        ("timeout = 'soon'", "one.toml: timeout: 'soon' is no duration"),
        ("halt = 'never'", "one.toml: halt: 'never' is not understood"),
        ("[endpoint]\nurl = 'https://x'\nkey = 'y'", "one.toml: endpoint: unknown key 'key'"),
        ("rpm = ", "one.toml: not TOML: "),
        ("rpm = inf", "one.toml: rpm: must be at most 1e+12; leave it out for no limit (it is inf)"),
        ("[endpoint]\nprotocol = 'http'", "one.toml: endpoint.protocol: must be 'ails' or 'openai', not 'http'"),
        ("engine = 'x'", "one.toml: engine: must be 'threads' or 'processes', not 'x'"),
        ("quiet = true", "one.toml: unknown key 'quiet'; it is an option of the command line only: --quiet"),
        ("template = 'x'\ntemplate_file = 'y'", "exclude each other"),
        ("template = 'x'\nprompt_column = 'y'", "exclude each other"),
        ("parameters = {n = 2}", "parameter n"),
        ("max_cost = 5.0", "max_cost needs to know the price"),
    ],
)
def test_a_mistake_in_a_job_file_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "one.toml"
    file.write_text(text)
    with pytest.raises(JobError) as caught:
        load(file)
    assert words in str(caught.value)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"repeat": 0}, "repeat: must be at least 1; leave it out for 1 (it is 0)"),
    ({"sample": -1}, "sample: must be at least 1; leave it out for all rows (it is -1)"),
    ({"limit": -1}, "limit: must be at least 1; leave it out for all rows (it is -1)"),
    ({"limit": 10**30}, "limit: must be at most 1e+12"),
    ({"prompt_column": 5}, "prompt_column: must be a text, not a whole number"),
    ({"rpm": -1}, "rpm: must be greater than 0; leave it out for no limit (it is -1)"),
    ({"rpm": "600"}, "rpm: must be a number, not a text"),
    ({"rpm": float("nan")}, "rpm: must be greater than 0"),
    ({"attempts": 0}, "attempts: must be at least 1"),
    ({"attempts": True}, "attempts: must be a whole number, not true or false"),
    ({"max_outage": -3}, "max_outage: must be greater than 0"),
    ({"timeout": -1}, "timeout: must be greater than 0"),
    ({"timeout": "1000000d"}, "timeout: must be at most 1e+09"),
    ({"deadline": timedelta(hours=6)}, "deadline: must be a number or a text, not a timedelta"),
    ({"engine": "x"}, "engine: must be 'threads' or 'processes', not 'x'"),
    ({"protocol": "x"}, "protocol: must be 'ails' or 'openai', not 'x'"),
    ({"concurrency": "many"}, "concurrency: must be a whole number or 'auto', not 'many'"),
    ({"concurrency": 2.5}, "concurrency: must be a whole number or 'auto', not a number"),
    ({"halt": 5}, "halt: must be a text, not a whole number"),
    ({"input": Path("in.csv")}, "input: must be a text or a list, not PosixPath"),
    ({"row_params": ["seed", 3]}, "row_params[1]: must be a text, not a whole number"),
    ({"parameters": {1: 2}}, "parameters: every key must be a text, not a whole number"),
    ({"parameters": {"stop": {"a set"}, "at": object()}}, "parameters: have no JSON form"),
    ({"endpoint": 5}, "endpoint: must be a text or a table, not a whole number"),
    ({"endpoint": {"url": 5}}, "endpoint.url: must be a text, not a whole number"),
    ({"endpoint": {"key": "x"}}, "endpoint: unknown key 'key'"),
    ({"price": {"prompt": -1, "completion": 1}}, "price.prompt: must be at least 0"),
]


@pytest.mark.parametrize(("fields", "words"), UNFIT, ids=[words for _, words in UNFIT])
def test_what_does_not_fit_is_refused_in_the_same_words_however_a_job_is_made(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "one.toml"
    file.write_text("")
    ways: list[tuple[str, Callable[[], Job]]] = [
        ("", lambda: Job(**fields)),
        ("", lambda: job(fields)),
        (f"{file}: ", lambda: load(file, **fields)),
        ("", lambda: msgspec.structs.replace(Job(), **fields)),
    ]
    for place, made in ways:
        with pytest.raises(JobError) as refused:
            made()
        assert str(refused.value).startswith(place + words)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Endpoint(url=5), "url: must be a text, not a whole number"),  # type: ignore[arg-type]
        (lambda: Endpoint(protocol="x"), "protocol: must be 'ails' or 'openai', not 'x'"),  # type: ignore[arg-type]
        (lambda: Price(prompt=-1, completion=1), "prompt: must be at least 0 (it is -1)"),
        (lambda: Price(prompt="1", completion=1), "prompt: must be a number, not a text"),  # type: ignore[arg-type]
    ],
)
def test_an_endpoint_and_a_price_are_checked_when_they_are_made(made: Callable[[], object], words: str) -> None:
    with pytest.raises(JobError) as refused:
        made()
    assert str(refused.value) == words


def test_equal_jobs_are_equal_however_they_are_made() -> None:
    columns = ["seed"]
    one = Job(rpm=600, row_params=columns, endpoint=Endpoint(url="https://x"), price=Price(prompt=1, completion=2))
    table = {"rpm": 600.0, "row_params": ("seed",), "endpoint": {"url": "https://x"}}
    assert one == job(table | {"price": {"prompt": 1, "completion": 2}})
    columns.append("stop")
    assert one.row_params == ["seed"]


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "max-tokens", "top_p", "seed", "stop", "logit_bias"])
def test_a_parameter_of_the_request_is_sent_to_its_table(name: str, tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(f"{name} = 1\n")
    with pytest.raises(JobError) as refused:
        load(file)
    words = "it is a parameter of the request: write it under [parameters]"
    assert str(refused.value) == f"{file}: unknown key {name!r}; {words}"


def test_no_field_is_said_to_be_elsewhere() -> None:
    assert not ELSEWHERE.keys() & set(Job.__struct_fields__)


def test_a_missing_job_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such job file"):
        load(tmp_path / "none.toml")


def test_an_endpoint_counts_without_user_query_and_slash() -> None:
    assert Endpoint(url="https://me:pass@llm.example.com:8443/v1/?a=b").identity == "https://llm.example.com:8443/v1"
    assert Endpoint(url="https://llm.example.com", name="prod").identity == "prod"


def test_the_environment_names_the_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AILS_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(JobError, match="no endpoint: give --endpoint URL"):
        Job().resolved_endpoint()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://b.example.com/v1")
    assert Job().resolved_endpoint().protocol == "openai"
    monkeypatch.setenv("AILS_BASE_URL", "https://a.example.com")
    with pytest.raises(JobError, match="both set"):
        Job().resolved_endpoint()
    assert Job(protocol="ails").resolved_endpoint().url == "https://a.example.com"
    assert Job(endpoint="https://c.example.com").resolved_endpoint().url == "https://c.example.com"


def test_a_missing_secret_is_named_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AILS_API_KEY", "canary-key")
    monkeypatch.delenv("AILS_SECRET", raising=False)
    endpoint = Job(endpoint="https://a.example.com").resolved_endpoint()
    with pytest.raises(JobError, match="set AILS_SECRET") as caught:
        endpoint.credentials()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("6h", 21600), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_shares() -> None:
    assert share("fail=5%", "halt") == (5.0, True)
    assert share("20", "tolerate") == (20.0, False)


def test_names_take_the_date() -> None:
    assert dated("a-{date}.{other}.csv", datetime(2026, 3, 9, tzinfo=UTC)) == "a-2026-03-09.{other}.csv"


def test_a_job_shows_itself_without_secrets_and_comes_back() -> None:
    one = job({"input": "a.csv", "output": "b.csv", "timeout": "90s", "endpoint": {"url": "https://x.example.com"}})
    assert job(one.shown()) == one


@pytest.mark.parametrize(
    "url", ["https://host:abc/v1", "https://[::1", "https://", "ftp://me:hunter2@host/v1?k=hunter2", "me:hunter2@host"]
)
def test_an_endpoint_that_is_none_is_refused_without_showing_a_secret(url: str) -> None:
    with pytest.raises(JobError, match="is neither a URL") as refused:
        Job(endpoint=url).resolved_endpoint()
    assert "hunter2" not in str(refused.value)


def test_what_is_secret_in_a_url_does_not_reach_the_journal() -> None:
    url = "https://me:hunter2@host/v1?key=hunter2"
    assert Job(endpoint=url).shown()["endpoint"] == "https://host/v1"
    assert Job(endpoint=Endpoint(url=url, name="ours")).shown()["endpoint"]["url"] == "https://host/v1"
