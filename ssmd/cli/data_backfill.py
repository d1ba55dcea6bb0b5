"""`ssmd data backfill`: dates of the archive normalized again from raw, one after the other."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from ssmd.cli.backfill_progress import Shown, backfill_progress
from ssmd.cli.checking import Check, checking
from ssmd.cli.day_lock import day_lock
from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json
from ssmd.cli.validation import require_feed, require_name
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, Busy, SsmdError, TransientError

if TYPE_CHECKING:
    from ssmd.backfill import DateReport, Place, Raw, Resume

MB = 1_000_000


def backfill(
    *,
    env: EnvFile = None,
    feed: Feed = None,
    from_: Annotated[date, Parameter(name="--from", help="First UTC date.")],
    to: Annotated[date | None, Parameter(name="--to", help="Last UTC date, included; default: only the first.")] = None,
    plan: Annotated[
        bool, Parameter(negative=(), help="Say what would change: all is computed, nothing written.")
    ] = False,
    json: Json = False,
) -> int:
    """Make the normalized archive of dates again from raw, each with the decoder of its date, and say what changed.

    Objects that come out the same are left alone, so it may be repeated, and after a kill it goes on where it was. A
    date that fails does not stop the others; the exit code is the worst of them.
    """
    from ssmd.backfill import check_range, worst

    days = check_range(from_, from_ if to is None else to, day_of(now_ns()))
    chosen = choose(env)
    reports = asyncio.run(_Run(chosen, chosen.feed(feed), plan=plan).dates(days))
    if json:
        show_json(msgspec.to_builtins(reports))
    else:
        for report in reports:
            _show(report)
    return worst([report.exit_code for report in reports])


class _Run:
    """One run of the command."""

    def __init__(self, chosen: Chosen, feed: str, *, plan: bool) -> None:
        self._chosen = chosen
        self._feed = feed
        self._plan = plan

    async def dates(self, days: list[date]) -> "list[DateReport]":
        """A report for each date; when a server is away, the dates after that are not tried."""
        from ssmd.backfill import DateReport, Place, Resume

        chosen, buckets = self._chosen, self._chosen.environment.spec.middleware.storage.buckets
        reports: list[DateReport] = []
        require_name(self._feed)
        async with AsyncExitStack() as stack:
            opener = Opener(chosen, stack)
            registry = opener.registry()
            await asyncio.to_thread(require_feed, chosen, registry, self._feed, "backfill feed")
            place = Place(opener.storage(), buckets.raw, buckets.normalized, registry)
            resume = None if self._plan else Resume(self._record(days))
            shown = stack.enter_context(backfill_progress())
            away: TransientError | None = None
            for day in days:
                if away is not None:
                    message = f"not tried: {away.message}"
                    reports.append(
                        DateReport(
                            feed=self._feed, date=day, state="not_tried", exit_code=away.exit_code, message=message
                        )
                    )
                    continue
                try:
                    reports.append(await self._date(day, place, resume, shown))
                except SsmdError as error:
                    # Only this day is busy; a server that is away is so for all days.
                    away = error if isinstance(error, TransientError) and not isinstance(error, Busy) else None
                    reports.append(_failed(self._feed, day, error))
            if resume is not None and away is None:
                resume.end()
        return reports

    def _record(self, days: list[date]) -> Path:
        name = f"backfill-{self._chosen.environment.name}-{self._feed}-{days[0]}-{days[-1]}.json"
        return self._chosen.home / "run" / name

    async def _date(self, day: date, place: "Place", resume: "Resume | None", shown: Shown) -> "DateReport":
        from ssmd.backfill import DateReport, made_fingerprint, survey
        from ssmd.feeds.catalogue import open_feed
        from ssmd.quality.condition import record_scores

        if self._plan:
            with day_lock(self._chosen, self._feed, day, "backfill --plan", shared=True) as check_lock:
                raw = await survey(place, self._feed, day)
                return await self._worked(day, place, raw, _Steps(shown, check_lock))
        with (
            checking(self._chosen, "backfill", self._feed, day) as check,
            day_lock(self._chosen, self._feed, day, "backfill") as check_lock,
        ):
            raw = await survey(place, self._feed, day)
            fingerprint = raw.fingerprint(open_feed(self._feed, day).version)
            made = await made_fingerprint(place, self._feed, day)
            if resume is not None and resume.has(day, fingerprint, made):
                said = "done before the run was interrupted"
                report = DateReport(feed=self._feed, date=day, state="done_before", message=said)
            else:
                report = await self._worked(day, place, raw, _Steps(shown, check_lock))
                await asyncio.to_thread(record_scores, place.registry, self._feed, day, day_of(now_ns()))
                if resume is not None:
                    resume.done(day, fingerprint, await made_fingerprint(place, self._feed, day))
            _note(check, report)
        return report

    async def _worked(self, day: date, place: "Place", raw: "Raw", steps: "_Steps") -> "DateReport":
        from ssmd.backfill import backfill_date

        started = time.monotonic()
        steps.shown.begin(day, raw.bytes)
        report = await backfill_date(self._feed, day, place, raw, write=not self._plan, steps=steps)
        return msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))


class _Steps:
    """Progress to the person, and the lock asked before anything is replaced."""

    def __init__(self, shown: Shown, check_lock: Callable[[], None]) -> None:
        self.shown = shown
        self.read = shown.read
        self.compared = shown.compared
        self.publishing = check_lock


def _failed(feed: str, day: date, error: SsmdError) -> "DateReport":
    from ssmd.backfill import DateReport
    from ssmd.errors import ConfigError, RefusedError

    refused = isinstance(error, ConfigError | RefusedError | Busy)
    return DateReport(
        feed=feed, date=day, state="refused" if refused else "failed",
        exit_code=error.exit_code, message=error.message, hint=error.hint,
    )  # fmt: skip


def _note(check: Check, report: "DateReport") -> None:
    found = sum(report.only_in_stream.values())
    check.end(report.exit_code, findings=found, summary=_sentence(report), detail=msgspec.to_builtins(report))


def _sentence(report: "DateReport") -> str:
    if report.message:
        return report.message
    changes = report.objects
    would = "would be " if report.state == "planned" else ""
    touched = [
        f"{count:,} {would}{word}"
        for word, count in (("added", changes.added), ("changed", changes.changed), ("removed", changes.removed))
        if count
    ]
    return f"{report.frames:,} frames, {sum(report.events.values()):,} events; objects: " + ", ".join(
        [*touched, f"{changes.unchanged:,} unchanged"]
    )


def _show(report: "DateReport") -> None:
    mark = {EXIT_DONE: GOOD, EXIT_FINDINGS: WAITING}.get(report.exit_code, BAD)
    mark_line(mark, str(report.date), _sentence(report), report.hint)
    if report.state not in ("written", "planned"):
        return
    rate = f", {report.frames / report.seconds:,.0f} frames/s" if report.seconds else ""
    mark_line(
        GOOD, "raw", f"{report.raw_objects:,} objects, {report.raw_bytes / MB:,.1f} MB, decoder {report.decoder}, "
        f"schema {report.schema_version}, {report.gaps:,} gaps; {report.seconds:,.1f} s{rate}",
    )  # fmt: skip
    for kind in sorted(report.events.keys() | report.events_before.keys()):
        before, after = report.events_before.get(kind, 0), report.events.get(kind, 0)
        mark_line(GOOD if before == after else WAITING, kind, f"{before:,} events before, {after:,} after")
    mark_line(GOOD, "bytes", f"{report.bytes_before:,} before, {report.bytes:,} after")
    for key in report.changed_objects:
        mark_line(WAITING, "object", key)
    for problem, count in report.problems.items():
        mark_line(WAITING, "frames", f"{count:,} with a problem: {problem}")
    for kind, count in report.missing_in_stream.items():
        mark_line(WAITING, "healed", f"{count:,} {kind} were missing in the stream's segments")
    for kind, count in report.only_in_stream.items():
        mark_line(BAD, "only there", f"{count:,} {kind} stand in segments but not in the raw archive")
    if report.segments_kept:
        mark_line(WAITING, "segments", f"{report.segments_kept:,} kept: {report.kept_because}")
