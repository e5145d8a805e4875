"""Threads for what has to be waited for: as many as are of use, and as the processor can make use of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from ..clock import SYSTEM, Clock
from ..pace.window import CROWDED

T = TypeVar("T")

FEW = 4
"""Threads to begin with, and the least that a look allows more. A look doubles them until the first item has come to its end,
then adds a quarter: a moment in which other programs had the processor looks as if there were time for more threads."""

LOOK = 0.05
"""Seconds from one look at the processor to the next; a tenth of it until the first item has come to its end."""


class Pool(Generic[T]):
    """Threads that do `work` with each item put.

    They are started as items wait: never more than `width`, and none while items come to their end as fast as the processor
    can see to them.

    Args:
        work: What is done with one item; it must not raise.
        width: How many threads are of use now.
        clock: Spaces the looks.
        cpu: Seconds of processor time this process has used.
    """

    def __init__(
        self,
        work: Callable[[T], None],
        width: Callable[[], int],
        *,
        clock: Clock = SYSTEM,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._work = work
        self._width = width
        self._clock = clock
        self._cpu = cpu
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting = threading.Event()
        self._closed = False
        self._most = FEW
        self._ended = 0
        self._looked = clock.monotonic(), cpu(), 0
        self._hirer = threading.Thread(target=self._hire_on, name="hire", daemon=True)
        self._hirer.start()

    def put(self, item: T) -> None:
        """Have an item worked on, by the next thread that is free."""
        self._queue.put(item)
        if not self._waiting.is_set():
            self._waiting.set()

    def close(self) -> None:
        """End the threads once everything put was worked on; nothing may be put from now on."""
        self._closed = True
        self._waiting.set()

    def join(self, timeout: float) -> None:
        """Wait until the threads of a closed pool have ended, each for so many seconds at most."""
        for thread in [self._hirer, *self._threads]:
            thread.join(timeout)

    def _hire_on(self) -> None:
        """Start threads for what waits."""
        while not self._closed or self._queue.qsize():
            if not self._queue.qsize():
                self._waiting.clear()
                # Looked at again after the clearing, for either may have changed in between.
                if not self._queue.qsize() and not self._closed:
                    self._waiting.wait()
            if self._queue.qsize():
                self._hire()
                time.sleep(LOOK if self._ended else LOOK / 10)
        self._queue.put(None)

    def _hire(self) -> None:
        """Start threads, as far as width and processor allow it."""
        width = self._width()
        if len(self._threads) >= width:
            return
        self._look()
        self._have(min(width, self._most, len(self._threads) + self._queue.qsize()))

    def _look(self) -> None:
        """Let more threads be started, unless the processor is what there is too little of."""
        now = self._clock.monotonic()
        since, spent, ended = self._looked
        if now - since < (LOOK if self._ended else LOOK / 10):
            return
        self._looked = now, self._cpu(), self._ended
        crowded = self._ended > ended and self._looked[1] - spent >= CROWDED * (now - since)
        count = len(self._threads)
        more = count // 4 if self._ended else count
        self._most = count if crowded else count + max(FEW, more)

    def _have(self, count: int) -> None:
        """Have so many threads."""
        while len(self._threads) < count:
            thread = threading.Thread(target=self._work_off, name=f"ask-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The machine gives no more threads: those there are do the work, and without any this one does.
                if not self._threads and (item := self._queue.get()) is not None:
                    self._work(item)
                return
            self._threads.append(thread)

    def _work_off(self) -> None:
        while (item := self._queue.get()) is not None:
            self._work(item)
            self._ended += 1
        self._queue.put(None)  # for the next one
