"""A wall clock that is set, changes to winter time or passes midnight during a run: only stamps and names follow it.

The runs are processes of their own. Where the wall clock has to jump, `time.time` of the whole process is moved before anything
of the project is imported; where only the hour matters, the zone is chosen so that it is that hour now.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from batch.job import dated
from batch.signature import SignatureError, verify

from .conftest import Ended

SECRET = "a secret of the tests, thirty-two"
HOUR = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")

STEPPED = """
import sys, time
from pathlib import Path
wall, step = time.time, Path(sys.argv.pop(1))
time.time = lambda: wall() + float(step.read_text() or 0)
from batch.__main__ import main
main()
"""


class Watching:
    """A signed endpoint that keeps the stamps it saw.

    Attributes:
        ahead: Seconds by which its clock is before the true one.
        before: Called before each answer with the request's number and prompt; a status other than 200 is said instead.
        stamps: `(t in seconds, d, prompt)` of every request that was well signed.
    """

    def __init__(self) -> None:
        self.ahead: Callable[[], float] = lambda: 0.0
        self.before: Callable[[int, str], int] = lambda number, prompt: 200
        self.stamps: list[tuple[float, str, str]] = []
        self.refused = 0
        watching = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][-1]["content"]
                try:
                    verify(body, prompt, [SECRET], (time.time() + watching.ahead()) * 1000)
                except SignatureError as error:
                    watching.refused += 1
                    self.say(401, {"error": {"message": f"signature: {error}"}})
                    return
                watching.stamps.append((int(body["t"]) / 1000, body["d"], prompt))
                status = watching.before(len(watching.stamps), prompt)
                choice = {"index": 0, "message": {"role": "assistant", "content": f"re: {prompt}"}, "finish_reason": "stop"}
                answer = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}
                self.say(status, answer if status == 200 else {"error": {"message": "not now"}})

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(int(time.time() + watching.ahead()))

            def say(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def server() -> Iterator[Watching]:
    watching = Watching()
    threading.Thread(target=watching.server.serve_forever, args=(0.05,), daemon=True).start()
    yield watching
    watching.server.shutdown()
    watching.server.server_close()


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """How many seconds the run's wall clock is off."""
    path = tmp_path / "step"
    path.write_text("0")
    return path


def set_to(step: Path, seconds: float) -> None:
    whole = step.with_name("step.new")
    whole.write_text(f"{seconds}")
    whole.replace(step)


def run(server: Watching, step: Path, *arguments: str, zone: str = "UTC") -> Ended:
    """A command whose wall clock is off by what `step` says, at any time."""
    environment = {
        "PATH": os.environ["PATH"],
        "TZ": zone,
        "AILS_BASE_URL": server.url,
        "AILS_API_KEY": "k" * 24,
        "AILS_SECRET": SECRET,
        "AILS_MODEL": "m",
    }
    command = [sys.executable, "-c", STEPPED, str(step), *arguments]
    done = subprocess.run(command, cwd=step.parent, env=environment, capture_output=True, text=True, timeout=100)
    return Ended(done.returncode, done.stdout, done.stderr)


def prompts(step: Path, rows: int) -> None:
    (step.parent / "in.csv").write_text("id,prompt\n" + "".join(f"{row:03},what is {row}?\n" for row in range(rows)))


def output(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# A clock that is set


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_set_during_a_run_stalls_neither_pace_nor_pause_nor_deadline(server: Watching, step: Path, jump: float) -> None:
    prompts(step, 12)
    server.ahead = lambda: float(step.read_text())

    def before(number: int, _: str) -> int:
        if number == 4:
            set_to(step, jump)
        return 503 if number in (5, 6) else 200

    server.before = before
    options = ["--rpm", "600", "--concurrency", "1", "--deadline", "30m", "--max-outage", "20m", "--metrics-file", "run.prom"]
    ended = run(server, step, "run", "in.csv", "-o", "out.csv", "--log-file", "run.log", *options)
    assert (ended.code, ended.err) == (0, "")
    assert (ended.summary["ok"], ended.summary["requests"], server.refused) == (12, 14, 0)
    assert 0 < ended.summary["seconds"] < 1000
    assert [row["response"] for row in output(step.parent / "out.csv")] == [f"re: what is {row}?" for row in range(12)]
    # Stamps follow the new time, and only the new time.
    jumps = [round((later - earlier) / HOUR) for (earlier, *_), (later, *_) in pairwise(server.stamps)]
    assert [one for one in jumps if one] == [jump / HOUR]
    assert run(server, step, "verify", "in.csv", "out.csv").code == 0
    assert run(server, step, "run", "in.csv", "-o", "out.csv").summary["requests"] == 0


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_set_wrong_is_corrected_from_the_servers(server: Watching, step: Path, jump: float) -> None:
    prompts(step, 8)

    def before(number: int, _: str) -> int:
        if number == 3:
            set_to(step, jump)
        return 200

    server.before = before
    ended = run(server, step, "run", "in.csv", "-o", "out.csv", "--concurrency", "1")
    assert (ended.code, ended.summary["ok"], ended.summary["failed"]) == (0, 8, 0)
    assert server.refused == 1
    assert all(abs(t - time.time()) < HOUR / 2 for t, *_ in server.stamps)


def test_what_came_later_counts_though_its_time_is_an_earlier_one(server: Watching, step: Path) -> None:
    prompts(step, 3)
    server.ahead = lambda: float(step.read_text())
    set_to(step, HOUR)
    server.before = lambda number, prompt: 500 if "1" in prompt else 200
    assert run(server, step, "run", "in.csv", "-o", "out.csv", "--attempts", "1").code == 1
    set_to(step, 0)
    server.before = lambda number, prompt: 200
    ended = run(server, step, "run", "in.csv", "-o", "out.csv", "--attempts", "1")
    assert (ended.code, ended.summary["requests"], ended.summary["cached"]) == (0, 1, 2)
    set_to(step, -HOUR)
    assert run(server, step, "repair", "out.csv", "--compact").code == 0
    (step.parent / "out.csv").unlink()
    assert run(server, step, "export", "out.csv").code == 0
    assert [row["error"] for row in output(step.parent / "out.csv")] == ["", "", ""]
    assert run(server, step, "verify", "in.csv", "out.csv").code == 0


# The hour that exists twice, and midnight


@pytest.mark.parametrize(
    ("moment", "day", "datetimes"),
    [
        ("2026-10-25T00:30:00+00:00", "2026-10-25", "2026-10-25T02-30-00"),  # summer time
        ("2026-10-25T01:30:00+00:00", "2026-10-25", "2026-10-25T02-30-00"),  # winter time, half past two again
        ("2026-03-29T01:00:00+00:00", "2026-03-29", "2026-03-29T03-00-00"),  # there was no two o'clock
        ("2026-10-24T21:59:59+00:00", "2026-10-24", "2026-10-24T23-59-59"),
        ("2026-10-24T22:00:00+00:00", "2026-10-25", "2026-10-25T00-00-00"),
    ],
)
def test_names_have_the_date_that_a_clock_on_the_wall_shows(moment: str, day: str, datetimes: str) -> None:
    now = datetime.fromisoformat(moment).astimezone(BERLIN)
    assert dated("out-{date}.csv", now) == f"out-{day}.csv"
    assert dated("{datetime} {month} {year}", now).split() == [datetimes, day[:7], day[:4]]


@pytest.mark.parametrize(
    ("begins", "days"),
    [
        ("2026-10-25T00:59:58+00:00", ["2026-10-25"]),  # three o'clock becomes two o'clock
        ("2026-03-29T00:59:58+00:00", ["2026-03-29"]),  # two o'clock becomes three o'clock
        ("2026-10-25T22:59:57+00:00", ["2026-10-25", "2026-10-26"]),  # the midnight after
    ],
)
def test_a_run_goes_on_through_the_hour_that_changes(server: Watching, step: Path, begins: str, days: list[str]) -> None:
    prompts(step, 6)
    moment = datetime.fromisoformat(begins).timestamp()
    off = moment - time.time()
    set_to(step, off)
    server.ahead = lambda: float(step.read_text())

    def before(number: int, _: str) -> int:
        if number == 3:  # by now some seconds have passed, or this does it
            set_to(step, off + 5)
        return 200

    server.before = before
    ended = run(server, step, "run", "in.csv", "-o", "out.csv", "--concurrency", "1", zone="Europe/Berlin")
    assert (ended.code, ended.summary["requests"], server.refused) == (0, 6, 0)
    # The date is that of the time beside it, always.
    assert [d for _, d, _ in server.stamps] == [datetime.fromtimestamp(t, BERLIN).date().isoformat() for t, *_ in server.stamps]
    assert {d for _, d, _ in server.stamps} <= set(days)
    assert server.stamps[-1][1] == days[-1]


def zone_east(seconds: int) -> str:
    """A zone so many seconds east of Greenwich, in the words of POSIX."""
    sign, rest = "-" if seconds >= 0 else "+", abs(seconds)
    return f"TST{sign}{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def zone_in_the_double_hour(*, again: bool) -> str:
    """A zone whose summer ends within the hour: half an hour ahead, or, `again`, half an hour ago."""
    now = time.gmtime(time.time() + (-1800 if again else 1800) + 3600)  # the end, on a clock that shows summer time
    return f"WIN0SUM-1,J1/0,{now.tm_yday - 1}/{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"


def test_in_the_hour_that_exists_twice_a_nightly_job_goes_on(server: Watching, step: Path) -> None:
    prompts(step, 3)
    options = ["-o", "out-{date}.csv", "--journal", "out.journal"]
    for again, requests in ((False, 3), (True, 0)):
        zone = zone_in_the_double_hour(again=again)
        ended = run(server, step, "run", "in.csv", *options, zone=zone)
        shown = subprocess.run(["date", "+%F"], env={"TZ": zone, "PATH": os.environ["PATH"]}, capture_output=True, text=True)
        assert (ended.code, ended.summary["requests"]) == (0, requests)
        assert ended.summary["output"] == f"out-{shown.stdout.strip()}.csv"
        assert len(output(step.parent / ended.summary["output"])) == 3


def test_a_job_begun_before_midnight_has_the_name_of_that_day(server: Watching, step: Path) -> None:
    prompts(step, 4)
    for lead in (6, 30, 80):  # a busy machine may be slow to begin
        begun = time.time()
        zone = zone_east(((86_400 - lead - int(begun) % 86_400) + 43_200) % 86_400 - 43_200)
        first: list[float] = []

        def before(number: int, _: str, first: list[float] = first, midnight: float = int(begun) + lead) -> int:
            first.append(time.time())
            if len(first) == 2:
                time.sleep(max(0.0, midnight + 0.5 - time.time()))
            return 200

        server.before = before
        options = ["-o", "out-{date}.csv", "--journal", f"{lead}.journal", "--concurrency", "1"]
        ended = run(server, step, "run", "in.csv", *options, zone=zone)
        if first[0] < int(begun) + lead:
            break
    else:
        pytest.fail("no run began within 80 s")
    assert ended.code == 0
    shown = ["date", "-d", f"@{int(begun)}", "+%F"]
    day = subprocess.run(shown, env={"TZ": zone, "PATH": os.environ["PATH"]}, capture_output=True, text=True).stdout.strip()
    assert ended.summary["output"] == f"out-{day}.csv"
    assert first[-1] > int(begun) + lead
    assert len(output(step.parent / f"out-{day}.csv")) == 4
