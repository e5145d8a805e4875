"""The console script, and `python -m batch`."""

from __future__ import annotations

import gc
import os
import sys
import threading


def main() -> None:
    """Run the command line and exit with the contract's code."""
    if sys.platform == "win32":
        sys.exit("ails-batch: Windows is not supported (the journal needs flock and fdatasync); use WSL")
    # Imports make objects by the ten thousand and drop none: to look for cycles among them takes longer than some imports.
    gc.disable()
    from .cli import command_line

    gc.freeze()
    gc.enable()
    code = command_line()
    _leave(code)


def _leave(code: int) -> None:
    """End the process without taking all that is left in it apart first, object by object, for up to a tenth of a second."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        sys.exit(code)  # which says what could not be written, and with which code
    if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
        os._exit(code)
    gc.freeze()  # Python would look through all of that for cycles, too
    sys.exit(code)


if __name__ == "__main__":
    main()
