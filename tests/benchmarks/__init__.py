"""What the project costs, measured beside what others cost: `python -m tests.benchmarks` (see docs/performance.md)."""

from __future__ import annotations


class Missing(RuntimeError):
    """Something the benchmarks need is not on this machine; the text says what to install."""
