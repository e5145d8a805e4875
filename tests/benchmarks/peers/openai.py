"""The OpenAI client, asynchronous, a task a connection over one shared iterator (what most people write themselves)."""

# mypy: disable-error-code="import-not-found, import-untyped"
import asyncio
import json
import sys
from pathlib import Path

from openai import APIError, AsyncOpenAI

source, target, base, concurrency = sys.argv[1:]


async def main() -> None:
    client = AsyncOpenAI(base_url=f"{base}/v1", api_key="bench", max_retries=5)
    failed = 0
    with Path(source).open(encoding="utf-8") as lines, Path(target).open("w", encoding="utf-8") as out:

        async def work() -> None:
            nonlocal failed
            for line in lines:
                row = json.loads(line)
                messages = [{"role": "user", "content": row["prompt"]}]
                try:
                    answer = await client.chat.completions.create(model="bench-model", messages=messages)
                except APIError:
                    failed += 1
                    continue
                out.write(json.dumps({**row, "response": answer.choices[0].message.content}) + "\n")

        await asyncio.gather(*(work() for _ in range(int(concurrency))))
    if failed:
        sys.exit(f"{failed} rows failed")


asyncio.run(main())
