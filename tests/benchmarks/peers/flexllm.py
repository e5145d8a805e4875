"""flexllm: `LLMClient.chat_batch`, which writes its own JSONL as it goes; its default of 1,000 requests a second is lifted."""

# mypy: disable-error-code="import-not-found, import-untyped"
import asyncio
import json
import sys
from pathlib import Path

from flexllm import LLMClient

source, target, base, concurrency = sys.argv[1:]


async def main() -> None:
    with Path(source).open(encoding="utf-8") as lines:
        messages = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
    async with LLMClient(
        base_url=f"{base}/v1", api_key="bench", model="bench-model", concurrency_limit=int(concurrency), max_qps=1_000_000
    ) as client:
        result = await client.chat_batch(messages, output_jsonl=target, show_progress=False)
    result.raise_for_errors()


asyncio.run(main())
