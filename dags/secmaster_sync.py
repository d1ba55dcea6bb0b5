"""Bring the security master up to what the exchange lists, every hour.

Runs `ssmd market sync`: series, events and markets go into the registry, their changes into the journal and the stream.
Once a day it lists everything, otherwise what has changed.

- **It failed with exit code 3**: the exchange suddenly lists far fewer markets; nothing was changed. Look at
  `ssmd market syncs`; when the exchange means it: `ssmd market sync --accept`.
- **It has findings (6)**: something was left out or could not be published. The next run brings it.
- **A dependency is away (7)**: tried again; nothing is half-written.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param
from ssmd_days import by_clock, present_day
from ssmd_tasks import FEED, feed_param, house, ssmd_task

with DAG(
    "secmaster_sync",
    schedule=by_clock("30 * * * *"),  # not with daily_startup: the registry allows one sync at a time
    tags=["ssmd", "impact/capture"],
    dagrun_timeout=timedelta(minutes=50),
    params={
        "feed": feed_param(),
        "full": Param(False, type="boolean", description="List everything, not only what has changed."),
    },
    **house(__doc__, present_day),
):
    ssmd_task(
        "sync",
        ["market", "sync", "--feed", FEED, "{{ '--full' if params.full else '' }}"],
        execution_timeout=timedelta(minutes=40),
    )
