"""A torn tail costs nothing, damage before it is named and mended, and no answer is ever invented."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch.errors import Busy, JobError, JournalDamaged
from batch.journal import Journal, frames
from batch.journal.repair import compact, repair
from batch.records import Outcome

from . import answered, contents, failed, key

ROWS = range(40)


def line_of(number: int) -> Outcome:
    return failed(number, message="später\n") if number % 7 == 3 else answered(number, "ü" * number)


@cache
def sample() -> bytes:
    """A journal with lines of every sort."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        with Journal.open(path) as journal:
            journal.begin({"model": "echo"})
            for number in ROWS:
                journal.append(line_of(number))
                if number % 10 == 0:
                    journal.tick({"gate": "open"})
            journal.append(answered(3, occurrence=2))
            journal.append(answered(3, "x" * 100))
            journal.end({"exit_code": 0})
        return path.read_bytes()


@cache
def truth() -> dict[int, str]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(sample())
        with Journal.open(path) as journal:
            return contents(journal, ROWS)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A new path at every call."""
    folder, numbers = tmp_path_factory.mktemp("torn"), count()
    return lambda: folder / f"journal-{next(numbers)}"


def invented(path: Path) -> dict[int, str]:
    """What the journal claims and the truth does not know; a failure that an answer followed later is known, too."""
    with Journal.open(path) as journal:
        return {row: found for row, found in contents(journal, ROWS).items() if found != truth()[row] and row != 3}


@settings(deadline=None, max_examples=80)
@given(
    length=st.integers(0), zeros=st.sampled_from([0, 0, 1, 9000]), junk=st.sampled_from([b"", b'{"k":"', b"\xff\xfe\n", b"\n"])
)
@example(length=sample().index(b"\n", sample().index(b'{"k"')), zeros=0, junk=b"\n")  # which is the one byte that was missing
def test_any_prefix_of_a_journal_opens_and_invents_nothing(
    fresh: Callable[[], Path], length: int, zeros: int, junk: bytes
) -> None:
    path = fresh()
    prefix = sample()[: length % (len(sample()) + 1)]
    tail = (junk if b"\n" in prefix else b"") + bytes(zeros)
    path.write_bytes(prefix + tail)

    with Journal.open(path, readonly=True) as journal:
        seen = contents(journal, ROWS)
    assert path.read_bytes() == prefix + tail
    assert not invented(path)
    with Journal.open(path) as journal:
        assert journal.torn is None
        assert contents(journal, ROWS) == seen
        assert len(seen) == len({row for row in ROWS if frames.row(line_of(row)) in prefix + tail})
    kept = b"".join(one.read_bytes() for one in sorted(path.with_name(path.name + ".d").glob("torn-*")))
    if kept:
        assert (prefix + tail).endswith(kept)


def test_a_torn_last_line_is_forgotten_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.open(path) as journal:
        journal.append(answered(1))
        journal.append(answered(2))
    whole = path.read_bytes()
    last = whole[whole.rindex(b"\n", 0, -1) + 1 :]
    start = len(whole) - len(last)
    for length in range(1, len(last)):
        path.write_bytes(whole[: start + length])
        with Journal.open(path) as journal:
            assert journal.torn and f"last {length} bytes" in journal.torn
            assert contents(journal, range(4)).keys() == {1}
            journal.append(answered(3))  # never glued to what was torn
        with Journal.open(path) as journal:
            assert contents(journal, range(4)).keys() == {1, 3}
        aside = journal.folder / "torn-1"
        assert aside.read_bytes() == last[:length]
        aside.unlink()


def test_every_cut_tail_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal.open(path).close()
    for number in (1, 2, 3):
        with path.open("ab") as file:
            file.write(b"torn %d" % number)
        with Journal.open(path) as journal:
            assert journal.torn and journal.torn.endswith(f"torn-{number}")
    assert [(journal.folder / f"torn-{number}").read_bytes() for number in (1, 2, 3)] == [b"torn 1", b"torn 2", b"torn 3"]


def test_damage_before_the_tail_is_named_by_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    line = sample().index(answered(20).key.hex().encode()) - 6
    path.write_bytes(sample()[: line + 50] + b"?" + sample()[line + 51 :])

    for readonly in (True, False):
        with pytest.raises(JournalDamaged, match=rf"damaged at byte {line}; .*`ails-batch repair`"):
            Journal.open(path, readonly=readonly)
    assert not path.with_name("journal.d").joinpath("torn-1").exists()


@settings(deadline=None, max_examples=80)
@given(
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 80), st.binary(max_size=80)), min_size=1, max_size=3),
)
def test_whatever_was_overwritten_repair_saves_the_rest_and_invents_nothing(
    fresh: Callable[[], Path], changes: list[tuple[int, int, bytes]]
) -> None:
    path = fresh()
    content = sample()
    for place, length, instead in changes:
        at = place % len(content)
        content = content[:at] + instead + content[at + length :]
    path.write_bytes(content)
    whole = [line for line in set(sample().splitlines(keepends=True)) if b"\n" + line in content and line.startswith(b'{"k":')]

    try:
        assert not invented(path)
    except (JournalDamaged, JobError):
        path.write_bytes(content)
    try:
        report = repair(path, at=0.0)
    except JobError as error:
        assert "format version" in str(error) or not whole
        return
    assert report.rows >= len(whole)
    assert report.dropped == sum(length for _, length in report.damage)
    assert not invented(path)
    with Journal.open(path) as journal:
        assert journal.torn is None
        for line in whole:
            found = frames.parse(line)
            assert journal.find([found.id])[0] >= 0
    if report.aside:
        assert report.aside.read_bytes() == content
        assert report.aside.name.startswith(path.name + ".damaged-")


def test_a_repair_says_what_it_kept_and_what_not(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lines = sample().splitlines(keepends=True)
    lines[10] = b"X" + lines[10][1:]
    lines[20] = lines[20][:-1]  # the line feed is lost, so two lines became one
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamaged):
        Journal.open(path)

    report = repair(path, at=0.0)

    start, glued = sum(map(len, lines[:10])), sum(map(len, lines[:20]))
    assert report.damage == ((start, len(lines[10])), (glued, len(lines[20])))
    assert report.dropped == len(lines[10]) + len(lines[20])
    assert report.lines == len(lines) - 3
    assert report.rows == sum(line.startswith(b'{"k"') for line in lines) - 1
    with Journal.open(path) as journal:
        assert journal.id == bytes.fromhex(frames.HEADER.match(sample())[2].decode())  # type: ignore[index]
        assert len(journal.runs) == 1
    assert repair(path, at=0.0).aside is None


def test_a_lost_first_line_costs_neither_the_rows_nor_the_journals_name(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.open(path) as journal:
        journal.append(answered(1))
        name = journal.id
    path.write_bytes(b"\0" * 20 + path.read_bytes()[20:])
    with pytest.raises(JournalDamaged, match="first line"):
        Journal.open(path)

    assert repair(path, at=0.0).rows == 1

    with Journal.open(path) as journal:
        assert journal.id == name
        assert contents(journal, range(3)).keys() == {1}


def test_a_changed_answer_is_noticed_even_behind_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.open(path, stale=1) as journal:
        for number in range(20):
            journal.append(answered(number))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"answer 7", b"answer 8"))

    with Journal.open(path) as journal:
        handle = int(journal.find([key(7)])[0])
        with pytest.raises(JournalDamaged, match=f"damaged at byte {handle >> 4}"):
            journal.read(handle)
        with pytest.raises(JournalDamaged, match=f"damaged at byte {handle >> 4}"):
            journal.read_many(journal.find([key(number) for number in range(20)]))


def test_compacting_keeps_what_rows_use_and_the_old_journal_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(sample())
    used = [key(number) for number in (3, 5, 39, 1000)]

    report = compact(path, used)

    assert report.rows == 3
    assert report.aside and report.aside.read_bytes() == sample()
    assert path.stat().st_size == len(sample()) - report.dropped
    with Journal.open(path) as journal:
        assert contents(journal, ROWS).keys() == {3, 5, 39}
        assert contents(journal, [3])[3].endswith('xx"}}]}')
        assert len(journal.runs) == 1
        with pytest.raises(Busy):
            compact(path, used)
        with pytest.raises(Busy):
            repair(path, at=0.0)
    assert compact(path, used).aside is None


def test_what_is_no_journal_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt\nhello\n")
    with pytest.raises(JobError, match="no line of a journal"):
        repair(path, at=0.0)
    with pytest.raises(JobError, match="no such journal"):
        repair(tmp_path / "nothing", at=0.0)
    path.write_bytes(b'{"journal":3}\n')
    with pytest.raises(JobError, match="format version 3"):
        repair(path, at=0.0)
    assert list(tmp_path.iterdir()) == [path]
