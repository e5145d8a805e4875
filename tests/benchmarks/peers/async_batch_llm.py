"""async-batch-llm: `process_stream` with its own OpenAI strategy, bounded queues and results written as they come.

Its cool-down after a 429, five minutes by default, is the one second that the target asks for.
"""

# mypy: disable-error-code="import-not-found, import-untyped"
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from async_batch_llm import ProcessorConfig, RateLimitConfig, llm, process_stream

source, target, base, most = sys.argv[1:]
concurrency = int(most)


def prompts() -> Iterator[tuple[str, str]]:
    with Path(source).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield str(row["id"]), row["prompt"]


async def main() -> None:
    strategy = llm("openai-compatible:bench-model", base_url=f"{base}/v1", api_key="bench")
    settings = ProcessorConfig(
        concurrency=concurrency,
        max_queue_size=2 * concurrency,
        max_result_queue_size=2 * concurrency,
        progress_interval=10**9,
        rate_limit=RateLimitConfig(cooldown_seconds=1.0),
    )
    failed = 0
    with Path(target).open("w", encoding="utf-8") as out:
        async for result in process_stream(strategy, prompts(), config=settings):
            failed += not result.success
            out.write(json.dumps({"id": result.item_id, "response": result.output}) + "\n")
    if failed:
        sys.exit(f"{failed} rows failed")


asyncio.run(main())
