"""`ssmd data`: the archive."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from ssmd.cli.opening import Opener
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json, talk
from ssmd.cli.validation import require_day
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_UNAVAILABLE, TransientError
from ssmd.registry.interface import Registry

if TYPE_CHECKING:
    from ssmd.backfill import CompactReport
    from ssmd.quality.findings import VerifyReport

app = App(name="data", help="The archive: inventory, gaps, quality, verification, compaction.")

app.command("ssmd.cli.data_inventory:inventory", name="inventory", help="Show what is archived: a line for each day.")
app.command("ssmd.cli.data_gaps:gaps", name="gaps", help="Show the recorded gaps of a day, and where each is known.")
app.command("ssmd.cli.data_quality:quality", name="quality", help="Show how good a day's data is, and why.")


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
            storage = opener.storage()
            if date is not None:
                await require_day(chosen, registry, storage, chosen.feed(feed), date)
            report = await recount(
                chosen.feed(feed), date or today, storage, registry,
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
    from ssmd.quality.condition import record_scores

    chosen = choose(env)
    buckets = chosen.environment.spec.middleware.storage.buckets

    async def work() -> "CompactReport":
        async with AsyncExitStack() as stack:
            opener = Opener(chosen, stack)
            storage, registry = opener.storage(), opener.registry()
            name, today = chosen.feed(feed), day_of(now_ns())
            await require_day(chosen, registry, storage, name, date)
            report = await rebuild(name, date, storage, buckets.raw, buckets.normalized, registry)
            await asyncio.to_thread(record_scores, registry, name, date, today)
            return report

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
        mark_line(WAITING, "frames", f"{count:,} with a problem: {problem}")
