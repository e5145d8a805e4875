"""What the pace is doing, for those who look on; and how it says that nobody goes any more."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..errors import BatchError

Bound = Literal["rpm", "tpm", "server", "concurrency", "input", "cpu", "signature", "latency"]


class Stopped(BatchError):
    """The run is being stopped; the row stays pending."""


class PaceState(msgspec.Struct, frozen=True):
    """What the pace is doing, for display.

    Attributes:
        open: Whether requests may go.
        opens_in: Seconds until the next probe or until a limit is renewed, 0 when open.
        why: Why it is closed, one line; "" when open.
        in_flight: Rows that hold a permit.
        out: Attempts that were sent and have no end yet.
        waiting: Attempts in line.
        window: How many attempts may be out.
        bound_by: What the run is held back by; `concurrency` means that a larger
            number was not allowed, `latency` that the right one is still being looked for.
    """

    open: bool
    opens_in: float
    why: str
    in_flight: int
    out: int
    waiting: int
    window: int
    bound_by: Bound
