"""Servers with a will: one enforces a rate, one takes so many at once and queues or refuses the rest, or goes away.

Run as ``python -m tests.benchmarks.servers KIND REPORT [key=value …]``: prints its port, serves until SIGTERM, then writes to
REPORT what it saw, as JSON. One thread of uvloop and httptools; carries more than 10,000 requests a second.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from .target import completion

REFUSAL = b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}'


class Will(Protocol):
    """What a server does with a request."""

    def take(self, now: float) -> tuple[float, int, bytes]:
        """Seconds until the answer, its status, its body."""

    def report(self) -> dict[str, Any]:
        """What was seen."""


def worst(times: list[float], window: float) -> int:
    """The most entries of an ascending list in any stretch of so many seconds."""
    most = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


def used(arrivals: list[float], weights: list[float], rate: float) -> float:
    """Which share of the rate was used from the first arrival to the last; the first opens the account and does not count."""
    span = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
    return sum(weights[1:]) / (rate * span) if span else 0.0


class Limited:
    """Enforces a rate over every second and every minute, sliding; what comes too soon gets 429 with ``Retry-After: 1``.

    Any second holds at most max(1.05 x rate, rate + 2) requests, any minute at most a minute's worth and as many more. Tokens
    are charged on arrival with what the answer will say in its `usage`, from a bucket that holds two seconds' worth, because no
    client can know the length of an answer.

    Args:
        rate: Requests a second; 0 for no such limit.
        tokens: Tokens a second; 0 for no such limit.
        latency: Seconds until an answer.
    """

    def __init__(self, rate: float = 0.0, tokens: float = 0.0, latency: float = 0.05, seed: int = 1) -> None:
        self.rate, self.tokens, self.latency = rate, tokens, latency
        more = max(0.05 * rate, 2.0)
        self._windows = [(seconds, int(rate * seconds + more), deque[float]()) for seconds in (1.0, 60.0)] if rate else []
        self._tokens_left = self._tokens_most = 2 * tokens
        self._last = 0.0
        self._random = random.Random(seed)
        self.arrivals: list[float] = []
        self.weights: list[float] = []
        self.refused = 0

    def take(self, now: float) -> tuple[float, int, bytes]:
        for seconds, _, window in self._windows:
            while window and now - window[0] >= seconds:
                window.popleft()
        self._tokens_left = min(self._tokens_most, self._tokens_left + (now - (self._last or now)) * self.tokens)
        self._last = now
        answer_tokens = self._random.randint(16, 112)
        weight = 75 + answer_tokens
        if (self.tokens and self._tokens_left < weight) or any(len(window) >= most for _, most, window in self._windows):
            self.refused += 1
            return 0.001, 429, REFUSAL
        for _, _, window in self._windows:
            window.append(now)
        self._tokens_left -= weight
        self.arrivals.append(now)
        self.weights.append(weight)
        return self.latency, 200, completion(answer_tokens)

    def report(self) -> dict[str, Any]:
        first = self.arrivals[0] if self.arrivals else 0.0
        seconds = Counter(int(moment - first) for moment in self.arrivals)
        told: dict[str, Any] = {
            "accepted": len(self.arrivals),
            "refused": self.refused,
            "worst_second": worst(self.arrivals, 1.0),
            "histogram": [seconds[second] for second in range(max(seconds, default=-1) + 1)],
        }
        if self.rate:
            told["used"] = used(self.arrivals, [1.0] * len(self.arrivals), self.rate)
        if self.tokens:
            told["tokens"] = sum(self.weights)
            told["used"] = used(self.arrivals, self.weights, self.tokens)
        return told


class Knee:
    """So many requests at a time, each for about `service` seconds; the others queue without a word, or are refused with 429.

    Args:
        capacity: Requests served at once.
        service: Mean seconds for one, ± 20 % evenly.
        refuses: Answers 429 with ``Retry-After: 1`` to what does not fit, instead of queueing it.
        down_from, down_for: From so many seconds after the first request on, the server is away for so long: connections are
            reset and new ones refused.
    """

    def __init__(
        self,
        capacity: int = 32,
        service: float = 0.2,
        refuses: bool = False,
        down_from: float = 0.0,
        down_for: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.capacity, self.service, self.refuses = capacity, service, refuses
        self.down_from, self.down_for = down_from, down_for
        self._random = random.Random(seed)
        self._ends: list[float] = []
        self._free = [0.0] * capacity
        self._answer = completion()
        self.arrivals: list[float] = []
        self.ends: list[float] = []
        self.in_flight: list[int] = []
        self.refused = 0

    def take(self, now: float) -> tuple[float, int, bytes]:
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        if self.refuses and len(self._ends) >= self.capacity:
            self.refused += 1
            return 0.001, 429, REFUSAL
        start = max(now, heapq.heappop(self._free))
        end = start + self.service * self._random.uniform(0.8, 1.2)
        heapq.heappush(self._free, end)
        heapq.heappush(self._ends, end)
        self.arrivals.append(now)
        self.ends.append(end)
        self.in_flight.append(len(self._ends))
        return end - now, 200, self._answer

    def report(self) -> dict[str, Any]:
        span = max(self.ends) - self.arrivals[0] if self.arrivals else 0.0
        levels = sorted(self.in_flight)
        return {
            "accepted": len(self.arrivals),
            "refused": self.refused,
            "rate": len(self.arrivals) / span if span else 0.0,
            "best_rate": self.capacity / self.service,
            "in_flight_most": max(levels, default=0),
            "in_flight_median": levels[len(levels) // 2] if levels else 0,
        }


class _Exchange(asyncio.Protocol):
    """One connection; requests are answered one after another, as HTTP/1.1 clients without pipelining send them."""

    def __init__(self, will: Will, open_connections: set[asyncio.Transport], arrived: Callable[[], None]) -> None:
        from httptools import HttpRequestParser

        self._will, self._open, self._arrived = will, open_connections, arrived
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class
        self._open.add(self._transport)  # type: ignore[arg-type]

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._open.discard(self._transport)
            self._transport = None

    def data_received(self, data: bytes) -> None:
        from httptools import HttpParserError

        try:
            self._parser.feed_data(data)
        except HttpParserError:
            if self._transport is not None:
                self._transport.abort()

    def on_message_complete(self) -> None:
        self._arrived()
        delay, status, body = self._will.take(time.monotonic())
        reason, extra = ("OK", "") if status == 200 else ("Too Many Requests", "Retry-After: 1\r\n")
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        asyncio.get_running_loop().call_later(delay, self._answer, head.encode() + body)

    def _answer(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(message)


class _Listener:
    """Listens, answers, and goes away when it was told to.

    Args:
        down_from, down_for: See `Knee`.
    """

    def __init__(self, will: Will, down_from: float, down_for: float) -> None:
        self._will, self._down_from, self._down_for = will, down_from, down_for
        self._connections: set[asyncio.Transport] = set()
        self._outage: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self.requests = 0

    async def open(self, port: int = 0) -> int:
        """Listen; the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Exchange(self._will, self._connections, self._arrived), "127.0.0.1", port, backlog=8192
        )
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more, and reset every connection."""
        assert self._server is not None
        self._server.close()
        for transport in list(self._connections):
            transport.abort()

    def _arrived(self) -> None:
        self.requests += 1
        if self._down_for and self._outage is None:
            self._outage = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        await asyncio.sleep(self._down_from)
        assert self._server is not None
        port = int(self._server.sockets[0].getsockname()[1])
        self.close()
        await asyncio.sleep(self._down_for)
        await self.open(port)


async def serve(will: Will, report: Path, down_from: float = 0.0, down_for: float = 0.0) -> None:
    """Listen on a free port, print it, and serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    listener = _Listener(will, down_from, down_for)
    print(await listener.open(), flush=True)
    await stopped.wait()
    report.write_text(json.dumps({"requests": listener.requests, **will.report()}))
    listener.close()


class Server:
    """One of these servers in a process of its own, while the `with` block lasts; `seen` is there afterwards.

    Args:
        folder: Where its report goes.
        kind: ``limited`` or ``knee``.
        settings: The arguments of `Limited` or `Knee`.
    """

    def __init__(self, folder: Path, kind: str, **settings: float) -> None:
        self._report = folder / "server.json"
        arguments = [f"{name}={value}" for name, value in settings.items()]
        self._command = [sys.executable, "-m", "tests.benchmarks.servers", kind, str(self._report), *arguments]
        self.url = ""
        self.seen: dict[str, Any] = {}

    def __enter__(self) -> Server:
        root = Path(__file__).parent.parent.parent
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=root)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)
        if error[0] is None:
            self.seen = json.loads(self._report.read_text())


def main(kind: str, report: str, *settings: str) -> None:
    """Serve until SIGTERM."""
    import uvloop

    values = {name: float(value) for name, value in (setting.split("=", 1) for setting in settings)}
    will: Will
    if kind == "knee":
        whole = {"capacity": int(values.pop("capacity", 32)), "refuses": bool(values.pop("refuses", 0))}
        will = Knee(**whole, **values)  # type: ignore[arg-type]
        uvloop.run(serve(will, Path(report), will.down_from, will.down_for))
    else:
        uvloop.run(serve(Limited(**values), Path(report)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
