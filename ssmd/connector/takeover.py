"""The takeover: the connector that stands by becomes the one that publishes, the moment the other one is gone.

In this order: what the old one had not got to the broker; the gap, if frames are missing; the record of the takeover;
events around the old one's end that it had not published; all books; everything that came since. Frames go on coming
meanwhile and are held until their turn.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from ssmd import telemetry as metrics
from ssmd.archive.handover import Handover
from ssmd.clock import NS_PER_S, iso, now_ns
from ssmd.connector.conversation import Conversation
from ssmd.connector.pipeline import TRANSIT_NS, Pipeline
from ssmd.connector.predecessor import OVERLAP_NS, Predecessor, read_predecessor
from ssmd.connector.standby import Cut, Standby, ranges
from ssmd.market.events import Event, Gap
from ssmd.market.subjects import encode_ticker
from ssmd.middleware.transport.interface import Outgoing

_SLICE = 500
_TURN_S = 0.005
"""Frames wait at most about so long for a slice of the takeover."""
_CATCH_UP_S = 1.0
"""So long we wait for frames that the old connection had already."""

log = structlog.get_logger(component="connector")


class Readiness(msgspec.Struct, frozen=True):
    """How ready the connector is to take over: its open connection, and the books that it lacks.

    `missing` None: it is not even known which.
    """

    conversation: Conversation | None
    missing: tuple[str, ...] | None


class TakenOver(msgspec.Struct, frozen=True):
    """What a takeover was like; for the health document."""

    at: str
    from_connection: str
    clean: bool
    books: int
    resent: int
    gap_s: float
    took_s: float


class Takeover:
    """One takeover. `folder` is the spool of the connector that was active before, if that is known."""

    def __init__(self, feed: str, pipeline: Pipeline, folder: Path | None, readiness: Callable[[], Readiness]) -> None:
        assert pipeline.standby is not None
        self._feed = feed
        self._pipeline = pipeline
        self._standby: Standby = pipeline.standby
        self._folder = folder
        self._readiness = readiness
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._turn_ends_s = 0.0
        self._gap_ns = 0
        self._books = 0
        self.old = Predecessor()

    async def look_back(self) -> None:
        """Read what the old connector left, and send what it had not got to the broker."""
        if self._folder is not None:
            self.old = await asyncio.to_thread(read_predecessor, self._folder, self._feed)

    async def run(self) -> bool:
        """Publish; False when there is no connection to go on with: the gap from the old one's end is still open."""
        pipeline, standby = self._pipeline, self._standby
        standby.taking_over = True
        await self._publish(self.old.unsent)
        readiness = self._readiness()
        conversation = readiness.conversation
        going_on = conversation is not None and conversation is standby.conversation
        if going_on:
            assert conversation is not None
            await self._go_on(conversation, readiness)
        while not standby.empty:
            await self._publish(standby.messages(standby.take()))
        pipeline.standby = None
        metrics.CONNECTOR_TAKEOVERS.labels(self._feed).inc()
        return going_on

    async def _go_on(self, conversation: Conversation, readiness: Readiness) -> None:
        standby, old = self._standby, self.old
        cut = await self._find_cut()
        whole = self._record_gaps(readiness)
        at_ns = max(standby.mapped_ns, old.last_ns, conversation.first_ns + 1)
        last_n = old.last_n if whole else None
        self._pipeline.record_handover(
            Handover(
                self._feed, conversation.connection, at_ns, standby.next_n, old.connection, last_n,
                ranges(cut.numbers), old.ended_n,
            )  # fmt: skip
        )
        await self._publish(cut.also)
        books = standby.books(at_ns)
        self._books = len(books)
        for events in _slices(books):
            await self._publish(self._pipeline.messages_of(events, self._book_identity(conversation, standby.next_n)))

    async def _find_cut(self) -> Cut:
        cut = Cut(self._standby, self.old)
        deadline = self._loop.time() + _CATCH_UP_S
        while not cut.search():
            if not self._standby.empty:
                await self._turn()
            elif self._loop.time() < deadline:
                await asyncio.sleep(_TURN_S)
            else:
                break
        return cut

    def _record_gaps(self, readiness: Readiness) -> bool:
        """Record what neither connection has; False when this one lacks something that came after the old one's end."""
        old, standby = self.old, self._standby
        if not old.covered_ns:
            return True  # nothing was captured before
        start = self.gap_start_ns
        held_from = standby.covers_ns if standby.covers_ns > max(old.last_ns, old.covered_ns) + OVERLAP_NS else 0
        if held_from:
            self._gap(start, held_from, None)
        if readiness.missing is None or readiness.missing:
            self._gap(start, now_ns(), readiness.missing)
        for gap in standby.gaps:
            if gap.to_ns > max(old.last_ns, start):
                clipped = msgspec.structs.replace(gap, from_ns=max(gap.from_ns, start))
                self._gap_ns = max(self._gap_ns, clipped.to_ns - clipped.from_ns)
                self._pipeline.record_gap(clipped)
        return not self._gap_ns

    @property
    def gap_start_ns(self) -> int:
        """Where a gap after the old one's end begins; 0 when it never captured."""
        old = self.old
        return old.covered_ns if old.clean or not old.covered_ns else old.covered_ns - TRANSIT_NS

    @property
    def gap_reason(self) -> str:
        """Why there is one."""
        return "planned_teardown" if self.old.clean else "startup"

    def _gap(self, from_ns: int, to_ns: int, tickers: tuple[str, ...] | None) -> None:
        self._gap_ns = max(self._gap_ns, to_ns - from_ns)
        gap = Gap(self._feed, self.old.connection, None, from_ns, to_ns, self.gap_reason, tickers=tickers)
        self._pipeline.record_gap(gap)

    @staticmethod
    def _book_identity(conversation: Conversation, first_n: int) -> Callable[[str], bytes]:
        prefix = b"%b:%d:book:" % (conversation.id, first_n)
        return lambda ticker: prefix + encode_ticker(ticker).encode()

    async def _publish(self, messages: list[Outgoing]) -> None:
        for start in range(0, len(messages), _SLICE):
            self._pipeline.publish(messages[start : start + _SLICE])
            await self._turn()

    async def _turn(self) -> None:
        """Let frames come in, now and then."""
        if self._loop.time() > self._turn_ends_s:
            await asyncio.sleep(0)
            self._turn_ends_s = self._loop.time() + _TURN_S

    def outcome(self) -> TakenOver:
        """What it was like."""
        took_s = self._loop.time() - self._began_s
        taken = TakenOver(
            iso(now_ns()), self.old.connection, self.old.clean, self._books, len(self.old.unsent),
            round(self._gap_ns / NS_PER_S, 3), round(took_s, 3),
        )  # fmt: skip
        log.info("took over", **msgspec.to_builtins(taken))
        return taken


def _slices(events: list[Event]) -> Iterator[list[Event]]:
    for start in range(0, len(events), _SLICE):
        yield events[start : start + _SLICE]
