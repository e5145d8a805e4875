"""The output is written beside the last requests: each row once it has come to its end, and none before."""

from __future__ import annotations

import json
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import batch
from batch.engines.loop import Loop
from batch.errors import Interrupted
from batch.flying import Flying
from batch.judge import Stop
from batch.records import Prompt

from .rules import Ruled
from .waiting import until

Messages = list[dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 24)
    return tmp_path


def run(server: Ruled, count: int, stop: Stop | None = None, **given: Any) -> batch.Summary:
    Path("in.jsonl").write_text("".join(f'{{"prompt":"row {number}"}}\n' for number in range(count)))
    endpoint = batch.Endpoint(url=server.url, protocol="openai", name="ruled")
    wanted = {"model": "m", "concurrency": 16, "output": "out.jsonl", **given}
    return batch.run(batch.Job(input="in.jsonl", endpoint=endpoint, **wanted), stop=stop)


def number(messages: Messages) -> int:
    return int(str(messages[-1]["content"]).split()[1])


def part() -> list[str]:
    """The rows of the unfinished output."""
    for path in Path().glob(".out.*.part"):
        with suppress(FileNotFoundError):  # it was finished meanwhile
            return path.read_text().splitlines()
    return []


def test_rows_are_written_while_the_last_answer_is_waited_for(folder: Path) -> None:
    seen: list[int] = []

    def rule(messages: Messages) -> str:
        if number(messages) == 999:
            until(lambda: len(part()) >= 800)
            seen.append(len(part()))
        return f"re: {number(messages)}"

    with Ruled(rule) as server:
        summary = run(server, 1000)
    assert (summary.ok, summary.exit_code) == (1000, 0)
    assert 800 <= seen[0] < 1000
    assert [json.loads(line)["response"] for line in Path("out.jsonl").read_text().splitlines()] == [
        f"re: {row}" for row in range(1000)
    ]
    assert not part()


@pytest.mark.parametrize("engine", ["threads", "processes"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_of_the_answers_each_row_gets_its_own(folder: Path, seed: int, engine: str) -> None:
    """The first rows are refused alike, which is withheld at first; some fail once, some for good, some take long."""
    chance = random.Random(seed)
    ends = ["" if row < 5 else chance.choice(["good", "good", "good", "slow", "down", "bad", "once"]) for row in range(400)]
    again: set[int] = set()

    def rule(messages: Messages) -> str | int:
        row = number(messages)
        if ends[row] == "once" and row not in again:
            again.add(row)
            return 500
        if ends[row] == "slow":
            time.sleep(0.2)
        return {"": 422, "bad": 400, "down": 500}.get(ends[row]) or f"re: {row}"

    with Ruled(rule) as server:
        summary = run(server, 400, attempts=2, engine=engine, processes=2)
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    expected = [{"": "refused", "bad": "refused", "down": "transient"}.get(end, "") for end in ends]
    assert [row["error_kind"] for row in rows] == expected
    assert [row["response"] for row in rows] == ["" if kind else f"re: {row}" for row, kind in enumerate(expected)]
    assert (summary.failed, summary.pending) == (len([kind for kind in expected if kind]), 0)


def test_a_run_that_is_stopped_meanwhile_writes_what_there_is_once_all_are_home(folder: Path) -> None:
    stop = Stop()

    def rule(messages: Messages) -> str:
        if number(messages) >= 960:  # sixteen of them at once, and the others are not sent any more
            until(lambda: len(part()) >= 800 or stop.event.is_set())
            stop.because(Interrupted(signal.SIGTERM))
        return f"re: {number(messages)}"

    with Ruled(rule) as server:
        summary = run(server, 1000, stop)
        rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
        assert [row["error_kind"] for row in rows] == [""] * 976 + ["pending"] * 24
        assert (summary.ok, summary.pending) == (976, 24)
        assert not part()
        assert run(server, 1000).requests == 24


def test_the_same_where_rows_were_appended_to_what_an_earlier_run_has_written(folder: Path) -> None:
    stop = Stop()

    def rule(messages: Messages) -> str:
        if number(messages) >= 1460:
            until(lambda: len(part()) >= 1300 or stop.event.is_set())
            stop.because(Interrupted(signal.SIGTERM))
        return f"re: {number(messages)}"

    with Ruled(rule) as server:
        assert run(server, 500).ok == 500
        summary = run(server, 1500, stop)
        rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
        assert [row["response"] for row in rows] == [f"re: {row}" for row in range(1476)] + [""] * 24
        assert (summary.rows, summary.ok, summary.pending) == (1500, 1476, 24)
        assert run(server, 1500).requests == 24


def test_what_cannot_be_written_meanwhile_is_told_in_the_end_and_nothing_is_lost(folder: Path) -> None:
    def rule(messages: Messages) -> str:
        if number(messages) == 999:
            until(lambda: len(part()) >= 800)
            Path("out.jsonl").write_text("somebody else's\n")
        return f"re: {number(messages)}"

    with Ruled(rule) as server:
        summary = run(server, 1000)
        assert summary.exit_code == 3
        assert "out.jsonl was replaced" in summary.error
        assert Path("out.jsonl").read_text() == "somebody else's\n"
        assert not part()
        Path("out.jsonl").unlink()
        assert (run(server, 1000).requests, len(server.requests)) == (0, 1000)


def test_rows_are_settled_up_to_the_first_one_that_is_out_or_has_not_taken_off() -> None:
    flying = Flying()
    assert flying.settled == 0
    for index in (0, 1, 5):  # those between them had answers already
        flying.take_off(Prompt(index, bytes(16), index, b"", ""))
    assert flying.settled == 0
    assert flying.land(1) is not None
    assert flying.settled == 0
    flying.land(0)
    assert flying.settled == 5
    flying.land(5)
    assert (flying.settled, len(flying), flying.land(5)) == (6, 0, None)


def test_a_loop_calls_nobody_before_it_is_begun() -> None:
    called: list[bool] = []
    loop: Loop[int] = Loop(lambda item: None, lambda item, under: None, lambda: called.append(True))
    assert not called
    loop.begin()
    assert until(lambda: bool(called))
    loop.close()
    loop.join(10)
