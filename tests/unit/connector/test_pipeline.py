"""The path of a frame: kept first, whatever happens to it afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Conversation, Pipeline
from ssmd.connector.spool import RAW, Segment, Spool, read_entries
from ssmd.feeds.interface import Decoded
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.session import KalshiSession
from ssmd.market.events import Event
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.wire.raw import parse_line

NOON = 1_795_348_800_000_000_000
DAY_NS = 86_400_000_000_000


def trade(seq: int, ticker: str = "T-1") -> bytes:
    return (
        b'{"type":"trade","sid":1,"seq":%d,"msg":{"trade_id":"id-%d","market_ticker":"%b","yes_price_dollars":"0.4500",'
        b'"no_price_dollars":"0.5500","count_fp":"9.85","taker_side":"yes","ts":1795348800,"ts_ms":1795348800000}}'
        % (seq, seq, ticker.encode())
    )


class BrittleMapper(KalshiMapper):
    """Kalshi's mapper with a planted bug: one ticker is too much for it."""

    def map(self, decoded: Decoded, received_ns: int) -> Event | None:
        if b"T-BUG" in repr(decoded.message).encode():
            raise ZeroDivisionError("planted")
        return super().map(decoded, received_ns)


class Desk:
    """A pipeline with a spool and a broker in memory."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder, 1 << 24)
        self.broker = MemoryTransport()
        self.ended: list[Segment] = []
        self.conversation = Conversation("c-1", BrittleMapper("kalshi", "c-1"), KalshiSession())

    async def open(self) -> None:
        outbox = Outbox(self.spool, await self.broker.publisher("kalshi"))
        self.task = asyncio.create_task(outbox.run())
        self.pipeline = Pipeline(
            "kalshi",
            KalshiDecoder(),
            self.spool,
            outbox,
            max_segment_bytes=1 << 20,
            publish_raw=False,
            on_segment_end=self.ended.append,
            make_room=lambda: False,
        )

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.spool.close()

    def kept(self, segment: Segment) -> list[bytes]:
        """The frames in a segment."""
        lines = [line for e in read_entries(segment.path) if e.kind == RAW for line in bytes(e.body).splitlines(True)]
        return [parse_line(line).frame for line in lines]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    await desk.open()
    yield desk
    await desk.close()


async def test_a_bug_in_the_mapper_costs_an_event_and_no_frame(desk: Desk) -> None:
    frames = [trade(1), trade(2, "T-BUG"), trade(3)]

    desk.pipeline.process(desk.conversation, [(NOON + n, frame) for n, frame in enumerate(frames)])

    assert desk.spool.current is not None
    assert desk.kept(desk.spool.current) == frames
    assert desk.pipeline.problems["mapper_failed"] == 1
    assert [m.subject for m in desk.broker.stream("kalshi").messages if b".trade." in m.subject] == [
        b"kalshi.trade.T-1",
        b"kalshi.trade.T-1",
    ]


async def test_a_read_across_midnight_is_split_between_the_days(desk: Desk) -> None:
    midnight = (NOON // DAY_NS + 1) * DAY_NS
    frames = [trade(1), trade(2), trade(3)]

    desk.pipeline.process(desk.conversation, list(zip((midnight - 2, midnight - 1, midnight), frames, strict=True)))

    assert desk.spool.current is not None
    assert [desk.kept(segment) for segment in (*desk.ended, desk.spool.current)] == [frames[:2], frames[2:]]
    assert desk.spool.current.day > desk.ended[0].day


async def test_types_without_end_do_not_fill_the_memory(desk: Desk) -> None:
    frames = [b'{"type":"t%d"}' % n for n in range(1000)]

    desk.pipeline.process(desk.conversation, [(NOON, frame) for frame in frames])

    assert len(desk.pipeline.received) <= 201
    assert sum(desk.pipeline.received.values()) == 1000
