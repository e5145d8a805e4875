"""The embedded gateway's own process: settings come as one line on stdin, the address goes as one line to stdout.

stdin stays open as long as the run lives; its end is this process's end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from ..errors import BatchError
from .model import Model
from .serve import Settings, run, serve

_LOOK_SECONDS = 1.0


async def _abandoned(parent: int) -> None:
    """Until the run has ended: it closed the pipe, or it is gone and something else still holds the pipe."""
    ended = asyncio.Event()

    def look() -> None:
        if not os.read(0, 4096):
            ended.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(0, look)
    try:
        while not ended.is_set() and os.getppid() == parent:
            try:
                await asyncio.wait_for(ended.wait(), _LOOK_SECONDS)
            except TimeoutError:
                continue
    finally:
        loop.remove_reader(0)


def main() -> int:
    """Serve until the run that started this process has ended."""
    # What a library prints must not end up among our own lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**words: Any) -> None:
        print(json.dumps(words), file=lines, flush=True)

    def ready(port: int, model: Model, why: str) -> None:
        say(port=port, model=model.name, licence=model.licence, why=why)

    async def trip() -> int:
        given = json.loads(sys.stdin.buffer.readline())
        settings = Settings(secrets=(given["secret"],), api_keys=(given["api_key"],), model=given["model"])
        # A task, not a bare coroutine: where the model cannot be had nobody comes to wait for it.
        await serve(settings, ready, asyncio.create_task(_abandoned(given["parent"])))
        return 0

    try:
        return run(trip)
    except BatchError as error:
        say(error=str(error))
    except BrokenPipeError:
        pass  # the run ended while this was starting
    except Exception as error:
        say(error=f"the embedded gateway failed to start: {type(error).__name__}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
