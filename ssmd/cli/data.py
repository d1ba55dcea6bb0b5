"""`ssmd data`: the archive."""

from datetime import date, timedelta
from typing import Any

from cyclopts import App

from ssmd.cli.opening import registry_of
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import show_rows
from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.errors import EXIT_DONE
from ssmd.market.events import Gap
from ssmd.registry.interface import InventoryRow

app = App(name="data", help="The archive: inventory, gaps, verification, compaction.")

_INVENTORY = {
    "day": "DAY",
    "data_type": "DATA",
    "status": "STATUS",
    "record_count": "RECORDS",
    "byte_size": "BYTES",
    "symbol_count": "SYMBOLS",
    "gap_count": "GAPS",
    "first": "FIRST",
    "last": "LAST",
}
_GAPS = {"from": "FROM", "to": "TO", "seconds": "SECONDS", "reason": "REASON", "connection": "CONNECTION", "sid": "SID"}


@app.command
def inventory(
    *,
    env: EnvFile = None,
    feed: Feed = None,
    from_: date | None = None,
    to: date | None = None,
    json: Json = False,
) -> int:
    """Show what is archived, one row for each day and kind of data.

    Parameters
    ----------
    from_
        First day (UTC); default: 30 days before the last.
    to
        Last day (UTC); default: today.
    """
    chosen = choose(env)
    last = to or day_of(now_ns())
    with registry_of(chosen) as registry:
        rows = registry.inventory(chosen.feed(feed), from_ or last - timedelta(days=30), last)
    show_rows(
        [_inventory_row(row) for row in rows], _INVENTORY, as_json=json, empty="nothing is archived in these days"
    )
    return EXIT_DONE


@app.command
def gaps(*, env: EnvFile = None, feed: Feed = None, date: date | None = None, json: Json = False) -> int:
    """Show the recorded gaps of a day (UTC; default: today)."""
    chosen = choose(env)
    with registry_of(chosen) as registry:
        found = registry.gaps(chosen.feed(feed), date or day_of(now_ns()))
    show_rows([_gap_row(gap) for gap in found], _GAPS, as_json=json, empty="no gaps on this day")
    return EXIT_DONE


def _inventory_row(row: InventoryRow) -> dict[str, Any]:
    return {
        "feed": row.feed,
        "data_type": row.data_type,
        "day": row.day.isoformat(),
        "status": row.status,
        "record_count": row.record_count,
        "byte_size": row.byte_size,
        "symbol_count": row.symbol_count,
        "gap_count": row.gap_count,
        "first": iso(row.first_ns) if row.first_ns else None,
        "last": iso(row.last_ns) if row.last_ns else None,
        "schema_version": row.schema_version,
        "storage_path": row.storage_path,
    }


def _gap_row(gap: Gap) -> dict[str, Any]:
    return {
        "feed": gap.feed,
        "connection": gap.connection,
        "sid": gap.sid,
        "from": iso(gap.from_ns),
        "to": iso(gap.to_ns),
        "seconds": round((gap.to_ns - gap.from_ns) / NS_PER_S, 3),
        "reason": gap.reason,
        "last_seq": gap.last_seq,
        "next_seq": gap.next_seq,
        "tickers": list(gap.tickers) if gap.tickers is not None else None,
    }
