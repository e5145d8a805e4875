"""A finished run of any size without a server: the installed command, whose answers come from memory.

Run as ``python -P seed.py ARGUMENTS-OF-AILS-BATCH …`` in this project's own environment. Reading, keys, the journal's writer
with its syncs, and the ordered output are the real thing. It makes the ten million finished rows that resuming is measured
on, and shows memory at that size.
"""

import json
import sys
import time

from batch.alignment import ASKED
from batch.records import Answer, Attempt, Outcome
from batch.trip import Trip

BODY = {
    "object": "chat.completion",
    "model": "bench-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "the answer is plain"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 15, "completion_tokens": 4, "total_tokens": 19},
}
ANSWER = Answer("the answer is plain", "bench-model", "stop", 15, 4, json.dumps(BODY, separators=(",", ":")).encode())
ATTEMPTS = (Attempt(200, 0.2),)
GROUP = 10_000
"""Rows handed to the journal before its writer is waited for, so that memory does not grow with their number."""


def answer(trip: Trip) -> None:
    """What `Trip.ask_what_is_missing` would do, with answers at hand."""
    trip.journal.begin({"job": trip.job.shown(), **{name: trip.asked[name] for name in ASKED}})
    for number, prompt in enumerate(trip.alignment.pending(lambda: True), 1):
        trip.journal.append(Outcome(prompt.index, prompt.key, prompt.occurrence, ANSWER, ATTEMPTS, time.time()))
        if number % GROUP == 0:
            trip.journal.flush()
    trip.journal.flush()
    trip.home.set()


if __name__ == "__main__":
    from batch.__main__ import main

    setattr(Trip, "ask_what_is_missing", answer)  # noqa: B010
    sys.argv[0] = "ails-batch"
    main()
