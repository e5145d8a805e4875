"""saturate: `pump` with a fixed window, rows streamed, Parquet parts of 1,000 rows as output; no look at /metrics."""

# mypy: disable-error-code="import-not-found, import-untyped"
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saturate import Auto, Fixed, pump

source, target, base, concurrency = sys.argv[1:]


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    with Path(source).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield str(row["id"]), row


stats = pump(
    rows(),
    lambda row: {"model": "bench-model", "messages": [{"role": "user", "content": row["prompt"]}]},
    lambda row, answer: {**row, "response": answer["choices"][0]["message"]["content"]},
    endpoint=f"{base}/v1",
    output=target,
    window=Auto() if concurrency == "auto" else Fixed(int(concurrency)),
    flush_every=1000,
    headers={"Authorization": "Bearer bench"},
    signal_source="none",
)
