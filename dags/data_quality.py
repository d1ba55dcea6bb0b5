"""Judge the data of a day: the expectations of `expectations/`, with reports for reviewers.

Runs `ssmd quality run` for every day that the asset `ssmd_archive_day` names (after `daily_teardown` and `backfill`),
or by hand for one day. The reports are in the reports bucket, and the gateway serves them under `/quality/`.

- **It has findings (6)**: data that should not be so: duplicated trades, crossed books, holes, prices out of range. The
  report shows samples, with the raw object and the gap they come from.
- **It failed**: an expectation could not be evaluated, or did not run. That is no pass: fix it and clear the task.
"""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from ssmd_days import ARCHIVE_DAY, ended_days
from ssmd_tasks import DAY, FEED, POOL, date_param, each_day, feed_param, house, ssmd_task

with DAG(
    "data_quality",
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
            "expectations",
            ["quality", "run", "--date", DAY, "--feed", FEED],
            day=day,
            pool=POOL,
            execution_timeout=timedelta(hours=3),
        )

    one_day.expand(day=each_day(ended_days))
