"""Which series and category an event gives its markets, as far as the registry knows."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from ssmd.registry.database import Database, find_feed
from ssmd.registry.tables import market_events, market_series
from ssmd.registry.values import storable

_CHUNK = 1_000


class Family(NamedTuple):
    """What an event gives its markets; "" where nobody knows."""

    series_ticker: str
    category: str


class Lineage:
    """Reads the events and series of a `Database`."""

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


def _chunks(tickers: Sequence[str]) -> list[list[str]]:
    return [[storable(each) for each in tickers[start : start + _CHUNK]] for start in range(0, len(tickers), _CHUNK)]
