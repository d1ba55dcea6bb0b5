"""Prove that the checks of yesterday ran: the dead man's switch of the others, every day at 06:00 UTC.

Runs `ssmd quality ran`. A check that was never started, was killed, or could not look at what it is for leaves no trace
of its own; this one finds that it is missing.

- **It failed with exit code 3**: its log has a line for each check that did not run, and the command that runs it now.
- **It has no run at all today**: Airflow itself was away. The metric `ssmd_check_age_seconds` of the gateway says the
  same without Airflow.
"""

from datetime import timedelta

from airflow.sdk import DAG
from ssmd_days import by_clock, ended_days
from ssmd_tasks import DAY, FEED, date_param, feed_param, house, ssmd_task

with DAG(
    "checks_ran",
    schedule=by_clock("0 6 * * *", about=timedelta(days=1)),
    tags=["ssmd", "impact/checks"],
    dagrun_timeout=timedelta(minutes=30),
    params={"feed": feed_param(), "date": date_param("yesterday")},
    **house(__doc__, ended_days),
):
    ssmd_task("ran", ["quality", "ran", "--date", DAY, "--feed", FEED], execution_timeout=timedelta(minutes=5))
