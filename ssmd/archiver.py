"""The archiver: the live stream into segments of the normalized archive, each message once, acknowledged when durable.

It reads the stream in order, gathers the messages by event type and UTC day of their receive time, and stores each
group as one segment object every few minutes. Only then does it acknowledge. After a crash it finds what it had
stored in the segments' names (they say which sequence numbers they cover) and skips those when they come again. A
hole in the stream is counted and reported; `ssmd data compact` heals it from the raw archive.
"""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from ssmd.archive.inventory import Inventory
from ssmd.archive.layout import PositionObject
from ssmd.archive.segments import OpenSegment, covered_through, store_segment
from ssmd.archive.sorting import Sorter
from ssmd.archive.writer import ObjectConflict
from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.errors import FatalError, TransientError
from ssmd.market.subjects import check_feed
from ssmd.middleware.storage.interface import ObjectMissing, Storage, StorageUnavailable
from ssmd.middleware.transport.interface import Consumer, Delivered, StreamState, Transport, TransportUnavailable
from ssmd.registry.interface import Registry
from ssmd.registry.patient import PatientRegistry
from ssmd.registry.values import counted_issue
from ssmd.telemetry import (
    ARCHIVER_BACKLOG,
    ARCHIVER_BYTES,
    ARCHIVER_FILES,
    ARCHIVER_HELD_BYTES,
    ARCHIVER_MALFORMED,
    ARCHIVER_MISSING,
    ARCHIVER_RECEIVED,
    ARCHIVER_UNARCHIVED,
)

DURABLE = "archiver"
FETCH_MESSAGES = 5_000
FETCH_S = 0.5
DRAIN_S = 15.0
AFTER_MIDNIGHT_NS = 5 * NS_PER_S
"""A day's last segment is stored this long after its end, when its last messages have come through."""
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

T = TypeVar("T")

log = structlog.get_logger(component="archiver")


class Position(msgspec.Struct, frozen=True):
    """Everything up to `last_seq` is archived. `generation` counts how often the stream lost its end."""

    last_seq: int
    generation: int = 0


class _Stop:
    """The order to stop and how long work may still take after it."""

    def __init__(self, order: asyncio.Event) -> None:
        self._order = order
        self._deadline: float | None = None

    @property
    def ordered(self) -> bool:
        return self._order.is_set()

    @property
    def expired(self) -> bool:
        """Has the time for draining passed?"""
        now = asyncio.get_running_loop().time()
        if self.ordered and self._deadline is None:
            self._deadline = now + DRAIN_S
        return self._deadline is not None and now >= self._deadline

    async def sleep(self, seconds: float) -> None:
        """Sleep until the order to stop at most; afterwards in short steps."""
        if self.ordered:
            await asyncio.sleep(min(seconds, 0.5))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._order.wait()


class Archiver:
    """One feed's stream into the normalized bucket; the opened middleware stays the caller's.

    `seal_s`, `seal_mb`: store what is held after so many seconds or megabytes (before compression).
    """

    def __init__(
        self,
        feed: str,
        transport: Transport,
        storage: Storage,
        bucket: str,
        registry: Registry,
        *,
        seal_s: float = 300,
        seal_mb: float = 64,
        clock_ns: Callable[[], int] = now_ns,
    ) -> None:
        self._feed = check_feed(feed)
        self._transport = transport
        self._storage = storage
        self._bucket = bucket
        self._seal_s = seal_s
        self._seal_bytes = int(seal_mb * (1 << 20))
        self._clock_ns = clock_ns
        self._inventory = Inventory(storage, bucket, PatientRegistry(registry), feed, "normalized", clock_ns)
        self._sorter = Sorter(feed)
        self._stop = _Stop(asyncio.Event())
        self._folder = Path()
        self._consumer: Consumer | None = None
        self._identity = ""
        self._generation = 0
        self._acked = 0
        self._problems: dict[str, str] = {}
        self._flushed_ns = 0
        self._segments = 0
        self._seal_at = 0.0
        self._day = day_of(clock_ns())

    def health(self) -> dict[str, object]:
        """`status` is `ok` while storage, broker and database answer; the archive goes on without the database."""
        well = self._identity and not self._problems and not self._inventory.problem
        return {
            "status": "ok" if well else "degraded",
            "stream": self._identity,
            "taken_seq": self._sorter.last,
            "acked_seq": self._acked,
            "held_bytes": self._sorter.held,
            "segments": self._segments,
            "last_flush": iso(self._flushed_ns) if self._flushed_ns else None,
            "problems": dict(self._problems),
            "inventory": self._inventory.problem or "ok",
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop`; then take what the stream holds by then, store it, acknowledge (within 15 s)."""
        self._stop = _Stop(stop)
        with tempfile.TemporaryDirectory(prefix="ssmd-archiver-") as folder:
            self._folder = Path(folder)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._inventory.run(), name="inventory")
                try:
                    await self._archive()
                except StorageUnavailable as error:
                    # Only after the order to stop and 15 s of trying: until then the archiver waits for the storage.
                    log.error("leaving without storing; the stream keeps the messages", error=error.message)
                self._inventory.close()

    async def _archive(self) -> None:
        try:
            consumer = await self._connect()
            while consumer is not None and not self._stop.ordered:
                if self._due():
                    await self._flush(consumer)
                elif not await self._fetch(consumer):
                    await self._stop.sleep(BACK_OFF_S[0])
                    consumer = await self._connect()
            await self._drain()
        finally:
            if self._consumer is not None:
                await self._consumer.close()

    async def _drain(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        try:
            target = (await consumer.state()).last_seq
            while self._sorter.last < target and not self._stop.expired and await self._fetch(consumer):
                if self._sorter.held >= self._seal_bytes:
                    await self._flush(consumer)
        except TransportUnavailable as error:
            self._trouble("broker", error)
        await self._flush(consumer)
        log.info("drained", feed=self._feed, taken_seq=self._sorter.last, acked_seq=self._acked)

    # -- reading ------------------------------------------------------------------------------------------------

    async def _connect(self) -> Consumer | None:
        """A consumer at the position of the archive; None when told to stop while the broker is away."""
        attempt = 0
        while not self._stop.ordered:
            try:
                fresh = self._consumer is None
                consumer = self._consumer = self._consumer or await self._transport.consumer(self._feed, DURABLE)
                moved = await self._adopt(await consumer.state())
            except TransportUnavailable as error:
                self._trouble("broker", error)
                await self._stop.sleep(_back_off(attempt))
                attempt += 1
                continue
            self._well("broker")
            if fresh or not moved:
                return consumer
            await consumer.close()  # it belongs to a stream that is no more
            self._consumer = None
        return None

    async def _adopt(self, state: StreamState) -> bool:
        """Go on where the archive ends in this stream; a stream made anew begins anew. True when it is another one."""
        if state.identity == self._identity:
            position = Position(self._sorter.last, self._generation)
            if state.last_seq >= position.last_seq:
                return False
        else:
            position = await self._insist(lambda: self._read_position(state.identity))
        if self._identity:
            await self._store_held()  # under the name of the stream it came from
        self._identity, self._generation = state.identity, position.generation
        rewound = position.last_seq - state.last_seq
        self._acked = min(position.last_seq, state.last_seq)
        self._sorter.begin(self._acked)
        if rewound > 0:
            # The broker lost its end (a power cut): the same numbers will stand for other messages.
            log.error("stream lost its end", feed=self._feed, archived=position.last_seq, last_seq=state.last_seq)
            self._report("stream_rewound", rewound, f"{state.identity}: the last number is {state.last_seq}")
            self._generation += 1
            await self._insist(self._write_position)
        log.info("stream", feed=self._feed, identity=self._stream, archived=self._acked, last_seq=state.last_seq)
        return True

    async def _fetch(self, consumer: Consumer) -> bool:
        """Take the next messages; false while the broker is away."""
        try:
            batch = await consumer.fetch(FETCH_MESSAGES, FETCH_S)
            if batch and batch[-1].stream_seq <= self._acked:
                await consumer.ack_through(batch[-1].stream_seq)  # stored before a crash that came before the ack
        except TransportUnavailable as error:
            self._trouble("broker", error)
            return False
        self._well("broker")
        await self._accept(batch)
        return True

    async def _accept(self, batch: list[Delivered]) -> None:
        sorter = self._sorter
        before, start = sorter.last, 0
        if batch and before == self._acked:
            self._seal_at = asyncio.get_running_loop().time() + self._seal_s
        while (start := sorter.take(batch, start)) < len(batch):
            await self._open_segment(batch[start])
        for first, last in sorter.holes:
            self._missing(first, last)
        sorter.holes.clear()
        if sorter.repeated:  # for information: each was taken before
            self._report("redelivered", sorter.repeated, f"{self._stream}: taken before, up to {sorter.last}")
            sorter.repeated = 0
        ARCHIVER_RECEIVED.labels(self._feed).inc(sorter.last - before)
        ARCHIVER_UNARCHIVED.labels(self._feed).inc(sorter.unarchived)
        sorter.unarchived = 0
        ARCHIVER_HELD_BYTES.labels(self._feed).set(sorter.held)

    async def _open_segment(self, message: Delivered) -> None:
        """Learn from the archive what of this message's type and day is stored already."""
        event_type, day = self._sorter.wanted(message)
        covered, repaired = await self._insist(
            lambda: covered_through(self._storage, self._bucket, self._feed, event_type, day, self._stream)
        )
        self._inventory.add(repaired)
        self._sorter.open(OpenSegment(self._feed, event_type, day, self._stream, covered))

    # -- storing ------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Is it time to store what was taken?"""
        if self._sorter.last == self._acked:
            self._day = day_of(self._clock_ns())
            return False
        if self._sorter.held >= self._seal_bytes or asyncio.get_running_loop().time() >= self._seal_at:
            return True
        return day_of(self._clock_ns() - AFTER_MIDNIGHT_NS) > self._day

    async def _flush(self, consumer: Consumer) -> None:
        """Store all that was taken, then acknowledge it."""
        if self._sorter.last == self._acked:
            return
        await self._store_held()
        try:
            await consumer.ack_through(self._sorter.last)
            self._acked = self._sorter.last
            ARCHIVER_BACKLOG.labels(self._feed).set((await consumer.state()).last_seq - self._acked)
        except TransportUnavailable as error:
            self._trouble("broker", error)  # what was stored comes again and is ignored

    async def _store_held(self) -> None:
        """Make everything taken durable. Nothing is fetched meanwhile, so what is held stays bounded."""
        for segment in self._sorter.filled():
            await self._store(segment)
        await self._insist(self._write_position)
        self._flushed_ns = self._clock_ns()
        self._day = day_of(self._flushed_ns)
        self._seal_at = asyncio.get_running_loop().time() + self._seal_s
        self._sorter.stored(self._day - timedelta(days=1))
        for kind, count in self._sorter.malformed.items():
            log.error("malformed messages", feed=self._feed, kind=kind, messages=count)
            ARCHIVER_MALFORMED.labels(self._feed).inc(count)
            self._report("malformed_message", count, kind)
        self._sorter.malformed.clear()
        ARCHIVER_HELD_BYTES.labels(self._feed).set(0)

    async def _store(self, segment: OpenSegment) -> None:
        try:
            record = await self._insist(lambda: store_segment(self._storage, self._bucket, segment, self._folder))
        except ObjectConflict as error:
            raise FatalError(
                f"{error.message}: another archiver writes the stream {self._stream}",
                "Stop one of them: each stream has one archiver.",
            ) from error
        segment.stored()
        self._segments += 1
        self._inventory.add([record])
        ARCHIVER_BYTES.labels(self._bucket).inc(record.bytes)
        ARCHIVER_FILES.labels(self._bucket).inc()

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do storage work until it succeeds; StorageUnavailable only when 15 s have passed since the order to stop."""
        attempt = 0
        while True:
            try:
                done = await work()
            except StorageUnavailable as error:
                self._trouble("storage", error)
                if self._stop.expired:
                    raise
                await self._stop.sleep(_back_off(attempt))
                attempt += 1
                continue
            self._well("storage")
            return done

    async def _read_position(self, identity: str) -> Position:
        try:
            found = await self._storage.get(self._bucket, PositionObject(self._feed, identity).key)
            return msgspec.json.decode(found, type=Position)
        except ObjectMissing:
            return Position(0)
        except msgspec.MsgspecError as error:
            # The segments' names hold the same knowledge; without the position the stream is only read again.
            log.warning("position unreadable, reading the stream again", feed=self._feed, error=str(error))
            return Position(0)

    async def _write_position(self) -> None:
        content = msgspec.json.encode(Position(self._sorter.last, self._generation)) + b"\n"
        await self._storage.replace(self._bucket, PositionObject(self._feed, self._identity).key, content)

    # -- telling ------------------------------------------------------------------------------------------------

    @property
    def _stream(self) -> str:
        """The name in segments' keys: never the same for two messages that share a sequence number."""
        return f"{self._identity}r{self._generation}" if self._generation else self._identity

    def _missing(self, first: int, last: int) -> None:
        log.error("stream gap", feed=self._feed, first_seq=first, last_seq=last)
        ARCHIVER_MISSING.labels(self._feed).inc(last - first + 1)
        self._report("stream_gap", last - first + 1, f"{self._stream}: {first} to {last}; run: ssmd data compact")

    def _report(self, problem: str, count: int, sample: str) -> None:
        day = day_of(self._clock_ns())
        self._inventory.report(counted_issue(self._feed, day, "normalized", problem, count, sample))

    def _trouble(self, what: str, error: TransientError) -> None:
        if what not in self._problems:
            log.error("away", what=what, feed=self._feed, error=error.message, hint=error.hint)
        self._problems[what] = error.message

    def _well(self, what: str) -> None:
        if self._problems.pop(what, None) is not None:
            log.info("back", what=what, feed=self._feed)


def _back_off(attempt: int) -> float:
    return BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)] * random.uniform(0.7, 1.0)  # noqa: S311  jitter, no secret
