"""A virtual environment for each contestant, outside the tree, made when it is first needed and again when its pins change."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from functools import cache as cache_once
from pathlib import Path
from tempfile import TemporaryDirectory

from . import Missing
from .rows import cache

HERE = Path(__file__).parent
QUIET = ("--quiet", "--disable-pip-version-check")
REPOSITORY = HERE.parent.parent


def _made(name: str, fingerprint: str, arguments: list[str]) -> Path:
    """The environment's python; `arguments` are pip's."""
    folder = cache() / "environments" / name
    stamp, python = folder / ".fingerprint", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == fingerprint:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"setting up {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", *QUIET, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{name} cannot be installed: {done.stderr.strip()[-400:]}")
    stamp.write_text(fingerprint)
    return python


def pinned(name: str, pins: Path) -> Path:
    """The python of an environment that holds exactly what the file pins."""
    fingerprint = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    return _made(name, fingerprint, ["--no-deps", "-r", str(pins)])


@cache_once
def ours() -> Path:
    """The python of an environment with this tree installed as it was when this was first called, without any extra."""
    settings, locked = REPOSITORY / "pyproject.toml", REPOSITORY / "requirements" / "dev.txt"
    pins = cache() / "environments" / "ours.txt"
    pins.parent.mkdir(parents=True, exist_ok=True)
    pins.write_text("\n".join(re.findall(r"^[\w.-]+==[\w.]+(?: ; [^\\\n]+)?", locked.read_text(), re.MULTILINE)) + "\n")
    fingerprint = hashlib.sha256(settings.read_bytes() + locked.read_bytes() + sys.version.encode()).hexdigest()
    python = _made("ours", fingerprint, ["-c", str(pins), str(REPOSITORY)])
    sources = hashlib.sha256()
    for path in sorted((REPOSITORY / "batch").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            sources.update(str(path.relative_to(REPOSITORY)).encode() + path.read_bytes())
    stamp = python.parent.parent / ".sources"
    if not stamp.exists() or stamp.read_text() != sources.hexdigest():
        with TemporaryDirectory() as folder:
            make = [
                sys.executable,
                "-m",
                "pip",
                "wheel",
                *QUIET,
                "--no-deps",
                "--no-build-isolation",
                "-w",
                folder,
                str(REPOSITORY),
            ]
            subprocess.run(make, check=True)
            wheel = str(next(Path(folder).glob("*.whl")))
            subprocess.run([str(python), "-m", "pip", "install", *QUIET, "--no-deps", "--force-reinstall", wheel], check=True)
        stamp.write_text(sources.hexdigest())
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed beside a python."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format=freeze"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(line.split("==", 1) for line in lines if "==" in line)
