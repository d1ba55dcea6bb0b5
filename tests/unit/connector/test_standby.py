"""A connector that stands by goes on exactly where the other one ended: by content, not by the clock alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ssmd.archive.handover import Handover
from ssmd.connector import standby as standing
from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Conversation, Pipeline
from ssmd.connector.predecessor import read_predecessor
from ssmd.connector.spool import HANDOVER, OUT, RAW, Position, Spool, read_entries
from ssmd.connector.standby import Standby, ranges
from ssmd.connector.takeover import Readiness, Takeover
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.session import KalshiSession
from ssmd.market.events import Event, Gap, Kind, OrderBookUpdate, Quote, Trade
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.wire.normalized import decode

NOON = 1_795_348_800_000_000_000
MS = 1_000_000
S = 1_000 * MS


def snapshot(seq: int) -> bytes:
    return (
        b'{"type":"orderbook_snapshot","sid":1,"seq":%d,"msg":{"market_ticker":"T-1","market_id":"m",'
        b'"yes_dollars_fp":[["0.4000","100.00"]]}}' % seq
    )


def delta(seq: int, number: int) -> bytes:
    return (
        b'{"type":"orderbook_delta","sid":1,"seq":%d,"msg":{"market_ticker":"T-1","price_dollars":"0.4000",'
        b'"delta_fp":"1.00","side":"yes","ts_ms":%d}}' % (seq, NOON // MS + number)
    )


def trade(seq: int, number: int) -> bytes:
    return (
        b'{"type":"trade","sid":2,"seq":%d,"msg":{"trade_id":"id-%d","market_ticker":"T-1","yes_price_dollars":"0.45",'
        b'"count_fp":"1.00","taker_side":"yes","ts_ms":%d}}' % (seq, number, NOON // MS + number)
    )


def quote(number: int) -> bytes:
    return (
        b'{"type":"ticker","sid":3,"msg":{"market_ticker":"T-1","ts_ms":%d,"yes_bid_dollars":"0.40",'
        b'"yes_ask_dollars":"0.50","price_dollars":"0.45","yes_bid_size_fp":"%d.00"}}' % (NOON // MS + number, number)
    )


def frames(start: int, end: int, *, base: int = 0) -> list[bytes]:
    """Delta, trade and quote of each number; sequences count from `base`."""
    return [
        frame
        for number in range(start, end)
        for frame in (delta(number - base + 2, number), trade(number - base + 1, number), quote(number))
    ]


class Side:
    """One connector's path of a frame, on a broker that it shares with the other one."""

    def __init__(self, folder: Path, broker: MemoryTransport, connection: str) -> None:
        self.folder = folder
        self.spool = Spool(folder, 1 << 28)
        self.broker = broker
        self.decoder = KalshiDecoder()
        self.conversation = Conversation(connection, self.new_mapper(connection), KalshiSession())
        self.tasks: list[asyncio.Task[None]] = []

    @staticmethod
    def new_mapper(connection: str) -> KalshiMapper:
        return KalshiMapper("kalshi", connection)

    async def open(self, *, stands_by: bool = False) -> None:
        self.outbox = Outbox(self.spool, await self.broker.publisher("kalshi"))
        self.tasks.append(asyncio.create_task(self.outbox.run()))
        self.pipeline = Pipeline(
            "kalshi", self.decoder, self.spool, self.outbox, max_segment_bytes=1 << 24, publish_raw=False,
            on_segment_end=lambda _: None, make_room=lambda: False,
        )  # fmt: skip
        if stands_by:
            self.pipeline.standby = Standby(self.decoder, self.new_mapper, self.pipeline.render)

    def receive(self, received_ns: int, *payloads: bytes) -> None:
        self.pipeline.process(self.conversation, [(received_ns, payload) for payload in payloads])

    @property
    def standby(self) -> Standby:
        assert self.pipeline.standby is not None
        return self.pipeline.standby

    async def take_over(self, folder: Path | None, missing: tuple[str, ...] | None = ()) -> Takeover:
        takeover = Takeover(
            "kalshi", self.pipeline, folder, lambda: Readiness(self.conversation, missing), lambda _: None
        )
        await takeover.look_back()
        assert await takeover.run()
        return takeover

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.outbox.settle()
        self.spool.close()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    broker = MemoryTransport()
    old, new = Side(tmp_path / "old", broker, "c-old"), Side(tmp_path / "new", broker, "c-new")
    await old.open()
    await new.open(stands_by=True)
    yield old, new
    for side in (old, new):
        await side.close()


def live(side: Side) -> list[Event]:
    return [decode(m.subject.split(b".")[1].decode(), m.payload) for m in side.broker.stream("kalshi").messages]


def shown(events: list[Event]) -> list[str]:
    """Each event in a word: whose it is, and its number."""
    words = []
    for event in events:
        assert not isinstance(event, Gap)
        who = event.connection.removeprefix("c-")
        number = (event.exchange_ns - NOON) // MS
        if isinstance(event, OrderBookUpdate):
            size = event.bids[0][1] // 1_000_000
            words.append(f"{who} {'book' if event.kind is Kind.SNAPSHOT else 'delta'} {size}")
        else:
            words.append(f"{who} {type(event).__name__.lower()} {number}")
    return words


def handovers(side: Side) -> list[Handover]:
    return side.pipeline.handovers


async def test_nothing_is_lost_doubled_or_turned_back_though_the_new_connection_lags(pair: tuple[Side, Side]) -> None:
    old, new = pair
    old.receive(NOON, snapshot(1))
    new.receive(NOON, snapshot(1))
    for number in range(5):
        old.receive(NOON + number * MS, *frames(number, number + 1))
    for number in range(3):  # 3 and 4 are still on the way when the old one ends
        new.receive(NOON + number * MS + 1, *frames(number, number + 1))
    before = len(live(new))
    task = asyncio.create_task(new.take_over(old.folder))
    await asyncio.sleep(0.02)
    assert len(live(new)) == before  # it waits for what the old one had
    for number in range(3, 7):
        new.receive(NOON + 10 * MS + number * MS, *frames(number, number + 1))
    await task

    after = shown(live(new)[before:])
    assert after == [
        "new book 105",
        "new delta 106",
        "new trade 5",
        "new quote 5",
        "new delta 107",
        "new trade 6",
        "new quote 6",
    ]
    (takeover,) = [handover for handover in handovers(new) if handover.first_n is not None]
    assert takeover.first_n == 1 + 5 * 3
    assert takeover.from_ == "c-old"
    assert takeover.also == ()
    assert takeover.ended_n == 15
    assert not new.pipeline.gaps


async def test_what_the_old_connection_had_captured_and_not_published_is_published_by_the_new_one(
    pair: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1))
        side.receive(NOON + MS, *frames(0, 1))
    monkeypatch.setattr(old.pipeline, "_emit", lambda _messages: None)  # killed between two writes
    old.receive(NOON + 2 * MS, *frames(1, 2))
    new.receive(NOON + 2 * MS + 1, *frames(1, 2))
    new.receive(NOON + 3 * MS, *frames(2, 3))
    await new.take_over(old.folder)

    words = shown(live(new))
    assert words.count("new trade 1") == words.count("new quote 1") == 1
    assert "old trade 1" not in words
    (takeover,) = [handover for handover in handovers(new) if handover.first_n is not None]
    assert takeover.last_n == 3  # snapshot, delta, trade, quote: n from 0


async def test_messages_that_never_reached_the_broker_come_first_and_once(pair: tuple[Side, Side]) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1))
    await asyncio.sleep(0)
    new.broker.up = False
    for side in pair:
        side.receive(NOON + MS, *frames(0, 2))
    for task in old.tasks:
        task.cancel()  # it is dead
    old.outbox._publisher._pending.clear()  # type: ignore[attr-defined]
    new.broker.up = True
    await new.take_over(old.folder)

    words = shown(live(new))
    assert words == [
        "old book 100",
        "old delta 101",
        "old trade 0",
        "old quote 0",
        "old delta 102",
        "old trade 1",
        "old quote 1",
        "new book 102",
    ]


async def test_a_standby_publishes_nothing_and_marks_its_connection_before_its_first_frame(
    pair: tuple[Side, Side],
) -> None:
    _, new = pair
    new.receive(NOON, snapshot(1), *frames(0, 3))
    new.pipeline.record_gap(Gap("kalshi", "c-new", None, NOON, NOON + 1, "connection_lost"))

    assert live(new) == []
    assert not new.pipeline.gaps
    assert new.spool.current is not None
    kinds = [entry.kind for entry in read_entries(new.spool.current.path)]
    assert kinds[0] == HANDOVER
    assert OUT not in kinds
    assert RAW in kinds


async def test_books_that_are_missing_at_the_takeover_are_a_gap_of_those_markets(pair: tuple[Side, Side]) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 2))
    await new.take_over(old.folder, missing=("T-9",))

    (gap,) = new.pipeline.gaps
    assert gap.tickers == ("T-9",)
    assert gap.connection == "c-old"
    assert gap.from_ns <= NOON


async def test_a_gap_of_the_standby_counts_only_as_far_as_the_old_connection_ended_before_it(
    pair: tuple[Side, Side],
) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON + S, snapshot(1), *frames(0, 2))
    new.pipeline.record_gap(Gap("kalshi", "c-new", 1, NOON - 9 * S, NOON - 8 * S, "sequence_gap"))
    new.pipeline.record_gap(Gap("kalshi", "c-new", 1, NOON - S, NOON + 3 * S, "sequence_gap"))
    old.spool.state.clean, old.spool.state.covered_ns = True, NOON + S
    old.spool.save_state()
    await new.take_over(old.folder)

    (gap,) = new.pipeline.gaps
    assert (gap.from_ns, gap.to_ns) == (NOON + S, NOON + 3 * S)


async def test_memory_is_bounded_and_what_was_let_go_too_early_is_a_gap(
    pair: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    monkeypatch.setattr(standing, "MAX_BYTES", 20_000)
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 1))
    for number in range(1, 400):
        new.receive(NOON + number * 10 * MS, *frames(number, number + 1))
    assert new.standby.held_bytes < 21_000
    await new.take_over(old.folder)

    (gap,) = new.pipeline.gaps
    assert gap.from_ns <= NOON
    assert NOON + 3 * S < gap.to_ns < NOON + 4 * S
    trades = [event for event in live(new) if isinstance(event, Trade) and event.connection == "c-new"]
    assert [event.received_ns > gap.to_ns for event in trades] == [True] * len(trades)
    assert trades


async def test_without_anything_of_the_old_connector_the_takeover_goes_by_time(
    pair: tuple[Side, Side], tmp_path: Path
) -> None:
    _, new = pair
    new.receive(NOON, snapshot(1), *frames(0, 2))
    await new.take_over(tmp_path / "gone")

    new.receive(NOON + S, *frames(2, 3))
    assert new.pipeline.standby is None
    assert sum(isinstance(event, Quote) for event in live(new)) == 3
    assert shown(live(new))[0] == "new book 100"


def test_a_spool_that_is_not_there_is_an_empty_predecessor(tmp_path: Path) -> None:
    found = read_predecessor(tmp_path / "none", "kalshi")
    assert (found.covered_ns, found.unsent, found.latest) == (0, [], {})


def test_numbers_become_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == ((1, 3), (7, 7), (9, 10))
    assert ranges([]) == ()
    assert Position(0, 5) < Position(1, 0)
