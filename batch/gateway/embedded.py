"""A gateway for one run: started on a free loopback port with a secret of its own, stopped with the run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

from ..errors import JobError
from ..signature import Credentials
from . import needs

READY_SECONDS = 60.0
STOP_SECONDS = 3.0


class Embedded:
    """The embedded gateway, a context manager.

    It runs in a process and a session of its own, so that Ctrl-C reaches the run alone and requests in flight can be drained.
    It ends with the `with` block, or when this process ends, however that happens.

    Args:
        model: `echo`; `local`, the real model or nothing; `auto`, the real one where it is installed, else the echo.

    Attributes:
        url: Its base URL.
        credentials: The key and secret of this run, random; they travel through a pipe, never by argument or environment.
        answers_as: The name of the model that answers, `smollm2-135m-instruct-q4_1` or `echo-1`.
        licence: That model's licence, "" for the echo.
        why: Why the real model does not answer; "" where it does, or where the echo was asked for.
    """

    url: str
    answers_as: str
    licence: str
    why: str

    def __init__(self, model: Literal["auto", "echo", "local"] = "auto") -> None:
        self.credentials = Credentials(api_key=secrets.token_urlsafe(24), secret=secrets.token_urlsafe(32))
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            JobError: The extra `gateway` is missing, `local` was asked for and cannot be had, or the process did not start.
        """
        needs("the embedded endpoint")
        # The gateway needs no one's credentials but its own; -P, because a file named json.py may lie in the working directory.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AILS_", "OPENAI_"))}
        self._process = subprocess.Popen(  # noqa: S603 (this very Python, no word of a user's)
            [sys.executable, "-P", "-m", __package__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it."""
        self._end()

    @property
    def pid(self) -> int:
        """The gateway's process."""
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise JobError("the embedded gateway has not been started")
        return self._process

    def _begin(self) -> None:
        pipe = cast("IO[bytes]", self._running.stdin)
        given = {
            "secret": self.credentials.secret,
            "api_key": self.credentials.api_key,
            "model": self._model,
            "parent": os.getpid(),
        }
        with contextlib.suppress(BrokenPipeError):  # a process that is gone is found by what it does not say
            pipe.write(json.dumps(given).encode() + b"\n")
            pipe.flush()
        said = self._first_line()
        if "error" in said:
            raise JobError(f"the embedded gateway did not start: {said['error']}")
        self.url = f"http://127.0.0.1:{said['port']}"
        self.answers_as, self.licence, self.why = said["model"], said["licence"], said["why"]

    def _first_line(self) -> dict[str, Any]:
        out = cast("IO[bytes]", self._running.stdout).fileno()
        line, until = b"", time.monotonic() + READY_SECONDS
        waiting = select.poll()  # not select(), which ends at descriptor 1023
        waiting.register(out, select.POLLIN)
        while not line.endswith(b"\n"):
            if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
                raise JobError(f"the embedded gateway was not ready after {READY_SECONDS:.0f} s")
            read = os.read(out, 4096)
            if not read:
                raise JobError("the embedded gateway ended before it was ready; `ails-batch serve` may show why")
            line += read
        said: dict[str, Any] = json.loads(line)
        return said

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            cast("IO[bytes]", process.stdin).close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        cast("IO[bytes]", process.stdout).close()
