"""Which tickers the registry knows, without anything else about their markets."""

from collections.abc import Sequence

import sqlalchemy as sa

from ssmd.registry.database import Database, find_feed
from ssmd.registry.tables import markets
from ssmd.registry.values import storable


def unknown_tickers(database: Database, feed: str, tickers: Sequence[str]) -> list[str]:
    """Those of `tickers` that are no market of the feed, in their order. ConfigError when the feed is unknown."""
    with database.transaction(f"look for markets of feed {feed[:80]!r}") as connection:
        return unknown_among(connection, find_feed(connection, feed), tickers)


def unknown_among(connection: sa.Connection, feed_id: int, tickers: Sequence[str]) -> list[str]:
    """As `unknown_tickers`, within a transaction."""
    wanted = [storable(ticker) for ticker in tickers]
    query = sa.select(markets.c.ticker).where(markets.c.feed_id == feed_id, markets.c.ticker.in_(wanted))
    known = set(connection.execute(query).scalars())
    return [ticker for ticker, asked in zip(tickers, wanted, strict=True) if asked not in known]


def unlisted_tickers(database: Database, feed: str, tickers: Sequence[str]) -> list[str]:
    """Those of `tickers` that the exchange listed once and lists no more, in their order."""
    wanted = [storable(ticker) for ticker in tickers]
    with database.transaction(f"look for markets of feed {feed[:80]!r}") as connection:
        of_feed = markets.c.feed_id == find_feed(connection, feed)
        query = sa.select(markets.c.ticker).where(
            of_feed, markets.c.ticker.in_(wanted), markets.c.known_to.is_not(None)
        )
        gone = set(connection.execute(query).scalars())
    return [ticker for ticker, asked in zip(tickers, wanted, strict=True) if asked in gone]


def known_tickers(database: Database, feed: str) -> list[str]:
    """Every ticker of the feed; some megabytes for a large exchange. ConfigError when the feed is unknown."""
    with database.transaction(f"list the markets of feed {feed[:80]!r}") as connection:
        feed_id = find_feed(connection, feed)
        return list(connection.execute(sa.select(markets.c.ticker).where(markets.c.feed_id == feed_id)).scalars())
