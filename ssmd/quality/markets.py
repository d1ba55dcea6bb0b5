"""The security master's markets, page by page, as the batches `markets` and `coverage` ask for them."""

from collections.abc import Iterable

import pandas as pd

from ssmd.registry.interface import HeardMarket, Registry

PAGE = 10_000
QUERY = """
    SELECT m.ticker, m.event_ticker, m.series_ticker, m.title, m.status, m.open_time, m.close_time, m.result,
        coalesce(m.result, '') = '' OR m.status IN ('determined', 'disputed', 'amended', 'finalized') AS result_fits
    FROM markets m JOIN feeds f ON f.id = m.feed_id WHERE f.name = '{feed}' AND m.known_to IS NULL
"""
"""The batch `markets`; a feed's name is letters, digits and hyphens."""


def heard_pages(registry: Registry, feed: str) -> Iterable[list[HeardMarket]]:
    """Active markets, and when they were heard."""
    after = ""
    while page := registry.heard_markets(feed, PAGE, after):
        yield page
        after = page[-1].ticker


def market_pages(registry: Registry, feed: str) -> Iterable[pd.DataFrame]:
    """The batch `markets` of a registry that is not PostgreSQL."""
    after = ""
    settled = ("determined", "disputed", "amended", "finalized")
    while page := registry.markets(feed, None, PAGE, after):
        after = page[-1].ticker
        found = pd.DataFrame(
            {
                "ticker": market.ticker, "event_ticker": market.event_ticker, "series_ticker": market.series_ticker,
                "title": market.title, "status": market.status, "open_time": market.open_time,
                "close_time": market.close_time, "result": market.result,
                "result_fits": not market.result or market.status in settled,
            }
            for market in page
        )  # fmt: skip
        for name in ("open_time", "close_time"):
            found[name] = pd.to_datetime(found[name], format="ISO8601", utc=True)
        yield found
