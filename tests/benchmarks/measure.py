"""One whole process, measured: wall, processor time and memory, imports and writing included.

Processor time is what `wait4` reports for the process and every child that it waited for itself. The peak is the larger of
`wait4`'s figure for the biggest single process and a sum over the tree of processes, sampled ten times a second. The harness
stays small itself, because on Linux a child's peak begins with its parent's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process took.

    Attributes:
        started: Seconds since the epoch, just before it was started.
        wall_s, user_s, system_s: Seconds.
        peak_mib: Peak resident memory; of the tree where there are children.
        code: The exit code, negative for a signal.
    """

    started: float
    wall_s: float
    user_s: float
    system_s: float
    peak_mib: float
    code: int

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        return self.user_s + self.system_s


class Process:
    """A process group of its own, from start to `wait`.

    Args:
        command: Program and arguments.
        environment: The whole environment; nothing is inherited.
        folder: Working directory.
        log: Where stdout and stderr go; appended.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._ended = threading.Event()
        self._tree_peak = 0
        with log.open("ab") as sink:
            self.started = time.time()
            self._clock = time.perf_counter()
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def pid(self) -> int:
        """The process's id, which is also its group's."""
        return self._process.pid

    def running(self) -> bool:
        """Whether the process has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def peak_mib(self) -> float:
        """The highest sum over the tree seen so far."""
        return self._tree_peak / MIB

    def stop(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """End the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def wait(self, timeout: float) -> Measured:
        """Wait for the end; the group is killed when the time is over."""
        alarm = threading.Timer(timeout, self.stop)
        alarm.start()
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except BaseException:
            self.stop()
            raise
        finally:
            wall = time.perf_counter() - self._clock
            alarm.cancel()
            self._ended.set()
            self._sampler.join()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        single = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        peak = max(single, self._tree_peak) / MIB
        return Measured(self.started, wall, usage.ru_utime, usage.ru_stime, peak, self._process.returncode)

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            self._tree_peak = max(self._tree_peak, resident(self.pid))


def resident(pid: int) -> int:
    """Resident bytes of a process and its descendants; shared pages count once for each. 0 where /proc does not tell."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return own + sum(resident(int(child)) for child in children)


def environment(**more: str) -> dict[str, str]:
    """A small, known environment: what `requests` costs grows with the number of variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME") if name in os.environ}
    return {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", **kept, **more}


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, timeout: float = 1800) -> Measured:
    """Start, wait, measure."""
    return Process(command, environment, folder, log).wait(timeout)
