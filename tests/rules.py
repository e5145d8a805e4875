"""A server on loopback that answers chat completions by a rule: a function from the messages so far to the answer's text."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Rule = Callable[[list[dict[str, Any]]], str | int]


class Ruled:
    """The server; `requests` holds every body it was sent, `keys` their idempotency keys.

    Args:
        rule: The text of an answer, or a status to refuse with.
        finish_reason: Of every answer.
    """

    def __init__(self, rule: Rule, finish_reason: str = "stop") -> None:
        self.rule = rule
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        ruled = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                ruled.requests.append(body)
                ruled.keys.append(self.headers["idempotency-key"] or "")
                text = ruled.rule(body["messages"])
                status = text if isinstance(text, int) else 200
                choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
                usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                answer = {"id": "c", "object": "chat.completion", "model": "ruled", "choices": [choice], "usage": usage}
                whole = json.dumps(answer if status == 200 else {"error": {"message": "no"}}, separators=(",", ":")).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(whole)))
                self.end_headers()
                self.wfile.write(whole)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Ruled:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
