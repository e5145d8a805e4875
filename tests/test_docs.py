"""What docs/cron.md and docs/pipelines.md show is what happens; cron, systemd and logrotate take the files of jobs/cron."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch.gateway.embedded import Embedded

from .conftest import known

ROOT = Path(__file__).parent.parent


def commands(page: str) -> list[tuple[str, str]]:
    """The commands of a page's console blocks, each with what it is shown to print."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, prints = part.partition("\n")
            found.append((command, prints))
    return found


def follow(page: str, home: Path) -> None:
    """Do what a page says, in one shell, as somebody with a new home directory."""
    (home / "bin").mkdir()
    for name, target in {"ails-batch": "-m batch", "python": ""}.items():
        (home / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {target} "$@"\n')
        (home / "bin" / name).chmod(0o755)
    environment = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    with subprocess.Popen(
        ["/bin/bash"],
        cwd=home,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        assert shell.stdin
        assert shell.stdout
        for command, prints in commands(page):
            shell.stdin.write(f'{command}\necho "<$?>"\n')
            shell.stdin.flush()
            said = ""
            while not (ended := re.search(r"<(\d+)>\n\Z", said)):
                line = shell.stdout.readline()
                assert line, said
                said += line
            # What is written for people on the way is not part of what a page shows.
            said = re.sub(r"^ails-batch: .* is written; .*\n", "", said[: ended.start()], flags=re.MULTILINE)
            assert (command, said, ended[1]) == (command, prints, "0")
        shell.stdin.close()


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


@needs_jq
def test_a_new_user_has_a_nightly_job_by_following_the_page(tmp_path: Path) -> None:
    follow("cron.md", tmp_path)
    assert (tmp_path / "nightly/answered.csv").read_text().count("\n") == 4


@needs_jq
def test_the_pipelines_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("answers.csv*", "report.txt"))
    follow("pipelines.md", tmp_path)
    assert "geography" in (tmp_path / "jobs/pipeline/report.txt").read_text()


def test_every_file_a_page_names_is_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


# The files for cron, systemd and logrotate


@pytest.fixture
def home(tmp_path: Path, echo: Embedded) -> Path:
    """A home directory with the folder that jobs/cron speaks of."""
    folder = tmp_path / "nightly"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/ails-batch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batch "$@"\n')
    (folder / ".venv/bin/ails-batch").chmod(0o755)
    (folder / "inbox.csv").write_text("prompt\nhello\n")
    (folder / "nightly.toml").write_text('input = "inbox.csv"\noutput = "answered.csv"\nlog_file = "nightly.log"\n')
    (folder / ".env").touch(0o600)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in known(echo).items()))
    return tmp_path


def test_the_crontab_line_runs_as_cron_runs_it(home: Path) -> None:
    lines = (ROOT / "jobs/cron/crontab").read_text().splitlines()
    (line,) = [line for line in lines if line and line[0].isdigit()]
    command = line.split(maxsplit=5)[5]
    assert "%" not in command
    environment = {"HOME": str(home), "LOGNAME": "you", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, cwd=home, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (home / "nightly/answered.csv").exists()


@pytest.mark.skipif(shutil.which("crontab") is None, reason="cron is not installed")
def test_cron_takes_the_crontab() -> None:
    """`-n` is Debian's dry run, `-T` cronie's."""
    tried = [subprocess.run(["crontab", flag, str(ROOT / "jobs/cron/crontab")], capture_output=True) for flag in ("-n", "-T")]
    assert 0 in [one.returncode for one in tried]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_service_and_timer(home: Path, tmp_path: Path) -> None:
    units = tmp_path / "units"
    shutil.copytree(ROOT / "jobs/cron", units, ignore=shutil.ignore_patterns("crontab", "*.conf"))
    (tmp_path / "run").mkdir(mode=0o700)
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *map(str, sorted(units.iterdir()))],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_logrotate_turns_the_log_of_a_run_under_way(home: Path) -> None:
    folder = home / "nightly"
    conf = folder / "logrotate.conf"
    conf.write_text((ROOT / "jobs/cron/logrotate.conf").read_text().replace("/home/you", str(home)))
    conf.chmod(0o600)
    (folder / "inbox.csv").write_text("prompt\n" + "".join(f"what is {row}?\n" for row in range(8)))
    with subprocess.Popen(
        [folder / ".venv/bin/ails-batch", "run", "nightly.toml", "--rpm", "120", "--quiet"], cwd=folder, start_new_session=True
    ) as run:
        log = folder / "nightly.log"
        while not log.exists() or '"row"' not in log.read_text():
            assert run.poll() is None
            time.sleep(0.02)
        rotate = ["logrotate", "--force", "--state", str(folder / "state"), str(conf)]
        done = subprocess.run(rotate, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert run.poll() is None
        assert run.wait(60) == 0
    old, new = (folder / "nightly.log.1").read_text(), log.read_text()
    assert (old + new).count('"event":"row"') == 8
    assert '"event":"start"' in old
    assert '"event":"end"' in new


def test_a_stop_by_systemd_reaches_the_run_alone(home: Path) -> None:
    """`KillMode=mixed` sends SIGTERM to the main process; the gateway inside goes on until the run has drained."""
    service = (ROOT / "jobs/cron/ails-batch-nightly.service").read_text()
    assert "KillMode=mixed" in service
    folder = home / "nightly"
    (folder / "inbox.csv").write_text("prompt\n" + "".join(f"what is {row}?\n" for row in range(8)))
    command = [
        sys.executable,
        "-m",
        "batch",
        "run",
        "nightly.toml",
        "--rpm",
        "120",
        "--endpoint",
        "embedded",
        "--max-tokens",
        "3",
    ]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        journal = folder / "answered.csv.journal"
        while not (journal.exists() and b"choices" in journal.read_bytes()):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        code = run.wait(60)
    assert f"SuccessExitStatus={code}\n" in service
