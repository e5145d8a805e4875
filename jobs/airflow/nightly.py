"""A nightly run as an Airflow DAG (Airflow 3, or 2.10): the exit code becomes the task's state, the summary its XCom.

Airflow and ails-batch live in two environments; the task calls the other one's command. Two environment variables of the
workers tell where job and command are: AILS_BATCH_JOB and AILS_BATCH.

    airflow dags test nightly_answers
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

# The command prints one line, its summary; BashOperator makes the last line printed the task's XCom.
ANSWER = """
"${AILS_BATCH:-ails-batch}" run "$AILS_BATCH_JOB"
"""


@task
def report(summary: dict[str, Any]) -> str:
    """In the place of whatever is done with the answers: say how many there are."""
    return f"{summary['ok']} of {summary['rows']} rows are answered in {summary['output']}, {summary['requests']} requests"


with DAG(
    "nightly_answers",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    answer = BashOperator(
        task_id="answer",
        bash_command=ANSWER,
        output_processor=json.loads,
        # Another try sends only what is missing, so trying again costs nothing where it does not help.
        retries=int(os.environ.get("AILS_BATCH_RETRIES", "3")),
        retry_delay=timedelta(minutes=15),
        execution_timeout=timedelta(hours=8),
    )
    report(answer.output)
