"""Secrets from the system keyring, through the installed command; the keyring is a file with a real backend in front of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch import settings
from batch.errors import JobError
from batch.gateway.embedded import Embedded
from batch.settings import setting

from .conftest import Ended, known

COMMAND = Path(sys.executable).with_name("ails-batch")
CANARY = "canary-2b7e151628aed2a6abf7158809cf4f3c"

BACKEND = '''
import json, os, subprocess, sys
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

HERE = Path(__file__).parent
ENTRIES = HERE / "entries.json"


class Filed(KeyringBackend):
    """Entries in a file; every look into it is written down."""

    priority = 1

    def get_password(self, service, username):
        with (HERE / "asked").open("a") as file:
            print(username, file=file)
        return json.loads(ENTRIES.read_text()).get(f"{service}/{username}")

    def set_password(self, service, username, password):
        entries = json.loads(ENTRIES.read_text())
        ENTRIES.write_text(json.dumps(entries | {f"{service}/{username}": password}))


class Talking(Filed):
    """Reads standard input, as those do that ask for a password of their own, and warns."""

    def get_password(self, service, username):
        sys.stdin.read()
        print("a word of the backend's own", file=sys.stderr)
        return super().get_password(service, username)


class Locked(Filed):
    def get_password(self, service, username):
        secret = super().get_password(service, username)
        try:
            raise ValueError(secret)
        except ValueError:
            raise KeyringLocked(f"it was\\n{secret}")


class Waiting(Filed):
    """Asks somebody who is not there, by a program that outlives it."""

    def get_password(self, service, username):
        somebody = subprocess.Popen(["sleep", "1000"])
        (HERE / "somebody").write_text(str(somebody.pid))
        somebody.wait()
'''


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    """The keyring's own folder."""
    folder = tmp_path / "keyring"
    folder.mkdir()
    (folder / "a_keyring.py").write_text(BACKEND)
    (folder / "entries.json").write_text("{}")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where runs happen."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "in.csv").write_text("id,prompt\n007,hello\n008,world\n")
    return folder


def environment(keyring: Path, backend: str = "a_keyring.Filed") -> dict[str, str]:
    return {"PYTHONPATH": str(keyring), "PYTHON_KEYRING_BACKEND": backend}


def put(keyring: Path, **entries: str) -> None:
    (keyring / "entries.json").write_text(json.dumps({f"ails-batch/{name}": value for name, value in entries.items()}))


def asked(keyring: Path) -> list[str]:
    return (keyring / "asked").read_text().split() if (keyring / "asked").exists() else []


def run(home: Path, env: dict[str, str], *arguments: str, stdin: str = "") -> Ended:
    command = [str(COMMAND), *(arguments or ("run", "in.csv", "-o", "out.csv", "--log-file", "run.log"))]
    given = {"PATH": os.environ["PATH"], "HOME": str(home), **env}
    done = subprocess.run(command, cwd=home, env=given, input=stdin, capture_output=True, text=True)
    return Ended(done.returncode, done.stdout, done.stderr)


def open_settings(echo: Embedded) -> dict[str, str]:
    """Address and model alone."""
    return {name: value for name, value in known(echo).items() if name in settings.OPEN}


def test_a_run_is_signed_with_what_the_keyring_holds_and_shows_nothing_of_it(home: Path, keyring: Path, echo: Embedded) -> None:
    secrets = {name: value for name, value in known(echo).items() if name not in settings.OPEN}
    put(keyring, **secrets)
    ended = run(home, {**open_settings(echo), **environment(keyring)})
    assert (ended.code, ended.err) == (0, "")
    assert (ended.summary["ok"], ended.summary["requests"]) == (2, 2)
    assert sorted(asked(keyring)) == ["AILS_API_KEY", "AILS_SECRET"]  # once each, and nothing that is no secret
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file()).decode("utf-8", "replace")
    for secret in secrets.values():
        assert secret not in written + ended.out + ended.err


def test_a_wrong_secret_in_the_keyring_is_refused_as_any_other(home: Path, keyring: Path, echo: Embedded) -> None:
    put(keyring, AILS_API_KEY=echo.credentials.api_key, AILS_SECRET=CANARY)
    ended = run(home, {**open_settings(echo), **environment(keyring)})
    assert (ended.code, ended.summary["pending"]) == (4, 2)
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert CANARY.encode() not in written + ended.out.encode() + ended.err.encode()


def test_names_of_ones_own_are_names_in_the_keyring(home: Path, keyring: Path, echo: Embedded) -> None:
    put(keyring, HOUSE_KEY=echo.credentials.api_key, HOUSE_SECRET=echo.credentials.secret)
    (home / "one.toml").write_text(
        f'input = "in.csv"\noutput = "out.csv"\nmodel = "m"\n[endpoint]\nurl = "{echo.url}"\n'
        'api_key_env = "HOUSE_KEY"\nsecret_env = "HOUSE_SECRET"\n'
    )
    assert "# credentials: found" in run(home, environment(keyring), "job", "show", "one.toml").out
    assert run(home, environment(keyring), "run", "one.toml").summary["ok"] == 2


def test_the_keyring_is_the_last_place(home: Path, keyring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(settings, "_kept", {})
    for name, value in environment(keyring).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("A_SECRET", raising=False)
    assert setting("A_SECRET") is None
    put(keyring, A_SECRET="keyring")
    (home / ".env").touch(0o600)
    (home / ".env").write_text("A_SECRET=file\n")
    assert setting("A_SECRET") == "file"
    monkeypatch.setenv("A_SECRET", "environment")
    assert setting("A_SECRET") == "environment"
    assert len(asked(keyring)) == 1
    monkeypatch.delenv("A_SECRET")
    (home / ".env").unlink()
    assert [setting("A_SECRET"), setting("A_SECRET")] == ["keyring", "keyring"]
    assert len(asked(keyring)) == 2  # found once, it holds for the life of the process


def test_without_a_keyring_a_secret_is_not_set(home: Path, echo: Embedded, keyring: Path) -> None:
    for backend in ("keyring.backends.fail.Keyring", "keyring.backends.null.Keyring", "a_keyring.Filed"):
        ended = run(home, {**open_settings(echo), **environment(keyring, backend)})
        assert ended.code == 2
        assert "set AILS_API_KEY" in ended.err
        assert "keyring failed" not in ended.err


def test_without_the_extra_nothing_is_different(home: Path, echo: Embedded) -> None:
    code = "import sys; sys.modules['keyring'] = None; from batch.__main__ import main; main()"
    command = [sys.executable, "-c", code, "run", "in.csv", "-o", "out.csv"]
    for given, said in ((known(echo), 0), (open_settings(echo), 2)):
        done = subprocess.run(command, cwd=home, env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True)
        assert done.returncode == said, done.stderr


@pytest.mark.parametrize(
    ("backend", "words"),
    [("a_keyring.Locked", "KeyringLocked"), ("a_keyring.Misspelt", "AttributeError"), ("none.Such", "ModuleNotFoundError")],
)
def test_a_keyring_that_fails_says_so_and_nothing_more(
    backend: str, words: str, home: Path, keyring: Path, echo: Embedded
) -> None:
    put(keyring, AILS_API_KEY=CANARY)
    ended = run(home, {**open_settings(echo), **environment(keyring, backend)})
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert (
        f"AILS_API_KEY: the system keyring failed ({words}); unlock or mend it, or set AILS_API_KEY in the environment" in line
    )
    env = {**open_settings(echo), **environment(keyring, backend), "AILS_DEBUG": "1"}
    assert CANARY not in ended.err + ended.out + run(home, env).err


def test_a_keyring_is_not_asked_where_it_is_not_needed(home: Path, keyring: Path, echo: Embedded) -> None:
    assert run(home, {**known(echo), **environment(keyring, "a_keyring.Locked")}).code == 0
    assert asked(keyring) == []


def test_a_keyring_that_never_answers_does_not_hold_a_run_up(
    home: Path, keyring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(settings, "UNLOCKING", 2.0)
    for name, value in environment(keyring, "a_keyring.Waiting").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("A_SECRET", raising=False)
    with pytest.raises(JobError, match=r"A_SECRET: the system keyring said nothing for 2 s, it may be locked"):
        setting("A_SECRET")
    if (keyring / "somebody").exists():
        os.kill(int((keyring / "somebody").read_text()), signal.SIGKILL)


def test_a_backend_that_reads_standard_input_takes_no_row(home: Path, keyring: Path, echo: Embedded) -> None:
    put(keyring, AILS_API_KEY=echo.credentials.api_key, AILS_SECRET=echo.credentials.secret)
    arguments = ["run", "-", "--input-format", "csv", "-o", "-"]
    rows = (home / "in.csv").read_text()
    ended = run(home, {**open_settings(echo), **environment(keyring, "a_keyring.Talking")}, *arguments, stdin=rows)
    assert (ended.code, ended.err) == (0, "")
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == ["007", "008"]


def test_what_the_page_says_puts_a_secret_into_the_keyring(home: Path, keyring: Path, echo: Embedded) -> None:
    page = (Path(__file__).parent.parent / "docs/jobs.md").read_text()
    commands = re.findall(r"^\$ (python -m keyring set .*)$", page, re.MULTILINE)
    assert [command.split()[-1] for command in commands] == ["AILS_API_KEY", "AILS_SECRET"]
    env = environment(keyring)
    for command in commands:
        (secret,) = (value for name, value in known(echo).items() if name == command.split()[-1])
        subprocess.run([sys.executable, *command.split()[1:]], env={**os.environ, **env}, input=secret, text=True, check=True)
    assert run(home, {**open_settings(echo), **env}).code == 0
