"""One thread that sends, and takes the answers as they come."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ..client.underway import Underway

T = TypeVar("T")


class Loop(Generic[T]):
    """Requests of many items side by side, sent and received by one thread that waits for all their sockets at once.

    A thread for each of them would spend more on handing the interpreter's lock around than on the requests.

    Args:
        start: Sends an item's request without waiting; None where that cannot be done. It must not raise.
        over: Told an item with nothing more to wait for here: its answer is there, or begins in a way that takes waiting
            (see `Underway`), or `start` has said None. It must neither raise nor wait.
    """

    def __init__(self, start: Callable[[T], Underway | None], over: Callable[[T, Underway | None], None]) -> None:
        self._start = start
        self._over = over
        self._inbox: deque[T] = deque()
        self._asleep = False
        self._closed = False
        self._out = 0
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    def send(self, item: T) -> None:
        """Send an item's request as soon as may be."""
        self._inbox.append(item)
        self._wake()

    def close(self) -> None:
        """End the thread once nothing is out any more; nothing may be sent from now on."""
        self._closed = True
        self._wake()

    def join(self, timeout: float) -> None:
        """Wait until the thread of a closed loop has ended, for so many seconds at most."""
        self._thread.join(timeout)

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):  # it ended a moment ago
                self._mouth.send(b".")

    def _run(self) -> None:
        while not (self._closed and not self._out and not self._inbox):
            self._asleep = True
            # Looked at after the flag was set: who puts something in there before that does not wake, and after that does.
            ready = self._selector.select(0 if self._inbox or (self._closed and not self._out) else None)
            self._asleep = False
            for key, _ in ready:
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self._ear.recv(4096)
                    continue
                item, under = key.data
                if self._has_come(under):
                    self._selector.unregister(key.fd)
                    self._out -= 1
                    self._over(item, under)
            for _ in range(len(self._inbox)):
                self._send(self._inbox.popleft())
        self._selector.close()
        self._ear.close()
        self._mouth.close()

    def _send(self, item: T) -> None:
        under = None
        # What goes wrong here, above all for lack of memory, comes again where somebody sees to it.
        with contextlib.suppress(Exception):
            under = self._start(item)
            if under and not under.stuck:
                self._selector.register(under.fileno(), selectors.EVENT_READ, (item, under))
                self._out += 1
                return
        self._over(item, under)

    def _has_come(self, under: Underway) -> bool:
        try:
            return under.come()
        except Exception:
            return True
