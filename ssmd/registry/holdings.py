"""What is held of each day, page by page: the inventory and the gaps for readers outside, as known now or earlier."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa

from ssmd.clock import NS_PER_DAY
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.registry.assessment import DayFacts
from ssmd.registry.database import Database, find_feed
from ssmd.registry.interface import InventoryRow, Issue
from ssmd.registry.rows import gap_of, inventory_of, issue_of, touching
from ssmd.registry.tables import data_gaps, data_inventory, data_objects, data_quality_issues, feeds
from ssmd.registry.values import day_bounds, touches

MAX_FACTS = 50_000
"""So many gaps, and so many issues, are read for one question about days."""
TICKERS_SHOWN = 100
"""Of the markets that a gap concerns."""


class Holding(msgspec.Struct, frozen=True):
    """A row of the inventory; `known_from` is when the day was first recorded.

    `changed_since`: asked for an earlier time, and something of the day was recorded or judged after it; the values are
    today's.
    """

    row: InventoryRow
    known_from: datetime
    changed_since: bool


class InventoryPlace(NamedTuple):
    """Where a row stands in the order of the inventory."""

    day: date
    feed: str
    data_type: str
    id: int


class Wanted(msgspec.Struct, frozen=True):
    """Which rows of the inventory: of `first` to `last`, both included; None: any."""

    first: date
    last: date
    feed: str | None = None
    data_type: str | None = None
    status: str | None = None
    known_at: datetime | None = None


Holdings: TypeAlias = list[tuple[InventoryPlace, Holding]]


class RecordedGap(msgspec.Struct, frozen=True):
    """A gap and when it was recorded; `resolved_at` when it was filled from elsewhere.

    Of its tickers the first `TICKERS_SHOWN`; `ticker_count` says how many there are (None: all of the subscription).
    """

    id: int
    gap: Gap
    ticker_count: int | None
    recorded_at: datetime
    resolved_at: datetime | None
    notes: str | None


class HeldGroup(msgspec.Struct, frozen=True):
    """The objects of a day of one kind and group (raw: trades, orderbook, ...; normalized: an event type)."""

    data_type: str
    group: str
    objects: int
    records: int
    bytes: int


class HeldDay(msgspec.Struct, frozen=True):
    """One day; `latest` is the last day that the feed has any data of."""

    rows: list[Holding]
    groups: list[HeldGroup]
    latest: date | None


class DaysHeld(msgspec.Struct, frozen=True):
    """The facts of some days, each in order. `first` and `last` are the days that the feed has any data of."""

    days: list[DayFacts]
    first: date | None
    last: date | None


class HoldingsCatalogue:
    """The inventory in the metadata database. Each method is one transaction; RegistryUnavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def inventory(self, wanted: Wanted, limit: int, after: InventoryPlace | None = None) -> Holdings:
        """Rows by day, feed and kind. ConfigError when the feed is unknown."""
        i = data_inventory.c
        order = (i.date, feeds.c.name, i.data_type, i.id)
        known = wanted.known_at
        changed: sa.ColumnElement[bool] = sa.false() if known is None else _changed_since(known)
        query = (
            sa.select(data_inventory, feeds.c.name.label("feed"), changed.label("changed_since"))
            .join(feeds)
            .where(i.date.between(wanted.first, wanted.last))
            .order_by(*order)
            .limit(limit)
        )
        if known is not None:
            query = query.where(i.known_from <= known)
        if wanted.data_type is not None:
            query = query.where(i.data_type == wanted.data_type)
        if wanted.status is not None:
            query = query.where(i.status == wanted.status)
        if after is not None:
            query = query.where(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, after)))
        with self._database.transaction("read the inventory") as connection:
            if wanted.feed is not None:
                query = query.where(i.feed_id == find_feed(connection, wanted.feed))
            return [
                (
                    InventoryPlace(row.date, row.feed, row.data_type, row.id),
                    Holding(inventory_of(row.feed, row), row.known_from, bool(row.changed_since)),
                )
                for row in connection.execute(query)
            ]

    def day(self, feed: str, day: date, known_at: datetime | None = None) -> HeldDay:
        """A day's rows, and what its objects are by kind and group. ConfigError when the feed is unknown."""
        i, o = data_inventory.c, data_objects.c
        groups_query = (
            sa.select(
                i.data_type, o.group_name, sa.func.count().label("objects"), sa.func.sum(o.records).label("records"),
                sa.func.sum(o.bytes).label("bytes"),
            )
            .join_from(data_objects, data_inventory)
            .where(i.date == day)
            .group_by(i.data_type, o.group_name)
            .order_by(i.data_type, o.group_name)
        )  # fmt: skip
        changed: sa.ColumnElement[bool] = sa.false() if known_at is None else _changed_since(known_at)
        query = sa.select(data_inventory, changed.label("changed_since")).where(i.date == day)
        latest = sa.select(sa.func.max(i.date)).where(i.record_count > 0)
        if known_at is not None:
            query, latest = query.where(i.known_from <= known_at), latest.where(i.known_from <= known_at)
            groups_query = groups_query.where(o.created_at <= known_at)
        with self._database.transaction(f"read a day of feed {feed[:80]!r}", snapshot=True) as connection:
            of_feed = i.feed_id == find_feed(connection, feed)
            rows = connection.execute(query.where(of_feed).order_by(i.data_type, i.id)).all()
            groups = connection.execute(groups_query.where(of_feed)).all()
            last = connection.execute(latest.where(of_feed)).scalar()
        return HeldDay(
            [Holding(inventory_of(feed, row), row.known_from, bool(row.changed_since)) for row in rows],
            [HeldGroup(g.data_type, g.group_name, g.objects, int(g.records), int(g.bytes)) for g in groups],
            last,
        )

    def gaps(
        self,
        feed: str,
        start_ns: int,
        end_ns: int,
        known_at: datetime | None = None,
        limit: int = 1_000,
        after: tuple[int, int] | None = None,
    ) -> list[RecordedGap]:
        """Gaps that touch a time, by start, from the first after the (start, id) `after`."""
        g = data_gaps.c
        shown, count = g.tickers[1:TICKERS_SHOWN].label("tickers"), sa.func.cardinality(g.tickers).label("ticker_count")
        columns = [*_gap_columns(shown), g.id, g.created_at, g.resolved_at, g.notes, count]
        query = sa.select(*columns).where(touching(start_ns, end_ns)).order_by(g.from_ns, g.id).limit(limit)
        if known_at is not None:
            query = query.where(g.created_at <= known_at)
        if after is not None:
            query = query.where(sa.tuple_(g.from_ns, g.id) > sa.tuple_(*map(sa.literal, after)))
        with self._database.transaction(f"list gaps of feed {feed[:80]!r}") as connection:
            rows = connection.execute(query.where(g.feed_id == find_feed(connection, feed))).all()
        return [RecordedGap(r.id, gap_of(feed, r), r.ticker_count, r.created_at, r.resolved_at, r.notes) for r in rows]

    def days(self, feed: str, first: date, last: date, today: date, known_at: datetime | None = None) -> DaysHeld:
        """Everything that is known about each of some days, read in one state of the database.

        `known_at` leaves out days, gaps and issues that were recorded later. Which tickers a gap concerns is not told.
        ConfigError when the feed is unknown, DataError when the days have more than `MAX_FACTS` gaps or issues.
        """
        i, g, q = data_inventory.c, data_gaps.c, data_quality_issues.c
        start_ns, end_ns = day_bounds(first)[0], day_bounds(last)[1]
        rows_query = sa.select(data_inventory)
        some = sa.case((g.tickers.is_not(None), sa.cast(sa.literal("{}"), g.tickers.type))).label("tickers")
        gaps_query = sa.select(*_gap_columns(some)).where(touching(start_ns, end_ns)).limit(MAX_FACTS + 1)
        issues_query = sa.select(data_quality_issues).where(q.day.between(first, last)).limit(MAX_FACTS + 1)
        held = sa.select(sa.func.min(i.date), sa.func.max(i.date)).where(i.record_count > 0)
        if known_at is not None:
            rows_query = rows_query.where(i.known_from <= known_at)
            held = held.where(i.known_from <= known_at)
            gaps_query = gaps_query.where(g.created_at <= known_at)
            issues_query = issues_query.where(q.detected_at <= known_at)
        with self._database.transaction(f"judge days of feed {feed[:80]!r}", snapshot=True) as connection:
            feed_id = find_feed(connection, feed)
            known_first, known_last = connection.execute(held.where(i.feed_id == feed_id)).one()
            mine = connection.execute(rows_query.where(i.feed_id == feed_id, i.date.between(first, last))).all()
            gaps = [gap_of(feed, row) for row in connection.execute(gaps_query.where(g.feed_id == feed_id))]
            issues = [issue_of(feed, row) for row in connection.execute(issues_query.where(q.feed_id == feed_id))]
            unsealed = _with_segments(connection, mine, issues)
        if max(len(gaps), len(issues)) > MAX_FACTS:
            raise DataError(f"{first} to {last} has more than {MAX_FACTS} gaps or issues", "Ask for fewer days.")
        rows = [_as_judged(inventory_of(feed, row), row.processed_at, known_at) for row in mine]
        days = _facts(feed, first, last, today, rows, gaps, issues, known_last, unsealed)
        return DaysHeld(days, known_first, known_last)


def _as_judged(row: InventoryRow, judged: datetime | None, known_at: datetime | None) -> InventoryRow:
    """A row with its verdict, if that was known by then."""
    if known_at is None or judged is None or judged <= known_at:
        return row
    return msgspec.structs.replace(row, status="processing", quality_score=None, verified_at=None)


def _gap_columns(tickers: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    g = data_gaps.c
    return [g.connection, g.sid, g.from_ns, g.to_ns, g.reason, g.last_seq, g.next_seq, tickers]


def _changed_since(known_at: datetime) -> sa.ColumnElement[bool]:
    """Was anything of a day recorded or judged after a time?"""
    i, o, g = data_inventory.c, data_objects.c, data_gaps.c
    start = sa.cast(i.date - sa.literal(date(1970, 1, 1)), sa.BigInteger) * NS_PER_DAY
    of_day = sa.and_(g.feed_id == i.feed_id, touching(start, start + NS_PER_DAY))
    return sa.or_(
        sa.func.coalesce(i.processed_at > known_at, False),
        sa.exists().where(o.inventory_id == i.id, o.created_at > known_at),
        sa.exists().where(of_day, g.created_at > known_at),
    )


def _with_segments(connection: sa.Connection, rows: Iterable[Any], issues: Iterable[Issue]) -> set[date]:
    """The days whose normalized data is not compacted; asked only of those where it matters (see `assessment`)."""
    troubled = {issue.day for issue in issues if issue.data_type == "normalized"}
    asked = {
        row.id: row.date
        for row in rows
        if row.data_type == "normalized" and row.record_count and row.date in troubled and row.quality_score is None
    }
    if not asked:
        return set()
    o = data_objects.c
    found = sa.select(o.inventory_id).where(o.inventory_id.in_(asked), o.key.contains("/_segments/")).distinct()
    return {asked[place] for place in connection.execute(found).scalars()}


def _facts(  # noqa: PLR0913
    feed: str,
    first: date,
    last: date,
    today: date,
    rows: list[InventoryRow],
    gaps: list[Gap],
    issues: list[Issue],
    last_held: date | None,
    unsealed: set[date],
) -> list[DayFacts]:
    rows_of: defaultdict[date, list[InventoryRow]] = defaultdict(list)
    issues_of: defaultdict[date, list[Issue]] = defaultdict(list)
    for row in rows:
        rows_of[row.day].append(row)
    for issue in issues:
        issues_of[issue.day].append(issue)
    found: list[DayFacts] = []
    left, place, open_gaps = sorted(gaps, key=lambda gap: gap.from_ns), 0, list[Gap]()
    for n in range((last - first).days + 1):
        day = first + timedelta(days=n)
        start_ns, end_ns = day_bounds(day)
        while place < len(left) and left[place].from_ns < end_ns:
            open_gaps.append(left[place])
            place += 1
        open_gaps = [gap for gap in open_gaps if gap.to_ns > start_ns or gap.from_ns >= start_ns]
        normalized = any(row.data_type == "normalized" and row.record_count for row in rows_of[day])
        troubled = any(issue.data_type == "normalized" for issue in issues_of[day])
        found.append(
            DayFacts(
                feed=feed,
                day=day,
                rows=sorted(rows_of[day], key=lambda row: (row.data_type, row.schema_version or "")),
                gaps=[gap for gap in open_gaps if touches(gap, start_ns, end_ns)],
                issues=issues_of[day],
                followed=day >= today or (last_held is not None and last_held > day),
                compacted=normalized and troubled and day not in unsealed,
            )
        )
    return found
