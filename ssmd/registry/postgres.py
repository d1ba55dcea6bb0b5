"""The registry in PostgreSQL: a method is one transaction; writers of one feed's inventory queue on its `feeds` row."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from ssmd.errors import ConfigError
from ssmd.market.events import Gap
from ssmd.registry import db
from ssmd.registry.bootstrap import bootstrap, version_on
from ssmd.registry.database import Database, find_feed
from ssmd.registry.interface import (
    FeedVersion,
    HeardMarket,
    InventoryRow,
    Issue,
    Market,
    MarketFilter,
    MarketWords,
    ObjectRecord,
)
from ssmd.registry.issues import add_issues, put_issues
from ssmd.registry.market_filter import find_markets, market_words
from ssmd.registry.market_listing import heard_page, markets_page, never_heard_page, one_market, record_coverage
from ssmd.registry.rows import (
    gap_of,
    gap_row,
    inventory_of,
    issue_of,
    object_of,
    object_row,
    recount_gaps,
    recount_objects,
    touching,
)
from ssmd.registry.security_master import SecurityMaster, store_markets
from ssmd.registry.tables import (
    data_gaps,
    data_inventory,
    data_objects,
    data_quality_issues,
    feed_versions,
)
from ssmd.registry.tickers import unknown_among
from ssmd.registry.values import (
    DATA_TYPES,
    STATUSES,
    batch_id,
    choice,
    day_bounds,
    gap_days,
    gap_identity,
    issue_order,
    issues_of,
    merged_gap,
    score_value,
    storage_path,
    stored_gap,
    stored_issue,
)

_CHUNK = 1_000

_log = structlog.get_logger()


def prepare_database(url: str, wait_s: int = 30) -> None:
    """Create the database and its tables and add the known feeds, whatever of it is missing; safe to repeat.

    Raises RegistryUnavailable, ConfigError or FatalError, as `db.migrate`.
    """
    db.migrate(url, wait_s)
    engine = db.open_engine(url)
    try:
        with db.translated(engine.url, "add the known feeds"), engine.begin() as connection:
            bootstrap(connection)
    finally:
        engine.dispose()


class PostgresRegistry:
    """A Registry in PostgreSQL; connects when it is first used, and is safe to use from several threads."""

    def __init__(self, url: str | Callable[[], str]) -> None:
        self._database = Database(url)
        self._transaction = self._database.transaction

    def feed_version(self, feed: str, on: date) -> FeedVersion:
        """See `Registry.feed_version`."""
        v = feed_versions.c
        with self._transaction(f"read the versions of feed {feed!r}") as connection:
            feed_id = find_feed(connection, feed)
            rows = connection.execute(
                sa.select(feed_versions).where(v.feed_id == feed_id, v.known_to.is_(None)).order_by(v.effective_from)
            ).all()
        versions = [
            (r.effective_from, r.effective_to, FeedVersion(feed, r.version, r.endpoint_template, r.rest_endpoint or ""))
            for r in rows
        ]
        return version_on(feed, on, versions)

    def record_objects(self, feed: str, objects: Sequence[ObjectRecord]) -> None:
        """See `Registry.record_objects`."""
        self.replace_objects(feed, (), objects)

    def replace_objects(self, feed: str, remove_keys: Sequence[tuple[str, str]], add: Sequence[ObjectRecord]) -> None:
        """See `Registry.replace_objects`."""
        for record in add:
            choice("data type", record.data_type, DATA_TYPES)
        with self._transaction(f"record objects of feed {feed!r}") as connection:
            feed_id = find_feed(connection, feed, lock=True)
            changed = _delete_objects(connection, feed_id, remove_keys)
            by_day: defaultdict[tuple[Any, ...], list[ObjectRecord]] = defaultdict(list)
            for record in add:
                by_day[record.day, record.data_type, record.schema_version].append(record)
            for records in by_day.values():
                inventory_id = _inventory_id(connection, feed_id, feed, records[0])
                if _insert_objects(connection, inventory_id, records):
                    changed.add(inventory_id)
            if changed:
                connection.execute(recount_objects(changed))
                connection.execute(recount_gaps().where(data_inventory.c.id.in_(changed)))

    def record_gaps(self, gaps: Sequence[Gap]) -> None:
        """See `Registry.record_gaps`."""
        by_feed: defaultdict[str, dict[tuple[object, ...], Gap]] = defaultdict(dict)
        for gap in map(stored_gap, gaps):
            known = by_feed[gap.feed]
            identity = gap_identity(gap)
            known[identity] = merged_gap(known[identity], gap) if identity in known else gap
        if not by_feed:
            return
        with self._transaction(f"record gaps of {', '.join(by_feed)}") as connection:
            for feed in sorted(by_feed):
                self._record_feed_gaps(connection, feed, list(by_feed[feed].values()))

    def _record_feed_gaps(self, connection: sa.Connection, feed: str, gaps: list[Gap]) -> None:
        feed_id = find_feed(connection, feed, lock=True)
        statement = insert(data_gaps)
        new = statement.excluded
        longer = statement.on_conflict_do_update(
            constraint="data_gaps_identity_key",
            set_={name: new[name] for name in ("to_ns", "last_seq", "next_seq", "tickers")},
            where=new.to_ns > data_gaps.c.to_ns,
        )
        connection.execute(longer, [gap_row(feed_id, gap) for gap in gaps])
        days = [gap_days(gap) for gap in gaps]
        first, last = min(first for first, _ in days), max(last for _, last in days)
        inventory = data_inventory.c
        connection.execute(
            recount_gaps().where(inventory.feed_id == feed_id, inventory.date >= first, inventory.date <= last)
        )

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        """See `Registry.record_issues`."""
        stored, named = [stored_issue(issue) for issue in issues], batch_id(batch)
        if not stored:
            return
        with self._transaction("record quality issues") as connection:
            ids = {feed: find_feed(connection, feed) for feed in sorted({issue.feed for issue in stored})}
            add_issues(connection, ids, stored, named)

    def replace_issues(self, feed: str, day: date, data_type: str, issues: Sequence[Issue]) -> None:
        """See `Registry.replace_issues`."""
        stored = [stored_issue(issue) for issue in issues_of(issues, feed, day, data_type)]
        with self._transaction(f"replace {data_type} issues of feed {feed!r}") as connection:
            put_issues(connection, find_feed(connection, feed, lock=True), day, data_type, stored)

    def objects(self, feed: str, day: date, data_type: str | None = None) -> list[ObjectRecord]:
        """See `Registry.objects`."""
        o, i = data_objects.c, data_inventory.c
        query = sa.select(data_objects, i.data_type, i.date, i.schema_version).join(data_inventory)
        with self._transaction(f"list objects of feed {feed!r}") as connection:
            query = query.where(i.feed_id == find_feed(connection, feed), i.date == day).order_by(o.bucket, o.key)
            if data_type is not None:
                query = query.where(i.data_type == data_type)
            return [object_of(row) for row in connection.execute(query)]

    def inventory(self, feed: str, first: date, last: date) -> list[InventoryRow]:
        """See `Registry.inventory`."""
        i = data_inventory.c
        with self._transaction(f"read the inventory of feed {feed!r}") as connection:
            query = sa.select(data_inventory).where(
                i.feed_id == find_feed(connection, feed), i.date.between(first, last)
            )
            rows = [inventory_of(feed, row) for row in connection.execute(query)]
        return sorted(rows, key=lambda row: (row.day, row.data_type, row.schema_version or ""))

    def set_day_condition(
        self, feed: str, day: date, data_type: str, status: str, quality_score: float | None = None
    ) -> None:
        """See `Registry.set_day_condition`."""
        choice("status", status, STATUSES)
        values = {
            "status": status,
            "quality_score": score_value(quality_score),
            "processed_at": None if status == "processing" else sa.func.now(),
        }
        i = data_inventory.c
        with self._transaction(f"mark a day of feed {feed!r}") as connection:
            feed_id = find_feed(connection, feed, lock=True)
            day_rows = sa.update(data_inventory).where(i.feed_id == feed_id, i.date == day, i.data_type == data_type)
            if connection.execute(day_rows.values(values)).rowcount == 0:
                raise ConfigError(f"there is no {data_type} data of {feed} on {day}", "See: ssmd data inventory")

    def set_day_score(self, feed: str, day: date, data_type: str, quality_score: float | None) -> None:
        """See `Registry.set_day_score`."""
        i = data_inventory.c
        with self._transaction(f"score a day of feed {feed!r}") as connection:
            feed_id = find_feed(connection, feed, lock=True)
            day_rows = sa.update(data_inventory).where(i.feed_id == feed_id, i.date == day, i.data_type == data_type)
            connection.execute(day_rows.values(quality_score=score_value(quality_score)))

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        """See `Registry.gaps`."""
        g, start_ns, end_ns = data_gaps.c, day_bounds(day)[0], day_bounds(last or day)[1]
        with self._transaction(f"list gaps of feed {feed!r}") as connection:
            feed_id = find_feed(connection, feed)
            query = sa.select(data_gaps).where(g.feed_id == feed_id, touching(start_ns, end_ns))
            rows = [gap_of(feed, row) for row in connection.execute(query)]
        return sorted(
            rows, key=lambda gap: (gap.from_ns, gap.connection, -1 if gap.sid is None else gap.sid, gap.reason)
        )

    def issues(self, feed: str, day: date) -> list[Issue]:
        """See `Registry.issues`."""
        q = data_quality_issues.c
        with self._transaction(f"list issues of feed {feed!r}") as connection:
            query = sa.select(data_quality_issues).where(q.feed_id == find_feed(connection, feed), q.day == day)
            rows = [issue_of(feed, row) for row in connection.execute(query)]
        return sorted(rows, key=issue_order)

    def upsert_markets(self, feed: str, markets: Sequence[Market], volatile: frozenset[str] = frozenset()) -> int:
        """See `Registry.upsert_markets`."""
        return store_markets(self._database, feed, markets, volatile)

    def markets(self, feed: str, status: str | None = None, limit: int = 1000, after: str = "") -> list[Market]:
        """See `Registry.markets`."""
        with self._transaction(f"list markets of feed {feed!r}") as connection:
            return markets_page(connection, find_feed(connection, feed), status, limit, after)

    def market(self, feed: str, ticker: str) -> Market | None:
        """See `Registry.market`."""
        with self._transaction(f"read a market of feed {feed!r}") as connection:
            return one_market(connection, find_feed(connection, feed), ticker)

    def unknown_tickers(self, feed: str, tickers: Sequence[str]) -> list[str]:
        """See `Registry.unknown_tickers`."""
        with self._transaction(f"look for markets of feed {feed!r}") as connection:
            return unknown_among(connection, find_feed(connection, feed), tickers)

    def find_markets(self, feed: str, wanted: MarketFilter, limit: int = 1000, after: str = "") -> list[Market]:
        """See `Registry.find_markets`."""
        with self._transaction(f"look for markets of feed {feed!r}") as connection:
            return find_markets(connection, find_feed(connection, feed), wanted, limit, after)

    def market_words(self, feed: str) -> MarketWords:
        """See `Registry.market_words`."""
        with self._transaction(f"list statuses and categories of feed {feed!r}") as connection:
            return market_words(connection, find_feed(connection, feed))

    def unlist_markets(self, feed: str, tickers: Sequence[str]) -> int:
        """The exchange no longer knows these; how many were listed. One that is upserted again is listed again."""
        return SecurityMaster(self._database).unlist(feed, tickers)

    def record_heard(self, feed: str, tickers: Sequence[str], at: datetime) -> None:
        """See `Registry.record_heard`."""
        with self._transaction(f"record heard markets of feed {feed!r}") as connection:
            record_coverage(connection, find_feed(connection, feed), tickers, at)

    def never_heard(self, feed: str, limit: int = 1000) -> list[Market]:
        """See `Registry.never_heard`."""
        with self._transaction(f"list unheard markets of feed {feed!r}") as connection:
            return never_heard_page(connection, find_feed(connection, feed), limit)

    def heard_markets(self, feed: str, limit: int = 1000, after: str = "") -> list[HeardMarket]:
        """See `Registry.heard_markets`."""
        with self._transaction(f"list heard markets of feed {feed!r}") as connection:
            return heard_page(connection, find_feed(connection, feed), limit, after)

    def ping(self) -> None:
        """See `Registry.ping`."""
        self._database.ping()

    def close(self) -> None:
        """See `Registry.close`."""
        self._database.close()


def _delete_objects(connection: sa.Connection, feed_id: int, keys: Sequence[tuple[str, str]]) -> set[int]:
    """Forget objects of the feed; the inventory rows that held them."""
    o, i = data_objects.c, data_inventory.c
    of_feed = sa.select(i.id).where(i.feed_id == feed_id)
    changed: set[int] = set()
    for start in range(0, len(keys), _CHUNK):
        chunk = list(keys[start : start + _CHUNK])
        gone = sa.delete(data_objects).where(sa.tuple_(o.bucket, o.key).in_(chunk), o.inventory_id.in_(of_feed))
        changed.update(connection.execute(gone.returning(o.inventory_id)).scalars())
    return changed


def _inventory_id(connection: sa.Connection, feed_id: int, feed: str, record: ObjectRecord) -> int:
    """The id of the day's row, made when it is missing (the feed is locked)."""
    i = data_inventory.c
    values = {"feed_id": feed_id, "data_type": record.data_type, "date": record.day}
    values |= {"schema_version": record.schema_version, "storage_path": storage_path(feed, record)}
    connection.execute(insert(data_inventory).values(values).on_conflict_do_nothing())
    query = sa.select(i.id).where(
        i.feed_id == feed_id,
        i.data_type == record.data_type,
        i.date == record.day,
        i.schema_version.is_not_distinct_from(record.schema_version),
    )
    return int(connection.execute(query).scalar_one())


def _insert_objects(connection: sa.Connection, inventory_id: int, records: list[ObjectRecord]) -> bool:
    """Add the objects that are new; was there one? A known key with other content is left as it is, and logged."""
    o = data_objects.c
    statement = insert(data_objects).on_conflict_do_nothing().returning(o.bucket, o.key)
    added: set[tuple[str, str]] = set()
    for start in range(0, len(records), _CHUNK):
        rows = [object_row(inventory_id, record) for record in records[start : start + _CHUNK]]
        added.update((row.bucket, row.key) for row in connection.execute(statement, rows))
    for record in records:
        if (record.bucket, record.key) not in added:
            known = sa.select(o.sha256).where(o.bucket == record.bucket, o.key == record.key)
            sha256 = connection.execute(known).scalar_one()
            if sha256 != record.sha256:
                _log.warning("object conflict", key=record.key, known=sha256, ignored=record.sha256)
    return bool(added)
