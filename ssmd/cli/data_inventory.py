"""`ssmd data inventory`: what is archived, a line for each day."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter

from ssmd.cli.opening import registry_of
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import show_rows, talk
from ssmd.cli.validation import require_feed
from ssmd.clock import day_of, iso, now_ns
from ssmd.errors import EXIT_DONE, ConfigError
from ssmd.nearest import did_you_mean
from ssmd.registry.assessment import all_rows, assess, facts_of, status_of
from ssmd.registry.interface import InventoryRow, Registry
from ssmd.registry.values import STATUSES

MISSING = "missing"
"""The status of a day without any data between two that have some."""
_DEFAULT_DAYS = 30

_LONG = {
    "day": "DATE",
    "data_type": "DATA",
    "schema_version": "VERSION",
    "status": "STATUS",
    "quality_score": "QUALITY",
    "gap_count": "GAPS",
    "record_count": "RECORDS",
    "symbol_count": "SYMBOLS",
    "byte_size": "BYTES",
    "first": "FIRST",
    "last": "LAST",
    "verified_at": "VERIFIED",
}


class Day(NamedTuple):
    """A day's rows with their scores, and its status."""

    day: date
    status: str
    rows: Sequence[tuple[InventoryRow, float | None]]


def inventory(
    *,
    env: EnvFile = None,
    feed: Feed = None,
    from_: date | None = None,
    to: date | None = None,
    status: str | None = None,
    long: Annotated[bool, Parameter(name="--long", negative=())] = False,
    json: Json = False,
) -> int:
    """Show what is archived: a line for each day, with sizes, status, quality score and the number of gaps.

    Parameters
    ----------
    from_
        First day (UTC); default: 30 days before the last, or the very first when a status is asked for.
    to
        Last day (UTC); default: today.
    status
        Only days of this status: complete, partial, failed, processing, missing.
    long
        A line for each kind of data and schema version, with records, symbols, first and last.
    """
    chosen, today = choose(env), day_of(now_ns())
    name, last = chosen.feed(feed), to or today
    _check(status, from_, last)
    with registry_of(chosen) as registry:
        require_feed(chosen, registry, name, "list the inventory of feed")
        rows = all_rows(registry, name)
        earliest = min((row.day for row in rows), default=last)
        first = from_ or (min(earliest, last) if status else _back(last))
        days = [
            day for day in _days(registry, name, rows, first, last, today) if status is None or day.status == status
        ]
    if json or long:
        flat = [_row(row, score) for day in days for row, score in day.rows]
        show_rows(flat, _LONG, as_json=json, empty="nothing is archived in these days")
    elif days:
        _show(name, first, last, days)
    else:
        talk("nothing is archived in these days")
    return EXIT_DONE


def _check(status: str | None, first: date | None, last: date) -> None:
    if first is not None and first > last:
        raise ConfigError(f"--from {first} is after --to {last}", "Give the earlier day first.")
    known = (*STATUSES, MISSING)
    if status is not None and status not in known:
        otherwise = f"Known: {', '.join(known)}."
        raise ConfigError(f"--status {status[:40]!r} is none of the statuses", did_you_mean(status, known, otherwise))


def _back(last: date) -> date:
    return last - timedelta(days=min(_DEFAULT_DAYS, last.toordinal() - 1))


def _days(
    registry: Registry, feed: str, rows: Sequence[InventoryRow], first: date, last: date, today: date
) -> list[Day]:
    """The days that have rows, and the holes between them."""
    by_day: dict[date, list[InventoryRow]] = {}
    for row in rows:
        by_day.setdefault(row.day, []).append(row)
    if not by_day:
        return []
    found: list[Day] = []
    day, end = max(first, min(by_day)), min(last, max(today, max(by_day)))
    while day <= end:
        if mine := by_day.get(day):
            found.append(Day(day, status_of(mine), _scored(registry, feed, day, today, mine, rows)))
        elif day < max(by_day):
            found.append(Day(day, MISSING, ()))
        elif day == today and day - timedelta(days=1) in by_day:
            found.append(Day(day, "processing", ()))
        day += timedelta(days=1)
    return found


def _scored(
    registry: Registry, feed: str, day: date, today: date, mine: Sequence[InventoryRow], rows: Sequence[InventoryRow]
) -> list[tuple[InventoryRow, float | None]]:
    """The day's rows with their stored scores, or what the score would be now."""
    if all(row.quality_score is not None or not row.record_count for row in mine):
        return [(row, row.quality_score) for row in mine]
    facts = facts_of(registry, feed, day, today, rows)
    scores = {row.data_type: assess(facts, row.data_type) for row in mine}
    found: list[tuple[InventoryRow, float | None]] = []
    for row in mine:
        score = scores[row.data_type] if row.record_count else None
        found.append((row, row.quality_score if row.quality_score is not None or score is None else score.value))
    return found


def _show(feed: str, first: date, last: date, days: Sequence[Day]) -> None:
    print(f"Feed: {feed}\nDate Range: {first} to {last}\n")
    print(f"{'Date':<12}{'Raw':<8}{'Normalized':<12}{'Status':<11}{'Quality':<9}Gaps")
    for day, status, rows in days:
        sizes = {kind: sum(row.byte_size for row, _ in rows if row.data_type == kind) for kind in ("raw", "normalized")}
        scores = [score for _, score in rows if score is not None]
        quality = f"{min(scores):.2f}" if scores else "-"
        gaps = str(max(row.gap_count for row, _ in rows)) if any(row.record_count for row, _ in rows) else "-"
        raw, normalized = readable(sizes["raw"]), readable(sizes["normalized"])
        print(f"{day.isoformat():<12}{raw:<8}{normalized:<12}{status:<11}{quality:<9}{gaps}")


def readable(size: int) -> str:
    """`523MB`: decimal units, one digit after the point below ten; `-` for nothing."""
    if not size:
        return "-"
    value, units = float(size), iter(("B", "KB", "MB", "GB", "TB", "PB", "EB"))
    unit = next(units)
    while round(value) >= 1000:
        value, unit = value / 1000, next(units)
    return f"{value:.1f}{unit}" if unit != "B" and round(value, 1) < 10 else f"{value:.0f}{unit}"


def _row(row: InventoryRow, score: float | None) -> dict[str, Any]:
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
        "quality_score": score,
        "verified_at": row.verified_at,
    }
