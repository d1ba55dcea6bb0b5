"""`ssmd data`: the archive."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from ssmd.cli.checking import checking
from ssmd.cli.day_lock import day_lock
from ssmd.cli.opening import Opener
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json
from ssmd.cli.validation import require_day
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS

if TYPE_CHECKING:
    from ssmd.backfill import CompactReport

app = App(name="data", help="The archive: inventory, gaps, quality, verification, compaction.")

app.command("ssmd.cli.data_inventory:inventory", name="inventory", help="Show what is archived: a line for each day.")
app.command("ssmd.cli.data_gaps:gaps", name="gaps", help="Show the recorded gaps of a day, and where each is known.")
app.command("ssmd.cli.data_quality:quality", name="quality", help="Show how good a day's data is, and why.")
app.command("ssmd.cli.data_backfill:backfill", name="backfill", help="Make dates again from raw, and say what changed.")
app.command("ssmd.cli.data_verify:verify", name="verify", help="Recount a day without trusting its writers.")

app.command("ssmd.cli.data_export:export", name="export", help="Make a day's Parquet files, for DuckDB and pandas.")


@app.command
def compact(*, env: EnvFile = None, feed: Feed = None, date: date, json: Json = False) -> int:
    """Make a day's objects per ticker from the raw archive, in place of the segments. Exit code 6 when both differ."""
    from ssmd.backfill import compact as rebuild
    from ssmd.quality.condition import record_scores

    chosen = choose(env)
    name, buckets = chosen.feed(feed), chosen.environment.spec.middleware.storage.buckets

    async def work() -> "CompactReport":
        async with AsyncExitStack() as stack:
            opener = Opener(chosen, stack)
            storage, registry = opener.storage(), opener.registry()
            await require_day(chosen, registry, storage, name, date)
            report = await rebuild(name, date, storage, buckets.raw, buckets.normalized, registry, today=today)
            await asyncio.to_thread(record_scores, registry, name, date, today)
            return report

    today = day_of(now_ns())
    with checking(chosen, "compact", name, date) as check, day_lock(chosen, name, date, "compact"):
        report = asyncio.run(work())
        # Of a day that is not over, the newest frames are not in the raw archive yet.
        over = report.day < today
        code = EXIT_FINDINGS if report.only_in_stream and over else EXIT_DONE
        found = sum(report.only_in_stream.values()) if over else 0
        check.end(code, findings=found, summary=_made(report), detail=msgspec.to_builtins(report))
    if json:
        show_json(msgspec.to_builtins(report))
    else:
        _show_compaction(report, over)
    return code


def _made(report: "CompactReport") -> str:
    made = ", ".join(f"{count:,} {kind}" for kind, count in report.events.items()) or "no events"
    return f"{report.frames:,} frames became {made} in {report.objects:,} objects"


def _show_compaction(report: "CompactReport", over: bool) -> None:
    mark_line(GOOD, str(report.day), _made(report))
    for kind, count in report.missing_in_stream.items():
        mark_line(WAITING, "healed", f"{count:,} {kind} were missing in the stream's segments")
    for kind, count in report.only_in_stream.items():
        if over:
            mark_line(BAD, "only there", f"{count:,} {kind} stand in segments but not in the raw archive")
        else:
            mark_line(
                WAITING, "note", f"{count:,} {kind} of segments are not in the raw archive yet: the day is not over"
            )
    if report.segments_kept:
        mark_line(WAITING, "segments", f"{report.segments_kept:,} kept: {report.kept_because}")
    for problem, count in report.problems.items():
        mark_line(WAITING, "frames", f"{count:,} with a problem: {problem}")
