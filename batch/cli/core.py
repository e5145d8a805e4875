"""One core for all threads of this process while they send: only one of them holds the interpreter's lock at a time.

Handing that lock to a thread on another core costs more than many requests do (docs/performance.md has the figures), and the
kernel, which knows nothing of the lock, spreads threads over all cores.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from ..tally import Snapshot

WORTH = 0.25
"""Share of a core that this process must need for it to matter where its threads run."""

CROWDED = 0.5
"""Share of the best core that other programs use from which on the kernel knows better where there is room."""

BETTER = 0.25
"""Share of a core by which another one must be the better place, or two runs would chase each other."""

EVERY = (0.5, 1.5)
"""Seconds from one look to the next, at random, so that two runs that began together do not move together."""

Ticks = dict[int, tuple[int, int]]
"""Of each core: how long it was busy, and how long it was there, in the same unit."""


def ticks() -> Ticks:
    """How busy the cores were since the machine was started; proc_stat(5).

    Raises:
        OSError: It cannot be told.
    """
    found: Ticks = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, _, numbers = line.partition(" ")
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, idle, waiting, *others = map(int, numbers.split()[:8])
            busy = user + nice + system + sum(others)
            found[int(name[3:])] = busy, busy + idle + waiting
    return found


def chosen(others: Mapping[int, float], core: int | None) -> int | None:
    """The core to be on.

    Args:
        others: How much of each core that may be used other programs use, 0 to 1; not empty.
        core: The one that all threads are on now; None for all.

    Returns:
        A core; None to leave it to the kernel, because there is none with room.
    """
    room = min(CROWDED, min(others.values()) + BETTER)
    free = [one for one, share in others.items() if share <= room]
    # Where cores differ, the first ones are the fast ones.
    return core if core in free else min(free, default=None)


def move(cores: set[int]) -> None:
    """Let all threads of this process run on these cores, and those that they start.

    Raises:
        OSError: These cores may not be used any more.
    """
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


class Core:
    """Looks about once a second whether all threads should be on one core, and on which.

    Args:
        clock: Monotonic seconds.
        cpu: Seconds of processor time that this process has used.
        ticks: How busy the cores are.
        move: Lets all threads run on some cores.
        seed: Of the times of the looks.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        ticks: Callable[[], Ticks] = ticks,
        move: Callable[[set[int]], None] = move,
        seed: int | None = None,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._ticks = ticks
        self._move = move
        self._random = Random(seed)  # noqa: S311
        self._core: int | None = None
        self._due = 0.0
        self._allowed: set[int] = set()
        with contextlib.suppress(AttributeError, OSError):  # not on every system
            self._allowed = os.sched_getaffinity(0)
            self._looked = clock(), cpu(), ticks()

    def __call__(self, now: Snapshot) -> None:
        """Move the threads if that is better; the first look comes at once."""
        at = self._clock()
        if len(self._allowed) < 2 or (at < self._due and now.in_flight):
            return
        self._due = at + self._random.uniform(*EVERY)
        with contextlib.suppress(OSError):  # the cores we may use were changed from outside; nothing depends on this
            core = self._best(at) if now.in_flight else None
            if core != self._core:
                self._core = core
                self._move(self._allowed if core is None else {core})

    def _best(self, at: float) -> int | None:
        since, spent, before = self._looked
        self._looked = at, self._cpu(), self._ticks()
        ours = (self._looked[1] - spent) / max(at - since, 1e-3)
        cores = self._allowed & before.keys() & self._looked[2].keys()
        busy = {core: _share(before[core], self._looked[2][core]) for core in cores}
        if ours < WORTH or not busy:
            return None
        if self._core in busy:
            return chosen(busy | {self._core: max(0.0, busy[self._core] - ours)}, self._core)
        # What is ours is spread over the cores as everything is.
        rest = max(0.0, 1 - ours / max(sum(busy.values()), 1e-3))
        return chosen({core: share * rest for core, share in busy.items()}, None)


def _share(before: tuple[int, int], now: tuple[int, int]) -> float:
    return (now[0] - before[0]) / max(1, now[1] - before[1])
