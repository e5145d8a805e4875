"""Time, as an argument: what waits or stamps is handed a clock, and tests hand it one that they step."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A reading of the wall, a reading that never steps back, and a wait that an event cuts short."""

    def time(self) -> float:
        """Seconds since the epoch, as this machine believes."""

    def monotonic(self) -> float:
        """Seconds that only ever grow; all waiting is reckoned in these."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` are over; True when it was the event."""


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only ever grow."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` are over; True when it was the event."""
        return event.wait(max(0.0, seconds))


SYSTEM = SystemClock()
