"""A ping for a service that misses a run which does not come: `/start`, then `/<exit code>`.

The convention is that of https://healthchecks.io/docs/signaling_failures/ and of those who follow it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ..client.address import loopback
from ..errors import JobError
from ..exact import dumps

TRIES = 3
PAUSE = 0.5
TIMEOUT = (2.0, 2.0)
"""Seconds to connect, and to wait for the answer."""

PATIENCE = 5.0
"""Seconds that the end of a run waits for its last ping, at most."""

LONGEST = 100_000
"""Bytes of a body; healthchecks.io keeps so many."""


class Ping:
    """Pings from a thread of its own, so that a slow service holds up nothing but the end, and that not for long.

    Args:
        url: The check's address, `https` unless it is this machine's. Whoever knows it can ping, so it is never shown.

    Raises:
        JobError: It is no such address.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url.strip())
            host = parts.hostname or ""
        except ValueError:
            host = ""
        if not host or not (parts.scheme == "https" or (parts.scheme == "http" and loopback(host))):
            raise JobError("ping: the URL must look like https://host/uuid (plain http only to this machine)")
        self._parts = parts
        self._host = host
        self._queue: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ping", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """The run begins; returns at once."""
        self._queue.put(("start", b""))

    def end(self, code: int, told: dict[str, Any]) -> None:
        """The run is over.

        Args:
            code: Its exit code.
            told: Plain data for the body, without prompts or answers.
        """
        self._ending.set()
        self._queue.put((str(code), dumps(told)[:LONGEST]))
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            word, body = self._queue.get()
            last = word != "start"
            said = ""
            for nth in range(TRIES):
                said = self._post(word, body)
                if not said or nth + 1 == TRIES or (self._ending.is_set() and not last):
                    break
                time.sleep(PAUSE * 2**nth)
            if last and said:
                logging.getLogger("batch").warning("ping: %s did not take /%s: %s", self._host, word, said)
            if last:
                return

    def _post(self, word: str, body: bytes) -> str:
        """Post once; what went wrong, or ""."""
        import requests  # here, because a run without a ping may not need it so early

        url = self._parts._replace(path=f"{self._parts.path.rstrip('/')}/{word}", fragment="").geturl()
        try:
            with requests.Session() as session:
                session.trust_env = not loopback(self._host)
                response = session.post(
                    url,
                    data=body,
                    headers={"content-type": "application/json", "user-agent": "ails-batch"},
                    timeout=TIMEOUT,
                    allow_redirects=False,
                    auth=lambda request: request,  # or requests would look into ~/.netrc
                    stream=True,  # its body tells nothing
                )
                return "" if 200 <= response.status_code < 300 else f"status {response.status_code}"
        except (OSError, ValueError) as error:
            return type(error).__name__  # its words hold the URL
