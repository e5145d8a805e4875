"""The console script, and `python -m batch`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with the contract's code."""
    if sys.platform == "win32":
        sys.exit("ails-batch: Windows is not supported (the journal needs flock and fdatasync); use WSL")
    from .cli import command_line

    sys.exit(command_line())


if __name__ == "__main__":
    main()
