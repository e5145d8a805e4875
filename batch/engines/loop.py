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

AGAIN = 0.05
"""Seconds until `more` is called again where it failed."""


class Loop(Generic[T]):
    """Requests of many items side by side, sent and received by one thread that waits for all their sockets at once.

    A thread for each of them would spend more on handing the interpreter's lock around than on the requests.

    Args:
        start: Sends an item's request without waiting; None where that cannot be done. It must not raise.
        over: Told an item with nothing more to wait for here: its answer is there, or begins in a way that takes waiting
            (see `Underway`), or `start` has said None. It must neither raise nor wait.
        more: Called each time round, to `send` what may go by then. It says after how many seconds it is to be called again
            at the latest; None for once there is something to be done, or somebody calls `wake`.
    """

    def __init__(
        self,
        start: Callable[[T], Underway | None],
        over: Callable[[T, Underway | None], None],
        more: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._start = start
        self._over = over
        self._more = more
        self._inbox: deque[T] = deque()
        self._woken = self._asleep = self._closed = False
        self._waited: dict[int, tuple[T, Underway]] = {}
        self._watched: dict[int, socket.socket] = {}
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def begin(self) -> None:
        """Start the thread, now that whatever it calls knows this loop."""
        self._thread.start()

    def send(self, item: T) -> None:
        """Send an item's request as soon as may be; at once where `more` does it."""
        if threading.current_thread() is self._thread:
            self._send(item)
        else:
            self._inbox.append(item)
            self.wake()

    def wake(self) -> None:
        """Have `more` called again soon."""
        self._woken = True
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):  # it ended a moment ago
                self._mouth.send(b".")

    def close(self) -> None:
        """End the thread once nothing is out any more; nothing may be sent from now on."""
        self._closed = True
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait until the thread of a closed loop has ended, for so many seconds at most."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not (self._closed and not self._waited and not self._inbox):
            self._woken = False
            for _ in range(len(self._inbox)):
                self._send(self._inbox.popleft())
            pause = self._sent_more()
            self._asleep = True
            # Looked at after the flag was set: whoever wakes before that is seen here, and later there is a byte to be read.
            ready = self._selector.select(0 if self._woken else pause)
            self._asleep = False
            for key, _ in ready:
                self._hear(key.fd)
        self._selector.close()
        self._ear.close()
        self._mouth.close()

    def _sent_more(self) -> float | None:
        try:
            return self._more()
        except Exception:  # above all for lack of memory
            return AGAIN

    def _hear(self, fd: int) -> None:
        """Something has come on a socket."""
        if fd == self._ear.fileno():
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(4096)
            return
        waited = self._waited.get(fd)
        if not waited:
            self._forget(fd)  # idle and closed, or in other hands
        elif self._has_come(waited[1]):
            del self._waited[fd]
            if not waited[1].whole:
                self._forget(fd)  # from now on somebody else reads there
            self._over(*waited)

    def _send(self, item: T) -> None:
        under = None
        # What goes wrong here, above all for lack of memory, comes again where somebody sees to it.
        with contextlib.suppress(Exception):
            under = self._start(item)
            if under and not under.stuck:
                self._watch(under.sock)
                self._waited[under.sock.fileno()] = item, under
                return
        self._over(item, under)

    def _watch(self, sock: socket.socket) -> None:
        """Hear what comes on it, from now on: to begin and end that for each answer anew would cost two calls of the system."""
        fd = sock.fileno()
        if self._watched.get(fd) is not sock:
            self._forget(fd)  # one that was closed, and had the same number
            self._selector.register(fd, selectors.EVENT_READ)
            self._watched[fd] = sock

    def _forget(self, fd: int) -> None:
        if self._watched.pop(fd, None):
            self._selector.unregister(fd)

    def _has_come(self, under: Underway) -> bool:
        try:
            return under.come()
        except Exception:
            return True
