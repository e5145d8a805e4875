"""Prompts sent by processes of their own: this one reads, paces and journals, the children only sign and send.

A permit travels with its row: it is taken here before the row leaves, and given back here once its outcome is durable.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any

from tenacity import RetryCallState, Retrying

from ..asking import Asked, Asking
from ..errors import BatchError, CallError, Denied, Dropped, Transient, TryLater
from ..pace import Stopped, Turn
from ..records import Failure, Outcome, Prompt, Reply
from ..signature import Credentials
from .child import frame, read

DEATHS = 3
"""So many children that end on their own are no accident."""

ROOM = 200
"""Milliseconds that a full pipe is waited for before looking whether the process is still wanted."""

End = Outcome | BatchError
"""What becomes of a prompt: its outcome, or what ends the run."""


class Lost(BatchError):
    """The process that had sent a prompt ended, and so does the run: the prompt may have been charged."""


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
        take_off: Callable[[Prompt], bool | None],
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
        except Exception as error:
            self._home(one, _end(one, error))
            return
        # Equal contents go to the same child, so that no two of them carry the same timestamp.
        child = self._children[one.prompt.key[0] % len(self._children)]
        if over := child.send(next(self._numbers), one, turn):
            self._back(one, turn, over)

    def _back(self, one: Asked, turn: Turn, result: Reply | BatchError) -> None:
        """An attempt is over: what the child made of it, or the run's end."""
        try:
            end = self._judged(one, turn, result)
        except Exception as error:  # a row that never came home would be waited for
            end = _end(one, error)
        if end is not None:
            self._home(one, end)

    def _judged(self, one: Asked, turn: Turn, result: Reply | BatchError) -> End | None:
        """What becomes of the prompt; None where it is sent once more."""
        if isinstance(result, Reply):
            answered = one.answered(turn, result)
            if answered is not None:
                return one.outcome(answered)
            self._later(one, 0.0)
            return None
        if not isinstance(result, CallError):
            turn.cancel()
            return result
        one.failed(turn, result)
        if not isinstance(result, Transient) or one.used_up():
            return _end(one, result)
        if self._stopping.is_set():
            return Stopped("the run is being stopped")
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = len(one.attempts)
        self._later(one, one.backoff(state))
        return None

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
                while not self._closed and not self._is_due():
                    self._changed.wait(min(0.5, self._due[0][0] - monotonic()) if self._due else None)
                if self._closed:
                    return
                _, _, one = heapq.heappop(self._due)
            self._send(one)

    def _is_due(self) -> bool:
        """Whether a prompt waits that is to be sent now; once the run is stopping any is, for its turn will say so."""
        return bool(self._due) and (self._stopping.is_set() or self._due[0][0] <= monotonic())

    def _gone(self) -> BatchError | None:
        """A child ended on its own: None where another one may take its place, else why the run must end."""
        with self._changed:
            self._deaths += 1
            if self._deaths < DEATHS:
                return None
            return BatchError(f"{self._deaths} sending processes ended on their own; try --engine threads")


def _end(one: Asked, error: Exception) -> End:
    """What an exception makes of a prompt."""
    if isinstance(error, CallError) and not isinstance(error, Denied):
        return one.outcome(error)
    if isinstance(error, BatchError):
        return error
    return one.outcome(Failure("internal", f"a bug: {type(error).__name__}: {error}"[:500]))


class Child:
    """One sending process, and those that take its place.

    Args:
        about: The first frame: the server and its credentials.
        back: Told the result of each attempt, or why there is none.
        gone: Told when the process has ended on its own; None from it starts another.
    """

    def __init__(
        self,
        about: bytes,
        back: Callable[[Asked, Turn, Reply | BatchError], None],
        gone: Callable[[], BatchError | None],
    ) -> None:
        self._about = about
        self._back = back
        self._gone = gone
        # Held while something is written and while one process follows another, so that each prompt is in the hands of a
        # process that has been told whom to ask, or of one whose end is still to be seen to.
        self._lock = threading.Lock()
        self._flying: dict[int, tuple[Asked, Turn]] = {}
        self._unwritten = bytearray()
        self._catching_up = False
        self._over = self._start()
        self._listener = threading.Thread(target=self._listen, name="listen", daemon=True)
        if self._over is None:
            self._listener.start()

    def send(self, number: int, one: Asked, turn: Turn) -> BatchError | None:
        """Hand over one attempt; not None where there is no process any more, and why."""
        prompt = one.prompt
        task = frame((number, prompt.body, prompt.content, one.idempotency_key))
        with self._lock:
            if self._over is None:
                self._flying[number] = (one, turn)
                self._write(task)
            return self._over

    def close(self) -> None:
        """End it, whatever it has in hand."""
        with self._lock:
            if self._over:
                return
            self._over = Stopped("the run is being stopped")
            self._end_input()
            self._unwritten.clear()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._listener.join(2.0)

    def _start(self) -> BatchError | None:
        """Start a process; not None where the machine gives none."""
        try:
            # A session of its own: Ctrl-C reaches the parent alone, which lets what is out come home.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", f"{__package__}.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return TryLater(f"a sending process cannot be started: {error.strerror}; try --engine threads")
        assert self._process.stdin
        os.set_blocking(self._process.stdin.fileno(), False)
        self._unwritten.clear()
        self._write(self._about)
        return None

    def _write(self, data: bytes) -> None:
        """Hand over a frame without waiting: a process that is stopped takes none for as long as it likes."""
        self._unwritten += data
        self._push()
        if self._unwritten and not self._catching_up:
            self._catching_up = True
            threading.Thread(target=self._catch_up, name="catch up", daemon=True).start()

    def _push(self) -> None:
        """Write what the pipe takes now."""
        assert self._process.stdin
        try:
            while self._unwritten:
                del self._unwritten[: os.write(self._process.stdin.fileno(), self._unwritten)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unwritten.clear()  # it has ended: the listener hears of that, too, and sees to what was in its hands

    def _catch_up(self) -> None:
        """Write the rest as the pipe makes room, from a thread that lives as long as there is a rest."""
        while True:
            with self._lock:
                if not self._over:
                    self._push()
                if self._over or not self._unwritten:
                    self._catching_up = False
                    return
                assert self._process.stdin
                room = select.poll()
                room.register(self._process.stdin, select.POLLOUT)
            room.poll(ROOM)

    def _end_input(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # from what it has not taken
            self._process.stdin.close()

    def _listen(self) -> None:
        """Tell what comes back, from one process after the other."""
        while True:
            for number, result in self._results():
                self._back(*self._flying.pop(number), result)
            with self._lock:
                if self._over:
                    return  # closed: what it had in hand keeps its marks, for it may have been sent
                self._end_input()
                self._over = over = self._gone() or self._start()
                left = list(self._flying.values())
                self._flying.clear()
            for one, turn in left:
                self._back(one, turn, Lost(str(over)) if over else Dropped("the process that sent it ended"))
            if over:
                return

    def _results(self) -> Iterator[tuple[int, Reply | CallError]]:
        """What the process says, until it has ended."""
        process = self._process
        assert process.stdout
        with process.stdout:
            while True:
                try:
                    results = read(process.stdout)
                except Exception:  # mostly EOFError; and one that cannot be understood is as good as gone
                    break
                yield from results
        process.kill()  # does nothing to one that has ended
        process.wait()
