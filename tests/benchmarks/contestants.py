"""Who runs: the floors, the peers and this project, all by one calling convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import environments, ours

HERE = Path(__file__).parent
FLOOR = "requests"
OURS = "ails-batch"


@dataclass(frozen=True, slots=True)
class Trip:
    """What a contestant is asked to do: all rows of `source`, to `output`, at `url` (without ``/v1``), so many at once."""

    source: Path
    output: Path
    url: str
    concurrency: int | str


@dataclass(frozen=True, slots=True)
class Contestant:
    """One program that can make the trip.

    Attributes:
        kind: ``floor``, ``peer`` or ``ours``.
        retries: Whether it sends a refused request again.
        probes: Requests it sends besides one a row.
        ready: Makes its environment; raises `Missing` where that cannot be done.
    """

    name: str
    kind: str
    command: Callable[[Trip], list[str]]
    ready: Callable[[], Path]
    retries: bool = True
    probes: int = 0
    environment: dict[str, str] = field(default_factory=dict)


def _floor(name: str) -> Contestant:
    def ready() -> Path:
        return environments.pinned("floors", HERE / "floors.txt")

    def command(trip: Trip) -> list[str]:
        script = str(HERE / "floors.py")
        return [str(ready()), "-P", script, name, str(trip.source), str(trip.output), trip.url, str(trip.concurrency)]

    return Contestant(name, "floor", command, ready, retries=False)


def _peer(name: str, file: str, probes: int = 0) -> Contestant:
    def ready() -> Path:
        return environments.pinned(file, HERE / "peers" / f"{file}.txt")

    def command(trip: Trip) -> list[str]:
        script = str(HERE / "peers" / f"{file}.py")
        return [str(ready()), "-P", script, str(trip.source), str(trip.output), trip.url, str(trip.concurrency)]

    return Contestant(name, "peer", command, ready, probes=probes)


def project(name: str = OURS, *options: str) -> Contestant:
    """This project, with more options than the default ones."""

    def command(trip: Trip) -> list[str]:
        return ours.command(trip.source, trip.output, trip.url, trip.concurrency, *options)

    return Contestant(name, "ours", command, environments.ours, environment=ours.CREDENTIALS)


FLOORS = tuple(_floor(name) for name in ("requests", "prepared", "urllib3", "aiohttp", "pycurl"))
PROJECT = project()
PROCESSES = project(f"{OURS} processes", "--engine", "processes", "--processes", "auto")
PEERS = (
    _peer("flexllm", "flexllm"),
    _peer("saturate", "saturate"),
    _peer("async-batch-llm", "async_batch_llm"),
    _peer("openai", "openai"),
    _peer("llm-batch-runner", "llm_batch_runner"),
    _peer("curator", "curator", probes=1),
    _peer("litellm", "litellm"),
)
BY_NAME = {contestant.name: contestant for contestant in (*FLOORS, PROJECT, PROCESSES, *PEERS)}
