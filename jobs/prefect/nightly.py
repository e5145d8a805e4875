r"""A nightly run as a Prefect flow (Prefect 3): exit code 75 is tried again, others fail, the summary is the flow's result.

Prefect and ails-batch live in two environments; the task calls the other one's command.

    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=120 \
        python jobs/prefect/nightly.py /home/you/nightly/nightly.toml /home/you/nightly/.venv/bin/ails-batch
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

TRY_LATER = 75


class RunFailedError(RuntimeError):
    """A run that ended with another exit code than 0."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"exit code {code}: {words}")
        self.code = code


def is_worth_another_try(_: object, __: TaskRun, state: State[Any]) -> bool:
    """Only what ended with 75: the server was away, or another run was under way."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RunFailedError) and error.code == TRY_LATER


@task(retries=3, retry_delay_seconds=900, retry_condition_fn=is_worth_another_try)
def answer(job: str, command: str = "ails-batch") -> dict[str, Any]:
    """Run a job file; another try sends only what is missing."""
    done = subprocess.run([command, "run", job], capture_output=True, text=True, check=False)  # noqa: S603 (the operator's words)
    if done.returncode:
        raise RunFailedError(done.returncode, done.stderr.strip())
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


@flow
def nightly(job: str, command: str = "ails-batch") -> dict[str, Any]:
    """Answer what is new; what follows takes the summary."""
    return answer(job, command)


if __name__ == "__main__":
    nightly(*sys.argv[1:])
    # Every night: nightly.serve(cron="30 2 * * *", parameters={"job": …, "command": …})
