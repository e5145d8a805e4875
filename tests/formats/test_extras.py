"""A library that is not there is missed before anything is paid for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..counting import Counting

MODULES = {"pyarrow": "parquet", "zstandard": "zstd"}


def without(module: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process that cannot import a module."""
    hidden = f"import sys; sys.modules[{module!r}] = None; {code}"
    return subprocess.run([sys.executable, "-c", hidden, *arguments], capture_output=True, text=True, timeout=60)


def command_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return without(module, "from batch.__main__ import main; main()", *arguments)


@pytest.mark.parametrize(
    ("module", "outputs"),
    [
        ("pyarrow", ["-o", "out.parquet"]),
        ("pyarrow", ["-o", "out.dat", "--output-format", "parquet"]),
        ("pyarrow", ["-o", "out.csv", "--errors", "bad.parquet"]),
        ("zstandard", ["-o", "out.csv.zst"]),
        ("zstandard", ["-o", "out.csv", "--errors", "bad.jsonl.zst"]),
    ],
)
def test_a_run_whose_output_lacks_a_library_sends_nothing(
    module: str, outputs: list[str], folder: Path, server: Counting
) -> None:
    (folder / "in.csv").write_text("prompt\na\nb\n")
    ended = command_without(module, "run", "in.csv", *outputs)
    assert ended.returncode == 2
    assert f"the extra '{MODULES[module]}'" in ended.stderr
    server.settle()
    assert server.asked(folder.name) == []
    assert [path.name for path in folder.iterdir()] == ["in.csv"]


def test_a_run_from_python_whose_output_lacks_a_library_sends_nothing(folder: Path, server: Counting) -> None:
    (folder / "in.csv").write_text("prompt\na\n")
    ended = without("pyarrow", "import batch; batch.run(batch.Job(input='in.csv', output='out.parquet'))")
    assert ended.returncode == 1
    assert "JobError: Parquet files need one more library, the extra 'parquet'" in ended.stderr
    server.settle()
    assert server.asked(folder.name) == []


def test_the_same_run_ends_once_the_library_is_there(folder: Path, server: Counting) -> None:
    (folder / "in.csv").write_text("prompt\na\n")
    assert command_without("pyarrow", "run", "in.csv", "-o", "out.parquet").returncode == 2
    assert command_without("nothing", "run", "in.csv", "-o", "out.parquet").returncode == 0
    assert len(server.asked(folder.name)) == 1


def test_a_conversion_that_lacks_a_library_does_not_read_its_input(folder: Path) -> None:
    ended = command_without("zstandard", "convert", "there-is-none.csv", "out.jsonl.zst")
    assert ended.returncode == 2
    assert "the extra 'zstd'" in ended.stderr
    ended = command_without("pyarrow", "convert", "there-is-none.csv", "out.parquet")
    assert "the extra 'parquet'" in ended.stderr
