"""Kills, full disks and failing syncs: what was counted as done is there, and what was in flight is named."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch.journal import Journal

from . import answered, contents

CHILD = [sys.executable, "-m", "tests.journal.child"]
ROOT = Path(__file__).parents[2]
WORKERS = 16

strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


def said(output: bytes) -> tuple[set[int], set[int], str]:
    """What a child sent, what it counted as done, and its last word; a torn last line is not counted."""
    lines = output.decode().split("\n")[:-1]
    sent = {int(line[1:]) for line in lines if line.startswith("+")}
    done = {int(line[1:]) for line in lines if line.startswith("=")}
    return sent, done, lines[-1] if lines else ""


def check(path: Path, done: set[int], size: int = 700) -> set[int]:
    """Every row counted as done is there with its own answer; the rows that are there."""
    with Journal.open(path, readonly=True) as journal:
        known = contents(journal, sorted(done))
        assert known.keys() == done
        for number, body in known.items():
            expected = answered(number, str(number) + "x" * size).answer
            assert expected and body == expected.body.decode()
        return set(contents(journal, range(max(done, default=0) + 1000)))


@pytest.mark.parametrize(("size", "lines"), [(700, 600), (60_000, 100)])
def test_a_kill_at_any_moment_loses_nothing_that_was_done_and_names_what_was_in_flight(
    tmp_path: Path, size: int, lines: int
) -> None:
    path = tmp_path / "journal"
    chance = random.Random(size)
    sent: set[int] = set()
    done: set[int] = set()
    for _ in range(4):
        # The moment is a number of bytes said, not of seconds: it falls into the work on slow machines, too.
        child = subprocess.Popen(
            [*CHILD, str(path), str(max(sent, default=-1) + 1), "1000000", str(WORKERS), str(size)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert child.stdout
        output = child.stdout.read(chance.randrange(50, 10 * lines))
        child.kill()
        output += child.stdout.read()
        child.stdout.close()
        assert child.wait() == -9
        now_sent, now_done, _ = said(output)
        sent |= now_sent
        done |= now_done

        there = check(path, done, size)
        with Journal.open(path) as journal:
            named = {mark.index for mark in journal.possibly_charged}
            assert (now_sent - there) <= named
            assert len(named) <= WORKERS
            assert not named & there
            journal.begin({})
    assert len(done) > lines // 4


@strace
@pytest.mark.parametrize(
    "fault",
    [
        "write:error=ENOSPC:when=2",
        "write:error=ENOSPC:when=5",
        "write:error=EIO:when=4",
        "write:retval=4:when=5",
        "fdatasync:error=EIO:when=2",
        "fdatasync:error=EIO:when=5",
        "fdatasync:error=ENOSPC:when=4+1",
    ],
)
def test_the_first_failed_write_or_sync_stops_the_run_and_nothing_undone_was_told(tmp_path: Path, fault: str) -> None:
    path, log = tmp_path / "journal", tmp_path / "log"
    Journal.open(path).close()

    run = inject(path, fault, log)

    _, done, last = said(run.stdout)
    assert run.returncode == 3, run.stderr.decode()
    assert last.startswith("failed StorageError") and str(path) in last
    there = check(path, done)
    with Journal.open(path) as journal:
        assert journal.torn is None
        assert there - done <= set(range(max(done, default=-1) + WORKERS + 1))
    calls = log.read_text().splitlines()
    if "fdatasync" in fault:
        first = next(number for number, call in enumerate(calls) if "INJECTED" in call)
        assert not any("fdatasync" in call for call in calls[first + 1 :])
    rest = subprocess.run([*CHILD, str(path), "5000", "20", "4"], cwd=ROOT, capture_output=True, check=True)
    assert said(rest.stdout)[2] == "end"


@strace
@pytest.mark.parametrize("fault", ["write:signal=SIGKILL:when=3", "fdatasync:signal=SIGKILL:when=4"])
def test_a_kill_inside_the_write_or_the_sync_loses_nothing(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "journal"
    Journal.open(path).close()
    run = inject(path, fault, tmp_path / "log")
    sent, done, _ = said(run.stdout)
    assert run.returncode == -9
    there = check(path, done)
    with Journal.open(path) as journal:
        assert sent - there <= {mark.index for mark in journal.possibly_charged}


def inject(path: Path, fault: str, log: Path) -> subprocess.CompletedProcess[bytes]:
    """A child of which one system call on the journal goes wrong."""
    tracer = ["strace", "-qq", "-f", "-o", str(log), "-P", str(path), "-e", "trace=write,fdatasync", "-e", f"inject={fault}"]
    return subprocess.run([*tracer, *CHILD, str(path), "0", "3000", "16"], cwd=ROOT, capture_output=True, check=False)


def test_a_size_limit_cuts_the_write_short_and_the_file_back(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    limit = 200_001
    run = subprocess.run(
        [*CHILD, str(path), "0", "5000", "16"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, done, last = said(run.stdout)
    assert run.returncode == 3
    assert "size limit" in last
    assert check(path, done) == done
    with Journal.open(path) as journal:
        assert journal.torn is None
    assert limit * 0.7 < path.stat().st_size <= limit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"cannot mount here: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.root
def test_a_full_disk_stops_the_run_and_space_continues_it(small_disk: Path) -> None:
    path = small_disk / "journal"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(500_000))

    run = subprocess.run([*CHILD, str(path), "0", "5000", "16"], cwd=ROOT, capture_output=True, check=False)
    _, done, last = said(run.stdout)
    assert run.returncode == 3
    assert "disk is full: free some space and run the same command again" in last
    assert done
    assert check(path, done) == done

    full = subprocess.run([*CHILD, str(path), "6000", "5000", "16"], cwd=ROOT, capture_output=True, check=False)
    assert full.returncode == 3
    filler.unlink()
    run = subprocess.run([*CHILD, str(path), "7000", "100", "16"], cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == 0
    check(path, done | said(run.stdout)[1] | said(full.stdout)[1])


@pytest.mark.root
def test_a_disk_full_from_the_start_is_said_before_anything_is_sent(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 8192))
    run = subprocess.run([*CHILD, str(small_disk / "journal"), "0", "5", "1"], cwd=ROOT, capture_output=True, check=False)
    sent, _, last = said(run.stdout)
    assert run.returncode == 3, run.stderr.decode()
    assert not sent
    assert "disk is full" in last


@pytest.mark.root
def test_a_read_only_disk_is_refused_before_anything_is_sent(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    run = subprocess.run([*CHILD, str(small_disk / "journal"), "0", "5", "1"], cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == 2
    assert b"Read-only file system (choose a place" in run.stdout
