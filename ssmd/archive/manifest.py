"""A manifest says what an object holds, so that it can be checked without trusting its writer or the database."""

from datetime import date

import msgspec

from ssmd.archive import layout
from ssmd.archive.layout import DataObject, RawObject
from ssmd.errors import DataError
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import ObjectRecord


class Range(msgspec.Struct, frozen=True):
    """The first and the last frame number of a connection in an object; both are in it."""

    first_n: int
    last_n: int


class Manifest(msgspec.Struct, frozen=True):
    """What one object holds; times are receive times in nanoseconds.

    `bytes` is the stored size, `raw_bytes` the content's.
    `group` is the raw group or the event type. `connections` is empty for normalized objects, whose
    `schema_version` and number of tickers (`symbols`) are given instead.
    """

    key: str
    sha256: str
    bytes: int
    records: int
    first_ns: int
    last_ns: int
    connections: dict[str, Range]
    zstd_frames: int
    raw_bytes: int
    feed: str
    group: str
    day: date
    writer_version: str
    schema_version: str | None = None
    symbols: int | None = None

    def record(self, bucket: str) -> ObjectRecord:
        """Its row in the inventory."""
        return ObjectRecord(
            bucket=bucket,
            key=self.key,
            data_type="raw" if self.schema_version is None else "normalized",
            group=self.group,
            day=self.day,
            sha256=self.sha256,
            bytes=self.bytes,
            records=self.records,
            first_ns=self.first_ns,
            last_ns=self.last_ns,
            schema_version=self.schema_version,
            symbols=self.symbols,
            writer_version=self.writer_version,
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as one line of JSON; equal manifests give equal bytes."""
    return msgspec.json.encode(manifest, order="deterministic") + b"\n"


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The manifest in `data`; DataError naming `name` when it is none."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise DataError(f"{name} is not a manifest ({error})") from error


async def raw_manifests(storage: Storage, bucket: str, feed: str, day: date) -> dict[RawObject, Manifest]:
    """The manifests of a day's raw objects; DataError for one that cannot be read or describes another object.

    Keys that are not of the layout are passed over.
    """
    found: dict[RawObject, Manifest] = {}
    for entry in await storage.list(bucket, layout.raw_manifests_prefix(feed, day)):
        if layout.belongs(layout.parse_raw_manifest, entry.key):
            its = layout.parse_raw_manifest(entry.key)
            found[its] = await read_manifest(storage, bucket, its)
    return found


async def read_manifest(storage: Storage, bucket: str, its: DataObject) -> Manifest:
    """The manifest of an object; DataError when there is none, it is damaged or describes another object."""
    manifest = decode_manifest(await storage.get(bucket, its.manifest_key), f"{bucket}/{its.manifest_key}")
    if manifest.key != its.key:
        raise DataError(f"{bucket}/{its.manifest_key} describes {manifest.key}, not {its.key}")
    return manifest
