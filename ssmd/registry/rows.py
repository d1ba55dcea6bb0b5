"""Values to rows and back, and the two statements that recount a day's inventory."""

from collections.abc import Collection
from datetime import date
from typing import Any

import sqlalchemy as sa

from ssmd.clock import NS_PER_DAY
from ssmd.market.events import Gap
from ssmd.registry.interface import InventoryRow, Issue, Market, ObjectRecord
from ssmd.registry.tables import data_gaps, data_inventory, data_objects
from ssmd.registry.values import written


def object_row(inventory_id: int, record: ObjectRecord) -> dict[str, Any]:
    """A row of `data_objects`."""
    return {
        "inventory_id": inventory_id,
        "bucket": record.bucket,
        "key": record.key,
        "group_name": record.group,
        "sha256": record.sha256,
        "bytes": record.bytes,
        "records": record.records,
        "symbols": record.symbols,
        "first_ns": record.first_ns,
        "last_ns": record.last_ns,
        "writer_version": record.writer_version,
    }


def object_of(row: Any) -> ObjectRecord:
    """A row of `data_objects` joined with its day."""
    return ObjectRecord(
        bucket=row.bucket,
        key=row.key,
        data_type=row.data_type,
        group=row.group_name,
        day=row.date,
        sha256=row.sha256,
        bytes=row.bytes,
        records=row.records,
        first_ns=row.first_ns,
        last_ns=row.last_ns,
        schema_version=row.schema_version,
        symbols=row.symbols,
        writer_version=row.writer_version,
    )


def inventory_of(feed: str, row: Any) -> InventoryRow:
    """A row of `data_inventory`."""
    return InventoryRow(
        feed=feed,
        data_type=row.data_type,
        day=row.date,
        storage_path=row.storage_path,
        schema_version=row.schema_version,
        symbol_count=row.symbol_count,
        record_count=row.record_count,
        byte_size=row.byte_size,
        first_ns=row.first_ns,
        last_ns=row.last_ns,
        status=row.status,
        gap_count=row.gap_count,
        quality_score=None if row.quality_score is None else float(row.quality_score),
        verified_at=written(row.processed_at),
    )


def gap_row(feed_id: int, gap: Gap) -> dict[str, Any]:
    """A row of `data_gaps`."""
    return {
        "feed_id": feed_id,
        "connection": gap.connection,
        "sid": gap.sid,
        "from_ns": gap.from_ns,
        "to_ns": gap.to_ns,
        "reason": gap.reason,
        "last_seq": gap.last_seq,
        "next_seq": gap.next_seq,
        "tickers": None if gap.tickers is None else list(gap.tickers),
    }


def gap_of(feed: str, row: Any) -> Gap:
    """A gap from its row."""
    return Gap(
        feed=feed,
        connection=row.connection,
        sid=row.sid,
        from_ns=row.from_ns,
        to_ns=row.to_ns,
        reason=row.reason,
        last_seq=row.last_seq,
        next_seq=row.next_seq,
        tickers=None if row.tickers is None else tuple(row.tickers),
    )


def issue_row(feed_id: int, issue: Issue) -> dict[str, Any]:
    """A row of `data_quality_issues`."""
    return {
        "feed_id": feed_id,
        "day": issue.day,
        "data_type": issue.data_type,
        "issue_type": issue.issue_type,
        "detail": issue.detail,
        "severity": issue.severity,
        "connection": issue.connection,
        "count": issue.count,
        "sample_data": {"sample": issue.sample} if issue.sample else None,
    }


def issue_of(feed: str, row: Any) -> Issue:
    """An issue from its row."""
    return Issue(
        feed=feed,
        day=row.day,
        data_type=row.data_type,
        issue_type=row.issue_type,
        severity=row.severity,
        count=row._mapping["count"],
        sample=(row.sample_data or {}).get("sample", ""),
        connection=row.connection,
        detail=row.detail,
    )


def market_of(row: Any) -> Market:
    """A market from its row."""
    return Market(
        ticker=row.ticker,
        event_ticker=row.event_ticker,
        title=row.title,
        status=row.status,
        open_time=written(row.open_time),
        close_time=written(row.close_time),
        result=row.result or "",
        raw=row.raw_metadata,
        series_ticker=row.series_ticker,
        category=row.category or "",
        expiration_time=written(row.expiration_time),
        settlement_time=written(row.settlement_time),
        settled_at=written(row.settled_at),
        settlement_value=row.settlement_value or "",
        updated_time=written(row.source_updated_at),
        listed=row.known_to is None,
    )


def touching(first_ns: Any, end_ns: Any) -> sa.ColumnElement[bool]:
    """Gaps that touch the time from `first_ns` up to and without `end_ns`."""
    g = data_gaps.c
    return sa.and_(g.from_ns < end_ns, sa.or_(g.to_ns > first_ns, g.from_ns >= first_ns))


def recount_objects(inventory_ids: Collection[int]) -> sa.Update:
    """Make day rows from their objects; a change makes a day unfinished again."""
    o, i = data_objects.c, data_inventory.c
    # compacted objects hold one ticker each, in a folder of its name; segments say how many they hold
    ticker = sa.func.split_part(o.key, "/", -2)
    compacted = sa.func.count(ticker.distinct()).filter(o.key.like("%/data.capnp.zst"))
    of_day = o.inventory_id == i.id

    def total(expression: Any) -> sa.ScalarSelect[Any]:
        return sa.select(expression).where(of_day).scalar_subquery()

    return (
        sa.update(data_inventory)
        .where(i.id.in_(inventory_ids))
        .values(
            record_count=total(sa.func.coalesce(sa.func.sum(o.records), 0)),
            byte_size=total(sa.func.coalesce(sa.func.sum(o.bytes), 0)),
            first_ns=total(sa.func.coalesce(sa.func.min(o.first_ns), 0)),
            last_ns=total(sa.func.coalesce(sa.func.max(o.last_ns), 0)),
            symbol_count=total(sa.func.nullif(sa.func.greatest(compacted, sa.func.max(o.symbols)), 0)),
            status="processing",
            quality_score=None,
            processed_at=None,
        )
    )


def recount_gaps() -> sa.Update:
    """Count the gaps that touch each day row (narrow it with `where`); a day that gains one has no score any more."""
    g, i = data_gaps.c, data_inventory.c
    start = sa.cast(i.date - sa.literal(date(1970, 1, 1)), sa.BigInteger) * NS_PER_DAY
    count = sa.select(sa.func.count()).select_from(data_gaps)
    count = count.where(g.feed_id == i.feed_id, touching(start, start + NS_PER_DAY))
    counted = count.scalar_subquery()
    return sa.update(data_inventory).values(
        gap_count=counted,
        quality_score=sa.case((i.gap_count == counted, i.quality_score)),
        status=sa.case((sa.and_(i.status == "complete", counted > 0), "partial"), else_=i.status),
    )
