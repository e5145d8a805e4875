"""One prompt to one `Outcome`: attempts, backoff, and the only place where an exception becomes data."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import blake2b

from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_random_exponential

from .client import Client
from .clock import SYSTEM, Clock
from .errors import BatchError, CallError, Denied, Transient
from .pace import Pace
from .records import Answer, Attempt, Failure, Outcome, Prompt

BACKOFF = wait_random_exponential(multiplier=0.5, max=20)
"""Full jitter, U(0, min(20, 0.5 · 2^n)) seconds: Brooker, "Exponential Backoff And Jitter" (2015)."""


class Asking:
    """Asks prompts, each until it has an answer, is refused, or has used up its attempts.

    Args:
        client: Sends one attempt.
        pace: Says when, and whether a failed attempt counts against the row (an outage's do not).
        attempts: How many attempts a row may use up, the first included.
        sending: Called with the prompt just before its first request, so that it can be marked as in flight.
        attempted: Called with every `Attempt`, and `first=` whether it was its row's first.
        journal_id: Folded into the `Idempotency-Key`, which stays the same over attempts and resumed runs.
        stopping: Cuts a backoff short.
    """

    def __init__(
        self,
        client: Client,
        pace: Pace,
        *,
        attempts: int = 5,
        sending: Callable[[Prompt], None] = lambda prompt: None,
        attempted: Callable[..., None] = lambda attempt, first: None,
        journal_id: bytes = b"",
        stopping: threading.Event | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._client = client
        self._pace = pace
        self._attempts = attempts
        self._sending = sending
        self._attempted = attempted
        self._journal_id = journal_id
        self._sleep = sleep_using_event(stopping or threading.Event())
        self._clock = clock

    def __call__(self, prompt: Prompt) -> Outcome:
        """The prompt's outcome.

        Raises:
            Denied: The server refuses this client, not this row.
            BatchError: The run is to end: it was stopped, or the server was away for too long.
        """
        one = _One(self, prompt)
        retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            stop=one.used_up,
            wait=one.backoff,
            sleep=self._sleep,
            reraise=True,
        )
        result: Answer | Failure
        try:
            result = retrying(one.attempt)
        except Denied:
            raise
        except CallError as error:
            result = Failure(error.kind, str(error), error.status)  # type: ignore[arg-type]
        except BatchError:
            raise
        except Exception as error:
            result = Failure("internal", f"a bug: {type(error).__name__}: {error}"[:500])
        return Outcome(prompt.index, prompt.key, prompt.occurrence, result, tuple(one.attempts), one.started)

    def idempotency_key(self, prompt: Prompt) -> str:
        """The same for every attempt at this row of this journal, and for no other row."""
        return blake2b(self._journal_id + prompt.id, digest_size=16).hexdigest()


class _One:
    """One prompt's attempts."""

    def __init__(self, asking: Asking, prompt: Prompt) -> None:
        self._asking = asking
        self._prompt = prompt
        self._key = asking.idempotency_key(prompt)
        self.attempts: list[Attempt] = []
        self.started = 0.0

    def attempt(self) -> Answer:
        asking, prompt = self._asking, self._prompt
        turn = asking._pace.turn(prompt.tokens)
        if not self.started:
            self.started = asking._clock.time()
            asking._sending(prompt)
        try:
            reply = asking._client.call(prompt, idempotency_key=self._key)
        except CallError as error:
            charged = turn.failed(error)
            self._count(Attempt(error.status, error.seconds, error.kind, charged))
            raise
        except BaseException:
            turn.cancel()
            raise
        turn.done(reply)
        self._count(Attempt(reply.answer.status, reply.seconds))
        return reply.answer

    def _count(self, attempt: Attempt) -> None:
        self._asking._attempted(attempt, first=not self.attempts)
        self.attempts.append(attempt)

    def used_up(self, _: RetryCallState) -> bool:
        return sum(attempt.charged for attempt in self.attempts) >= self._asking._attempts

    def backoff(self, state: RetryCallState) -> float:
        # What an outage costs is waited for at the gate, by all rows together.
        return BACKOFF(state) if self.attempts and self.attempts[-1].charged else 0.0
