"""Segments: what the archiver stores during the day, and how it learns after a crash what it has stored already."""

import asyncio
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import msgspec
import structlog

from ssmd import __version__
from ssmd.archive import layout
from ssmd.archive.frames import Compressed, Decompressor, compress
from ssmd.archive.layout import NO_CONNECTION, SCHEMA_VERSION, SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest, encode_manifest
from ssmd.archive.writer import store_once
from ssmd.clock import NS_PER_DAY, day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import Event, Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import ObjectRecord
from ssmd.wire.normalized import decode, received_ns, split

log = structlog.get_logger(component="archive")


class OpenSegment:
    """Messages of one event type and UTC day that no object holds yet.

    `covered`: this stream's messages of the type and day up to this sequence number are stored already.
    """

    __slots__ = (
        "covered",
        "day",
        "end_ns",
        "feed",
        "first_seq",
        "last_seq",
        "messages",
        "start_ns",
        "stream",
        "subjects",
        "type",
    )

    def __init__(self, feed: str, event_type: str, day: date, stream: str, covered: int) -> None:
        self.feed = feed
        self.type = event_type
        self.day = day
        self.stream = stream
        self.covered = covered
        self.start_ns = day_start_ns(day)
        self.end_ns = self.start_ns + NS_PER_DAY
        self.messages: list[bytes] = []
        self.subjects: set[bytes] = set()
        self.first_seq = 0
        self.last_seq = 0

    def stored(self) -> None:
        """Everything held is in an object now."""
        self.covered = self.last_seq
        self.messages = []
        self.subjects = set()


class Measures(msgspec.Struct, frozen=True):
    """What a manifest says about messages."""

    records: int
    first_ns: int
    last_ns: int
    symbols: int


def symbol_of(event: Event) -> str:
    """What names an event's file and subject: its ticker; of a gap, its connection."""
    return (event.connection or NO_CONNECTION) if isinstance(event, Gap) else event.ticker


def normalized_manifest(its: SegmentObject | TickerObject, compressed: Compressed, measures: Measures) -> Manifest:
    """The manifest of a normalized object."""
    return Manifest(
        key=its.key,
        sha256=compressed.sha256,
        bytes=compressed.bytes,
        records=measures.records,
        first_ns=measures.first_ns,
        last_ns=measures.last_ns,
        connections={},
        zstd_frames=compressed.frames,
        raw_bytes=compressed.raw_bytes,
        feed=its.feed,
        group=its.type,
        day=its.day,
        writer_version=__version__,
        schema_version=SCHEMA_VERSION,
        symbols=measures.symbols,
    )


async def store_segment(storage: Storage, bucket: str, segment: OpenSegment, folder: Path) -> ObjectRecord:
    """Store what `segment` holds as one object with its manifest; may be repeated. Errors as `writer.store_once`."""
    its = SegmentObject(segment.feed, segment.type, segment.day, segment.stream, segment.first_seq, segment.last_seq)
    compressed, measures = await asyncio.to_thread(_compress, segment, folder / "segment.zst")
    return await store_once(
        storage, bucket, its, normalized_manifest(its, compressed, measures), folder / "segment.zst"
    )


def _compress(segment: OpenSegment, path: Path) -> tuple[Compressed, Measures]:
    times = [received_ns(message) for message in segment.messages]
    measures = Measures(len(times), min(times), max(times), len(segment.subjects))
    return compress(segment.messages, path), measures


async def covered_through(
    storage: Storage, bucket: str, feed: str, event_type: str, day: date, stream: str
) -> tuple[int, list[ObjectRecord]]:
    """The last sequence number of `stream` that a segment of this type and day holds (0: none).

    A segment that a crash left without its manifest gets one, from a recount; the records of those come second.
    """
    entries = await storage.list(bucket, layout.segments_prefix(feed, event_type, day))
    mine = [segment for segment in _segments(entry.key for entry in entries) if segment.stream == stream]
    if not mine:
        return 0, []
    prefix = layout.normalized_manifests_prefix(feed, event_type, day)
    described = {entry.key for entry in await storage.list(bucket, f"{prefix}_segments/")}
    repaired = []
    for segment in mine:
        if segment.manifest_key not in described:
            try:
                repaired.append(await _describe(storage, bucket, segment))
                log.warning("segment without manifest, described anew", key=segment.key)
            except DataError as error:
                # It stays without a manifest, a finding of `ssmd data verify`; compaction makes its events again.
                log.error("segment without manifest", key=segment.key, error=error.message)
    return max(segment.last_seq for segment in mine), repaired


def _segments(keys: Iterable[str]) -> Iterator[SegmentObject]:
    for key in keys:
        try:
            found = layout.parse_normalized(key)
        except DataError as error:
            log.warning("stray object among the segments", key=key, error=error.message)
            continue
        if isinstance(found, SegmentObject):
            yield found


async def _describe(storage: Storage, bucket: str, its: SegmentObject) -> ObjectRecord:
    reader = Decompressor(f"{bucket}/{its.key}")
    records, first_ns, last_ns = 0, 1 << 64, 0
    symbols: set[str] = set()
    async for chunk in storage.stream(bucket, its.key):
        for content in reader.feed(chunk):
            for message in split(content):
                event, ns = decode(its.type, message), received_ns(message)
                records, first_ns, last_ns = records + 1, min(first_ns, ns), max(last_ns, ns)
                symbols.add(symbol_of(event))
    reader.finish()
    if not records:
        raise DataError(f"{bucket}/{its.key} holds no message")
    manifest = normalized_manifest(its, reader.counted, Measures(records, first_ns, last_ns, len(symbols)))
    await storage.put_once(bucket, its.manifest_key, encode_manifest(manifest))
    return manifest.record(bucket)
