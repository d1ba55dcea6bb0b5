"""Make days of the archive again from their raw frames: re-normalize and compact, verify, judge the quality.

Only when somebody asks for it:

- here: *Trigger*, with `from` (and `to`); every day of the range is a column of its own, two at a time;
- `airflow backfill create --dag-id backfill --from-date 2026-11-18 --to-date 2026-11-20`: a run for each day;
- without Airflow: `ssmd data backfill --from 2026-11-18 --to 2026-11-20`, with `--plan` to see what would change.

Each frame is read with the decoder of its day. Running a day again gives the same bytes; segments that are still being
written are not touched. The log of `renormalize` says what has changed.

- **It failed with exit code 2**: a day without raw data, or one that has not begun.
- **It failed with exit code 3**: the day is not over, its segments are still being written (give it again tomorrow).
- **It failed with exit code 7, "is being worked on"**: another job had that day for hours, and the message names it.
  See what it does or end it, then clear the task.

The schedule that Airflow shows, from the year 9999 on, only tells `airflow backfill` what the days are.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, chain, task_group
from ssmd_days import ARCHIVE_DAY, days_asked
from ssmd_tasks import DAY, FEED, POOL, each_day, feed_param, house, ssmd_task


def day_param(description: str) -> Param:
    """A day of the range."""
    return Param(None, type=["null", "string"], format="date", description=description)


NEVER = datetime(9999, 1, 1, tzinfo=UTC)

with DAG(
    "backfill",
    # `airflow backfill` needs a schedule with the days in it; by itself it begins when nobody looks any more.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=NEVER,
    tags=["ssmd", "impact/archive"],
    dagrun_timeout=timedelta(days=2),
    params={
        "feed": feed_param(),
        "from": day_param("First UTC day, one that is over. Empty only with `airflow backfill`, which names the day."),
        "to": day_param("Last UTC day, included, one that is over. Empty: only the first."),
    },
    **house(__doc__, days_asked),
):

    @task_group(group_id="day", prefix_group_id=False)
    def one_day(day: str) -> None:
        """The work for one day."""
        renormalize = ssmd_task(
            "renormalize",
            ["data", "backfill", "--from", DAY, "--to", DAY, "--feed", FEED],
            day=day,
            pool=POOL,
            execution_timeout=timedelta(hours=8),
        )
        verify = ssmd_task(
            "verify",
            ["data", "verify", "--date", DAY, "--feed", FEED],
            day=day,
            pool=POOL,
            execution_timeout=timedelta(hours=4),
        )
        quality = ssmd_task(
            "quality",
            ["quality", "run", "--date", DAY, "--feed", FEED],
            day=day,
            pool=POOL,
            execution_timeout=timedelta(hours=3),
            outlets=[ARCHIVE_DAY],
        )
        chain(renormalize, verify, quality)

    one_day.expand(day=each_day(days_asked))
