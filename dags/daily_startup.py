"""Start the day: sync the markets, verify the keys, start connector, archiver and gateway, look whether all is well.

A run is about one UTC day, the day that begins. Starting what already runs for that day says so and is success, so a
run may be repeated at any time.

- **`handover: overlap`** (the default): it runs at `spec.schedule.teardown`, while the day before still captures. The
  new connector starts beside the old one and has all its books before `daily_teardown` ends the old day.
- **`handover: strict`**: it runs at `spec.schedule.startup`, after `daily_teardown` has stopped everything.

When `start_connector` fails, nothing that runs has been touched. Fix what its message names, then clear the task.
"""

from datetime import timedelta

from airflow.sdk import DAG, chain
from ssmd_days import ENVIRONMENT, every_day, present_day
from ssmd_tasks import DAY, FEED, date_param, feed_param, house, ssmd_task

BEGINS = ENVIRONMENT.teardown if ENVIRONMENT.handover == "overlap" else ENVIRONMENT.startup

with DAG(
    "daily_startup",
    schedule=every_day(BEGINS),
    tags=["ssmd", "impact/capture"],
    dagrun_timeout=timedelta(hours=2),
    params={"feed": feed_param(), "date": date_param("today")},
    **house(__doc__, present_day),
):
    sync = ssmd_task("sync_markets", ["market", "sync", "--feed", FEED], execution_timeout=timedelta(minutes=40))
    keys = ssmd_task("verify_keys", ["key", "verify", ENVIRONMENT.name], execution_timeout=timedelta(minutes=2))
    starts = [
        ssmd_task(
            f"start_{service}",
            ["ops", "start", service, "--date", DAY, "--feed", FEED],
            execution_timeout=timedelta(minutes=20),
        )
        for service in ("connector", "archiver", "gateway")
    ]
    health = ssmd_task(
        "check_health", ["ops", "health", "--date", DAY, "--feed", FEED], execution_timeout=timedelta(minutes=5)
    )

    chain(sync, keys, *starts, health)
