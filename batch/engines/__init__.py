"""How outcomes are made side by side; an engine takes prompts and sees each to its end."""

from __future__ import annotations

from typing import Protocol

from ..records import Prompt


class Engine(Protocol):
    """What the trip asks of an engine."""

    def put(self, prompt: Prompt) -> bool:
        """Take a prompt, waiting while there is no room; False once the run is stopping."""

    def finish(self) -> None:
        """No more prompts come."""

    def wait(self, timeout: float) -> bool:
        """Wait until all prompts are done; False when `timeout` seconds were not enough."""
