"""What can go wrong: one tree, in which the type is the decision.

`BatchError` ends a run (or a command) and carries its exit code. `CallError` is one attempt that brought no answer:
`Transient` ones are worth another attempt, `Refused` and `TooLarge` ones end the row, `Denied` ones concern every row alike.
`RowError` is a row that cannot be asked.
"""

from __future__ import annotations

from signal import Signals
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .records import Hints


class BatchError(Exception):
    """Anything this project raises on purpose. Its text is one line for the person who reads it: place, finding, remedy.

    Example:
        >>> import batch
        >>> try:
        ...     job = batch.load("nowhere.toml")
        ... except batch.BatchError as error:
        ...     print(f"{error} (exit code {error.exit_status})")
        nowhere.toml: no such job file (exit code 2)
    """

    exit_code: ClassVar[int] = 70

    @property
    def exit_status(self) -> int:
        """The exit code of the contract."""
        return self.exit_code


class JobError(BatchError):
    """Usage, settings or input must be changed before the job can go on."""

    exit_code = 2


class InputError(JobError):
    """The input cannot be a table at all: no such column, not UTF-8, an unclosed quote."""


class StorageError(BatchError):
    """This machine's storage failed: disk full, I/O error, a file replaced under way."""

    exit_code = 3


class RunRefused(BatchError):
    """The server refuses the whole run: key, signature, certificate, redirect, no quota, or every row alike."""

    exit_code = 4


class JournalDamaged(BatchError):
    """The journal is damaged before its tail; `ails-batch repair` says what it can save."""

    exit_code = 5


class Halted(BatchError):
    """The run was stopped by a limit of its own: `--halt`, `--max-cost` or `--deadline`."""

    exit_code = 6


class TryLater(BatchError):
    """Nothing is wrong with the job; it cannot go on now."""

    exit_code = 75


class Busy(TryLater):
    """Another run holds the journal."""


class Outage(TryLater):
    """The server was away for longer than `--max-outage`."""


class InputChanged(TryLater):
    """The input's bytes changed under way; the old output stays."""


class Interrupted(BatchError):
    """A signal ended the run after its drain.

    Args:
        signum: The signal's number; the exit code is 128 + signum.
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {Signals(signum).name}")
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as a shell reports it."""
        return 128 + self.signum


class RowError(BatchError):
    """A row that cannot be asked; it becomes an error row of kind `input`, never a stop."""


class CallError(BatchError):
    """One attempt that brought no answer.

    Args:
        message: One line, without secrets, server text cut to 500 characters.
        status: The HTTP status, when there was one.
        seconds: What the attempt took, from just before the send.
        hints: What the response's headers said about limits and time, when there was a response.
    """

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, status: int | None = None, seconds: float = 0.0, hints: Hints | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds
        self.hints = hints


class Transient(CallError):
    """Worth another attempt."""

    kind = "transient"


class Unreachable(Transient):
    """No connection came about: refused, DNS, connect timeout. Nothing was sent."""


class Dropped(Transient):
    """The connection was lost after the request went out: reset, half a body, a bad chunk."""


class TimedOut(Transient):
    """The attempt's deadline passed, or the server sent nothing for too long."""


class Throttled(Transient):
    """429 or 503: the server asks everybody to slow down; `hints.retry_after` says for how long, when it said so."""


class ServerFault(Transient):
    """408, 425, 500, 502, 504: the server failed at this request."""


class BadBody(Transient):
    """A 2xx response that holds no answer: HTML, empty, half, NaN, too deep, no choices."""

    kind = "bad_body"


class Refused(CallError):
    """A 4xx that will not change: the row is at fault."""

    kind = "refused"


class TooLarge(CallError):
    """The request passes the token limit, or the response the size cap."""

    kind = "too_large"


class Denied(CallError):
    """The server refuses this client, not this row: 401, 403, 402, no quota, a redirect, a bad certificate.

    Args:
        at_once: True where one such response is proof enough to end the run (certificate, redirect, plain HTTP on a TLS port);
            otherwise the run ends after three in a row.
    """

    kind = "pending"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        seconds: float = 0.0,
        hints: Hints | None = None,
        at_once: bool = False,
    ) -> None:
        super().__init__(message, status=status, seconds=seconds, hints=hints)
        self.at_once = at_once


class Skewed(Denied):
    """A 401 whose `Date` header shows that this machine's clock is off; corrected once, then `Denied`."""


def installed_by(extra: str) -> str:
    """How somebody installs an extra of this project, in words."""
    return f"pip install 'ails-batch[{extra}]', in a clone pip install '.[{extra}]'"
