"""From the spool to the live stream: directly while the broker keeps up, from the spool's files when it does not."""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from ssmd.connector.spool import OUT, Position, Segment, Spool, read_entries, unpack_messages
from ssmd.middleware.transport.interface import Outgoing, Publisher

_SLICE = 1_000

log = structlog.get_logger(component="connector")


class Outbox:
    """Sends every OUT entry of the spool in order, and knows the place up to which the broker has stored everything.

    `behind`: messages wait in the spool's files; live appends are then only written there and picked up in order.
    """

    def __init__(self, spool: Spool, publisher: Publisher) -> None:
        self._spool = spool
        self._publisher = publisher
        self._sent = 0
        self._marks: deque[tuple[int, Position]] = deque()  # (messages sent so far, place behind them)
        self._next = spool.state.published
        self._segments = {segment.number: segment for segment in spool.leftovers}
        self.behind = bool(spool.leftovers)
        self._wake = asyncio.Event()
        self.published = spool.state.published
        self.skipped_segments = 0

    def skip_leftovers(self) -> None:
        """What the last run left is another connector's to publish: it was, or that one left it to compaction."""
        if self.behind:
            newest = max(self._segments)
            self._next = self.published = Position(newest + 1, 0)
            self._segments.clear()
            self.behind = False
            self.settle()

    def begin(self, segment: Segment) -> None:
        """A new segment is being written."""
        self._segments[segment.number] = segment

    def forget(self, segment: Segment) -> None:
        """A segment's file is gone; if it was not sent yet, what it held will not reach the live stream."""
        self._segments.pop(segment.number, None)
        if segment.number >= self._next.segment and self.behind:
            self.skipped_segments += 1
            log.error("messages given up for the live stream, spool full", segment=segment.number)

    def offer(self, messages: Sequence[Outgoing], place: Position) -> None:
        """`messages` were appended to the spool, ending at `place`: send them now if nothing waits before them."""
        if self.behind or self._publisher.room < len(messages):
            if not self.behind:
                self.behind = True
                log.warning("broker behind, publishing from the spool", unacknowledged=self.unacknowledged)
            self._wake.set()
            return
        self._publisher.send(messages)
        self._sent += len(messages)
        self._marks.append((self._sent, place))
        self._next = place

    @property
    def unacknowledged(self) -> int:
        """Messages sent and not stored by the broker yet."""
        return self._sent - self._publisher.acked

    def settle(self) -> None:
        """Move `published` forward to what the broker has stored."""
        acked = self._publisher.acked
        while self._marks and self._marks[0][0] <= acked:
            self.published = self._marks.popleft()[1]
        self._spool.state.published = self.published

    @property
    def empty(self) -> bool:
        """Everything in the spool is stored by the broker."""
        self.settle()
        return not self.behind and not self._marks

    async def run(self) -> None:
        """Catch up whenever behind; until cancelled."""
        while True:
            if not self.behind:
                self._wake.clear()
                await self._wake.wait()
            await self._catch_up()

    async def _catch_up(self) -> None:
        while True:
            segment = self._segments.get(self._next.segment)
            if segment is not None:
                await self._send_from(segment)
            current = self._spool.current
            newer = [number for number in self._segments if number > self._next.segment]
            if newer:
                self._next = Position(min(newer), 0)
                self._marks.append((self._sent, self._next))
                continue
            at_end = current is None or self._next >= Position(current.number, self._spool.offset)
            if at_end:
                self.behind = False
                log.info("live stream caught up")
                return

    async def _send_from(self, segment: Segment) -> None:
        """Send the OUT entries of a segment behind `_next`, as the broker takes them."""
        for entry in read_entries(segment.path, self._next.offset if segment.number == self._next.segment else 0):
            if entry.kind == OUT:
                messages = unpack_messages(entry.body)
                for start in range(0, len(messages), _SLICE):
                    part = messages[start : start + _SLICE]
                    while self._publisher.room < len(part):
                        await self._publisher.wait()
                    self._publisher.send(part)
                    self._sent += len(part)
            self._next = Position(segment.number, entry.end)
            self._marks.append((self._sent, self._next))
            await asyncio.sleep(0)  # live frames come first
