"""Rows of the inventory follow the objects: at once when the database is there, from the manifests when it was not."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import structlog

from ssmd.archive import layout
from ssmd.archive.layout import DataObject
from ssmd.archive.manifest import read_manifest
from ssmd.clock import day_of, now_ns
from ssmd.errors import DataError, TransientError
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import Issue, ObjectRecord, Registry
from ssmd.registry.unwritten import UnwrittenIssues

RECONCILE_S = 3600.0
RETRY_S = 10.0

log = structlog.get_logger(component="archive")


async def reconcile(
    storage: Storage, bucket: str, registry: Registry, feed: str, day: date, data_type: str
) -> list[ObjectRecord]:
    """Record the objects of a day ('raw' or 'normalized') that have a manifest and no row; those rows.

    Rows are never removed or changed here: a difference is a finding of `ssmd data verify`, and so is a manifest that
    cannot be read; it is logged, and the others count.
    """
    described = await _described(storage, bucket, feed, day, data_type)
    if not described:
        return []
    known = {row.key for row in await asyncio.to_thread(registry.objects, feed, day, data_type)}
    missing = []
    for its in described:
        if its.key not in known:
            try:
                missing.append((await read_manifest(storage, bucket, its)).record(bucket))
            except DataError as error:
                _unreadable(feed, error)
    if missing:
        await asyncio.to_thread(registry.record_objects, feed, missing)
        log.info("inventory reconciled", feed=feed, day=day.isoformat(), data_type=data_type, rows=len(missing))
    return missing


async def _described(storage: Storage, bucket: str, feed: str, day: date, data_type: str) -> list[DataObject]:
    """The objects of a day that have a manifest."""
    parse: Callable[[str], DataObject] = layout.parse_normalized_manifest
    prefixes = [layout.normalized_manifests_prefix(feed, event_type, day) for event_type in EVENT_TYPES]
    if data_type == "raw":
        parse, prefixes = layout.parse_raw_manifest, [layout.raw_manifests_prefix(feed, day)]
    found: list[DataObject] = []
    for prefix in prefixes:
        for entry in await storage.list(bucket, prefix):
            try:
                found.append(parse(entry.key))
            except DataError as error:
                _unreadable(feed, error)
    return found


def _unreadable(feed: str, error: DataError) -> None:
    log.error("manifest unreadable, no row", feed=feed, error=error.message, hint="Run: ssmd data verify")


class Inventory:
    """Writes rows beside the data path: `add` never waits; `run` writes them and, once an hour, reconciles two days.

    `problem` says why rows wait; "" when none do.
    """

    def __init__(
        self,
        storage: Storage,
        bucket: str,
        registry: Registry,
        feed: str,
        data_type: str,
        clock_ns: Callable[[], int] = now_ns,
    ) -> None:
        self._storage = storage
        self._bucket = bucket
        self._registry = registry
        self._feed = feed
        self._data_type = data_type
        self._clock_ns = clock_ns
        self._waiting: list[ObjectRecord] = []
        self._issues = UnwrittenIssues(registry)
        self._unsure: set[date] = set()
        self._changed = asyncio.Event()
        self._closing = False
        self.problem = ""

    def add(self, records: Sequence[ObjectRecord]) -> None:
        """Objects that were stored just now."""
        self._waiting.extend(records)
        self._changed.set()

    def report(self, issue: Issue) -> None:
        """A problem of the data that reviewers should see; counted with what waits of its kind and day."""
        self._issues.add(issue)
        self._changed.set()

    def close(self) -> None:
        """Let `run` return after one more try; what then has no row has a manifest."""
        self._closing = True
        self._changed.set()

    async def run(self) -> None:
        """Write rows until `close`."""
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while not self._closing:
            if loop.time() >= look_at:
                today = day_of(self._clock_ns())
                self._unsure |= {today, today - timedelta(days=1)}
                look_at = loop.time() + RECONCILE_S
            await self._write()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self.problem else max(0.0, look_at - loop.time())):
                    await self._changed.wait()
        await self._write()

    async def _write(self) -> None:
        """Write what waits and reconcile the days that may lack rows; trouble is kept in `problem` and tried again."""
        records, self._waiting = self._waiting, []
        self._changed.clear()
        try:
            if records:
                await asyncio.to_thread(self._registry.record_objects, self._feed, records)
            await self._issues.write()
            for day in sorted(self._unsure):
                await reconcile(self._storage, self._bucket, self._registry, self._feed, day, self._data_type)
                self._unsure.discard(day)
        except (TransientError, DataError) as error:
            self._unsure |= {record.day for record in records}
            if not self.problem:
                log.warning("inventory rows wait", feed=self._feed, rows=len(records), error=error.message)
            self.problem = error.message
            return
        if self.problem:
            log.info("inventory rows written again", feed=self._feed)
        self.problem = ""
