"""What was measured, as JSON: ``results/<date>/<scenario>.json``, one record a run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from .measure import Measured

FOLDER = Path(__file__).parent / "results"
Record = dict[str, Any]


def machine() -> dict[str, Any]:
    """What the figures were taken on, without the machine's name."""
    model = "unknown processor"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr.strip()
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "target": nginx.removeprefix("nginx version: "),
    }


def record(scenario: str, contestant: str, kind: str, turn: int, rows: int, measured: Measured, **more: Any) -> Record:
    """One run."""
    told = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(measured).items()}
    told.pop("started")
    cpu = 1000 * measured.cpu_s / rows if rows else None
    who = {"scenario": scenario, "contestant": contestant, "kind": kind, "round": turn, "rows": rows}
    return {**who, "cpu_ms": cpu, **told, **more}


def save(scenario: str, records: list[Record], folder: Path, versions: dict[str, str], quick: bool) -> Path:
    """Write a scenario's records, replacing what the day had of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scenario}.json"
    document = {
        "scenario": scenario,
        "taken": time.strftime("%Y-%m-%d %H:%M"),
        "quick": quick,
        "command": " ".join(sys.argv[1:]),
        "machine": machine(),
        "versions": versions,
        "load": round(os.getloadavg()[0], 2),
        "runs": records,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """All scenarios of a folder, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def middle(records: list[Record], name: str) -> float | None:
    """The median of a figure over the runs that went well."""
    values = [run[name] for run in records if run.get("ok", True) and run.get(name) is not None]
    return median(values) if values else None


def ratio(records: list[Record], contestant: str, base: str, name: str) -> float | None:
    """The median over the rounds of a figure divided by another contestant's in the same round."""
    bases = {run["round"]: run[name] for run in records if run["contestant"] == base and run.get("ok", True)}
    shares = [
        run[name] / bases[run["round"]]
        for run in records
        if run["contestant"] == contestant and run.get("ok", True) and bases.get(run["round"]) and run.get(name) is not None
    ]
    return median(shares) if shares else None
