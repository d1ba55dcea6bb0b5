"""The database's rows against what was counted in the archive."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from ssmd.clock import day_of
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.quality.findings import Findings
from ssmd.quality.gaps import OBJECT_ONLY, ROW_ONLY, join_gaps
from ssmd.registry.interface import ObjectRecord, Registry
from ssmd.registry.values import stored_gap


async def verify_rows(
    registry: Registry, feed: str, day: date, data_type: str, counted: Sequence[ObjectRecord], findings: Findings
) -> None:
    """Each object has its row and each row its object, they say the same, and the day's row is their sum."""
    rows = {row.key: row for row in await asyncio.to_thread(registry.objects, feed, day, data_type)}
    objects = {record.key: record for record in counted}
    for key in sorted(objects.keys() - rows.keys()):
        findings.add("no_row", key, "has no row in the inventory")
    for key in sorted(rows.keys() - objects.keys()):
        findings.add("row_without_object", key, f"the inventory has a row for it, {rows[key].bucket} does not have it")
    for key in sorted(objects.keys() & rows.keys()):
        _compare(objects[key], rows[key], findings)
    await _verify_day(registry, feed, day, data_type, counted, findings)


def _compare(counted: ObjectRecord, row: ObjectRecord, findings: Findings) -> None:
    expected, found = msgspec.structs.asdict(counted), msgspec.structs.asdict(row)
    for name, value in expected.items():
        if name != "writer_version" and found[name] != value:
            findings.add("row", counted.key, f"{name} is {value}, its row says {found[name]}")


async def _verify_day(
    registry: Registry, feed: str, day: date, data_type: str, counted: Sequence[ObjectRecord], findings: Findings
) -> None:
    rows = [row for row in await asyncio.to_thread(registry.inventory, feed, day, day) if row.data_type == data_type]
    name = f"{feed} {day.isoformat()} {data_type}"
    if len(rows) != 1:
        # A day whose objects were all replaced keeps a row that says: nothing.
        if counted or len(rows) > 1:
            findings.add("day_row", name, f"the inventory has {len(rows)} rows for the day, expected 1")
        return
    [row] = rows
    expected = {
        "record_count": (sum(record.records for record in counted), row.record_count),
        "byte_size": (sum(record.bytes for record in counted), row.byte_size),
        "first_ns": (min((record.first_ns for record in counted if record.records), default=0), row.first_ns),
        "last_ns": (max((record.last_ns for record in counted if record.records), default=0), row.last_ns),
    }
    for field, (value, said) in expected.items():
        if value != said:
            findings.add("day_row", name, f"{field} is {value}, the day's row says {said}")


async def verify_gap_rows(
    registry: Registry, feed: str, day: date, objects: Mapping[str, Gap], findings: Findings
) -> None:
    """Each recorded gap that ended on the day has a row and each row an object, and both say the same."""
    rows = await asyncio.to_thread(registry.gaps, feed, day)
    stored: dict[str, Gap] = {}
    for key, gap in objects.items():
        try:
            stored[key] = stored_gap(gap)
        except DataError as error:
            findings.add("gap", key, error.message)
    # An object lies under the day on which its gap ended; rows of gaps that touch the day may have ended later.
    for known in join_gaps(stored, rows, 0):
        gap = known.gap
        name = f"{gap.connection} sid {gap.sid} from {gap.from_ns} ({gap.reason})"
        if known.known == ROW_ONLY:
            if day_of(gap.to_ns) == day:
                findings.add("gap_object", name, "is a row in data_gaps without its object in the archive")
        elif known.known == OBJECT_ONLY:
            findings.add("gap_row", name, "is an object of the archive without its row in data_gaps")
        else:
            for difference in known.differences:
                findings.add("gap_row", name, difference)
