"""One run after the other appends to the same truth, and no two at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.errors import Busy, JobError, JournalDamaged, StorageError
from batch.journal import Journal
from batch.journal.frames import HEADER
from batch.journal.lock import acquire
from batch.journal.opening import start_over
from batch.records import Outcome, row_id

from . import STATE_KINDS, Stepped, answered, contents, failed, key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.journal"


def test_what_one_run_appended_the_next_one_finds(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.begin({"model": "echo"})
        journal.append(answered(1, "eins"))
        journal.append(failed(2, "refused"))
        name = journal.id

    with Journal.open(path) as journal:
        assert journal.id == name
        assert contents(journal, range(4)) == {1: answered(1, "eins").answer.body.decode(), 2: "refused"}  # type: ignore[union-attr]
        assert [journal.state(handle) for handle in journal.find([key(1), key(2)]).tolist()] == ["ok", "refused"]
        assert journal.tally() == {"ok": 1, "refused": 1}
        assert journal.torn is None
        (run,) = journal.runs
        assert (run["run"]["model"], run["run"]["pid"]) == ("echo", os.getpid())


def test_an_outcome_is_told_of_only_once_it_can_be_read_back(path: Path) -> None:
    told: list[Outcome] = []
    missing: list[Outcome] = []

    def durable(outcomes: list[Outcome]) -> None:
        content = path.read_bytes()
        missing.extend(one for one in outcomes if one.key.hex().encode() not in content)
        told.extend(outcomes)

    with Journal.open(path) as journal:
        journal.on_durable = durable
        for number in range(300):
            journal.append(answered(number))
        journal.flush()
        assert told == [answered(number) for number in range(300)]
        assert not missing


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.sampled_from(["", "", *STATE_KINDS])), max_size=8),
        max_size=5,
    )
)
def test_over_any_runs_the_first_answer_wins_and_else_the_latest_failure(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[int, int, str]]]
) -> None:
    path = tmp_path_factory.mktemp("runs") / "journal"
    expected: dict[tuple[int, int], str] = {}
    number, doubles = 0, 0
    for run in runs:
        with Journal.open(path, stale=5) as journal:
            for row, occurrence, kind in run:
                number += 1
                text = f"{kind} {number}"
                if kind:
                    journal.append(failed(row, kind, text, occurrence=occurrence))
                else:
                    journal.append(answered(row, text, occurrence=occurrence))
                if expected.get((row, occurrence), "x").startswith(" "):
                    doubles += not kind
                else:
                    expected[row, occurrence] = text
    with Journal.open(path) as journal:
        known = journal.read_many(journal.find([row_id(key(row), occurrence) for row, occurrence in expected]))
        for text, found in zip(expected.values(), known, strict=True):
            assert text in (found.failure.message if found.failure else found.body.decode())
        assert (len(journal), journal.duplicates) == (len(expected), doubles)


def test_many_rows_are_read_in_the_order_asked_for(path: Path) -> None:
    with Journal.open(path) as journal:
        for number in range(50):
            journal.append(answered(number, "x" * (number * 3000)))
        journal.flush()
        order = [7, 49, 0, 7, 31]
        handles = journal.find([key(number) for number in order])

        assert journal.read_many(handles) == [journal.read(handle) for handle in handles.tolist()]
        assert [found.key for found in journal.read_many(handles)] == [key(number) for number in order]
        assert journal.read_many([]) == []


def test_a_checkpoint_spares_the_replay_and_changes_nothing(path: Path) -> None:
    with Journal.open(path, stale=10) as journal:
        journal.begin({"n": 1})
        for number in range(100):
            journal.append(answered(number))
        journal.append(failed(100))
    assert (path.parent / "out.csv.journal.d" / "index").exists()
    with Journal.open(path, stale=1000) as journal:
        journal.begin({"n": 2})
        journal.append(answered(100))
        journal.append(answered(101))

    with Journal.open(path) as journal:
        with_checkpoint = contents(journal, range(110))
        assert [run["run"]["n"] for run in journal.runs] == [1, 2]
    (path.parent / "out.csv.journal.d" / "index").unlink()
    with Journal.open(path) as journal:
        assert contents(journal, range(110)) == with_checkpoint
        assert len(with_checkpoint) == 102


def test_a_checkpoint_of_a_journal_that_lost_its_end_is_not_believed(path: Path) -> None:
    with Journal.open(path, stale=1) as journal:
        for number in range(10):
            journal.append(answered(number))
    os.truncate(path, path.stat().st_size // 2)

    with Journal.open(path) as journal:
        assert 2 < len(contents(journal, range(10))) < 8
        for number in range(20, 40):
            journal.append(answered(number))
        journal.flush()
        assert len(contents(journal, range(20, 40))) == 20


def test_ticks_come_at_most_once_a_second_and_can_be_read_back(path: Path) -> None:
    clock = Stepped()
    with Journal.open(path, clock=clock) as journal:
        for _ in range(30):
            journal.tick({"gate": "open", "at_work": clock.now})
            clock.now += 0.25
        journal.end({"exit_code": 0})

    with Journal.open(path, readonly=True) as journal:
        ticks = list(journal.notes("tick"))
        assert [tick["tick"]["at_work"] for tick in ticks] == [1000.0 + second for second in range(8)]
        assert ticks[0]["at"] == 1.7e9 + 1000
        assert [end["end"] for end in journal.notes("end")] == [{"exit_code": 0}]


def test_marks_of_a_run_that_went_away_name_what_has_no_answer(path: Path) -> None:
    journal = Journal.open(path)
    journal.begin({})
    for number in range(5000):
        journal.mark(key(number), number)
    for number in range(4990):
        journal.append(answered(number))
    journal.append(failed(4990))
    journal.unmark(key(4991))
    journal.flush()
    left_open = journal.folder / "marks"
    content = left_open.read_bytes()
    journal.close()
    left_open.write_bytes(content)

    with Journal.open(path, readonly=True) as reader:
        assert {mark.index for mark in reader.possibly_charged} == set(range(4992, 5000))
    with Journal.open(path) as second:
        assert {(mark.id, mark.index) for mark in second.possibly_charged} == {(key(n), n) for n in range(4992, 5000)}
        second.begin({})
        second.mark(key(4995), 7)  # asked again, and killed again
    with Journal.open(path) as third:
        assert third.runs[-1]["run"]["possibly_charged"] == [[key(n).hex(), n] for n in range(4992, 5000)]
        assert [(mark.id, mark.index) for mark in third.possibly_charged] == [(key(4995), 7)]
        third.append(answered(4995))
    with Journal.open(path) as fourth:
        assert fourth.possibly_charged == []


def test_marks_of_another_journal_or_in_disorder_are_passed_over(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.mark(key(1), 1)
        marks = journal.folder / "marks"
    whole = marks.read_bytes()

    for damaged in (b"", whole[:100], whole[:4100], b"\xff" * len(whole), whole[:4096] + b"\x01" * 4096):
        marks.write_bytes(damaged)
        with Journal.open(path) as journal:
            assert journal.possibly_charged == []
            journal.mark(key(2), 2)
    marks.write_bytes(whole)
    with Journal.open(path, fresh=True) as journal:
        assert journal.possibly_charged == []


def test_a_second_run_is_told_at_once_who_holds_the_journal(path: Path) -> None:
    code = "import sys; from batch.journal import Journal as J; j = J.open(sys.argv[1]); print('open', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == b"open\n"
    with pytest.raises(Busy, match=rf"held by process {holder.pid} on .* since 20.*UTC: .*--wait"):
        Journal.open(path)
    Journal.open(path, readonly=True).close()

    holder.kill()  # the kernel frees the lock, however the holder ends
    holder.wait()
    Journal.open(path).close()
    holder.stdin.close()
    holder.stdout.close()


def test_a_run_that_waits_gets_the_journal_that_then_has_the_name(path: Path) -> None:
    first = Journal.open(path)
    first.append(answered(1))
    first.flush()
    got: list[bytes] = []

    def wait() -> None:
        with Journal.open(path, wait=True) as journal:
            got.append(journal.id)

    waiting = threading.Thread(target=wait)
    waiting.start()
    first.close()
    waiting.join()
    assert got == [first.id]


def test_starting_afresh_keeps_the_old_journal_beside_the_new_one(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(answered(1))
        old = journal.id
    with Journal.open(path, fresh=True) as journal:
        assert journal.id != old
        assert len(journal) == 0
        with pytest.raises(Busy):
            Journal.open(path)
        journal.append(answered(2))
    with Journal.open(path, fresh=True):
        pass

    kept = sorted(path.parent.glob("out.csv.journal.old-*Z*"))
    assert len(kept) == 2
    held = []
    for one in kept:
        with Journal.open(one, readonly=True) as journal:
            held.append(list(contents(journal, range(3))))
    assert sorted(held) == [[1], [2]]
    assert not list(path.parent.glob("*.new"))


def test_what_does_not_come_to_a_beginning_leaves_no_trace(path: Path) -> None:
    with Journal.open(path, at_begin=True) as journal:
        journal.tick({"gate": "open"})
        with pytest.raises(Busy, match="held by process"):
            Journal.open(path)
    assert list(path.parent.iterdir()) == []
    with Journal.open(path, at_begin=True) as journal:
        name = journal.id
        journal.begin({})
        journal.append(answered(1))
    with Journal.open(path, at_begin=True) as journal:
        assert (journal.id, len(journal)) == (name, 1)


def test_a_fresh_journal_takes_the_place_of_the_old_one_at_its_beginning(path: Path) -> None:
    journal = Journal.open(path)
    journal.begin({})
    journal.mark(key(7), 7)
    journal.close()
    before = path.read_bytes()
    with Journal.open(path, fresh=True, at_begin=True) as journal:
        assert (len(journal), journal.possibly_charged) == (0, [])
    assert path.read_bytes() == before
    with Journal.open(path, readonly=True) as journal:
        assert [mark.index for mark in journal.possibly_charged] == [7]
    with Journal.open(path, fresh=True, at_begin=True) as journal:
        name = journal.id
        journal.begin({})
        assert journal.possibly_charged == []
    with Journal.open(path) as journal:
        assert (journal.id, len(journal.runs), journal.possibly_charged) == (name, 1, [])
    (aside,) = path.parent.glob("*.old-*")
    assert aside.read_bytes() == before


def test_who_waited_for_the_old_journal_gets_the_new_one_after_its_holder(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(answered(1))
    descriptor = acquire(path)
    waiting = subprocess.Popen([sys.executable, "-c", WAITING, path], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout
    assert waiting.stdout.readline() == "waits\n"

    descriptor = start_over(descriptor, path, 0.0, bytes(16), lock=True)
    identity = HEADER.match(os.pread(descriptor, 100, 0))
    with pytest.raises(Busy):
        Journal.open(path)
    os.close(descriptor)

    assert identity
    assert waiting.communicate()[0].strip() == identity[2].decode()


WAITING = """
import sys
from batch.clock import SystemClock
from batch.journal import Journal

class Clock(SystemClock):
    said = False

    def wait(self, event, seconds):
        if not self.said:
            print("waits", flush=True)
            self.said = True
        return super().wait(event, seconds)

print(Journal.open(sys.argv[1], wait=True, clock=Clock()).id.hex())
"""


def test_a_wait_can_be_ended(path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with Journal.open(path), pytest.raises(Busy, match="held by process"):
        Journal.open(path, wait=True, stopping=stopping)


def test_the_journal_is_for_its_owner_alone(path: Path) -> None:
    with Journal.open(path, stale=0) as journal:
        journal.append(answered(1))
        folder = journal.folder
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()} == {0o600}


def test_what_cannot_be_a_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("prompt\nhello\n")
    link = tmp_path / "link"
    link.symlink_to(table)
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "prompts.csv": "not a journal",
        "link": "symbolic link",
        "pipe": "not a regular file",
        "nowhere/journal": "No such file",
        ".": "Is a directory",
    }.items():
        with pytest.raises(JobError, match=words):
            Journal.open(tmp_path / name)
    with pytest.raises(JobError, match="not a journal"):
        Journal.open(table, fresh=True)
    with pytest.raises(JobError, match="no such journal"):
        Journal.open(tmp_path / "nothing", readonly=True)
    assert table.read_text() == "prompt\nhello\n"


def test_a_journal_of_a_later_format_is_refused_by_its_version(path: Path) -> None:
    path.write_bytes(b'{"journal":7,"what":"ever"}\n')
    for readonly in (True, False):
        with pytest.raises(JobError, match=r"format version 7, this program reads 1"):
            Journal.open(path, readonly=readonly)
    with Journal.open(path, fresh=True) as journal:
        assert len(journal) == 0


def test_a_file_system_without_locks_is_an_error_unless_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(JobError, match=r"no locks .*--no-lock"):
        Journal.open(path)
    Journal.open(path, lock=False).close()


def test_reading_only_changes_nothing(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append(answered(1))
    with path.open("ab") as file:
        file.write(b'{"k":"torn')
    before = {one: (one.stat().st_mtime_ns, one.read_bytes()) for one in path.parent.rglob("*") if one.is_file()}

    with Journal.open(path, readonly=True) as journal:
        assert contents(journal, range(3)).keys() == {1}
        assert journal.torn
        with pytest.raises(ValueError, match="reading only"):
            journal.append(answered(2))
        with pytest.raises(ValueError, match="reading only"):
            journal.mark(key(2), 2)

    assert {one: (one.stat().st_mtime_ns, one.read_bytes()) for one in path.parent.rglob("*") if one.is_file()} == before


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
def test_a_journal_that_goes_away_under_way_stops_the_run(path: Path, how: str) -> None:
    clock = Stepped()
    failures: list[object] = []
    journal = Journal.open(path, clock=clock)
    journal.on_failed = failures.append
    journal.append(answered(1))
    journal.flush()
    if how == "deleted":
        path.unlink()
    elif how == "replaced":
        (path.parent / "other").write_text("x")
        (path.parent / "other").replace(path)
    else:
        path.rename(path.parent / "elsewhere")
        clock.now += 1

    journal.append(answered(2))
    with pytest.raises(StorageError, match="deleted or replaced while the run went on"):
        journal.flush()
    with pytest.raises(StorageError, match="deleted or replaced"):
        journal.append(answered(3))
    assert failures == [journal.failed]
    journal.close()


def test_another_programs_bytes_in_the_journal_stop_the_run_and_stay(path: Path) -> None:
    journal = Journal.open(path)
    with path.open("ab") as file:
        file.write(b"hello\n")
    journal.append(answered(1))
    with pytest.raises(StorageError, match="another program writes to it"):
        journal.flush()
    journal.close()
    with pytest.raises(JournalDamaged):
        Journal.open(path)


def test_a_bug_in_what_is_told_ends_the_run_and_not_in_silence(path: Path) -> None:
    journal = Journal.open(path)
    stopped = threading.Event()
    journal.on_failed = lambda _: stopped.set()

    def durable(outcomes: list[Outcome]) -> None:
        raise RuntimeError("oh")

    journal.on_durable = durable
    journal.append(answered(1))
    stopped.wait()
    assert journal.failed and journal.failed.exit_code == 70
    assert "RuntimeError: oh" in str(journal.failed)
    journal.close()
    with Journal.open(path) as journal:
        assert contents(journal, [1]).keys() == {1}
