"""A finished run of any size without a server: the installed command, with a transport that answers at once from memory.

Run as ``python -P seed.py ARGUMENTS-OF-AILS-BATCH …`` in this project's own environment. Everything else is the real thing:
reading, keys, pace, journal, ordered output. It makes the ten million finished rows that resuming is measured on, and shows
memory at that size.
"""

import json
import sys
from typing import Any

import batch.client
from batch.records import Answer, Reply

BODY = {
    "object": "chat.completion",
    "model": "bench-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "the answer is plain"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 15, "completion_tokens": 4, "total_tokens": 19},
}
ANSWER = Answer("the answer is plain", "bench-model", "stop", 15, 4, json.dumps(BODY, separators=(",", ":")).encode())


def answer(*_: Any, **__: Any) -> Reply:
    """What `Client.call` would bring."""
    return Reply(ANSWER, 0.0)


if __name__ == "__main__":
    from batch.__main__ import main

    setattr(batch.client.Client, "call", answer)  # noqa: B010
    sys.argv[0] = "ails-batch"
    main()
