"""What each format costs to read, to write and to convert, and that a large file needs no more memory than a small one.

    python -m tests.benchmarks.formats [--quick]

Every figure is that of a whole process, start-up included. The table goes to standard output and, unless `--quick`, between the
markers in docs/formats.md. The largest file has 10 GB; all of them are made in the cache and deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache as cache_once
from itertools import islice
from pathlib import Path

from . import Missing, environments, ours
from .measure import MIB, Measured, environment, run
from .rows import WORDS, cache

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "formats.md"
BEGIN, END = "<!-- figures -->", "<!-- end figures -->"
EXTRAS = (".zst", ".parquet")
"""What needs a library that the plain installation does not have."""

TARGETS = ("csv", "tsv", "jsonl", "csv.gz", "jsonl.zst", "parquet")
HEAD = (
    "| | rows | file, MiB | rows/s | MiB/s | CPU, µs/row | first row, s | peak memory, MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: rows of a file, answers of an output, bytes of the large files."""

    rows: int
    answers: int
    csv: int
    jsonl: int


WHOLE = Sizes(1_000_000, 300_000, 10**9, 10**10)
QUICK = Sizes(10_000, 2_000, 10**7, 10**8)


@cache_once
def texts() -> list[str]:
    """Prompts of some 300 bytes in an order of words that no compressor knows; more of them than it looks back."""
    draw, words = random.Random(1), WORDS.replace(",", "").split()
    return [", ".join(" ".join(draw.choices(words, k=9)) for _ in range(6)) for _ in range(20_000)]


def jsonl(number: int) -> str:
    """A row of some 350 bytes, now and then with signs that must be escaped."""
    more = '\\n\\"Thanks\\"' if number % 10 == 0 else ""
    return f'{{"id":"{number:09d}","price":"0.10","prompt":"{texts()[number % 20_000]}{more}"}}\n'


def csv(number: int) -> str:
    """The same row; all prompts have a comma, so they are quoted."""
    more = '\n""Thanks""' if number % 10 == 0 else ""
    return f'{number:09d},0.10,"{texts()[number % 20_000]}{more}"\n'


def made(path: Path, line: Callable[[int], str], head: str, full: Callable[[int, int], bool]) -> int:
    """Write lines until the file is full, which is asked with its rows and bytes; returns how many they are."""
    count = size = 0
    with path.open("w", encoding="ascii") as file:
        file.write(head)
        while not full(count, size):
            lines = "".join(line(number) for number in range(count, count + 10_000))
            file.write(lines)
            count, size = count + 10_000, size + len(lines)
    return count


def read(path: str) -> None:
    """Read every row of a file; says how many they are and when the first one was there."""
    from batch import formats

    with formats.source(path) as source:
        rows = (row for chunk in source.chunks() for row in chunk.rows())
        first = sum(1 for _ in islice(rows, 1))
        moment = time.time()
        print(json.dumps({"first": moment, "rows": first + sum(1 for _ in rows)}))


def python(*paths: Path) -> str:
    """The interpreter for some files: a plain installation where that can read and write them."""
    return sys.executable if any(path.suffix in EXTRAS for path in paths) else str(environments.ours())


def measured(folder: Path, command: list[str]) -> tuple[Measured, str]:
    """Run a command in the project's own folder; its figures and what it wrote."""
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    found = run(
        command, environment(PYTHONPATH=str(environments.REPOSITORY), **ours.CREDENTIALS), environments.REPOSITORY, log, 1800
    )
    told = log.read_text(errors="replace")
    if found.code not in (0, 1):
        raise RuntimeError(f"{' '.join(command)} ended with {found.code}: {told[-600:]}")
    return found, told


def line(what: str, count: int, path: Path, figures: Measured, first: float | None = None) -> str:
    """A line of the table."""
    size = path.stat().st_size / MIB
    return (
        f"| {what} | {count:,} | {size:,.0f} | {count / figures.wall_s:,.0f} | {size / figures.wall_s:,.0f} "
        f"| {figures.cpu_s / count * 1e6:.1f} | {'' if first is None else f'{first:.2f}'} | {figures.peak_mib:,.0f} |"
    )


def reading(folder: Path, path: Path, count: int) -> str:
    """Read a file."""
    figures, told = measured(folder, [python(path), "-m", "tests.benchmarks.formats", "--read", str(path)])
    found = json.loads(told)
    assert found["rows"] == count, (path, found, count)
    return line(f"read {path.name.partition('.')[2]}", count, path, figures, found["first"] - figures.started)


def converting(folder: Path, source: Path, target: Path, count: int, *options: str) -> str:
    """Convert a file."""
    figures, told = measured(folder, [python(source, target), "-m", "batch", "convert", str(source), str(target), *options])
    assert json.loads(told.splitlines()[-1])["rows"] == count, told
    names = [path.name.partition(".")[2] for path in (source, target)]
    return line(f"convert {names[0]} to {options[-1] if options else names[1]}", count, target, figures)


def exporting(folder: Path, source: Path, count: int) -> Iterator[str]:
    """A finished run of so many rows, whose answers come from memory; its output in every format."""
    rows = folder / "answered.jsonl"
    with source.open("rb") as lines, rows.open("wb") as file:
        file.writelines(islice(lines, count))  # what this process takes at its peak, a child of it seems to take as well
    output = folder / "out.jsonl"
    measured(folder, [python(rows), "-P", str(HERE / "seed.py"), *ours.arguments(rows, output, "http://127.0.0.1:9", 64)])
    for form in TARGETS:
        target = folder / f"export.{form}"
        command = [python(target), "-m", "batch", "export", str(target), "--journal", f"{output}.journal"]
        figures, told = measured(folder, command)
        assert json.loads(told.splitlines()[-1])["ok"] == count, told
        yield line(f"export to {form}", count, target, figures)
        target.unlink()


def lines(folder: Path, sizes: Sizes) -> Iterator[str]:
    """The table's lines, as they come."""
    source = folder / "rows.jsonl"
    count = made(source, jsonl, "", lambda rows, _: rows >= sizes.rows)
    files = {form: folder / f"copy.{form}" for form in TARGETS}
    for target in files.values():
        yield converting(folder, source, target, count)
    yield converting(folder, files["jsonl"], folder / "batch.jsonl", count, "--to", "openai-batch")
    for path in files.values():
        yield reading(folder, path, count)
        if path.suffix != ".jsonl":
            path.unlink()
    yield reading(folder, (folder / "batch.jsonl").rename(folder / "batch.openai-batch.jsonl"), count)
    yield from exporting(folder, source, min(sizes.answers, count))
    for path in folder.iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    large = folder / "large.csv"
    count = made(large, csv, "id,price,prompt\n", lambda _, size: size >= sizes.csv)
    yield reading(folder, large, count)
    large.unlink()
    large = folder / "large.jsonl"
    count = made(large, jsonl, "", lambda _, size: size >= sizes.jsonl)
    yield reading(folder, large, count)


def machine() -> str:
    """What the figures were taken on."""
    where = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
    return (
        f"Whole processes, start-up included, on {where}; rows of 350 bytes. `zst` and Parquet need\n"
        "their libraries; where pyarrow is installed, pandas loads it, which is 35 MiB more.\n"
    )


def write(told: list[str]) -> None:
    """Put the table between its markers."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text("\n".join([before + BEGIN, *told, END + after]), encoding="utf-8")


def main() -> None:
    """Measure everything, one process after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.formats", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small files: whether everything works, no figures")
    parser.add_argument("--read", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        return read(options.read)
    sizes = QUICK if options.quick else WHOLE
    folder = cache() / "formats"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if shutil.disk_usage(folder).free < 2 * sizes.jsonl:
        raise Missing(f"this needs {2 * sizes.jsonl / 2**30:.0f} GiB of disk under {folder}")
    told = [machine(), HEAD]
    try:
        print("\n".join(told), flush=True)
        for one in lines(folder, sizes):
            print(one, flush=True)
            told.append(one)
    finally:
        shutil.rmtree(folder)
    if not options.quick:
        write(told)
    return None


if __name__ == "__main__":
    main()
