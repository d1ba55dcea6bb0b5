"""Check that every key the environment needs is set and has not expired, every day at 05:30 UTC.

Runs `ssmd key verify`. No value is ever shown.

- **It failed with exit code 3**: a required key is missing or has expired. The message names it and the command that
  sets it; services that run keep the value they have until then.
"""

from datetime import timedelta

from airflow.sdk import DAG
from ssmd_days import ENVIRONMENT, by_clock, present_day
from ssmd_tasks import feed_param, house, ssmd_task

with DAG(
    "key_verification",
    schedule=by_clock("30 5 * * *"),
    tags=["ssmd", "impact/capture"],
    dagrun_timeout=timedelta(minutes=20),
    params={"feed": feed_param()},
    **house(__doc__, present_day),
):
    ssmd_task("verify_keys", ["key", "verify", ENVIRONMENT.name], execution_timeout=timedelta(minutes=2))
