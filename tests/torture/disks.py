"""Faults of the disk: full, read-only, too small a limit, hung, gone, and power cuts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .kills import together
from .story import Arena, Story, Try, limits

IMAGE = 24 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32), linux/fs/ext4/ext4.h."""
NO_LOG_FLUSH = b"\x02\x00\x00\x00"


def run(*words: str) -> None:
    """Run a command of the system; it must succeed."""
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """A memory disk of so many bytes."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


def image(path: Path) -> None:
    """An empty ext4 file system in a file."""
    with path.open("wb") as file:
        file.truncate(IMAGE)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(path))


@contextlib.contextmanager
def loop(path: Path, folder: Path) -> Iterator[Path]:
    """The file system of an image, mounted."""
    folder.mkdir(exist_ok=True)
    run("mount", "-o", "loop", str(path), str(folder))
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


def can_mount(folder: Path) -> str:
    """Why nothing can be mounted here, or ""."""
    if os.geteuid():
        return "needs root to mount"
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name, tmpfs(Path(name) / "disk", 4096):
            pass
    except (OSError, subprocess.CalledProcessError):
        return "mounting is not allowed here"
    return ""


def can_loop(folder: Path) -> str:
    """Why no image can be mounted here, or ""."""
    if why := can_mount(folder):
        return why
    if not shutil.which("mkfs.ext4"):
        return "mkfs.ext4 is not installed"
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            image(Path(name) / "image")
            with loop(Path(name) / "image", Path(name) / "disk"):
                pass
    except (OSError, subprocess.CalledProcessError):
        return "no loop device can be mounted here"
    return ""


def full(arena: Arena, tries: int) -> Iterator[Try]:
    """A tmpfs that runs full while rows are answered; then it is made larger."""
    for number in range(tries):
        size = arena.rng("full", number).randrange(80 << 10, 330 << 10)
        with tmpfs(arena.folder / f"full-{number}-disk", size) as folder:
            story = Story(arena, f"full-{number}", 300, wait=5, folder=folder)
            result = story.judge(story.end(story.start()), frozenset({0, 3}))
            run("mount", "-o", "remount,size=16m", str(folder))
            yield together(result, story.finish())


def full_at_the_export(arena: Arena, tries: int) -> Iterator[Try]:
    """Room for the journal, none for the output; the old output stays until there is."""
    for number in range(tries):
        with tmpfs(arena.folder / f"export-{number}-disk", 16 << 20) as folder:
            story = Story(arena, f"export-{number}", 300, wait=0, folder=folder)
            begun = story.finish()
            old = story.output.read_bytes()
            story.prompts += [f"export-{number} more {more}" for more in range(20)]
            story.input.write_text("id,prompt\n" + "".join(f"{at:05},{prompt}\n" for at, prompt in enumerate(story.prompts)))
            free = os.statvfs(folder)
            room = arena.rng("export", number).randrange(16 << 10, 36 << 10)
            (folder / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - room))
            ended = story.end(story.start())
            kept = story.output.read_bytes()
            story.output.unlink(missing_ok=True)
            result = together(begun, story.judge(ended, frozenset({3}), in_flight=story.concurrency))
            if kept != old:
                result = Try(result.code, result.lost, result.again, (*result.broken, "the old output did not stay"))
            (folder / "ballast").unlink()
            result = together(Try(ended.code, result.lost, result.again, result.broken), story.finish())
            yield result


def read_only(arena: Arena, tries: int) -> Iterator[Try]:
    """A disk remounted read-only between two runs: the second sends nothing."""
    for number in range(tries):
        with tmpfs(arena.folder / f"ro-{number}-disk", 16 << 20) as folder:
            story = Story(arena, f"ro-{number}", 300, wait=10, folder=folder)
            first = story.start()
            story.until_asked(first, arena.rng("ro", number).randrange(1, 250))
            first.kill()
            result = story.judge(story.end(first), frozenset({-signal.SIGKILL}))
            run("mount", "-o", "remount,ro", str(folder))
            ended = story.end(story.start())
            second = story.judge(ended, frozenset({2, 3}), in_flight=0)
            if ended.asked:
                second = Try(second.code, second.lost, second.again, (*second.broken, "it asked before it looked"))
            run("mount", "-o", "remount,rw", str(folder))
            finish = story.finish()
            yield together(Try(second.code, second.lost, result.again, result.broken + second.broken), finish)


def small_files(arena: Arena, tries: int) -> Iterator[Try]:
    """`ulimit -f`: no file may grow past a size."""
    for number in range(tries):
        story = Story(arena, f"fsize-{number}", 300, wait=5)
        size = arena.rng("fsize", number).randrange(4 << 10, 200 << 10)
        ended = story.end(story.start(prepare=limits(FSIZE=size)))
        yield together(story.judge(ended, frozenset({0, 3})), story.finish())


def power_cut(arena: Arena, tries: int) -> Iterator[Try]:
    """The power goes: the disk as it was at one instant (the process stopped, its image copied), mounted anew."""
    for number in range(tries):
        rng = arena.rng("power", number)
        home = arena.folder / f"power-{number}-disk"
        home.mkdir()
        image(home / "image")
        with loop(home / "image", home / "mounted") as folder:
            story = Story(arena, f"power-{number}", 300, wait=20, folder=folder, marks_survive=False)
            # Every sync takes 50 ms here, so that there is a time between a write and its sync.
            slow = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=50000"] if number % 2 else []
            first = story.start(["strace", "-qq", "-f", "-o", "/dev/null", *slow, "--"] if slow else ())
            story.until_asked(first, rng.randrange(1, 250))
            time.sleep(rng.uniform(0.0, 0.1))
            _stop(first.pid)
            run("cp", "--sparse=always", str(home / "image"), str(home / "after"))
            _kill(first.pid)
            ended = story.end(first)
        (home / "image").unlink()
        with loop(home / "after", folder):
            yield together(story.judge(ended, frozenset({-signal.SIGKILL, 0})), story.finish())
        shutil.rmtree(home, ignore_errors=True)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*(int(child) for child in children), pid]


def _stop(pid: int) -> None:
    # The traced process first: strace would otherwise go on to see its stop.
    for one in _family(pid):
        os.kill(one, signal.SIGSTOP)
    time.sleep(0.05)


def _kill(pid: int) -> None:
    for one in _family(pid):
        os.kill(one, signal.SIGKILL)


def gone(arena: Arena, tries: int) -> Iterator[Try]:
    """The file system shuts down under the run (EXT4_IOC_SHUTDOWN) and only what was synced survives; it is mounted anew."""
    for number in range(tries):
        home = arena.folder / f"gone-{number}-disk"
        home.mkdir()
        image(home / "image")
        with loop(home / "image", home / "mounted") as folder:
            story = Story(arena, f"gone-{number}", 300, wait=20, folder=folder, marks_survive=False)
            first = story.start()
            story.until_asked(first, arena.rng("gone", number).randrange(1, 250))
            # Stopped meanwhile, for Linux (6.18) reports a sync as done that this very call has cut off, in 1 of 15 tries.
            _stop(first.pid)
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
            os.close(descriptor)
            first.send_signal(signal.SIGCONT)
            ended = story.end(first)
        with loop(home / "image", folder):
            yield together(story.judge(ended, frozenset({3})), story.finish())
        shutil.rmtree(home, ignore_errors=True)


def hung(arena: Arena, tries: int) -> Iterator[Try]:
    """A disk that hangs for a second (fsfreeze): nothing more is sent than fits in flight, and it goes on by itself."""
    for number in range(tries):
        home = arena.folder / f"hung-{number}-disk"
        home.mkdir()
        image(home / "image")
        with loop(home / "image", home / "mounted") as folder:
            story = Story(arena, f"hung-{number}", 300, wait=10, folder=folder)
            first = story.start()
            story.until_asked(first, arena.rng("hung", number).randrange(1, 200))
            run("fsfreeze", "-f", str(folder))
            try:
                time.sleep(0.5)
                before = len(story.asked())
                time.sleep(0.7)
                after = len(story.asked())
            finally:
                run("fsfreeze", "-u", str(folder))
            result = story.judge(story.end(first), frozenset({0}), in_flight=0)
            if after != before:
                words = f"{after - before} rows were sent while the disk hung"
                result = Try(result.code, result.lost, result.again, (*result.broken, words))
            yield together(result, story.finish())
        shutil.rmtree(home, ignore_errors=True)


def can_freeze(folder: Path) -> str:
    """Why no disk can be frozen here, or ""."""
    return can_loop(folder) or ("" if shutil.which("fsfreeze") else "fsfreeze is not installed")
