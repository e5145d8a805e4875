"""Faults at one system call: every one of the first writes, syncs and renames fails or is the last, by `strace -e inject`."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .kills import together
from .story import Arena, Story, Try

ROWS = 40
WRITES = "write,pwrite64"
SYNCS = "fsync,fdatasync"
NAMES = "rename,renameat,renameat2,link,linkat"
CUTS = "ftruncate"
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EFBIG")


def injected(calls: str, what: str) -> list[str]:
    """strace's words for a fault."""
    return ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{what}", "--"]


def points(arena: Arena, calls: str, torn: bool) -> int:
    """How many of these calls a thread of an undisturbed run makes at most."""
    name = f"points-{calls.partition(',')[0]}-{torn}-{len(list(arena.folder.glob('points-*')))}"
    story = _begun(arena, name, torn)
    log = story.home / "strace"
    story.end(story.start(["strace", "-qq", "-ff", "-o", str(log), "-e", f"trace={calls}", "--"]))
    return max((len(path.read_bytes().splitlines()) for path in story.home.glob("strace.*")), default=0)


def _begun(arena: Arena, name: str, torn: bool) -> Story:
    """A story at its beginning, or half way, with a torn tail, as a kill leaves it."""
    story = Story(arena, name, ROWS, concurrency=4, wait=4)
    if torn:
        run = story.start()
        story.until_asked(run, ROWS // 2)
        run.kill()
        story.judge(story.end(run), frozenset({-signal.SIGKILL, 0}))
        with story.journal.open("ab") as file:
            file.write(b'{"k":"0123')
    return story


def sweep(arena: Arena, calls: str, faults: tuple[str, ...], tries: int) -> Iterator[Try]:
    """Every point of a first run, and of a second one that finds a torn tail, with every fault; evenly thinned to `tries`."""
    known = [(torn, point) for torn in (False, True) for point in range(1, points(arena, calls, torn) + 1)]
    every = [(fault, torn, point) for torn, point in known for fault in faults]
    chosen = every if len(every) <= tries else [every[at * len(every) // tries] for at in range(tries)]
    for fault, torn, point in chosen:
        name = f"call-{calls.partition(',')[0]}-{fault}-{'second' if torn else 'first'}-{point}"
        what = f"signal=SIGKILL:when={point}" if fault == "SIGKILL" else f"error={fault}:when={point}"
        # A call that only a cache or the terminal needed may fail without ending the run.
        codes = frozenset({-signal.SIGKILL, 0} if fault == "SIGKILL" else {3, 0})
        yield _one(_begun(arena, name, torn), injected(calls, what), codes, f"{name}: ")


def _one(story: Story, before: list[str], codes: frozenset[int], say: str) -> Try:
    result = together(story.judge(story.end(story.start(before)), codes), story.finish())
    return Try(result.code, result.lost, result.again, tuple(say + words for words in result.broken))


def killed_at_writes(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGKILL at every one of the first writes."""
    return sweep(arena, WRITES, ("SIGKILL",), tries)


def killed_at_syncs(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGKILL at every one of the first fsyncs and fdatasyncs."""
    return sweep(arena, SYNCS, ("SIGKILL",), tries)


def killed_at_renames(arena: Arena, tries: int) -> Iterator[Try]:
    """SIGKILL at every rename and link."""
    return sweep(arena, NAMES, ("SIGKILL",), tries)


def failed_writes(arena: Arena, tries: int) -> Iterator[Try]:
    """EIO, ENOSPC, EDQUOT and EFBIG at every one of the first writes."""
    return sweep(arena, WRITES, ERRORS, tries)


def failed_syncs(arena: Arena, tries: int) -> Iterator[Try]:
    """EIO, ENOSPC and EDQUOT at every one of the first fsyncs and fdatasyncs."""
    return sweep(arena, SYNCS, ERRORS[:3], tries)


def failed_renames(arena: Arena, tries: int) -> Iterator[Try]:
    """EIO, ENOSPC and EDQUOT at every rename and link."""
    return sweep(arena, NAMES, ERRORS[:3], tries)


def failed_cuts(arena: Arena, tries: int) -> Iterator[Try]:
    """EIO when the torn tail is cut off."""
    return sweep(arena, CUTS, ("EIO",), tries)


def short_writes(arena: Arena, tries: int) -> Iterator[Try]:
    """A full disk takes a part of a write first: 4 bytes go to the journal, the next write says ENOSPC."""
    for number in range(tries):
        story = Story(arena, f"short-{number}", ROWS, concurrency=4, wait=4)
        size = arena.rng("short", number).randrange(1_500, 22_000)
        # A file size limit does exactly that: the write that crosses it is cut short, the next one fails with EFBIG.
        before = ["prlimit", f"--fsize={size}", "--"]
        yield _one(story, before, frozenset({0, 3}), f"short-{number}: ")


def lying_writes(arena: Arena, tries: int) -> Iterator[Try]:
    """A disk that says "written" and keeps nothing of one write to the journal."""
    for number in range(tries):
        story = Story(arena, f"lie-{number}", ROWS, concurrency=4, wait=4)
        story.journal.touch(0o600)
        before = injected("write", f"retval=4:when={number % 8 + 2}")
        before[1:1] = ["-P", str(story.journal)]
        yield _one(story, before, frozenset({0, 3}), f"lie-{number}: ")


def slow_failing_syncs(arena: Arena, tries: int) -> Iterator[Try]:
    """A disk that syncs slowly (0.3 s) and then fails: more rows than fit in flight must not have been counted by then."""
    for number in range(tries):
        story = Story(arena, f"slow-{number}", 300, wait=2)
        when = number % 4 + 3
        calls = "fdatasync"
        before = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", f"trace={calls}"]
        before += ["-e", f"inject={calls}:error=EIO:delay_enter=300000:when={when}+", "--"]
        yield _one(story, before, frozenset({3}), f"slow-{number}: ")


def strace_works(folder: Path) -> str:
    """Why strace cannot be used here, or ""."""
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run([*injected("write", "error=EIO:when=1000"), "true"], capture_output=True, text=True, cwd=folder)
    return "" if tried.returncode == 0 else f"strace: {tried.stderr.strip()[:80]}"
