"""The model's own process: requests as JSON lines on stdin, pieces of answers as JSON lines on stdout, one request at a time.

A process of its own, because native code can end one: on a processor the library was not compiled for, or out of memory.

    in   {"id": 1, "messages": […], "max_tokens": 128, …}        a request
         {"cancel": 1}                                           its answer is no longer wanted
    out  {"ready": true}  or  {"error": "…"}                     once, first
         {"id": 1, "text": " Paris"}                             a piece of the answer
         {"id": 1, "finish": "stop", "prompt": 43, "answer": 8}  its end, with tokens
         {"id": 1, "refused": "…"}                               no answer: the model cannot take the request

The end of stdin ends the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import secrets
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

CONTEXT = 4096


def checked(path: Path, digest: str) -> None:
    """Check a file's SHA-256 (a tenth of a second for 100 MB).

    Raises:
        ValueError: It is another file.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ValueError(f"{path}: SHA-256 is {found[:8]}…, not {digest[:8]}…; install the package again")


def load(path: Path) -> Any:
    """llama.cpp's server for a GGUF file, on one thread: a second one on a busy machine makes both wait for each other."""
    import xllamacpp

    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(path)
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    wanted.n_threads_http = 1
    wanted.n_parallel = 1  # measured: more slots add 5 % at most, and batches of several prompts need not be reproducible
    wanted.n_ctx = CONTEXT
    wanted.cache_ram_mib = 0
    wanted.warmup = wanted.fit_params = wanted.ui = wanted.endpoint_slots = False
    wanted.verbosity = -1
    # It insists on serving HTTP too; a socket that nobody can name any more is the nearest to none.
    with tempfile.TemporaryDirectory(prefix="ails-") as folder:
        wanted.hostnames = [f"{folder}/http.sock"]
        wanted.api_keys = [secrets.token_urlsafe(24)]
        return xllamacpp.Server(wanted)


class Answering:
    """Takes requests off a queue and answers them, one by one.

    Args:
        server: As `load` gives it.
        say: Writes one line.
    """

    def __init__(self, server: Any, say: Any) -> None:
        self._server = server
        self._say = say
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled: set[int] = set()

    def put(self, line: dict[str, Any]) -> None:
        """A line from stdin."""
        if "cancel" in line:
            self._cancelled.add(line["cancel"])
        else:
            self._asked.put(line)

    def forever(self) -> None:
        """Answer until the process ends."""
        while True:
            asked = self._asked.get()
            number = asked.pop("id")
            self._answer(number, asked)
            self._cancelled.discard(number)

    def _answer(self, number: int, asked: dict[str, Any]) -> None:
        finish, refused = "stop", ""
        usage: dict[str, int] = {}

        def piece(chunk: dict[str, Any]) -> bool:
            nonlocal finish, usage, refused
            if "error" in chunk:
                refused = str(chunk["error"].get("message", "refused"))
            for choice in chunk.get("choices", ()):
                finish = choice.get("finish_reason") or finish
                if text := choice["delta"].get("content"):
                    self._say(id=number, text=text)
            usage = chunk.get("usage") or usage
            return number in self._cancelled  # true ends the generation

        try:
            self._server.handle_chat_completions({**asked, "stream": True, "stream_options": {"include_usage": True}}, piece)
        except (ValueError, RuntimeError) as error:
            refused = str(error)
        if refused:
            self._say(id=number, refused=refused)
        else:
            self._say(id=number, finish=finish, prompt=usage.get("prompt_tokens", 0), answer=usage.get("completion_tokens", 0))


def main(path: str, digest: str) -> None:
    """Answer until stdin ends."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints must not end up among our own lines

    def say(**words: Any) -> None:
        print(json.dumps(words), file=lines, flush=True)

    try:
        checked(Path(path), digest)
        answering = Answering(load(Path(path)), say)
    except Exception as error:
        say(error=str(error))
        os._exit(1)
    say(ready=True)
    threading.Thread(target=answering.forever, daemon=True).start()
    for line in sys.stdin.buffer:
        answering.put(json.loads(line))
    os._exit(0)  # at once: there is nothing to save, and the library would finish its sentence


if __name__ == "__main__":
    main(*sys.argv[1:])
