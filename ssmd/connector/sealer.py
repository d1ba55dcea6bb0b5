"""From closed spool segments to the raw archive: objects, manifests, gap objects, inventory rows; then trimming.

One path for the running connector and for what a crash left behind. The plan (which segment number each group gets) is
durable before the first object is written, so that a repeated sealing writes the same objects, and finds them there.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import structlog

from ssmd.archive.handover import Handover, store_handover
from ssmd.archive.writer import FRAME_BYTES, ObjectConflict, RawSegment, compress, next_number, store_gap, store_raw
from ssmd.clock import iso
from ssmd.connector.outbox import Outbox
from ssmd.connector.spool import GAP, HANDOVER, RAW, RawMeta, Segment, Spool, read_entries
from ssmd.errors import FatalError, TransientError
from ssmd.feeds.interface import GROUPS
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import Storage
from ssmd.registry.interface import Issue, ObjectRecord, Registry
from ssmd.registry.values import counted_issue

_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_MAX_CONFLICTS = 100

log = structlog.get_logger(component="connector")


class Stored(msgspec.Struct):
    """What sealing a segment wrote: the note that stands beside the segment until its rows are in the registry."""

    objects: list[ObjectRecord]
    gaps: list[Gap]


class Sealer:
    """Seals segments in order, in the background; a failure of the outside delays it and loses nothing."""

    def __init__(
        self,
        feed: str,
        bucket: str,
        spool: Spool,
        outbox: Outbox,
        storage: Storage,
        registry: Registry,
        shard: str = "",
    ) -> None:
        self._feed = feed
        self._bucket = bucket
        self._spool = spool
        self._outbox = outbox
        self._storage = storage
        self._registry = registry
        self._shard = shard
        self._waiting: deque[Segment] = deque(spool.leftovers)
        self._stored: deque[tuple[Segment, Stored]] = deque()
        self._done: list[Segment] = []
        self._gaps: deque[Gap] = deque()
        self._gap_rows: deque[Gap] = deque()
        self._handovers: deque[Handover] = deque()
        self._numbers: dict[tuple[object, str], int] = {}
        self._wake = asyncio.Event()
        self.trouble: dict[str, str] = {}
        self.issues: list[Issue] = []
        self.keep_from: int | None = None
        """Segments from this number on stay, though they are archived: another connector may look into them."""
        self.objects_stored = 0
        self.bytes_stored = 0
        self.last_sealed: list[str] = []
        """The keys of the objects that the last sealed segment became."""
        self.last_gap = ""
        """The last gap that was stored, for people."""

    def add(self, segment: Segment) -> None:
        """A segment was closed."""
        self._waiting.append(segment)
        self._wake.set()

    def add_gap(self, gap: Gap) -> None:
        """A gap was recorded: its object and row are written now, not only when its segment is sealed."""
        self._gaps.append(gap)
        self._wake.set()

    def add_handover(self, handover: Handover) -> None:
        """A handover was recorded: it is stored now, not only when its segment is sealed."""
        self._handovers.append(handover)
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Nothing waits to be stored or written down."""
        return not (self._waiting or self._stored or self._gaps or self._gap_rows or self._handovers)

    @property
    def objects_waiting(self) -> int:
        """Segments whose objects are not stored yet."""
        return len(self._waiting)

    async def run(self) -> None:
        """Until cancelled."""
        attempt = 0
        while True:
            done = await self._step()
            self.trim()
            if done:
                attempt = 0
            if self.idle:
                self._wake.clear()
                await self._wake.wait()
            elif not done:
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1

    async def _step(self) -> bool:
        """One round over what waits; False when nothing could be done."""
        stored = await self._attempt("storage", self._store_waiting)
        gaps = await self._attempt("storage", self._store_records)
        rows = await self._attempt("registry", self._write_rows)
        gap_rows = await self._attempt("registry", self._write_gap_rows)
        return stored or gaps or rows or gap_rows

    async def _attempt(self, what: str, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            worked = await step()
        except TransientError as error:
            if self.trouble.get(what) != error.message:
                log.error("unavailable, spool keeps the data", what=what, error=error.message, hint=error.hint)
            self.trouble[what] = error.message
            return False
        except OSError as error:  # the spool's disk: what is compressed stands there for a while
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise FatalError(f"cannot work in the spool folder: {error}") from error
            if "disk" not in self.trouble:
                log.error("disk full, nothing can be sealed", error=str(error), hint="free some disk space")
            self.trouble["disk"] = f"no space left for sealing: {error.strerror}"
            return False
        if worked and what == "storage":
            self.trouble.pop("disk", None)
        if worked and what in self.trouble:
            del self.trouble[what]
            log.info("available again", what=what)
        return worked

    # -- objects ------------------------------------------------------------------------------------------------

    async def _store_waiting(self) -> bool:
        if not self._waiting:
            return False
        segment = self._waiting[0]
        noted = self._spool.read_note(segment, "stored")
        stored = msgspec.json.decode(noted, type=Stored) if noted else await self._store(segment)
        self._waiting.popleft()
        self._stored.append((segment, stored))
        return True

    async def _store(self, segment: Segment) -> Stored:
        contents = await asyncio.to_thread(_read, segment)
        plan = self._plan_of(segment)
        for handover in contents.handovers:  # before the frames: nobody must take them for published ones
            await store_handover(self._storage, self._bucket, handover)
        for gap in contents.gaps:
            await store_gap(self._storage, self._bucket, gap)
        groups = [group for group in GROUPS if group in contents.metas]
        objects = [await self._store_group(segment, group, contents, plan) for group in groups]
        if contents.torn_bytes:
            log.warning("segment ends in a torn entry", segment=segment.number, bytes=contents.torn_bytes)
            self.issues.append(
                counted_issue(self._feed, segment.day, "raw", "spool_torn", 1, f"{contents.torn_bytes} bytes")
            )
        stored = Stored(objects, contents.gaps)
        await asyncio.to_thread(self._spool.note, segment, "stored", msgspec.json.encode(stored))
        self.objects_stored += len(objects)
        self.bytes_stored += sum(record.bytes for record in objects)
        self.last_sealed = [record.key for record in objects] or self.last_sealed
        log.info(
            "segment archived", segment=segment.number, objects=len(objects),
            records=sum(record.records for record in objects), bytes=sum(record.bytes for record in objects),
        )  # fmt: skip
        return stored

    async def _store_group(
        self, segment: Segment, group: str, contents: "Contents", plan: dict[str, int]
    ) -> ObjectRecord:
        metas = contents.metas[group]
        path = segment.path.with_suffix(f".{group}.zst")
        compressed = await asyncio.to_thread(compress, contents.lines(group), path)
        connections: dict[str, tuple[int, int]] = {}
        for meta in metas:
            first, _ = connections.get(meta.connection, (meta.first_n, 0))
            connections[meta.connection] = (first, meta.last_n)
        for _ in range(_MAX_CONFLICTS):
            if group not in plan:
                plan[group] = await self._number(segment, group)
                note = msgspec.json.encode(plan)
                await asyncio.to_thread(self._spool.note, segment, "plan", note)
            raw = RawSegment(
                feed=self._feed,
                day=segment.day,
                group=group,
                shard=self._shard,
                number=plan[group],
                records=sum(meta.records for meta in metas),
                first_ns=min(meta.first_ns for meta in metas),
                last_ns=max(meta.last_ns for meta in metas),
                connections=connections,
                compressed=compressed,
            )
            try:
                record = await store_raw(self._storage, self._bucket, raw, path)
            except ObjectConflict as error:
                log.warning("segment number taken, trying the next", error=error.message)
                del plan[group]
                continue
            path.unlink(missing_ok=True)
            return record
        raise FatalError(f"no free segment number for {group} of {segment.day} in {self._bucket}")

    def _plan_of(self, segment: Segment) -> dict[str, int]:
        noted = self._spool.read_note(segment, "plan")
        return msgspec.json.decode(noted, type=dict[str, int]) if noted else {}

    async def _number(self, segment: Segment, group: str) -> int:
        key = (segment.day, group)
        listed = await next_number(self._storage, self._bucket, self._feed, segment.day, group, self._shard)
        self._numbers[key] = max(listed, self._numbers.get(key, -1) + 1)
        return self._numbers[key]

    # -- gaps and rows ------------------------------------------------------------------------------------------

    async def _store_records(self) -> bool:
        if not self._gaps and not self._handovers:
            return False
        while self._handovers:
            await store_handover(self._storage, self._bucket, self._handovers[0])
            self._handovers.popleft()
        while self._gaps:
            gap = self._gaps[0]
            await store_gap(self._storage, self._bucket, gap)
            self.last_gap = f"{gap.reason} from {iso(gap.from_ns)} to {iso(gap.to_ns)}"
            self._gaps.popleft()
            self._gap_rows.append(gap)
        return True

    async def _write_gap_rows(self) -> bool:
        gaps = list(self._gap_rows)
        if not gaps:
            return False
        await asyncio.to_thread(self._registry.record_gaps, gaps)
        for _ in gaps:
            self._gap_rows.popleft()
        return True

    async def _write_rows(self) -> bool:
        if not self._stored:
            return False
        segment, stored = self._stored[0]
        if stored.objects:
            await asyncio.to_thread(self._registry.record_objects, self._feed, stored.objects)
        if stored.gaps:
            await asyncio.to_thread(self._registry.record_gaps, stored.gaps)
        if self._stored and self._stored[0][0] is segment:  # else it was given up meanwhile (`make_room`)
            self._stored.popleft()
            self._done.append(segment)
        return True

    # -- trimming -----------------------------------------------------------------------------------------------

    def trim(self) -> None:
        """Remove segments that are archived, written down and published."""
        self._outbox.settle()
        published = self._outbox.published.segment
        kept = 1 << 62 if self.keep_from is None else self.keep_from
        for segment in [s for s in self._done if s.number < kept and (s.number < published or self._outbox.empty)]:
            self._done.remove(segment)
            self._remove(segment)

    def make_room(self) -> bool:
        """The spool is full: give up the oldest archived segment, published and written down or not.

        What is lost is live messages (made again from raw) and inventory rows (made again from manifests), never
        frames. False when no archived segment is left.
        """
        if self._done:
            segment = self._done.pop(0)
        elif self._stored:
            segment, stored = self._stored.popleft()
            log.error("inventory rows given up, spool full", keys=[record.key for record in stored.objects])
        else:
            return False
        self._remove(segment)
        return True

    def _remove(self, segment: Segment) -> None:
        self._outbox.forget(segment)
        self._spool.remove(segment)


class Contents:
    """What a segment file holds, read once: positions are kept, not copies."""

    def __init__(self) -> None:
        self.metas: dict[str, list[RawMeta]] = {}
        self.bodies: dict[str, list[memoryview]] = {}
        self.gaps: list[Gap] = []
        self.handovers: list[Handover] = []
        self.torn_bytes = 0

    def lines(self, group: str) -> Iterator[bytes]:
        """The group's raw lines, in the order received."""
        for body in self.bodies[group]:
            if len(body) <= FRAME_BYTES:
                yield bytes(body)
            else:  # one by one: together they might not fit into a frame of the archive
                yield from bytes(body).splitlines(keepends=True)


def _read(segment: Segment) -> Contents:
    contents = Contents()
    end = 0
    for entry in read_entries(segment.path):
        if entry.kind == RAW:
            meta = msgspec.json.decode(entry.meta, type=RawMeta)
            contents.metas.setdefault(meta.group, []).append(meta)
            contents.bodies.setdefault(meta.group, []).append(entry.body)
        elif entry.kind == GAP:
            contents.gaps.append(msgspec.json.decode(entry.body, type=Gap))
        elif entry.kind == HANDOVER:
            contents.handovers.append(msgspec.json.decode(entry.body, type=Handover))
        end = entry.end
    contents.torn_bytes = segment.bytes - end
    return contents
