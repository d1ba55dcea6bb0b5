"""Make days of the archive again from their raw frames: re-normalize and compact, verify, judge the quality.

Only when somebody asks for it:

- here: *Trigger*, with `from` (and `to`); every day of the range is a column of its own, two at a time;
- `airflow backfill create --dag-id backfill --from-date 2026-11-18 --to-date 2026-11-20`: a run for each day;
- without Airflow: `ssmd data backfill --from 2026-11-18 --to 2026-11-20`, with `--plan` to see what would change.

Each frame is read with the decoder of its day. Running a day again gives the same bytes; segments that are still being
written are not touched. The log of `renormalize` says what has changed.

- **It failed with exit code 2**: a day without raw data, or one that has not begun.
- **It failed with exit code 3**: another backfill works on that day. Wait for it, then clear the task.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, chain, task_group
from airflow.timetables.events import EventsTimetable  # that of airflow.sdk 1.3.2 loses a field when it is stored
from pendulum import today
from ssmd_days import ARCHIVE_DAY, days_asked
from ssmd_tasks import DAY, FEED, POOL, each_day, feed_param, house, ssmd_task

BACKFILLABLE_DAYS = 731
"""How far back `airflow backfill` reaches; `from` and `to` reach everything."""


def day_param(description: str) -> Param:
    """A day of the range."""
    return Param(None, type=["null", "string"], format="date", description=description)


PAST_DAYS = [today("UTC").subtract(days=ago) for ago in range(BACKFILLABLE_DAYS, 0, -1)]

with DAG(
    "backfill",
    # `airflow backfill` needs a schedule with the days in it. None of them is ahead, so nothing runs by itself.
    schedule=EventsTimetable(PAST_DAYS, description="When asked"),
    tags=["ssmd", "impact/archive"],
    dagrun_timeout=timedelta(days=2),
    params={
        "feed": feed_param(),
        "from": day_param("First UTC day, not in the future. Empty only with `airflow backfill`, which names the day."),
        "to": day_param("Last UTC day, included. Empty: only the first."),
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
