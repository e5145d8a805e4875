"""Prints how `--concurrency auto` does on the twenty drawn servers: `python -m tests.benchmarks.controller [seconds]`."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.pace.judged import DRAWS, SECONDS, judge

HEAD = "| draw | capacity | server | best/s | auto/s | share | 2nd half | in flight | refused | at the end |"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(
        f"{seconds:.0f} simulated seconds each, from the first request on\n\n{HEAD}\n|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    with ProcessPoolExecutor() as pool:
        for v in pool.map(partial(judge, seconds=seconds), range(1, DRAWS + 1)):
            print(
                f"| {v.number} | {v.capacity} | {v.words} | {v.best:.1f} | {v.rate:.1f} | {v.share:.3f} "
                f"| {v.settled:.3f} | {v.peak:.1f}x | {100 * v.wasted:.2f} % | {v.size} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
