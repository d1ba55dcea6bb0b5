"""`ssmd data gaps`: the recorded gaps of some days, as the archive and the database know them."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import date
from typing import Any, NamedTuple

from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, cell, counted, mark_line, show_rows, talk
from ssmd.cli.validation import require_feed, require_name
from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_UNAVAILABLE, ConfigError, TransientError
from ssmd.market.events import Gap
from ssmd.quality.gaps import OBJECT_ONLY, GapObjects, KnownGap, gap_objects, gap_rows, join_gaps

MAX_DAYS = 366
_COLUMNS = {
    "from": "FROM",
    "to": "TO",
    "seconds": "SECONDS",
    "reason": "REASON",
    "connection": "CONNECTION",
    "sid": "SID",
    "known": "KNOWN",
}


class _Asked(NamedTuple):
    """What the two places answered; None for one that did not, the reasons in `away`."""

    objects: GapObjects | None
    rows: list[Gap] | None
    away: list[str]


def gaps(
    *,
    env: EnvFile = None,
    feed: Feed = None,
    date: date | None = None,
    from_: date | None = None,
    to: date | None = None,
    json: Json = False,
) -> int:
    """Show the recorded gaps that touch a day (UTC; default: today) or several, and where each is known.

    A gap is an object in the archive and a row in the database. Exit code 6 when the two differ (not for a gap of the
    last minute); 7 when one of the places does not answer.

    Parameters
    ----------
    from_
        First of several days (UTC); default: the last.
    to
        Last of several days (UTC); default: today.
    """
    chosen = choose(env)
    first, last = _days(date, from_, to, day_of(now_ns()))
    name = chosen.feed(feed)
    asked = asyncio.run(_ask(chosen, name, first, last))
    for words in asked.away:
        talk(words)
    if asked.objects is None and asked.rows is None:
        return EXIT_UNAVAILABLE
    objects = asked.objects.gaps if asked.objects else None
    unreadable = asked.objects.unreadable if asked.objects else {}
    found = join_gaps(objects, asked.rows, now_ns())
    lines: list[dict[str, Any]] = [_line(known) for known in found]
    lines += [
        {"object": key, "known": OBJECT_ONLY, "differences": [why], "recent": False}
        for key, why in sorted(unreadable.items())
    ]
    span = "on this day" if first == last else "in these days"
    known_by = "" if not asked.away else " where one was looked for"
    show_rows(lines, _COLUMNS, as_json=json, empty=f"no gaps {span}{known_by}")
    if lines and not json:
        _explain(found, unreadable)
    if unreadable or any(known.differs for known in found):
        return EXIT_FINDINGS
    return EXIT_UNAVAILABLE if asked.away else EXIT_DONE


def _days(day: date | None, first: date | None, last: date | None, today: date) -> tuple[date, date]:
    if day is not None and (first is not None or last is not None):
        raise ConfigError("--date means one day, --from and --to several", "Give the one or the others.")
    if first is None and last is None:
        first = last = day or today
    last = last or max(today, first or today)
    first = first or last
    if first > last:
        raise ConfigError(f"--from {first} is after --to {last}", "Give the earlier day first.")
    if (last - first).days >= MAX_DAYS:
        raise ConfigError(f"{first} to {last} are more than {MAX_DAYS} days", "Ask for a year at a time.")
    return first, last


async def _ask(chosen: Chosen, feed: str, first: date, last: date) -> _Asked:
    """Both places, one after the other: the rows say where later objects lie."""
    away: list[str] = []
    rows: list[Gap] | None = None
    objects: GapObjects | None = None
    async with AsyncExitStack() as stack:
        opener = Opener(chosen, stack)
        try:
            registry = opener.registry()
            await asyncio.to_thread(require_feed, chosen, registry, feed, "list the gaps of feed")
            rows = await asyncio.to_thread(gap_rows, registry, feed, first, last)
        except TransientError as error:
            away.append(f"{error}\n  The database's rows are not shown, and nothing is compared.")
        try:
            require_name(feed)
            bucket = opener.spec.middleware.storage.buckets.raw
            objects = await gap_objects(opener.storage(), bucket, feed, first, last, rows, day_of(now_ns()))
        except TransientError as error:
            away.append(f"{error}\n  The archive's objects are not shown, and nothing is compared.")
    return _Asked(objects, rows, away)


def _explain(found: Sequence[KnownGap], unreadable: dict[str, str]) -> None:
    """Below the table: every difference, and the time in gaps."""
    for known in found:
        for difference in known.differences:
            gap = known.gap
            mark = WAITING if known.recent else BAD
            late = " (just recorded: the other place may follow)" if known.recent else ""
            what = f"{gap.reason} of {gap.connection} from {iso(gap.from_ns)}: {difference}{late}"
            mark_line(mark, "differs", cell(what))
    for key, why in sorted(unreadable.items()):
        mark_line(BAD, "differs", cell(f"{key}: {why}"))
    mark_line(GOOD, "total", total([known.gap for known in found]))


def total(gaps: Sequence[Gap]) -> str:
    """The time that lies in gaps, in all and by reason.

    Time in several gaps (one of a process's end, one of the next one's start) counts once: by reason it can add up to
    more.
    """
    by_reason: dict[str, list[Gap]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.reason, []).append(gap)
    parts = [f"{reason} {_seconds(some)} ({len(some)})" for reason, some in sorted(by_reason.items())]
    return f"{_seconds(gaps)} in {counted(len(gaps), 'gap')}: {', '.join(parts)}"


def _seconds(gaps: Sequence[Gap]) -> str:
    """The union of their times."""
    covered = until = 0
    for from_ns, to_ns in sorted((gap.from_ns, gap.to_ns) for gap in gaps):
        covered += max(0, to_ns - max(from_ns, until))
        until = max(until, to_ns)
    return f"{covered / NS_PER_S:,.3f} s"


def _line(known: KnownGap) -> dict[str, Any]:
    gap = known.gap
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
        "known": known.known,
        "object": known.key,
        "differences": known.differences,
        "recent": known.recent,
    }
