"""Looking for markets: by what they belong to, and by a name that was mistyped."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from ssmd.nearest import nearest
from ssmd.registry.database import Database, find_feed
from ssmd.registry.interface import Market, MarketFilter
from ssmd.registry.market_filter import find_markets
from ssmd.registry.market_listing import one_market, unheard
from ssmd.registry.tables import markets
from ssmd.registry.values import storable

_NEIGHBOURS = 500
_ALIKE, _VERY_ALIKE = 70.0, 85.0
_LONGEST = 256
_BATCH = 5_000


class Settlement(NamedTuple):
    """How a market was settled: the result, and the value in the exchange's decimal text; "" for none."""

    result: str
    value: str


class MarketSearch:
    """Reads the markets of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(
        self,
        feed: str,
        *,
        status: str | None = None,
        category: str | None = None,
        series: str | None = None,
        event: str | None = None,
        never_heard: bool = False,
        limit: int | None = None,
    ) -> list[Market]:
        """Listed markets that belong to all that is given, without their raw objects; at most `limit` (None: all).

        Sorted by ticker. `never_heard`: only active ones of which no connector ever received a frame.
        """
        wanted = MarketFilter(status=status, category=category, series_ticker=series, event_ticker=event)
        also = [unheard()] if never_heard else []
        with self._database.transaction(f"list markets of feed {feed!r}") as connection:
            return find_markets(connection, find_feed(connection, feed), wanted, limit, "", *also)

    def one(self, feed: str, ticker: str) -> Market | None:
        """One market."""
        with self._database.transaction(f"read a market of feed {feed!r}") as connection:
            return one_market(connection, find_feed(connection, feed), ticker)

    def settlements(self, feed: str, tickers: Sequence[str]) -> dict[str, Settlement]:
        """How those of `tickers` that are known were settled."""
        m = markets.c
        with self._database.transaction(f"read settlements of feed {feed!r}") as connection:
            query = sa.select(m.ticker, m.result, m.settlement_value).where(m.feed_id == find_feed(connection, feed))
            rows = connection.execute(query.where(m.ticker.in_([storable(ticker) for ticker in tickers])))
            return {row.ticker: Settlement(row.result or "", row.settlement_value or "") for row in rows}

    def near(self, feed: str, ticker: str) -> str:
        """The known ticker that a mistyped one was probably meant to be; "" when none is alike.

        A slip after the first letters is found among the neighbours in the index; only one at the very beginning
        costs a look at all tickers.
        """
        word = storable(ticker, _LONGEST)
        m = markets.c
        with self._database.transaction(f"look for a market of feed {feed!r}") as connection:
            query = sa.select(m.ticker).where(m.feed_id == find_feed(connection, feed))
            around: list[str] = []
            for typed in {word, word.upper()}:
                below = query.where(m.ticker <= typed).order_by(m.ticker.desc()).limit(_NEIGHBOURS)
                above = query.where(m.ticker > typed).order_by(m.ticker).limit(_NEIGHBOURS)
                around += [*connection.execute(below).scalars(), *connection.execute(above).scalars()]
            return nearest(word, around, _VERY_ALIKE) or self._nearest_of_all(connection, query, word)

    def _nearest_of_all(self, connection: sa.Connection, query: sa.Select[tuple[str]], word: str) -> str:
        """The best of each batch, and of these the best: memory stays bounded."""
        found = connection.execution_options(yield_per=_BATCH).execute(query)
        return nearest(word, self._best(found, word), _ALIKE)

    def _best(self, found: sa.CursorResult[tuple[str]], word: str) -> Iterator[str]:
        for batch in found.partitions():
            if best := nearest(word, (row.ticker for row in batch), _ALIKE):
                yield best
