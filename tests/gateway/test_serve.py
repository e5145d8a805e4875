"""`ails-batch serve`, as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from batch.signature import Credentials

from .conftest import Caller

SECRET = "a secret of more than thirty-two bytes"
KEYS = {"AILS_SECRET": SECRET, "AILS_API_KEY": "canary-key"}


def environment(**given: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AILS_", "OPENAI_"))} | given


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "batch", "serve", *arguments]


def refused(folder: Path, *arguments: str, **given: str) -> str:
    """What a gateway that must not start says."""
    ended = subprocess.run(
        command(*arguments), cwd=folder, env=environment(**given), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr
    return ended.stderr


@contextmanager
def served(folder: Path, *arguments: str, **given: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running gateway and its banner."""
    process = subprocess.Popen(
        command("--port", "0", *arguments), cwd=folder, env=environment(**given), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    banner = ""
    try:
        while "Ctrl-C" not in banner:
            line = process.stderr.readline()
            assert line, banner
            banner += line
        yield process, banner
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def address(banner: str) -> str:
    found = re.search(r"http://[^:\s]+:(\d+)", banner)
    assert found
    return f"http://127.0.0.1:{found[1]}"


def test_the_banner_names_address_model_and_variables_and_never_a_secret(tmp_path: Path) -> None:
    with served(tmp_path, "--model", "echo", **KEYS) as (_, banner):
        assert Caller(address(banner), Credentials("canary-key", SECRET)).ask().status_code == 200
    assert "echo-1 answers: AN ECHO, NO LANGUAGE MODEL" in banner
    assert "AILS_BASE_URL=http://127.0.0.1:" in banner
    assert "AILS_SECRET and AILS_API_KEY" in banner
    assert SECRET not in banner
    assert "canary-key" not in banner


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with served(tmp_path, "--model", "echo", **KEYS) as (process, banner):
        with Caller(address(banner), Credentials("canary-key", SECRET)).connect() as idle:
            process.send_signal(number)
            assert process.wait(30) == code
            assert idle.recv(1) == b""
        assert process.stderr
        assert process.stderr.read() == ""


def test_without_secret_or_key_it_says_how_to_make_them(tmp_path: Path) -> None:
    assert "AILS_SECRET is not set" in refused(tmp_path)
    words = refused(tmp_path, AILS_SECRET=SECRET)
    assert "AILS_API_KEY is not set" in words
    made = re.search(r"\(umask .*\.env\)", words)
    assert made
    subprocess.run(["bash", "-c", made[0].replace("python3", sys.executable)], cwd=tmp_path, check=True)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    with served(tmp_path, "--model", "echo") as (_, banner):
        assert requests.get(address(banner) + "/healthz", timeout=60).json()["status"] == "ok"


def test_secrets_come_from_files_for_rotation(tmp_path: Path) -> None:
    (tmp_path / "older").write_text("older secret\n")
    (tmp_path / "older").chmod(0o600)
    with served(tmp_path, "--model", "echo", "--secret-file", "older", **KEYS) as (_, banner):
        for secret in (SECRET, "older secret"):
            assert Caller(address(banner), Credentials("canary-key", secret)).ask().status_code == 200
    (tmp_path / "older").chmod(0o644)
    assert "chmod 600" in refused(tmp_path, "--secret-file", "older", **KEYS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_served_only_when_named_and_with_a_long_secret(tmp_path: Path, host: str) -> None:
    assert "--public NAME" in refused(tmp_path, "--host", host, **KEYS)
    short = {**KEYS, "AILS_SECRET": "x" * 31}
    assert "32 bytes" in refused(tmp_path, "--host", host, "--public", "batch.example.org", **short)


def test_a_public_gateway_answers_to_its_name(tmp_path: Path) -> None:
    with served(tmp_path, "--model", "echo", "--host", "0.0.0.0", "--public", "batch.example.org", **KEYS) as (_, banner):
        url = address(banner) + "/healthz"
        assert requests.get(url, headers={"host": "batch.example.org"}, timeout=60).status_code == 200
        assert requests.get(url, headers={"host": "other.example.org"}, timeout=60).status_code == 421
    assert "http://batch.example.org:" in banner
    assert "TLS" in banner


def test_a_short_secret_is_enough_on_loopback(tmp_path: Path) -> None:
    with served(tmp_path, "--model", "echo", AILS_SECRET="x", AILS_API_KEY="k") as (_, banner):
        assert Caller(address(banner), Credentials("k", "x")).ask().status_code == 200


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = refused(tmp_path, "--model", "echo", "--port", str(taken.getsockname()[1]), **KEYS)
    assert "in use" in words
    assert "--port" in words


def test_a_key_that_is_no_header_is_refused_without_showing_it(tmp_path: Path) -> None:
    words = refused(tmp_path, "--model", "echo", AILS_SECRET=SECRET, AILS_API_KEY="schlüssel mit leerzeichen")
    assert "schl" not in words


def test_help_shows_the_options(tmp_path: Path) -> None:
    ended = subprocess.run(command("--help"), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert "--public" in ended.stdout
