"""A process that signs and sends: prompts come in on standard input, replies and errors go out on standard output.

A frame is a length and a pickle, both ways; only this package's own parent is at the other end. The first frame names the
server and its credentials, which so stand in no argument and no environment. When the parent is gone the input ends, and with
it this process.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import threading
from queue import Empty, SimpleQueue
from typing import IO, Any

from ..client import Client
from ..client.underway import Underway
from ..errors import BatchError, CallError
from ..records import Prompt, Reply
from ..signature import Credentials
from .loop import Loop
from .pool import Pool

HEAD = struct.Struct("<I")

Result = tuple[int, Reply | CallError]


def read(stream: IO[bytes]) -> Any:
    """The next frame's value.

    Raises:
        EOFError: The other end is gone, perhaps in the middle of a frame.
    """
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    (size,) = HEAD.unpack(head)
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return pickle.loads(body)  # noqa: S301 - from our own parent or child, by a pipe nobody else has


def frame(value: Any) -> bytes:
    """A value as a frame."""
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(body)) + body


def main() -> None:
    """Send until the input ends."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    threading.stack_size(256 * 1024)
    try:
        about = read(stdin)
        client = Client(credentials=Credentials(about["api_key"], about["secret"]), **about["arguments"])
        Sender(client, stdout, about["threads"]).serve(stdin)
    except (EOFError, BrokenPipeError):
        pass
    except BatchError as error:
        sys.stderr.write(f"ails-batch: a sending process could not start: {error}\n")
    # Threads may be in the middle of requests that nobody waits for any more.
    sys.stdout.flush()
    os._exit(0)


class Task:
    """One attempt.

    Args:
        number: The parent's name for it.
        body: The request's.
        content: What is signed.
        key: The idempotency key.

    Attributes:
        under: It, once it is under way.
    """

    __slots__ = ("key", "number", "prompt", "under")

    def __init__(self, number: int, body: bytes, content: str, key: str) -> None:
        self.number = number
        self.prompt = Prompt(0, b"", 0, body, content)
        self.key = key
        self.under: Underway | None = None


class Sender:
    """Sends what comes in.

    Args:
        client: Sends one attempt.
        out: Where results go.
        most: How many at a time.
    """

    def __init__(self, client: Client, out: IO[bytes], most: int) -> None:
        self._client = client
        self._out = out
        self._pool: Pool[Task] = Pool(self._go_on, lambda: most)
        self._loop: Loop[Task] = Loop(self._begin, self._over)
        self._loop.begin()
        self._results: SimpleQueue[Result] = SimpleQueue()

    def serve(self, stdin: IO[bytes]) -> None:
        """Take tasks until there are no more.

        Raises:
            EOFError: The parent is gone.
        """
        threading.Thread(target=self._tell, name="tell", daemon=True).start()
        while True:
            self._loop.send(Task(*read(stdin)))

    def _begin(self, task: Task, *, wait: bool = False) -> Underway | None:
        if task.under is None:
            task.under = self._client.start(task.prompt, idempotency_key=task.key, wait=wait)
        return task.under

    def _over(self, task: Task, under: Underway | None) -> None:
        if under and under.whole:
            self._call(task)
        else:
            self._pool.put(task)

    def _go_on(self, task: Task) -> None:
        if task.under is None and (under := self._begin(task, wait=True)) and not under.stuck:
            self._loop.send(task)  # it went out, and its answer is waited for there
        else:
            self._call(task)

    def _call(self, task: Task) -> None:
        try:
            result: Reply | CallError = self._client.call(task.prompt, idempotency_key=task.key, under=task.under)
        except CallError as error:
            result = error.with_traceback(None)
        except Exception as error:
            result = CallError(f"a bug: {type(error).__name__}: {error}"[:500])
        self._results.put((task.number, result))

    def _tell(self) -> None:
        while True:
            batch = [self._results.get()]
            try:
                while len(batch) < 256:
                    batch.append(self._results.get_nowait())
            except Empty:
                pass
            try:
                self._out.write(frame(batch))
                self._out.flush()
            except BrokenPipeError:
                os._exit(0)


if __name__ == "__main__":
    main()
