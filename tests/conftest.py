"""What several rooms' tests share: a gateway that runs, and a command line to call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from batch.gateway.embedded import Embedded

from .counting import Counting

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # no test fails because a machine was slow


def pytest_configure() -> None:
    """A shell in the background has signals ignored, and every process that tests start would ignore them, too."""
    for signum, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, default)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The one JSON line on standard output."""
        (line,) = self.out.splitlines()
        value: dict[str, Any] = json.loads(line)
        return value


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def echo() -> Iterator[Embedded]:
    """The project's own gateway in a process of its own; the echo answers."""
    with Embedded("echo") as gateway:
        yield gateway


@pytest.fixture
def cli(tmp_path: Path) -> Command:
    """Calls `ails-batch` as a process of its own in an empty folder, with an environment that names nothing."""

    def call(*arguments: str, env: dict[str, str] | None = None, stdin: str | None = "", timeout: float = 60) -> Ended:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **(env or {})}
        done = subprocess.run(
            [sys.executable, "-m", "batch", *arguments],
            cwd=tmp_path,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return call


def known(gateway: Embedded) -> dict[str, str]:
    """The environment of somebody who knows a gateway."""
    return {
        "AILS_BASE_URL": gateway.url,
        "AILS_API_KEY": gateway.credentials.api_key,
        "AILS_SECRET": gateway.credentials.secret,
        "AILS_MODEL": gateway.answers_as,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    """Counts what it is asked; modules that need another server have one of the same name."""
    with Counting(tmp_path_factory.mktemp("counting")) as counting:
        yield counting


@pytest.fixture
def folder(server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose environment names that server."""
    monkeypatch.chdir(tmp_path)
    for name, value in server.environment(tmp_path.name).items():
        monkeypatch.setenv(name, value)
    return tmp_path
