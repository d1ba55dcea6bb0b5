"""All frames of a day in one order: by receive time, but never against the count of a connection.

Objects are read side by side, each in blocks of whole lines. As long as receive times and counts agree, which is
nearly always, the blocks are cut at a time that all have reached and sorted together. From the first record on where
they do not (a clock that was set back, a frame that is missing or there twice) the rest of the day is merged record
by record; both give the same order.
"""

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import date
from itertools import chain

import structlog

from ssmd.archive import layout
from ssmd.archive.layout import RawObject
from ssmd.archive.manifest import Manifest, raw_manifests
from ssmd.archive.reader import read_line_blocks
from ssmd.errors import DataError
from ssmd.middleware.storage.interface import Storage
from ssmd.wire.raw import Received, parse_lines

_HINT = "Run: ssmd data verify"
_RUN = 1_024  # records given at a time when they are merged one by one

log = structlog.get_logger(component="archive")


async def read_raw_day(
    storage: Storage,
    bucket: str,
    feed: str,
    day: date,
    connections: Collection[str] | None = None,
    on_read: Callable[[int], None] | None = None,
) -> AsyncIterator[list[Received]]:
    """All frames received on a UTC day, or those of some connections, merged over groups and shards; some at a time.

    Per connection in the order of `n`; connections interleave by receive time. `on_read` is told the stored bytes of
    objects as they are read. DataError naming the object for one without manifest, a truncated frame, a wrong sha256
    or count, or a repeated `n`; frames that are missing are logged and skipped (`ssmd data verify` finds them).
    """
    manifests = await raw_manifests(storage, bucket, feed, day)
    await _require_manifests(storage, bucket, feed, day, manifests)
    sources = _Sources(storage, bucket, manifests, connections, on_read)
    async for run in sources.runs():
        yield run
    async for run in _Merge(bucket, sources).runs():
        yield run


class _Source:
    """One raw object being read; `waiting` are the records parsed and not yet taken, in the object's order."""

    def __init__(
        self,
        storage: Storage,
        bucket: str,
        its: RawObject,
        manifest: Manifest,
        wanted: Collection[str] | None,
        on_read: Callable[[int], None] | None,
    ) -> None:
        self.name = f"{bucket}/{its.key}"
        self.waiting: list[Received] = []
        self.ended = False
        self.ordered = True
        self._wanted = wanted
        self._connections = manifest.connections
        self._told = manifest.records
        self._blocks = read_line_blocks(storage, bucket, its.key, manifest, on_read)
        self._count = 0

    async def read(self) -> bool:
        """Read on until more is waiting; False at the end. DataError when the object is not what its manifest says."""
        async for block in self._blocks:
            found = self._parsed(block)
            if not found:
                continue
            last = self.waiting[-1:]
            self.ordered = self.ordered and found == sorted(found) and last <= found[:1]
            self.waiting = self.waiting + found if last else found
            return True
        self.ended = True
        if self._count != self._told:
            raise DataError(f"{self.name} has {self._count} records, its manifest says {self._told}", _HINT)
        return False

    def may_hold(self, connection: str, first_n: int, end_n: int) -> bool:
        """Whether one of these frames may still come; read on to know."""
        numbers = self._connections.get(connection)
        left = self.waiting or not self.ended
        return bool(left and numbers and numbers.first_n < end_n and numbers.last_n >= first_n)

    def _parsed(self, block: bytes) -> list[Received]:
        try:
            found = parse_lines(block)
        except DataError as error:
            raise DataError(f"{self.name}: {error.message}", _HINT) from error
        self._count += len(found)
        names = {record[1] for record in found}
        if not names <= self._connections.keys():
            stranger = min(names - self._connections.keys())
            raise DataError(f"{self.name} holds {stranger}, which its manifest does not name", _HINT)
        wanted = self._wanted
        if wanted is None or names <= set(wanted):
            return found
        return [record for record in found if record[1] in wanted]


class _Sources:
    """The objects of a day: `pending` ones, those that are `open`, and the `next` count of each connection.

    `runs` ends at the end of the day or where times and counts disagree; what is not given then is still waiting.
    """

    def __init__(
        self,
        storage: Storage,
        bucket: str,
        manifests: Mapping[RawObject, Manifest],
        wanted: Collection[str] | None,
        on_read: Callable[[int], None] | None,
    ) -> None:
        self._storage = storage
        self._bucket = bucket
        self._wanted = wanted
        self._on_read = on_read
        self.open: list[_Source] = []
        self.next: dict[str, int] = {}
        self.pending: dict[RawObject, Manifest] = {}
        for its, manifest in sorted(manifests.items(), key=lambda item: (-item[1].first_ns, item[0])):
            for connection, numbers in manifest.connections.items():
                if wanted is None or connection in wanted:
                    self.pending[its] = manifest  # the earliest last
                    self.next[connection] = min(self.next.get(connection, numbers.first_n), numbers.first_n)

    def start(self, its: RawObject) -> _Source:
        """Open a pending object."""
        return _Source(self._storage, self._bucket, its, self.pending.pop(its), self._wanted, self._on_read)

    async def runs(self) -> AsyncIterator[list[Received]]:
        """The records in order, as far as that is plain."""
        while True:
            limit = await self._limit()
            if not self.open or not all(source.ordered for source in self.open):
                return
            ends = [_before(source, limit) for source in self.open]
            parts = [source.waiting[:end] for source, end in zip(self.open, ends, strict=True) if end]
            run = parts[0] if len(parts) == 1 else sorted(chain.from_iterable(parts))
            if run and not self._follows(run):
                return
            for source, end in zip(self.open, ends, strict=True):
                source.waiting = source.waiting[end:]
            if run:
                yield run
            else:  # all that is waiting came at one time, and more of it may follow
                await self._read_beyond(limit)

    async def _limit(self) -> int | None:
        """The time before which no object has anything that is not waiting; opens and reads what that takes."""
        for source in self.open:
            if not source.waiting and not source.ended:
                await source.read()
        while True:
            self.open = [source for source in self.open if source.waiting]
            limit = min((source.waiting[-1][0] for source in self.open if not source.ended), default=None)
            if not self.pending:
                return limit
            its, manifest = next(reversed(self.pending.items()))
            if limit is not None and manifest.first_ns >= limit:
                return limit
            opened = self.start(its)
            if await opened.read():
                self.open.append(opened)

    async def _read_beyond(self, limit: int | None) -> None:
        for source in self.open:
            if source.waiting[-1][0] == limit and not source.ended:
                await source.read()

    def _follows(self, run: Sequence[Received]) -> bool:
        """Whether each connection goes on where it was; `next` then says where each is after the run."""
        following = dict(self.next)
        for _, connection, n, _ in run:
            if n != following[connection]:
                return False
            following[connection] = n + 1
        self.next = following
        return True


def _before(source: _Source, limit: int | None) -> int:
    """How many of the waiting records came before `limit`."""
    return len(source.waiting) if limit is None else bisect_left(source.waiting, limit, key=lambda record: record[0])


class _Merge:
    """The records that `sources` has not given, one by one.

    A record may come when it is the next of its connection. An object is opened when the next record of one of its
    connections must be in it, so few are open at a time; it is read on when its last one is given, or to see whether
    a frame is missing or stands behind one that waits for another connection.
    """

    def __init__(self, bucket: str, sources: _Sources) -> None:
        self._bucket = bucket
        self._sources = sources
        self._next = sources.next
        self._ready: list[tuple[int, str, int, int, Received, _Source]] = []
        self._parked: dict[tuple[str, int], list[tuple[Received, _Source]]] = defaultdict(list)
        self._closed: dict[tuple[str, int], list[RawObject]] = defaultdict(list)
        self._pushes = 0

    async def runs(self) -> AsyncIterator[list[Received]]:
        """The records in order."""
        run: list[Received] = []
        async for record in self._records():
            run.append(record)
            if len(run) == _RUN:
                yield run
                run = []
        if run:
            yield run

    async def _records(self) -> AsyncIterator[Received]:
        await self._begin()
        ready, parked, closed = self._ready, self._parked, self._closed
        while ready or await self._skip_hole():
            if not ready:  # what was there is not what a manifest said
                continue
            record, source = heapq.heappop(ready)[-2:]
            _, connection, n, _ = record
            if n != self._next[connection]:
                raise DataError(f"{source.name}: frame {n} of {connection} is there twice", _HINT)
            yield record
            at = connection, n + 1
            self._next[connection] = n + 1
            await self._pull(source)
            if at in parked or at in closed:
                await self._admit(at)

    async def _begin(self) -> None:
        for its, manifest in sorted(self._sources.pending.items()):
            for connection, numbers in manifest.connections.items():
                if connection in self._next:
                    self._closed[connection, numbers.first_n].append(its)
        for source in self._sources.open:
            source.waiting.reverse()
            await self._pull(source)
        for at in list(self._next.items()):
            await self._admit(at)

    async def _admit(self, at: tuple[str, int]) -> None:
        """A connection has come to the frame `at`: (connection, n)."""
        for its in self._closed.pop(at, ()):
            if its in self._sources.pending:
                await self._pull(self._sources.start(its))
        for record, source in self._parked.pop(at, ()):
            self._push(record, source)

    async def _pull(self, source: _Source) -> None:
        """Take the next record of `source`: ready when its connection has come to it, else parked."""
        if not source.waiting:
            if not await source.read():
                return
            source.waiting.reverse()
        record = source.waiting.pop()
        _, connection, n, _ = record
        if n == self._next[connection]:
            self._push(record, source)
        else:
            self._parked[connection, n].append((record, source))

    def _push(self, record: Received, source: _Source) -> None:
        self._pushes += 1
        heapq.heappush(self._ready, (*record[:3], self._pushes, record, source))

    async def _skip_hole(self) -> bool:
        """Nothing is next: frames are missing or repeated. False when nothing is left."""
        pending = self._sources.pending
        nearest: dict[str, tuple[int, int]] = {}  # the lowest count of each connection, and a time for it
        for (connection, n), items in self._parked.items():
            nearest[connection] = min(nearest.get(connection, (n, items[0][0][0])), (n, items[0][0][0]))
        for (connection, n), objects in self._closed.items():
            for its in objects:
                if its in pending:
                    at = n, pending[its].first_ns
                    nearest[connection] = min(nearest.get(connection, at), at)
        if not nearest:
            return False
        _, connection, n = min((received_ns, name, n) for name, (n, received_ns) in nearest.items())
        expected = self._next[connection]
        if n < expected:
            raise DataError(f"{self._bucket}: frame {n} of {connection} is there twice", _HINT)
        if await self._look_behind(connection, expected, n):
            return True
        log.warning("frames missing", bucket=self._bucket, connection=connection, first_n=expected, next_n=n)
        self._next[connection] = n
        await self._admit((connection, n))
        return True

    async def _look_behind(self, connection: str, first_n: int, end_n: int) -> bool:
        """Take one record more of an object in which frames may stand behind another connection's that is parked."""
        behind: dict[_Source, bool] = {}
        for (parked, _), items in self._parked.items():
            for _, source in items:
                behind[source] = behind.get(source, True) and parked != connection
        for source, unknown in behind.items():
            if unknown and source.may_hold(connection, first_n, end_n):
                await self._pull(source)
                return True
        return False


async def _require_manifests(
    storage: Storage, bucket: str, feed: str, day: date, manifests: Mapping[RawObject, Manifest]
) -> None:
    prefix = layout.raw_day_prefix(feed, day)
    described = {its.key for its in manifests}
    stored = {entry.key for entry in await storage.list(bucket, prefix) if layout.belongs(layout.parse_raw, entry.key)}
    for key in sorted(stored ^ described):
        what = "has no manifest" if key in stored else "is missing, only its manifest is there"
        raise DataError(f"{bucket}/{key} {what}", _HINT)
