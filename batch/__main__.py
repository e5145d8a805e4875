"""The console script, and `python -m batch`."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and exit with the contract's code."""
    if sys.platform == "win32":
        sys.exit("ails-batch: Windows is not supported (the journal needs flock and fdatasync); use WSL")
    from .cli import command_line

    code = command_line()
    gc.freeze()  # on its way out Python would look through all that is left for cycles, for up to a tenth of a second
    sys.exit(code)


if __name__ == "__main__":
    main()
