"""One market's trades out of the archive: the day's objects that can hold them, read in bounded pieces beside the loop.

A compacted day is one small object of the ticker. A day that is not has segments with all tickers: those whose receive
times fit are read. What cannot be read is a finding with its time, never an error of the whole answer.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import structlog

from ssmd.archive import layout
from ssmd.archive.frames import Compressed, Decompressor
from ssmd.archive.layout import SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest, read_manifest
from ssmd.archive.reader import cut_messages
from ssmd.clock import NS_PER_DAY, NS_PER_S, day_of, day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import Trade
from ssmd.middleware.storage.interface import ObjectInfo, ObjectMissing, Storage
from ssmd.wire.layout import message_end
from ssmd.wire.normalized import decode

AHEAD_NS = 60 * NS_PER_S
LATE_NS = 600 * NS_PER_S
"""An exchange's time of a trade that lies further after, or before, its receive time is not believed."""

SCAN_BYTES = 64 << 20
SCAN_CONTENT = 1 << 30
SCAN_OBJECTS = 2_000
MATCHES = 200_000
"""What one request may read: stored bytes, bytes of content, objects, and trades of its market."""

COMPUTING = 1
DOWNLOADS = 3
MANIFESTS_AT_ONCE = 16
MANIFESTS_KEPT = 10_000

TYPE = "trade"
NO_TICKER = "_"
MISSING, DAMAGED = "archive_object_missing", "archive_object_damaged"

log = structlog.get_logger()


class Source(NamedTuple):
    """An object that may hold trades, received from `first_ns` to `last_ns`; `told`: what its manifest says of it."""

    key: str
    bytes: int
    first_ns: int
    last_ns: int
    told: Compressed | None


class Day(NamedTuple):
    """The objects of one day; `through_ns` is the receive time of the last segment's last trade (0: no segment)."""

    sources: list[Source]
    through_ns: int


class Hole(NamedTuple):
    """Times of which trades may be missing, and why."""

    from_ns: int
    to_ns: int
    reason: str


class Step(NamedTuple):
    """Some trades. Whatever comes later is from `frontier_ns` on, or when newest come first, at or before it."""

    trades: list[Trade]
    frontier_ns: int


class _Span(NamedTuple):
    """Times of trades (`end_ns` not included), and the receive times that they can have (both included)."""

    start_ns: int
    end_ns: int
    first_ns: int
    last_ns: int
    newest_first: bool


class Walk:
    """What one request has read; `exhausted`: it may read no more, and has not seen everything."""

    def __init__(self) -> None:
        self.bytes = 0
        self.content = 0
        self.objects = 0
        self.matches = 0
        self.exhausted = False
        self.holes: list[Hole] = []
        self.empty: set[date] = set()  # days of which the archive has nothing about the market

    def fitting(self, sources: Sequence[Source]) -> int:
        """How many of the first `sources` may still be read."""
        size, content, count = self.bytes, self.content, 0
        for source in sources:
            size += source.bytes
            content += source.told.raw_bytes if source.told else 0
            if size > SCAN_BYTES or content > SCAN_CONTENT or self.objects + count >= SCAN_OBJECTS:
                break
            count += 1
        return 0 if self.matches >= MATCHES else count


class ArchivedTrades:
    """Reads the normalized bucket of one feed; StorageUnavailable when the storage is away."""

    def __init__(self, feed: str, storage: Storage, bucket: str) -> None:
        self._feed = feed
        self._storage = storage
        self._bucket = bucket
        self._segments: OrderedDict[str, Source] = OrderedDict()  # a segment never changes
        self._computing = asyncio.Semaphore(COMPUTING)
        self._asking = asyncio.Semaphore(MANIFESTS_AT_ONCE)

    async def steps(
        self, ticker: str, start_ns: int, end_ns: int, received_before_ns: int, walk: Walk, *, newest_first: bool
    ) -> AsyncGenerator[Step, None]:
        """The trades with a time from `start_ns` to before `end_ns`, some at a time; each may come more than once.

        Objects with what was received at `received_before_ns` or later only are left out. Ends when everything was
        read or `walk` is exhausted; the frontier of the last step tells how far it came.
        """
        first, last = max(0, start_ns - AHEAD_NS), min(end_ns + LATE_NS, received_before_ns) - 1
        if first > last:
            return
        days = days_between(first, last)
        span = _Span(start_ns, end_ns, first, last, newest_first)
        for day in reversed(days) if newest_first else days:
            async for step in self._steps_of_day(day, ticker, span, walk):
                yield step
            if walk.exhausted:
                return
            bound = day_start_ns(day) if newest_first else day_start_ns(day) + NS_PER_DAY
            yield Step([], _frontier([], bound, newest_first))

    async def _steps_of_day(self, day: date, ticker: str, span: _Span, walk: Walk) -> AsyncGenerator[Step, None]:
        known = len(walk.holes)
        for attempt in range(2):
            walk.objects += 1
            sources = (await self.day(day, ticker)).sources
            if not sources:
                walk.empty.add(day)
            wanted = [its for its in sources if its.first_ns <= span.last_ns and its.last_ns >= span.first_ns]
            wanted.sort(key=lambda its: -its.last_ns if span.newest_first else its.first_ns)
            bound = day_start_ns(day) if span.newest_first else day_start_ns(day) + NS_PER_DAY
            while wanted:
                count = min(walk.fitting(wanted), DOWNLOADS)
                if not count:
                    walk.exhausted = True
                    return
                read = await self._read_all(wanted[:count], ticker, span, walk)
                wanted = wanted[count:]
                yield Step(read, _frontier(wanted, bound, span.newest_first))
            if attempt or not any(hole.reason == MISSING for hole in walk.holes[known:]):
                return
            # Compaction put the ticker's own object in the place of segments meanwhile.
            walk.holes[known:] = [hole for hole in walk.holes[known:] if hole.reason != MISSING]

    async def day(self, day: date, ticker: str) -> Day:
        """What a day has that may hold trades of a market."""
        segments = await self._storage.list(self._bucket, layout.segments_prefix(self._feed, TYPE, day))
        asked = [self._segment(entry, day) for entry in segments]
        own, *found = await asyncio.gather(self._own(day, ticker), *asked)
        sources = [its for its in found if its is not None]
        through = max((its.last_ns for its in sources if its.told is not None), default=0)
        return Day([*sources, own] if own else sources, through)

    async def through(self, today: date) -> int:
        """Receive time up to which trades are archived: what the archiver holds back is newer."""
        for day in (today, today - timedelta(days=1)):
            found = await self.day(day, NO_TICKER)
            if found.through_ns:
                return found.through_ns
        return day_start_ns(today)

    async def _own(self, day: date, ticker: str) -> Source | None:
        """The ticker's own object of a compacted day."""
        its = TickerObject(self._feed, TYPE, day, ticker)
        try:
            return _source(await read_manifest(self._storage, self._bucket, its))
        except ObjectMissing:
            return None
        except DataError as error:
            log.error("manifest not readable", key=its.manifest_key, error=error.message)
            return Source(its.key, SCAN_BYTES // 4, day_start_ns(day), day_start_ns(day) + NS_PER_DAY - 1, None)

    async def _segment(self, entry: ObjectInfo, day: date) -> Source | None:
        if (known := self._segments.get(entry.key)) is not None:
            self._segments.move_to_end(entry.key)
            return known
        try:
            its = layout.parse_normalized(entry.key)
        except DataError as error:
            log.warning("stray object among the segments", key=entry.key, error=error.message)
            return None
        assert isinstance(its, SegmentObject)
        try:
            async with self._asking:
                found = _source(await read_manifest(self._storage, self._bucket, its))
        except DataError as error:  # a crash of the archiver came between the object and its manifest, or it is damaged
            log.warning("segment without a readable manifest", key=entry.key, error=error.message)
            return Source(entry.key, entry.bytes, day_start_ns(day), day_start_ns(day) + NS_PER_DAY - 1, None)
        self._segments[entry.key] = found
        while len(self._segments) > MANIFESTS_KEPT:
            self._segments.popitem(last=False)
        return found

    async def _read_all(self, sources: Sequence[Source], ticker: str, span: _Span, walk: Walk) -> list[Trade]:
        lists = await asyncio.gather(*(self._read(its, ticker, span, walk) for its in sources))
        found = [trade for trades in lists for trade in trades]
        walk.matches += len(found)
        return found

    async def _read(self, its: Source, ticker: str, span: _Span, walk: Walk) -> list[Trade]:
        """The market's trades in one object: all of those that can be read."""
        scan = _Scan(f"{self._bucket}/{its.key}", ticker, span)
        walk.objects += 1
        walk.bytes += its.bytes
        try:
            async for chunk in self._storage.stream(self._bucket, its.key):
                async with self._computing:
                    await asyncio.to_thread(scan.feed, chunk)
            scan.finish(its.told)
        except ObjectMissing:
            walk.holes.append(Hole(its.first_ns, its.last_ns, MISSING))
        except DataError as error:
            log.error("archive object damaged", key=its.key, error=error.message)
            walk.holes.append(Hole(its.first_ns, its.last_ns, DAMAGED))
        walk.content += scan.content
        return scan.found


class _Scan:
    """Picks one market's trades out of an object that passes chunk by chunk."""

    def __init__(self, name: str, ticker: str, span: _Span) -> None:
        self.found: list[Trade] = []
        self.content = 0
        self._name = name
        self._reader = Decompressor(name)
        self._ticker = ticker
        self._bytes = ticker.encode()
        self._start_ns = span.start_ns
        self._end_ns = span.end_ns
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """DataError where the object is damaged."""
        for content in self._reader.feed(chunk):
            self.content += len(content)
            if self.content > SCAN_CONTENT:
                raise DataError(f"{self._name} holds more than {SCAN_CONTENT} bytes")
            if not self._rest and self._bytes not in content:
                continue  # frames are cut between messages
            if self._rest:
                messages, self._rest = cut_messages(self._rest + content)
                for message in messages:
                    self._take(message)
            else:
                self._pick(content)

    def _pick(self, content: bytes) -> None:
        """Take the messages that hold the ticker's bytes; the others are stepped over, not cut out."""
        start, size = 0, len(content)
        hit = content.find(self._bytes)
        try:
            while hit >= 0:
                end = message_end(content, start)
                if hit < end:
                    self._take(content[start:end])
                    hit = content.find(self._bytes, end)
                start = end
        except DataError:
            _, self._rest = cut_messages(content[start:])
            if start < size and not self._rest:
                raise

    def _take(self, message: bytes) -> None:
        trade = decode(TYPE, message)
        assert isinstance(trade, Trade)
        if trade.ticker == self._ticker and self._start_ns <= time_of(trade) < self._end_ns:
            self.found.append(trade)

    def finish(self, told: Compressed | None) -> None:
        """The object has ended; DataError when it was cut off, or is not what its manifest says."""
        self._reader.finish()
        if self._rest:
            raise DataError(f"{self._name} ends within a message")
        if told is not None and self._reader.counted != told:
            raise DataError(f"{self._name} is not what its manifest says")


def time_of(trade: Trade) -> int:
    """Where the trade has its place in time: the exchange's time, or where that cannot be the receive time."""
    told, received = trade.exchange_ns, trade.received_ns
    return told if received - LATE_NS <= told <= received + AHEAD_NS else received


def _source(manifest: Manifest) -> Source:
    told = Compressed(manifest.sha256, manifest.bytes, manifest.zstd_frames, manifest.raw_bytes)
    return Source(manifest.key, manifest.bytes, manifest.first_ns, manifest.last_ns, told)


def days_between(first_ns: int, last_ns: int) -> list[date]:
    """The UTC days from one time to another, both included."""
    first, last = day_of(first_ns), day_of(last_ns)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _frontier(left: Sequence[Source], bound_ns: int, newest_first: bool) -> int:
    """The times of what is still to come on this day and beyond."""
    if newest_first:
        return max(bound_ns, *(its.last_ns for its in left), bound_ns) + AHEAD_NS
    return min(bound_ns, *(its.first_ns for its in left), bound_ns) - LATE_NS
