"""The bar tells how fast rows are asked and how long the rest will take, whatever was answered before."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.cli.bar import LEAST, Bar
from batch.cli.progress import Speed, said
from batch.gateway.embedded import Embedded
from batch.tally import Snapshot

from .conftest import known
from .hostile import Hostile

Process = subprocess.Popen[bytes]


class Watched:
    """A run that is looked at once a second."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.speed = Speed(lambda: self.now)

    def look(self, asked: int, cached: int = 0, seconds: float = 1.0, sent: int = 0) -> float | None:
        self.now += seconds
        done = cached + asked
        snapshot = Snapshot(9000, True, done, asked, 0, cached, max(sent, asked) + 7, 7, 0, 0, None, 0, 0, "", "")
        return self.speed(snapshot)


def test_rows_answered_before_are_no_speed() -> None:
    run = Watched()
    assert [run.look(0, cached=cached) for cached in (0, 4000, 8000)] == [None, None, None]
    run.look(20, cached=8000)
    assert run.look(40, cached=8000) == pytest.approx(20)
    assert run.look(60, cached=8900) == pytest.approx(20)


def test_an_outage_is_no_speed() -> None:
    run = Watched()
    run.look(0)
    assert run.look(0, sent=8) is None
    assert run.look(0, sent=9, seconds=600.0) is None


def test_reading_for_long_before_the_first_request_slows_nothing() -> None:
    run = Watched()
    run.look(0, cached=10)
    run.look(0, cached=8000, seconds=600.0)
    run.look(20)
    assert run.look(40) == pytest.approx(20)


def test_the_speed_is_that_of_the_last_minute() -> None:
    run = Watched()
    for second in range(300):
        run.look(100 * second)
    for second in range(61):
        speed = run.look(29_900 + second)
    assert speed == pytest.approx(1, abs=0.02)
    assert run.look(29_960, seconds=61.0) == 0.0


def test_the_bar_reckons_the_rest_from_that_speed() -> None:
    out = io.StringIO()
    with Bar(total=3000, file=out, ncols=100) as bar:
        bar.n, bar.speed = 2400, 20.0
        assert "2400/3000 [00:00<00:30, 20.00row/s" in str(bar).replace("it/s", "row/s")
        bar.speed = 0.0
        assert "<?" in str(bar)


def shown(columns: int, *, total: int | None = 3000, waiting: str = "", failed: int = 12) -> str:
    """What a bar shows on a terminal so wide."""
    now = Snapshot(
        total=total,
        exact=True,
        done=2400,
        ok=2400 - failed,
        failed=failed,
        cached=0,
        requests=2407,
        retries=7,
        prompt_tokens=1_000_000,
        completion_tokens=500_000,
        cost_usd=1.5,
        in_flight=3,
        width=8,
        bound="rpm",
        waiting=waiting,
    )
    with Bar(total=total, unit="row", file=io.StringIO(), ncols=columns) as bar:
        bar.n, bar.speed, bar.words = 2400, 20.0, said(now)
        return str(bar)


def test_a_wide_terminal_shows_everything() -> None:
    assert shown(160).endswith("2400/3000 [00:00<00:30, 20.00row/s, 1.5M tokens, $1.50, 12 failed, 7 retries, bound by rpm]")


def test_on_a_narrow_terminal_the_less_important_makes_room() -> None:
    assert shown(100).endswith("| 2400/3000 [00:00<00:30, 20.00row/s, $1.50, 12 failed, 7 retries, bound by rpm]")
    assert shown(80).endswith("| 2400/3000 [00:00<00:30, 20.00row/s, $1.50, 12 failed]")
    assert shown(60).endswith("| 2400/3000 [00:30 left, $1.50, 12 failed]")
    assert shown(60, failed=0).endswith("| 2400/3000 [00:30 left, $1.50, bound by rpm]")
    assert shown(50, waiting="stopping").endswith("| 2400/3000 [00:30 left, stopping]")


@given(
    columns=st.integers(48, 200),
    total=st.none() | st.integers(2400, 10**7),
    waiting=st.sampled_from(["", "stopping, 3 in flight", "127.0.0.1:9: no connection (connection refused)", "x" * 500]),
)
def test_a_bar_is_never_squeezed_and_its_text_never_cut(columns: int, total: int | None, waiting: str) -> None:
    bar = shown(columns, total=total, waiting=waiting)
    assert len(bar) <= columns
    assert bar.endswith("]")
    assert total is None or len(bar.split("|")[1]) >= LEAST


def test_a_long_reason_for_waiting_is_cut_where_it_says_that_it_goes_on() -> None:
    bar = shown(80, waiting="llm.example.com: no connection (the name does not resolve)")
    assert re.search(r"20\.00row/s, llm\.example\.com: .*…\]$", bar)


@contextlib.contextmanager
def terminal(folder: Path, environment: dict[str, str], columns: int, *options: str) -> Iterator[tuple[Process, int]]:
    """A run on a terminal so wide, and the terminal's other end."""
    command = [sys.executable, "-m", "batch", "run", "in.csv", "-o", "out.csv", *options]
    mine, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {"PATH": os.environ["PATH"], **environment}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        try:
            yield process, mine
        finally:
            os.close(mine)


def read(mine: int, until: str = "") -> str:
    """What a terminal is told up to some words, by default to its end."""
    told = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while not (until and until.encode() in told) and (piece := os.read(mine, 65536)):
            told += piece
    return told.decode()


def test_a_run_that_is_stopped_says_once_what_ctrl_c_does_and_leaves_a_bar_without_it(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\n" + "".join(f"p{row}\n" for row in range(9)))
    environment = {"AILS_API_KEY": "k" * 20, "AILS_SECRET": "s" * 32, "AILS_MODEL": "m"}
    with Hostile() as server:
        options = ["--endpoint", server.url("silent"), "--timeout", "2s", "--attempts", "1", "--concurrency", "2"]
        with terminal(tmp_path, environment, 60, *options) as (process, mine):
            read(mine, "bound by concurrency")
            process.send_signal(signal.SIGINT)
            told = read(mine)
            assert process.wait() == 130
    lines = [line.rpartition("\r")[2] for line in told.split("\r\n")]
    (hint,) = [line for line in lines if "Ctrl-C" in line]
    assert re.fullmatch("ails-batch: stopping; Ctrl-C now leaves the [12] in flight", hint)
    assert "stopping, " in told
    assert "/9 [" in lines[1]
    assert "stopping" not in lines[1]
    assert lines[2] == "ails-batch: stopped by SIGINT"


def test_a_resumed_run_shows_no_speed_it_does_not_have(echo: Embedded, tmp_path: Path) -> None:
    def run(rows: int, *options: str) -> str:
        (tmp_path / "in.csv").write_text("prompt\n" + "".join(f"p{row}\n" for row in range(rows)))
        with terminal(tmp_path, known(echo), 120, *options) as (process, mine):
            told = read(mine)
            assert process.wait() == 0
        return told

    run(500)
    speeds = [float(one) for one in re.findall(r"([\d.]+)row/s", run(520, "--rpm", "600"))]
    assert speeds
    assert max(speeds) < 100
