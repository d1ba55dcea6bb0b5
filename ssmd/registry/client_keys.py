"""The keys of the gateway's clients in the metadata database: who may do what until when; of a key only its SHA-256."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.errors import ConfigError, RefusedError
from ssmd.nearest import did_you_mean
from ssmd.registry.database import Database
from ssmd.registry.tables import client_keys
from ssmd.registry.values import printable, storable

Scope: TypeAlias = Literal["read:live", "read:history", "write:feedback", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

MAX_NAME = 64
_SECRET_BYTES = 32
_KEY = re.compile(r"ssmd_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_LIKE_A_KEY = re.compile(r"ssmd_[0-9A-Fa-f]{8}_[A-Za-z0-9_-]+")


class ClientKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key. It is usable while its `state` is `active`."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    last_used_at: datetime | None = None

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """`revoked` is stronger than `expired`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class Lock(msgspec.Struct, frozen=True):
    """A key with the hash that whoever presents it is compared with."""

    key: ClientKey
    key_sha256: bytes

    def __repr__(self) -> str:
        return f"Lock({self.key.id})"


def key_id(text: str) -> str:
    """The id in the text of a key: its public part; "" when the text cannot be a key."""
    match = _KEY.fullmatch(text)
    return match[1] if match else ""


def key_sha256(text: str) -> bytes:
    """What is stored of a key. It has 256 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def without_keys(text: str) -> str:
    """`text` with every key in it cut after its id."""
    return _LIKE_A_KEY.sub(lambda match: f"{match[0][:14]}***", text)


class ClientKeys:
    """The keys of clients. Every method may raise RegistryUnavailable or ConfigError (no tables)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, scopes: Sequence[str], expires_at: datetime | None, actor: str
    ) -> tuple[str, ClientKey]:
        """A new key: its text, which is known to nobody afterwards, and what is stored of it.

        ConfigError for a name, scope or expiry that cannot be.
        """
        _check(name, scopes, expires_at)
        while True:
            key = secrets.token_hex(4)
            text = f"ssmd_{key}_{secrets.token_urlsafe(_SECRET_BYTES)}"
            statement = (
                insert(client_keys)
                .values(
                    id=key, key_sha256=key_sha256(text), name=name, scopes=[s for s in SCOPES if s in scopes],
                    expires_at=expires_at, created_by=printable(actor, 128),
                )
                .on_conflict_do_nothing()
                .returning(*_SHOWN)
            )  # fmt: skip
            with self._database.transaction(f"create a key for {name!r}") as connection:
                row = connection.execute(statement).one_or_none()
            if row is not None:  # else one of 4 billion ids was drawn twice
                return text, _read(row)

    def list(self) -> Sequence[ClientKey]:
        """All keys, oldest first."""
        c = client_keys.c
        with self._database.transaction("list the keys of clients") as connection:
            return [_read(row) for row in connection.execute(sa.select(*_SHOWN).order_by(c.created_at, c.id))]

    def revoke(self, key: str, actor: str) -> ClientKey:
        """Make a key useless from now on. ConfigError when there is none; RefusedError when it was revoked before."""
        c = client_keys.c
        with self._database.transaction(f"revoke the key {key[:20]!r}") as connection:
            row = connection.execute(
                sa.update(client_keys)
                .where(c.id == storable(key), c.revoked_at.is_(None))
                .values(revoked_at=sa.func.now(), revoked_by=printable(actor, 128))
                .returning(*_SHOWN)
            ).one_or_none()
            if row is not None:
                return _read(row)
            known = {other.id: other for other in map(_read, connection.execute(sa.select(*_SHOWN)))}
        if key in known:
            before = known[key]
            raise RefusedError(
                f"the key {key} ({before.name}) was revoked before, at {before.revoked_at:%Y-%m-%d %H:%M:%S} UTC by"
                f" {before.revoked_by}",
                "Run: ssmd client key list",
            )
        raise _unknown(key, known)

    def find(self, key: str) -> Lock | None:
        """One key by its id, whatever its state."""
        with self._database.transaction("look up a key") as connection:
            query = sa.select(*_SHOWN, client_keys.c.key_sha256).where(client_keys.c.id == storable(key))
            row = connection.execute(query).one_or_none()
        return None if row is None else Lock(_read(row), bytes(row.key_sha256))

    def locks(self) -> dict[str, Lock]:
        """Every key by its id, whatever its state, with its hash."""
        with self._database.transaction("read the keys of clients") as connection:
            rows = connection.execute(sa.select(*_SHOWN, client_keys.c.key_sha256))
            return {row.id: Lock(_read(row), bytes(row.key_sha256)) for row in rows}

    def touch(self, used: Mapping[str, datetime]) -> None:
        """Note when keys were last used; an older time than the one known changes nothing."""
        if not used:
            return
        c = client_keys.c
        new = sa.bindparam("new", type_=sa.TIMESTAMP(timezone=True))
        statement = (
            sa.update(client_keys)
            .where(c.id == sa.bindparam("key"), sa.or_(c.last_used_at.is_(None), c.last_used_at < new))
            .values(last_used_at=new)
        )
        with self._database.transaction("note when keys were used") as connection:
            # In one order, or two gateways would wait for each other.
            connection.execute(statement, [{"key": key, "new": used[key]} for key in sorted(used)])


_SHOWN = [column for column in client_keys.c if column.name != "key_sha256"]


def _read(row: Any) -> ClientKey:
    return ClientKey(
        id=row.id, name=row.name, scopes=tuple(row.scopes), created_at=row.created_at, created_by=row.created_by,
        expires_at=row.expires_at, revoked_at=row.revoked_at, revoked_by=row.revoked_by, last_used_at=row.last_used_at,
    )  # fmt: skip


def _check(name: str, scopes: Sequence[str], expires_at: datetime | None) -> None:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(
            f"the name of a key is 1 to {MAX_NAME} printable characters, not {printable(name, 40)!r}",
            "Name who will use it: a program, a person, a team.",
        )
    for scope in scopes:
        if scope not in SCOPES:
            known = f"Known: {', '.join(SCOPES)}."
            raise ConfigError(f"{printable(scope, 40)!r} is not a scope", did_you_mean(scope, SCOPES, known))
    if not scopes:
        raise ConfigError("the key would be good for nothing: it has no scope", f"Give some of {', '.join(SCOPES)}.")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise ConfigError(f"the key would have expired at {expires_at:%Y-%m-%d %H:%M} UTC", "Give a time to come.")


def _unknown(key: str, known: Mapping[str, ClientKey]) -> ConfigError:
    named = [other.id for other in known.values() if other.name == key and other.revoked_at is None]
    if named:
        return ConfigError(
            f"{printable(key, MAX_NAME)!r} is the name of {len(named)} key{'s' * (len(named) > 1)}; one is revoked by"
            f" its id: {', '.join(named[:5])}",
            f"Run: ssmd client key revoke {named[0]}",
        )
    return ConfigError(
        f"there is no key with the id {printable(key, 40)!r}", did_you_mean(key, known, "Run: ssmd client key list")
    )
