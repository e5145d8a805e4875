"""The DAG in a real Airflow and the flow in a real Prefect, by `make airflow` and `make prefect`; elsewhere skipped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batch.gateway.embedded import Embedded

from .conftest import known

ROOT = Path(__file__).parent.parent
AIRFLOW = os.environ.get("AIRFLOW_BIN", "")
PREFECT = os.environ.get("PREFECT_PYTHON", "")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job whose rows all have answers, called by a command of its own."""
    (tmp_path / "in.csv").write_text("id,prompt\n1,hello\n2,world\n")
    (tmp_path / "nightly.toml").write_text('input = "in.csv"\noutput = "out.csv"\nmax_outage = "1s"\n')
    (tmp_path / "ails-batch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batch "$@"\n')
    (tmp_path / "ails-batch").chmod(0o755)
    return tmp_path / "nightly.toml"


@pytest.mark.timeout(600)
@pytest.mark.skipif(not AIRFLOW, reason="AIRFLOW_BIN names no airflow command; see `make airflow`")
def test_exit_codes_become_airflow_states_and_the_summary_its_xcom(job: Path, echo: Embedded) -> None:
    home = job.parent / "airflow"
    (home / "dags").mkdir(parents=True)
    (home / "dags/nightly.py").write_text((ROOT / "jobs/airflow/nightly.py").read_text())
    environment = {
        **known(echo),
        "PATH": os.environ["PATH"],
        "HOME": str(job.parent),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AILS_BATCH": str(job.parent / "ails-batch"),
        "AILS_BATCH_JOB": str(job),
        "AILS_BATCH_RETRIES": "0",
    }

    def airflow(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([AIRFLOW, *arguments], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert airflow("db", "migrate")[0] == 0
    code, said = airflow("dags", "test", "nightly_answers")
    assert code == 0, said
    assert re.search(r"DagRun Finished: .* state=success", said)
    # The second task got the first one's XCom, a summary.
    assert f"2 of 2 rows are answered in {job.parent}/out.csv, 2 requests" in said

    (job.parent / "in.csv").write_text("id,prompt\n1,hello\n2,world\n3,\n")
    code, said = airflow("dags", "test", "nightly_answers")
    assert code != 0
    assert re.search(r"DagRun Finished: .* state=failed", said)
    assert "1 of 3 rows failed (1 input)" in said
    assert "3 of 3 rows" not in said


@pytest.mark.timeout(600)
@pytest.mark.skipif(not PREFECT, reason="PREFECT_PYTHON names no Python with Prefect; see `make prefect`")
def test_exit_codes_become_prefect_states(job: Path, echo: Embedded) -> None:
    environment = {
        **known(echo),
        "PATH": os.environ["PATH"],
        "HOME": str(job.parent),
        "PREFECT_HOME": str(job.parent / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT / "jobs/prefect"),
    }
    # The flow as shipped, but for the quarter of an hour between two tries.
    code = (
        "import sys, json, nightly; nightly.answer.retry_delay_seconds = 1; nightly.answer.retries = 2;"
        "print(json.dumps(nightly.nightly(*sys.argv[1:])))"
    )

    def flow() -> tuple[int, str, str]:
        command = [PREFECT, "-c", code, str(job), str(job.parent / "ails-batch")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    code_, out, err = flow()
    assert code_ == 0, err
    assert json.loads(out.splitlines()[-1])["ok"] == 2

    (job.parent / "in.csv").write_text("id,prompt\n1,hello\n2,world\n3,\n")
    code_, out, err = flow()
    assert code_ != 0
    assert "exit code 1: ails-batch: 1 of 3 rows failed" in err
    assert "Retry" not in err + out

    (job.parent / "in.csv").write_text("id,prompt\n1,hello\n2,world\n3,later\n")
    environment["AILS_BASE_URL"] = "http://127.0.0.1:9"
    code_, out, err = flow()
    assert code_ != 0
    assert "exit code 75: " in err
    assert "Retry 2/2" in err + out
