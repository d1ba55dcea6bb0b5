"""The normalized objects of an event type and day, each against its manifest and its row: is what was stored there?

An export reads what is listed; an object that was deleted or altered since can only be told by who else names it.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import date
from typing import Any, NamedTuple

from ssmd.archive import layout
from ssmd.archive.manifest import Manifest, read_manifest
from ssmd.errors import DataError
from ssmd.middleware.storage.interface import ObjectMissing, Storage
from ssmd.quality.exported import AT_ONCE
from ssmd.registry.interface import ObjectRecord

COLUMNS = (
    "key", "bytes", "manifest_records", "present", "readable", "in_inventory", "same_as_inventory", "problem",
)  # fmt: skip


class Recorded(NamedTuple):
    """The inventory's rows by key (None: nobody could be asked), read before the objects are listed.

    All they name should be there, therefore. `again` is asked for the rows of objects that have none among them.
    """

    rows: Mapping[str, ObjectRecord] | None
    again: Callable[[Collection[str]], Awaitable[Mapping[str, ObjectRecord]]]

    async def and_of(self, keys: Collection[str]) -> Mapping[str, ObjectRecord] | None:
        """The rows, with those of `keys` that the inventory has by now."""
        if self.rows is None or not (absent := set(keys) - self.rows.keys()):
            return self.rows
        return {**self.rows, **await self.again(absent)}


async def object_rows(
    storage: Storage, bucket: str, feed: str, event_type: str, day: date, recorded: Recorded
) -> list[dict[str, Any]]:
    """A row for each object that is there, or that a manifest or a row of `recorded` names.

    Every object is read and hashed. StorageUnavailable when the storage is away.
    """
    prefix = layout.normalized_day_prefix(feed, event_type, day)
    manifests = layout.normalized_manifests_prefix(feed, event_type, day)
    named = {key for key in recorded.rows or () if key.startswith(prefix)}
    for entry in await storage.list(bucket, prefix):
        if not entry.key.startswith(manifests):
            named.add(entry.key)
            continue
        try:
            named.add(layout.parse_normalized_manifest(entry.key).key)
        except DataError:
            continue  # a stray; `ssmd data verify` names it
    keys = sorted(named)
    known = await recorded.and_of(named)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(keys), AT_ONCE):
        some = (_row(storage, bucket, key, known) for key in keys[start : start + AT_ONCE])
        rows += await asyncio.gather(*some)
    return rows


async def _row(storage: Storage, bucket: str, key: str, recorded: Mapping[str, ObjectRecord] | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    known = None if recorded is None else recorded.get(key)
    row |= {"key": key, "bytes": 0, "present": True, "readable": True, "problem": ""}
    row["in_inventory"] = None if recorded is None else known is not None
    manifest: Manifest | None = None
    try:
        manifest = await read_manifest(storage, bucket, layout.parse_normalized(key))
        row["manifest_records"] = manifest.records
    except DataError as error:
        row |= {"readable": False, "problem": error.message}
    try:
        found, row["bytes"] = await _digest(storage, bucket, key)
    except ObjectMissing:
        row |= {"present": False, "readable": None, "problem": "the object is missing"}
        row["manifest_records"] = row["manifest_records"] or (known.records if known else None)
        return row
    if manifest is not None and (manifest.sha256, manifest.bytes) != (found, row["bytes"]):
        row |= {"readable": False, "problem": f"has sha256 {found}, its manifest says {manifest.sha256}"}
    if known is not None:
        row["same_as_inventory"] = (known.sha256, known.bytes) == (found, row["bytes"])
    return row


async def _digest(storage: Storage, bucket: str, key: str) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    async for chunk in storage.stream(bucket, key):
        found.update(chunk)
        size += len(chunk)
    return found.hexdigest(), size
