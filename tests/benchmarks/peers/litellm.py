"""litellm: `batch_completion`, a thread pool over a list; with the package's own cost map, not the network's."""

# mypy: disable-error-code="import-not-found, import-untyped"
import json
import os
import sys
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

source, target, base, concurrency = sys.argv[1:]

litellm.telemetry = False
with Path(source).open(encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
answers = litellm.batch_completion(
    model="openai/bench-model",
    messages=[[{"role": "user", "content": row["prompt"]}] for row in rows],
    api_base=f"{base}/v1",
    api_key="bench",
    max_workers=int(concurrency),
    num_retries=5,
)
with Path(target).open("w", encoding="utf-8") as out:
    for row, answer in zip(rows, answers, strict=True):
        text = None if isinstance(answer, Exception) else answer.choices[0].message.content
        out.write(json.dumps({**row, "response": text}) + "\n")
if failed := sum(isinstance(answer, Exception) for answer in answers):
    sys.exit(f"{failed} rows failed")
