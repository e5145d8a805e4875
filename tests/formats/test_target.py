"""Readers see the old output or the new one, whole."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch import formats
from batch.errors import JobError, StorageError
from batch.formats.target import Target, storage

from .tables import copy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a\n1\n")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_seen_before_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    target = Target(str(path))
    target.write(b"new")
    assert path.read_text() == "old"
    target.commit()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out.csv"]


def test_an_abort_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    target = Target(str(path))
    target.write(b"new")
    target.abort()
    target.abort()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.csv"]


def test_an_abort_after_the_commit_changes_nothing(tmp_path: Path, source: Path) -> None:
    with formats.source(source) as before, formats.sink(tmp_path / "out.csv", before) as sink:
        sink.commit()
    assert (tmp_path / "out.csv").read_bytes() == b"a\n"


@pytest.mark.parametrize(("before", "after"), [(None, 0o600), (0o644, 0o644), (0o640, 0o640)])
def test_outputs_are_private_unless_the_target_says_otherwise(before: int | None, after: int, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    if before:
        path.touch()
        path.chmod(before)
    target = Target(str(path))
    target.commit()
    assert stat.S_IMODE(path.stat().st_mode) == after


@pytest.mark.parametrize("kind", ["link", "dangling", "directory", "pipe", "device"])
def test_only_a_regular_file_is_replaced(kind: str, tmp_path: Path, source: Path) -> None:
    path = tmp_path / "out.csv"
    if kind == "link":
        path.symlink_to(source)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    what = {"link": "a symbolic link", "dangling": "a symbolic link", "pipe": "a pipe"}.get(kind, f"a {kind}")
    with pytest.raises(JobError, match=f"is {what}; an output is replaced as a whole"):
        formats.preflight_output(path, format="csv")
    with pytest.raises(JobError, match=f"is {what}"):
        Target(str(path))


def test_the_input_is_no_output(tmp_path: Path, source: Path) -> None:
    other = tmp_path / "other.csv"
    os.link(source, other)
    for path in (source, other):
        with pytest.raises(JobError, match="is the input; choose another output"):
            formats.preflight_output(path, [str(source)])
        with pytest.raises(JobError, match="is the input"):
            copy(source, path)
    assert source.read_bytes() == b"a\n1\n"


def test_outputs_that_cannot_be_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"there is no directory .*nowhere; make it first"):
        formats.preflight_output(tmp_path / "nowhere" / "out.csv")
    with pytest.raises(JobError, match="outputs of this kind are not known here"):
        formats.preflight_output("s3://bucket/out.csv")
    with pytest.raises(JobError, match=r"the name does not tell the format; name it with --output-format \(csv, "):
        formats.preflight_output(tmp_path / "out.txt")
    with pytest.raises(JobError, match="--output-format xlsx: there is no such format"):
        formats.preflight_output(tmp_path / "out.csv", format="xlsx")
    with pytest.raises(JobError, match="Parquet is written to a plain file"):
        formats.preflight_output("-", format="parquet")
    formats.preflight_output("-")
    formats.preflight_output(tmp_path / "out.csv")


def test_a_directory_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(JobError, match=r"the directory /proc/self does not allow it|cannot be written"):
        formats.preflight_output("/proc/self/out.csv") if not os.access("/proc/self", os.W_OK) else Target("/proc/self/out.csv")


def test_a_write_beyond_the_limit_is_a_storage_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    target = Target(str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"out.csv cannot be written: file too large; the old file is as it was; raise"):
            target.write(b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.csv"]
    assert target.write(b"more") == 4


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "see to the disk"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EBADF, "mend that"),
    ],
)
def test_a_storage_error_names_path_and_remedy(number: int, remedy: str) -> None:
    words = str(storage("out.csv", OSError(number, os.strerror(number))))
    assert words.startswith(f"out.csv cannot be written: {os.strerror(number).lower()}; the old file is as it was; {remedy}")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        (full / "out.csv").write_text("old")
        target = Target(str(full / "out.csv"))
        with pytest.raises(StorageError, match="no space left on device; the old file is as it was; free some space"):
            target.write(b"x" * 100_000)
        assert names(full) == ["out.csv"]
        assert (full / "out.csv").read_text() == "old"
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_file_that_took_the_place_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    target = Target(str(path))
    other = tmp_path / "other"
    other.write_text("somebody else's")
    other.rename(path)
    with pytest.raises(StorageError, match="was replaced by another file meanwhile"):
        target.commit()
    assert path.read_text() == "somebody else's"
    target = Target(str(path))
    path.unlink()
    target.commit()
    assert path.read_text() == ""


def test_what_killed_runs_left_is_swept_and_what_others_write_is_not(tmp_path: Path) -> None:
    path = tmp_path / "out[1].csv"
    left = tmp_path / ".out[1].csv.0123abcd.part"
    left.touch()
    other = Target(str(path))
    os.utime(left, (time.time() - 3600,) * 2)
    busy = next(name for name in tmp_path.iterdir() if name != left)
    os.utime(busy, (time.time() - 3600,) * 2)
    Target(str(path)).abort()
    assert not left.exists()
    assert busy.exists()
    other.commit()
    assert names(tmp_path) == ["out[1].csv"]


def test_standard_output_is_json_lines_written_through(source: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with formats.source(source) as before:
        sink = formats.sink("-", before, ["response"])
        for chunk in before.chunks():
            sink.write(chunk, [0], [{"response": "x"}])
        assert capfdbinary.readouterr().out == b'{"a":"1","response":"x"}\n'
        sink.commit()


def test_a_reader_that_left_is_a_broken_pipe(source: Path) -> None:
    code = (
        "import os, sys; from batch import formats; "
        f"before = formats.source({str(source)!r}); sink = formats.sink('-', before, ['r']); chunk = next(before.chunks())\n"
        "sys.stdin.read()\n"
        "try: sink.write(chunk, [0], [{'r': 'x'}])\n"
        "except BrokenPipeError: os._exit(41)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdin
    process.stdout.close()
    process.stdin.close()
    assert process.wait() == 41


def test_a_full_standard_output_is_a_storage_error(source: Path) -> None:
    code = (
        "import sys; from batch import formats, errors; "
        f"before = formats.source({str(source)!r}); sink = formats.sink('-', before, ['r']); chunk = next(before.chunks())\n"
        "try: sink.write(chunk, [0], [{'r': 'x'}])\n"
        "except errors.StorageError as error: sys.exit(str(error))"
    )
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert "standard output cannot be written: no space left on device" in ended.stderr
