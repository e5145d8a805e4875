"""A batch job processor for prompts: nothing lost, nothing paid twice, every row in its place.

    import batch

    summary = batch.run(batch.load("jobs/quickstart.toml"))
    frame = batch.run_frame(batch.read("prompts.csv"), template="…", endpoint="…")
    text = batch.create_completion(model="…", messages=[{"role": "user", "content": "…"}])

Importing this has no side effects and imports nothing heavy; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ails import create_completion as create_completion
    from .errors import BatchError as BatchError
    from .frames import read as read
    from .frames import run_frame as run_frame
    from .frames import write as write
    from .job import Endpoint as Endpoint
    from .job import Job as Job
    from .job import Price as Price
    from .job import load as load
    from .tally import Snapshot as Snapshot
    from .tally import Summary as Summary
    from .trip import run as run

__version__ = "0.1.0"

_HOMES = {
    "BatchError": "errors",
    "Endpoint": "job",
    "Job": "job",
    "Price": "job",
    "Snapshot": "tally",
    "Summary": "tally",
    "create_completion": "ails",
    "load": "job",
    "read": "frames",
    "run": "trip",
    "run_frame": "frames",
    "write": "frames",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name not in _HOMES:
        raise AttributeError(f"module 'batch' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
