"""What the journal costs: a line, a commit, a replay, a resume, a row in memory.

    python -m tests.benchmarks.journal [--rows 10000000] [--folder DIR]

Each figure is measured in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from batch.journal import Journal, frames
from batch.records import Answer, Attempt, Outcome

WINDOW = 4096
CHUNK = 5000


def key(number: int) -> bytes:
    """Sixteen bytes as evenly spread as a digest's, told by their number."""
    return random.Random(number).randbytes(16)


def keys(first: int, count: int) -> np.ndarray:
    """The keys of a chunk of rows, the same in every process."""
    return np.random.default_rng(first).integers(0, 256, (count, 16), np.uint8)


def answer() -> Answer:
    """An answer of the size of a short chat completion."""
    body = (
        b'{"id":"chatcmpl-0123456789","object":"chat.completion","created":1700000000,"model":"echo","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"' + b"word " * 40 + b'"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":20,"completion_tokens":40,"total_tokens":60}}'
    )
    return Answer("", "echo", "stop", 20, 40, body)


def outcome(name: bytes, index: int, result: Answer) -> Outcome:
    """One row, answered at once."""
    return Outcome(index, name, 0, result, (Attempt(200, 0.2),), 1.7e9 + index / 1000)


class Watch:
    """Wall and processor seconds since it was made; on a busy machine only the second is the code's own."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> str:
        """Both, for a table."""
        return f"{time.perf_counter() - self.wall:.2f} s ({time.process_time() - self.cpu:.2f} cpu)"

    def each(self, count: int) -> str:
        """Both for one of many, in microseconds."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return f"{wall / count * 1e6:.2f} us ({cpu / count * 1e6:.2f} cpu)"


def line(_: Path, rows: int) -> None:
    """Building and reading one line."""
    one, count = outcome(key(0), 0, answer()), 100_000
    watch = Watch()
    for _number in range(count):
        text = frames.row(one)
    say("build a line", watch.each(count), f"{len(text)} bytes")
    watch = Watch()
    for _number in range(count):
        frames.parse(text)
    say("read a line", watch.each(count))


def mark(folder: Path, rows: int) -> None:
    """Marking a row and taking the mark back."""
    names = [key(number) for number in range(100_000)]
    with Journal.open(folder / "marks") as journal:
        journal.begin({})
        watch = Watch()
        for name in names:
            journal.mark(name, 1)
            journal.unmark(name)
        say("mark and unmark a row", watch.each(len(names)))


def producers(folder: Path, rows: int) -> None:
    """64 threads, each with one row in flight, durable before the next."""
    count, result = 200_000, answer()
    window = threading.Semaphore(64)
    with Journal.open(folder / "producers") as journal:
        journal.begin({})
        journal.on_durable = lambda outcomes: window.release(len(outcomes))

        def produce(first: int) -> None:
            for number in range(first, count, 64):
                window.acquire()
                name = key(number)
                journal.mark(name, number)
                journal.append(outcome(name, number, result))

        threads = [threading.Thread(target=produce, args=(first,)) for first in range(64)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        journal.flush()
        seconds = time.perf_counter() - start
        say("64 producers", f"{count / seconds:,.0f} rows/s", f"{count / journal.syncs:.0f} rows a sync")


def fill(folder: Path, rows: int) -> None:
    """The whole first run: keys counted, looked up, appended, durable; then killed before it leaves a checkpoint."""
    result, window = answer(), threading.Semaphore(WINDOW)
    base = memory()
    with Journal.open(folder / "journal") as journal:
        journal.begin({})
        journal.on_durable = lambda outcomes: window.release(len(outcomes))
        watch, start = Watch(), time.perf_counter()
        for first in range(0, rows, CHUNK):
            names = keys(first, min(CHUNK, rows - first))
            assert not any(journal.occurrences(names))
            assert (journal.find(names) < 0).all()
            content = names.tobytes()
            for number in range(len(names)):
                window.acquire()
                journal.append(outcome(content[16 * number : 16 * number + 16], first + number, result))
        journal.flush()
        seconds = time.perf_counter() - start
        say("first run, one producer", f"{rows / seconds:,.0f} rows/s", f"{rows / journal.syncs:.0f} rows a sync")
        say("  a row", watch.each(rows))
        say("  memory for index and keys seen", f"{(peak() - base) / rows:.1f} bytes/row", f"peak {peak() / 2**20:.0f} MiB")
        size = journal.path.stat().st_size
        say("  journal", f"{size / 2**30:.2f} GiB")
        sys.stdout.flush()
        os._exit(0)


def replay(folder: Path, rows: int) -> None:
    """Opening after a kill: every line read, every CRC checked, a checkpoint left."""
    base = memory()
    watch = Watch()
    journal = Journal.open(folder / "journal")
    say("open without checkpoint (and leave one)", watch.seconds())
    assert len(journal) == rows
    say("  memory", f"{(peak() - base) / rows:.1f} bytes/row", f"peak {peak() / 2**20:.0f} MiB")
    journal.close()


def resume(folder: Path, rows: int) -> None:
    """Opening with a checkpoint, and a reading pass over an unchanged input."""
    base = memory()
    watch = Watch()
    with Journal.open(folder / "journal") as journal:
        say("open with checkpoint", watch.seconds())
        assert len(journal) == rows
        watch = Watch()
        handles = np.empty(rows, np.int64)
        for first in range(0, rows, CHUNK):
            names = keys(first, min(CHUNK, rows - first))
            assert not any(journal.occurrences(names))
            handles[first : first + len(names)] = journal.find(names)
        say("occurrences and find, all known", watch.each(rows))
        assert (handles & 15 == 0).all() and (handles >= 0).all()
        used = peak() - base - handles.nbytes
        say("  memory", f"{used / rows:.1f} bytes/row", f"peak {peak() / 2**20:.0f} MiB")
        sample = handles[: min(rows, 500_000)]
        watch = Watch()
        for first in range(0, len(sample), CHUNK):
            journal.read_many(sample[first : first + CHUNK])
        say("read_many", watch.each(len(sample)))


def memory() -> int:
    """This process's resident bytes."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The most bytes this process ever had resident."""
    with Path("/proc/self/status").open() as file:
        return next(int(row.split()[1]) * 1024 for row in file if row.startswith("VmHWM"))


def say(what: str, figure: str, more: str = "") -> None:
    """One line of the table."""
    print(f"{what:42} {figure:>26}   {more}", flush=True)


def main() -> None:
    """Measure everything, one process after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=options.folder))
    steps: list[Callable[[Path, int], None]] = [line, mark, producers, fill, replay, resume]
    try:
        for step in steps:
            process = multiprocessing.get_context("spawn").Process(target=step, args=(folder, options.rows))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{step.__name__} ended with {process.exitcode}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
