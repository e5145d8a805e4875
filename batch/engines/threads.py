"""Prompts sent by this process: by one thread that never waits for one of them alone, and by others where that is needed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from ..asking import Asked, Asking
from ..client.underway import Underway
from ..records import Outcome, Prompt
from .loop import Loop
from .pool import Pool

QUEUED = 2
"""Prompts waiting for each one in flight: enough that nobody idles, and no more of the input in memory."""


class Threads:
    """A loop that lets prompts in and sends them, and a pool of threads that connect, try again and read slow answers.

    Args:
        asking: What an attempt is and when the next one is due.
        start: Sends an attempt without waiting: `Client.start`.
        take_off: Takes a prompt's permit: True with it; False once the run is stopping; None for later, when it calls what it
            is given. It must neither raise nor wait.
        see_home: Does what may bring a prompt to its end, and says whether it has. It must not raise.
        stopping: Once set, `put` takes no more, and what has no permit yet is dropped.
        width: How many may be in flight now.
    """

    def __init__(
        self,
        asking: Asking,
        start: Callable[..., Underway | None],
        take_off: Callable[[Prompt, Callable[[], object]], bool | None],
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
        self._hungry = False
        self._room = threading.Event()
        self._enough = 0
        self._changed = threading.Condition()
        self._out = 0
        self._next: Asked | None = None
        self._admitted = False
        self._open = False
        self._pool: Pool[Asked] | None = None
        self._loop: Loop[Asked] | None = None

    def put(self, prompt: Prompt) -> bool:
        """Queue a prompt, waiting while the queue is full; False once the run is stopping."""
        while not self._stopping.is_set():
            width = self._width()
            if self._ahead.qsize() < QUEUED * width:
                if not self._loop:
                    self._begin_with()
                self._take_in(prompt)
                return True
            self._enough = width
            self._room.clear()
            # Looked at again after the clearing, for room may have been made in between.
            if self._ahead.qsize() > width:
                self._room.wait(0.5)
        return False

    def finish(self) -> None:
        """No more prompts come."""
        if self._loop:
            self._take_in(None)

    def wait(self, timeout: float) -> bool:
        """Wait until every prompt has come home or was dropped; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open and not self._out, timeout)

    def close(self) -> None:
        """Let the threads end once nothing is out any more; when that is now, wait for them."""
        if self._loop and self._pool:
            self._loop.close()
            self._pool.close()
            if not self._out:
                self._loop.join(1.0)
                self._pool.join(1.0)

    def _begin_with(self) -> None:
        self._open = True
        self._pool = Pool(self._go_on, self._width)
        self._loop = Loop(self._begin, self._over, self._let_in)
        self._loop.begin()

    def _take_in(self, prompt: Prompt | None) -> None:
        assert self._loop
        self._ahead.put(prompt)
        if self._hungry:
            self._hungry = False
            self._loop.wake()

    def _let_in(self) -> float | None:
        """Send what may go by now, in order; the seconds after which to look again."""
        assert self._loop
        assert self._pool
        while one := self._next or self._come_in():
            self._next = one
            if not self._admitted:
                admitted = self._take_off(one.prompt, self._loop.wake)
                if admitted is None:
                    return None
                if not admitted:
                    self._next = None
                    continue
                self._admitted = True
                with self._changed:
                    self._out += 1
            try:
                if (pause := one.begins(self._loop.wake)) is not None:
                    return pause
            except Exception:
                send: Callable[[Asked], None] = self._pool.put  # where it is tried again, and what comes of it is its end
            else:
                send = self._loop.send
            self._next, self._admitted = None, False
            send(one)
        return None

    def _come_in(self) -> Asked | None:
        """The next prompt, where there is one."""
        prompt = None
        if self._open:
            self._hungry = True
            # Looked at after the flag was set: who puts something in there before that does not wake, and after that does.
            with contextlib.suppress(Empty):
                prompt = self._ahead.get_nowait()
                self._hungry = False
                if prompt is None:
                    with self._changed:
                        self._open = False
                        self._changed.notify_all()
            # Half of the queue at a time, so that whoever fills it is woken once for many.
            if self._ahead.qsize() <= self._enough and not self._room.is_set():
                self._room.set()
        return Asked(self._asking, prompt) if prompt else None

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
