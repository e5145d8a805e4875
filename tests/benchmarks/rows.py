"""The inputs: as many rows as a scenario asks for, the same bytes on every machine, kept in the cache."""

from __future__ import annotations

import os
from pathlib import Path

WORDS = (
    "please read the following report from the night shift and say in two short sentences what went wrong, who noticed it "
    "first, which of the machines was concerned, and what should be done about it before the next shift begins; leave out "
    "every name and every date that is not needed"
)
PROMPT_BYTES = 300
SHORT_BYTES = 60
"""What a prompt has in inputs of more than a million rows, so that ten million fit on a disk."""


def cache() -> Path:
    """Where everything goes that outlives a run and does not belong into the tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ails-batch-benchmarks"


def prompt(number: int, size: int) -> str:
    """The prompt of one row: unique, ASCII, without quotes, backslashes or commas that a CSV would have to quote."""
    return f"Row {number:08d}: {WORDS.replace(',', ' ')}"[:size]


def rows(count: int, suffix: str = "jsonl") -> Path:
    """A file of `count` rows with the columns ``id`` and ``prompt``, made at the first call."""
    path = cache() / "rows" / f"{count}.{suffix}"
    if path.exists():
        return path
    size = PROMPT_BYTES if count <= 1_000_000 else SHORT_BYTES
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        if suffix == "csv":
            file.write("id,prompt\n")
        for number in range(count):
            text = prompt(number, size)
            file.write(f"{number},{text}\n" if suffix == "csv" else f'{{"id": {number}, "prompt": "{text}"}}\n')
    draft.rename(path)
    return path
