"""bespokelabs-curator: an `LLM` with its online OpenAI backend over a list of rows.

Two patches, both because nothing here may leave this machine: telemetry is off, and tokens are counted as characters / 4
(the package would fetch an encoding). Its own rate limits are lifted, its pause after a 429 is one second instead of ten.
It sends one probe before the first row.
"""

# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-unimported"
import json
import os
import sys
from pathlib import Path
from typing import Any

source, target, base, concurrency = sys.argv[1:]

os.environ.update(
    CURATOR_CACHE_DIR=f"{target}.cache",
    CURATOR_DISABLE_RICH_DISPLAY="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    HF_HUB_OFFLINE="1",
    HF_HOME=f"{target}.hf",
)

import posthog  # noqa: E402
import tiktoken  # noqa: E402


class Characters:
    def encode(self, text: str, **_: Any) -> range:
        return range(len(text) // 4)


posthog.disabled = True
tiktoken.get_encoding = lambda _: Characters()

from bespokelabs import curator  # noqa: E402


class Asking(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> str:
        return str(row["prompt"])

    def parse(self, row: dict[str, Any], answer: str) -> dict[str, Any]:
        return {**row, "response": answer}


if __name__ == "__main__":
    with Path(source).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    asking = Asking(
        model_name="bench-model",
        backend="openai",
        backend_params={
            "base_url": f"{base}/v1",
            "api_key": "bench",
            "max_concurrent_requests": int(concurrency),
            "max_requests_per_minute": 1_000_000_000,
            "max_tokens_per_minute": 1_000_000_000_000,
            "seconds_to_pause_on_rate_limit": 1,
        },
    )
    answered = asking(rows)
    answered.dataset.to_json(target)
