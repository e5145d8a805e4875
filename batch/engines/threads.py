"""Prompts worked on by threads of this process, as many as the window is wide."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic

from ..records import Prompt

QUEUED = 2
"""Prompts waiting for each one in flight: enough that no worker idles, and no more of the input in memory."""


class Threads:
    """Threads that take prompts from a bounded queue and do `work` with each.

    Threads are started as the window widens, never more than it is wide.

    Args:
        work: What is done with one prompt; it must not raise.
        width: How many may be in flight now.
        stopping: Once set, prompts still queued are dropped and `put` takes no more.
    """

    def __init__(self, work: Callable[[Prompt], None], width: Callable[[], int], stopping: threading.Event) -> None:
        self._work = work
        self._width = width
        self._stopping = stopping
        self._queue: SimpleQueue[Prompt | None] = SimpleQueue()
        self._room = threading.Event()
        self._threads: list[threading.Thread] = []

    def put(self, prompt: Prompt) -> bool:
        """Queue a prompt, waiting while the queue is full; False once the run is stopping."""
        width = self._width()
        if len(self._threads) < width and (self._queue.qsize() or not self._threads):
            self._start()
        while self._queue.qsize() >= QUEUED * width and not self._stopping.is_set():
            self._room.clear()
            # Looked at again after the clearing, for a worker may have made room in between.
            if self._queue.qsize() >= QUEUED * width:
                self._room.wait(0.5)
            width = self._width()
            if len(self._threads) < width:
                self._start()
        if self._stopping.is_set():
            return False
        self._queue.put(prompt)
        return True

    def finish(self) -> None:
        """No more prompts come; threads end once the queue is empty (or dropped, when stopping)."""
        for _ in self._threads:
            self._queue.put(None)

    def wait(self, timeout: float) -> bool:
        """Wait until all threads have ended; False when `timeout` seconds were not enough."""
        until = monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self) -> None:
        thread = threading.Thread(target=self._loop, name=f"ask-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            return  # the machine gives no more threads: those there are do the work
        self._threads.append(thread)

    def _loop(self) -> None:
        take, room, stopping = self._queue.get, self._room, self._stopping
        while (prompt := take()) is not None:
            if not room.is_set():
                room.set()
            if not stopping.is_set():
                self._work(prompt)
