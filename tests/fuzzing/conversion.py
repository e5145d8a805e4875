"""Converting: any bytes become any format or are refused in words, and what is not reported as lost comes back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from batch import exact, formats
from batch.conversion import FORMATS, convert
from batch.errors import BatchError

from . import batch_lines, delimited, jsonl

TABLES = ("csv", "tsv", "jsonl")
REQUESTS = ("openai-batch", "anthropic", "bedrock")
READ = [form for form in FORMATS if form != "parquet"]
SEEDS = [
    *(
        bytes([16 * write + READ.index(form)]) + seed[1:]
        for form, seed in (("csv", delimited.SEEDS[4]), ("jsonl", jsonl.SEEDS[0]))
        for write in (0, 1, 2)
    ),
    *(bytes([16 * write + READ.index("openai-batch")]) + batch_lines.SEEDS[0] for write in range(6)),
    *(bytes([16 * write + READ.index("openai-results")]) + seed for write in (2, 6, 8, 9) for seed in batch_lines.SEEDS[2:6]),
    *(bytes([16 * write + READ.index("anthropic-results")]) + seed for write in (2, 6) for seed in batch_lines.SEEDS[6:8]),
    bytes([16 * 2 + READ.index("bedrock-results")]) + batch_lines.SEEDS[8],
    bytes([16 * 3 + READ.index("anthropic")]) + b'{"custom_id":"a","params":{"model":"m","max_tokens":9,"system":"s",'
    b'"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}}',
    bytes([16 * 3 + READ.index("bedrock")])
    + b'{"recordId":"a","modelInput":{"anthropic_version":"x","max_tokens":9,"messages":[]}}',
    bytes([16 * 3 + READ.index("csv")]) + b'prompt,model,max_tokens,stop,extra_body\nx,m,9,"[""a""]",{}\ny,,1.50,,\n',
]
WORDS = [
    *batch_lines.WORDS,
    *(b'"%s":' % name for name in b"params max_tokens system temperature stop tools role user".split()),
]


def check(data: bytes) -> None:
    """The first byte tells the two formats; the others are the file."""
    options, data = data[0] if data else 0, data[1:]
    read, write = READ[(options & 15) % len(READ)], READ[(options >> 4) % len(READ)]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        there, target, back = (f"{folder}/{name}" for name in ("there", "target", "back"))
        Path(there).write_bytes(data)
        try:
            report = convert(there, target, source_format=read, target_format=write)
        except BatchError as error:
            assert "\n" not in str(error) or "\\n" in str(error)
            return
        if report.exit_code:
            assert all(report.lost.values()) and report.lost.keys() == report.first.keys()
            return
        convert(target, back, source_format=write, target_format=read)
        before, after = values(there, read), values(back, read)
        assert len(before) == len(after) == report.rows
        if read in TABLES and write in TABLES:
            assert list(map(exact.dumps, before)) == list(map(exact.dumps, after))
        elif read in REQUESTS and (read != "bedrock" or all("anthropic_version" in row["modelInput"] for row in before)):
            assert before == after


def values(path: str, form: str) -> list[Any]:
    """What the rows of a file say."""
    with formats.source(path, format=form if form in formats.READERS else "jsonl") as source:
        return [row.values for chunk in source.chunks() for row in chunk.rows()]
