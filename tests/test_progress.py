"""The bar tells how fast rows are asked and how long the rest will take, whatever was answered before."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from batch.cli.progress import Bar, Speed
from batch.gateway.embedded import Embedded
from batch.tally import Snapshot

from .conftest import known


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


def test_a_resumed_run_shows_no_speed_it_does_not_have(echo: Embedded, tmp_path: Path) -> None:
    def run(rows: int, *options: str) -> str:
        (tmp_path / "in.csv").write_text("prompt\n" + "".join(f"p{row}\n" for row in range(rows)))
        command = [sys.executable, "-m", "batch", "run", "in.csv", "-o", "out.csv", *options]
        mine, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 120))
        environment = {"PATH": os.environ["PATH"], **known(echo)}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            try:
                while piece := os.read(mine, 65536):
                    shown += piece
            except OSError:  # Linux's way to say that the other end is closed
                pass
            finally:
                os.close(mine)
            assert process.wait() == 0
        return shown.decode()

    run(500)
    speeds = [float(one) for one in re.findall(r"([\d.]+)row/s", run(520, "--rpm", "600"))]
    assert speeds
    assert max(speeds) < 100
