"""How this project is run: the installed command, whole, with everything switched on (signing, pace, journal, ordered output)."""

from __future__ import annotations

from pathlib import Path

from . import environments

CREDENTIALS = {"AILS_API_KEY": "bench-key", "AILS_SECRET": "bench-secret"}
MODEL = "bench-model"


def command(source: Path, output: Path, url: str, concurrency: int | str, *options: str) -> list[str]:
    """`ails-batch run …` as a person would type it."""
    return [
        *(str(environments.ours().with_name("ails-batch")), "run", str(source), "-o", str(output)),
        *("--endpoint", url, "--protocol", "ails", "--model", MODEL, "--prompt-column", "prompt"),
        *("--concurrency", str(concurrency), *options),
    ]
