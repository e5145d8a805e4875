"""llm-batch-runner: `LLMBatchRunner.run`, threads, one cache file a row (its way of resuming)."""

# mypy: disable-error-code="import-not-found, import-untyped"
import json
import sys
from pathlib import Path

from llm_batch_runner import LLMBatchRunner

source, target, base, concurrency = sys.argv[1:]

with Path(source).open(encoding="utf-8") as lines:
    messages = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
runner = LLMBatchRunner(
    base_model=None,
    messages=messages,
    max_workers=int(concurrency),
    client_config={"api_key": "bench", "base_url": f"{base}/v1"},
    model_name="bench-model",
    cache_dir=f"{target}.cache",
    show_progress=False,
)
results = runner.run()
with Path(target).open("w", encoding="utf-8") as out:
    for result in results:
        out.write(json.dumps({"prompt": result["conversation"][0]["content"], "response": result["output"]}) + "\n")
if failed := sum(not result["success"] for result in results):
    sys.exit(f"{failed} rows failed")
