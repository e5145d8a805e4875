"""How this project is run: the installed command, with everything on: signing, pace, journal, ordered output."""

from __future__ import annotations

from pathlib import Path

from . import environments

CREDENTIALS = {"AILS_API_KEY": "bench-key", "AILS_SECRET": "bench-secret"}
MODEL = "bench-model"


def arguments(source: Path, output: Path, url: str, concurrency: int | str, *options: str) -> list[str]:
    """What a person would type after `ails-batch`; an empty `concurrency` leaves the option out."""
    return [
        *("run", str(source), "-o", str(output), "--endpoint", url, "--protocol", "ails", "--model", MODEL),
        *("--prompt-column", "prompt", *(("--concurrency", str(concurrency)) if concurrency else ()), *options),
    ]


def command(source: Path, output: Path, url: str, concurrency: int | str, *options: str) -> list[str]:
    """`ails-batch run …`."""
    program = environments.ours().with_name("ails-batch")
    return [str(program), *arguments(source, output, url, concurrency, *options)]
