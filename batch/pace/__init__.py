"""When the next request may go: rate, window and gate, on one clock."""

from .hints import read_hints
from .pace import Pace, Turn
from .state import PaceState, Stopped

__all__ = ["Pace", "PaceState", "Stopped", "Turn", "read_hints"]
