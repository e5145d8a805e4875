"""When the next request may go: rate, window and gate, on one clock."""

from .hints import read_hints
from .pace import Pace, Place, Turn
from .state import PaceState, Stopped

__all__ = ["Pace", "PaceState", "Place", "Stopped", "Turn", "read_hints"]
