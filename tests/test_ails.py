"""The names users of the signed protocol know, against a server that verifies."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import batch
from batch import ails
from batch.ails import Utils, _create_completion, create_completion
from batch.errors import BadBody, Denied, JobError, RowError, Throttled
from batch.signature import sign
from tests.hostile import KEY, SECRET, Hostile

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


@pytest.fixture(autouse=True)
def settings(server: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AILS_API_KEY", KEY)
    monkeypatch.setenv("AILS_SECRET", SECRET)
    monkeypatch.setenv("AILS_BASE_URL", server.url("signed"))


def ask(**kwargs: Any) -> Any:
    return create_completion("m", MESSAGES, **kwargs)


def test_the_whole_text_comes_back(server: Hostile) -> None:
    assert create_completion(model="m", messages=MESSAGES, max_tokens=3) == "four"
    assert server.seen[-1].json["max_tokens"] == 3 and server.seen[-1].json["temperature"] == 0.6
    assert _create_completion is create_completion is batch.create_completion


def test_a_stream_is_a_generator_of_pieces(server: Hostile) -> None:
    pieces = ask(stream=True, base_url=server.url("stream"))
    assert iter(pieces) is pieces and list(pieces) == ["one ", "two ", "three"]


def test_no_content_is_none(server: Hostile) -> None:
    assert ask(base_url=server.url("filtered")) is None
    with pytest.raises(BadBody):
        ask(base_url=server.url("null_content"))


def test_what_goes_wrong_is_one_of_our_exceptions_and_happens_once(server: Hostile) -> None:
    for behaviour, kind in (("html", BadBody), ("status_429", Throttled)):
        before = server.requests[behaviour]
        with pytest.raises(kind):
            ask(base_url=server.url(behaviour))
        assert server.requests[behaviour] == before + 1
    with pytest.raises(Denied):
        ask(secret="another")
    with pytest.raises(RowError):
        create_completion("m", [])
    with pytest.raises(RowError):
        ask(n=2)


@pytest.mark.parametrize("name", ["AILS_API_KEY", "AILS_SECRET", "AILS_BASE_URL"])
def test_a_missing_setting_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(JobError, match=name):
        ask()


def test_settings_come_from_a_dotenv_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AILS_SECRET")
    (tmp_path / ".env").write_text(f"AILS_SECRET={SECRET}\n")
    (tmp_path / ".env").chmod(0o600)
    assert ask() == "four"


def test_forty_equal_calls_at_once_are_forty_stamps(server: Hostile) -> None:
    server.stamps.clear()
    start = threading.Barrier(40)

    def one(_: int) -> Any:
        start.wait()
        return ask()

    ails._made.cache_clear()
    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(one, range(40))) == ["four"] * 40
    assert len(server.stamps) == 40


def test_the_two_computations() -> None:
    assert Utils.format_timestamp(1_700_000_000_000) == "1700000000001"
    assert Utils.hash({"t": "1700000000001", "m": "hello"}) == sign("1700000000001", "hello", SECRET)


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    script = "import sys, threading, batch.ails; print(threading.active_count(), 'pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "False"] and not list(tmp_path.iterdir())
