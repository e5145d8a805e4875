"""The library where an event loop runs already: in a program of asyncio, and, by `make notebook`, in a real Jupyter kernel."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batch

from .rules import Ruled

PYTHON = os.environ.get("NOTEBOOK_PYTHON", "")
ROWS = 200


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ruled]:
    """Says every prompt again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 24)
    with Ruled(lambda messages: f"re: {messages[-1]['content']}") as ruled:
        yield ruled


def job(server: Ruled, rows: int = 5) -> batch.Job:
    Path("in.csv").write_text("prompt\n" + "".join(f"row {row}\n" for row in range(rows)))
    endpoint = batch.Endpoint(url=server.url, protocol="openai", name="ruled")
    return batch.Job(input="in.csv", output="out.csv", endpoint=endpoint, model="m", concurrency=2)


def test_a_job_runs_inside_a_running_event_loop(server: Ruled) -> None:
    one = job(server)

    async def main() -> batch.Summary:
        return batch.run(one)

    assert asyncio.run(main()).ok == 5


def test_in_a_thread_a_job_leaves_the_event_loop_to_others(server: Ruled) -> None:
    one, gate = job(server), threading.Event()

    def rule(messages: list[dict[str, Any]]) -> str:
        assert gate.wait(60)
        return "fine"

    server.rule = rule

    async def main() -> batch.Summary:
        run = asyncio.create_task(asyncio.to_thread(batch.run, one))
        while not server.requests:  # this loop goes on while the run waits for its first answer
            await asyncio.sleep(0.01)
        gate.set()
        return await run

    assert asyncio.run(main()).ok == 5


BAR = """
import asyncio, sys
import batch
from tqdm.auto import tqdm

async def main():
    endpoint = batch.Endpoint(url=sys.argv[1], protocol="openai", name="ruled")
    job = batch.Job(input="in.csv", output="out.csv", endpoint=endpoint, model="m")
    with tqdm(total=5, unit="row") as bar:
        return batch.run(job, watch=lambda now: bar.update(now.done - bar.n))

assert asyncio.run(main()).ok == 5
assert "IPython" not in sys.modules
"""


def test_a_bar_of_ones_own_shows_how_far_it_is(server: Ruled) -> None:
    job(server)
    done = subprocess.run([sys.executable, "-c", BAR, server.url], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "5/5 [" in done.stderr


# A real kernel

KERNEL = """
import json, queue, sys
from pathlib import Path
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel()
for cell in json.load(sys.stdin):
    asked = client.execute(cell)
    said = {"stdout": "", "stderr": "", "error": ""}
    while True:
        if Path("interrupt").exists():
            Path("interrupt").unlink()
            manager.interrupt_kernel()
        try:
            message = client.get_iopub_msg(timeout=0.1)
        except queue.Empty:
            continue
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != asked:
            continue
        if kind == "stream":
            said[content["name"]] += content["text"]
        elif kind == "error":
            said["error"] = content["ename"] + ": " + content["evalue"]
        elif kind == "status" and content["execution_state"] == "idle":
            break
    print(json.dumps(said), flush=True)
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


def cells(folder: Path, *sources: str) -> list[dict[str, str]]:
    """What a notebook's cells say, one after the other; a file called `interrupt` is the button."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    done = subprocess.run(
        [PYTHON, "-c", KERNEL], cwd=folder, env=environment, input=json.dumps(sources), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


BEGIN = f"""
import asyncio, warnings, batch, pandas as pd
from tqdm.auto import tqdm
endpoint = batch.Endpoint(url="URL", protocol="openai", name="ruled")
asked = dict(endpoint=endpoint, model="m", concurrency=2)
df = pd.DataFrame({{"prompt": [f"row {{row}}" for row in range({ROWS})]}})
asyncio.get_running_loop()
"""

in_a_kernel = pytest.mark.skipif(
    not PYTHON, reason="NOTEBOOK_PYTHON names no Python with a Jupyter kernel; see `make notebook`"
)


def press_after(server: Ruled, folder: Path, requests: int) -> None:
    """Interrupt the kernel, once, when so many requests have come."""
    once = threading.Lock()

    def rule(messages: list[dict[str, Any]]) -> str:
        if len(server.requests) >= requests and once.acquire(blocking=False):
            (folder / "interrupt").touch()
        time.sleep(0.05)
        return "fine"

    server.rule = rule


@in_a_kernel
@pytest.mark.timeout(300)
def test_frames_are_asked_and_the_bar_shows(server: Ruled, tmp_path: Path) -> None:
    ask = """
with tqdm(total=3, unit="row") as bar:
    out = batch.run_frame(df.head(3), **asked, watch=lambda now: bar.update(now.done - bar.n))
print(out["response"].tolist())
"""
    beside = """
ticks = 0
async def tick():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.001)
ticking = asyncio.create_task(tick())
out = await asyncio.to_thread(batch.run_frame, df.head(50), **asked)
ticking.cancel()
print(len(out), ticks > 10)
"""
    begin, asked, apart = cells(tmp_path, BEGIN.replace("URL", server.url), ask, beside)
    assert begin["error"] == ""
    assert (asked["error"], asked["stdout"]) == ("", "['re: row 0', 're: row 1', 're: row 2']\n")
    assert "3/3 [" in asked["stderr"]
    assert (apart["error"], apart["stdout"]) == ("", "50 True\n")


@in_a_kernel
@pytest.mark.timeout(300)
def test_an_interrupt_keeps_what_is_done_and_the_next_call_goes_on(server: Ruled, tmp_path: Path) -> None:
    ask = """
out = batch.run_frame(df, **asked, journal="kept.journal")
print(out.attrs["summary"]["ok"], out.attrs["summary"]["requests"], out.attrs["summary"]["cached"])
"""
    press_after(server, tmp_path, 20)
    begin, stopped, again = cells(tmp_path, BEGIN.replace("URL", server.url), ask, ask)
    assert begin["error"] == ""
    assert stopped["error"].startswith("KeyboardInterrupt: stopped by SIGINT; what was answered is in")
    assert "kept.journal" in stopped["error"]
    assert again["error"] == ""
    ok, requests, cached = map(int, again["stdout"].split())
    assert ok == ROWS
    assert requests + cached == ROWS
    assert cached >= 20
    assert len(server.requests) == ROWS  # nothing was asked twice


@in_a_kernel
@pytest.mark.timeout(300)
def test_an_interrupted_job_says_so_in_its_summary(server: Ruled, tmp_path: Path) -> None:
    job(server, ROWS)
    ask = """
job = batch.Job(input="in.csv", output="out.csv", **asked)
summary = batch.run(job)
print(summary.exit_code, summary.ok, summary.pending)
"""
    press_after(server, tmp_path, 20)
    _, stopped, again = cells(tmp_path, BEGIN.replace("URL", server.url), ask, ask)
    code, ok, pending = map(int, stopped["stdout"].split())
    assert (code, ok + pending) == (130, ROWS)
    assert pending
    assert again["stdout"] == f"0 {ROWS} 0\n"
    assert len(server.requests) == ROWS
