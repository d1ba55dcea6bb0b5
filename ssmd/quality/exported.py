"""What the Parquet files of a day hold and were made of; they are no part of the archive, and can be made again."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import date

import msgspec

from ssmd.archive.layout import ParquetDay, SegmentObject, TickerObject
from ssmd.archive.manifest import read_manifest
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.interface import ObjectMissing, Storage
from ssmd.quality.findings import Findings

FORMAT = 1
"""Raised when the columns or their meaning change: every day is made again, then."""
AT_ONCE = 16


class Part(msgspec.Struct, frozen=True):
    """One Parquet file."""

    key: str
    rows: int
    bytes: int
    sha256: str


class Exported(msgspec.Struct, frozen=True):
    """The Parquet files of an event type and day; `inputs` is a digest of the archive's objects they were made of.

    `first_ns` and `last_ns` are receive times (of gaps: when they ended), 0 without rows; `tickers` counts markets.
    """

    feed: str
    type: str
    day: date
    inputs: str
    rows: int
    tickers: int
    first_ns: int
    last_ns: int
    parts: list[Part]
    format: int = FORMAT
    writer_version: str = ""


async def read_exported(storage: Storage, bucket: str, its: ParquetDay) -> Exported | None:
    """What the manifest of the files says; None without one, or with one that is not ours."""
    try:
        found = msgspec.json.decode(await storage.get(bucket, its.manifest_key), type=Exported)
    except (ObjectMissing, msgspec.MsgspecError):
        return None
    return found


async def inputs_of(storage: Storage, bucket: str, objects: Sequence[TickerObject | SegmentObject]) -> str:
    """What changes when one of the objects does; an object without manifest counts by its name."""
    found = hashlib.sha256()

    async def one(its: TickerObject | SegmentObject) -> str:
        try:
            return (await read_manifest(storage, bucket, its)).sha256
        except ObjectMissing:
            return ""

    for start in range(0, len(objects), AT_ONCE):
        some = objects[start : start + AT_ONCE]
        for its, sha256 in zip(some, await asyncio.gather(*map(one, some)), strict=True):
            found.update(f"{its.key} {sha256}\n".encode())
    return found.hexdigest()


async def verify_exported(
    storage: Storage,
    bucket: str,
    feed: str,
    day: date,
    objects: Sequence[TickerObject | SegmentObject],
    records: Mapping[str, int],
    findings: Findings,
) -> None:
    """Are the day's Parquet files what their manifests say (a finding), and of the objects that are there (a note)?

    `records` are those counted in each object, by key: files made of them have as many rows.
    """
    for event_type in EVENT_TYPES:
        its = ParquetDay(feed, event_type, day)
        listed = {entry.key: entry.bytes for entry in await storage.list(bucket, its.prefix)}
        if not listed:
            continue
        again = f"run: ssmd data export --feed {feed} --date {day.isoformat()}"
        made = await read_exported(storage, bucket, its)
        if made is None:
            findings.notes.append(f"{its.prefix} has no manifest, so that nobody reads it: {again}")
            continue
        for part in made.parts:
            if part.key not in listed:
                findings.add("parquet", part.key, f"is not there, its manifest says it is: {again} --force")
            elif await _sha256(storage, bucket, part.key) != part.sha256:
                findings.add("parquet", part.key, f"is not what its manifest says: {again} --force")
        findings.counts["parquet_objects"] += len(made.parts)
        mine = [each for each in objects if each.type == event_type]
        compacted = [each for each in mine if isinstance(each, TickerObject)]
        inputs = sorted(compacted or mine)
        rows = {"its parts together": sum(part.rows for part in made.parts)}
        if made.format == FORMAT and made.inputs == await inputs_of(storage, bucket, inputs):
            rows["the objects that it was made of"] = sum(records.get(each.key, 0) for each in inputs)
        else:
            findings.notes.append(f"{its.prefix} was made of other objects than those that are there: {again}")
        for whose, count in rows.items():
            if count != made.rows:
                message = f"says {made.rows:,} rows, {whose} have {count:,}: {again} --force"
                findings.add("parquet", its.manifest_key, message)


async def _sha256(storage: Storage, bucket: str, key: str) -> str:
    found = hashlib.sha256()
    try:
        async for chunk in storage.stream(bucket, key):
            found.update(chunk)
    except ObjectMissing:
        return ""
    return found.hexdigest()
