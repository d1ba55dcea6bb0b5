"""Verify the archive of a day: manifests, hashes, row counts, gaps, and that normalized is what raw gives.

Runs `ssmd data verify` for every day that the asset `ssmd_archive_day` names (after `daily_teardown` and `backfill`),
or by hand for one day. It reads the archive as a stranger would and trusts no writer; the inventory says afterwards
whether the day is complete, partial or failed. Trades of some markets are compared with the exchange's own list.

- **It has findings (6)**: a flipped byte, a missing or extra object, a truncated frame, a wrong count. The log
  names each object; most are healed by `backfill` for that day, which makes it again from raw. Of trades that only the
  exchange has (`exchange_trades`) the frames never came: they are lost, and no gap says so.
- **The exchange is away (7)**: everything else was verified, and the inventory says so; it is tried again.
- **A damaged raw object** cannot be made again: restore it from a copy. Its time is a gap until then.
"""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from ssmd_days import ARCHIVE_DAY, ended_days
from ssmd_tasks import DAY, FEED, POOL, date_param, each_day, feed_param, house, ssmd_task

with DAG(
    "archive_verification",
    schedule=[ARCHIVE_DAY],
    tags=["ssmd", "impact/checks"],
    dagrun_timeout=timedelta(hours=12),
    params={"feed": feed_param(), "date": date_param("yesterday")},
    **house(__doc__, ended_days),
):

    @task_group(group_id="day", prefix_group_id=False)
    def one_day(day: str) -> None:
        """The work for one day."""
        ssmd_task(
            "verify",
            ["data", "verify", "--date", DAY, "--feed", FEED, "--exchange"],
            day=day,
            pool=POOL,
            execution_timeout=timedelta(hours=4),
        )

    one_day.expand(day=each_day(ended_days))
