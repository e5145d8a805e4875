"""What came out, as a table, and its place in docs/reliability.md."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from .story import Try

PAGE = Path(__file__).parent.parent.parent / "docs/reliability.md"
BEGIN = "<!-- torture: begin -->"
END = "<!-- torture: end -->"


@dataclass(slots=True)
class Line:
    """One kind of fault.

    Attributes:
        name: What `--only` calls it.
        words: What it is.
        skipped: Why it did not run, or "".
    """

    name: str
    words: str
    skipped: str = ""
    tries: list[Try] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def broken(self) -> list[str]:
        """The laws that were broken, in words."""
        return [words for one in self.tries for words in one.broken]

    def codes(self) -> str:
        """The exit codes, with how often each came."""
        return ", ".join(f"{code} ×{count}" for code, count in sorted(Counter(one.code for one in self.tries).items()))


def table(lines: list[Line], bugs: list[tuple[str, bool, str]], seed: int, seconds: float) -> str:
    """Markdown."""
    tried = sum(len(line.tries) for line in lines)
    lost = sum(one.lost for line in lines for one in line.tries)
    machine = f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    text = [
        f"{date.today().isoformat()}, {machine}, seed {seed}: {tried} tries in {seconds / 60:.0f} minutes, {lost} rows lost.",
        "",
        "| fault | tries | rows lost | sent again, most in a try | exit codes | repeat it |",
        "|---|--:|--:|--:|---|---|",
    ]
    for line in lines:
        repeat = f"`python -m tests.torture --only {line.name} --seed {seed}`"
        if line.skipped:
            text.append(f"| {line.words} | skipped | | | {line.skipped} | {repeat} |")
            continue
        lost, again = sum(one.lost for one in line.tries), max((one.again for one in line.tries), default=0)
        text.append(f"| {line.words} | {len(line.tries)} | {lost} | {again} | {line.codes()} | {repeat} |")
    text += ["", "| planted bug | caught | by |", "|---|---|---|"]
    text += [f"| {name} | {'yes' if caught else '**no**'} | {by} |" for name, caught, by in bugs]
    return "\n".join(text)


def write(text: str) -> None:
    """Put a table into the page, between its markers."""
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE} has lost its markers")
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
