"""Compaction: a day's normalized archive made again from its raw archive, one object per event type and ticker.

Raw is the truth. What the archiver stored from the stream is compared with what raw gives: events that the stream
lacked are healed; events that only the stream has are a finding and keep the segments from being deleted. Running it
again gives the same objects.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path

import msgspec
import structlog

from ssmd.archive.compare import StreamComparison, digest, read_stream
from ssmd.archive.layout import SegmentObject, TickerObject
from ssmd.archive.normalize import Normalized, TickerFile, normalize_day
from ssmd.archive.reader import normalized_objects
from ssmd.archive.spill import Spill
from ssmd.archive.writer import store_replacing
from ssmd.clock import day_of, now_ns
from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import ObjectRecord, Registry

AT_ONCE = 16
"""Objects written at the same time: storage latency, not work, is what small objects cost."""

log = structlog.get_logger(component="backfill")


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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmd-compact-", dir=work)))
        events = stack.enter_context(Spill(folder / "events"))
        stream = stack.enter_context(Spill(folder / "stream"))
        stale, segments = await _present(storage, normalized_bucket, feed, day)
        await read_stream(storage, normalized_bucket, segments, stream)
        made = await normalize_day(storage, raw_bucket, feed, day, partial(open_feed, feed), events)
        compared = StreamComparison(stream)
        objects = [TickerObject(feed, kind, day, symbol) for kind, symbol in events.sorted_keys()]
        records = await _write(storage, normalized_bucket, objects, events, compared, folder)
        compared.finish()
    because = _why_keep(day, today or day_of(now_ns()), compared.only)
    gone: list[SegmentObject | TickerObject] = [its for its in stale if its not in set(objects)]
    if not because:
        gone += segments
    await _publish(storage, normalized_bucket, feed, day, registry, gone, records)
    report = _report(feed, day, made, records, compared, len(segments), because)
    log.info("compacted", **msgspec.to_builtins(report))
    return report


def _why_keep(day: date, today: date, only: Counter[str]) -> str:
    if day >= today:
        return "the day is not over"
    if only.total():
        return "segments hold events that the raw archive does not give"
    return ""


def _report(
    feed: str,
    day: date,
    made: Normalized,
    records: Sequence[ObjectRecord],
    compared: StreamComparison,
    segments: int,
    because: str,
) -> CompactReport:
    return CompactReport(
        feed=feed,
        day=day,
        frames=made.frames,
        gaps=made.gaps,
        events=dict(made.events),
        objects=len(records),
        bytes=sum(record.bytes for record in records),
        missing_in_stream=dict(+compared.missing) if segments else {},
        only_in_stream=dict(+compared.only),
        segments_deleted=0 if because else segments,
        segments_kept=segments if because else 0,
        kept_because=because if segments else "",
        problems=dict(made.problems),
    )


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


async def _write(
    storage: Storage,
    bucket: str,
    objects: Sequence[TickerObject],
    events: Spill,
    compared: StreamComparison,
    folder: Path,
) -> list[ObjectRecord]:
    """Write the objects and their manifests, some at a time; one that is there already with the same bytes is left."""
    records: list[ObjectRecord] = []
    for start in range(0, len(objects), AT_ONCE):
        try:
            async with asyncio.TaskGroup() as tasks:
                written = [
                    tasks.create_task(_write_one(storage, bucket, its, events, compared, folder / f"object-{place}"))
                    for place, its in enumerate(objects[start : start + AT_ONCE])
                ]
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        records += [task.result() for task in written]
    return records


async def _write_one(
    storage: Storage, bucket: str, its: TickerObject, events: Spill, compared: StreamComparison, path: Path
) -> ObjectRecord:
    identities: Counter[bytes] = Counter()

    def seen(identity: bytes) -> None:
        identities[digest(identity)] += 1

    manifest = await asyncio.to_thread(TickerFile(its, events, seen).write, path)
    compared.ticker(its.type, its.ticker, identities)
    return await store_replacing(storage, bucket, its, manifest, path)


async def _publish(
    storage: Storage,
    bucket: str,
    feed: str,
    day: date,
    registry: Registry,
    gone: Sequence[SegmentObject | TickerObject],
    records: Sequence[ObjectRecord],
) -> None:
    """Replace what is no longer needed: its manifests, then all rows in one transaction, then its objects.

    In this order nobody makes rows again from a manifest, and a crash in between leaves what the next run removes.
    """
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
