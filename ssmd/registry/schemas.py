"""The schema registry: the layouts that normalized data had, which of them read which, and which one a day has."""

import hashlib
import re
from datetime import date, datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa

from ssmd.errors import ConfigError, RefusedError
from ssmd.nearest import did_you_mean, nearest
from ssmd.registry.database import Database, find_feed
from ssmd.registry.interface import NotKnown
from ssmd.registry.tables import data_inventory, data_objects, schema_migrations, schema_versions
from ssmd.registry.values import printable, storable
from ssmd.wire.compatibility import Difference, differences
from ssmd.wire.definitions import read_definition

STATUSES = ("draft", "active", "deprecated")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"v[0-9]{1,9}")
_MAX_DESCRIPTION = 10_000


class SchemaVersion(msgspec.Struct, frozen=True):
    """A registered schema. `compatible_with` are the versions whose data it reads, besides its own."""

    name: str
    version: str
    format: str
    hash: str  # sha256 of the text
    status: str
    effective_from: date
    deprecated_at: date | None
    compatible_with: list[str]
    breaking_changes: str | None
    text: str
    registered_at: datetime


class Registration(NamedTuple):
    """What `register` did: the version as it is now, whether it is new, and what differs from the one before it."""

    schema: SchemaVersion
    is_new: bool
    differences: list[Difference]


class UsedSchema(msgspec.Struct, frozen=True):
    """A schema of a day. `recorded`: the inventory says so; else it is what holds on that day by its dates."""

    name: str
    version: str
    hash: str
    status: str
    recorded: bool
    records: int  # of this name in the day's normalized objects


Schemas: TypeAlias = list[SchemaVersion]
UsedSchemas: TypeAlias = list[UsedSchema]


class SchemaCatalogue:
    """Schemas in the metadata database. Each method is one transaction; RegistryUnavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(
        self,
        name: str,
        text: str,
        *,
        version: str | None,
        effective_from: date,
        status: str | None = None,
        breaking_changes: str | None = None,
    ) -> Registration:
        """Add a version (None: the next number), active unless `status` says otherwise.

        The text of a known version again changes at most its status.

        ConfigError for a text that is no schema; RefusedError for another text under a known version, and for a change
        that breaks readers of the version before unless `breaking_changes` says what they have to do.
        """
        _check(name, version, status or "active", breaking_changes)
        new = read_definition(text, f"schema {name!r}")
        with self._database.transaction(f"register schema {name!r}") as connection:
            connection.execute(sa.text("LOCK TABLE schema_versions IN SHARE ROW EXCLUSIVE MODE"))
            known = _versions(connection, name)
            same = next((s for s in known if s.version == (version or known[-1].version)), None)
            if same is not None and (version is not None or same.text == text):
                return _again(connection, same, text, status, effective_from)
            last = known[-1] if known else None
            version = version or f"v{_number(last.version) + 1 if last else 1}"
            _check_order(name, version, effective_from, last)
            found = differences(read_definition(last.text, f"{name} {last.version}"), new) if last else []
            breaking = [difference for difference in found if difference.breaking]
            if last and breaking and not breaking_changes:
                raise _breaks(name, last.version, breaking)
            row = {
                "name": name,
                "version": version,
                "schema_definition": text,
                "schema_hash": hashlib.sha256(text.encode()).hexdigest(),
                "status": status or "active",
                "effective_from": effective_from,
                "deprecated_at": effective_from if status == "deprecated" else None,
                "compatible_with": [*last.compatible_with, last.version] if last and not breaking else [],
                "breaking_changes": _described(breaking_changes, breaking),
            }
            connection.execute(sa.insert(schema_versions).values(row))
            if last and breaking:
                _note_migration(connection, name, last.version, version)
            return Registration(_versions(connection, name)[-1], True, found)

    def list(self, name: str | None = None) -> Schemas:
        """All versions, by name and number; of one schema when it is named (ConfigError when it is unknown)."""
        with self._database.transaction("list the schemas") as connection:
            found = _versions(connection, name)
            if name is not None and not found:
                raise _unknown(connection, name)
        return found

    def show(self, name: str, version: str | None = None) -> SchemaVersion:
        """One version; None: the latest that is active, else the latest. ConfigError when there is none such."""
        found = self.list(name)
        if version is None:
            return next((schema for schema in reversed(found) if schema.status == "active"), found[-1])
        for schema in found:
            if schema.version == version:
                return schema
        versions = [schema.version for schema in found]
        hint = f"{did_you_mean(version, versions)} Its versions: {', '.join(versions)}.".strip()
        raise NotKnown(f"schema {name!r} has no version {version[:80]!r}", hint, nearest(version, versions))

    def used(self, feed: str, day: date) -> UsedSchemas:
        """What the feed's normalized data of a day was written in; what holds by date when there is none of that day.

        ConfigError when the feed is unknown, or the day's data is of a version that is not registered.
        """
        with self._database.transaction(f"read the schemas of feed {feed[:80]!r}") as connection:
            feed_id = find_feed(connection, feed)
            rows = connection.execute(_recorded(feed_id, day)).all()
            if rows:
                return [UsedSchema(r.name, r.version, r.schema_hash, r.status, True, int(r.records)) for r in rows]
            written = connection.execute(_written_versions(feed_id, day)).scalars().all()
            if written:
                message = (
                    f"the data of feed {feed!r} on {day} is of version {', '.join(written)}, which is not registered"
                )
                raise ConfigError(message, "Run: ssmd schema register FILE --version VERSION")
            return [
                UsedSchema(schema.name, schema.version, schema.hash, schema.status, False, 0)
                for schema in holding(_versions(connection, None), day)
            ]


def _check(name: str, version: str | None, status: str, breaking_changes: str | None) -> None:
    if not _NAME.fullmatch(name):
        message = f"a schema cannot be called {name[:80]!r}"
        raise ConfigError(message, "Give --name: a letter, then at most 63 of a-z, 0-9, _ and -.")
    if version is not None and not _VERSION.fullmatch(version):
        raise ConfigError(f"{version[:80]!r} cannot be a schema's version", "Write v1, v2, ...")
    if status not in STATUSES:
        raise ConfigError(
            f"status {status[:80]!r} is none of {', '.join(STATUSES)}", did_you_mean(status, STATUSES)
        )  # fmt: skip
    if breaking_changes is not None and not 1 <= len(breaking_changes.strip()) <= _MAX_DESCRIPTION:
        hint = "Say what a reader of the version before has to do."
        raise ConfigError(f"--breaking-changes has not between 1 and {_MAX_DESCRIPTION:,} characters", hint)


def _check_order(name: str, version: str, effective_from: date, last: SchemaVersion | None) -> None:
    if last is None:
        return
    if _number(version) <= _number(last.version):
        message = f"schema {name!r} has {last.version} already, and {version} would come before it"
        raise RefusedError(message, f"Register it as v{_number(last.version) + 1}.")
    if effective_from < last.effective_from:
        message = f"schema {name!r} {version} would begin on {effective_from}, before {last.version}"
        raise RefusedError(message, f"{last.version} begins on {last.effective_from}; give a later --effective-from.")


def _again(connection: sa.Connection, known: SchemaVersion, text: str, status: str | None, today: date) -> Registration:
    """The same version once more: nothing, a new status, or a refusal when its text is another."""
    if known.text != text:
        message = f"schema {known.name!r} {known.version} is registered with another text (sha256 {known.hash[:12]}…)"
        raise RefusedError(message, "A registered version never changes; leave --version out to register the next one.")
    if status is None or known.status == status:
        return Registration(known, False, [])
    v = schema_versions.c
    ended = max(today, known.effective_from) if status == "deprecated" else None
    statement = sa.update(schema_versions).where(v.name == known.name, v.version == known.version)
    connection.execute(statement.values(status=status, deprecated_at=ended))
    changed = msgspec.structs.replace(known, status=status, deprecated_at=ended)
    return Registration(changed, False, [])


def _breaks(name: str, version: str, breaking: list[Difference]) -> RefusedError:
    lines = "".join(f"\n  - {difference.sentence[:200]}" for difference in breaking[:20])
    more = f"\n  - and {len(breaking) - 20} more" if len(breaking) > 20 else ""
    message = f"this schema breaks readers of {name} {version}:{lines}{more}"
    return RefusedError(message, "If that is meant, say what changed: --breaking-changes TEXT")


def _described(text: str | None, breaking: list[Difference]) -> str | None:
    if text is None:
        return None
    return "\n".join([printable(text.strip()), *(f"- {difference.sentence}" for difference in breaking)])


def _note_migration(connection: sa.Connection, name: str, old: str, new: str) -> None:
    """Data of the old version has to be made again from raw before it can be read as the new one."""
    v = schema_versions.c
    ids = {row.version: row.id for row in connection.execute(sa.select(v.version, v.id).where(v.name == name))}
    row = {"from_version_id": ids[old], "to_version_id": ids[new], "migration_type": "reprocess"}
    connection.execute(sa.insert(schema_migrations).values(row))


def _number(version: str) -> int:
    return int(version[1:])


def _versions(connection: sa.Connection, name: str | None) -> list[SchemaVersion]:
    v = schema_versions.c
    query = sa.select(schema_versions).order_by(v.name, sa.cast(sa.func.substr(v.version, 2), sa.Integer))
    if name is not None:
        query = query.where(v.name == storable(name))
    return [
        SchemaVersion(
            r.name, r.version, r.format, r.schema_hash, r.status, r.effective_from, r.deprecated_at,
            r.compatible_with, r.breaking_changes, r.schema_definition, r.created_at,
        )
        for r in connection.execute(query)
    ]  # fmt: skip


def _unknown(connection: sa.Connection, name: str) -> ConfigError:
    known = list(connection.execute(sa.select(schema_versions.c.name).distinct()).scalars())
    otherwise = f"Known: {', '.join(sorted(known)) or 'none'}. To add the built-in ones: ssmd db migrate"
    message = f"the registry knows no schema {name[:80]!r}"
    return NotKnown(message, did_you_mean(name, known, otherwise), nearest(name, known))


def _written_versions(feed_id: int, day: date) -> sa.Select[Any]:
    i = data_inventory.c
    this_day = (i.feed_id == feed_id) & (i.date == day) & (i.data_type == "normalized")
    return sa.select(i.schema_version).where(this_day, i.schema_version.is_not(None)).order_by(i.schema_version)


def _recorded(feed_id: int, day: date) -> sa.Select[Any]:
    """The design's query: the schemas of the versions that the inventory names, with the records of each name."""
    v, i, o = schema_versions.c, data_inventory.c, data_objects.c
    records = (
        sa.select(sa.func.coalesce(sa.func.sum(o.records), 0))
        .where(o.inventory_id == i.id, o.group_name == v.name)
        .scalar_subquery()
    )
    return (
        sa.select(v.name, v.version, v.schema_hash, v.status, records.label("records"))
        .join_from(schema_versions, data_inventory, i.schema_version == v.version)
        .where(i.feed_id == feed_id, i.date == day, i.data_type == "normalized")
        .order_by(v.name, v.version)
    )


def holding(known: list[SchemaVersion], day: date) -> list[SchemaVersion]:
    """Of each name the version that holds on a day: the latest begun that is no draft and not deprecated by then."""
    found: dict[str, SchemaVersion] = {}
    for schema in known:
        ended = schema.deprecated_at is not None and schema.deprecated_at <= day
        if schema.status != "draft" and schema.effective_from <= day and not ended:
            found[schema.name] = schema
    return list(found.values())
