"""What an environment has to be compared with: the registry's feeds, schemas and keys, read at once; writes nothing."""

import hashlib
from collections.abc import Mapping
from datetime import date, datetime

import msgspec
import sqlalchemy as sa

from ssmd.registry import db
from ssmd.registry.bootstrap import KNOWN_FEEDS
from ssmd.registry.database import Database
from ssmd.registry.tables import environments, feed_versions, feeds, keys, schema_versions
from ssmd.registry.values import storable
from ssmd.resources import resource

SHIPPED_VERSION = "v1"
_TRANSPORTS = ("nats", "memory")


class FeedRules(msgspec.Struct, frozen=True):
    """What a feed asks of an environment on a day; no `transports` means that any will do."""

    transports: tuple[str, ...]
    secret_ref: str | None


class SchemaState(msgspec.Struct, frozen=True):
    """A registered schema: its status, and the sha256 of its text."""

    status: str
    hash: str


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known. `pending` are migrations that the database lacks; then the rest is what came with this program."""

    feeds: Mapping[str, str]
    """Status by name."""
    rules: FeedRules | None
    """Of the feed that was asked about, on the day; None when no version of it holds then."""
    schemas: Mapping[str, SchemaState]
    """By name, of the version that this program writes."""
    rotations: Mapping[str, datetime] = {}
    """When each key of the environment was last set."""
    sealed: Mapping[str, str] = {}
    """Where the keys are that were sealed for Kubernetes."""
    pending: tuple[str, ...] = ()
    built_in: bool = False


def built_in(feed: str, pending: tuple[str, ...] = ()) -> Survey:
    """What this program knows without a database."""
    known = {one.name: "active" for one in KNOWN_FEEDS}
    return Survey(
        feeds=known,
        rules=FeedRules(_TRANSPORTS, f"$key:{feed}") if feed in known else None,
        schemas={name: SchemaState("active", hash_) for name, hash_ in shipped_schemas().items()},
        pending=pending,
        built_in=True,
    )


def shipped_schemas() -> dict[str, str]:
    """The sha256 of each schema that came with this program, by name."""
    files = sorted(resource("schemas").glob("*.capnp"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def survey(database: Database, environment: str, feed: str, on: date) -> Survey:
    """What the database knows; RegistryUnavailable when it is away, ConfigError when it does not let us in."""
    with database.transaction("look into the registry") as connection:
        pending = _pending(connection)
        if pending:
            return built_in(feed, pending)
        s, k = schema_versions.c, keys.c
        of_environment = sa.select(k.name, k.last_rotated, k.sealed_secret_ref).join(environments)
        known_keys = connection.execute(of_environment.where(environments.c.name == storable(environment))).all()
        schemas = sa.select(s.name, s.status, s.schema_hash).where(s.version == SHIPPED_VERSION)
        return Survey(
            feeds={row.name: row.status for row in connection.execute(sa.select(feeds.c.name, feeds.c.status))},
            rules=_rules(connection, feed, on),
            schemas={row.name: SchemaState(row.status, row.schema_hash) for row in connection.execute(schemas)},
            rotations={row.name: row.last_rotated for row in known_keys if row.last_rotated is not None},
            sealed={row.name: row.sealed_secret_ref for row in known_keys if row.sealed_secret_ref},
        )


def _pending(connection: sa.Connection) -> tuple[str, ...]:
    """The files of sql/ that were not applied to this database."""
    files = sorted(file.name for file in resource("sql").glob("*.sql"))
    if connection.execute(sa.select(sa.func.to_regclass(db.MIGRATIONS_TABLE))).scalar() is None:
        return tuple(files)
    table = sa.table(db.MIGRATIONS_TABLE, sa.column("version"))
    applied = set(connection.execute(sa.select(table.c.version)).scalars())
    return tuple(name for name in files if name.partition("_")[0] not in applied)


def _rules(connection: sa.Connection, feed: str, on: date) -> FeedRules | None:
    v = feed_versions.c
    query = (
        sa.select(v.required_transport, v.secret_ref)
        .join(feeds)
        .where(feeds.c.name == storable(feed), v.known_to.is_(None), v.effective_from <= on)
        .where(sa.or_(v.effective_to.is_(None), v.effective_to > on))
        .order_by(v.effective_from.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else FeedRules(tuple(row.required_transport or ()), row.secret_ref)
