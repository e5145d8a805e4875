"""`python -m tests.benchmarks [SCENARIO …]`: measure, keep the figures as JSON, and write docs/performance.md from them."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
from pathlib import Path

from . import Missing, environments
from .contestants import BY_NAME, FLOOR, Contestant
from .limits import TRIALS, trial
from .results import FOLDER, Record, save
from .rows import cache
from .sizes import SIZES, resume
from .throughput import RACES, race

SCENARIOS = (*RACES, *TRIALS, *SIZES, "resume")
TOLD = ("controller", "journal", "formats")
"""Modules beside this one that print their own tables; what they print is kept and shown as it is."""


def told(name: str) -> list[Record]:
    """Run such a module; its standard output."""
    if not Path(__file__).with_name(f"{name}.py").exists():
        raise Missing(f"there is no {name}.py")
    command = [sys.executable, "-m", f"tests.benchmarks.{name}"]
    done = subprocess.run(command, cwd=environments.REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    return [{"scenario": name, "text": done.stdout, "ok": done.returncode == 0}]


def said(run: Record) -> None:
    """One line a run, as it ends."""
    parts = [f"{run['scenario']:9} {run['contestant']:28} round {run['round'] + 1}"]
    for name, form in (("rows", "{:,} rows"), ("wall_s", "{:.2f} s"), ("cpu_ms", "{:.3f} ms/row"), ("peak_mib", "{:.0f} MiB")):
        if run.get(name) is not None:
            parts.append(form.format(run[name]))
    if run.get("stretch"):
        parts.append(f"{run['stretch']:.3f} x ideal")
    if run.get("first_s") is not None:
        parts.append(f"first request {run['first_s']:.2f} s")
    if "server" in run:
        parts.append(" ".join(f"{name} {value}" for name, value in run["server"].items() if name != "histogram"))
    if not run.get("ok", True):
        parts.append(f"NOT OK: {run.get('served', '')} {run.get('answered', '')} {run.get('log', '').strip()[-300:]}")
    print("  ".join(parts), flush=True)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"all by default: {' '.join((*SCENARIOS, *TOLD))}")
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody runs, in turns (3)")
    parser.add_argument("--peer-rounds", type=int, default=3, help="in how many of the rounds of a race peers run, too (3)")
    parser.add_argument("--quick", action="store_true", help="few rows, one round: whether everything works, no figures")
    parser.add_argument("--only", help=f"contestants, by comma (the floor '{FLOOR}' always runs): {','.join(BY_NAME)}")
    parser.add_argument("--resume-rows", type=int, default=10_000_000, help="finished rows for `resume`; the target is for 10M")
    parser.add_argument("--results", type=Path, help="folder for the figures (tests/benchmarks/results/<today>)")
    parser.add_argument("--no-report", action="store_true", help="leave docs/performance.md as it is")
    options = parser.parse_args()
    wanted = options.scenario or [*SCENARIOS, *TOLD]
    if unknown := set(wanted) - {*SCENARIOS, *TOLD}:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    only = set(options.only.split(",")) | {FLOOR} if options.only else set(BY_NAME)
    if unknown := only - set(BY_NAME):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    rounds = 1 if options.quick else options.rounds
    quick_folder = cache() / "quick"
    folder = options.results or (quick_folder if options.quick else FOLDER / time.strftime("%Y-%m-%d"))
    work = cache() / "work"
    failures = 0

    def chosen(contestant: Contestant) -> bool:
        return contestant.name in only

    for name in wanted:
        began = time.monotonic()
        try:
            if name in RACES:
                records = race(name, work, rounds, options.peer_rounds, options.quick, chosen, said)
            elif name in TRIALS:
                records = trial(name, work, rounds, options.quick, said)
            elif name in SIZES:
                records = SIZES[name](work, rounds, options.quick, chosen, said)
            elif name == "resume":
                records = resume(work, rounds, 20_000 if options.quick else options.resume_rows, said)
            elif options.quick:
                continue
            else:
                records = told(name)
            versions = environments.versions(environments.ours())
        except Missing as missing:
            print(f"{name}: left out: {missing}", file=sys.stderr)
            failures += 1
            continue
        except Exception:  # the other scenarios of a run of hours are worth having
            traceback.print_exc()
            failures += 1
            continue
        failures += any(not run.get("ok", True) for run in records)
        path = save(name, records, folder, versions, options.quick)
        print(f"{name}: {time.monotonic() - began:.0f} s, {path}", file=sys.stderr)
    if not (options.no_report or options.quick):
        from .report import write

        write(folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
