"""What operations left for somebody to look at: an alert is open until a later run goes well, or a person closes it."""

from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

from ssmd.errors import ConfigError
from ssmd.registry.database import Database
from ssmd.registry.keys import add_environment
from ssmd.registry.tables import environments, operation_alerts
from ssmd.registry.values import printable, storable

AlertState: TypeAlias = Literal["failed", "skipped", "findings", "missing"]

STANDING = ("secmaster_sync", "key_verification", "daily_startup")
"""Operations of which only the latest run matters: when it goes well, alerts of earlier days are over, too."""
PASSING: tuple[AlertState, ...] = ("findings", "skipped")
"""States of a task that let its run go well: the end of that very run does not take them back."""

_MAX_OPERATION, _MAX_NAME, _MAX_SUMMARY = 64, 250, 2_000
_SHOWN = 80


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert. `task` "" is the operation as a whole; `day` the UTC day it was about, None for no single one."""

    id: int
    operation: str
    task: str
    run: str
    day: date | None
    state: AlertState
    summary: str
    raised_at: datetime
    resolved_at: datetime | None


class Alerts:
    """The alerts of all environments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(
        self,
        environment: str,
        operation: str,
        state: AlertState,
        *,
        task: str = "",
        run: str = "",
        day: date | None = None,
        summary: str = "",
    ) -> int:
        """Open an alert; one that is open for the same operation, task and day says the new state. Its number."""
        a = operation_alerts.c
        what = {"operation": printable(operation, _MAX_OPERATION), "task": printable(task, _MAX_NAME), "day": day}
        told = {"run": printable(run, _MAX_NAME), "state": state, "summary": printable(summary, _MAX_SUMMARY)}
        with self._database.transaction(f"write down an alert of {environment!r}") as connection:
            place = add_environment(connection, environment)  # locked: two that tell the same wait for each other
            same = [getattr(a, name).is_not_distinct_from(value) for name, value in what.items()]
            again = sa.update(operation_alerts).where(a.environment_id == place, a.resolved_at.is_(None), *same)
            known = connection.execute(again.values(told).returning(a.id)).scalars().first()
            if known is not None:
                return int(known)
            made = operation_alerts.insert().values({"environment_id": place, **what, **told}).returning(a.id)
            return int(connection.execute(made).scalar_one())

    def went_well(
        self, environment: str, operation: str, *, task: str = "", run: str = "", day: date | None = None
    ) -> int:
        """Close the alerts that a good run answers; how many.

        A task's own, or (without `task`) all of the operation: those of the day, and of no day; of `STANDING` ones
        those of earlier days, too. What a task of this very run found is left open.
        """
        a = operation_alerts.c
        operation, run = printable(operation, _MAX_OPERATION), printable(run, _MAX_NAME)
        about = [a.day.is_(None), sa.and_(a.run == run, a.run != "")]
        if day is not None:
            about.append(a.day <= day if operation in STANDING else a.day == day)
        which = [a.operation == operation, a.resolved_at.is_(None), sa.or_(*about)]
        if task:
            which.append(a.task == printable(task, _MAX_NAME))
        else:
            which.append(sa.not_(sa.and_(a.run == run, a.task != "", a.state.in_(PASSING))))
        with self._database.transaction(f"close alerts of {environment!r}") as connection:
            place = sa.select(environments.c.id).where(environments.c.name == storable(environment)).scalar_subquery()
            closing = sa.update(operation_alerts).where(a.environment_id == place, *which)
            return connection.execute(closing.values(resolved_at=sa.func.now())).rowcount

    def close(self, environment: str, numbers: Collection[int] | None) -> list[Alert]:
        """A person has seen to these (None: to all that are open); those closed, newest first.

        ConfigError, and none is closed, when one of the numbers is no open alert of the environment.
        """
        a = operation_alerts.c
        which = [] if numbers is None else [a.id.in_(numbers)]
        with self._database.transaction(f"close alerts of {environment!r}") as connection:
            place = sa.select(environments.c.id).where(environments.c.name == storable(environment)).scalar_subquery()
            closing = sa.update(operation_alerts).where(a.environment_id == place, a.resolved_at.is_(None), *which)
            rows = connection.execute(closing.values(resolved_at=sa.func.now()).returning(operation_alerts))
            closed = sorted(map(_alert, rows), key=lambda alert: (alert.raised_at, alert.id), reverse=True)
            if absent := sorted(set(numbers or ()) - {alert.id for alert in closed}):
                said = ", ".join(str(number) for number in absent)[:_SHOWN]
                raise ConfigError(
                    f"{environment!r} has no open alert {said}; none was closed", "See those there are: ssmd ops alerts"
                )
        return closed

    def open(self, environment: str, limit: int = 1_000) -> list[Alert]:
        """Those that nobody has seen to, newest first."""
        return self._read(environment, [operation_alerts.c.resolved_at.is_(None)], limit)

    def recent(self, environment: str, since: timedelta, limit: int = 1_000) -> list[Alert]:
        """Those that are open, and those raised lately, newest first."""
        a = operation_alerts.c
        return self._read(
            environment, [sa.or_(a.resolved_at.is_(None), a.raised_at > sa.func.now() - since)], limit
        )  # fmt: skip

    def _read(self, environment: str, which: list[Any], limit: int) -> list[Alert]:
        a = operation_alerts.c
        query = (
            sa.select(operation_alerts)
            .join(environments, environments.c.id == a.environment_id)
            .where(environments.c.name == storable(environment), *which)
            .order_by(a.resolved_at.is_not(None), a.raised_at.desc(), a.id.desc())
            .limit(limit)
        )
        with self._database.transaction(f"read the alerts of {environment!r}") as connection:
            return [_alert(row) for row in connection.execute(query)]


def _alert(row: sa.Row[Any]) -> Alert:
    return Alert(**{name: value for name, value in row._mapping.items() if name != "environment_id"})
