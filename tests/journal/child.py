"""A run without a server, to be killed or starved: `python -m tests.journal.child JOURNAL FIRST COUNT WORKERS [BYTES]`.

Says on stdout, a line each, what it sent (`+17`) and what it counts as done (`=17`), each before it goes on; then `end`, or
`failed` and the error.
"""

from __future__ import annotations

import os
import sys
import threading

from batch.errors import BatchError
from batch.journal import Journal
from batch.records import Outcome

from . import answered, key


def say(text: str) -> None:
    os.write(1, text.encode())


def main() -> int:
    path, first, count, workers, size = sys.argv[1], *map(int, [*sys.argv[2:5], *(sys.argv[5:] or ["700"])])
    window = threading.Semaphore(workers)
    stopped = threading.Event()

    def durable(outcomes: list[Outcome]) -> None:
        say("".join(f"={outcome.index}\n" for outcome in outcomes))
        window.release(len(outcomes))

    def failed(_: BatchError) -> None:
        stopped.set()
        window.release(workers)

    def work() -> None:
        for number in numbers:
            window.acquire()
            if stopped.is_set():
                return
            journal.mark(key(number), number)
            say(f"+{number}\n")
            try:
                journal.append(answered(number, str(number) + "x" * size))
            except BatchError:
                return

    numbers = iter(range(first, first + count))
    try:
        with Journal.open(path) as journal:
            journal.on_durable, journal.on_failed = durable, failed
            journal.begin({})
            threads = [threading.Thread(target=work) for _ in range(workers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            journal.flush()
            journal.end({})
    except BatchError as error:
        say(f"failed {type(error).__name__} {error}\n")
        return error.exit_code
    say("end\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
