"""Which checks ran for which day, and how they ended: one without a row did not run, one without an end was killed."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from ssmd.registry.database import Database, find_feed
from ssmd.registry.environments import Trigger
from ssmd.registry.tables import check_runs, feeds
from ssmd.registry.values import json_value, printable

CheckState: TypeAlias = Literal["running", "passed", "findings", "failed", "not_run"]
CheckName: TypeAlias = Literal["verify", "quality", "compact", "backfill", "secmaster_sync", "key_verify", "health"]

WANTED: tuple[CheckName, ...] = ("compact", "verify", "quality")
"""What must run for every day that is over, in the order of running."""

RAN = ("passed", "findings")
"""States of a run that came to its end."""

_MAX_SUMMARY = 2_000


class CheckRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a check. Times are UTC and aware; `completed_at` None: it runs, or was killed."""

    id: int
    feed: str
    check: str
    day: date
    started_at: datetime
    completed_at: datetime | None
    state: CheckState
    exit_code: int | None
    findings: int
    summary: str
    detail: dict[str, Any] | None
    trigger: str
    triggered_by: str


class CheckRuns:
    """The runs of all feeds' checks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(
        self,
        feed: str,
        check: CheckName,
        day: date,
        *,
        trigger: Trigger = "manual",
        by: str = "",
        started_at: datetime | None = None,
    ) -> int:
        """Say that a check of a day begins (now, or at a time before); its number, for `finish`. NotKnown: the feed."""
        with self._database.transaction(f"note that {check} of {day} begins") as connection:
            values = {
                "feed_id": find_feed(connection, feed),
                "check_name": check,
                "day": day,
                "trigger": trigger,
                "triggered_by": printable(by, 250),
                "started_at": started_at or sa.func.now(),
            }
            return int(connection.execute(check_runs.insert().values(values).returning(check_runs.c.id)).scalar_one())

    def finish(
        self,
        run: int,
        state: CheckState,
        *,
        exit_code: int,
        findings: int = 0,
        summary: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Say how it ended."""
        with self._database.transaction(f"note how check {run} ended") as connection:
            connection.execute(
                check_runs.update()
                .where(check_runs.c.id == run)
                .values(
                    completed_at=sa.func.now(),
                    state=state,
                    exit_code=exit_code,
                    findings=findings,
                    summary=printable(summary, _MAX_SUMMARY),
                    detail=None if detail is None else json_value(detail),
                )
            )

    def withdraw(self, run: int) -> None:
        """Take back what has begun and was refused before it looked at anything: it was no run."""
        with self._database.transaction(f"take back check {run}") as connection:
            connection.execute(check_runs.delete().where(check_runs.c.id == run, check_runs.c.completed_at.is_(None)))

    def of_days(self, feed: str, first: date, last: date) -> list[CheckRun]:
        """All runs for these days, both included, in the order of their start."""
        with self._database.transaction(f"read the checks of {feed}") as connection:
            chosen = (
                sa.select(feeds.c.name.label("feed"), check_runs)
                .join(feeds, feeds.c.id == check_runs.c.feed_id)
                .where(check_runs.c.feed_id == find_feed(connection, feed), check_runs.c.day.between(first, last))
                .order_by(check_runs.c.started_at, check_runs.c.id)
            )
            return [run_of(row) for row in connection.execute(chosen)]

    def latest(self, feed: str) -> list[CheckRun]:
        """The last run of each check, whatever its day."""
        with self._database.transaction(f"read the last checks of {feed}") as connection:
            chosen = (
                sa.select(feeds.c.name.label("feed"), check_runs)
                .join(feeds, feeds.c.id == check_runs.c.feed_id)
                .where(check_runs.c.feed_id == find_feed(connection, feed))
                .ext(distinct_on(check_runs.c.check_name))
                .order_by(check_runs.c.check_name, check_runs.c.started_at.desc(), check_runs.c.id.desc())
            )
            return [run_of(row) for row in connection.execute(chosen)]


def deciding(runs: Sequence[CheckRun]) -> CheckRun | None:
    """Of runs of one check for one day the last that ended: one that runs, or was killed, does not hide it."""
    ended = [run for run in runs if run.state != "running"]
    return max(ended, key=lambda run: (run.completed_at or run.started_at, run.id), default=None)


def missing(runs: Sequence[CheckRun], wanted: Sequence[str]) -> list[str]:
    """The checks of `wanted` whose last ended run (of a day's `runs`) did not come to its end, findings or none."""
    decided = {check: deciding([run for run in runs if run.check == check]) for check in wanted}
    return [check for check, run in decided.items() if run is None or run.state not in RAN]


def run_of(row: sa.Row[Any]) -> CheckRun:
    """A row of `check_runs`, with the feed's name as `feed`."""
    fields = {name: value for name, value in row._mapping.items() if name not in ("feed_id", "check_name")}
    return CheckRun(**fields, check=row.check_name)
