"""Environments as they were deployed: versions that hold from one deployment to the next, and the log of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from ssmd import __version__
from ssmd.config.environment import Environment, environment_hash
from ssmd.config.writing import to_yaml
from ssmd.errors import RefusedError, SsmdError
from ssmd.nearest import did_you_mean, nearest
from ssmd.registry.database import Database
from ssmd.registry.interface import NotKnown
from ssmd.registry.keys import add_environment, declare_keys
from ssmd.registry.tables import deployment_log, environment_versions, environments
from ssmd.registry.values import printable, storable

_PROGRAM = "ssmd "
PROGRAM = f"{_PROGRAM}{__version__}"
"""Who made the versions of the environments that came with ssmd."""

Trigger: TypeAlias = Literal["manual", "gitops", "scheduled"]

_MAX_ERROR_CHARS = 2_000
_SHOWN = 80

_log = structlog.get_logger()


class EnvironmentVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an environment; it held from `valid_from` up to `valid_to` (None: it still does).

    A version that was only created has no `valid_from`. Loading `config_yaml` gives `config_hash` again.
    """

    environment: str
    version: int
    config_yaml: str
    config_hash: str
    created_at: datetime
    created_by: str | None
    deployed_at: datetime | None
    deployed_by: str | None
    git_commit: str | None
    valid_from: datetime | None
    valid_to: datetime | None


class KnownEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """An environment, and its version in force (None when it was never deployed)."""

    name: str
    status: str
    description: str | None
    version: int | None
    versions: int
    deployed_at: datetime | None
    deployed_by: str | None


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the deployment log; one that failed before it made a version has none."""

    id: int
    version: int | None
    action: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    error: str | None
    trigger: str
    triggered_by: str | None


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """What `deploy` did: `new` is False when the version was in force already; `same_as` an earlier equal version."""

    version: EnvironmentVersion
    log_id: int
    action: str
    new: bool
    same_as: int | None


class EnvironmentCatalogue:
    """The environments of a database. Methods raise RegistryUnavailable, and ConfigError for an unknown name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, environment: Environment, *, by: str, commit: str | None = None) -> EnvironmentVersion:
        """Make an environment known, with a version that is not deployed; RefusedError when it is known already.

        What came with ssmd and nobody has deployed is taken over: as it is, or as the next version when it differs.
        """
        with self._database.transaction(f"create the environment {environment.name!r}") as connection:
            place = add_environment(connection, environment.name)
            known = [_version(row) for row in connection.execute(_versions(place))]
            if any(version.valid_from or not (version.created_by or "").startswith(_PROGRAM) for version in known):
                raise RefusedError(
                    f"the environment {environment.name!r} is known already, with version {known[-1].version}",
                    f"To deploy a changed file: ssmd env apply FILE. To see it: ssmd env show {environment.name}",
                )
            if known and known[-1].config_hash == environment_hash(environment):
                row = {"created_by": by, "git_commit": commit, "created_at": sa.func.now()}
                version_of = environment_versions.c.environment_id == place
                connection.execute(sa.update(environment_versions).where(version_of).values(row))
                return _numbered(connection, place, known[-1].version)
            return add_version(connection, place, environment, len(known) + 1, by=by, commit=commit)

    def deploy(
        self, environment: Environment, *, by: str, trigger: Trigger = "manual", commit: str | None = None
    ) -> Deployed:
        """Put an environment in force from now on, and log it, in one transaction.

        What is in force already gets a line in the log and no new version. When it fails, nothing of it stays but a
        line that says so.
        """
        try:
            with self._database.transaction(f"deploy the environment {environment.name!r}") as connection:
                return _deploy(connection, environment, by, trigger, commit)
        except SsmdError as error:
            self._log_failure(environment.name, by, trigger, error)
            raise

    def _log_failure(self, name: str, by: str, trigger: Trigger, failure: SsmdError) -> None:
        """One line in the log; when even that cannot be written, the failure itself is what the caller hears of."""
        try:
            with self._database.transaction(f"log the failed deployment of {name!r}") as connection:
                place = add_environment(connection, name)
                row = {"environment_id": place, "action": "deploy", "status": "failed", "completed_at": sa.func.now()}
                said = printable(failure.message, _MAX_ERROR_CHARS)
                connection.execute(insert(deployment_log).values(row | _origin(by, trigger) | {"error_message": said}))
        except SsmdError as error:
            _log.warning("failed deployment not logged", environment=name, error=error.message)

    def environments(self, at: datetime | None = None) -> list[KnownEnvironment]:
        """All of them, by name; `at`: those that were known at a time, with what was in force and known then."""
        e, v = environments.c, environment_versions.c
        counted = sa.select(sa.func.count()).where(v.environment_id == e.id).correlate(environments)
        if at is None:
            in_force = sa.and_(v.valid_from.is_not(None), v.valid_to.is_(None))
        else:
            in_force = sa.and_(v.valid_from <= at, sa.or_(v.valid_to.is_(None), v.valid_to > at))
            counted = counted.where(v.created_at <= at)
        count = counted.scalar_subquery()
        current = sa.and_(v.environment_id == e.id, in_force)
        query = (
            sa.select(e.name, e.status, e.description, v.version, v.deployed_at, v.deployed_by, count.label("versions"))
            .select_from(environments.outerjoin(environment_versions, current))
            .order_by(e.name)
        )
        if at is not None:
            query = query.where(e.created_at <= at)
        with self._database.transaction("list the environments") as connection:
            return [KnownEnvironment(**row) for row in connection.execute(query).mappings()]

    def versions(self, name: str) -> list[EnvironmentVersion]:
        """Every version, the first one first."""
        with self._of(name) as (connection, place):
            return [_version(row) for row in connection.execute(_versions(place))]

    def version(self, name: str, number: int) -> EnvironmentVersion:
        """One version; ConfigError names those that there are."""
        with self._of(name) as (connection, place):
            rows = {row.version: row for row in connection.execute(_versions(place))}
        if number not in rows:
            there = ", ".join(map(str, rows)) or "none yet"
            raise NotKnown(f"the environment {name!r} has no version {number}", f"Its versions: {there}.")
        return _version(rows[number])

    def current(self, name: str) -> EnvironmentVersion | None:
        """The version in force; None when it was never deployed."""
        v = environment_versions.c
        with self._of(name) as (connection, place):
            row = connection.execute(_versions(place).where(v.valid_from.is_not(None), v.valid_to.is_(None))).first()
        return None if row is None else _version(row)

    def newest(self, name: str) -> EnvironmentVersion:
        """The version in force, else the latest one; ConfigError when there is none at all."""
        versions = self.versions(name)
        in_force = [version for version in versions if version.valid_from and not version.valid_to]
        if not versions:
            raise NotKnown(f"the environment {name!r} has no version yet", "Run: ssmd env apply FILE")
        return (in_force or versions)[-1]

    def as_of(self, name: str, at: datetime) -> EnvironmentVersion:
        """The version that was in force at a time; ConfigError says since when there is one."""
        v = environment_versions.c
        holding = sa.and_(v.valid_from <= at, sa.or_(v.valid_to.is_(None), v.valid_to > at))
        with self._of(name) as (connection, place):
            row = connection.execute(_versions(place).where(holding)).first()
            first = connection.execute(sa.select(sa.func.min(v.valid_from)).where(v.environment_id == place)).scalar()
        if row is not None:
            return _version(row)
        since = f"It is since {first:%Y-%m-%dT%H:%M:%SZ}." if first else "It never was; `ssmd env apply` deploys it."
        raise NotKnown(f"the environment {name!r} was not deployed at {at:%Y-%m-%dT%H:%M:%SZ}", since)

    def deployments(self, name: str) -> list[Deployment]:
        """The deployments of the log, the latest line first; its starts and stops are `OperationLog`'s."""
        d, v = deployment_log.c, environment_versions.c
        query = sa.select(
            d.id, v.version, d.action, d.status, d.started_at, d.completed_at, d.error_message.label("error"),
            d.trigger, d.triggered_by,
        ).select_from(deployment_log.outerjoin(environment_versions))  # fmt: skip
        with self._of(name) as (connection, place):
            deploys = query.where(d.environment_id == place, d.action.in_(("deploy", "rollback")))
            rows = connection.execute(deploys.order_by(d.id.desc())).mappings()
            return [Deployment(**row) for row in rows]

    @contextmanager
    def _of(self, name: str) -> Iterator[tuple[sa.Connection, int]]:
        """A transaction, and the id of an environment; ConfigError with the nearest name when it is unknown."""
        with self._database.transaction(f"read the environment {name[:_SHOWN]!r}") as connection:
            found = connection.execute(sa.select(environments.c.id).where(environments.c.name == storable(name)))
            place = found.scalar_one_or_none()
            if place is None:
                raise _unknown(name, list(connection.execute(sa.select(environments.c.name)).scalars()))
            yield connection, place


def _unknown(name: str, known: list[str]) -> NotKnown:
    otherwise = f"Known: {', '.join(sorted(known)[:20]) or 'none'}. To add it: ssmd env create NAME --from FILE"
    message = f"the registry knows no environment {printable(name, _SHOWN)!r}"
    return NotKnown(message, did_you_mean(name, known, otherwise), nearest(name, known))


def _versions(place: int) -> sa.Select[Any]:
    v = environment_versions
    return (
        sa.select(v, environments.c.name.label("environment"))
        .join(environments)
        .where(v.c.environment_id == place)
        .order_by(v.c.version)
    )


def _version(row: sa.Row[Any]) -> EnvironmentVersion:
    return EnvironmentVersion(**{name: getattr(row, name) for name in EnvironmentVersion.__struct_fields__})


def add_version(
    connection: sa.Connection, place: int, environment: Environment, number: int, *, by: str, commit: str | None = None
) -> EnvironmentVersion:
    """Write a version, which is not deployed yet, and the definitions of its keys."""
    declare_keys(connection, place, environment.spec.keys)
    row = {
        "environment_id": place, "version": number, "config_yaml": to_yaml(environment),
        "config_hash": environment_hash(environment), "created_by": by, "git_commit": commit,
    }  # fmt: skip
    connection.execute(insert(environment_versions).values(row))
    return _numbered(connection, place, number)


def _numbered(connection: sa.Connection, place: int, number: int) -> EnvironmentVersion:
    return _version(connection.execute(_versions(place).where(environment_versions.c.version == number)).one())


def _origin(by: str, trigger: Trigger) -> dict[str, str]:
    return {"trigger": trigger, "triggered_by": by}


def _deploy(
    connection: sa.Connection, environment: Environment, by: str, trigger: Trigger, commit: str | None
) -> Deployed:
    place = add_environment(connection, environment.name)
    declare_keys(connection, place, environment.spec.keys)
    known = [_version(row) for row in connection.execute(_versions(place))]
    config_hash = environment_hash(environment)
    alike = [version for version in known if version.config_hash == config_hash]
    in_force = next((version for version in known if version.valid_from and not version.valid_to), None)
    if in_force is not None and in_force.config_hash == config_hash:
        log_id = _log_done(connection, place, in_force.version, "deploy", by, trigger)
        return Deployed(version=in_force, log_id=log_id, action="deploy", new=False, same_as=None)
    if known and known[-1].valid_from is None and known[-1].config_hash == config_hash:
        number = known[-1].version  # created, and not deployed until now
        alike = []
    else:
        number = known[-1].version + 1 if known else 1
        add_version(connection, place, environment, number, by=by, commit=commit)
    earlier = [version.version for version in alike if version.valid_from]
    action = "rollback" if earlier else "deploy"
    _put_in_force(connection, place, number, by, commit)
    log_id = _log_done(connection, place, number, action, by, trigger)
    version = _numbered(connection, place, number)
    return Deployed(version=version, log_id=log_id, action=action, new=True, same_as=earlier[-1] if earlier else None)


def _put_in_force(connection: sa.Connection, place: int, number: int, by: str, commit: str | None) -> None:
    """End the version in force and begin another at the same moment, which is not before the former's beginning."""
    v = environment_versions.c
    # now() is the time this transaction began, which may lie before the one it had to wait for
    clock = sa.select(sa.func.greatest(sa.func.clock_timestamp(), sa.func.max(v.valid_from)))
    at = connection.execute(clock.where(v.environment_id == place)).scalar_one()
    mine = v.environment_id == place
    update = sa.update(environment_versions)
    connection.execute(update.where(mine, v.valid_from.is_not(None), v.valid_to.is_(None)).values(valid_to=at))
    row = {"valid_from": at, "deployed_at": at, "deployed_by": by, "git_commit": commit}
    connection.execute(update.where(mine, v.version == number).values(row))


def _log_done(connection: sa.Connection, place: int, number: int, action: str, by: str, trigger: Trigger) -> int:
    v = environment_versions.c
    version_id = sa.select(v.id).where(v.environment_id == place, v.version == number).scalar_subquery()
    row = {
        "environment_id": place, "environment_version_id": version_id, "action": action, "status": "completed",
        "completed_at": sa.func.clock_timestamp(),
    }  # fmt: skip
    done = connection.execute(insert(deployment_log).values(row | _origin(by, trigger)).returning(deployment_log.c.id))
    return int(done.scalar_one())
