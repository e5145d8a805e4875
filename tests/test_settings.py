"""Where settings and secrets come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.errors import JobError
from batch.settings import secret_file, setting


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("A_SETTING", raising=False)
    return tmp_path


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_the_environment_comes_first(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setting("A_SETTING") is None
    write(empty_folder / ".env", "A_SETTING=file\n")
    assert setting("A_SETTING") == "file"
    monkeypatch.setenv("A_SETTING", "environment")
    assert setting("A_SETTING") == "environment"
    monkeypatch.setenv("A_SETTING", "")
    assert setting("A_SETTING") == "file"


def test_a_dollar_stays_a_dollar(empty_folder: Path) -> None:
    write(empty_folder / ".env", "A_SETTING='a$HOME${HOME}b'\n")
    assert setting("A_SETTING") == "a$HOME${HOME}b"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_dotenv_others_can_read_is_refused_where_it_matters(empty_folder: Path, mode: int) -> None:
    write(empty_folder / ".env", "A_SETTING=canary\n", mode)
    assert setting("ANOTHER_SETTING") is None
    with pytest.raises(JobError, match=r"chmod 600 \.env") as caught:
        setting("A_SETTING")
    assert "canary" not in str(caught.value)


def test_a_secret_file_loses_its_line_end_alone(empty_folder: Path) -> None:
    path = write(empty_folder / "secret", " with spaces \r\n")
    assert secret_file(path) == " with spaces "


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"canary", 0o644, "chmod 600"),
        (b"\n", 0o600, "empty"),
        (b"canary\xff", 0o600, "not UTF-8 at byte 7"),
        (b"canary" * 20_000, 0o600, "too long"),
    ],
)
def test_a_secret_file_that_is_none_is_refused(empty_folder: Path, content: bytes, mode: int, words: str) -> None:
    path = write(empty_folder / "secret", content, mode)
    with pytest.raises(JobError, match=words) as caught:
        secret_file(path)
    assert "canary" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_secret_file_is_named(empty_folder: Path) -> None:
    with pytest.raises(JobError, match="nowhere: cannot be read"):
        secret_file("nowhere")
    with pytest.raises(JobError, match="cannot be read"):
        secret_file(empty_folder)
