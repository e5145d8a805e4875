"""What an input is: the bytes that were there when it was opened, of one file, several, or a pipe."""

from __future__ import annotations

import gzip
import io
import os
import pty
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from batch import formats
from batch.errors import BatchError, InputChanged, InputError, JobError
from batch.formats.snapshot import open_file, open_path
from batch.formats.table import BLOCK, CAP
from batch.formats.text import Text

from .tables import copy, rows_of, values_of

LINES = b"".join(b'{"n":%d}\n' % n for n in range(10_000))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    return path


@contextmanager
def piped() -> Iterator[int]:
    """The writing end of a pipe that is standard input."""
    kept = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield writing
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.fixture
def stdin() -> Iterator[int]:
    """The same, for a whole test."""
    with piped() as writing:
        yield writing


def write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)


def test_rows_that_are_appended_later_are_not_seen(lines: Path) -> None:
    with formats.source(lines) as source:
        chunks = source.chunks()
        count = len(next(chunks))
        with lines.open("ab") as file:
            file.write(b'{"n":10000}\n')
        assert count + sum(map(len, chunks)) == 10_000
        assert source.position == source.size == len(LINES)
        assert sum(map(len, source.chunks())) == 10_000


def test_the_digest_is_that_of_the_bytes_that_were_read(lines: Path) -> None:
    lines.write_bytes(LINES * 20)
    with formats.source(lines) as source:
        assert source.sha256 == ""
        for _ in source.chunks():
            pass
        assert source.sha256 == subprocess.run(["sha256sum", lines], capture_output=True, text=True).stdout.split()[0]


def test_the_digest_can_be_had_without_reading_rows(lines: Path) -> None:
    lines.write_bytes(LINES * 20)
    with formats.source(lines) as source:
        digest = source.digest()
        for _ in source.chunks():
            pass
        assert source.sha256 == digest


def test_rows_of_compressed_and_large_inputs_are_reckoned_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES * 30))
    with formats.source(path) as source:
        reckoned = source.estimate()
        assert reckoned is not None
        assert 200_000 < reckoned < 400_000


def test_bytes_that_change_between_two_passes_end_the_second(lines: Path) -> None:
    with formats.source(lines) as source:
        for _ in source.chunks():
            pass
        with lines.open("r+b") as file:
            file.write(b'{"n":7}')
        with pytest.raises(InputChanged, match=r"a.jsonl changed while it was in use; run again"):
            for _ in source.chunks():
                pass


def test_a_file_that_is_cut_while_it_is_read_has_changed(lines: Path) -> None:
    with formats.source(lines) as source:
        os.truncate(lines, 100)
        with pytest.raises(InputChanged, match=f"was cut from {len(LINES)} to 100 bytes"):
            for _ in source.chunks():
                pass


def test_a_file_that_is_replaced_goes_on_as_it_was(lines: Path, tmp_path: Path) -> None:
    with formats.source(lines) as source:
        (tmp_path / "other").write_bytes(b"{}\n")
        (tmp_path / "other").rename(lines)
        assert sum(map(len, source.chunks())) == 10_000


def test_several_files_and_patterns_are_one_input(tmp_path: Path) -> None:
    for name, data in {"b1": b"a,b\n3,4\n", "b2": b"a,b\n5\n", "a": b"a,b\n1,2\n"}.items():
        (tmp_path / f"{name}.csv").write_bytes(data)
    with formats.source([tmp_path / "a.csv", f"{tmp_path}/b*.csv"]) as source:
        rows = [row for chunk in source.chunks() for row in chunk.rows()]
        assert [(row.number, Path(row.place).name, row.problem) for row in rows] == [
            (0, "a.csv, line 2", ""),
            (1, "b1.csv, line 2", ""),
            (2, "b2.csv, line 2", "1 cell where the header has 2"),
        ]
        assert source.size == source.position == 22
        assert source.estimate() == 3
        assert len(source.sha256) == 64
        assert source.names == [str(tmp_path / f"{name}.csv") for name in ("a", "b1", "b2")]
        assert source.name.endswith("a.csv and 2 more")
    (tmp_path / "b3.csv").write_bytes(b"a,c\n")
    with pytest.raises(InputError, match=r"b3.csv has other columns than .*a.csv"):
        formats.source(f"{tmp_path}/*.csv")
    with pytest.raises(JobError, match="no file has a name like this"):
        formats.source(f"{tmp_path}/*.jsonl")
    (tmp_path / "c.jsonl").write_bytes(b"{}\n")
    with pytest.raises(JobError, match=r"different formats \(csv, jsonl\)"):
        formats.source([tmp_path / "a.csv", tmp_path / "c.jsonl"])
    with pytest.raises(JobError, match="name at least one input"):
        formats.source([])


def test_a_name_with_brackets_is_a_name_when_there_is_such_a_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_bytes(b"a\n1\n")
    assert values_of(tmp_path / "a[1].csv") == [{"a": "1"}]


def test_keys_of_several_files_are_united(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a":1,"b":1}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"c":true,"b":"x","a":2}\n')
    with formats.source(f"{tmp_path}/?.jsonl") as source:
        assert source.keys() == {"a": "int64", "b": "string", "c": "bool"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.csv", "cannot be opened: no such file or directory"),
        (".", "is a directory: name its files"),
        ("s3://bucket/a.csv", "inputs of this kind are not known here"),
        ("a\x00.csv", "is no file name"),
    ],
)
def test_what_cannot_be_an_input_is_said(path: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        formats.source(path)


@pytest.mark.parametrize("name", ["a.pkl", "a.txt", "a", "a.gz"])
def test_a_format_that_is_not_told_is_asked_for(name: str, tmp_path: Path) -> None:
    data = b"prompt\nx\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(JobError, match=r"the name does not tell the format; name it with --input-format \(csv, tsv, jsonl"):
        formats.source(tmp_path / name)
    assert values_of(tmp_path / name, format="csv") == [{"prompt": "x"}]
    with pytest.raises(JobError, match="--input-format pickle: there is no such format"):
        formats.source(tmp_path / name, format="pickle")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a.csv", "csv"),
        ("A.TSV.GZ", "tsv"),
        ("a.ndjson.zst", "jsonl"),
        ("a.b.jsonl", "jsonl"),
        ("a.parquet", "parquet"),
        ("csv", ""),
    ],
)
def test_a_name_tells_the_format(path: str, form: str) -> None:
    assert formats.format_of(path) == form


def test_another_store_is_read_through_its_opener() -> None:
    opened = []

    def opener(url: str) -> io.BytesIO:
        opened.append(url)
        return io.BytesIO(LINES)

    with formats.source("memory://a.jsonl", opener=opener) as source:
        assert sum(map(len, source.chunks())) == sum(map(len, source.chunks())) == 10_000
    assert opened == ["memory://a.jsonl"]


class Remote(io.BytesIO):
    """A store that takes a while to answer."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.0001)
        return super().read(size)


def test_another_store_is_read_by_two_threads_at_once() -> None:
    opened = open_file("a", Remote(LINES))
    parts: list[list[bytes]] = [[], []]

    def read(part: list[bytes]) -> None:
        part.extend(opened.again(1000))

    readers = [threading.Thread(target=read, args=(part,)) for part in parts]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    opened.close()
    assert [b"".join(part) for part in parts] == [LINES, LINES]


# Standard input and pipes


def test_standard_input_is_copied_and_can_be_read_again(stdin: int, tmp_path: Path) -> None:
    writer = threading.Thread(target=write, args=(stdin, LINES))
    writer.start()
    with formats.source("-", spool=tmp_path / "copy") as source:
        assert (source.name, source.format, source.size) == ("stdin", "jsonl", None)
        source.keep()
        assert sum(map(len, source.chunks())) == 10_000
        assert source.size == len(LINES)
        assert sum(map(len, source.chunks())) == 10_000
    writer.join()
    assert (tmp_path / "copy").read_bytes() == LINES
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


def test_what_has_come_through_a_pipe_goes_on_its_way_at_once(stdin: int) -> None:
    os.write(stdin, b"prompt\nfirst\n")
    with formats.source("-", format="csv") as source:
        assert source.columns == ["prompt"]
        chunks = source.chunks()
        assert [row.values for row in next(chunks).rows()] == [{"prompt": "first"}]
        os.write(stdin, b"second\nthi")
        assert [row.place for row in next(chunks).rows()] == ["stdin, line 3"]
        os.write(stdin, b"rd\n")
        os.close(stdin)
        assert [row.values for chunk in chunks for row in chunk.rows()] == [{"prompt": "third"}]


def test_empty_standard_input_means_the_copy_of_the_last_run(stdin: int, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b'{"a":1}\n')
    os.close(stdin)
    with formats.source("-", spool=tmp_path / "copy") as source:
        assert [len(chunk) for chunk in source.chunks()] == [1]
    assert (tmp_path / "copy").read_bytes() == b'{"a":1}\n'


def test_a_copy_that_is_not_whole_is_not_taken_for_the_input(tmp_path: Path) -> None:
    with piped() as ours:
        os.write(ours, LINES[:1000])
        with formats.source("-", spool=tmp_path / "copy") as source:
            source.keep()
            next(source.chunks())  # and then the run is killed
        os.close(ours)
    with piped() as ours, pytest.raises(JobError, match=r"give it again, or make what had come the input: .*copy\.part"):
        os.close(ours)
        formats.source("-", spool=tmp_path / "copy")
    assert (tmp_path / "copy.part").read_bytes() == LINES[:1000]


def test_a_terminal_means_the_copy_of_the_last_run(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b'{"a":1}\n')
    ours, theirs = pty.openpty()
    kept = os.dup(0)
    os.dup2(theirs, 0)
    try:
        with formats.source("-", spool=tmp_path / "copy") as source:
            assert [len(chunk) for chunk in source.chunks()] == [1]
    finally:
        os.dup2(kept, 0)
        for descriptor in (ours, theirs, kept):
            os.close(descriptor)


def test_a_new_standard_input_replaces_the_copy(stdin: int, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(LINES)
    os.write(stdin, b'{"a":1}\n')
    os.close(stdin)
    with formats.source("-", spool=tmp_path / "copy") as source:
        assert [len(chunk) for chunk in source.chunks()] == [1]
        source.keep()
    assert (tmp_path / "copy").read_bytes() == b'{"a":1}\n'


def test_the_copy_of_an_earlier_run_outlives_one_that_does_not_begin(stdin: int, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(LINES)
    os.write(stdin, b'{"a":1}\n')
    os.close(stdin)
    with formats.source("-", spool=tmp_path / "copy") as source:
        assert [len(chunk) for chunk in source.chunks()] == [1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"copy": LINES}


def test_standard_input_of_no_known_format_is_refused(stdin: int) -> None:
    os.write(stdin, b"prompt\nx\n")
    os.close(stdin)
    with pytest.raises(JobError, match="stdin: the name does not tell the format; name it with --input-format"):
        formats.source("-")


def test_empty_standard_input_has_no_rows(stdin: int) -> None:
    os.close(stdin)
    with formats.source("-") as source:
        assert list(source.chunks()) == []
        assert source.estimate() == 0


def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(LINES,))
    writer.start()
    with formats.source(path, spool=tmp_path / "copy") as source:
        assert sum(map(len, source.chunks())) == sum(map(len, source.chunks())) == 10_000
    writer.join()


def test_the_copies_of_several_pipes_are_kept_apart(stdin: int, tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    writers = [threading.Thread(target=path.write_bytes, args=(b'{"n":"%s"}\n' % path.name.encode(),)) for path in paths]
    for path, writer in zip(paths, writers, strict=True):
        os.mkfifo(path)
        writer.start()
    write(stdin, b'{"n":"stdin"}\n')
    with formats.source([paths[0], "-", paths[1]], spool=tmp_path / "copy") as source:
        for _ in range(2):
            names = [row.values["n"] for chunk in source.chunks() for row in chunk.rows()]
            assert names == ["a.jsonl", "stdin", "b.jsonl"]
        source.keep()
    for writer in writers:
        writer.join()
    assert (tmp_path / "copy").read_bytes() == b'{"n":"stdin"}\n'
    assert {path.name for path in tmp_path.glob("copy*")} == {"copy", "copy-1", "copy-3"}


def test_standard_input_is_one_input_only() -> None:
    with pytest.raises(JobError, match=r"standard input \(-\) is named twice"):
        formats.source(["-", "-"])


WAITS = """
import signal, sys, threading
from batch import formats
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
print("here", flush=True)
try:
    for chunk in formats.source(sys.argv[1], format="jsonl", stopping=stopping).chunks():
        print(len(chunk), flush=True)
except formats.Stopped as error:
    print(error)
"""


@pytest.mark.parametrize("path", ["-", "a.pipe"])
@pytest.mark.parametrize("come", [b"", b'{"a":1}\n'])
def test_a_signal_ends_the_waiting_for_an_idle_pipe(path: str, come: bytes, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pipe")
    arguments = [sys.executable, "-c", WAITS, path]
    with subprocess.Popen(arguments, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        if come:
            with process.stdin if path == "-" else (tmp_path / path).open("wb") as pipe:
                pipe.write(come)
                pipe.flush()
                assert process.stdout.readline() == b"1\n"
                process.terminate()
                said = process.stdout.read()
        else:
            process.terminate()
            said = process.stdout.read()
        assert process.wait() == 0
    assert said.decode() == f"stopped while waiting for {'standard input' if path == '-' else path}\n"


def test_what_has_come_is_read_even_when_the_run_is_to_end(stdin: int) -> None:
    stopping = threading.Event()
    stopping.set()
    write(stdin, LINES[:1000])
    with formats.source("-", stopping=stopping) as source:
        assert sum(map(len, source.chunks())) == 111


# Compressed text


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_come_and_go(suffix: str, lines: Path, tmp_path: Path) -> None:
    packed = tmp_path / f"b.jsonl{suffix}"
    copy(lines, packed)
    expand: Any = gzip.decompress if suffix == ".gz" else zstandard.ZstdDecompressor().decompressobj().decompress
    assert expand(packed.read_bytes()) == LINES
    assert [row.values["n"] for row in rows_of(packed)] == list(range(10_000))
    again = tmp_path / f"c.jsonl{suffix}"
    copy(packed, again)
    assert again.read_bytes() == packed.read_bytes()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_members_are_one_text(suffix: str, tmp_path: Path) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(b'{"a":1}\n{"a"') + pack(b"") + pack(b":2}\n"))
    assert values_of(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "turned", "garbage", "plain"])
def test_damaged_files_are_refused(suffix: str, damage: str, tmp_path: Path) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    data = pack(LINES)
    broken = {
        "cut": data[:-9],
        "turned": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) + data[len(data) // 2 + 1 :],
        "garbage": data + b"garbage",
        "plain": LINES,
    }[damage]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(broken)
    words = f"a.jsonl{suffix} (ends in the middle of its|is no sound)"
    with pytest.raises(InputError, match=words):
        values_of(path)


@given(st.binary(max_size=80), st.sampled_from([".gz", ".zst"]), st.integers(1, 40))
def test_any_compressed_bytes_are_read_or_refused_in_words(data: bytes, suffix: str, block: int) -> None:
    good = gzip.compress(b'{"a":1}\n') if suffix == ".gz" else zstandard.ZstdCompressor().compress(b'{"a":1}\n')
    for packed in (data, good[:10] + data, good + data):
        text = Text(open_file("a", io.BytesIO(packed)), suffix, block=block)
        try:
            for _ in formats.READERS["jsonl"](text, ()).chunks():
                pass
        except BatchError:
            pass


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_is_expanded_no_further_than_its_first_line(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    if suffix == ".gz":
        engine = zlib.compressobj(9, zlib.DEFLATED, 31)
        path.write_bytes(b"".join(engine.compress(b" " * (1 << 20)) for _ in range(256)) + engine.flush())
    else:
        path.write_bytes(zstandard.ZstdCompressor(level=3).compress(b" " * (256 << 20)))
    expanded = 0
    for block in Text(open_path(str(path)), suffix).blocks():
        assert len(block) <= 20 << 20
        expanded += len(block)
        if expanded > CAP:
            break
    with pytest.raises(InputError, match="line 1: a line of more than 16 MiB"):
        formats.source(path)


def test_a_zstd_window_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(os.urandom(40 << 20)))
    with pytest.raises(InputError, match="is no sound zstd file: Frame requires too much memory"):
        formats.source(path)


# Start-up


def test_importing_formats_imports_nothing_heavy() -> None:
    heavy = "{'pandas', 'numpy', 'pyarrow', 'zstandard'}"
    code = f"import sys, batch.formats; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize(
    ("module", "name", "extra"), [("zstandard", "a.jsonl.zst", "zstd"), ("pyarrow", "a.parquet", "parquet")]
)
def test_a_missing_extra_is_named(module: str, name: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from batch import formats, errors\n"
        f"for use in (formats.source, lambda path: formats.sink(path, None)):\n"
        f"    try: use({str(tmp_path / name)!r})\n"
        "    except errors.JobError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    hint = f"the extra '{extra}': pip install 'ails-batch[{extra}]', in a clone pip install '.[{extra}]'"
    assert ended.stdout.count(hint) == 2, ended.stderr


def test_reading_takes_a_few_blocks_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"id,prompt\n")
        for start in range(0, 300_000, 1_000):
            file.write(
                b"".join(b"%d,what is this number and the next one together?\n" % n for n in range(start, start + 1_000))
            )
    code = (
        "import resource, sys, pandas; from batch import formats\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"source = formats.source({str(path)!r}); chunks = source.chunks(); next(chunks); before = peak()\n"
        "rows = sum(len(chunk) for chunk in chunks); print(rows, peak() - before)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows, grown = map(int, ended.stdout.split())
    assert rows == 300_000 - 64
    assert grown < 15 * 1024
    assert path.stat().st_size > 15 << 20 > BLOCK
