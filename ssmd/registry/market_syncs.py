"""The book of syncs: what each found, how far it reached, and the locks that keep two of them apart."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.config.values import masked
from ssmd.errors import RefusedError
from ssmd.registry.tables import market_syncs, market_volatile
from ssmd.registry.values import printable, written

SYNC_LOCK, WRITE_LOCK = 0x55D301, 0x55D302
"""First keys of the advisory locks (the second is the feed): one sync at a time, one writer of markets at a time."""
TIMEOUT = "10min"
RUNNING = "running"
ABORTED = "aborted"
UNENDED = "it never told its end: killed, or the machine or the database stopped; nothing of it was stored"


class Watermarks(msgspec.Struct, frozen=True):
    """How far completed syncs reach, in the exchange's times, and when the last full one began; None: never."""

    updated: datetime | None
    settled: datetime | None
    last_full: datetime | None


class SyncCounts(msgspec.Struct, frozen=True):
    """What a completed full sync found."""

    series: int
    events: int
    markets: int
    open_markets: int
    completed_at: datetime


class SyncRow(msgspec.Struct, frozen=True):
    """A row of `market_syncs`; status 'completed', 'refused', 'failed', 'running' or 'aborted' (it was killed).

    `completed_at` is None while it runs, and when nobody knows.
    """

    kind: str
    status: str
    started_at: datetime
    completed_at: datetime | None
    series: int
    events: int
    markets: int
    open_markets: int
    inserted: int
    changed: int
    accepted: bool
    error: str | None


def claim_sync(connection: sa.Connection, feed_id: int, feed: str) -> None:
    """Be the feed's only sync until this transaction ends; RefusedError when another one is running."""
    taken = sa.select(sa.func.pg_try_advisory_xact_lock(SYNC_LOCK, feed_id))
    if connection.execute(taken).scalar_one():
        return
    since = connection.execute(
        sa.text(
            "SELECT min(a.xact_start) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'"
            " AND l.granted AND l.classid = :key AND l.objid = :feed_id"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        {"key": SYNC_LOCK, "feed_id": feed_id},
    ).scalar_one()
    began = f" since {written(since.replace(microsecond=0))}" if since else ""
    raise RefusedError(
        f"another sync of the markets of {feed} is running{began}",
        f"Wait until it has ended, then run: ssmd market sync --feed {feed}",
    )


def is_running(connection: sa.Connection, feed_id: int) -> bool:
    """Does any session hold the lock of the feed's syncs?"""
    query = sa.text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :key"
        " AND objid = :feed_id AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    return bool(connection.execute(query, {"key": SYNC_LOCK, "feed_id": feed_id}).scalar_one())


def claim_writing(connection: sa.Connection, feed_id: int) -> datetime:
    """Wait to be the feed's only writer of markets until this transaction ends; the time by the database's clock."""
    # set, not only for this statement: what follows writes in bulk
    connection.execute(sa.text(f"SET LOCAL statement_timeout = '{TIMEOUT}'"))
    connection.execute(sa.text("SET LOCAL lock_timeout = '2min'"))
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITE_LOCK, feed_id)))
    at: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return at


def remember_volatile(connection: sa.Connection, feed_id: int, volatile: frozenset[str]) -> None:
    """Keep which fields are no history, for those who read it."""
    statement = insert(market_volatile).values(feed_id=feed_id, fields=sorted(volatile))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["feed_id"],
            set_={"fields": statement.excluded.fields},
            where=market_volatile.c.fields != statement.excluded.fields,
        )
    )


def begin_sync(connection: sa.Connection, feed_id: int, kind: str, started_at: datetime) -> None:
    """Write a sync that has just claimed its feed into the book; what still stands there as running was aborted."""
    s = market_syncs.c
    left = sa.update(market_syncs).where(s.feed_id == feed_id, s.status == RUNNING)
    connection.execute(left.values(status=ABORTED, error=UNENDED))
    row = {"feed_id": feed_id, "kind": kind, "status": RUNNING, "started_at": started_at}
    connection.execute(sa.insert(market_syncs).values(row))


def record_sync(connection: sa.Connection, feed_id: int, values: dict[str, Any]) -> bool:
    """Write the end of a sync into the book, its error without the passwords of URLs; False when it has ended before.

    The row is the one that `begin_sync` added.
    """
    if "error" in values:
        values = {**values, "error": printable(masked(values["error"]), 1_000)}
    s = market_syncs.c
    row = sa.update(market_syncs).where(s.feed_id == feed_id, s.started_at == values["started_at"], s.status == RUNNING)
    return connection.execute(row.values(completed_at=sa.func.clock_timestamp(), **values)).rowcount > 0


def last_full(connection: sa.Connection, feed_id: int) -> SyncCounts | None:
    """What the last completed full sync found."""
    s = market_syncs.c
    query = sa.select(s.series, s.events, s.markets, s.open_markets, s.completed_at).where(
        s.feed_id == feed_id, s.kind == "full", s.status == "completed"
    )
    row = connection.execute(query.order_by(s.id.desc()).limit(1)).one_or_none()  # whatever the clock said
    return SyncCounts(*row) if row else None


def watermarks_of(connection: sa.Connection, feed_id: int) -> Watermarks:
    """See `Watermarks`."""
    s = market_syncs.c
    done = (s.feed_id == feed_id, s.status == "completed")
    last = sa.select(s.started_at).where(*done, s.kind == "full").order_by(s.id.desc()).limit(1).scalar_subquery()
    # a clock that was put back has left times behind that nothing reaches for now
    updated, settled = (
        sa.func.max(until).filter(until <= sa.func.now()) for until in (s.updated_until, s.settled_until)
    )
    row = connection.execute(sa.select(updated, settled, last).where(*done)).one()
    return Watermarks(*row)


def book_of(connection: sa.Connection, feed_id: int, limit: int) -> list[SyncRow]:
    """The last syncs, newest first."""
    book = _book(connection, feed_id, limit)
    running = {number for number, row in book.items() if row.status == RUNNING}
    if running and not is_running(connection, feed_id):
        # a sync lets go of its lock when its end is written: what runs without a lock now is dead
        for number, row in (book := _book(connection, feed_id, limit)).items():
            if number in running and row.status == RUNNING:
                book[number] = msgspec.structs.replace(row, status=ABORTED, error=UNENDED)
    return list(book.values())


def _book(connection: sa.Connection, feed_id: int, limit: int) -> dict[int, SyncRow]:
    s = market_syncs.c
    columns = [s[name] for name in SyncRow.__struct_fields__]
    query = sa.select(s.id, *columns).where(s.feed_id == feed_id).order_by(s.started_at.desc(), s.id.desc())
    return {row[0]: SyncRow(*row[1:]) for row in connection.execute(query.limit(max(0, limit)))}
