"""What a `MarketFilter` means: as conditions for PostgreSQL, and for the registry in memory."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ssmd.registry.interface import STRIKE_FIELDS, Market, MarketFilter, MarketWords
from ssmd.registry.rows import market_of
from ssmd.registry.tables import markets
from ssmd.registry.values import storable

_WILD, _ESCAPED = re.compile(r"[\\%_]"), r"\\\g<0>"


def find_markets(
    connection: sa.Connection,
    feed_id: int,
    wanted: MarketFilter,
    limit: int | None,
    after: str = "",
    *also: sa.ColumnElement[bool],
) -> list[Market]:
    """The markets that `wanted` (and `also`) asks for, by ticker, without their raw objects; `limit` None: all."""
    m = markets.c
    raw = (
        sa.func.jsonb_build_object(*[part for name in STRIKE_FIELDS for part in (name, m.raw_metadata[name])])
        if wanted.strikes
        else sa.literal({}, JSONB)
    )
    columns = [sa.type_coerce(raw, JSONB).label(c.name) if c is m.raw_metadata else c for c in m]
    query = sa.select(*columns).where(m.feed_id == feed_id, *_conditions(wanted), *also)
    if after:
        query = query.where(m.ticker > storable(after))
    rows = connection.execute(query.order_by(m.ticker).limit(None if limit is None else max(0, limit)))
    return [market_of(row) for row in rows]


def market_words(connection: sa.Connection, feed_id: int) -> MarketWords:
    """Which statuses and categories there are; by steps over the indexes, so that many markets cost no more."""
    m = markets.c
    return MarketWords(_words_in(connection, feed_id, m.status), _words_in(connection, feed_id, m.category))


def _words_in(connection: sa.Connection, feed_id: int, column: sa.ColumnElement[str]) -> tuple[str, ...]:
    of_feed = markets.c.feed_id == feed_id
    first = sa.select(sa.func.min(column).label("word")).where(of_feed).cte("words", recursive=True)
    following = sa.select(sa.func.min(column)).where(of_feed, column > first.c.word).scalar_subquery()
    steps = first.union_all(sa.select(following).where(first.c.word.is_not(None)))
    rows = connection.execute(sa.select(steps.c.word).where(steps.c.word.is_not(None), steps.c.word != ""))
    return tuple(sorted(row.word for row in rows))


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
    text = sa.func.lower(sa.func.concat_ws(" ", m.title, m.ticker, m.event_ticker, m.series_ticker))
    if wanted.words:
        found.append(text.op("LIKE", is_comparison=True)(sa.func.all(_patterns(wanted.words))))
    if wanted.any_of:
        found.append(text.op("LIKE", is_comparison=True)(sa.func.any(_patterns(wanted.any_of))))
    return found


def _patterns(words: Sequence[str]) -> sa.ColumnElement[Any]:
    """What texts that contain the words are like: an array, so that each text is put together once."""
    return sa.cast([f"%{_WILD.sub(_ESCAPED, storable(word).lower())}%" for word in words], sa.ARRAY(sa.Text))


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
