"""What a sync of markets asks of the registry beside its own transaction: parents of markets, and the book of syncs."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from ssmd.registry.database import Database, find_feed
from ssmd.registry.market_syncs import record_sync
from ssmd.registry.sync_limits import Expected, expected_of
from ssmd.registry.tables import market_events, market_history, market_series, markets
from ssmd.registry.values import storable

_CHUNK = 1_000


class Family(NamedTuple):
    """What an event gives its markets; "" where nobody knows."""

    series_ticker: str
    category: str


class SyncContext:
    """Questions to a `Database`, each in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def families(self, feed: str, events: Sequence[str]) -> dict[str, Family]:
        """The families of those of `events` that are known, by ticker; a series' category is stronger."""
        e, s = market_events.c, market_series.c
        joined = market_events.outerjoin(market_series, (s.feed_id == e.feed_id) & (s.ticker == e.series_ticker))
        category = sa.func.coalesce(sa.func.nullif(s.category, ""), e.category, "").label("category")
        query = sa.select(e.ticker, e.series_ticker, category).select_from(joined)
        found: dict[str, Family] = {}
        with self._database.transaction(f"read events of feed {feed!r}") as connection:
            query = query.where(e.feed_id == find_feed(connection, feed))
            for chunk in _chunks(events):
                rows = connection.execute(query.where(e.ticker.in_(chunk)))
                found.update((row.ticker, Family(row.series_ticker, row.category)) for row in rows)
        return found

    def categories(self, feed: str, series: Sequence[str]) -> dict[str, str]:
        """The categories of those of `series` that are known and have one, by ticker."""
        s = market_series.c
        found: dict[str, str] = {}
        with self._database.transaction(f"read series of feed {feed!r}") as connection:
            query = sa.select(s.ticker, s.category).where(s.feed_id == find_feed(connection, feed), s.category != "")
            for chunk in _chunks(series):
                found.update((row.ticker, row.category) for row in connection.execute(query.where(s.ticker.in_(chunk))))
        return found

    def expected(self, feed: str) -> Expected:
        """What a sync of the feed is compared with."""
        with self._database.transaction(f"read the syncs of feed {feed!r}") as connection:
            return expected_of(connection, find_feed(connection, feed))

    def note_refusal(self, feed: str, kind: str, started_at: datetime, open_markets: int, reason: str) -> None:
        """Write into the book that the running sync was refused before it stored anything."""
        with self._database.transaction(f"note a refused sync of feed {feed!r}") as connection:
            row = {"kind": kind, "status": "refused", "started_at": started_at, "open_markets": open_markets}
            record_sync(connection, find_feed(connection, feed), {**row, "error": reason})

    def statuses_since(self, feed: str, at: datetime) -> dict[str, int]:
        """How many markets have changed to each status word by what was learnt at `at` or later."""
        h, m = market_history.c, markets.c
        with self._database.transaction(f"count changes of feed {feed!r}") as connection:
            query = sa.select(h.new_value, sa.func.count()).join(markets, m.id == h.market_id)
            query = query.where(m.feed_id == find_feed(connection, feed), h.field_name == "status", h.known_from >= at)
            return {word or "": count for word, count in connection.execute(query.group_by(h.new_value))}


def _chunks(tickers: Sequence[str]) -> list[list[str]]:
    return [[storable(each) for each in tickers[start : start + _CHUNK]] for start in range(0, len(tickers), _CHUNK)]
