"""Bugs planted into a copy of the package, each of which the torture must notice; what ships has no switch for them."""

from __future__ import annotations

import compileall
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import calls, kills, tails
from .story import Arena, Try

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug: what it is, the text it replaces, and the fault that must bring it to light.

    Attributes:
        file: Relative to the package.
        old: Stands in it exactly once.
        law: What must be said to be broken; a copy that is broken in another way proves nothing.
    """

    name: str
    file: str
    old: str
    new: str
    fault: Callable[[Arena, int], Iterator[Try]]
    law: str


BUGS = (
    Bug(
        "counted as done before the sync",
        "journal/writer.py",
        """            write_all(self._descriptor, content)
            sync(self._descriptor)
            self._look(self.end + len(content))
            start, self.end = self.end, self.end + len(content)
            self.syncs += 1
            self._durable(entries, start)
""",
        """            write_all(self._descriptor, content)
            self._durable(entries, self.end)
            sync(self._descriptor)
            self._look(self.end + len(content))
            self.end = self.end + len(content)
            self.syncs += 1
""",
        calls.slow_failing_syncs,
        r"rows were (sent and not kept|counted as answered)",
    ),
    Bug(
        "torn tail not cut",
        "journal/opening.py",
        "    if sound == size:\n        return None\n",
        "    if sound <= size:\n        return None\n",
        tails.torn,
        r"a bad line stands before a good one|is \d+ bytes long instead of",
    ),
    Bug(
        "mark dropped",
        "journal/marks.py",
        "        if name in self._placed:\n            return\n        place =",
        "        return\n        place =",
        kills.killed,
        r"rows were sent twice and not named",
    ),
)


def copy(folder: Path) -> Path:
    """A copy of the package, so that work on the sources does not change what is tried."""
    shutil.copytree(ROOT / "batch", folder / "batch", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder, quiet=2)
    return folder


def plant(bug: Bug, folder: Path) -> Path:
    """A copy of the package with the bug in it.

    Raises:
        LookupError: The source is no longer what the bug expects; mend the bug.
    """
    copy(folder)
    path = folder / "batch" / bug.file
    source = path.read_text(encoding="utf-8")
    if source.count(bug.old) != 1:
        raise LookupError(f"batch/{bug.file} no longer holds the text that the planted bug {bug.name!r} replaces")
    path.write_text(source.replace(bug.old, bug.new), encoding="utf-8")
    compileall.compile_dir(folder, quiet=2)
    return folder
