"""Prompts worked on by threads of this process, as many as the window is wide and the processor can make use of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from ..clock import SYSTEM, Clock
from ..pace.window import CROWDED

T = TypeVar("T")

QUEUED = 2
"""Prompts waiting for each one in flight: enough that no worker idles, and no more of the input in memory."""

FEW = 4
"""Threads to begin with, and the least that a look allows more. A look doubles them until the first prompt has come to its end,
then adds a quarter: a moment in which other programs had the processor looks as if there were time for more threads."""

LOOK = 0.05
"""Seconds from one look at the processor to the next; a tenth of it until the first prompt has come to its end."""


class Threads(Generic[T]):
    """Threads that take prompts from a bounded queue and do `work` with each.

    Threads are started as prompts wait: never more than the window is wide, and none while prompts come to their end as fast as
    the processor can see to them.

    Args:
        work: What is done with one prompt; it must not raise.
        width: How many may be in flight now.
        stopping: Once set, `put` takes no more, and what was not admitted is dropped.
        admit: Waits until one more may be worked on, in a thread of its own: so a worker waits for one thing and not for two,
            and whoever makes room wakes one thread for many prompts. What it says no to is dropped; it must not raise.
        clock: Spaces the looks.
        cpu: Seconds of processor time this process has used.
    """

    def __init__(
        self,
        work: Callable[[T], None],
        width: Callable[[], int],
        stopping: threading.Event,
        *,
        admit: Callable[[T], bool] | None = None,
        clock: Clock = SYSTEM,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._work = work
        self._width = width
        self._stopping = stopping
        self._admit = admit
        self._clock = clock
        self._cpu = cpu
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._ahead: SimpleQueue[T | None] = SimpleQueue() if admit else self._queue
        self._room = threading.Event()
        self._enough = 0
        self._threads: list[threading.Thread] = []
        self._hiring = threading.Lock()
        self._finished = False
        self._over = threading.Event()
        self._left = 0
        self._most = FEW
        self._ended = 0
        self._looked = clock.monotonic(), cpu(), 0

    def put(self, prompt: T) -> bool:
        """Queue a prompt, waiting while the queue is full; False once the run is stopping."""
        if not self._threads and not self._stopping.is_set():
            threading.Thread(target=self._hire_on, name="hire", daemon=True).start()
            if self._admit:
                threading.Thread(target=self._let_in, args=(self._admit,), name="admit", daemon=True).start()
        while not self._stopping.is_set():
            pause = self._hire()
            width = self._width()
            if self._ahead.qsize() < QUEUED * width:
                self._ahead.put(prompt)
                return True
            self._enough = width
            self._room.clear()
            # Looked at again after the clearing, for room may have been made in between.
            if self._ahead.qsize() > width:
                self._room.wait(pause)
        return False

    def _let_in(self, admit: Callable[[T], bool]) -> None:
        """Hand on what may be worked on, in order."""
        while (prompt := self._ahead.get()) is not None:
            self._make_room()
            if admit(prompt):
                self._queue.put(prompt)
        self._finished = True
        self._queue.put(None)

    def _make_room(self) -> None:
        """One of those that wait was taken: half of them at a time, so that whoever puts them is woken once for many."""
        if self._ahead.qsize() <= self._enough and not self._room.is_set():
            self._room.set()

    def _hire_on(self) -> None:
        """Start threads for what waits also while nothing new comes in."""
        while not (self._finished and self._queue.qsize() <= 1):
            time.sleep(self._hire())

    def _hire(self) -> float:
        """Start threads for the prompts that wait, as far as window and processor allow it.

        Returns:
            Seconds after which it may allow more.
        """
        width, waiting = self._width(), self._queue.qsize() > self._finished
        if len(self._threads) >= width:
            return 0.5
        if waiting or not self._threads:
            with self._hiring:
                self._look()
                self._start(min(width, self._most) if waiting else 1)
        return self._pause

    def finish(self) -> None:
        """No more prompts come; threads end once every prompt was worked on or dropped."""
        if not self._admit:
            self._finished = True
        self._ahead.put(None)

    def wait(self, timeout: float) -> bool:
        """Wait until all threads have ended; False when `timeout` seconds were not enough."""
        # Not by joining them: an interrupt in join() can make CPython 3.11 take a thread for ended that is not.
        if self._threads and not self._over.wait(timeout):
            return False
        for thread in list(self._threads):
            thread.join(1.0)
        return True

    @property
    def _pause(self) -> float:
        return LOOK if self._ended else LOOK / 10

    def _look(self) -> None:
        """Let more threads be started, unless the processor is what there is too little of."""
        now = self._clock.monotonic()
        since, spent, ended = self._looked
        if now - since < self._pause:
            return
        self._looked = now, self._cpu(), self._ended
        crowded = self._ended > ended and self._looked[1] - spent >= CROWDED * (now - since)
        count = len(self._threads)
        more = count // 4 if self._ended else count
        self._most = count if crowded else count + max(FEW, more)

    def _start(self, count: int) -> None:
        """Have so many threads."""
        while len(self._threads) < count:
            thread = threading.Thread(target=self._loop, name=f"ask-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                return  # the machine gives no more threads: those there are do the work
            self._threads.append(thread)

    def _loop(self) -> None:
        try:
            self._work_off()
        finally:
            self._queue.put(None)  # for the next one
            with self._hiring:
                self._left += 1
                if self._left == len(self._threads):
                    self._over.set()

    def _work_off(self) -> None:
        while (prompt := self._queue.get()) is not None:
            if not self._admit:
                self._make_room()
            if self._admit or not self._stopping.is_set():
                self._work(prompt)
                self._ended += 1
