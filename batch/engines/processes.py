"""Prompts sent by processes of their own: this one reads, paces and journals, the children only sign and send.

A permit travels with its row: it is taken here before the row leaves, and given back here once its outcome is durable.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from tenacity import RetryCallState, Retrying

from ..asking import Asked, Asking
from ..errors import BatchError, CallError, Denied, Dropped, Transient
from ..pace import Stopped, Turn
from ..records import Outcome, Prompt, Reply
from ..signature import Credentials
from .child import frame, read

DEATHS = 3
"""So many children that end on their own are no accident."""

End = Outcome | BatchError
"""What becomes of a prompt: its outcome, or what ends the run."""


class Processes:
    """Children that send, and the bookkeeping of what each of them has in hand.

    Args:
        asking: What an attempt is and when the next one is due.
        take_off: Takes the prompt's permit; False once the run is stopping.
        come_home: Told the prompt's end.
        stopping: Once set, nothing is tried again.
        arguments: Of the children's `Client`.
        credentials: For it.
        processes: How many children.
        threads: How many requests a child may have out at once.
    """

    def __init__(
        self,
        asking: Asking,
        take_off: Callable[[Prompt], bool],
        come_home: Callable[[Prompt, End], None],
        stopping: threading.Event,
        *,
        arguments: Mapping[str, Any],
        credentials: Credentials,
        processes: int,
        threads: int,
    ) -> None:
        self._asking = asking
        self._take_off = take_off
        self._come_home = come_home
        self._stopping = stopping
        about = {
            "arguments": dict(arguments),
            "api_key": credentials.api_key,
            "secret": credentials.secret,
            "threads": threads,
        }
        self._about = frame(about)
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._out = 0
        self._deaths = 0
        self._closed = False
        self._due: list[tuple[float, int, Asked]] = []
        self._children = [Child(self._about, self._back, self._gone) for _ in range(processes)]
        threading.Thread(target=self._again, name="again", daemon=True).start()

    def put(self, prompt: Prompt) -> bool:
        """Send a prompt as soon as permit and pace allow it; False once the run is stopping."""
        if self._stopping.is_set() or not self._take_off(prompt):
            return False
        with self._changed:
            self._out += 1
        self._send(Asked(self._asking, prompt))
        return True

    def finish(self) -> None:
        """No more prompts come."""

    def wait(self, timeout: float) -> bool:
        """Wait until every prompt has come home; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._out, timeout)

    def close(self) -> None:
        """Let the children go, whatever they have in hand."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for child in self._children:
            child.close()

    def _send(self, one: Asked) -> None:
        try:
            turn = one.begin()
        except CallError as error:
            self._home(one, one.outcome(error))
            return
        except BatchError as error:
            self._home(one, error)
            return
        # Equal contents go to the same child, so that no two of them carry the same timestamp.
        child = self._children[one.prompt.key[0] % len(self._children)]
        child.send(next(self._numbers), one, turn)

    def _back(self, one: Asked, turn: Turn, result: Reply | CallError) -> None:
        """A child is done with one attempt."""
        if isinstance(result, Reply):
            end = one.answered(turn, result)
            if end is not None:
                self._home(one, one.outcome(end))
            else:
                self._later(one, 0.0)
            return
        one.failed(turn, result)
        if isinstance(result, Transient) and not one.used_up():
            if self._stopping.is_set():
                self._home(one, Stopped("the run is being stopped"))
                return
            state = RetryCallState(Retrying(), None, (), {})
            state.attempt_number = len(one.attempts)
            self._later(one, one.backoff(state))
        else:
            self._home(one, result if isinstance(result, Denied) else one.outcome(result))

    def _later(self, one: Asked, seconds: float) -> None:
        """Send it once more after a while, by a thread that may wait for its turn."""
        with self._changed:
            heapq.heappush(self._due, (monotonic() + seconds, next(self._numbers), one))
            self._changed.notify_all()

    def _home(self, one: Asked, end: End) -> None:
        self._come_home(one.prompt, end)
        with self._changed:
            self._out -= 1
            if not self._out:
                self._changed.notify_all()

    def _again(self) -> None:
        """Send what is due once more."""
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > monotonic()) and not self._drop():
                    self._changed.wait(min(0.5, self._due[0][0] - monotonic()) if self._due else None)
                if self._closed:
                    return
                _, _, one = heapq.heappop(self._due)
            self._send(one)

    def _drop(self) -> bool:
        """Whether what waits for another attempt should stop waiting: its turn will say that the run is over."""
        return bool(self._due) and self._stopping.is_set()

    def _gone(self, child: Child) -> None:
        """A child ended on its own: what it had in hand counts as dropped, and another one takes its place."""
        if self._closed:
            return
        self._deaths += 1
        if self._deaths >= DEATHS:
            end = BatchError(f"{self._deaths} sending processes ended on their own; try --engine threads")
            for one, turn in child.left():
                turn.cancel()
                self._home(one, end)
            return
        left = child.left()
        child.start()
        for one, turn in left:
            self._back(one, turn, Dropped("the process that sent it ended"))


class Child:
    """One sending process.

    Args:
        about: The first frame: the server and its credentials.
        back: Told the result of each attempt.
        gone: Told when the process has ended.
    """

    def __init__(
        self, about: bytes, back: Callable[[Asked, Turn, Reply | CallError], None], gone: Callable[[Child], None]
    ) -> None:
        self._about = about
        self._back = back
        self._gone = gone
        self._writing = threading.Lock()
        self._flying: dict[int, tuple[Asked, Turn]] = {}
        self.start()

    def start(self) -> None:
        """Start the process, or another in its place."""
        # A session of its own: Ctrl-C reaches the parent alone, which lets what is out come home.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", f"{__package__}.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._write(self._about)
        threading.Thread(target=self._listen, args=(self._process,), name="listen", daemon=True).start()

    def send(self, number: int, one: Asked, turn: Turn) -> None:
        """Hand over one attempt."""
        self._flying[number] = (one, turn)
        prompt = one.prompt
        self._write(frame((number, prompt.body, prompt.content, one.idempotency_key)))

    def left(self) -> list[tuple[Asked, Turn]]:
        """What it had in hand, taken from it."""
        left = list(self._flying.values())
        self._flying.clear()
        return left

    def close(self) -> None:
        """End it."""
        with self._writing:
            if self._process.stdin and not self._process.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin
        with self._writing:
            try:
                self._process.stdin.write(data)
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # it has ended; the listener hears of that, too, and sees to what was in its hands

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        try:
            while True:
                for number, result in read(process.stdout):
                    if (flight := self._flying.pop(number, None)) is not None:
                        self._back(*flight, result)
        except (EOFError, ValueError, OSError):
            process.wait()
            with contextlib.suppress(BrokenPipeError), self._writing:
                process.stdout.close()
                if process.stdin:
                    process.stdin.close()
            self._gone(self)
