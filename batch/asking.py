"""One prompt to one `Outcome`: attempts, backoff, and the only place where an exception becomes data."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from hashlib import blake2b

import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_random_exponential

from .answers import Schema, Unfit
from .client.underway import Underway
from .clock import SYSTEM, Clock
from .errors import BatchError, CallError, Denied, Transient
from .pace import Pace, Place, Stopped, Turn
from .records import Answer, Attempt, Failure, Outcome, Prompt, Reply

BACKOFF = wait_random_exponential(multiplier=0.5, max=20)
"""Full jitter, U(0, min(20, 0.5 · 2^n)) seconds: Brooker, "Exponential Backoff And Jitter" (2015)."""


class Asking:
    """Asks prompts, each until it has an answer, is refused, or has used up its attempts.

    Args:
        call: Sends one attempt: `Client.call`.
        pace: Says when, and whether a failed attempt counts against the row (an outage's do not).
        attempts: How many attempts a row may use up, the first included.
        sending: Called with the prompt just before its first request, so that it can be marked as in flight.
        attempted: Called with every `Attempt`, and `first=` whether it was its row's first.
        journal_id: Folded into the `Idempotency-Key`, which stays the same over attempts and resumed runs.
        stopping: Cuts a backoff short.
        schema: What answers must fit.
        repair: How often a row may be asked again because its answer does not fit.
        unfit: Called with every answer that does not fit: it was paid for, too.
    """

    def __init__(
        self,
        call: Callable[..., Reply],
        pace: Pace,
        *,
        attempts: int = 5,
        sending: Callable[[Prompt], None] = lambda prompt: None,
        attempted: Callable[..., None] = lambda attempt, first: None,
        journal_id: bytes = b"",
        stopping: threading.Event | None = None,
        schema: Schema | None = None,
        repair: int = 0,
        unfit: Callable[[Answer], None] = lambda answer: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.call = call
        self.pace = pace
        self.attempts = attempts
        self.sending = sending
        self.attempted = attempted
        self.journal_id = journal_id
        self.stopping = stopping or threading.Event()
        self.sleep = sleep_using_event(self.stopping)
        self.schema = schema
        self.repair = repair
        self.unfit = unfit
        self.clock = clock

    def __call__(self, prompt: Prompt) -> Outcome:
        """The prompt's outcome.

        Raises:
            Denied: The server refuses this client, not this row.
            BatchError: The run is to end: it was stopped, or the server was away for too long.
        """
        return self.go_on(Asked(self, prompt))

    def go_on(self, one: Asked) -> Outcome:
        """See a prompt to its end, from wherever it is.

        Raises:
            Denied, BatchError: As by `__call__`.
        """
        while (end := self._outcome(one, self._retrying)) is None:
            pass
        return end

    def take(self, one: Asked) -> Outcome | None:
        """Take the answer of the attempt that is under way; None where that is not the prompt's end, for `go_on` to wait.

        Raises:
            Denied, BatchError: As by `__call__`.
        """
        return self._outcome(one, self._once)

    def _outcome(self, one: Asked, work: Callable[[Asked], Answer | Failure | None]) -> Outcome | None:
        try:
            end = work(one)
            return None if end is None else one.outcome(end)
        except Denied:
            raise
        except CallError as error:
            return one.outcome(error)
        except BatchError:
            raise
        except Exception as error:
            return one.outcome(Failure("internal", f"a bug: {type(error).__name__}: {error}"[:500]))

    def _attempt(self, one: Asked) -> Answer | Failure | None:
        """One attempt, or the rest of the one that is under way."""
        turn, under = one.turn or one.begin(), one.under
        one.turn = one.under = None
        call = partial(self.call, under=under) if under else self.call
        try:
            reply = call(one.prompt, idempotency_key=one.idempotency_key)
        except CallError as error:
            one.failed(turn, error)
            raise
        except BaseException:
            turn.cancel()
            raise
        return one.answered(turn, reply)

    def _once(self, one: Asked) -> Answer | Failure | None:
        """The next attempt; where it is `Transient`, that is left in `one`, and nothing comes of it."""
        try:
            return self._attempt(one)
        except Transient as error:
            one.transient = error
            return None

    def _retrying(self, one: Asked) -> Answer | Failure | None:
        """Attempts until one ends other than `Transient`; tenacity sees only prompts that need it, for it costs time."""
        if not one.transient:
            end = self._once(one)
            if not one.transient:
                return end

        def failed_once() -> Answer | Failure | None:
            if error := one.transient:
                one.transient = None
                raise error
            return self._attempt(one)

        retrying = Retrying(
            retry=retry_if_exception_type(Transient), stop=one.used_up, wait=one.backoff, sleep=self.sleep, reraise=True
        )
        return retrying(failed_once)


class Asked:
    """One prompt's attempts so far.

    Attributes:
        prompt: What is sent next: the row's own request, or the one that asks again for an answer that fits.
        attempts: The requests that were sent.
        turn: Taken for the next attempt, or None.
        under: The next attempt, where it was begun: see `Client.start`.
        transient: How the last attempt ended, where nothing followed from that yet.
    """

    def __init__(self, asking: Asking, prompt: Prompt) -> None:
        self.prompt = prompt
        self.attempts: list[Attempt] = []
        self.turn: Turn | None = None
        self.under: Underway | None = None
        self.transient: Transient | None = None
        self._asking = asking
        self._place: Place | None = None
        self._started = 0.0
        self._repairs = 0
        self._spent = 0
        self._unfit: Failure | None = None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at one request for this row of this journal, and for no other."""
        repair = self._repairs.to_bytes(4, "big") if self._repairs else b""
        return blake2b(self._asking.journal_id + self.prompt.id + repair, digest_size=16).hexdigest()

    def begin(self) -> Turn:
        """Wait until one attempt may be sent.

        Raises:
            BatchError: The run is to end.
            TooLarge: The request never may.
        """
        self._look()
        return self._begun(self._asking.pace.turn(self.prompt.tokens))

    def begins(self, wake: Callable[[], object]) -> float | None:
        """Take the turn for one attempt without waiting.

        Args:
            wake: Called, from any thread, when it is worth asking again before the time that was told.

        Returns:
            None with `turn` taken, else the seconds after which to ask again.

        Raises:
            BatchError, TooLarge: As by `begin`.
        """
        if not self._place:
            self._look()
            self._place = self._asking.pace.place(self.prompt.tokens, wake)
        turn = self._place.turn()
        if not isinstance(turn, Turn):
            return turn
        self._place = None
        self.turn = self._begun(turn)
        return None

    def _look(self) -> None:
        if self._asking.stopping.is_set():
            raise Stopped("the run is being stopped")

    def _begun(self, turn: Turn) -> Turn:
        try:
            if not self._started:
                self._asking.sending(self.prompt)
                self._started = self._asking.clock.time()
        except BaseException:
            turn.cancel()
            raise
        return turn

    def give_back(self) -> None:
        """What `turn` stands for was not made use of."""
        if self.turn:
            self.turn.cancel()
            self.turn = None

    def answered(self, turn: Turn, reply: Reply) -> Answer | Failure | None:
        """The attempt brought an answer; None where it does not fit, and `prompt` now asks for one that does."""
        # The answer is paid for, whatever becomes of the limits' bookkeeping; the next turn will say what is wrong with that.
        with contextlib.suppress(BatchError):
            turn.done(reply)
        answer, schema = reply.answer, self._asking.schema
        try:
            if schema:
                schema.fit(answer)
        except Unfit as unfit:
            assert schema
            self._count(Attempt(answer.status, reply.seconds, "bad_answer"))
            self._asking.unfit(answer)
            self._unfit = Failure("bad_answer", str(unfit), answer.status, answer.body)
            if self._repairs >= self._asking.repair:
                return self._unfit
            self._repairs += 1
            self._spent = self._charged
            self.prompt = schema.again(self.prompt, answer, unfit)
            return None
        self._count(Attempt(answer.status, reply.seconds))
        return answer

    def failed(self, turn: Turn, error: CallError) -> None:
        """The attempt brought none."""
        self._count(Attempt(error.status, error.seconds, error.kind, charged=turn.failed(error)))

    def used_up(self, _: RetryCallState | None = None) -> bool:
        """Whether the request has no attempts left; one that asks again has as many as the first."""
        return self._charged - self._spent >= self._asking.attempts

    def backoff(self, state: RetryCallState) -> float:
        """Seconds until the next attempt; none after an uncharged one, for an outage is waited for at the gate by all rows."""
        return BACKOFF(state) if self.attempts and self.attempts[-1].charged else 0.0

    def outcome(self, end: Answer | Failure | CallError) -> Outcome:
        """The row's end."""
        if isinstance(end, CallError) and self._unfit and not isinstance(end, Transient):
            end = msgspec.structs.replace(self._unfit, message=f"{self._unfit.message}; asked again: {end}"[:500])
        result = Failure(end.kind, str(end), end.status) if isinstance(end, CallError) else end  # type: ignore[arg-type]
        prompt = self.prompt
        return Outcome(prompt.index, prompt.key, prompt.occurrence, result, tuple(self.attempts), self._started)

    @property
    def _charged(self) -> int:
        return sum(attempt.charged for attempt in self.attempts)

    def _count(self, attempt: Attempt) -> None:
        self._asking.attempted(attempt, first=not self.attempts)
        self.attempts.append(attempt)
