"""Readers and the answer parser against inputs that a fuzzer makes: a module a target, its law in `check`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

TARGETS = ("delimited", "jsonl", "batch_lines", "compression", "encodings", "answers", "bodies", "numerals", "conversion")
FOUND = Path(__file__).parent / "found"
"""Inputs that once broke a law, a folder a target; `tests/test_fuzz_findings.py` replays them."""


def inputs(target: str) -> Iterator[tuple[str, bytes]]:
    """A target's seeds, and what the fuzzer found against it, each with a name."""
    for number, seed in enumerate(import_module(f"{__name__}.{target}").SEEDS):
        yield f"seed {number}", seed
    for path in sorted((FOUND / target).glob("*")):
        yield path.name, path.read_bytes()
