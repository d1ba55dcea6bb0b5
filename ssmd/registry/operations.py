"""What was started and stopped in an environment: lines of the deployment log with their service and day."""

from datetime import date, datetime
from typing import Literal, TypeAlias, get_args

import msgspec
import sqlalchemy as sa

from ssmd.registry.database import Database
from ssmd.registry.environments import Trigger
from ssmd.registry.keys import add_environment
from ssmd.registry.tables import deployment_log, environment_versions, environments
from ssmd.registry.values import printable

Action: TypeAlias = Literal["startup", "teardown"]

_MAX_ERROR_CHARS = 2_000
_MAX_BY_CHARS = 250
_ACTIONS = get_args(Action)
UNENDED = "it never told its end: killed, or its machine stopped; what it had done until then stands"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One start or stop. `service` None: the whole day. Times are UTC.

    `status`: started (it is at work, as far as anybody can tell), completed, failed, or aborted: nobody saw its end,
    and it was over at `ended_by`.
    """

    id: int
    action: str
    service: str | None
    day: date | None
    status: str
    started_at: datetime
    completed_at: datetime | None
    ended_by: datetime | None
    error: str | None
    trigger: str
    triggered_by: str | None


class Unended(msgspec.Struct, frozen=True):
    """An operation that has not told its end. `overtaken_at`: the first end of a later one of the same service."""

    id: int
    process: str | None
    overtaken_at: datetime | None


class OperationLog:
    """The operations of one environment."""

    def __init__(self, database: Database, environment: str) -> None:
        self._database = database
        self._environment = environment

    def start(
        self,
        action: Action,
        service: str | None,
        day: date,
        *,
        trigger: Trigger,
        by: str,
        process: str | None = None,
        started_at: datetime | None = None,
    ) -> int:
        """Say that it begins; the number of its line. `started_at`: when it began, where that is not now.

        `process`: a name of the process that does it, by which its machine can tell whether it still runs.
        """
        with self._database.transaction(f"log the {action} of {day}") as connection:
            place = add_environment(connection, self._environment)
            v = environment_versions.c
            in_force = sa.select(v.id).where(v.environment_id == place, v.valid_from.is_not(None), v.valid_to.is_(None))
            row = {
                "environment_id": place, "environment_version_id": in_force.scalar_subquery(), "action": action,
                "status": "started", "service": service, "day": day, "trigger": trigger,
                "triggered_by": printable(by, _MAX_BY_CHARS), "process": process,
            }  # fmt: skip
            if started_at is not None:
                row["started_at"] = started_at
            inserted = connection.execute(deployment_log.insert().values(row).returning(deployment_log.c.id))
            return int(inserted.scalar_one())

    def finish(self, line: int, error: str | None = None) -> None:
        """Say that it is done, or why it failed."""
        with self._database.transaction(f"log the end of operation {line}") as connection:
            connection.execute(
                deployment_log.update()
                .where(deployment_log.c.id == line)
                .values(
                    status="completed" if error is None else "failed",
                    completed_at=sa.func.clock_timestamp(),
                    ended_by=None,
                    error_message=None if error is None else printable(error, _MAX_ERROR_CHARS),
                )
            )

    def unended(self) -> list[Unended]:
        """Those that have not told their end, the latest first: at work, or killed."""
        d, later = deployment_log.c, deployment_log.alias()
        overtaken = (
            sa.select(sa.func.min(later.c.completed_at))
            .where(
                later.c.environment_id == d.environment_id, later.c.id > d.id, later.c.action.in_(_ACTIONS),
                later.c.service.is_not_distinct_from(d.service), later.c.status == "completed",
            )
            .scalar_subquery()
        )  # fmt: skip
        query = (
            sa.select(d.id, d.process, overtaken)
            .join(environments, environments.c.id == d.environment_id)
            .where(environments.c.name == self._environment, d.action.in_(_ACTIONS), d.status == "started")
            .order_by(d.id.desc())
        )
        with self._database.transaction(f"read the unended operations of {self._environment}") as connection:
            return [Unended(*row) for row in connection.execute(query)]

    def abort(self, line: int, ended_by: datetime | None = None) -> None:
        """Say that it was over at `ended_by` (None: now) without having told its end; nothing when it has told it."""
        values = {
            "status": "aborted", "error_message": UNENDED,
            "ended_by": sa.func.clock_timestamp() if ended_by is None else ended_by,
        }  # fmt: skip
        update = deployment_log.update().where(deployment_log.c.id == line, deployment_log.c.status == "started")
        with self._database.transaction(f"log that operation {line} was aborted") as connection:
            connection.execute(update.values(values))

    def latest(self, limit: int = 20) -> list[Operation]:
        """The last starts and stops, the latest first; [] where the environment is not known."""
        d = deployment_log.c
        query = (
            sa.select(
                d.id, d.action, d.service, d.day, d.status, d.started_at, d.completed_at, d.ended_by,
                d.error_message.label("error"), d.trigger, d.triggered_by,
            )
            .join(environments, environments.c.id == d.environment_id)
            .where(environments.c.name == self._environment, d.action.in_(_ACTIONS))
            .order_by(d.id.desc())
            .limit(limit)
        )  # fmt: skip
        with self._database.transaction(f"read the operations of {self._environment}") as connection:
            return [Operation(**row) for row in connection.execute(query).mappings()]
