"""What the journal is told: new markets and rows of history, in one order, from where the last publication ended."""

from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.registry.tables import market_journal


class JournalItem(msgspec.Struct, frozen=True):
    """Something that the journal should hear.

    kind 'listed': a new market; `field` is 'status', `new` the status it was listed with, `history_id` 0.
    kind 'changed': a row of history; `old` and `new` are what was believed before and after (of a correction: the
    value that it corrects, and the right one).
    `id` is the same whenever the same item is given again.
    """

    id: str
    kind: str
    market_id: int
    history_id: int
    ticker: str
    event_ticker: str
    field: str
    old: str | None
    new: str | None
    changed_at: datetime
    known_from: datetime
    evidence: str | None


_LISTED = """
SELECT m.id, m.ticker, m.event_ticker, m.known_from,
       coalesce((SELECT h.old_value FROM market_history h WHERE h.market_id = m.id AND h.field_name = 'status'
                 ORDER BY h.known_from, h.id LIMIT 1), m.status) AS status
FROM markets m WHERE m.feed_id = :feed_id AND m.id > :after ORDER BY m.id LIMIT :limit
"""
_CHANGED = """
SELECT h.*, m.ticker, m.event_ticker, CASE WHEN c.id IS NULL THEN h.old_value ELSE c.new_value END AS before
FROM market_history h JOIN markets m ON m.id = h.market_id
  LEFT JOIN market_history c  -- the row that this one corrects
    ON c.market_id = h.market_id AND c.field_name = h.field_name AND c.known_to = h.known_from
WHERE m.feed_id = :feed_id AND h.id > :after ORDER BY h.id LIMIT :limit
"""


def unpublished_items(connection: sa.Connection, feed_id: int, limit: int) -> list[JournalItem]:
    """The first items after those marked as published: a market before its changes, ids of each kind ascending.

    Markets and history of a feed are written one transaction after the other, so ids appear in their order.
    """
    j = market_journal.c
    done = connection.execute(sa.select(market_journal).where(j.feed_id == feed_id)).one_or_none()
    values = {"feed_id": feed_id, "limit": max(0, limit)}
    listed = connection.execute(sa.text(_LISTED), {**values, "after": done.last_market_id if done else 0})
    changed = connection.execute(sa.text(_CHANGED), {**values, "after": done.last_history_id if done else 0})
    both = merge(map(_listed, listed), map(_changed, changed), key=lambda item: (item.known_from, item.history_id > 0))
    return list(islice(both, max(0, limit)))


def mark_items(connection: sa.Connection, feed_id: int, last_market_id: int, last_history_id: int) -> None:
    """Remember how far the journal has heard; never goes back."""
    statement = insert(market_journal).values(
        feed_id=feed_id, last_market_id=last_market_id, last_history_id=last_history_id
    )
    known, new = market_journal.c, statement.excluded
    names = ("last_market_id", "last_history_id")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["feed_id"], set_={name: sa.func.greatest(known[name], new[name]) for name in names}
        )
    )


def _listed(row: Any) -> JournalItem:
    return JournalItem(
        id=f"market-{row.id}",
        kind="listed",
        market_id=row.id,
        history_id=0,
        ticker=row.ticker,
        event_ticker=row.event_ticker,
        field="status",
        old=None,
        new=row.status,
        changed_at=row.known_from,
        known_from=row.known_from,
        evidence=None,
    )


def _changed(row: Any) -> JournalItem:
    return JournalItem(
        id=f"history-{row.id}",
        kind="changed",
        market_id=row.market_id,
        history_id=row.id,
        ticker=row.ticker,
        event_ticker=row.event_ticker,
        field=row.field_name,
        old=row.before,
        new=row.new_value,
        changed_at=row.changed_at,
        known_from=row.known_from,
        evidence=row.evidence,
    )
