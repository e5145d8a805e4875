"""Prompts sent by this process: by one thread that never waits for one of them alone, and by others where that is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from ..asking import Asked, Asking
from ..client.underway import Underway
from ..records import Outcome, Prompt
from .loop import Loop
from .pool import Pool

QUEUED = 2
"""Prompts waiting for each one in flight: enough that nobody idles, and no more of the input in memory."""


class Threads:
    """A thread that lets prompts in, a loop that sends them, a pool of threads that connect, try again and read slow answers.

    Args:
        asking: What an attempt is and when the next one is due.
        start: Sends an attempt without waiting: `Client.start`.
        take_off: Waits for a prompt's permit; False once the run is stopping. It must not raise.
        see_home: Does what may bring a prompt to its end, and says whether it has. It must not raise.
        stopping: Once set, `put` takes no more, and what has no permit yet is dropped.
        width: How many may be in flight now.
    """

    def __init__(
        self,
        asking: Asking,
        start: Callable[..., Underway | None],
        take_off: Callable[[Prompt], bool],
        see_home: Callable[[Prompt, Callable[[], Outcome | None]], bool],
        stopping: threading.Event,
        *,
        width: Callable[[], int],
    ) -> None:
        self._asking = asking
        self._start = start
        self._take_off = take_off
        self._see_home = see_home
        self._stopping = stopping
        self._width = width
        self._ahead: SimpleQueue[Prompt | None] = SimpleQueue()
        self._room = threading.Event()
        self._enough = 0
        self._changed = threading.Condition()
        self._out = 0
        self._letting_in: threading.Thread | None = None
        self._pool: Pool[Asked] | None = None
        self._loop: Loop[Asked] | None = None

    def put(self, prompt: Prompt) -> bool:
        """Queue a prompt, waiting while the queue is full; False once the run is stopping."""
        while not self._stopping.is_set():
            width = self._width()
            if self._ahead.qsize() < QUEUED * width:
                self._ahead.put(prompt)
                if not self._letting_in:
                    self._open()
                return True
            self._enough = width
            self._room.clear()
            # Looked at again after the clearing, for room may have been made in between.
            if self._ahead.qsize() > width:
                self._room.wait(0.5)
        return False

    def finish(self) -> None:
        """No more prompts come."""
        self._ahead.put(None)

    def wait(self, timeout: float) -> bool:
        """Wait until every prompt has come home or was dropped; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._letting_in and not self._out, timeout)

    def close(self) -> None:
        """Let the threads end once nothing is out any more; when that is now, wait for them."""
        if self._loop and self._pool:
            self._loop.close()
            self._pool.close()
            if not self._out:
                self._loop.join(1.0)
                self._pool.join(1.0)

    def _open(self) -> None:
        self._pool = Pool(self._go_on, self._width)
        self._loop = Loop(self._begin, self._over)
        self._letting_in = threading.Thread(target=self._let_in, args=(self._loop, self._pool), name="let in", daemon=True)
        self._letting_in.start()

    def _let_in(self, loop: Loop[Asked], pool: Pool[Asked]) -> None:
        """Hand on what has its permit and its turn, in order."""
        while (prompt := self._ahead.get()) is not None:
            # Half of the queue at a time, so that whoever fills it is woken once for many.
            if self._ahead.qsize() <= self._enough and not self._room.is_set():
                self._room.set()
            if not self._take_off(prompt):
                continue
            with self._changed:
                self._out += 1
            one = Asked(self._asking, prompt)
            try:
                one.turn = one.begin()
            except Exception:
                pool.put(one)  # where it is tried again, and what comes of it is the prompt's end
            else:
                loop.send(one)
        with self._changed:
            self._letting_in = None
            self._changed.notify_all()

    def _begin(self, one: Asked, *, wait: bool = False) -> Underway | None:
        if one.under is None and one.turn:
            if self._stopping.is_set():
                one.give_back()
            else:
                one.under = self._start(one.prompt, idempotency_key=one.idempotency_key, wait=wait)
        return one.under

    def _over(self, one: Asked, under: Underway | None) -> None:
        """Take an answer that is there; what has to be waited for is for the pool."""
        assert self._pool
        if under and under.whole and self._see_home(one.prompt, partial(self._asking.take, one)):
            self._home()
        else:
            self._pool.put(one)

    def _go_on(self, one: Asked) -> None:
        if self._see_home(one.prompt, partial(self._by_waiting, one)):
            self._home()

    def _by_waiting(self, one: Asked) -> Outcome | None:
        """See a prompt to its end; or only connect, and leave the answer to the loop: then None."""
        assert self._loop
        if one.under is None and (under := self._begin(one, wait=True)) and not under.stuck:
            self._loop.send(one)
            return None
        return self._asking.go_on(one)

    def _home(self) -> None:
        with self._changed:
            self._out -= 1
            if not self._out:
                self._changed.notify_all()
