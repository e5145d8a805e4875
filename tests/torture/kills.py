"""Faults that end the process: signals, kills, the kernel out of memory, limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .story import HUNG, Arena, Story, Try, limits

KILLS = 12
ROWS = 1_200
CGROUP = Path("/sys/fs/cgroup/memory")
HOG = """
import sys, time
sys.stdin.readline()
held = []
while True:
    held.append(bytearray(1 << 20))
"""


def killed(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGKILL at random moments, 12 times during 1,200 rows at concurrency 16; some of them during start-up or the export."""
    number = 0
    while tries > 0:
        story = Story(arena, f"killed-{number}", ROWS, wait=60)
        rng = arena.rng("killed", number)
        number += 1
        kills = min(KILLS, tries)
        for kill in range(kills):
            run = story.start()
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0.0, 0.6))
            elif story.until_asked(run, 1):
                time.sleep(rng.uniform(0.0, 7.0 / KILLS))
            run.kill()
            ended = story.end(run)
            result = story.judge(ended, frozenset({-signal.SIGKILL, 0}))
            tries -= 1
            if kill < kills - 1:
                yield result
        yield together(result, story.finish())


def together(fault: Try, finish: Try) -> Try:
    """A fault, and the undisturbed run after it."""
    return Try(fault.code, fault.lost + finish.lost, fault.again, fault.broken + finish.broken)


def killed_at_the_end(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGKILL while the output is written: beside the last requests, and behind them."""
    for number in range(tries):
        rng = arena.rng("end", number)
        story = Story(arena, f"end-{number}", 400, wait=0)
        run = story.start()
        if story.until_asked(run, rng.randrange(352, 401)):
            time.sleep(rng.uniform(0.0, 0.04))
        run.kill()
        yield together(story.judge(story.end(run), frozenset({-signal.SIGKILL, 0})), story.finish())


def drained(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGTERM, SIGINT or SIGHUP: what is in flight comes home, nothing is sent twice."""
    for number in range(tries):
        rng = arena.rng("drained", number)
        story = Story(arena, f"drained-{number}", 400, wait=30)
        signum = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3]
        run = story.start()
        story.until_asked(run, rng.randrange(1, 200))
        run.send_signal(signum)
        ended = story.end(run)
        result = story.judge(ended, frozenset({128 + signum}), in_flight=0)
        if not story.output.exists():
            result = Try(result.code, result.lost, result.again, (*result.broken, "no output after the drain"))
        yield together(result, story.finish())


def signalled_twice(arena: Arena, tries: int) -> Iterator[Try]:
    """A second signal: what has arrived is kept, what is in flight is given up, at once."""
    for number in range(tries):
        rng = arena.rng("twice", number)
        story = Story(arena, f"twice-{number}", 32, wait=1_500)
        signum = (signal.SIGTERM, signal.SIGINT)[number % 2]
        run = story.start()
        story.until_asked(run, 16)
        time.sleep(rng.uniform(0.0, 1.0))
        run.send_signal(signum)
        time.sleep(rng.uniform(0.05, 0.3))
        begun = time.monotonic()
        run.send_signal(signum)
        ended = story.end(run)
        late = time.monotonic() - begun
        result = story.judge(ended, frozenset({128 + signum}))
        if late > 10:
            result = Try(result.code, result.lost, result.again, (*result.broken, f"it took {late:.1f} s to leave"))
        yield together(result, story.finish())


def stopped_and_continued(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGSTOP for a second, then SIGCONT, as when a laptop sleeps."""
    for number in range(tries):
        rng = arena.rng("stopped", number)
        story = Story(arena, f"stopped-{number}", 400, wait=30)
        run = story.start()
        story.until_asked(run, rng.randrange(1, 300))
        run.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        run.send_signal(signal.SIGCONT)
        yield together(story.judge(story.end(run), frozenset({0}), in_flight=0), story.finish())


def out_of_memory(arena: Arena, tries: int) -> Iterator[Try]:
    """The kernel's OOM killer, by a memory cgroup that a second process fills."""
    for number in range(tries):
        group = CGROUP / f"ails-batch-{os.getpid()}-{number}"
        group.mkdir()
        try:
            yield _out_of_memory(arena, number, group)
        finally:
            for _ in range(100):
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)


def _out_of_memory(arena: Arena, number: int, group: Path) -> Try:
    (group / "memory.limit_in_bytes").write_text(str(200 << 20))

    def join(score: int) -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        Path("/proc/self/oom_score_adj").write_text(str(score))

    rng = arena.rng("oom", number)
    story = Story(arena, f"oom-{number}", 400, wait=30)
    hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, preexec_fn=lambda: join(0))
    try:
        run = story.start(prepare=lambda: join(1000))
        story.until_asked(run, rng.randrange(1, 200))
        assert hog.stdin
        hog.stdin.write(b"\n")
        hog.stdin.flush()
        ended = story.end(run)
    finally:
        hog.kill()
        hog.communicate()
    return together(story.judge(ended, frozenset({-signal.SIGKILL})), story.finish())


def without_address_space(arena: Arena, tries: int) -> Iterator[Try]:
    """`ulimit -v`: memory, threads and maps are refused at some point."""
    for number in range(tries):
        # A row that met the limit ends as `internal`, which the next run asks again by right, without naming it.
        story = Story(arena, f"space-{number}", 100, wait=5, marks_survive=False)
        space = arena.rng("space", number).randrange(250 << 20, 700 << 20)
        ended = story.end(story.start(prepare=limits(AS=space)))
        # Python waits for ever for a thread that had no memory to begin (CPython issue 140746, open): nothing is lost by it.
        codes = frozenset({0, 1, 2, 3, 70, 75, HUNG, -signal.SIGSEGV})
        yield together(story.judge(ended, codes), story.finish())


def without_descriptors(arena: Arena, tries: int) -> Iterator[Try]:
    """`ulimit -n`: too many open files."""
    for number in range(tries):
        story = Story(arena, f"files-{number}", 100, wait=5)
        files = arena.rng("files", number).randrange(6, 30)
        ended = story.end(story.start(prepare=limits(NOFILE=files)))
        yield together(story.judge(ended, frozenset({0, 1, 2, 3, 75})), story.finish())
