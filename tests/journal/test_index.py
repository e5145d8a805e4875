"""The index is a dict that fits ten million rows into memory."""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.journal import checkpoint, frames
from batch.journal.checkpoint import Covered
from batch.journal.index import Index, Pass, handle
from batch.journal.table import Table, as_names

# Few names, so that they meet again; many share their first half, which the table sorts by, or end in zeros.
names = st.builds(
    lambda first, last: first + last,
    st.sampled_from([bytes(8), b"\xff" * 8, b"abcdefgh", b"\0" * 7 + b"\x80"]) | st.binary(min_size=8, max_size=8),
    st.sampled_from([bytes(8), b"\xff" * 8, b"hgfedcba"]),
)
codes = st.sampled_from([0, 0, 1, 3, 8])
small = {"recent": 3, "part": 2}


def model(lines: list[tuple[bytes, int]]) -> tuple[dict[bytes, int], int]:
    """First answer wins, else the latest failure; and how many answers were one too many."""
    known: dict[bytes, int] = {}
    doubles = 0
    for name, place in lines:
        if name in known and known[name] & 15 == 0:
            doubles += place & 15 == 0
        else:
            known[name] = place
    return known, doubles


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(names, codes), max_size=12), max_size=12), st.lists(names, max_size=5))
def test_the_first_answer_wins_and_an_answer_beats_a_failure(
    batches: list[list[tuple[bytes, int]]], others: list[bytes]
) -> None:
    index, lines, offsets = Index(**small), [], count(100, 100)
    for number, batch in enumerate(batches):
        placed = [(name, handle(next(offsets), code)) for name, code in batch]
        lines += placed
        if number % 2:
            for name, place in placed:
                index.add(name, place)
        else:
            index.settle()
            index.add_many(as_names([name for name, _ in placed]), np.array([place for _, place in placed], np.int64))

        known, doubles = model(lines)
        asked = [*known, *others]
        assert index.find(asked).tolist() == [known.get(name, -1) for name in asked]

    known, doubles = model(lines)
    assert len(index) == len(known)
    assert index.doubles == doubles
    assert index.tally() == {frames.STATES[code]: number for code, number in Counter(h & 15 for h in known.values()).items()}


@settings(deadline=None)
@given(st.lists(st.lists(names, max_size=9), max_size=12), st.lists(names), st.lists(names))
def test_occurrences_count_like_a_counter(batches: list[list[bytes]], before: list[bytes], under_way: list[bytes]) -> None:
    index = Index(**small)
    for name in before:
        index.add(name, handle(1, 0))
    for _ in range(2):
        reading, counter, arriving = Pass(index), Counter[bytes](), iter(under_way)
        for batch in batches:
            expected = []
            for key in batch:
                expected.append(counter[key])
                counter[key] += 1
            assert reading.occurrences(batch) == expected
            for name in arriving:  # answers come in while the input is read
                index.add(name, handle(2, 0))
                break


def test_names_come_as_bytes_or_as_an_array() -> None:
    index = Index()
    index.add(b"a" * 16, handle(7, 0))
    ids = [b"a" * 16, b"b" * 16]

    array = np.frombuffer(b"".join(ids), np.uint8).reshape(2, 16)

    assert index.find(array).tolist() == index.find(ids).tolist() == [7 << 4, -1]
    assert Pass(index).occurrences(array) == [0, 0]
    assert index.find([]).tolist() == []
    assert Pass(index).occurrences([]) == []


def test_half_a_million_names_are_found_after_growing() -> None:
    ids = np.random.default_rng(7).integers(0, 256, (600_000, 16), np.uint8)
    index = Index(part=1 << 18)
    for first in range(0, len(ids), 50_000):
        chunk = ids[first : first + 50_000]
        index.add_many(as_names(chunk), (np.arange(first, first + len(chunk), dtype=np.int64) << 4))

    assert len(index.table.parts) > 1
    assert (index.find(ids) >> 4 == np.arange(len(ids))).all()
    assert (index.find(np.roll(ids, 1, axis=1)) == -1).all()


def test_a_table_takes_24_bytes_a_row() -> None:
    table = Table("<i8", part=1 << 20)
    ids = as_names(np.random.default_rng(7).integers(0, 256, (200_000, 16), np.uint8))
    table.insert(ids, np.zeros(len(ids), np.int64))

    assert sum(column.nbytes for part in table.parts for column in part) == 24 * len(table)


@settings(deadline=None)
@given(
    lines=st.lists(st.tuples(names, codes), max_size=30), runs=st.lists(st.integers(0, 2**40), max_size=3), flip=st.integers(0)
)
def test_a_checkpoint_brings_the_index_back_or_nothing(
    tmp_path_factory: object, lines: list[tuple[bytes, int]], runs: list[int], flip: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("checkpoint")  # type: ignore[attr-defined]
    journal = folder / "journal"
    journal.write_bytes(frames.header(bytes(16), 0) + frames.note("run", {}, 0))
    size = journal.stat().st_size
    index = Index(**small)
    for number, (name, code) in enumerate(lines):
        index.add(name, handle(number, code))
    with journal.open("rb") as file:
        checkpoint.save(folder / "index", bytes(16), file.fileno(), Covered(size, {"run": runs, "tick": []}), index)

        again = Index(**small)
        covered = checkpoint.load(folder / "index", bytes(16), file.fileno(), size, again)
        assert covered == Covered(size, {"run": runs, "tick": []})
        ids = [name for name, _ in lines]
        assert again.find(ids).tolist() == index.find(ids).tolist()
        assert (len(again), again.doubles) == (len(index), index.doubles)

        content = bytearray((folder / "index").read_bytes())
        content[flip % len(content)] ^= 1
        (folder / "index").write_bytes(content)
        damaged = Index(**small)
        assert checkpoint.load(folder / "index", bytes(16), file.fileno(), size, damaged) is None
        assert len(damaged) == 0
        assert checkpoint.load(folder / "index", b"another journal!", file.fileno(), size, damaged) is None
        (folder / "index").write_bytes(content[: flip % len(content)])
        assert checkpoint.load(folder / "index", bytes(16), file.fileno(), size, damaged) is None
