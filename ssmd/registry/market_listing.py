"""The markets that are known now, and which of them a connector has ever heard from."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.registry.interface import Market
from ssmd.registry.market_values import ACTIVE
from ssmd.registry.rows import market_of
from ssmd.registry.tables import market_coverage, markets
from ssmd.registry.values import storable

HEARD_EVERY = timedelta(seconds=60)
"""A market heard again within this time is not written again."""


def markets_page(connection: sa.Connection, feed_id: int, status: str | None, limit: int, after: str) -> list[Market]:
    """Markets sorted by ticker, from the first after `after`."""
    m = markets.c
    query = sa.select(markets).where(m.feed_id == feed_id, m.ticker > storable(after))
    if status is not None:
        query = query.where(m.status == storable(status))
    return [market_of(row) for row in connection.execute(query.order_by(m.ticker).limit(max(0, limit)))]


def one_market(connection: sa.Connection, feed_id: int, ticker: str) -> Market | None:
    """One market."""
    m = markets.c
    query = sa.select(markets).where(m.feed_id == feed_id, m.ticker == storable(ticker))
    row = connection.execute(query).one_or_none()
    return market_of(row) if row else None


def record_coverage(connection: sa.Connection, feed_id: int, tickers: Sequence[str], at: datetime) -> None:
    """Remember that frames of these markets came; markets that the registry does not know are passed over."""
    m, known = markets.c, market_coverage.c
    of_tickers = sa.func.any(sa.cast([storable(t) for t in tickers], sa.ARRAY(sa.Text)))
    heard = (
        sa.select(m.id, sa.literal(at), sa.literal(at))
        .select_from(markets.outerjoin(market_coverage, known.market_id == m.id))
        .where(m.feed_id == feed_id, m.ticker == of_tickers)
        .where(sa.or_(known.market_id.is_(None), known.last_heard_at <= at - HEARD_EVERY, known.first_heard_at > at))
        .order_by(m.id)  # one order for all: no deadlock between two connectors
    )
    statement = insert(market_coverage).from_select(["market_id", "first_heard_at", "last_heard_at"], heard)
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["market_id"],
            set_={
                "first_heard_at": sa.func.least(known.first_heard_at, new.first_heard_at),
                "last_heard_at": sa.func.greatest(known.last_heard_at, new.last_heard_at),
            },
        )
    )


def never_heard_page(connection: sa.Connection, feed_id: int, limit: int) -> list[Market]:
    """Active, listed markets from which no frame ever came, sorted by ticker."""
    m = markets.c
    heard = sa.exists().where(market_coverage.c.market_id == m.id)
    query = sa.select(markets).where(m.feed_id == feed_id, m.status == ACTIVE, m.known_to.is_(None), ~heard)
    return [market_of(row) for row in connection.execute(query.order_by(m.ticker).limit(max(0, limit)))]


def overlooked(connection: sa.Connection, feed_id: int, since: datetime, limit: int) -> list[str]:
    """Tickers of active, listed markets that no sync has seen since a moment."""
    m = markets.c
    query = sa.select(m.ticker).where(
        m.feed_id == feed_id, m.status == ACTIVE, m.known_to.is_(None), m.observed_at < since
    )
    return list(connection.execute(query.order_by(m.ticker).limit(max(0, limit))).scalars())
