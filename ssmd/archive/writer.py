"""Write objects into the archive: each once and whole, then its manifest; safe to repeat after any crash."""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import structlog

from ssmd import __version__
from ssmd.archive import layout
from ssmd.archive.frames import FRAME_BYTES, Compressed, Decompressor, compress
from ssmd.archive.layout import NO_CONNECTION, DataObject, GapObject, RawObject
from ssmd.archive.manifest import Manifest, Range, encode_manifest
from ssmd.clock import day_of
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import ObjectMissing, Storage
from ssmd.registry.interface import ObjectRecord

__all__ = [
    "FRAME_BYTES",
    "Change",
    "Compressed",
    "ObjectConflict",
    "RawSegment",
    "compare_stored",
    "compress",
    "next_number",
    "store_change",
    "store_gap",
    "store_once",
    "store_raw",
    "store_replacing",
]

Change: TypeAlias = Literal["added", "changed", "unchanged"]
"""What storing an object does, or would do."""

_CHUNK_BYTES = 1 << 20

log = structlog.get_logger(component="archive")


class ObjectConflict(DataError):
    """The key is taken by an object with other content; a raw segment takes the next number."""


class RawSegment(msgspec.Struct, frozen=True):
    """A sealed run of raw lines of one group and UTC day, compressed into a file.

    Times are receive times in nanoseconds; `connections` gives (first n, last n) of each connection in the segment.
    """

    feed: str
    day: date
    group: str
    shard: str
    number: int
    records: int
    first_ns: int
    last_ns: int
    connections: Mapping[str, tuple[int, int]]
    compressed: Compressed

    @property
    def object(self) -> RawObject:
        """Where it belongs."""
        return RawObject(self.feed, self.day, self.group, self.shard, self.number)


async def store_raw(storage: Storage, bucket: str, segment: RawSegment, path: Path) -> ObjectRecord:
    """Store the segment's file `path` and its manifest; the record describes what is stored.

    May be repeated: the same lines under the same key are success, also when another version of the compressor wrote
    them. ObjectConflict when the key holds other lines; StorageUnavailable when it should be tried again.
    """
    manifest = Manifest(
        key=segment.object.key,
        sha256=segment.compressed.sha256,
        bytes=segment.compressed.bytes,
        records=segment.records,
        first_ns=segment.first_ns,
        last_ns=segment.last_ns,
        connections={name: Range(*numbers) for name, numbers in segment.connections.items()},
        zstd_frames=segment.compressed.frames,
        raw_bytes=segment.compressed.raw_bytes,
        feed=segment.feed,
        group=segment.group,
        day=segment.day,
        writer_version=__version__,
    )
    return await store_once(storage, bucket, segment.object, manifest, path)


async def store_once(storage: Storage, bucket: str, its: DataObject, manifest: Manifest, path: Path) -> ObjectRecord:
    """Store a file under a key of its own and its manifest behind it; repeats and errors as `store_raw`."""
    if not await storage.put_once(bucket, its.key, path):
        stored = await _stored_content(storage, bucket, its.key, path)
        manifest = msgspec.structs.replace(
            manifest,
            sha256=stored.sha256,
            bytes=stored.bytes,
            zstd_frames=stored.frames,
            raw_bytes=stored.raw_bytes,
        )
    await _put_manifest(storage, bucket, its, manifest)
    return manifest.record(bucket)


async def store_replacing(
    storage: Storage, bucket: str, its: DataObject, manifest: Manifest, path: Path
) -> ObjectRecord:
    """Store a file and its manifest over what is there; nothing is written when the same bytes are there already."""
    await store_change(storage, bucket, its, manifest, path, await compare_stored(storage, bucket, its, manifest))
    return manifest.record(bucket)


async def store_change(
    storage: Storage, bucket: str, its: DataObject, manifest: Manifest, path: Path, change: Change
) -> None:
    """The writing half of `store_replacing`, for those who have asked `compare_stored` themselves."""
    if change != "unchanged":
        await storage.replace(bucket, its.key, path)
    await _put_manifest(storage, bucket, its, manifest, expected=change == "changed")


async def compare_stored(storage: Storage, bucket: str, its: DataObject, manifest: Manifest) -> Change:
    """What storing an object as `manifest` describes it would change, by the bytes that are there."""
    digest = hashlib.sha256()
    try:
        async for chunk in storage.stream(bucket, its.key):
            digest.update(chunk)
    except ObjectMissing:
        return "added"
    return "unchanged" if digest.hexdigest() == manifest.sha256 else "changed"


async def store_gap(storage: Storage, bucket: str, gap: Gap) -> str:
    """Store a gap under the time and connection at which it ended; the key. Storing it again changes nothing."""
    content = msgspec.json.encode(gap) + b"\n"
    its = GapObject(gap.feed, day_of(gap.to_ns), gap.to_ns, gap.connection or NO_CONNECTION)
    while not await storage.put_once(bucket, its.key, content):
        if await storage.get(bucket, its.key) == content:
            break
        its = msgspec.structs.replace(its, copy=its.copy + 1)
    return its.key


async def next_number(storage: Storage, bucket: str, feed: str, day: date, group: str, shard: str) -> int:
    """The number after the highest that an object or a manifest of this group, shard and day has."""
    stem = layout.raw_stem(group, shard)
    objects = await storage.list(bucket, layout.raw_day_prefix(feed, day) + stem)
    manifests = await storage.list(bucket, layout.raw_manifests_prefix(feed, day) + stem)
    taken = [layout.parse_raw(entry.key) for entry in objects if layout.belongs(layout.parse_raw, entry.key)]
    taken += [
        layout.parse_raw_manifest(entry.key)
        for entry in manifests
        if layout.belongs(layout.parse_raw_manifest, entry.key)
    ]
    return max((found.number + 1 for found in taken if found.shard == shard), default=0)


async def _put_manifest(
    storage: Storage, bucket: str, its: DataObject, manifest: Manifest, *, expected: bool = False
) -> None:
    """Store a manifest; `expected`: the object was replaced just now, so that another manifest is there."""
    content = encode_manifest(manifest)
    if await storage.put_once(bucket, its.manifest_key, content):
        return
    if await storage.get(bucket, its.manifest_key) == content:
        return
    # The object has just been compared with what we meant to store; a manifest that says otherwise is wrong or older.
    (log.debug if expected else log.warning)("manifest replaced", bucket=bucket, key=its.manifest_key)
    await storage.replace(bucket, its.manifest_key, content)


async def _stored_content(storage: Storage, bucket: str, key: str, path: Path) -> Compressed:
    """Measures of the stored object when its content equals that of the file `path`, else ObjectConflict."""
    stored = Decompressor(f"{bucket}/{key}")
    theirs = hashlib.sha256()
    try:
        async for chunk in storage.stream(bucket, key):
            for content in stored.feed(chunk):
                theirs.update(content)
        stored.finish()
    except DataError as error:
        raise ObjectConflict(f"{bucket}/{key} exists and is damaged: {error.message}") from error
    if theirs.digest() != await asyncio.to_thread(_content_digest, path):
        raise ObjectConflict(f"{bucket}/{key} exists with other content")
    return stored.counted


def _content_digest(path: Path) -> bytes:
    ours, digest = Decompressor(str(path)), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            for content in ours.feed(chunk):
                digest.update(content)
    ours.finish()
    return digest.digest()
