"""A DAG in which each task fails in another way.

The operator and the credentials are those of docs/airflow.md.
"""

import json
import os
from datetime import timedelta

from airflow.sdk import DAG  # type: ignore[import-not-found]
from recipe import CREDENTIALS, DatapilotOperator  # type: ignore[import-not-found]

DIRECTORY = os.environ["SHOP_DIRECTORY"]
ONBOARD = "datapilot dbt onboard --integration-id 1 --json"
RETRIED = {"retries": 2, "retry_delay": timedelta(seconds=0)}
COMMON = {"append_env": True, "env": CREDENTIALS, "output_processor": json.loads}

with DAG("faults", schedule=None, catchup=False):
    DatapilotOperator(
        task_id="rejected",
        bash_command=f"{ONBOARD} --manifest-path {DIRECTORY}/broken.json",
        **COMMON,
        **RETRIED,
    )
    DatapilotOperator(
        task_id="relative",
        bash_command=f"{ONBOARD} --manifest-path target.json",
        **COMMON,
        **RETRIED,
    )
    DatapilotOperator(
        task_id="unavailable",
        bash_command=f"{ONBOARD} --manifest-path {DIRECTORY}/new.json --timeout 5",
        **{**COMMON, "env": {**CREDENTIALS, "ALTIMATE_URL": os.environ["DEAD_URL"]}},
        **RETRIED,
    )
    DatapilotOperator(
        task_id="unchanged",
        bash_command=f"{ONBOARD} --manifest-path {DIRECTORY}/old.json --exit-code-unchanged 99",
        **COMMON,
        **RETRIED,
    )
    DatapilotOperator(
        task_id="killed",
        bash_command=f"trap : TERM; {ONBOARD} --manifest-path {DIRECTORY}/new.json; "
        f"echo $? > {DIRECTORY}/code",
        execution_timeout=timedelta(seconds=5),
        **{**COMMON, "env": {**CREDENTIALS, "ALTIMATE_URL": os.environ["SILENT_URL"]}},
    )
