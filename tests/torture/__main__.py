"""`make torture`: every fault, the planted bugs, a table.

python -m tests.torture [--quick] [--seed N] [--tries N] [--only NAME …] [--no-write]

Everything in full (no option but `--seed`) renews the table in docs/reliability.md, if nothing was broken.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..counting import Counting
from . import calls, disks, kills, planted, tails
from .story import Arena, Story, Try
from .table import Line, table, write

Fault = Callable[[Arena, int], Iterator[Try]]
TRIES = 560
QUICK = 60
SHOWN = 6
"""Broken laws told of each fault; more of them say nothing new."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of fault.

    Attributes:
        words: For the table.
        tries: Its part of `TRIES`.
        possible: Says why it cannot run here, or "".
    """

    name: str
    words: str
    fault: Fault
    tries: int
    possible: Callable[[Path], str] = lambda folder: ""


def _cgroup(folder: Path) -> str:
    if not (kills.CGROUP / "memory.limit_in_bytes").exists():
        return "no memory cgroup (version 1) here"
    return "" if shutil.os.access(kills.CGROUP, shutil.os.W_OK) else "needs root to make a memory cgroup"  # type: ignore[attr-defined]


SCENARIOS = (
    Scenario("killed", "SIGKILL at random moments, 12 during 1,200 rows at concurrency 16", kills.killed, 120),
    Scenario("killed-at-the-end", "SIGKILL while the output is written", kills.killed_at_the_end, 20),
    Scenario("killed-at-writes", "SIGKILL at every one of the first writes", calls.killed_at_writes, 40, calls.strace_works),
    Scenario("killed-at-syncs", "SIGKILL at every one of the first syncs", calls.killed_at_syncs, 24, calls.strace_works),
    Scenario("killed-at-renames", "SIGKILL at every rename and link", calls.killed_at_renames, 10, calls.strace_works),
    Scenario("failed-writes", "EIO, ENOSPC, EDQUOT, EFBIG at the first writes", calls.failed_writes, 80, calls.strace_works),
    Scenario("failed-syncs", "EIO, ENOSPC, EDQUOT at the first syncs", calls.failed_syncs, 50, calls.strace_works),
    Scenario("failed-renames", "EIO, ENOSPC, EDQUOT at renames and links", calls.failed_renames, 16, calls.strace_works),
    Scenario("failed-cuts", "EIO while a torn tail is cut off", calls.failed_cuts, 4, calls.strace_works),
    Scenario("short-writes", "writes cut short in the middle of a line", calls.short_writes, 16),
    Scenario("lying-writes", "a write that is acknowledged and not kept", calls.lying_writes, 8, calls.strace_works),
    Scenario("slow-failing-syncs", "syncs that take 0.3 s and then fail", calls.slow_failing_syncs, 8, calls.strace_works),
    Scenario("torn", "torn tails: half lines, NULs, noise, wrong checksums", tails.torn, 30),
    Scenario("cut", "the journal cut at any byte of its last lines", tails.cut, 20),
    Scenario("drained", "SIGTERM, SIGINT, SIGHUP: drained", kills.drained, 24),
    Scenario("signalled-twice", "a second signal during the drain", kills.signalled_twice, 6),
    Scenario("stopped-and-continued", "SIGSTOP for a second", kills.stopped_and_continued, 6),
    Scenario("out-of-memory", "the kernel's OOM killer", kills.out_of_memory, 12, _cgroup),
    Scenario("address-space", "`ulimit -v`", kills.without_address_space, 10),
    Scenario("descriptors", "`ulimit -n`", kills.without_descriptors, 8),
    Scenario("small-files", "`ulimit -f`", disks.small_files, 12),
    Scenario("full", "a full disk (tmpfs)", disks.full, 16, disks.can_mount),
    Scenario("full-at-the-export", "no room for the output", disks.full_at_the_export, 8, disks.can_mount),
    Scenario("read-only", "a disk that became read-only", disks.read_only, 6, disks.can_mount),
    Scenario("power-cut", "power cut (snapshot of a loop-mounted ext4)", disks.power_cut, 30, disks.can_loop),
    Scenario("gone", "the file system shut down under the run", disks.gone, 10, disks.can_loop),
    Scenario("hung", "a hung disk (fsfreeze)", disks.hung, 4, disks.can_freeze),
)


def tortured(scenario: Scenario, arena: Arena, tries: int) -> Line:
    """Run one scenario and say how it went."""
    line = Line(scenario.name, scenario.words, scenario.possible(arena.folder))
    begun = time.monotonic()
    if not line.skipped:
        try:
            line.tries.extend(scenario.fault(arena, tries))
        except Exception as error:
            line.tries.append(Try(70, broken=(f"the harness itself failed: {error!r}", traceback.format_exc(limit=-3))))
    line.seconds = time.monotonic() - begun
    _say(line)
    return line


_telling = threading.Lock()


def _say(line: Line) -> None:
    with _telling:
        if line.skipped:
            print(f"{line.name:22} skipped: {line.skipped}", flush=True)
            return
        lost, again = sum(one.lost for one in line.tries), max((one.again for one in line.tries), default=0)
        words = f"{len(line.tries):4} tries, {lost} lost, {again:2} again, {line.seconds:4.0f} s, {line.codes()}"
        print(f"{line.name:22} {words}: {'BROKEN' if line.broken else 'ok'}", flush=True)
        for words in list(dict.fromkeys(line.broken))[:SHOWN]:
            print(f"    {words}", flush=True)


def caught(bug: planted.Bug, arena: Arena) -> tuple[str, bool, str]:
    """Plant a bug and see whether its fault brings it to light."""
    home = arena.folder / bug.name.replace(" ", "-")
    home.mkdir()
    with Counting(home / "logs") as server:
        inner = Arena(planted.plant(bug, home), home / "stories", server, arena.seed)
        for one in bug.fault(inner, 12):
            if words := next((words for words in one.broken if re.search(bug.law, words)), ""):
                by = f"{bug.fault.__name__.replace('_', ' ')}: {_short(words)}"
                print(f"planted: {bug.name}: caught by {by}", flush=True)
                return bug.name, True, by
    print(f"planted: {bug.name}: NOT CAUGHT", flush=True)
    return bug.name, False, ""


def _short(words: str) -> str:
    """Words without the paths of this run."""
    return re.sub(r"/\S*/", "", words)[:160]


def main() -> int:
    """Everything, or what the options say."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Real faults against the real command line.")
    parser.add_argument("--quick", action="store_true", help=f"about {QUICK} tries instead of {TRIES}")
    parser.add_argument("--tries", type=int, help="about how many tries altogether")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="repeats the random moments")
    names = [*(one.name for one in SCENARIOS), "planted"]
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=3, help="scenarios at a time")
    parser.add_argument("--no-write", action="store_true", help="leave docs/reliability.md alone")
    given = parser.parse_args()
    # A shell that starts this in the background has signals ignored, and what is tortured would ignore them, too.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    if unknown := set(given.only or ()) - set(names):
        parser.error(f"no fault is called {', '.join(sorted(unknown))}")
    share = (given.tries or (QUICK if given.quick else TRIES)) / TRIES
    scenarios = [one for one in SCENARIOS if not given.only or one.name in given.only]
    begun = time.monotonic()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ails-batch-torture-") as name, Counting(Path(name) / "logs") as server:
        arena = Arena(planted.copy(Path(name) / "package"), Path(name), server, given.seed)
        undisturbed = Story(arena, "undisturbed", 100).finish()
        if undisturbed.broken:
            print("without any fault: " + "; ".join(undisturbed.broken), flush=True)
            return 1
        with ThreadPoolExecutor(given.jobs) as pool:
            # The long ones first, so that both processors stay busy to the end.
            bugs = [pool.submit(caught, bug, arena) for bug in planted.BUGS if not given.only or "planted" in given.only]
            tried = [pool.submit(tortured, one, arena, max(2, round(one.tries * share))) for one in scenarios]
            found = [future.result() for future in bugs]
            lines = [future.result() for future in tried]
    text = table(lines, found, given.seed, time.monotonic() - begun)
    print("\n" + text, flush=True)
    sound = all(found_out for _, found_out, _ in found) and not any(line.broken for line in lines)
    if not sound:
        print("BROKEN: the table does not count", flush=True)
    elif share >= 1 and not given.only and not given.no_write:
        write(text)
    return int(not sound)


if __name__ == "__main__":
    sys.exit(main())
