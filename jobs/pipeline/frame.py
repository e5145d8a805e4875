"""From a pandas frame to a pandas frame, in any script or notebook.

python jobs/pipeline/frame.py
"""

from __future__ import annotations

import sys

import pandas as pd

import batch

prompts = pd.DataFrame({"id": ["007", "008"], "text": ["What is the capital of France?", "What is the capital of Japan?"]})

answered = batch.run_frame(
    prompts,
    template="{{ text }} Answer with one word.",
    endpoint="embedded",
    parameters={"max_tokens": 8, "temperature": 0},
)

pd.testing.assert_frame_equal(answered[["id", "text"]], prompts)  # one row for every row, as they were and in their order
answered[["id", "text", "response"]].to_csv(sys.stdout, index=False)
