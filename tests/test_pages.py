"""What docs/answers.md and docs/formats.md show is what happens: commands are run, their output is held against theirs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .rules import Ruled

ROOT = Path(__file__).parent.parent
FILE = re.compile(r"^`([\w.-]+)`:\n\n```(?:csv|json|jsonl)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)

FACTS = {
    "Paris": ['Here you are:\n```json\n{"country": "France", "people": 2103778, "area_km2": 105.40}\n```'],
    "Oslo": ['{"country": "Norway", "people": "many"}', '{"country": "Norway", "people": 724290}'],
    "Atlantis": ['{"country": "unknown"}'],
}


def rule(messages: list[dict[str, Any]]) -> str:
    """Knows two cities, one of them at the second attempt; says anything else again."""
    asked = str(messages[0]["content"])
    for city, answers in FACTS.items():
        if city in asked:
            return answers[min(len(messages) // 2, len(answers) - 1)]
    return f"re: {messages[-1]['content']}"


@pytest.mark.parametrize("page", ["answers.md", "formats.md"])
def test_the_commands_of_the_page_print_what_is_shown(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text()
    for name, content in FILE.findall(text):
        (tmp_path / name).write_text(content)
    (tmp_path / "bin").mkdir()
    for name, target in {"ails-batch": "-m batch", "python": ""}.items():
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {target} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    with Ruled(rule) as server:
        environment = {
            "HOME": str(tmp_path),
            "PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "k" * 24,
            "AILS_MODEL": "my-model",
        }
        commands = 0
        for block in CONSOLE.findall(text):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, prints = part.partition("\n")
                done = subprocess.run(
                    ["bash", "-c", f"exec 2>&1; {command}"],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert (command, done.stdout) == (command, prints)
                commands += 1
        assert commands > 2
        for script in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
            assert "re: Where is Rome?" in done.stdout
