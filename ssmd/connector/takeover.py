"""The takeover: the connector that stands by becomes the one that publishes, the moment the other one is gone.

In this order: what the old one had not got to the broker; the gap, if frames are missing; the record of the takeover;
events around the old one's end that it had not published; all books; everything that came since. Frames go on coming
meanwhile and are held until their turn. Where the old one ended is known by content: the new connection brings what the
old one published last. Where it does not, the time from the old one's end up to now is a gap. A connection that is
behind the old one is given up: the next one begins like any other, after a gap.
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
from ssmd.connector.pipeline import Pipeline
from ssmd.connector.predecessor import OVERLAP_NS, Predecessor, read_predecessor
from ssmd.connector.standby import Cut, Standby, ranges
from ssmd.market.events import Event, Gap
from ssmd.market.subjects import encode_ticker
from ssmd.middleware.transport.interface import Outgoing

_SLICE = 500
_TURN_S = 0.005
"""Frames wait about so long for a slice of the takeover, on a machine that is not overloaded."""
_SHARE = 4
"""So many times as long as everything else took since then: more frames may come than a short slice can publish."""
_QUIET_S = 1.0
"""When nothing has come for so long, what the old connection had already will not come any more."""
_PATIENCE_S = 15.0
"""So far a connection may lag behind the old one; with one that lags more we do not go on."""

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
    """One takeover. `folder` is the spool of the connector that was active before, if that is known.

    `abandon` ends a connection at once: of one that stood by and that we do not go on with, nothing is taken any more.
    """

    def __init__(
        self,
        feed: str,
        pipeline: Pipeline,
        folder: Path | None,
        readiness: Callable[[], Readiness],
        abandon: Callable[[Conversation | None], None],
    ) -> None:
        assert pipeline.standby is not None
        self._feed = feed
        self._pipeline = pipeline
        self._standby: Standby = pipeline.standby
        self._folder = folder
        self._readiness = readiness
        self._abandon = abandon
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
        stood_by = standby.conversation
        going_on = stood_by is not None and self._readiness().conversation is stood_by and await self._go_on(stood_by)
        if not going_on:
            self._abandon(stood_by)
            standby.discard()
        while not standby.empty:
            await self._publish(standby.messages(standby.take()))
        pipeline.standby = None
        metrics.CONNECTOR_TAKEOVERS.labels(self._feed).inc()
        return going_on

    async def _go_on(self, conversation: Conversation) -> bool:
        """Go on with the connection that stood by; False when it is behind the old one, and time would go back."""
        standby, old = self._standby, self.old
        cut = Cut(standby, old)
        missing_to_ns = 0
        begins_ns = max(standby.covers_ns, conversation.first_ns)
        if not old.covered_ns:
            pass  # nothing was captured before
        elif (
            standby.ordered
            and begins_ns > old.last_ns
            and (not standby.next_n or standby.exchange_ns >= old.exchange_ns)
        ):
            missing_to_ns = begins_ns  # everything that is held came after the old one's end
        elif not await self._reach(cut, conversation):
            if standby.exchange_ns < old.exchange_ns:
                return False
            await self._pass_by(conversation)  # where the old one ended is not proved: it is a gap up to here
            missing_to_ns = standby.mapped_ns
            cut.also, cut.numbers = [], []
        at_ns = max(standby.mapped_ns, old.last_ns, conversation.first_ns)
        at_ns += at_ns == conversation.marked_ns  # two records of one connection do not have the same time
        whole = self._record_gaps(missing_to_ns)
        last_n = old.last_n if whole else None
        numbers = ranges(cut.numbers)
        self._pipeline.record_handover(
            Handover(
                self._feed, conversation.connection, at_ns, standby.next_n, old.connection, last_n, numbers, old.ended_n
            )
        )
        await self._publish(cut.also)
        books = standby.books(at_ns)
        self._books = len(books)
        for events in _slices(books):
            await self._publish(self._pipeline.messages_of(events, self._book_identity(conversation, standby.next_n)))
        return True

    async def _reach(self, cut: Cut, conversation: Conversation) -> bool:
        """Go on to the cut, waiting for what the old connection had already; False when it does not come."""
        standby = self._standby
        began_s = came_s = self._loop.time()
        while cut.findable and standby.exchange_ns <= self.old.exchange_ns + OVERLAP_NS:
            held = standby.take_of(conversation)
            if held is not None:
                if cut.search(held):
                    return True
                came_s = self._loop.time()
                await self._turn()
            elif self._loop.time() > min(came_s + _QUIET_S, began_s + _PATIENCE_S):
                break
            else:
                await asyncio.sleep(_TURN_S)
        return False

    async def _pass_by(self, conversation: Conversation) -> None:
        """Publish nothing of what is held now."""
        standby = self._standby
        while (held := standby.take_of(conversation)) is not None:
            for n, frame in enumerate(held.frames, held.first_n):
                standby.map_next(n, frame)
            await self._turn()

    def _record_gaps(self, missing_to_ns: int) -> bool:
        """Record what neither connection has; False when something is missing that came after the old one's end."""
        old, standby = self.old, self._standby
        if not old.covered_ns:
            return True
        start = old.ended_ns
        if missing_to_ns > start:
            self._gap(start, missing_to_ns, None)
        missing = self._readiness().missing
        if missing is None or missing:
            self._gap(start, now_ns(), missing)
        for gap in standby.gaps:
            if gap.to_ns > max(old.last_ns, start):
                clipped = msgspec.structs.replace(gap, from_ns=max(gap.from_ns, start))
                self._gap_ns = max(self._gap_ns, clipped.to_ns - clipped.from_ns)
                self._pipeline.record_gap(clipped)
        return not self._gap_ns

    def _gap(self, from_ns: int, to_ns: int, tickers: tuple[str, ...] | None) -> None:
        self._gap_ns = max(self._gap_ns, to_ns - from_ns)
        gap = Gap(self._feed, self.old.connection, None, from_ns, to_ns, self.old.gap_reason, tickers=tickers)
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
        ended_s = self._loop.time()
        if ended_s > self._turn_ends_s:
            await asyncio.sleep(0)
            begins_s = self._loop.time()
            self._turn_ends_s = begins_s + max(_TURN_S, _SHARE * (begins_s - ended_s))

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
