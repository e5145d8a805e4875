"""A fast target: nginx from the distribution's package, on loopback, with a static answer and a log line a request.

Three ports: ``zero`` answers at once, ``slow`` after 200 ms, ``mixed`` after 10 to 400 ms and 5 % of the time with a 429. Only
nginx with its echo module is needed (Debian: ``nginx-light libnginx-mod-http-echo``). Signatures are not checked.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from . import Missing

SLOW_S = 0.2
MIXED_S = tuple(round(0.010 + 0.010 * step, 3) for step in range(40))
"""The pauses of the port ``mixed``: 10 ms to 400 ms, equally often."""

REFUSED_SHARE = 0.05
BODY_BYTES = 748
LINE_BYTES = len("1700000000.000 200\n")

MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/libexec/nginx")


def completion(content_tokens: int = 64, prompt_tokens: int = 75, size: int = BODY_BYTES) -> bytes:
    """A chat completion with usage whose JSON text has `size` bytes (or as few as it can)."""

    def text(content: str) -> bytes:
        return json.dumps(
            {
                "id": "chatcmpl-000000000000000000000001",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "bench-model",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": content},
                        "finish_reason": "stop",
                        "logprobs": None,
                    }
                ],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": content_tokens,
                    "total_tokens": prompt_tokens + content_tokens,
                },
                "system_fingerprint": "fp_bench",
            },
            separators=(",", ":"),
        ).encode()

    words = "the answer is plain and takes the usual number of words "
    missing = max(0, size - len(text("")))
    return text((words * (missing // len(words) + 1))[:missing])


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def _splits(variable: str, salt: str, values: tuple[object, ...]) -> str:
    share = 100 / len(values)
    lines = [f"{share:.2f}% {value};" for value in values[:-1]] + [f"* {values[-1]};"]
    return f'split_clients "$request_id{salt}" ${variable} {{ {" ".join(lines)} }}'


def _configuration(folder: Path, ports: dict[str, int], echo: Path) -> str:
    answer = completion().decode()
    refusal = '{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}'
    places = {
        "zero": f"location / {{ return 200 '{answer}'; }}",
        "slow": f"location / {{ echo_sleep {SLOW_S}; echo_exec @answer; }} location @answer {{ return 200 '{answer}'; }}",
        "mixed": (
            "location / { echo_sleep $pause; echo_exec @answer; } location @answer { "
            f"if ($refused) {{ add_header Retry-After 1 always; return 429 '{refusal}'; }} return 200 '{answer}'; }}"
        ),
    }
    servers = "\n".join(
        f"  server {{ listen 127.0.0.1:{port} backlog=8192; access_log {folder}/{name}.log brief if=$posted; {places[name]} }}"
        for name, port in ports.items()
    )
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/temporary/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
load_module {echo};
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 8000; multi_accept on; }}
http {{
  log_format brief '$msec $status';
  map $request_method $posted {{ default 0; POST 1; }}
  {_splits("pause", "", MIXED_S)}
  {_splits("refused", "-", (1,) + (0,) * (round(1 / REFUSED_SHARE) - 1))}
{temporary}
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  client_body_buffer_size 64k;
  default_type application/json;
{servers}
}}
"""


class Target:
    """nginx while the `with` block lasts.

    Args:
        folder: Where configuration and logs go; made when it is not there.
        ports: Ports to listen on, by name; free ones by default.
    """

    def __init__(self, folder: Path, ports: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.ports = ports or dict(zip(("zero", "slow", "mixed"), free_ports(3), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Target:
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
        echo = next((path for name in MODULES if (path := Path(name, "ngx_http_echo_module.so")).exists()), None)
        if nginx is None or echo is None:
            raise Missing("the target needs nginx and its echo module: apt-get install nginx-light libnginx-mod-http-echo")
        (self.folder / "temporary").mkdir(parents=True, exist_ok=True)
        settings = self.folder / "nginx.conf"
        settings.write_text(_configuration(self.folder, self.ports, echo))
        errors = self.folder / "error.log"
        self._process = subprocess.Popen([nginx, "-p", str(self.folder), "-e", str(errors), "-c", str(settings)])
        for _ in range(200):
            if self._process.poll() is not None:
                raise Missing(f"nginx did not start: {errors.read_text()[-500:]}")
            try:
                for port in self.ports.values():
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise Missing(f"nginx did not listen within 4 s: see {errors}")

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def url(self, name: str) -> str:
        """The base URL of a port, without ``/v1``."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def mark(self, name: str) -> int:
        """How far the log of a port reaches now."""
        return (self.folder / f"{name}.log").stat().st_size

    def served(self, name: str, since: int = 0) -> Counter[str]:
        """How many requests were answered since the mark, by status (499: the client hung up first)."""
        with (self.folder / f"{name}.log").open("rb") as log:
            log.seek(since)
            return Counter(line[15:18].decode() for line in log)

    def first(self, name: str, since: int = 0, skip: int = 0) -> float | None:
        """When the first request since the mark (after `skip` others) was answered, in seconds since the epoch."""
        with (self.folder / f"{name}.log").open("rb") as log:
            log.seek(since + skip * LINE_BYTES)
            line = log.read(LINE_BYTES)
        return float(line[:14]) if len(line) == LINE_BYTES else None
