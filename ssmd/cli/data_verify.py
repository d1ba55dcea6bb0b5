"""`ssmd data verify`: a day of the archive recounted; the verdict goes to the inventory and to the runs of checks."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec

from ssmd.cli.checking import checking
from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json, talk
from ssmd.cli.validation import require_day
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_UNAVAILABLE, TransientError
from ssmd.registry.interface import Registry

if TYPE_CHECKING:
    from ssmd.quality.findings import VerifyReport

MAX_KEPT = 50
"""Findings (and notes) that the row of a run holds."""


def verify(*, env: EnvFile = None, feed: Feed = None, date: date | None = None, json: Json = False) -> int:
    """Recount a day (UTC; default: today) without trusting its writers. Exit code 6 when something is found.

    Without the database the archive is recounted all the same; then the exit code is 7 unless something is found.
    """
    chosen = choose(env)
    name, day = chosen.feed(feed), date or day_of(now_ns())
    with checking(chosen, "verify", name, day) as check:
        report, complete = asyncio.run(_verified(chosen, name, day, asked=date is not None))
        code = EXIT_FINDINGS if not report.clean else EXIT_DONE if complete else EXIT_UNAVAILABLE
        check.end(code, findings=_count(report), summary=_verdict(report), detail=_detail(report))
    if json:
        show_json(msgspec.to_builtins(report))
    else:
        _show(report)
    return code


async def _verified(chosen: Chosen, feed: str, day: date, *, asked: bool) -> "tuple[VerifyReport, bool]":
    from ssmd.quality.condition import record_condition
    from ssmd.quality.verify import verify as recount

    buckets, today = chosen.environment.spec.middleware.storage.buckets, day_of(now_ns())
    async with AsyncExitStack() as stack:
        opener = Opener(chosen, stack)
        registry = await _reachable(opener.registry())
        storage = opener.storage()
        if asked:
            await require_day(chosen, registry, storage, feed, day)
        report = await recount(
            feed, day, storage, registry, raw_bucket=buckets.raw, normalized_bucket=buckets.normalized
        )
        if registry is not None:
            await asyncio.to_thread(record_condition, report, registry, today)
        return report, registry is not None


async def _reachable(registry: Registry) -> Registry | None:
    """The registry, or None, with a word about it, when the database is away."""
    try:
        await asyncio.to_thread(registry.ping)
    except TransientError as error:
        talk(f"{error}\n  The rows are not checked; the archive is.")
        return None
    return registry


def _count(report: "VerifyReport") -> int:
    return len(report.findings) + report.suppressed


def _verdict(report: "VerifyReport") -> str:
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in report.counts.items())
    verdict = "nothing wrong" if report.clean else f"{_count(report)} findings"
    return f"{verdict} in {counts or 'an empty day'}"


def _detail(report: "VerifyReport") -> dict[str, Any]:
    """What is kept of a run: all that was counted, and the first findings."""
    said: dict[str, Any] = msgspec.to_builtins(report)
    return {**said, "findings": said["findings"][:MAX_KEPT], "notes": said["notes"][:MAX_KEPT]}


def _show(report: "VerifyReport") -> None:
    for name, word in report.checks.items():
        mark_line(GOOD if word.startswith("ran") else WAITING, name, word)
    for note in report.notes:
        mark_line(WAITING, "note", note)
    for finding in report.findings:
        mark_line(BAD, finding.rule, f"{finding.object}: {finding.message}")
    if report.suppressed:
        mark_line(BAD, "more", f"{report.suppressed} findings like these")
    mark_line(GOOD if report.clean else BAD, str(report.day), _verdict(report))
