"""Read one date back from the archive: frames in the order of each connection, strictly checked, in bounded memory."""

import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import date

import msgspec
import structlog

from ssmd.archive import layout
from ssmd.archive.frames import Compressed, Decompressor
from ssmd.archive.layout import GapObject, RawObject, SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest, raw_manifests
from ssmd.archive.segments import symbol_of
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.wire.layout import message_end
from ssmd.wire.normalized import decode
from ssmd.wire.raw import RawRecord, parse_line

MAX_LINE_BYTES = 48 << 20
_HINT = "Run: ssmd data verify"

log = structlog.get_logger(component="archive")


async def stream_contents(
    storage: Storage, bucket: str, key: str, expected: Manifest | None = None
) -> AsyncIterator[bytes]:
    """The contents of an object's zstd frames.

    DataError naming the object for a truncated or damaged frame and, at its end, when it is not what `expected` says.
    """
    reader = Decompressor(f"{bucket}/{key}")
    async for chunk in storage.stream(bucket, key):
        for content in reader.feed(chunk):
            yield content
    reader.finish()
    if expected is not None:
        told = Compressed(expected.sha256, expected.bytes, expected.zstd_frames, expected.raw_bytes)
        if reader.counted != told:
            raise DataError(f"{bucket}/{key} is not what its manifest says: {reader.counted}, not {told}", _HINT)


async def read_lines(
    storage: Storage, bucket: str, key: str, expected: Manifest | None = None
) -> AsyncIterator[list[bytes]]:
    """The lines of a raw object, without their line ends, some at a time; errors as `stream_contents`."""
    rest = b""
    async for content in stream_contents(storage, bucket, key, expected):
        lines = (rest + content).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{bucket}/{key} has a line of more than {MAX_LINE_BYTES} bytes")
        yield lines
    if rest:
        raise DataError(f"{bucket}/{key} ends within a line")


async def read_messages(
    storage: Storage, bucket: str, key: str, expected: Manifest | None = None
) -> AsyncIterator[list[bytes]]:
    """The Cap'n Proto messages of a normalized object, some at a time; errors as `stream_contents`."""
    rest = b""
    async for content in stream_contents(storage, bucket, key, expected):
        messages, rest = cut_messages(rest + content)
        yield messages
    if rest:
        raise DataError(f"{bucket}/{key} ends within a message")


def cut_messages(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages that `data` begins with, and the rest; DataError when the rest is longer than any message."""
    messages, start = [], 0
    try:
        while start < len(data):
            end = message_end(data, start)
            messages.append(data[start:end])
            start = end
    except DataError:
        if len(data) - start > MAX_LINE_BYTES:
            raise
    return messages, data[start:]


class _Source:
    """One raw object being read; `records` are those parsed and not yet taken, the next one last."""

    def __init__(self, storage: Storage, bucket: str, its: RawObject, manifest: Manifest) -> None:
        self.name = f"{bucket}/{its.key}"
        self.connections = manifest.connections.keys()
        self.records: list[RawRecord] = []
        self._told = manifest.records
        self._lines = read_lines(storage, bucket, its.key, manifest)
        self._count = 0

    async def read(self) -> RawRecord | None:
        """Read on; the next record, None at the end. DataError when the object is not what its manifest says."""
        async for lines in self._lines:
            self._count += len(lines)
            self.records = [self._parse(line) for line in reversed(lines)]
            if self.records:
                return self.records.pop()
        if self._count != self._told:
            raise DataError(f"{self.name} has {self._count} records, its manifest says {self._told}", _HINT)
        return None

    def _parse(self, line: bytes) -> RawRecord:
        try:
            return parse_line(line)
        except DataError as error:
            raise DataError(f"{self.name}: {error.message}", _HINT) from error


class _Merge:
    """Records of many objects in one order: by receive time, but never against the count of a connection.

    A record may come when it is the next of its connection. An object is opened when the next record of one of its
    connections must be in it, so few are open at a time. `wanted` connections only, when given.
    """

    def __init__(
        self,
        storage: Storage,
        bucket: str,
        manifests: Mapping[RawObject, Manifest],
        wanted: Collection[str] | None,
    ) -> None:
        self._storage = storage
        self._bucket = bucket
        self._wanted = wanted
        self._next: dict[str, int] = {}
        self._ready: list[tuple[int, str, int, int, RawRecord, _Source]] = []
        self._parked: dict[tuple[str, int], list[tuple[RawRecord, _Source]]] = defaultdict(list)
        self._closed: dict[tuple[str, int], list[RawObject]] = defaultdict(list)
        self._pending: dict[RawObject, Manifest] = {}
        self._pushes = 0
        for its, manifest in manifests.items():
            for connection, numbers in manifest.connections.items():
                if wanted is None or connection in wanted:
                    self._pending[its] = manifest
                    self._closed[connection, numbers.first_n].append(its)
                    self._next[connection] = min(self._next.get(connection, numbers.first_n), numbers.first_n)

    async def records(self) -> AsyncIterator[RawRecord]:
        """All records."""
        for at in list(self._next.items()):
            await self._admit(at)
        ready, parked, closed = self._ready, self._parked, self._closed
        while ready or await self._skip_hole():
            record, source = heapq.heappop(ready)[-2:]
            if record.n != self._next[record.connection]:
                raise DataError(f"{source.name}: frame {record.n} of {record.connection} is there twice", _HINT)
            yield record
            at = record.connection, record.n + 1
            self._next[record.connection] = record.n + 1
            await self._pull(source)
            if at in parked or at in closed:
                await self._admit(at)

    async def _admit(self, at: tuple[str, int]) -> None:
        """A connection has come to the frame `at`: (connection, n)."""
        for its in self._closed.pop(at, ()):
            if (manifest := self._pending.pop(its, None)) is not None:
                await self._pull(_Source(self._storage, self._bucket, its, manifest))
        for record, source in self._parked.pop(at, ()):
            self._push(record, source)

    async def _pull(self, source: _Source) -> None:
        """Take the next record of `source`: ready when its connection has come to it, else parked."""
        while True:
            record = source.records.pop() if source.records else await source.read()
            if record is None:
                return
            if self._wanted is None or record.connection in self._wanted:
                break
        if record.connection not in source.connections:
            raise DataError(f"{source.name} holds {record.connection}, which its manifest does not name", _HINT)
        if record.n == self._next[record.connection]:
            self._push(record, source)
        else:
            self._parked[record.connection, record.n].append((record, source))

    def _push(self, record: RawRecord, source: _Source) -> None:
        self._pushes += 1
        heapq.heappush(self._ready, (record.received_ns, record.connection, record.n, self._pushes, record, source))

    async def _skip_hole(self) -> bool:
        """Nothing is next: frames are missing or repeated. False when nothing is left."""
        found = [(items[0][0].received_ns, *at) for at, items in self._parked.items()]
        for at, objects in self._closed.items():
            found += [(self._pending[its].first_ns, *at) for its in objects if its in self._pending]
        if not found:
            return False
        _, connection, n = min(found)
        expected = self._next[connection]
        if n < expected:
            raise DataError(f"{self._bucket}: frame {n} of {connection} is there twice", _HINT)
        log.warning("frames missing", bucket=self._bucket, connection=connection, first_n=expected, next_n=n)
        self._next[connection] = n
        await self._admit((connection, n))
        return True


async def read_raw_day(
    storage: Storage, bucket: str, feed: str, day: date, connections: Collection[str] | None = None
) -> AsyncIterator[RawRecord]:
    """All frames received on a UTC day, or those of some connections, merged over groups and shards.

    Per connection in the order of `n`; connections interleave by receive time. DataError naming the object for one
    without manifest, a truncated frame, a wrong sha256 or count, or a repeated `n`; frames that are missing are logged
    and skipped (`ssmd data verify` finds them).
    """
    manifests = await raw_manifests(storage, bucket, feed, day)
    await _require_manifests(storage, bucket, feed, day, manifests)
    async for record in _Merge(storage, bucket, manifests, connections).records():
        yield record


async def _require_manifests(
    storage: Storage, bucket: str, feed: str, day: date, manifests: Mapping[RawObject, Manifest]
) -> None:
    prefix = layout.raw_day_prefix(feed, day)
    described = {its.key for its in manifests}
    stored = {
        entry.key
        for entry in await storage.list(bucket, prefix)
        if not entry.key.startswith((f"{prefix}_manifest/", f"{prefix}_gaps/"))
    }
    for key in sorted(stored ^ described):
        what = "has no manifest" if key in stored else "is missing, only its manifest is there"
        raise DataError(f"{bucket}/{key} {what}", _HINT)


async def read_gaps(storage: Storage, bucket: str, feed: str, day: date) -> dict[GapObject, Gap]:
    """The recorded gaps that ended on a day, by their object; DataError for an object that is no gap."""
    found: dict[GapObject, Gap] = {}
    for entry in await storage.list(bucket, layout.gaps_prefix(feed, day)):
        its = layout.parse_gap(entry.key)
        try:
            found[its] = msgspec.json.decode(await storage.get(bucket, entry.key), type=Gap)
        except msgspec.MsgspecError as error:
            raise DataError(f"{bucket}/{entry.key} is not a gap ({error})") from error
    return found


async def normalized_objects(
    storage: Storage, bucket: str, feed: str, event_type: str, day: date
) -> tuple[list[TickerObject], list[SegmentObject]]:
    """The compacted objects and the segments of an event type and day, sorted; DataError for a stray."""
    tickers: list[TickerObject] = []
    segments: list[SegmentObject] = []
    prefix = layout.normalized_day_prefix(feed, event_type, day)
    for entry in await storage.list(bucket, prefix):
        if entry.key.startswith(f"{prefix}_manifest/") and entry.key.endswith(".json"):
            continue
        its = layout.parse_normalized(entry.key)
        if isinstance(its, TickerObject):
            tickers.append(its)
        else:
            segments.append(its)
    return sorted(tickers), sorted(segments)


async def read_normalized(
    storage: Storage, bucket: str, feed: str, event_type: str, day: date, ticker: str | None = None
) -> AsyncIterator[bytes]:
    """The messages of an event type and day, of all tickers or one (of gaps: one connection).

    From the compacted objects, ticker by ticker; a day that is not compacted is read from its segments, in stream
    order. Errors as `stream_contents`.
    """
    tickers, segments = await normalized_objects(storage, bucket, feed, event_type, day)
    chosen = [its for its in tickers if ticker is None or its.ticker == ticker] if tickers else segments
    for its in chosen:
        async for messages in read_messages(storage, bucket, its.key):
            for message in messages:
                if ticker is None or tickers or symbol_of(decode(event_type, message)) == ticker:
                    yield message
