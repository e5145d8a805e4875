"""`ails-batch convert`: a file of prompts or answers in another format."""

from __future__ import annotations

import sys

import click

from . import say


@click.command()
@click.argument("source", metavar="IN", type=click.Path())
@click.argument("target", metavar="OUT", type=click.Path())
@click.option("--from", "source_format", metavar="FORMAT", default="", help="By default from the suffix and the first line.")
@click.option("--to", "target_format", metavar="FORMAT", default="", help="By default from the suffix.")
@click.option("--encoding", metavar="NAME", default="utf-8", help="Of CSV and TSV; utf-8 by default.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what could not be carried over; the exit code does.")
def command(source: str, target: str, source_format: str, target_format: str, encoding: str, quiet: bool) -> int:
    """Write IN in another format as OUT ('-' for standard input and output).

    \b
    Tables:   csv, tsv, jsonl, parquet
    Requests: openai-batch, anthropic, bedrock
    Results:  openai-results, vllm-results, anthropic-results, bedrock-results

    Tables and requests become each other, and so do tables and results. What could not be carried over is counted on standard
    error, with the first place of each kind.

    \b
    Exit codes: 0 everything arrived, 1 something did not, 2 the formats do not fit or a file cannot be used.
    """
    from ..conversion import convert
    from ..exact import dumps

    report = convert(source, target, source_format=source_format, target_format=target_format, encoding=encoding)
    for what, count in report.lost.items():
        if not quiet:
            say(f"not carried over: {what}: {count} times, first in {report.first[what]}")
    if target != "-":
        line = {"rows": report.rows, "from": report.source_format, "to": report.target_format, "lost": report.lost}
        sys.stdout.buffer.write(dumps(line | {"output": target, "exit_code": report.exit_code}) + b"\n")
        sys.stdout.buffer.flush()
    return report.exit_code
