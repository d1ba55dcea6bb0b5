"""Backfill of one date: refuse what cannot be right, make the day again from raw, and say what that changed."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from ssmd import __version__
from ssmd.archive import layout
from ssmd.archive.layout import SCHEMA_VERSION
from ssmd.backfill.compaction import Place, Rebuilt, Steps, rebuild, require_recorded
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, ConfigError, DataError, RefusedError
from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.interface import ObjectInfo

LOOK_AROUND_DAYS = 7
"""How far from a day without data others are looked for in storage, where the inventory knows none."""
_SHOWN_DAYS = 2

State: TypeAlias = Literal["written", "planned", "done_before", "refused", "failed", "not_tried"]


class Changes(msgspec.Struct, frozen=True):
    """Objects per ticker, by what happened (or would happen) to them."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0


class DateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one date; events by type, sizes in bytes of stored objects.

    `state`: written, planned (nothing was written), done_before (by a run of the same range that was interrupted),
    refused, failed, not_tried (a server was away). `problems`: frames that gave no event, by kind. `changed_objects`
    names a few. The last four are compaction's.
    """

    feed: str
    date: date
    state: State
    exit_code: int = EXIT_DONE
    message: str = ""
    hint: str = ""
    decoder: str = ""
    schema_version: str = SCHEMA_VERSION
    raw_objects: int = 0
    raw_bytes: int = 0
    frames: int = 0
    gaps: int = 0
    events_before: dict[str, int] = {}
    events: dict[str, int] = {}
    objects: Changes = Changes()
    bytes_before: int = 0
    bytes: int = 0
    problems: dict[str, int] = {}
    changed_objects: list[str] = []
    seconds: float = 0.0
    missing_in_stream: dict[str, int] = {}
    only_in_stream: dict[str, int] = {}
    segments_deleted: int = 0
    segments_kept: int = 0
    kept_because: str = ""


class Raw(NamedTuple):
    """The raw archive of a date: objects of frames, their stored bytes, and everything of the day that a run reads."""

    objects: int
    bytes: int
    entries: tuple[ObjectInfo, ...]

    def fingerprint(self, decoder: str) -> str:
        """Changes with the raw archive of the date, the decoder and the program."""
        told = [__version__, SCHEMA_VERSION, decoder, *(f"{entry.key} {entry.bytes}" for entry in self.entries)]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


def check_range(first: date, last: date, today: date, limit: int = 3_660) -> list[date]:
    """The dates from `first` to `last`; ConfigError for a range that is backwards, in the future or absurdly long."""
    if last < first:
        raise ConfigError(f"the range ends ({last}) before it begins ({first})", "Give --from the earlier date.")
    if last > today:
        raise ConfigError(
            f"{last} is in the future (today is {today}, UTC): there is nothing to backfill",
            f"The latest date that can be backfilled is {today - timedelta(days=1)}.",
        )
    days = (last - first).days + 1
    if days > limit:
        raise ConfigError(f"{days:,} dates from {first} to {last} are more than {limit:,}", "Give a shorter range.")
    return [first + timedelta(days=offset) for offset in range(days)]


async def survey(place: Place, feed: str, day: date) -> Raw:
    """What raw there is of a date that may be backfilled.

    RefusedError for a day that is not over; ConfigError, with the nearest days that have some, for a day without any;
    DataError when the inventory has raw objects that storage has not: what is there must not be replaced from less.
    """
    if day >= day_of(now_ns()):
        raise RefusedError(
            f"{day} is not over (UTC): its segments are still being written",
            f"Backfill it tomorrow; to heal it now: ssmd data compact --feed {feed} --date {day}",
        )
    entries = await place.storage.list(place.raw, layout.raw_day_prefix(feed, day))
    await require_recorded(place, feed, day, entries)
    frames = [entry for entry in entries if layout.belongs(layout.parse_raw, entry.key)]
    if not frames:
        near = await _days_near(place, feed, day)
        raise ConfigError(
            f"there is no raw data of {feed} on {day}",
            f"Days near it that have some: {', '.join(map(str, near))}" if near else "No day near it has any.",
        )
    return Raw(len(frames), sum(entry.bytes for entry in frames), tuple(entries))


async def made_fingerprint(place: Place, feed: str, day: date) -> str:
    """Changes with every object and manifest of the date's normalized archive (name, size) and with their rows."""
    told = [
        f"{entry.key} {entry.bytes}"
        for kind in EVENT_TYPES
        for entry in await place.storage.list(place.normalized, layout.normalized_day_prefix(feed, kind, day))
    ]
    rows = await asyncio.to_thread(place.registry.objects, feed, day, "normalized")
    told += sorted(f"{row.bucket}/{row.key} {row.sha256} {row.bytes} {row.records}" for row in rows)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


async def _days_near(place: Place, feed: str, day: date) -> list[date]:
    rows = await asyncio.to_thread(place.registry.inventory, feed, date.min, date.max)
    days = {row.day for row in rows if row.data_type == "raw" and row.record_count}
    if not days:
        around = [day + timedelta(days=offset) for offset in range(-LOOK_AROUND_DAYS, LOOK_AROUND_DAYS + 1)]
        for other in around:
            if await place.storage.list(place.raw, layout.raw_manifests_prefix(feed, other)):
                days.add(other)
    before, after = sorted(other for other in days if other < day), sorted(other for other in days if other > day)
    return before[-_SHOWN_DAYS:] + after[:_SHOWN_DAYS]


async def backfill_date(
    feed: str,
    day: date,
    place: Place,
    raw: Raw,
    *,
    write: bool = True,
    steps: Steps | None = None,
    work: Path | None = None,
) -> DateReport:
    """Make a surveyed date again from raw; without `write` the same is done, but nothing is replaced.

    Memory is bounded; `work` is a folder for temporary files of about the day's compressed size. DataError naming the
    object when raw cannot be trusted: nothing was changed then. Killed at any moment, the next run finishes it.
    """
    decoder = open_feed(feed, day).version
    try:
        rebuilt = await rebuild(feed, day, place, steps=steps, write=write, work=work)
    except DataError as error:
        hint = f"Run: ssmd data verify --feed {feed} --date {day}"
        raise DataError(error.message, error.hint if error.hint.startswith(hint) else hint) from error
    return _report(rebuilt, raw, decoder, "written" if write else "planned")


def _report(rebuilt: Rebuilt, raw: Raw, decoder: str, state: State) -> DateReport:
    made = rebuilt.report
    return DateReport(
        feed=made.feed,
        date=made.day,
        state=state,
        exit_code=EXIT_FINDINGS if made.only_in_stream else EXIT_DONE,
        decoder=decoder,
        raw_objects=raw.objects,
        raw_bytes=raw.bytes,
        frames=made.frames,
        gaps=made.gaps,
        events_before=rebuilt.had.events,
        events=rebuilt.kept,
        objects=Changes(**rebuilt.changes),
        bytes_before=rebuilt.had.bytes,
        bytes=made.bytes,
        problems=made.problems,
        changed_objects=rebuilt.some,
        missing_in_stream=made.missing_in_stream,
        only_in_stream=made.only_in_stream,
        segments_deleted=made.segments_deleted,
        segments_kept=made.segments_kept,
        kept_because=made.kept_because,
    )


def worst(codes: Sequence[int]) -> int:
    """The exit code of a run: a failure before a server that is away, before wrong input, refusals and findings."""
    order = (EXIT_DONE, EXIT_FINDINGS, RefusedError.exit_code, ConfigError.exit_code, 7, 1, 70)
    return max(codes, key=lambda code: order.index(code) if code in order else len(order), default=EXIT_DONE)
