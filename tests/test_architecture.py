"""The street of docs/architecture.md holds in the code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from .hostile import KEY, SECRET, Hostile

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "batch"


def street() -> list[str]:
    table = (ROOT / "docs/architecture.md").read_text()
    return re.findall(r"^\| `(\w+)/?` \|", table, re.MULTILINE)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports, anywhere in it."""
    depth = len(path.relative_to(PACKAGE).parts)
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            rooms |= (
                {node.module.split(".")[0]} if node.module else {name.name for name in node.names if name.name != "__version__"}
            )
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("batch."):
            rooms.add((node.module or "").split(".")[1])
    return rooms


def test_every_room_is_on_the_street() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == set(street())


def test_imports_go_one_way() -> None:
    order = street()
    wrong = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in PACKAGE.rglob("*.py")
        if (mine := room_of(path)) not in ("__init__", "__main__")
        for room in imported_rooms(path) - {mine}
        if room not in order or order.index(room) > order.index(mine)
    ]
    assert wrong == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'pandas', 'numpy', 'requests', 'jinja2', 'tenacity', 'msgspec', 'tqdm'}"
    code = f"import sys, batch; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_a_run_imports_jinja2_for_a_template_and_tqdm_for_a_terminal() -> None:
    heavy = "{'pandas', 'jinja2', 'tqdm'}"
    code = f"import sys, batch.trip, batch.cli.run, batch.cli.progress; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_a_fresh_run_sends_its_first_request_before_it_loads_numpy(tmp_path: Path) -> None:
    code = """
import sys
import batch.pulse
from batch.client import Client
batch.pulse.UNCOUNTED = 60.0  # or a slow machine would be seen to load it beside the first request
start, seen = Client.start, []
def watched(self, *arguments, **options):
    seen.append("numpy" in sys.modules)
    return start(self, *arguments, **options)
Client.start = watched
from batch.cli import command_line
code = command_line(sys.argv[1:])
sys.exit(code or (seen[0] and "numpy was loaded before") or ("numpy" not in sys.modules and "this proves nothing"))
"""
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt":"one"}\n{"prompt":"two"}\n')
    with Hostile() as server:
        asked = ["run", str(source), "-o", str(tmp_path / "out.csv"), "--endpoint", server.url("good"), "--model", "m"]
        secrets = {"AILS_API_KEY": KEY, "AILS_SECRET": SECRET}
        command = [sys.executable, "-c", code, *asked, "--protocol", "ails"]
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **secrets}, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_imports_click_alone() -> None:
    heavy = "{'pandas', 'numpy', 'requests', 'jinja2', 'tenacity', 'msgspec', 'tqdm'}"
    code = (
        "import sys; from batch.cli import command_line; code = command_line(['--help']);"
        f"sys.exit(code or ', '.join({heavy} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "run" in ended.stdout
