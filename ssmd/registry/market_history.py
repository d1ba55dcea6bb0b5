"""Markets in two times: what they were on a date (valid), and what was known of it on a date (known)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from ssmd.errors import ConfigError
from ssmd.registry.market_merge import CURRENT
from ssmd.registry.market_values import ACTIVE, CLOSED, DECIDED, ENDED, LISTED, SETTLEMENT_FIELDS, UNOPENED
from ssmd.registry.tables import market_history, market_volatile, markets
from ssmd.registry.values import printable, storable, written


class MarketChange(msgspec.Struct, frozen=True):
    """One field's change: `changed_at` is when it happened, as far as the exchange tells, `known_from` when we knew.

    `known_to` is set when better evidence took the row's place. `evidence` is there for settlement fields.
    """

    id: int
    ticker: str
    field: str
    old: str | None
    new: str | None
    changed_at: datetime
    known_from: datetime
    known_to: datetime | None
    evidence: str | None


class MarketState(msgspec.Struct, frozen=True):
    """The fields of a market, as text, at one moment as known at another; a field without a value is not there.

    `listed_at` is when the exchange listed it, as far as it tells (at the latest when it became known here); `listed`
    whether it was known to be listed. `inferred` names fields that follow from the market's times, since nobody here
    was watching then: never a later settlement, never a later status.
    """

    ticker: str
    fields: dict[str, str | None]
    known_from: datetime
    listed_at: datetime
    listed: bool = True
    inferred: tuple[str, ...] = ()


def find_market(connection: sa.Connection, feed_id: int, feed: str, ticker: str) -> Any:
    """The row of a market, without its raw object; ConfigError when there is none."""
    m = markets.c
    existed = sa.func.least(m.listed_at, m.known_from).label("listed_at")
    query = sa.select(m.id, m.ticker, m.known_from, m.known_to, existed).where(
        m.feed_id == feed_id, m.ticker == storable(ticker)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        shown = printable(ticker, 80)
        raise ConfigError(f"the registry knows no market {shown!r} of {feed}", f"See: ssmd market list --feed {feed}")
    return row


def changes_of(connection: sa.Connection, market_id: int, ticker: str, known_at: datetime | None) -> list[MarketChange]:
    """The market's history in order of `changed_at`: as known at a moment, or all that was ever recorded."""
    h = market_history.c
    query = sa.select(market_history).where(h.market_id == market_id).order_by(h.changed_at, h.id)
    if known_at is not None:
        query = query.where(h.known_from <= known_at, sa.or_(h.known_to.is_(None), h.known_to > known_at))
    return [_change(ticker, row) for row in connection.execute(query)]


def _change(ticker: str, row: Any) -> MarketChange:
    return MarketChange(
        id=row.id,
        ticker=ticker,
        field=row.field_name,
        old=row.old_value,
        new=row.new_value,
        changed_at=row.changed_at,
        known_from=row.known_from,
        known_to=row.known_to,
        evidence=row.evidence,
    )


def state_of(connection: sa.Connection, feed_id: int, row: Any, valid_at: datetime, known_at: datetime) -> MarketState:
    """One market (a row of `find_market`) as of two moments; ConfigError when it was not known or not there yet."""
    if row.known_from > known_at:
        raise ConfigError(
            f"market {printable(row.ticker, 80)!r} was not known at {written(known_at)}",
            f"It is known since {written(row.known_from)}: ask for that time or a later one.",
        )
    if row.listed_at > valid_at:
        raise ConfigError(
            f"market {printable(row.ticker, 80)!r} did not exist at {written(valid_at)}",
            f"It exists since {written(row.listed_at)}: ask for that time or a later one.",
        )
    return _states(connection, feed_id, [row.id], valid_at, known_at)[0]


_CURRENT = f"""
SELECT m.id, m.ticker, m.known_from, m.known_to, least(m.listed_at, m.known_from) AS listed_at,
       m.open_time, m.close_time, m.settled_at,
       (SELECT jsonb_object_agg(f.key, f.value) FROM jsonb_each_text({CURRENT}) f) AS fields
FROM markets m WHERE m.id = ANY(:ids) ORDER BY m.ticker
"""  # noqa: S608  (made of constants)


def _states(
    connection: sa.Connection, feed_id: int, ids: Sequence[int], valid_at: datetime, known_at: datetime
) -> list[MarketState]:
    """Markets as of two moments, sorted by ticker."""
    query = sa.select(market_volatile.c.fields).where(market_volatile.c.feed_id == feed_id)
    volatile = frozenset(connection.execute(query).scalar_one_or_none() or ())
    h = market_history.c
    history: dict[int, list[MarketChange]] = {}
    for row in connection.execute(sa.select(market_history).where(h.market_id.in_(ids)).order_by(h.changed_at, h.id)):
        history.setdefault(row.market_id, []).append(_change("", row))
    return [
        _state(row, history.get(row.id, []), volatile, valid_at, known_at)
        for row in connection.execute(sa.text(_CURRENT), {"ids": list(ids)})
    ]


def _state(
    row: Any, changes: list[MarketChange], volatile: frozenset[str], valid_at: datetime, known_at: datetime
) -> MarketState:
    now: dict[str, str | None] = {name: value for name, value in row.fields.items() if name not in volatile}
    now[LISTED] = "true" if row.known_to is None else "false"
    by_field: dict[str, list[MarketChange]] = {}
    for change in changes:
        if change.field not in volatile:
            by_field.setdefault(change.field, []).append(change)
    now.update({field: value_at(found, now.get(field), valid_at, known_at) for field, found in by_field.items()})
    listed = now.pop(LISTED) == "true"
    inferred = _without_the_future(now, row, valid_at) if valid_at < row.known_from else ()
    return MarketState(
        ticker=row.ticker,
        fields={name: now[name] for name in sorted(now) if now[name] is not None},
        known_from=row.known_from,
        listed_at=row.listed_at,
        listed=listed,
        inferred=inferred,
    )


def _without_the_future(fields: dict[str, str | None], row: Any, valid_at: datetime) -> tuple[str, ...]:
    """Take out of `fields`, first seen after `valid_at`, what cannot have been so then; the names of what was changed.

    A result is of its settlement's time. A status is at most the one that the market's times allow (`_STATUS_THEN`).
    """
    gone: list[str] = []
    if row.settled_at is None or valid_at < row.settled_at:
        gone = [name for name in (*SETTLEMENT_FIELDS, "expiration_value") if fields.pop(name, None)]
    status = fields.get("status")
    if row.open_time is not None and valid_at < row.open_time:
        then = UNOPENED
    elif status in ENDED and row.close_time is not None and valid_at < row.close_time:
        then = ACTIVE
    elif status in DECIDED and (row.settled_at is None or valid_at < row.settled_at):
        then = CLOSED
    else:
        return tuple(gone)
    fields["status"] = then
    return (*gone, "status") if then != status else tuple(gone)


def value_at(changes: list[MarketChange], now: str | None, valid_at: datetime, known_at: datetime) -> str | None:
    """A field's value as of two moments, from its changes in order of `changed_at` and its value `now`."""
    known = [c for c in changes if c.known_from <= known_at and (c.known_to is None or c.known_to > known_at)]
    happened = [change for change in known if change.changed_at <= valid_at]
    if happened:
        return happened[-1].new
    if known:
        return known[0].old
    later = [change for change in changes if change.known_from > known_at]
    return min(later, key=lambda change: (change.known_from, change.id)).old if later else now


BELONGING = ("status", "category", "series_ticker", "event_ticker")
"""Fields by which a list can be narrowed; each is a column of `markets`, too."""


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _at(field: str) -> str:
    """A lateral join that gives `{field}_at.value` where history tells it: what `value_at` gives, in SQL."""
    rows = f"SELECT h.* FROM market_history h WHERE h.market_id = m.id AND h.field_name = '{field}'"  # noqa: S608
    known = "h.known_from <= :known_at AND (h.known_to IS NULL OR h.known_to > :known_at)"
    return f"""
LEFT JOIN LATERAL (
  SELECT value, true AS told FROM (
    (SELECT 1 AS choice, new_value AS value FROM ({rows} AND {known} AND h.changed_at <= :valid_at
                                                  ORDER BY h.changed_at DESC, h.id DESC LIMIT 1) a)
    UNION ALL
    (SELECT 2, old_value FROM ({rows} AND {known} ORDER BY h.changed_at, h.id LIMIT 1) b)
    UNION ALL
    (SELECT 3, old_value FROM ({rows} AND h.known_from > :known_at ORDER BY h.known_from, h.id LIMIT 1) c)) choices
  ORDER BY choice LIMIT 1
) {field}_at ON true"""  # noqa: S608  (made of constants)


_STATUS_THEN = f"""
CASE WHEN :valid_at >= m.known_from THEN {{was}}
     WHEN :valid_at < m.open_time THEN '{UNOPENED}'
     WHEN {{was}} IN ({_quoted(ENDED)}) AND :valid_at < m.close_time THEN '{ACTIVE}'
     WHEN {{was}} IN ({_quoted(DECIDED)}) AND (m.settled_at IS NULL OR :valid_at < m.settled_at) THEN '{CLOSED}'
     ELSE {{was}} END"""
"""The status as `_without_the_future` has it."""


def _then(field: str) -> str:
    was = _was(field, f"m.{field}")
    return _STATUS_THEN.format(was=was) if field == "status" else was


def _was(field: str, now: str) -> str:
    return f"CASE WHEN {field}_at.told THEN {field}_at.value ELSE {now} END"


def _page(fields: Iterable[str]) -> str:
    """The query for a page of markets of which these fields had the values that are asked for."""
    fields = list(fields)
    if unknown := set(fields) - set(BELONGING):
        raise ValueError(f"no such fields: {unknown}")
    # whatever a field was on a date, it is now, or history tells of it: most markets need no closer look
    maybe = "".join(
        f"""
        AND (m.{field} = :{field} {"OR known_from > :valid_at" if field == "status" else ""} OR EXISTS (
          SELECT FROM market_history h WHERE h.market_id = m.id AND h.field_name = '{field}'))"""
        for field in fields
    )
    exactly = "".join(f"\n  AND {_then(field)} = :{field}" for field in fields)
    # the ordered subquery lets a page end the search early: the planner cannot know that nearly all are listed
    return f"""
SELECT m.id
FROM (SELECT id, ticker, known_from, known_to, open_time, close_time, settled_at, {", ".join(BELONGING)}
      FROM markets m
      WHERE feed_id = :feed_id AND ticker > :after AND known_from <= :known_at
        AND least(listed_at, known_from) <= :valid_at {maybe}
      ORDER BY ticker OFFSET 0) m {"".join(_at(field) for field in (*fields, LISTED))}
WHERE {_was(LISTED, "CASE WHEN m.known_to IS NULL THEN 'true' ELSE 'false' END")} = 'true' {exactly}
ORDER BY m.ticker LIMIT :limit
"""  # noqa: S608  (made of constants)


def states_of(
    connection: sa.Connection,
    feed_id: int,
    moments: tuple[datetime, datetime],
    wanted: Mapping[str, str],
    limit: int,
    after: str,
) -> list[MarketState]:
    """A page of the markets that existed and were listed at (valid_at, known_at), sorted by ticker.

    `wanted` maps fields of `BELONGING` to the values that they had then.
    """
    valid_at, known_at = moments
    values = {
        "feed_id": feed_id,
        "valid_at": valid_at,
        "known_at": known_at,
        "after": storable(after),
        "limit": max(0, limit),
        **{field: storable(value) for field, value in wanted.items()},
    }
    ids = list(connection.execute(sa.text(_page(wanted)), values).scalars())
    return _states(connection, feed_id, ids, valid_at, known_at) if ids else []
