"""Settings from the environment or a `.env`, and secrets from files that nobody else can read."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from .errors import JobError

DOTENV = Path(".env")
"""Looked up in the working directory, nowhere above it."""

_LONGEST = 65_536


def setting(name: str) -> str | None:
    """A setting by its name: from the environment, else from `.env`; one that is empty counts as not set.

    Raises:
        JobError: The `.env` that holds it can be read by others, or cannot be read at all.
    """
    if value := os.environ.get(name):
        return value
    if not DOTENV.is_file():
        return None
    text, mode = _read(DOTENV)
    from dotenv import dotenv_values  # here, because most runs have no .env

    # Without interpolation, so that a `$` in a secret stays one.
    value = dotenv_values(stream=io.StringIO(text), interpolate=False).get(name)
    if value:
        _refuse_open(DOTENV, mode)
    return value or None


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
