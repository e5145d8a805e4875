"""What a journal is asked to survive."""

from __future__ import annotations

import json
import threading

from batch.journal import STATES, Journal
from batch.records import Answer, Attempt, Failure, Outcome, row_id

STATE_KINDS = STATES[1:]


def key(number: int) -> bytes:
    """A key told by its number; unlike a digest it has many zeros, also at its end."""
    return number.to_bytes(8, "big") + bytes(8)


def answered(number: int, text: str = "", *, occurrence: int = 0) -> Outcome:
    """An outcome that is an answer, with `text` or the number in it."""
    body = json.dumps({"choices": [{"message": {"content": text or f"answer {number}"}}]}, ensure_ascii=False).encode()
    return Outcome(
        number, key(number), occurrence, Answer(text, "m", "stop", 1, 1, body), (Attempt(200, 0.25),), 1.7e9 + number
    )


def failed(number: int, kind: str = "transient", message: str = "it was away", *, occurrence: int = 0) -> Outcome:
    """An outcome that is a failure."""
    attempts = (Attempt(None, 0.5, "transient", False), Attempt(503, 0.25, "transient"))
    return Outcome(number, key(number), occurrence, Failure(kind, message, 503), attempts, 1.7e9 + number)  # type: ignore[arg-type]


def contents(journal: Journal, numbers: range | list[int]) -> dict[int, str]:
    """What the journal knows of rows: the answer's body or the failure's kind, by number."""
    handles = journal.find([row_id(key(number), 0) for number in numbers]).tolist()
    known = {}
    for number, handle in zip(numbers, handles, strict=True):
        if handle >= 0:
            found = journal.read(handle)
            assert found.key == key(number)
            known[number] = found.failure.kind if found.failure else found.body.decode()
    return known


class Stepped:
    """A clock that stands still until it is stepped."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1.7e9 + self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()
