"""End the day before: drain the gateway, flush the archiver, stop its connector; then compact and verify its archive.

A run is about one UTC day, the day that has ended. What has already stopped says so and is success. A run by hand ends
the day for good: it starts nothing (`next_…` are skipped).

- **`handover: overlap`** (the default): it runs ten minutes after `daily_startup`. The gateway and the archiver are
  drained and go on with the new day, and only the old connector stops; nothing is missed. Should `daily_startup` have
  failed, `next_connector` starts the new day; when it cannot, the old day is not ended, and capture goes on.
- **`handover: strict`**: it runs at `spec.schedule.teardown` and stops everything until `daily_startup`. What is missed
  in between is a recorded gap.

`compact` makes the day again from its raw archive, one object per type and ticker; `verify` recounts it. After them the
asset `ssmd_archive_day` says that the day is there, and `archive_verification` and `data_quality` begin.
"""

from datetime import timedelta

from airflow.sdk import DAG, chain
from ssmd_days import ARCHIVE_DAY, ENVIRONMENT, HANDOVER_MINUTES, ended_days, every_day
from ssmd_tasks import DAY, FEED, POOL, date_param, feed_param, house, ssmd_task  # fmt: skip

LATER = HANDOVER_MINUTES if ENVIRONMENT.handover == "overlap" else 0

with DAG(
    "daily_teardown",
    schedule=every_day(ENVIRONMENT.teardown, later=LATER, about=timedelta(days=1)),
    tags=["ssmd", "impact/archive"],
    dagrun_timeout=timedelta(hours=12),
    params={"feed": feed_param(), "date": date_param("yesterday")},
    **house(__doc__, ended_days),
):
    # Until the next day is there, the old one is not ended: should daily_startup have failed, capture goes on.
    follows = [
        ssmd_task(
            f"next_{service}",
            ["ops", "start", service, "--date", "{{ next_day() }}", "--feed", FEED],
            scheduled_only=True,
            on_skipped_callback=[],
            execution_timeout=timedelta(minutes=20),
        )
        for service in ("connector", "archiver", "gateway")
        if ENVIRONMENT.handover == "overlap"
    ]
    stops = [
        ssmd_task(
            task_id,
            ["ops", "stop", service, "--date", "{{ ended_day() }}", "--feed", FEED],
            trigger_rule="none_failed",
            execution_timeout=timedelta(minutes=20),
        )
        for task_id, service in (
            ("drain_gateway", "gateway"),
            ("flush_archiver", "archiver"),
            ("stop_connector", "connector"),
        )
    ]
    compact = ssmd_task(
        "compact",
        ["data", "compact", "--date", DAY, "--feed", FEED],
        pool=POOL,
        execution_timeout=timedelta(hours=4),
    )
    verify = ssmd_task(
        "verify",
        ["data", "verify", "--date", DAY, "--feed", FEED],
        pool=POOL,
        execution_timeout=timedelta(hours=4),
        outlets=[ARCHIVE_DAY],
    )

    chain(*follows, *stops, compact, verify)
