"""The real line of `batch.pace` against made-up servers, on a clock that jumps from event to event."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from batch.errors import CallError, ServerFault, Throttled, Unreachable
from batch.pace.gate import Gate
from batch.pace.line import Line, Ticket
from batch.pace.rate import Rate
from batch.pace.window import Window
from batch.records import Hints

Latency = Callable[[Random], float]


def mixed(low: float, high: float) -> Latency:
    """Latencies spread evenly."""
    return lambda random: random.uniform(low, high)


def long_tailed(mean: float) -> Latency:
    """Latencies as services have them: most are short, some are very long (log-normal, sigma 0.8)."""
    return lambda random: mean * random.lognormvariate(-0.32, 0.8)


@dataclass
class Server:
    """A server that works on `capacity` requests at once.

    Attributes:
        refuses: Whether what is more is refused (429) instead of queued.
        retry_after: What a refusal says; None for nothing.
        shift: At this second …
        factor: … latencies grow so many times.
        away: From when until when every request fails …
        fails: … with this error.
        network: Seconds there and back.
        way: Seconds there, and as many back, give or take a half, in which the server does not work on it yet, or any more.
        quota: So many requests in each window of so many seconds, which its headers tell.
        moody: Share of requests that is refused at random …
        slowly: … after the time of an answer instead of at once.
        soft: Instead of a capacity, each request is slowed by the number of requests at work: 1 + n / capacity.
    """

    capacity: int
    latency: Latency
    refuses: bool = False
    retry_after: float | None = 1.0
    shift: float = float("inf")
    factor: float = 5.0
    away: tuple[float, float] = (float("inf"), float("inf"))
    fails: type[CallError] = Unreachable
    network: float = 0.002
    way: float = 0.0
    rpm: float | None = None
    soft: bool = False
    quota: tuple[int, float] | None = None
    moody: float = 0.0
    slowly: bool = False
    inside: int = 0
    highest: int = 0
    refused: int = 0
    free: list[float] = field(default_factory=list)
    used: int = 0
    window: float = -1.0
    told: Hints = field(default_factory=Hints)
    _arrival: float = 0.0

    def serve(self, now: float, random: Random) -> tuple[float, CallError | None]:
        """Take one request; how long the answer takes, or the error."""
        if self.away[0] <= now < self.away[1]:
            return self.network, self.fails("away", status=503 if self.fails is Throttled else None, seconds=self.network)
        if self.rpm is not None:
            if self._arrival - now > 2.0:
                self.refused += 1
                return self.network, self._refusal()
            self._arrival = max(self._arrival, now) + 60 / self.rpm
        if self.quota is not None:
            limit, length = self.quota
            self.used = self.used + 1 if now // length == self.window else 1
            self.window = now // length
            if self.used > limit:
                self.refused += 1
                return self.network, self._refusal()
            self.told = Hints(remaining_requests=limit - self.used, reset_requests=length - now % length)
        work = self.latency(random) * (self.factor if now >= self.shift else 1.0)
        if self.moody and random.random() < self.moody:
            self.refused += 1
            late = work if self.slowly else 0.0
            return self.network + late, self._refusal(late)
        if self.soft:
            return work * (1 + self.inside / self.capacity) + self.network, None
        if self.refuses:
            if self.inside >= self.capacity:
                self.refused += 1
                return self.network, self._refusal()
            return work + self.network, None
        start = now if len(self.free) < self.capacity else max(now, heapq.heappop(self.free))
        heapq.heappush(self.free, start + work)
        return start + work - now + self.network, None

    def _refusal(self, seconds: float = 0.0) -> Throttled:
        return Throttled("too many", status=429, seconds=self.network + seconds, hints=Hints(retry_after=self.retry_after))


@dataclass
class Run:
    """What came of a run."""

    seconds: float = 0.0
    answered: int = 0
    requests: int = 0
    failed_rows: int = 0
    highest: int = 0
    sizes: list[tuple[float, int, str]] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    refused: int = 0
    outage: bool = False

    @property
    def rate(self) -> float:
        return self.answered / self.seconds

    def between(self, start: float, end: float) -> float:
        """Answers a second in a part of the run."""
        return sum(start <= at < end for at in self.answers) / (end - start)


@dataclass(eq=False)
class Row:
    number: int
    charged: int = 0
    tries: int = 0


def simulate(
    server: Server,
    *,
    rows: int = 10**9,
    seconds: float = float("inf"),
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    tokens: Callable[[Random], tuple[int, int]] = lambda random: (0, 0),
    ceiling: int = 1000,
    seed: int = 0,
    supply: float | None = None,
    cpu: float = 0.0,
    load: float = 0.0,
    poison: frozenset[int] = frozenset(),
    max_outage: float = 1800.0,
    attempts: int = 5,
) -> Run:
    """Drive `rows` rows, or as many as end within `seconds`.

    Args:
        tokens: Estimated and real tokens of a request.
        supply: Rows a second that the input yields.
        cpu: Seconds of one processor that each request costs this client.
        load: Of one processor, what this client does beside.
        poison: Rows that the server always fails at.
    """
    random = Random(seed)
    now = 0.0
    busy_until = 0.0
    spent = 0.0
    line = Line(Rate(rpm, tpm), Gate(max_outage, Random(seed + 1)), Window(concurrency, ceiling, lambda: spent + load * now))
    events: list[tuple[float, int, str, object]] = []
    order = count()
    run = Run()
    owner: dict[Ticket, Row] = {}
    taken = ended = 0

    def at(when: float, kind: str, what: object) -> None:
        heapq.heappush(events, (when, next(order), kind, what))

    def join(row: Row) -> None:
        ticket = line.join(tokens(random)[0] if tpm else 0)
        owner[ticket] = row

    def way() -> float:
        return server.way * random.uniform(0.5, 1.5) if server.way else 0.0

    supplied = 0.0
    timer = float("inf")
    while ended < rows and now < seconds:
        while taken < rows and line.admits() and (supply is None or taken < supply * now + 1):
            line.permits += 1
            join(Row(taken))
            taken += 1
        if line.gate.away(now):
            run.outage = True
            break
        told, again = line.advance(now)
        for ticket in told:
            assert ticket.booking is not None
            at(max(now, ticket.booking.at), "go", ticket)
        if now < again < timer:
            at(again, "look", None)
            timer = again
        if supply is not None and now >= supplied:
            supplied = now + 1 / supply
            at(supplied, "look", None)
        if not events:
            break
        now, _, kind, what = heapq.heappop(events)
        if now >= timer:
            timer = float("inf")
        if kind == "go":
            assert isinstance(what, Ticket)
            if what.booking is None or what not in owner or what.out or not line.go(now, what):
                continue
            run.requests += 1
            run.sent.append(now)
            row = owner[what]
            row.tries += 1
            at(now + way(), "arrive", (what, now, row))
        elif kind == "arrive":
            assert isinstance(what, tuple)
            ticket, went, row = what
            wait, error = server.serve(now, random)
            if row.number in poison and error is None:
                error = ServerFault("500", status=500, seconds=wait)
            if error is None or isinstance(error, ServerFault):
                server.inside += 1
                server.highest = max(server.highest, server.inside)
            end = now + wait
            if cpu:
                spent += cpu
                busy_until = max(busy_until, now) + cpu
                end = max(end, busy_until)
            at(end, "leave", (ticket, went, error, server.told))
        elif kind == "leave":
            assert isinstance(what, tuple)
            if what[2] is None or isinstance(what[2], ServerFault):
                server.inside -= 1
            at(now + way(), "end", what)
        elif kind == "retry":
            assert isinstance(what, Row)
            join(what)
        elif kind == "end":
            assert isinstance(what, tuple)
            ticket, went, error, hints = what
            row = owner.pop(ticket)
            if error is None:
                line.done(now, ticket, now - went, hints, tokens(random)[1] if tpm else None)
                run.answered += 1
                run.answers.append(now)
                line.permits -= 1
                ended += 1
            else:
                if isinstance(error, Throttled):
                    run.refused += 1
                charged = line.failed(now, ticket, error)
                row.charged += charged
                if row.charged >= attempts:
                    run.failed_rows += 1
                    line.permits -= 1
                    ended += 1
                else:
                    at(now + (random.uniform(0, min(20.0, 0.5 * 2**row.tries)) if charged else 0.0), "retry", row)
        run.highest = max(run.highest, line.out)
        if not run.sizes or run.sizes[-1][1] != line.window.size:
            run.sizes.append((now, line.window.size, line.window._phase))
    run.seconds = now
    return run
