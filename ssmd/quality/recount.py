"""Count one object again from its bytes, without trusting who wrote it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import date

import msgspec

from ssmd.archive.frames import Compressed, Decompressor
from ssmd.archive.layout import DataObject, RawObject, SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest, Range
from ssmd.archive.segments import symbol_of
from ssmd.clock import NS_PER_DAY, day_start_ns, iso
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.quality.findings import Findings
from ssmd.wire.layout import message_end
from ssmd.wire.normalized import decode
from ssmd.wire.raw import parse_line

_PAGE = 1 << 16
_MAX_TYPES = 1_000
_NEAR = 256


class Recounted(msgspec.Struct):
    """What an object really holds; `content` is the sha256 of its uncompressed content, `whole`: all of it was read."""

    measured: Compressed
    content: str = ""
    whole: bool = True
    records: int = 0
    first_ns: int = 0
    last_ns: int = 0
    connections: dict[str, Range] = msgspec.field(default_factory=dict)
    symbols: int = 0


class Numbers:
    """Which frame numbers of one connection were seen: a byte each, in pages; and when the first and last came."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self.first = 1 << 80
        self.last = -1
        self.first_ns = 1 << 64
        self.last_ns = 0

    def add(self, n: int) -> bool:
        """False when `n` was there already."""
        page = self._pages.get(n // _PAGE)
        if page is None:
            page = self._pages[n // _PAGE] = bytearray(_PAGE)
        if page[n % _PAGE]:
            return False
        page[n % _PAGE] = 1
        if n < self.first:
            self.first = n
        if n > self.last:
            self.last = n
        return True

    def holes(self) -> Iterator[tuple[int, int]]:
        """(first, last) of each run of numbers that is missing between the first and the last seen."""
        expected = self.first
        for start, end in self._runs():
            if start > expected:
                yield expected, start - 1
            expected = end + 1

    def _runs(self) -> Iterator[tuple[int, int]]:
        """(first, last) of runs seen; runs that touch may come in parts."""
        for number in sorted(self._pages):
            page, at = self._pages[number], 0
            while (start := page.find(1, at)) >= 0:
                end = page.find(0, start)
                at = _PAGE if end < 0 else end
                yield number * _PAGE + start, number * _PAGE + at - 1


def spans(holes: Iterable[tuple[int, int]]) -> Iterator[str]:
    """What is missing, in few words: holes that lie close together (an object's frames between others') are one."""
    start, end, missing, parts = 0, -1, 0, 0
    for first, last in holes:
        if parts and first - end > _NEAR:
            yield _span(start, end, missing, parts)
            missing = parts = 0
        if not parts:
            start = first
        end, missing, parts = last, missing + last - first + 1, parts + 1
    if parts:
        yield _span(start, end, missing, parts)


def _span(first: int, last: int, missing: int, parts: int) -> str:
    if first == last:
        return f"frame {first} is missing"
    if parts == 1:
        return f"frames {first} to {last} are missing"
    return f"{missing:,} of the frames {first} to {last} are missing"


class Recount:
    """Counts the objects of one day; what is wrong goes to `findings`."""

    def __init__(self, storage: Storage, bucket: str, day: date, findings: Findings) -> None:
        self._storage = storage
        self._bucket = bucket
        self._start_ns = day_start_ns(day)
        self._findings = findings
        self.numbers: dict[str, Numbers] = defaultdict(Numbers)
        self.types: Counter[str] = Counter()
        """Frames of raw by the exchange's word for their kind."""

    async def raw(self, its: RawObject) -> Recounted:
        """Read every line of a raw object."""
        counted = Recounted(Compressed("", 0, 0, 0))
        ranges: dict[str, list[int]] = {}
        rest = b""
        async for content in self._contents(its, counted):
            lines = (rest + content).split(b"\n")
            rest = lines.pop()
            for line in lines:
                self._line(its, line, counted, ranges)
        if rest:
            self._findings.add("line", its.key, f"ends within a line: {rest[:80]!r}")
        counted.connections = {name: Range(first, last) for name, (first, last) in ranges.items()}
        return counted

    def _line(self, its: RawObject, line: bytes, counted: Recounted, ranges: dict[str, list[int]]) -> None:
        try:
            record = parse_line(line)
        except DataError as error:
            self._findings.add("line", its.key, f"line {counted.records + 1}: {error.message}")
            return
        name, n, ns = record.connection, record.n, record.received_ns
        if len(self.types) < _MAX_TYPES or record.type in self.types:
            self.types[record.type] += 1
        numbers = self.numbers[name]
        if ns < numbers.first_ns:
            numbers.first_ns = ns
        if ns > numbers.last_ns:
            numbers.last_ns = ns
        if not numbers.add(n):
            self._findings.add("repeat", its.key, f"frame {n} of {name} is in the archive already")
        known = ranges.get(name)
        if known is None:
            ranges[name] = [n, n]
        elif n <= known[1]:
            self._findings.add("order", its.key, f"frame {n} of {name} comes after frame {known[1]}")
        else:
            known[1] = n
        self._time(its, ns, counted)

    async def normalized(self, its: SegmentObject | TickerObject) -> Recounted:
        """Read and decode every message of a normalized object."""
        counted = Recounted(Compressed("", 0, 0, 0))
        symbols: set[str] = set()
        async for data in self._contents(its, counted):
            start = 0
            while start < len(data):
                try:
                    end = message_end(data, start)
                    event = decode(its.type, data[start:end])
                except DataError as error:
                    self._findings.add("message", its.key, f"message {counted.records + 1}: {error.message}")
                    counted.whole = False
                    break
                start = end
                symbols.add(symbol_of(event))
                self._time(its, event.to_ns if isinstance(event, Gap) else event.received_ns, counted)
        counted.symbols = len(symbols)
        if isinstance(its, TickerObject) and symbols - {its.ticker}:
            self._findings.add("ticker", its.key, f"holds events of {sorted(symbols - {its.ticker})[:5]}")
        return counted

    async def unread(self, its: TickerObject, manifest: Manifest) -> Recounted:
        """The object's bytes against its manifest, its messages not looked at: they are what the manifest says."""
        counted = Recounted(Compressed("", 0, 0, 0))
        async for _ in self._contents(its, counted):
            pass
        counted.records, counted.symbols = manifest.records, manifest.symbols or 0
        counted.first_ns, counted.last_ns = manifest.first_ns, manifest.last_ns
        return counted

    def _time(self, its: DataObject, ns: int, counted: Recounted) -> None:
        if not 0 <= ns - self._start_ns < NS_PER_DAY:
            self._findings.add("day", its.key, f"record {counted.records + 1} was received at {iso(ns)}")
        counted.first_ns = min(ns, counted.first_ns) if counted.records else ns
        counted.last_ns = max(ns, counted.last_ns)
        counted.records += 1

    async def _contents(self, its: DataObject, counted: Recounted) -> AsyncIterator[bytes]:
        """The contents of the object's frames; a damaged one ends it with a finding."""
        reader = Decompressor(its.key)
        content_digest = hashlib.sha256()
        whole = hashlib.sha256()
        size = 0
        chunks = self._storage.stream(self._bucket, its.key)
        async for chunk in chunks:
            whole.update(chunk)
            size += len(chunk)
            if not counted.whole:
                continue  # the sha256 is still wanted
            try:
                contents = reader.feed(chunk)
            except DataError as error:
                self._findings.add("frame", its.key, error.message)
                counted.whole = False
                continue
            for content in contents:
                content_digest.update(content)
                yield content
        if counted.whole:
            try:
                reader.finish()
            except DataError as error:
                self._findings.add("frame", its.key, error.message)
                counted.whole = False
        counted.measured = Compressed(whole.hexdigest(), size, reader.counted.frames, reader.counted.raw_bytes)
        counted.content = content_digest.hexdigest()

    def against_manifest(self, its: DataObject, counted: Recounted, manifest: Manifest) -> None:
        """Findings where the manifest says something else than the recount."""
        key = its.key
        if (manifest.sha256, manifest.bytes) != (counted.measured.sha256, counted.measured.bytes):
            self._findings.add(
                "sha256",
                key,
                f"has sha256 {counted.measured.sha256} and {counted.measured.bytes} bytes, "
                f"its manifest says {manifest.sha256} and {manifest.bytes}",
            )
        if not counted.whole:
            return
        told = {
            "records": (manifest.records, counted.records),
            "first_ns": (manifest.first_ns, counted.first_ns),
            "last_ns": (manifest.last_ns, counted.last_ns),
            "zstd_frames": (manifest.zstd_frames, counted.measured.frames),
            "raw_bytes": (manifest.raw_bytes, counted.measured.raw_bytes),
        }
        if isinstance(its, RawObject):
            told["connections"] = (manifest.connections, counted.connections)  # type: ignore[assignment]
        else:
            told["symbols"] = (manifest.symbols or 0, counted.symbols)
        for name, (said, found) in told.items():
            if said != found:
                self._findings.add("count", key, f"{name} is {found}, its manifest says {said}")
