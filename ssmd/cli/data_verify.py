"""`ssmd data verify`: a day of the archive recounted; the verdict goes to the inventory and to the runs of checks."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from cyclopts import Parameter

from ssmd.cli.checking import checking
from ssmd.cli.day_lock import day_lock
from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, counted, mark_line, show_json, talk
from ssmd.cli.validation import require_day
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_UNAVAILABLE, ConfigError, TransientError
from ssmd.registry.interface import Registry

if TYPE_CHECKING:
    from ssmd.quality.exchange_trades import Exchange
    from ssmd.quality.findings import VerifyReport
    from ssmd.quality.sampling import Sample

MAX_KEPT = 50
"""Findings (and notes) that the row of a run holds."""


def verify(
    *,
    env: EnvFile = None,
    feed: Feed = None,
    date: date | None = None,
    sample: Annotated[
        str | None, Parameter(help="Read the compacted objects of so many tickers (5% or 200), not of all.")
    ] = None,
    exchange: Annotated[
        bool, Parameter(negative=(), help="Compare trades with those that the exchange's REST API lists, too.")
    ] = False,
    rest: Annotated[str | None, Parameter(help="REST address of the exchange, for --exchange.")] = None,
    json: Json = False,
) -> int:
    """Recount a day (UTC; default: today) without trusting its writers. Exit code 6 when something is found.

    Without the database the archive is recounted all the same; then the exit code is 7 unless something is found. It
    is 7, too, when the exchange was to be asked and is away. A sample chooses by the date, and makes no day complete.
    """
    from ssmd.quality.sampling import Sample

    chosen, today = choose(env), day_of(now_ns())
    name, day = chosen.feed(feed), date or today
    if day > today:
        raise ConfigError(f"{day} is in the future", "Give a day that has begun (UTC).")
    looking = _Looking(
        name, day, date is not None, Sample.parse(sample) if sample is not None else None, exchange or bool(rest), rest
    )
    with checking(chosen, "verify", name, day) as check:
        report, complete = asyncio.run(_verified(chosen, looking))
        code = EXIT_FINDINGS if not report.clean else EXIT_DONE if complete else EXIT_UNAVAILABLE
        check.end(code, findings=_count(report), summary=_verdict(report), detail=_detail(report))
    if json:
        show_json(msgspec.to_builtins(report))
    else:
        _show(report)
    return code


class _Looking(NamedTuple):
    """What was asked for; `named`: the day was."""

    feed: str
    day: date
    named: bool
    sample: "Sample | None"
    exchange: bool
    rest: str | None


async def _verified(chosen: Chosen, looking: _Looking) -> "tuple[VerifyReport, bool]":
    """The report, and whether everything that was to be asked answered."""
    from ssmd.quality.condition import record_condition
    from ssmd.quality.verify import verify as recount

    feed, day = looking.feed, looking.day
    buckets, today = chosen.environment.spec.middleware.storage.buckets, day_of(now_ns())
    async with AsyncExitStack() as stack:
        opener = Opener(chosen, stack)
        registry = await _reachable(opener.registry())
        storage = opener.storage()
        if looking.named:
            await require_day(chosen, registry, storage, feed, day)
        if registry is not None:  # what a backfill replaces meanwhile would look like damage
            stack.enter_context(day_lock(chosen, feed, day, "verify", shared=True))
        asked, why_not = await _exchange(chosen, opener, looking, stack)
        report = await recount(
            feed, day, storage, registry, raw_bucket=buckets.raw, normalized_bucket=buckets.normalized,
            sample=looking.sample, exchange=asked,
        )  # fmt: skip
        if why_not:
            report.checks["exchange"] = f"not run: {why_not}"
        if registry is not None:
            await asyncio.to_thread(record_condition, report, registry, today)
        return report, registry is not None and not report.exchange_away


async def _exchange(
    chosen: Chosen, opener: Opener, looking: _Looking, stack: AsyncExitStack
) -> "tuple[Exchange | None, str]":
    """Whom to ask for the trades it lists; None when nobody is to be asked, or nobody can be, and why."""
    if not looking.exchange:
        return None, ""
    from ssmd.cli.market_sync import rest_address
    from ssmd.feeds.catalogue import open_feed
    from ssmd.quality.exchange_trades import Exchange

    parts = open_feed(looking.feed, looking.day)
    try:
        address = await rest_address(opener, looking.feed, looking.rest)
    except TransientError as error:
        return None, f"the exchange's address is not known: {error.message}"
    client = await stack.enter_async_context(parts.new_rest(address, environment=chosen.environment.name))
    return Exchange(client, parts.listed_trade), ""


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
    verdict = "nothing wrong" if report.clean else counted(_count(report), "finding")
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
        mark_line(BAD, "more", f"{counted(report.suppressed, 'finding')} like these")
    mark_line(GOOD if report.clean else BAD, str(report.day), _verdict(report))
