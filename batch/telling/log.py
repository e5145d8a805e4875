"""A log of JSON lines that survives its rotation."""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, datetime
from typing import Any

from ..errors import JobError
from ..exact import dumps


class Log:
    """Appends one JSON object a line, each with its `time` (UTC) and `event`.

    Before every line it looks whether the file still stands at its path; after a rotation it goes on in the new one.

    Args:
        path: The file, made with mode 0600 where there is none.

    Raises:
        JobError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._failed = False
        try:
            self._open()
        except OSError as error:
            raise JobError(f"log_file {path}: {error.strerror}; name a file that can be written") from None

    def write(self, event: str, **members: Any) -> None:
        """Append one line; where that fails, say so once and go on without."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = dumps({"time": now, "event": event, "pid": os.getpid(), **members}) + b"\n"
        with self._lock:
            if self._failed:
                return
            try:
                self._follow()
                # One write a line: with O_APPEND the lines of several runs into one file stay whole.
                os.write(self._descriptor, line)
            except OSError as error:
                self._failed = True
                logging.getLogger("batch").warning("log_file %s: %s; going on without it", self.path, error.strerror)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            os.close(self._descriptor)
            self._failed = True

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self.path, flags, 0o600)
        found = os.fstat(self._descriptor)
        self._file = (found.st_dev, found.st_ino)

    def _follow(self) -> None:
        try:
            found = os.stat(self.path)  # noqa: PTH116 (a Path for each line costs more than the line)
        except FileNotFoundError:
            pass
        else:
            if (found.st_dev, found.st_ino) == self._file:
                return
        old = self._descriptor
        self._open()
        os.close(old)
