"""What the README shows is what happens: its commands are run, its output is held against theirs."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch.gateway.embedded import Embedded

from .conftest import known
from .hostile import Hostile

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of the README and what it is shown to print."""

    command: str
    prints: list[str]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shown() -> Iterator[Shown]:
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *prints = part.splitlines()
            yield Shown(command, prints)


COMMANDS = [one for one in shown() if one.command.startswith(("ails-batch", "cat"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who follows the README."""
    path = tmp_path_factory.mktemp("readme")
    (path / "prompts.csv").write_text(blocks("csv")[0])
    shutil.copytree(ROOT / "jobs", path / "jobs")
    return path


@pytest.fixture(scope="module")
def environment(echo: Embedded) -> Iterator[dict[str, str]]:
    """Their settings: a signed endpoint and an OpenAI-compatible one."""
    with Hostile() as server:
        yield {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **known(echo),
            "OPENAI_BASE_URL": server.url("good"),
            "OPENAI_API_KEY": "k" * 24,
        }


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[one.command[:60] for one in COMMANDS])
def test_a_command_of_the_readme_prints_what_is_shown(number: int, folder: Path, environment: dict[str, str]) -> None:
    one = COMMANDS[number]
    if "--protocol openai" not in one.command:
        environment = {name: value for name, value in environment.items() if not name.startswith("OPENAI")}
    done = subprocess.run(["bash", "-c", one.command], cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    if not one.prints:
        return
    if one.command.startswith("cat"):
        assert len(printed) == len(one.prints)
        assert printed[0] == one.prints[0]
        for mine, theirs in zip(csv.DictReader(printed), csv.DictReader(one.prints), strict=True):
            assert {name: mine[name] for name in ("id", "prompt", "error")} == {
                name: theirs[name] for name in ("id", "prompt", "error")
            }
            assert mine["response"]
        return
    mine, theirs = json.loads(printed[0]), json.loads(one.prints[0])
    assert mine.keys() == theirs.keys()
    steady = ("rows", "ok", "failed", "pending", "cached", "requests", "output", "journal", "exit_code")
    assert {name: mine[name] for name in steady} == {name: theirs[name] for name in steady}


def test_the_python_of_the_readme_runs(folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], cwd=folder, env=environment, capture_output=True, text=True, timeout=110
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 of 2\n", "")


def test_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} leads to {target}"


def test_make_alone_says_what_there_is() -> None:
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("run", "test", "lint", "type", "format"):
        assert f"make {target} " in done.stdout
