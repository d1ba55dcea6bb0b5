"""The markets that are known now, which of them vanished, and from which a connector has ever heard."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.registry.interface import HeardMarket, Market
from ssmd.registry.market_values import ACTIVE, EVIDENCE, LISTED
from ssmd.registry.rows import market_of
from ssmd.registry.staging import Answer
from ssmd.registry.tables import market_coverage, market_history, markets
from ssmd.registry.values import storable, written

HEARD_EVERY = timedelta(seconds=60)
"""A market heard again within this time is not written again."""


def markets_page(connection: sa.Connection, feed_id: int, status: str | None, limit: int, after: str) -> list[Market]:
    """Listed markets sorted by ticker, from the first after `after`."""
    m = markets.c
    query = sa.select(markets).where(m.feed_id == feed_id, m.ticker > storable(after), m.known_to.is_(None))
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


def unheard() -> sa.ColumnElement[bool]:
    """Active markets from which no frame ever came."""
    heard = sa.exists().where(market_coverage.c.market_id == markets.c.id)
    return sa.and_(markets.c.status == ACTIVE, ~heard)


def never_heard_page(connection: sa.Connection, feed_id: int, limit: int) -> list[Market]:
    """Active, listed markets from which no frame ever came, sorted by ticker."""
    m = markets.c
    query = sa.select(markets).where(m.feed_id == feed_id, m.known_to.is_(None), unheard())
    return [market_of(row) for row in connection.execute(query.order_by(m.ticker).limit(max(0, limit)))]


def heard_page(connection: sa.Connection, feed_id: int, limit: int, after: str) -> list[HeardMarket]:
    """Active, listed markets sorted by ticker, from the first after `after`, with when they were heard."""
    m, c = markets.c, market_coverage.c
    query = (
        sa.select(m.ticker, m.open_time, m.known_from, c.first_heard_at, c.last_heard_at)
        .outerjoin_from(markets, market_coverage, c.market_id == m.id)
        .where(m.feed_id == feed_id, m.known_to.is_(None), m.status == ACTIVE, m.ticker > storable(after))
        .order_by(m.ticker)
        .limit(max(0, limit))
    )
    return [HeardMarket(*row) for row in connection.execute(query)]


def overlooked(connection: sa.Connection, feed_id: int, since: datetime, limit: int) -> list[str]:
    """Tickers of listed markets without a final result that no sync has seen since a moment."""
    m = markets.c
    final = [word for word, evidence in EVIDENCE.items() if evidence == "finalized"]
    query = sa.select(m.ticker).where(
        m.feed_id == feed_id, m.status.not_in(final), m.known_to.is_(None), m.observed_at < since
    )
    return list(connection.execute(query.order_by(m.ticker).limit(max(0, limit))).scalars())


def unlist_markets(
    connection: sa.Connection, feed_id: int, tickers: Sequence[str], since: datetime | None, at: datetime
) -> int:
    """Mark markets as no longer listed, known at `at`; how many were. What was observed at `since` or later stays."""
    if not tickers:
        return 0
    m = markets.c
    of_tickers = sa.func.any(sa.cast(tickers, sa.ARRAY(sa.Text)))
    gone = sa.update(markets).where(m.feed_id == feed_id, m.ticker == of_tickers, m.known_to.is_(None))
    if since is not None:
        gone = gone.where(m.observed_at < since)
    gone = gone.values(known_to=sa.func.greatest(at, m.known_from), updated_at=at)
    ids = sorted(connection.execute(gone.returning(m.id)).scalars())
    if ids:
        unlisted = {"field_name": LISTED, "old_value": "true", "new_value": "false", "changed_at": at, "known_from": at}
        connection.execute(sa.insert(market_history), [{"market_id": i, **unlisted} for i in ids])
    return len(ids)


def unlike_known(
    connection: sa.Connection, feed_id: int, answers: Mapping[str, Answer], seen_before: datetime
) -> list[Answer]:
    """The answers (by ticker) that tell something new, or are of markets that were last observed before a time.

    An exchange lists a hundred thousand markets again and again, and few differ: those cost one look at an index.
    """
    m = markets.c
    of_tickers = sa.func.any(sa.cast(list(answers), sa.ARRAY(sa.Text)))
    columns = (m.ticker, m.metadata_hash, m.category, m.series_ticker, m.source_updated_at)
    query = sa.select(*columns).where(m.feed_id == feed_id, m.ticker == of_tickers)
    same = {
        row.ticker
        for row in connection.execute(query.where(m.known_to.is_(None), m.observed_at >= seen_before))
        if _tells_nothing(answers[row.ticker], row)
    }
    return [answer for ticker, answer in answers.items() if ticker not in same]


def _tells_nothing(answer: Answer, row: Any) -> bool:
    told = answer.columns
    return (
        answer.fingerprint == row.metadata_hash
        and told.category in ("", row.category)
        and told.series_ticker in ("", row.series_ticker)
        and told.updated_time in (None, written(row.source_updated_at))
    )
