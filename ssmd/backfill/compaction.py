"""Compaction: a day's normalized archive made again from its raw archive, one object per event type and ticker.

Raw is the truth. What the archiver stored from the stream is compared with what raw gives: events that the stream
lacked are healed; events that only the stream has are a finding and keep the segments from being deleted. Running it
again gives the same objects.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from ssmd.archive.compare import StreamComparison, digest, read_stream
from ssmd.archive.layout import SegmentObject, TickerObject, raw_day_prefix
from ssmd.archive.manifest import Manifest, read_manifest
from ssmd.archive.normalize import Normalized, TickerFile, normalize_day
from ssmd.archive.reader import normalized_objects
from ssmd.archive.spill import Spill
from ssmd.archive.writer import compare_stored, store_change
from ssmd.clock import day_of, now_ns
from ssmd.errors import DataError
from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.interface import ObjectInfo, Storage
from ssmd.registry.interface import ObjectRecord, Registry

AT_ONCE = 16
"""Objects written at the same time: storage latency, not work, is what small objects cost."""
SHOWN = 20
"""Objects that a report names."""
_SHOWN_KEYS = 3

T = TypeVar("T")

log = structlog.get_logger(component="backfill")


class Place(NamedTuple):
    """Where the archive is."""

    storage: Storage
    raw: str
    normalized: str
    registry: Registry


class CompactReport(msgspec.Struct, frozen=True):
    """What compaction did.

    `missing_in_stream`: events that raw has and the archiver's segments had not (healed now), by type.
    `only_in_stream`: events of the segments that raw does not give, by type: a finding. `segments_deleted`, and
    `segments_kept` with the reason why. `problems`: frames that gave no event, by kind.
    """

    feed: str
    day: date
    frames: int
    gaps: int
    events: dict[str, int]
    objects: int
    bytes: int
    missing_in_stream: dict[str, int]
    only_in_stream: dict[str, int]
    segments_deleted: int
    segments_kept: int
    kept_because: str
    problems: dict[str, int]


class Had(msgspec.Struct, frozen=True):
    """What the normalized archive of a day held before: events by type, its objects per ticker and their bytes."""

    events: dict[str, int]
    objects: int
    bytes: int


class Rebuilt(msgspec.Struct, frozen=True):
    """A day made again: what was done, what was there before, and its objects by what happened to them.

    `kept` are the events of the objects (a repeated trade once), by type. `changes` counts added, changed, unchanged
    and removed objects; `some` names a few of those that are not unchanged.
    """

    report: CompactReport
    had: Had
    kept: dict[str, int]
    changes: dict[str, int]
    some: list[str]


class Steps(Protocol):
    """Who watches the work on a day."""

    def read(self, count: int) -> None:
        """So many more bytes of raw objects were read."""
        ...

    def compared(self, done: int, total: int) -> None:
        """So many of the day's objects were compared, and written where they changed."""
        ...

    def publishing(self) -> None:
        """The last moment before anything that is there is changed; what this raises stops the work."""
        ...


class _NoSteps:
    def read(self, count: int) -> None:
        """Nobody watches."""

    def compared(self, done: int, total: int) -> None:
        """Nobody watches."""

    def publishing(self) -> None:
        """Nobody objects."""


async def compact(
    feed: str,
    day: date,
    storage: Storage,
    raw_bucket: str,
    normalized_bucket: str,
    registry: Registry,
    *,
    today: date | None = None,
    work: Path | None = None,
) -> CompactReport:
    """Make the day's normalized objects again from raw and put them in place of the archiver's segments.

    The segments of a day that is not over (`today`: the UTC day now) are kept. `work` is a folder for temporary files
    of about the day's compressed size. DataError when the raw archive cannot be trusted (`ssmd data verify` says
    where), StorageUnavailable and RegistryUnavailable when it should be run again.
    """
    place = Place(storage, raw_bucket, normalized_bucket, registry)
    return (await rebuild(feed, day, place, today=today, work=work)).report


async def require_recorded(place: Place, feed: str, day: date, entries: Sequence[ObjectInfo]) -> None:
    """DataError when the inventory has raw objects of the day that are not among `entries`, the listing of storage.

    What is there must not be replaced from less, nor a storage that lost its data be taken for a day without any.
    """
    recorded = await asyncio.to_thread(place.registry.objects, feed, day, "raw")
    missing = sorted({row.key for row in recorded} - {entry.key for entry in entries})
    if missing:
        names = ", ".join(f"{place.raw}/{key}" for key in missing[:_SHOWN_KEYS])
        raise DataError(
            f"{len(missing)} raw objects of {day} are in the inventory but not in storage: {names}",
            f"Restore them. Run: ssmd data verify --feed {feed} --date {day}",
        )


async def rebuild(
    feed: str,
    day: date,
    place: Place,
    *,
    today: date | None = None,
    work: Path | None = None,
    steps: Steps | None = None,
    write: bool = True,
) -> Rebuilt:
    """Compaction, and what it changed; without `write` what it would change, and nothing is written."""
    storage, bucket, watch = place.storage, place.normalized, steps or _NoSteps()
    await require_recorded(place, feed, day, await storage.list(place.raw, raw_day_prefix(feed, day)))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmd-compact-", dir=work)))
        events = stack.enter_context(Spill(folder / "events"))
        stream = stack.enter_context(Spill(folder / "stream"))
        stale, segments = await _present(storage, bucket, feed, day)
        had = await _had(storage, bucket, stale, segments)
        await read_stream(storage, bucket, segments, stream)
        made = await normalize_day(storage, place.raw, feed, day, partial(open_feed, feed), events, on_read=watch.read)
        compared = StreamComparison(stream) if segments else None
        objects = [TickerObject(feed, kind, day, symbol) for kind, symbol in events.sorted_keys()]
        watch.publishing()
        writing = _Writing(place, events, compared, folder, watch, write)
        await writing.all(objects)
        if compared is not None:
            compared.finish()
    report, gone = _conclude(feed, day, today or day_of(now_ns()), made, writing.records, compared, stale, segments)
    changes = dict(writing.changes)
    removed = [its for its in gone if isinstance(its, TickerObject)]
    if removed:
        changes["removed"] = len(removed)
    if write:
        watch.publishing()
        await _publish(place, feed, day, gone, writing.records)
        log.info("compacted", **msgspec.to_builtins(report))
    kept: Counter[str] = Counter()
    for record in writing.records:
        kept[record.group] += record.records
    return Rebuilt(
        report, had, dict(sorted(kept.items())), changes, (writing.some + [its.key for its in removed])[:SHOWN]
    )


def _conclude(
    feed: str,
    day: date,
    today: date,
    made: Normalized,
    records: Sequence[ObjectRecord],
    compared: StreamComparison | None,
    stale: Sequence[TickerObject],
    segments: Sequence[SegmentObject],
) -> tuple[CompactReport, list[SegmentObject | TickerObject]]:
    """The report, and the objects that are no longer needed."""
    missing, only = (compared.missing, compared.only) if compared is not None else (Counter(), Counter())
    because = _why_keep(day, today, only)
    keys = {record.key for record in records}
    gone: list[SegmentObject | TickerObject] = [its for its in stale if its.key not in keys]
    if not because:
        gone += segments
    report = CompactReport(
        feed=feed,
        day=day,
        frames=made.frames,
        gaps=made.gaps,
        events=dict(made.events),
        objects=len(records),
        bytes=sum(record.bytes for record in records),
        missing_in_stream=dict(+missing),
        only_in_stream=dict(+only),
        segments_deleted=0 if because else len(segments),
        segments_kept=len(segments) if because else 0,
        kept_because=because if segments else "",
        problems=dict(made.problems),
    )
    return report, gone


def _why_keep(day: date, today: date, only: Counter[str]) -> str:
    if day >= today:
        return "the day is not over"
    if only.total():
        return "segments hold events that the raw archive does not give"
    return ""


async def _present(
    storage: Storage, bucket: str, feed: str, day: date
) -> tuple[list[TickerObject], list[SegmentObject]]:
    tickers: list[TickerObject] = []
    segments: list[SegmentObject] = []
    for kind in EVENT_TYPES:
        some_tickers, some_segments = await normalized_objects(storage, bucket, feed, kind, day)
        tickers += some_tickers
        segments += some_segments
    return tickers, segments


async def _had(
    storage: Storage, bucket: str, tickers: Sequence[TickerObject], segments: Sequence[SegmentObject]
) -> Had:
    """What manifests say about the day as it is; an object whose manifest cannot be read counts as one without events.

    Of a day that is compacted the objects per ticker count, else the segments: one holds what the other holds.
    """
    events: Counter[str] = Counter()
    size = 0
    chosen: Sequence[TickerObject | SegmentObject] = tickers or segments
    for start in range(0, len(chosen), AT_ONCE):
        some = chosen[start : start + AT_ONCE]
        for its, manifest in zip(some, await together(_described(storage, bucket, its) for its in some), strict=True):
            if manifest is not None:
                events[its.type] += manifest.records
                size += manifest.bytes
    return Had(dict(sorted(events.items())), len(tickers), size)


async def _described(storage: Storage, bucket: str, its: TickerObject | SegmentObject) -> Manifest | None:
    try:
        return await read_manifest(storage, bucket, its)
    except DataError as error:
        log.warning("manifest unreadable", key=its.manifest_key, error=error.message)
        return None


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run at the same time; the first error ends all."""
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(one) for one in work]
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    return [task.result() for task in started]


class _Writing:
    """Writes objects and their manifests, some at a time; one that is there already with the same bytes is left.

    `records` are the rows they should have, `changes` counts what happened to them.
    """

    def __init__(
        self, place: Place, events: Spill, compared: StreamComparison | None, folder: Path, watch: Steps, write: bool
    ) -> None:
        self._place = place
        self._events = events
        self._compared = compared
        self._folder = folder
        self._watch = watch
        self._write = write
        self.records: list[ObjectRecord] = []
        self.changes: Counter[str] = Counter()
        self.some: list[str] = []

    async def all(self, objects: Sequence[TickerObject]) -> None:
        """The objects of a day."""
        for start in range(0, len(objects), AT_ONCE):
            some = objects[start : start + AT_ONCE]
            self.records += await together(
                self._one(its, self._folder / f"object-{number}") for number, its in enumerate(some)
            )
            self._watch.compared(len(self.records), len(objects))

    async def _one(self, its: TickerObject, path: Path) -> ObjectRecord:
        identities: Counter[bytes] = Counter()

        def seen(identity: bytes) -> None:
            identities[digest(identity)] += 1

        file = TickerFile(its, self._events, seen if self._compared is not None else None)
        manifest = await asyncio.to_thread(file.write, path)
        if self._compared is not None:
            self._compared.ticker(its.type, its.ticker, identities)
        storage, bucket = self._place.storage, self._place.normalized
        change = await compare_stored(storage, bucket, its, manifest)
        self.changes[change] += 1
        if change != "unchanged" and len(self.some) < SHOWN:
            self.some.append(its.key)
        if self._write:
            await store_change(storage, bucket, its, manifest, path, change)
        return manifest.record(bucket)


async def _publish(
    place: Place,
    feed: str,
    day: date,
    gone: Sequence[SegmentObject | TickerObject],
    records: Sequence[ObjectRecord],
) -> None:
    """Replace what is no longer needed: its manifests, then all rows in one transaction, then its objects.

    In this order nobody makes rows again from a manifest, and a crash in between leaves what the next run removes.
    """
    storage, bucket, registry = place.storage, place.normalized, place.registry
    for its in gone:
        await storage.delete(bucket, its.manifest_key)
    known = {row.key: row for row in await asyncio.to_thread(registry.objects, feed, day, "normalized")}
    fresh = [record for record in records if known.get(record.key) != record]
    tickers, segments = await _present(storage, bucket, feed, day)
    present = {its.key for its in tickers} | {its.key for its in segments}
    present -= {its.key for its in gone}
    remove = {record.key for record in fresh if record.key in known} | {key for key in known if key not in present}
    if remove or fresh:
        await asyncio.to_thread(registry.replace_objects, feed, [(bucket, key) for key in sorted(remove)], fresh)
    for its in gone:
        await storage.delete(bucket, its.key)
