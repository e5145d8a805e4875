"""Settings from the environment, a `.env` or the system keyring, and secrets from files that nobody else can read."""

from __future__ import annotations

import io
import os
import re
import signal
import stat
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import Interrupted, JobError

DOTENV = Path(".env")
"""Looked up in the working directory, nowhere above it."""

SERVICE = "ails-batch"
"""What our entries in the keyring are filed under; the user name of each is the setting's."""

OPEN = frozenset({"AILS_BASE_URL", "AILS_MODEL", "OPENAI_BASE_URL"})
"""Settings that are no secrets: the keyring is not asked for them."""

UNLOCKING = 30.0
"""Seconds that the keyring gets for an answer; a locked one may be asking its owner for a password."""

_LONGEST = 65_536

_INSTEAD = "unlock or mend it, or set {} in the environment or a .env"

_kept: dict[str, str] = {}


def setting(name: str) -> str | None:
    """A setting by its name: from the environment, else from `.env`, else, a secret, from the keyring.

    One that is empty counts as not set. The keyring is asked where the extra `keyring` is installed, and what it said holds for
    the life of the process, as its environment does.

    Raises:
        JobError: The `.env` that holds it can be read by others or not at all; the keyring stays locked or fails.
    """
    if value := os.environ.get(name) or _from_dotenv(name) or _kept.get(name):
        return value
    if name in OPEN or find_spec("keyring") is None:
        return None
    value = _from_keyring(name)
    if value:
        _kept[name] = value
    return value


def _from_dotenv(name: str) -> str | None:
    if not DOTENV.is_file():
        return None
    text, mode = _read(DOTENV)
    from dotenv import dotenv_values  # here, because most runs have no .env

    # Without interpolation, so that a `$` in a secret stays one.
    value = dotenv_values(stream=io.StringIO(text), interpolate=False).get(name)
    if value:
        _refuse_open(DOTENV, mode)
    return value or None


def _from_keyring(name: str) -> str | None:
    """What the keyring's own command says: a process can be ended where a backend would wait for ever."""
    import subprocess  # here, because most runs have their secrets in the environment

    command = [sys.executable, "-P", "-X", "utf8", "-W", "ignore", "-m", "keyring", "get", SERVICE, name]
    # Without standard input, which holds our rows.
    with subprocess.Popen(  # noqa: S603 (this very Python, and the name of a setting)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as asked:
        try:
            found, said = asked.communicate(timeout=UNLOCKING)
        except subprocess.TimeoutExpired:
            asked.kill()
            raise JobError(
                f"{name}: the system keyring said nothing for {UNLOCKING:.0f} s, it may be locked; {_INSTEAD.format(name)}"
            ) from None
    if asked.returncode == -signal.SIGINT:
        raise Interrupted(signal.SIGINT)
    if not asked.returncode:
        return found.removesuffix("\n") or None
    # Only the type: what else a backend says of its failure may hold what it was asked for.
    raised = re.search(r"^([\w.]+)(?::.*)?$", said.rpartition("Traceback")[2], re.MULTILINE)
    failure = raised[1].rpartition(".")[2] if raised else f"exit code {asked.returncode}"
    if failure in ("NoKeyringError", "exit code 1"):  # no keyring, or nothing of this name in it
        return None
    raise JobError(f"{name}: the system keyring failed ({failure}); {_INSTEAD.format(name)}")


def secret_file(path: str | os.PathLike[str]) -> str:
    """A secret from a file of mode 0600, without the line's end.

    Raises:
        JobError: No such file, readable by others, not UTF-8, or empty. The text never shows what is in it.
    """
    text, mode = _read(Path(path))
    _refuse_open(Path(path), mode)
    secret = text.strip("\r\n")
    if not secret:
        raise JobError(f"{path}: the file is empty; write the secret into it, on one line")
    return secret


def _read(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > _LONGEST:
        raise JobError(f"{path}: too long for a file of secrets (over {_LONGEST} bytes)")
    try:
        return content.decode("utf-8-sig"), mode
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 at byte {error.start + 1}") from None


def _refuse_open(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise JobError(f"{path}: mode {stat.S_IMODE(mode):04o} lets others read it; run: chmod 600 {path}")
