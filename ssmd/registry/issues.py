"""Counted problems of the data as rows of `data_quality_issues`."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ssmd.registry.interface import Issue
from ssmd.registry.rows import issue_row
from ssmd.registry.tables import data_quality_batches, data_quality_issues
from ssmd.registry.values import BATCHES_KEPT


def add_issues(
    connection: sa.Connection, feed_ids: Mapping[str, int], issues: Sequence[Issue], batch: UUID | None
) -> None:
    """Add to the counts; a batch that is known changes nothing."""
    if batch is not None and not _is_new(connection, batch):
        return
    statement = insert(data_quality_issues)
    known, new = data_quality_issues.c, statement.excluded
    counted = statement.on_conflict_do_update(
        constraint="data_quality_issues_identity_key",
        set_={
            "count": known["count"] + new["count"],
            "sample_data": sa.func.coalesce(known.sample_data, new.sample_data),
        },
    )
    # in one order, so that two writers cannot wait for each other; singly, since a kind may come twice
    for row in sorted((issue_row(feed_ids[issue.feed], issue) for issue in issues), key=_order):
        connection.execute(counted, row)


def put_issues(connection: sa.Connection, feed_id: int, day: date, data_type: str, issues: Sequence[Issue]) -> None:
    """Put issues, each of another kind, in the place of all that the day has of the data type (the feed is locked)."""
    q = data_quality_issues.c
    connection.execute(
        sa.delete(data_quality_issues).where(q.feed_id == feed_id, q.day == day, q.data_type == data_type)
    )
    if issues:
        connection.execute(insert(data_quality_issues), [issue_row(feed_id, issue) for issue in issues])


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["feed_id"], row["day"], row["data_type"], row["issue_type"], row["detail"], row["connection"]


def _is_new(connection: sa.Connection, batch: UUID) -> bool:
    """Take note of a batch of issues; was it unknown? Old ones are forgotten."""
    b = data_quality_batches.c
    statement = insert(data_quality_batches).values(batch=batch).on_conflict_do_nothing().returning(b.batch)
    if connection.execute(statement).one_or_none() is None:
        return False
    old = sa.select(b.batch).where(b.recorded_at < sa.func.now() - BATCHES_KEPT).with_for_update(skip_locked=True)
    connection.execute(sa.delete(data_quality_batches).where(b.batch.in_(old)))
    return True
