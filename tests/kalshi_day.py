"""A small Kalshi day for tests: what the exchange sent, as raw frames and as the live stream's events."""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

from ssmd.archive.writer import store_gap
from ssmd.archiver import Archiver
from ssmd.clock import day_of
from ssmd.feeds.catalogue import open_feed
from ssmd.market.events import Event, Gap, Trade
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.interface import Registry
from ssmd.registry.memory import MemoryRegistry
from tests.events import NOON, outgoing
from tests.raw_archive import FEED, RAW, Frame, archive

NORMALIZED = "ssmd-normalized"
TICKERS = ("KXBTC15M-26NOV221600-00", "KXHIGHNY-26NOV22-B32.5", "TEST-26NOV22-T1")


class Talk:
    """What the exchange says on one connection; each call is one frame, a millisecond after the one before."""

    def __init__(self, connection: str = "c-1", start_ns: int = NOON, seed: int = 0) -> None:
        self.connection = connection
        self.frames: list[Frame] = []
        self.events: list[Event] = []
        self._parts = open_feed(FEED, day_of(start_ns))
        self._mapper = self._parts.new_mapper(connection)
        self._ns = start_ns
        self._seq: dict[int, int] = {}
        self._pick = random.Random(seed)

    def frame(self, data: bytes, received_ns: int | None = None) -> None:
        """The exchange sent these bytes, a millisecond after the last ones or at a given time."""
        decoded = self._parts.decoder.decode(data)
        self._ns = received_ns or self._ns + 1_000_000
        self.frames.append(
            Frame(self.connection, len(self.frames), self._ns, decoded.group, decoded.type, data, decoded.inline)
        )
        event = self._mapper.map(decoded, self._ns)
        for gap in self._mapper.take_gaps():
            self.events.append(
                Gap(
                    FEED,
                    self.connection,
                    gap.sid,
                    self._ns - 1_000_000,
                    self._ns,
                    "sequence_gap",
                    gap.last_seq,
                    gap.next_seq,
                    gap.tickers,
                )
            )
        if event is not None:
            self.events.append(event)

    def say(self, kind: str, sid: int, skip: int = 0, **body: object) -> None:
        """A numbered frame; `skip` numbers before it were lost."""
        self._seq[sid] = self._seq.get(sid, 0) + 1 + skip
        self.frame(json.dumps({"type": kind, "sid": sid, "seq": self._seq[sid], "msg": body}).encode())

    def snapshot(self, ticker: str) -> None:
        self.say("orderbook_snapshot", 1, market_ticker=ticker, market_id="m", yes_dollars_fp=[["0.45", "10.00"]])

    def delta(self, ticker: str, skip: int = 0) -> None:
        price, change = f"0.{self._pick.randrange(10, 46)}", f"{self._pick.randrange(1, 500) / 100:.2f}"
        self.say(
            "orderbook_delta", 1, skip, market_ticker=ticker, price_dollars=price, delta_fp=change, side="yes", ts_ms=5
        )

    def trade(self, ticker: str, trade_id: str) -> None:
        fields: dict[str, object] = {"yes_price_dollars": "0.45", "count_fp": "1.00", "taker_outcome_side": "yes"}
        self.say("trade", 2, 0, trade_id=trade_id, market_ticker=ticker, ts_ms=5, **fields)

    def quote(self, ticker: str) -> None:
        price = f"0.{self._pick.randrange(10, 99)}"
        body = {"price_dollars": price, "yes_bid_dollars": "0.40", "yes_ask_dollars": "0.50", "ts_ms": 5}
        self.frame(json.dumps({"type": "ticker", "sid": 3, "msg": {"market_ticker": ticker, **body}}).encode())

    def start(self) -> None:
        """Acknowledgements and snapshots."""
        self.frame(b'{"type":"subscribed","id":1,"msg":{"channel":"orderbook_delta","sid":1}}')
        for ticker in TICKERS:
            self.snapshot(ticker)

    def chatter(self, count: int) -> None:
        """`count` frames of all kinds, some of them odd."""
        for _ in range(count):
            ticker = self._pick.choice(TICKERS)
            match self._pick.randrange(10):
                case 0 | 1 | 2 | 3:
                    self.delta(ticker)
                case 4 | 5 | 6:
                    self.trade(ticker, f"trade-{self.connection}-{len(self.frames)}")
                case 7 | 8:
                    self.quote(ticker)
                case _:
                    self.frame(
                        self._pick.choice(
                            [b"not json", b'{"type":"new_kind"}', b"\xff\xfe", b'{"type" : "heartbeat" }']
                        )
                    )


class Venue:
    """A whole installation on given storage: what the connector writes is written by hand, the archiver is real."""

    def __init__(self, storage: Storage, registry: Registry | None = None) -> None:
        self.storage = storage
        self.registry = registry or MemoryRegistry()
        self.transport = MemoryTransport()

    async def receive(self, folder: Path, talks: Sequence[Talk], per_segment: int = 60) -> None:
        """Everything as the connector does it: raw objects, gap objects, rows, and the stream."""
        together = sorted((frame for talk in talks for frame in talk.frames), key=lambda frame: frame.received_ns)
        self.registry.record_objects(FEED, await archive(self.storage, folder, together, per_segment))
        for talk in talks:
            gaps = [event for event in talk.events if isinstance(event, Gap)]
            for gap in gaps:
                await store_gap(self.storage, RAW, gap)
            self.registry.record_gaps(gaps)
        events = [event for talk in talks for event in talk.events]
        await self.publish(
            sorted(events, key=lambda event: event.to_ns if isinstance(event, Gap) else event.received_ns)
        )

    async def publish(self, events: Sequence[Event]) -> None:
        """Events on the stream; the broker keeps the first of the messages with one id."""
        for event in events:
            message = outgoing(event)
            if isinstance(event, Trade):
                message = Outgoing(message.subject, event.trade_id.encode(), message.payload)
            self.transport.store(FEED, [message])

    def archiver(self) -> Archiver:
        return Archiver(FEED, self.transport, self.storage, NORMALIZED, self.registry)

    async def archive_stream(self) -> None:
        """Run the archiver until it has taken the whole stream, and let it drain."""
        archiver, stop = self.archiver(), asyncio.Event()
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(archiver.run(stop))
            while archiver.health()["taken_seq"] != self.transport.stream(FEED).last_seq:  # noqa: ASYNC110  polled
                await asyncio.sleep(0.001)
            stop.set()
