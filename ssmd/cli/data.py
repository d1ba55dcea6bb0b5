"""`ssmd data`: the archive."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import App

from ssmd.cli.opening import Opener, registry_of
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json, show_rows, talk
from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_UNAVAILABLE, TransientError
from ssmd.market.events import Gap
from ssmd.registry.interface import InventoryRow, Registry

if TYPE_CHECKING:
    from ssmd.backfill import CompactReport
    from ssmd.quality.findings import VerifyReport

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


@app.command
def verify(*, env: EnvFile = None, feed: Feed = None, date: date | None = None, json: Json = False) -> int:
    """Recount a day (UTC; default: today) without trusting its writers. Exit code 6 when something is found.

    Without the database the archive is recounted all the same; then the exit code is 7 unless something is found.
    """
    from ssmd.quality.condition import record_condition
    from ssmd.quality.verify import verify as recount

    chosen = choose(env)
    buckets = chosen.environment.spec.middleware.storage.buckets

    async def work() -> "tuple[VerifyReport, bool]":
        async with AsyncExitStack() as stack:
            opener = Opener(chosen, stack)
            registry, today = await _reachable(opener.registry()), day_of(now_ns())
            report = await recount(
                chosen.feed(feed), date or today, opener.storage(), registry,
                raw_bucket=buckets.raw, normalized_bucket=buckets.normalized,
            )  # fmt: skip
            if registry is not None:
                await asyncio.to_thread(record_condition, report, registry, today)
            return report, registry is not None

    report, complete = asyncio.run(work())
    if json:
        show_json(msgspec.to_builtins(report))
    else:
        _show_verification(report)
    if not report.clean:
        return EXIT_FINDINGS
    return EXIT_DONE if complete else EXIT_UNAVAILABLE


async def _reachable(registry: Registry) -> Registry | None:
    """The registry, or None, with a word about it, when the database is away."""
    try:
        await asyncio.to_thread(registry.ping)
    except TransientError as error:
        talk(f"{error}\n  The rows are not checked; the archive is.")
        return None
    return registry


@app.command
def compact(*, env: EnvFile = None, feed: Feed = None, date: date, json: Json = False) -> int:
    """Make a day's objects per ticker from the raw archive, in place of the segments. Exit code 6 when both differ."""
    from ssmd.backfill import compact as rebuild

    chosen = choose(env)
    buckets = chosen.environment.spec.middleware.storage.buckets

    async def work() -> "CompactReport":
        async with AsyncExitStack() as stack:
            opener = Opener(chosen, stack)
            storage, registry = opener.storage(), opener.registry()
            return await rebuild(chosen.feed(feed), date, storage, buckets.raw, buckets.normalized, registry)

    report = asyncio.run(work())
    if json:
        show_json(msgspec.to_builtins(report))
    else:
        _show_compaction(report)
    # Of a day that is not over, the newest frames are not in the raw archive yet.
    over = report.day < day_of(now_ns())
    return EXIT_FINDINGS if report.only_in_stream and over else EXIT_DONE


def _show_verification(report: "VerifyReport") -> None:
    for name, word in report.checks.items():
        mark_line(GOOD if word == "ran" else WAITING, name, word)
    for note in report.notes:
        mark_line(WAITING, "note", note)
    for finding in report.findings:
        mark_line(BAD, finding.rule, f"{finding.object}: {finding.message}")
    if report.suppressed:
        mark_line(BAD, "more", f"{report.suppressed} findings like these")
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in report.counts.items())
    verdict = "nothing wrong" if report.clean else f"{len(report.findings) + report.suppressed} findings"
    mark_line(GOOD if report.clean else BAD, str(report.day), f"{verdict} in {counts or 'an empty day'}")


def _show_compaction(report: "CompactReport") -> None:
    made = ", ".join(f"{count:,} {kind}" for kind, count in report.events.items()) or "no events"
    mark_line(GOOD, str(report.day), f"{report.frames:,} frames became {made} in {report.objects:,} objects")
    for kind, count in report.missing_in_stream.items():
        mark_line(WAITING, "healed", f"{count:,} {kind} were missing in the stream's segments")
    for kind, count in report.only_in_stream.items():
        mark_line(BAD, "only there", f"{count:,} {kind} stand in segments but not in the raw archive")
    if report.segments_kept:
        mark_line(WAITING, "segments", f"{report.segments_kept:,} kept: {report.kept_because}")
    for problem, count in report.problems.items():
        mark_line(WAITING, "frames", f"{count:,} gave no event: {problem}")


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
