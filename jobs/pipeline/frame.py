"""A job from pandas to pandas, in any script or notebook.

python jobs/pipeline/frame.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd

import batch

prompts = pd.DataFrame({"id": ["007", "008"], "text": ["What is the capital of France?", "What is the capital of Japan?"]})

with tempfile.TemporaryDirectory() as folder:
    given, answered = Path(folder, "given.csv"), Path(folder, "answered.csv")
    prompts.to_csv(given, index=False)
    summary = batch.run(
        batch.Job(
            input=str(given),
            output=str(answered),
            template="{{ text }} Answer with one word.",
            endpoint="embedded",
            parameters={"max_tokens": 8, "temperature": 0},
        )
    )
    if summary.exit_code:
        raise SystemExit(f"{summary.failed} rows failed, {summary.pending} are not answered: {summary.error}")
    frame = pd.read_csv(answered, dtype={"id": str})

pd.testing.assert_series_equal(frame["id"], prompts["id"])  # one row for every row, in their order
frame[["id", "text", "response"]].to_csv(sys.stdout, index=False)
