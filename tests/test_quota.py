"""Jobs of one machine that share one rate."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.errors import JobError, Throttled
from batch.pace.gate import Gate
from batch.pace.line import Line
from batch.pace.rate import MARGIN, Rate
from batch.pace.window import Window
from batch.quota import CHECK, STATE, Quota, place
from batch.records import Hints

SENDER = """
import sys, time
from pathlib import Path
from batch.quota import Quota
quota = Quota(Path(sys.argv[1]), rpm=float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + float(sys.argv[3])
while (at := quota.reserve(time.monotonic()).at) < end:
    time.sleep(max(0.0, at - time.monotonic()))
    print(at, flush=True)
"""


def senders(file: Path, number: int, rpm: float, seconds: float) -> list[subprocess.Popen[str]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SENDER, str(file), str(rpm), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(number)
    ]
    for one in started:
        assert one.stdout and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin
        one.stdin.write("\n")
        one.stdin.flush()
    return started


def times(one: subprocess.Popen[str]) -> list[float]:
    out, _ = one.communicate()
    return [float(line) for line in out.split()]


def test_two_jobs_share_600_a_minute_and_both_get_on(tmp_path: Path) -> None:
    first, second = (times(one) for one in senders(tmp_path / "quota", 2, rpm=600, seconds=2.5))
    together = sorted(first + second)
    assert min(later - earlier for earlier, later in pairwise(together)) > 0.1  # never two within a tenth of a second
    assert min(len(first), len(second)) >= 3
    assert len(together) <= 25


def test_one_rate_is_shared_by_five_at_speed(tmp_path: Path) -> None:
    each = [times(one) for one in senders(tmp_path / "quota", 5, rpm=30_000, seconds=1.5)]
    together = sorted(at for one in each for at in one)
    burst = 500 * 0.01
    for start in range(0, len(together), 10):
        within = sum(together[start] <= at < together[start] + 0.2 for at in together)
        assert within <= burst + 0.2 * 500 + 1
    assert min(map(len, each)) > 0


def test_a_killed_job_costs_only_what_it_had_booked(tmp_path: Path) -> None:
    victim, other = senders(tmp_path / "quota", 2, rpm=6000, seconds=1.5)
    assert victim.stdout
    victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert len(times(other)) >= 20


def test_a_job_stopped_while_it_holds_the_lock_does_not_stop_the_others(tmp_path: Path) -> None:
    file = tmp_path / "quota"
    quota = Quota(file, rpm=60)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert [round(quota.reserve(0.0).at * MARGIN, 6) for _ in range(5)] == [0, 1, 2, 3, 4]
        holder.kill()
    assert quota.reserve(0.0).at > 4


def test_the_first_and_the_second_job_are_as_one(tmp_path: Path) -> None:
    alone, first, second = Rate(60, 6000), Quota(tmp_path / "q", 60, 6000), Quota(tmp_path / "q", 60, 6000)
    asked = [(0.0, 100), (0.1, 900), (0.2, 50), (7.0, 6000), (7.0, 1), (300.0, 10)]
    turns = [first, second, second, first, second, first]
    assert [turn.reserve(now, 1, n).at for turn, (now, n) in zip(turns, asked, strict=True)] == [
        alone.reserve(now, 1, n).at for now, n in asked
    ]


def test_what_one_job_settles_helps_the_other(tmp_path: Path) -> None:
    first, second = (Quota(tmp_path / "q", tpm=6000, burst=60) for _ in range(2))
    first.reserve(0.0, 1, 5900)
    first.settle(5900, 1000)
    assert second.reserve(0.0, 1, 4900).at == 0.0
    first.refund(1, 100)
    assert second.reserve(0.0, 1, 1000).at == pytest.approx(8.2, abs=0.01)


def test_a_job_that_is_stopped_gives_its_time_back(tmp_path: Path) -> None:
    first, second = Quota(tmp_path / "q", rpm=1), Quota(tmp_path / "q", rpm=1)
    first.reserve(0.0)
    booked = first.reserve(0.0)
    first.undo(booked)
    assert second.reserve(0.0) == booked


def test_a_time_that_cannot_be_given_back_is_taken_up_again(tmp_path: Path) -> None:
    first, second = Quota(tmp_path / "q", rpm=60), Quota(tmp_path / "q", rpm=60)
    first.reserve(0.0)
    mine = [first.reserve(0.0), first.reserve(0.0)]
    theirs = second.reserve(0.0)
    first.undo(mine[0])
    assert [first.reserve(0.5) for _ in mine] == mine
    assert first.reserve(0.5).at > theirs.at
    first.undo(mine[1])
    assert first.reserve(60.0).at >= 60.0  # its time has passed: it is not saved up
    first.close()


def test_what_one_job_is_told_to_wait_all_wait(tmp_path: Path) -> None:
    first, second = Quota(tmp_path / "q", rpm=60), Quota(tmp_path / "q", rpm=60)
    first.reserve(0.0)
    booked = second.reserve(0.0)
    first.rest(30.0)
    first.rest(20.0)
    second.undo(booked)
    after = second.reserve(0.5)
    assert (after.at, after.binds) == (30.0, "rpm")
    second.undo(after)
    assert first.reserve(1.0).at == 30.0
    assert second.reserve(1.0).at == pytest.approx(30 + 1 / MARGIN)
    assert second.reserve(40.0).at == 40.0


def test_a_gate_that_closes_for_a_time_the_server_named_closes_for_all_jobs(tmp_path: Path) -> None:
    first, second = Quota(tmp_path / "q", rpm=60), Quota(tmp_path / "q", rpm=60)
    line = Line(first, Gate(1800.0, Random(7)), Window(1))
    ticket = line.join(0)
    line.advance(0.0)
    assert line.go(0.0, ticket)
    line.failed(0.5, ticket, Throttled("slow down", status=429, hints=Hints(retry_after=30.0)))
    assert 30.0 <= second.reserve(1.0).at <= 34.0


def test_a_time_kept_for_later_is_no_way_around_the_rest(tmp_path: Path) -> None:
    first, second = Quota(tmp_path / "q", rpm=60), Quota(tmp_path / "q", rpm=60)
    first.reserve(0.0)
    mine = first.reserve(0.0)
    second.reserve(0.0)
    first.undo(mine)
    second.rest(30.0)
    assert first.reserve(0.5).at == 30.0


def test_each_job_takes_its_own_share_of_the_time(tmp_path: Path) -> None:
    fast, slow = Quota(tmp_path / "q", rpm=600), Quota(tmp_path / "q", rpm=60)
    at = [quota.reserve(0.0).at * MARGIN for quota in (fast, slow, fast, slow)]
    assert at == pytest.approx([0.0, 0.1, 1.1, 1.2])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["reserve", "undo", "send", "settle"]), st.floats(0, 1.5)), max_size=60
    )
)
def test_no_window_holds_more_than_burst_and_rate_allow(tmp_path: Path, steps: list[tuple[int, str, float]]) -> None:
    """The law of the cell rate algorithm, across jobs that book, take back and go in any order."""
    file = tmp_path / "law"
    file.unlink(missing_ok=True)
    jobs = [Quota(file, rpm=60) for _ in range(3)]
    open_: list[list] = [[], [], []]  # type: ignore[type-arg]
    sent: list[float] = []
    now = 0.0
    for who, what, pause in steps:
        now += pause
        if what == "reserve":
            open_[who].append(jobs[who].reserve(now))
        elif what == "undo" and (ahead := [one for one in open_[who] if one.at > now]):
            # Those whose time has come go before anything is taken back, as `Line` has it.
            sent += [one.at for one in open_[who] if one.at <= now]
            jobs[who].undo(ahead[0])
            open_[who].clear()
        elif what == "send":
            sent += [one.at for one in open_[who] if one.at <= now]
            open_[who] = [one for one in open_[who] if one.at > now]
    sent += [one.at for job in open_ for one in job]
    sent.sort()
    for i, first in enumerate(sent):
        for j in range(i, len(sent)):
            assert j - i + 1 <= 1 + (sent[j] - first) * MARGIN + 1e-6
    for job in jobs:
        job.close()


def test_another_boot_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "q"
    Quota(file, rpm=1).reserve(1e6)
    content = bytearray(file.read_bytes())
    assert Quota(file, rpm=1).reserve(5.0).at > 1e6
    content[8:24] = bytes(16)
    content[STATE.size :] = CHECK.pack(zlib.crc32(content[: STATE.size]))
    file.write_bytes(content)
    assert Quota(file, rpm=1).reserve(5.0).at == 5.0


@pytest.mark.parametrize("keep", range(0, 84, 15))
def test_a_torn_state_begins_anew(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "q"
    quota = Quota(file, rpm=60)
    quota.reserve(0.0)
    whole = file.read_bytes()
    assert len(whole) == 84
    file.write_bytes(whole[:keep])
    assert quota.reserve(0.0).at == 0.0


def test_a_file_tidied_away_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "q"
    first = Quota(file, rpm=60)
    file.unlink()
    first.reserve(0.0)
    assert Quota(file, rpm=60).reserve(0.0).at > 1


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    Quota(tmp_path / "new/q", rpm=60)
    assert (tmp_path / "new/q").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary")
    with pytest.raises(JobError, match="is not a quota's file; name another one"):
        Quota(file, rpm=60)
    assert file.read_text() == "dear diary"
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(JobError, match="is a symbolic link"):
        Quota(tmp_path / "link", rpm=60)
    with pytest.raises(JobError, match="is not a quota's file"):
        Quota(Path("/dev/null"), rpm=60)


def test_a_quota_without_a_limit_has_nothing_to_share(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="say how much with rpm or tpm"):
        Quota(tmp_path / "q")


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(JobError, match=r"quota /proc/q: .*; name a file that can be written"):
        Quota(Path("/proc/q"), rpm=60)


def test_a_name_means_the_same_file_in_every_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = place("openai")
    for name in ("HOME", "XDG_STATE_HOME", "USER", "LOGNAME"):
        monkeypatch.setenv(name, "/nonexistent")
        assert place("openai") == usual
        monkeypatch.delenv(name)
        assert place("openai") == usual
    assert usual == Path(pwd.getpwuid(os.getuid()).pw_dir, ".local/state/ails-batch/quota/openai")
    assert place("./here") == Path("here")


@pytest.mark.parametrize("name", ["", "..", "a b", "-x", "ключ", "a\n", "x" * 101])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="is no name"):
        place(name)


def test_what_comes_home_after_the_end_writes_into_no_other_file(tmp_path: Path) -> None:
    quota = Quota(tmp_path / "q", tpm=600)
    quota.reserve(0.0, 1, 10)
    quota.close()
    with (tmp_path / "other").open("wb") as other:  # gets the number that the quota's file had
        other.write(b"hello")
        other.flush()
        quota.settle(10, 5)
    assert (tmp_path / "other").read_bytes() == b"hello"
