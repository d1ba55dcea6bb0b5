"""How the checks of a feed stand, in one look: each day's last run that ended, yesterday's verdict, open alerts."""

from datetime import date, datetime, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from ssmd.registry.alerts import Alert, Alerts
from ssmd.registry.checks import RAN, WANTED, CheckRun, run_of
from ssmd.registry.database import Database, find_feed
from ssmd.registry.tables import check_runs, data_inventory, feeds

DAYS = 31
"""So many days back runs are looked at."""
ALERT_DAYS = timedelta(days=7)
"""An operation is named so long after its last alert, with none open."""
_WORST = ("complete", "partial", "processing", "failed")


class Board(msgspec.Struct, frozen=True):
    """What is known at one moment. `day` is the last one that is over.

    `begun`: the first day of which anything is archived, None for none. `runs` are the last ended runs of each check
    and day. `status` and `score` are the inventory's of `day`: the worse of raw and normalized, `missing` and None when
    it has nothing.
    """

    day: date
    begun: date | None
    runs: list[CheckRun]
    status: str
    score: float | None
    alerts: list[Alert]

    @property
    def begins(self) -> date | None:
        """The first day that the checks of whole days are about; None until an archived day is over."""
        return self.begun if self.begun is not None and self.begun <= self.day else None

    def last(self, check: str) -> CheckRun | None:
        """The run that counts: of a check of whole days that of the last archived day that is over, else the last."""
        mine = [run for run in self.runs if run.check == check]
        if check in WANTED:
            begins = self.begins
            mine = [run for run in mine if begins is not None and begins <= run.day <= self.day]
            return max(mine, key=lambda run: run.day, default=None)
        return max(mine, key=lambda run: run.completed_at or run.started_at, default=None)

    def ran_last(self, check: str) -> datetime | None:
        """When it last ran to its end, whatever day it looked at."""
        ends = [run.completed_at for run in self.runs if run.check == check and run.state in RAN]
        return max((end for end in ends if end is not None), default=None)

    def day_reached(self, check: str) -> date | None:
        """The latest day that it looked at; of days that are over."""
        return max(
            (run.day for run in self.runs if run.check == check and run.state in RAN and run.day <= self.day),
            default=None,
        )

    def days_failing(self, check: str) -> int:
        """Days of the last month whose last run of it did not pass."""
        return sum(run.check == check and run.state != "passed" for run in self.runs)


def read_board(database: Database, feed: str, environment: str, today: date) -> Board:
    """Ask the database. RegistryUnavailable when it is away; NotKnown for the feed."""
    day, c = today - timedelta(days=1), check_runs.c
    with database.transaction(f"read how the checks of {feed[:80]!r} stand") as connection:
        feed_id = find_feed(connection, feed)
        chosen = (
            sa.select(feeds.c.name.label("feed"), check_runs)
            .join(feeds, feeds.c.id == c.feed_id)
            .where(c.feed_id == feed_id, c.day.between(today - timedelta(days=DAYS), today), c.state != "running")
            .ext(distinct_on(c.check_name, c.day))
            .order_by(c.check_name, c.day, sa.func.coalesce(c.completed_at, c.started_at).desc(), c.id.desc())
        )
        runs = [run_of(row) for row in connection.execute(chosen)]
        i = data_inventory.c
        begun = connection.execute(sa.select(sa.func.min(i.date)).where(i.feed_id == feed_id)).scalar()
        held = connection.execute(
            sa.select(i.status, i.quality_score).where(i.feed_id == feed_id, i.date == day)
        ).all()  # fmt: skip
    status = max((str(row.status) for row in held), key=_WORST.index, default="missing")
    scores = [float(row.quality_score) for row in held if row.quality_score is not None]
    alerts = Alerts(database).recent(environment, ALERT_DAYS) if environment else []
    return Board(day, begun, runs, status, min(scores, default=None), alerts)
