"""The ledger of keys in the metadata database: what each key is, how it stands and who touched it; never a value."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.config.environment import KeyDefinition
from ssmd.registry.database import Database
from ssmd.registry.tables import environments, key_audit_log, keys
from ssmd.registry.values import json_value, printable, storable

Action: TypeAlias = Literal["created", "rotated", "accessed", "deleted", "sealed", "exported"]

OUTCOME, ATTEMPTED = "outcome", "attempted"
"""In `details`: whoever did it was interrupted, and nothing shows that it was done; such a row changes no state."""

_CHANGES = ("created", "rotated", "sealed", "deleted")
_DAY = timedelta(days=1)


class KeyEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to a key. `details` are names (fields, store, where it is sealed), never values."""

    key: str
    action: Action
    actor: str
    at: datetime
    details: dict[str, str | list[str]] = {}
    id: UUID = msgspec.field(default_factory=uuid4)
    """Makes writing the same event twice harmless."""


class RecordedKey(msgspec.Struct, frozen=True, kw_only=True):
    """What the database knows of a key."""

    status: str
    last_rotated: datetime | None
    expires_at: datetime | None
    sealed_secret_ref: str | None


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the audit log."""

    key: str
    action: str
    actor: str
    details: dict[str, str | list[str]]
    at: datetime


class KeyLedger:
    """Keys and their audit log. Every method may raise RegistryUnavailable, ConfigError (no tables) or DataError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def declare(self, environment: str, definitions: Mapping[str, KeyDefinition]) -> None:
        """Make the environment and its keys known, or their definitions current; how they stand is not touched."""
        with self._database.transaction(f"record the keys of {environment!r}") as connection:
            declare_keys(connection, add_environment(connection, environment), definitions)

    def record(self, environment: str, events: Sequence[KeyEvent]) -> list[KeyEvent]:
        """Add to the audit log what is not there yet, and bring the keys to what it says; the events of unknown keys.

        A key stands as the latest change in its log left it, in whatever order the events arrive.
        """
        with self._database.transaction(f"write the audit log of {environment!r}") as connection:
            ids = self._key_ids(connection, environment)
            changed = sorted({e.key for e in events if e.action in _CHANGES and e.key in ids})
            _lock(connection, sa.select(keys.c.id).where(keys.c.id.in_([ids[key] for key in changed])))
            rows = [
                {
                    "key_id": ids[event.key], "action": event.action, "actor": printable(event.actor, 128),
                    "details": json_value(event.details) or None, "created_at": event.at, "event_id": event.id,
                }
                for event in events
                if event.key in ids
            ]  # fmt: skip
            if rows:
                connection.execute(insert(key_audit_log).values(rows).on_conflict_do_nothing())
            for key in changed:
                self._settle(connection, ids[key])
        return [event for event in events if event.key not in ids]

    def expire(self, environment: str, now: datetime) -> None:
        """Mark the keys whose time has come."""
        with self._database.transaction(f"mark the expired keys of {environment!r}") as connection:
            place = sa.select(environments.c.id).where(environments.c.name == storable(environment)).scalar_subquery()
            over = (keys.c.environment_id == place, keys.c.status == "set", keys.c.expires_at <= now)
            ids = _lock(connection, sa.select(keys.c.id).where(*over))
            if ids:
                again = sa.update(keys).where(keys.c.id.in_(ids), *over)  # what changed while we waited for the lock
                connection.execute(again.values(status="expired", updated_at=sa.func.now()))

    def found(self, environment: str, names: Sequence[str]) -> None:
        """Mark as set what a service found, of the keys that were never set through the ledger."""
        with self._database.transaction(f"mark the keys of {environment!r} as set") as connection:
            place = sa.select(environments.c.id).where(environments.c.name == storable(environment)).scalar_subquery()
            unset = (keys.c.environment_id == place, keys.c.status == "not_set", keys.c.last_rotated.is_(None))
            ids = _lock(connection, sa.select(keys.c.id).where(keys.c.name.in_(names), *unset))
            if ids:
                still = sa.update(keys).where(keys.c.id.in_(ids), *unset)
                connection.execute(still.values(status="set", updated_at=sa.func.now()))

    def recorded(self, environment: str) -> dict[str, RecordedKey]:
        """What is known of each key, by name; {} for an environment that is not known."""
        k = keys.c
        query = (
            sa.select(k.name, k.status, k.last_rotated, k.expires_at, k.sealed_secret_ref)
            .join(environments)
            .where(environments.c.name == storable(environment))
        )
        with self._database.transaction(f"read the keys of {environment!r}") as connection:
            return {
                row.name: RecordedKey(
                    status=row.status, last_rotated=row.last_rotated, expires_at=row.expires_at,
                    sealed_secret_ref=row.sealed_secret_ref,
                )
                for row in connection.execute(query)
            }  # fmt: skip

    def rotations(self, environment: str) -> dict[str, datetime]:
        """When each key was last set, where that was recorded."""
        found = self.recorded(environment)
        return {name: key.last_rotated for name, key in found.items() if key.last_rotated is not None}

    def audit(self, environment: str, key: str | None, limit: int) -> list[AuditRow]:
        """The latest rows of the log, newest first: of one key, or of all."""
        log = key_audit_log.c
        query = (
            sa.select(keys.c.name, log.action, log.actor, log.details, log.created_at)
            .join(keys, keys.c.id == log.key_id)
            .join(environments, environments.c.id == keys.c.environment_id)
            .where(environments.c.name == storable(environment))
            .order_by(log.created_at.desc(), log.id.desc())
            .limit(limit)
        )
        if key is not None:
            query = query.where(keys.c.name == storable(key))
        with self._database.transaction(f"read the audit log of {environment!r}") as connection:
            return [
                AuditRow(key=row.name, action=row.action, actor=row.actor, details=row.details or {}, at=row.created_at)
                for row in connection.execute(query)
            ]

    @staticmethod
    def _key_ids(connection: sa.Connection, environment: str) -> dict[str, int]:
        known = sa.select(keys.c.name, keys.c.id).join(environments)
        rows = connection.execute(known.where(environments.c.name == storable(environment)))
        return {row.name: row.id for row in rows}

    @staticmethod
    def _settle(connection: sa.Connection, key_id: int) -> None:
        """Bring one key to what the latest change in its log says."""
        log = key_audit_log.c
        key = connection.execute(sa.select(keys.c.rotation_days).where(keys.c.id == key_id)).one()
        last = connection.execute(
            sa.select(log.action, log.created_at, log.details)
            .where(log.key_id == key_id, log.action.in_(_CHANGES))
            .where(log.details[OUTCOME].astext.is_distinct_from(ATTEMPTED))
            .order_by(log.created_at.desc(), log.id.desc())
            .limit(1)
        ).one_or_none()
        if last is None:
            return
        values: dict[str, object] = {
            "status": "not_set", "last_rotated": None, "expires_at": None, "sealed_secret_ref": None
        }  # fmt: skip
        details = last.details or {}
        if last.action != "deleted" and not details.get("missing"):
            expires = last.created_at + key.rotation_days * _DAY if key.rotation_days else None
            over = expires is not None and expires <= datetime.now(UTC)
            values = {
                "status": "expired" if over else "set",
                "last_rotated": last.created_at,
                "expires_at": expires,
                "sealed_secret_ref": details.get("sealed_secret_ref"),
            }
        connection.execute(sa.update(keys).where(keys.c.id == key_id).values(**values, updated_at=sa.func.now()))


def _lock(connection: sa.Connection, query: sa.Select[Any]) -> list[int]:
    """The ids that `query` finds, locked before anything else of this transaction touches them, all in one order.

    The audit log's foreign key takes a share of the key's row: locked after it, two writers would wait in a ring.
    """
    rows = connection.execute(query.order_by(keys.c.name).with_for_update(key_share=True))
    return [int(row[0]) for row in rows]


def add_environment(connection: sa.Connection, name: str) -> int:
    """The id of an environment, made known when it is not; others who add it wait until this transaction ends."""
    stored = storable(name)
    connection.execute(insert(environments).values(name=stored).on_conflict_do_nothing())
    query = sa.select(environments.c.id).where(environments.c.name == stored).with_for_update(key_share=True)
    return int(connection.execute(query).scalar_one())


def declare_keys(connection: sa.Connection, environment_id: int, definitions: Mapping[str, KeyDefinition]) -> None:
    """Bring the definitions of an environment's keys up to date; how they stand is not touched."""
    rows = [
        {
            "environment_id": environment_id, "name": name, "key_type": definition.type,
            "description": printable(definition.description) or None, "required": definition.required,
            "fields": list(definition.fields), "rotation_days": definition.rotation_days,
        }
        for name, definition in sorted(definitions.items())  # one order: two writers must not wait in a ring
    ]  # fmt: skip
    if not rows:
        return
    new = insert(keys).values(rows)
    defined = ("key_type", "description", "required", "fields", "rotation_days")
    changed = sa.or_(*(keys.c[name].is_distinct_from(new.excluded[name]) for name in defined))
    values = {name: new.excluded[name] for name in defined} | {"updated_at": sa.func.now()}
    connection.execute(new.on_conflict_do_update(constraint="keys_environment_id_name_key", set_=values, where=changed))
