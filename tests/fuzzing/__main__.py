"""`python -m tests.fuzzing [TARGET …] --seconds N`: look for inputs that break a law, N seconds a target (needs atheris).

An input that breaks a law is told and kept at once, one for each place in the code; it belongs into found/, with the mend. The
inputs that reached new code stay in the cache for the next time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from . import TARGETS, inputs

MEMORY_MIB = 600
"""The most that a process may have resident: a reader that grows with what its input claims passes this."""

LONGEST = 4096
"""Bytes of an input."""

SLOWEST = 20
"""Seconds that one input may take."""


def kept(name: str) -> Path:
    """A folder for inputs that stays from one run to the next."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ails-batch-fuzzing" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fuzz(target: str, seconds: int) -> None:
    """Run one target in this process, which does not come back from it."""
    import atheris  # type: ignore[import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["batch"]):
        law = import_module(f"tests.fuzzing.{target}")
    folder, broken = kept(target), kept(f"{target}-broken")
    for _, data in inputs(target):
        (folder / sha256(data).hexdigest()[:40]).write_bytes(data)
    words = folder.with_name(f"{target}.words")
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in law.WORDS))
    told: set[str] = set()

    def check(data: bytes) -> None:
        try:
            law.check(data)
        except Exception as error:
            *_, where = traceback.extract_tb(error.__traceback__)
            if (place := f"{type(error).__name__} {where.filename}:{where.lineno}") not in told:
                told.add(place)
                path = broken / sha256(data).hexdigest()[:12]
                path.write_bytes(data)
                traceback.print_exc()
                print(f"{path}: {data!r}", file=sys.stderr, flush=True)

    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={SLOWEST}"]
    atheris.Setup(
        [sys.argv[0], *limits, f"-dict={words}", f"-artifact_prefix={broken}/", "-print_final_stats=1", str(folder)], check
    )
    atheris.Fuzz()


def main() -> int:
    """Run the targets that were asked for, one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help=f"all by default: {' '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        fuzz(options.target[0], options.seconds)
    failures = 0
    for target in options.target or TARGETS:
        before = set(kept(f"{target}-broken").iterdir())
        command = [sys.executable, "-m", "tests.fuzzing", target, "--seconds", str(options.seconds), "--here"]
        failures += subprocess.run(command, check=False).returncode != 0 or set(kept(f"{target}-broken").iterdir()) > before
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
