"""What a `MarketFilter` means: as conditions for PostgreSQL, and for the registry in memory."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ssmd.registry.interface import Market, MarketFilter
from ssmd.registry.rows import market_of
from ssmd.registry.tables import markets
from ssmd.registry.values import storable


def find_markets(
    connection: sa.Connection,
    feed_id: int,
    wanted: MarketFilter,
    limit: int | None,
    after: str = "",
    *also: sa.ColumnElement[bool],
) -> list[Market]:
    """The markets that `wanted` (and `also`) asks for, without their raw objects, by ticker; `limit` None: all."""
    m = markets.c
    columns = [sa.literal({}, JSONB).label(c.name) if c is m.raw_metadata else c for c in m]
    query = sa.select(*columns).where(m.feed_id == feed_id, *_conditions(wanted), *also)
    if after:
        query = query.where(m.ticker > storable(after))
    rows = connection.execute(query.order_by(m.ticker).limit(None if limit is None else max(0, limit)))
    return [market_of(row) for row in rows]


def _conditions(wanted: MarketFilter) -> list[sa.ColumnElement[bool]]:
    m = markets.c
    equal = {
        m.status: wanted.status,
        m.category: wanted.category,
        m.series_ticker: wanted.series_ticker,
        m.event_ticker: wanted.event_ticker,
        m.result: wanted.result,
    }
    found: list[sa.ColumnElement[bool]] = [c == storable(value) for c, value in equal.items() if value is not None]
    if wanted.listed is not None:
        found.append(m.known_to.is_(None) if wanted.listed else m.known_to.is_not(None))
    if wanted.close_after is not None:
        found.append(m.close_time >= wanted.close_after)
    if wanted.close_before is not None:
        found.append(m.close_time < wanted.close_before)
    found += [_occurs(word) for word in wanted.words]
    if wanted.any_of:
        found.append(sa.or_(*map(_occurs, wanted.any_of)))
    return found


def _occurs(word: str) -> sa.ColumnElement[bool]:
    m = markets.c
    text = sa.func.concat_ws(" ", m.title, m.ticker, m.event_ticker, m.series_ticker)
    return text.icontains(storable(word), autoescape=True)


def matches(market: Market, wanted: MarketFilter) -> bool:
    """Does `wanted` ask for this market?"""
    equal = (
        (market.status, wanted.status),
        (market.category, wanted.category),
        (market.series_ticker, wanted.series_ticker),
        (market.event_ticker, wanted.event_ticker),
        (market.result, wanted.result),
        (market.listed, wanted.listed),
    )
    if any(asked is not None and told != asked for told, asked in equal):
        return False
    closes = _time(market.close_time)
    if wanted.close_after is not None and (closes is None or closes < wanted.close_after):
        return False
    if wanted.close_before is not None and (closes is None or closes >= wanted.close_before):
        return False
    text = " ".join((market.title, market.ticker, market.event_ticker, market.series_ticker)).lower()
    if not all(storable(word).lower() in text for word in wanted.words):
        return False
    return not wanted.any_of or any(storable(word).lower() in text for word in wanted.any_of)


def _time(text: str | None) -> datetime | None:
    """A stored time; stored times are ISO 8601."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
