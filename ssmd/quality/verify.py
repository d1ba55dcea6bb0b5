"""Verify one day of the archive by recounting it: trust no writer, no manifest and no row.

Rules, by what a finding says is wrong:

    stray, no_manifest, no_object, bad_manifest     objects and manifests that do not belong together
    frame, sha256, count                            an object is not what its manifest says
    line, day, order, repeat, hole                  raw lines: unreadable, of another day, disordered, twice, missing
    message, ticker, overlap                        normalized messages: unreadable, of another ticker, covered twice
    gap, gap_row, gap_object                        recorded gaps: unreadable, without row, without object
    unrecorded_gap                                  the exchange's numbers have a hole that no recorded gap covers
    not_understood                                  too many frames of a type gave no event, and should have
    handover                                        recorded handovers: unreadable, not of the frames that are there,
                                                    events around them lost without a gap, or published twice
    row, no_row, row_without_object, day_row        the inventory says something else
    renormalize                                     compacted objects are not what raw gives
    only_in_stream, missing_in_stream               segments are not what raw gives (`ssmd data compact` heals)
    segments_left                                   segments of a closed day stand beside compacted objects
    parquet                                         an exported file is not what its manifest says
    exchange_trades                                 the exchange lists trades that are not here, nor in a gap
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from ssmd.archive import layout
from ssmd.archive.layout import DataObject, GapObject, RawObject, SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest, raw_manifests, read_manifest
from ssmd.archive.reader import read_gaps
from ssmd.clock import day_of, iso, now_ns
from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES, Gap
from ssmd.middleware.storage.interface import ObjectMissing, Storage
from ssmd.quality.derived import Asked, Counted, Derived, Normal
from ssmd.quality.exchange_trades import Exchange
from ssmd.quality.exported import verify_exported
from ssmd.quality.findings import RAN, Findings, VerifyReport
from ssmd.quality.handovers import verify_handovers
from ssmd.quality.inventory import verify_gap_rows, verify_rows
from ssmd.quality.overlap import Frames, Overlap
from ssmd.quality.recount import Recount, Recounted, spans
from ssmd.quality.sampling import Sample
from ssmd.registry.interface import ObjectRecord, Registry

T = TypeVar("T")


async def verify(  # noqa: PLR0913 -- what is verified, with what, and how deep
    feed: str,
    day: date,
    storage: Storage,
    registry: Registry | None,
    *,
    raw_bucket: str,
    normalized_bucket: str,
    today: date | None = None,
    work: Path | None = None,
    sample: Sample | None = None,
    exchange: Exchange | None = None,
) -> VerifyReport:
    """Recount a UTC day. Without `registry` the rows are not checked; of a day that is not over, the stream is not.

    `sample`: of compacted objects the messages of these tickers only are read; raw, and the bytes of all objects, are
    in any case. `exchange`: whom to ask for the trades that it lists. A day that is being written may show findings
    that pass: objects appear one after the other. `work` is a folder for temporary files. Raises StorageUnavailable and
    RegistryUnavailable; everything else is a finding.
    """
    run = _Verification(feed, day, storage, registry, raw_bucket, normalized_bucket, today, work)
    return await run.run(sample, exchange)


class _Verification:
    """One run."""

    def __init__(
        self,
        feed: str,
        day: date,
        storage: Storage,
        registry: Registry | None,
        raw_bucket: str,
        normalized_bucket: str,
        today: date | None,
        work: Path | None,
    ) -> None:
        self._feed = feed
        self._day = day
        self._storage = storage
        self._registry = registry
        self._raw = raw_bucket
        self._normalized = normalized_bucket
        self._closed = day < (today or day_of(now_ns()))
        self._work = work
        self._findings = Findings()
        self._raw_records: list[ObjectRecord] = []
        self._normalized_records: list[ObjectRecord] = []
        self._contents: dict[TickerObject, str | None] = {}
        self._segments: list[SegmentObject] = []
        self._gaps: dict[GapObject, Gap] = {}
        self._counted = Counted({}, {})
        self._before: dict[str, int] = {}
        self._chosen: frozenset[str] | None = None

    async def run(self, sample: Sample | None, exchange: Exchange | None) -> VerifyReport:
        """All checks."""
        findings = self._findings
        await self._verify_raw()
        await self._verify_gaps()
        overlap = await self._verify_handovers()
        if sample is not None:
            await self._choose(sample)
        for event_type in EVENT_TYPES:
            await self._verify_normalized(event_type)
        if self._registry is None:
            findings.checks["inventory"] = "not run: no database"
        else:
            for data_type, records in (("raw", self._raw_records), ("normalized", self._normalized_records)):
                await verify_rows(self._registry, self._feed, self._day, data_type, records, findings)
            objects = {its.key: gap for its, gap in self._gaps.items()}
            await verify_gap_rows(self._registry, self._feed, self._day, objects, findings)
            findings.checks["inventory"] = RAN
        derived = Derived(
            self._feed, self._day, self._storage, findings, self._counted, closed=self._closed, chosen=self._chosen
        )
        away = await derived.verify(
            self._raw, self._normalized, Normal(self._contents, self._segments), self._work,
            None if exchange is None else Asked(exchange, list(self._gaps.values())), overlap,
        )  # fmt: skip
        await verify_exported(
            self._storage, self._normalized, self._feed, self._day, [*self._contents, *self._segments],
            {record.key: record.records for record in self._normalized_records}, findings,
        )  # fmt: skip
        for gap in self._gaps.values():
            where = gap.connection if gap.sid is None else f"{gap.connection} sid {gap.sid}"
            findings.notes.append(f"gap of {where}: {iso(gap.from_ns)} to {iso(gap.to_ns)}, {gap.reason}")
        return findings.report(self._feed, self._day, exchange_away=away)

    async def _choose(self, sample: Sample) -> None:
        """Which tickers' compacted objects are read; of segments, which hold all tickers, everything is."""
        tickers: set[str] = set()
        for event_type in EVENT_TYPES:
            prefix = layout.normalized_day_prefix(self._feed, event_type, self._day)
            for entry in await self._storage.list(self._normalized, prefix):
                with suppress(DataError):
                    its = layout.parse_normalized(entry.key)
                    if isinstance(its, TickerObject):
                        tickers.add(its.ticker)
        if not tickers:
            self._findings.notes.append(f"--sample {sample.text} was not used: nothing is compacted, all was read")
            return
        self._chosen = sample.choose(self._day, tickers)
        self._findings.sampled = f"{len(self._chosen)} of {len(tickers)} tickers ({sample.text}), chosen by the date"

    # -- raw ----------------------------------------------------------------------------------------------------

    async def _verify_raw(self) -> None:
        prefix = layout.raw_day_prefix(self._feed, self._day)
        objects: list[RawObject] = []
        manifests: set[RawObject] = set()
        for entry in await self._storage.list(self._raw, prefix):
            if layout.is_raw_record(entry.key, self._feed, self._day):
                self._parsed(layout.parse_gap if "/_gaps/" in entry.key else layout.parse_handover, entry.key)
                continue
            if entry.key.startswith(f"{prefix}_manifest/"):
                manifests.update(self._parsed(layout.parse_raw_manifest, entry.key))
            else:
                objects += self._parsed(layout.parse_raw, entry.key)
        recount = Recount(self._storage, self._raw, self._day, self._findings)
        self._raw_records = [
            record
            for its in sorted(objects)
            if (record := await self._recounted(self._raw, its, its in manifests, recount, partial(recount.raw, its)))
            is not None
        ]
        self._missing_objects(manifests - set(objects))
        self._findings.counts["raw_objects"] = len(objects)
        self._findings.counts["raw_records"] = sum(record.records for record in self._raw_records)
        self._counted = Counted(recount.numbers, recount.types)
        await self._verify_numbers(recount)
        self._findings.checks["raw"] = RAN

    def _parsed(self, parse: Callable[[str], T], key: str) -> list[T]:
        """The object that a key names; none and a finding when it names none."""
        try:
            return [parse(key)]
        except DataError as error:
            self._findings.add("stray", key, error.message)
            return []

    def _missing_objects(self, manifests: Iterable[DataObject]) -> None:
        for its in manifests:
            self._findings.add("no_object", its.manifest_key, f"there is no object {its.key}")

    async def _recounted(
        self,
        bucket: str,
        its: DataObject,
        described: bool,
        recount: Recount,
        counting: Callable[[], Awaitable[Recounted]],
    ) -> ObjectRecord | None:
        """Count an object and compare it with its manifest; the row it should have, None when it has vanished."""
        manifest = await self._manifest(bucket, its) if described else None
        left_out = isinstance(its, TickerObject) and self._chosen is not None and its.ticker not in self._chosen
        try:
            if left_out and manifest is not None:
                counted = await recount.unread(its, manifest)  # type: ignore[arg-type]  # a ticker's object
            else:
                left_out, counted = False, await counting()
        except ObjectMissing:
            return None  # deleted since the listing: compaction was faster
        if isinstance(its, TickerObject) and counted.whole:
            self._contents[its] = None if left_out else counted.content
        if not described:
            self._findings.add("no_manifest", its.key, "has no manifest")
        if manifest is not None:
            recount.against_manifest(its, counted, manifest)
        return _record(bucket, its, counted, manifest)

    async def _manifest(self, bucket: str, its: DataObject) -> Manifest | None:
        try:
            return await read_manifest(self._storage, bucket, its)
        except DataError as error:
            self._findings.add("bad_manifest", its.manifest_key, error.message)
            return None

    async def _verify_numbers(self, recount: Recount) -> None:
        """No frame of a connection is missing: not within the day, and not at its two ends."""
        before = self._before = await self._neighbour(self._day - timedelta(days=1), last=True)
        after = await self._neighbour(self._day + timedelta(days=1), last=False)
        for name, numbers in sorted(recount.numbers.items()):
            expected = before.get(name, -1) + 1
            if numbers.first != expected:
                self._findings.add("hole", name, f"begins with frame {numbers.first}, expected {expected}")
            if name in after and after[name] != numbers.last + 1:
                self._findings.add(
                    "hole", name, f"ends with frame {numbers.last}, the next day begins with {after[name]}"
                )
            for said in spans(numbers.holes()):
                self._findings.add("hole", name, said)
        for name in sorted((before.keys() & after.keys()) - recount.numbers.keys()):
            if after[name] != before[name] + 1:
                self._findings.add("hole", name, f"frames {before[name] + 1} to {after[name] - 1} are missing")
        self._findings.counts["connections"] = len(recount.numbers)

    async def _neighbour(self, day: date, last: bool) -> dict[str, int]:
        """The last (or first) frame number of each connection on the day before (or after)."""
        found: dict[str, int] = {}
        try:
            manifests = await raw_manifests(self._storage, self._raw, self._feed, day)
        except DataError as error:
            self._findings.checks["seam"] = f"not run: {error.message}"
            return {}
        self._findings.checks.setdefault("seam", RAN)
        for manifest in manifests.values():
            for name, numbers in manifest.connections.items():
                found[name] = (
                    max(numbers.last_n, found.get(name, -1)) if last else min(numbers.first_n, found.get(name, 1 << 80))
                )
        return found

    async def _verify_gaps(self) -> None:
        try:
            self._gaps = await read_gaps(self._storage, self._raw, self._feed, self._day)
        except DataError as error:
            self._findings.add("gap", layout.gaps_prefix(self._feed, self._day), error.message)
        for its, gap in self._gaps.items():
            named = (gap.feed, gap.to_ns, gap.connection or layout.NO_CONNECTION)
            if named != (its.feed, its.received_ns, its.connection) or gap.from_ns > gap.to_ns:
                self._findings.add("gap", its.key, f"does not hold the gap that its key names: {gap}")
        self._findings.counts["gaps"] = len(self._gaps)

    async def _verify_handovers(self) -> Overlap | None:
        """The records of handovers; what is to be looked at in the events of a day that has some."""
        gaps = list(self._gaps.values())
        with suppress(DataError):  # the next day's verification says so
            gaps += (await read_gaps(self._storage, self._raw, self._feed, self._day + timedelta(days=1))).values()
        frames = Frames(self._counted.numbers, self._before, gaps)
        return await verify_handovers(
            self._storage, self._raw, self._feed, self._day, frames, self._findings, closed=self._closed
        )

    # -- normalized ---------------------------------------------------------------------------------------------

    async def _verify_normalized(self, event_type: str) -> None:
        prefix = layout.normalized_day_prefix(self._feed, event_type, self._day)
        objects: list[SegmentObject | TickerObject] = []
        manifests: set[SegmentObject | TickerObject] = set()
        for entry in await self._storage.list(self._normalized, prefix):
            if entry.key.startswith(f"{prefix}_manifest/") and entry.key.endswith(".json"):
                manifests.update(self._parsed(layout.parse_normalized_manifest, entry.key))
            else:
                objects += self._parsed(layout.parse_normalized, entry.key)
        recount = Recount(self._storage, self._normalized, self._day, self._findings)
        for its in sorted(objects, key=lambda found: found.key):
            counting = partial(recount.normalized, its)
            record = await self._recounted(self._normalized, its, its in manifests, recount, counting)
            if record is not None:
                self._normalized_records.append(record)
        self._missing_objects(manifests - set(objects))
        segments = [its for its in objects if isinstance(its, SegmentObject)]
        self._verify_overlap(segments)
        self._segments += segments
        self._findings.counts["normalized_objects"] += len(objects)
        self._findings.counts["normalized_records"] = sum(record.records for record in self._normalized_records)
        self._findings.checks["normalized"] = self._findings.ran

    def _verify_overlap(self, segments: Sequence[SegmentObject]) -> None:
        """No sequence number of a stream is in two segments of one type and day."""
        reached: dict[str, int] = defaultdict(int)
        for its in sorted(segments):
            if its.first_seq <= reached[its.stream]:
                self._findings.add("overlap", its.key, f"another segment reaches {reached[its.stream]}")
            reached[its.stream] = max(reached[its.stream], its.last_seq)


def _record(bucket: str, its: DataObject, counted: Recounted, manifest: Manifest | None) -> ObjectRecord:
    """The row that an object should have, from what was counted.

    Of a damaged object the manifest is asked for what could not be counted: that it is damaged is told, and told once.
    """
    raw = isinstance(its, RawObject)
    told = counted if counted.whole or manifest is None else manifest
    return ObjectRecord(
        bucket=bucket,
        key=its.key,
        data_type="raw" if raw else "normalized",
        group=its.group if isinstance(its, RawObject) else its.type,
        day=its.day,
        sha256=counted.measured.sha256,
        bytes=counted.measured.bytes,
        records=told.records,
        first_ns=told.first_ns,
        last_ns=told.last_ns,
        schema_version=None if raw else layout.SCHEMA_VERSION,
        symbols=None if raw else told.symbols,
        writer_version=manifest.writer_version if manifest is not None else "",
    )
