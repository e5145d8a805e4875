"""OpenAI batch lines, asked of any endpoint: the request in the line is what is sent, and every id comes back."""

from __future__ import annotations

import json
from pathlib import Path

from batch.gateway.embedded import Embedded
from batch.prompts import Prompts
from batch.records import Row
from batch.wires import WIRES

from .conftest import Command, known
from .hostile import Hostile


def line(name: str, content: str = "hi", url: str = "/v1/chat/completions", **body: object) -> str:
    request = {"model": "their-model", "messages": [{"role": "user", "content": content}], **body}
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": request}) + "\n"


def sent(text: str, model: str = "", insist: bool = False, parameters: dict[str, object] | None = None) -> dict[str, object]:
    prompts = Prompts(WIRES["openai"], "x", model=model, insist=insist, parameters=parameters)
    body: dict[str, object] = json.loads(prompts(Row(0, "", json.loads(text))).body)
    return body


def test_the_request_in_the_line_is_what_is_sent() -> None:
    one = line("a", max_tokens=7, stream=False, temperature=0)
    messages = [{"role": "user", "content": "hi"}]
    assert sent(one) == {"model": "their-model", "messages": messages, "max_tokens": 7, "temperature": 0}
    assert sent(one, "default")["model"] == "their-model"
    assert sent(one, "mine", insist=True)["model"] == "mine"
    assert sent(one, parameters={"max_tokens": 1, "seed": 2}) | {"messages": 0} == {
        "model": "their-model",
        "messages": 0,
        "max_tokens": 7,
        "seed": 2,
        "temperature": 0,
    }


def test_every_custom_id_comes_back_with_the_whole_answer_or_its_error(cli: Command, echo: Embedded, tmp_path: Path) -> None:
    lines = [line("a"), line("b", url="/v1/embeddings"), line("c", n=2), '{"custom_id":"d","method":"PO\n', line("e", "ho")]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    command = ("run", "in.jsonl", "-o", "out.jsonl", "--output-format", "openai-batch", "--prefix", "x_")
    ended = cli(*command, "--model", echo.answers_as, env=known(echo))
    assert (ended.code, ended.summary["requests"]) == (1, 2)
    out = [json.loads(one) for one in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["custom_id"] for one in out] == ["a", "b", "c", "d", "e"]
    assert [bool(one["error"]) for one in out] == [False, True, True, True, False]
    assert "hi" in out[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert out[0]["response"]["body"]["id"] != f"chatcmpl-{out[0]['id'].removeprefix('batch_req_')}"  # the server's own
    assert "only chat completions are asked" in out[1]["error"]["message"]


def test_a_refused_line_keeps_its_status(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(line("a") + line("b", "ho"))
    with Hostile() as server:
        env = {"OPENAI_BASE_URL": server.url("status_422"), "OPENAI_API_KEY": "k" * 24, "AILS_MODEL": "m"}
        ended = cli("run", "in.jsonl", "-o", "out.jsonl", "--output-format", "openai-batch", "--protocol", "openai", env=env)
    assert ended.code == 1
    out = [json.loads(one) for one in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(one["custom_id"], one["response"]["status_code"]) for one in out] == [("a", 422), ("b", 422)]
