"""A connector that stands by goes on exactly where the other one ended: by content, not by the clock alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ssmd.archive.handover import Handover, read_parts, store_handover
from ssmd.clock import NS_PER_DAY, day_of
from ssmd.connector import standby as standing
from ssmd.connector import takeover as taking
from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Conversation, Pipeline
from ssmd.connector.predecessor import Predecessor, read_predecessor
from ssmd.connector.spool import HANDOVER, OUT, RAW, Position, Spool, read_entries
from ssmd.connector.standby import Standby, ranges
from ssmd.connector.takeover import Readiness, Takeover
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.session import KalshiSession
from ssmd.market.events import Event, Gap, Kind, OrderBookUpdate, Quote, Trade
from ssmd.middleware.storage.memory import MemoryStorage
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
        self.abandoned: Conversation | None = None

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

    def abandon(self, conversation: Conversation | None) -> None:
        self.abandoned = conversation

    async def give_up(self, folder: Path, current: Conversation | None) -> Takeover:
        """A takeover that cannot go on with the connection that stood by."""
        takeover = Takeover("kalshi", self.pipeline, folder, lambda: Readiness(current, ()), self.abandon)
        await takeover.look_back()
        assert not await takeover.run()
        return takeover

    async def take_over(self, folder: Path | None, missing: tuple[str, ...] | None = ()) -> Takeover:
        takeover = Takeover(
            "kalshi", self.pipeline, folder, lambda: Readiness(self.conversation, missing), self.abandon
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


async def test_what_came_before_the_new_connection_began_is_not_waited_for(pair: tuple[Side, Side]) -> None:
    old, new = pair
    old.receive(NOON, snapshot(1), *frames(0, 1))
    await asyncio.sleep(0)  # these are written
    new.receive(NOON + 400 * MS, snapshot(1).replace(b"100.00", b"101.00"))
    old.receive(NOON + 500 * MS, delta(3, 500))
    new.receive(NOON + 500 * MS, delta(2, 500))
    new.receive(NOON + 600 * MS, delta(3, 600))
    await new.take_over(old.folder)

    assert not new.pipeline.gaps
    assert shown(live(new))[-2:] == ["new book 102", "new delta 103"]


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


async def test_an_old_connection_that_lagged_and_was_killed_in_its_backlog_is_followed_where_it_had_come_to(
    pair: tuple[Side, Side],
) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 1))
    for number in range(1, 60):
        new.receive(NOON + number * 100 * MS, *frames(number, number + 1))
    old.receive(NOON + 6 * S, *frames(1, 20))  # it stood still for 6 s and had read no more than this
    await new.take_over(old.folder)

    words = shown(live(new))
    assert [word for word in words if "trade" in word] == [
        f"{'old' if number < 20 else 'new'} trade {number}" for number in range(60)
    ]
    assert [word for word in words if "new book" in word] == ["new book 120"]
    assert not new.pipeline.gaps


async def test_a_connection_that_lags_for_seconds_is_waited_for_and_no_book_goes_back(pair: tuple[Side, Side]) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 1))
    for number in range(1, 50):
        old.receive(NOON + number * 100 * MS, *frames(number, number + 1))
    task = asyncio.create_task(new.take_over(old.folder))
    for number in range(1, 60):
        await asyncio.sleep(0.001)
        new.receive(NOON + 5 * S + number * 100 * MS, *frames(number, number + 1))
    await task

    after: list[Event] = [event for event in live(new) if not isinstance(event, Gap) and event.connection == "c-new"]
    assert shown(after)[0] == "new book 150"
    assert [word for word in shown(after) if "trade" in word] == [f"new trade {number}" for number in range(50, 60)]
    assert not new.pipeline.gaps


async def test_where_the_old_one_ended_is_a_gap_when_the_new_connection_lacks_what_it_published_last(
    pair: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_QUIET_S", 0.05)
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 3))
    old.receive(NOON + MS, trade(4, 3).replace(b"id-3", b"id-x"))  # the old connection alone gets it
    new.receive(NOON + 200 * MS, *frames(3, 120))
    await new.take_over(old.folder)
    new.receive(NOON + 300 * MS, *frames(120, 121))

    (gap,) = new.pipeline.gaps
    assert (gap.from_ns, gap.to_ns, gap.tickers) == (NOON + MS - 50 * MS, NOON + 200 * MS, None)
    after: list[Event] = [event for event in live(new) if not isinstance(event, Gap) and event.connection == "c-new"]
    assert shown(after) == ["new book 220", "new delta 221", "new trade 120", "new quote 120"]
    (takeover,) = [handover for handover in handovers(new) if handover.first_n is not None]
    assert (takeover.first_n, takeover.also, takeover.last_n) == (1 + 120 * 3, (), None)


async def test_a_connection_that_stays_behind_the_old_one_is_given_up(
    pair: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_QUIET_S", 0.05)
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 3))
    old.receive(NOON + S, *frames(3, 10))
    stood_by = new.conversation
    await new.give_up(old.folder, stood_by)

    assert new.abandoned is stood_by
    assert [word for word in shown(live(new)) if word.startswith("new")] == []
    assert not [handover for handover in handovers(new) if handover.first_n is not None]


async def test_without_a_live_connection_nothing_of_the_one_that_stood_by_is_published(pair: tuple[Side, Side]) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON, snapshot(1), *frames(0, 3))
    before = live(new)
    takeover = await new.give_up(old.folder, None)

    assert live(new) == before
    assert takeover.old.ended_ns == NOON - 50 * MS
    new.conversation = Conversation("c-next", new.new_mapper("c-next"), KalshiSession())
    new.receive(NOON + S, snapshot(1), *frames(3, 4, base=3))
    assert shown(live(new)[len(before) :]) == ["next book 100", "next delta 101", "next trade 3", "next quote 3"]


async def test_a_connection_that_began_after_the_old_ones_end_leaves_a_gap_up_to_its_first_frame(
    pair: tuple[Side, Side],
) -> None:
    old, new = pair
    old.receive(NOON, snapshot(1), *frames(0, 3))
    new.receive(NOON + 3 * S, snapshot(1), *frames(30, 32, base=30))
    await new.take_over(old.folder)

    (gap,) = new.pipeline.gaps
    assert (gap.from_ns, gap.to_ns) == (NOON - 50 * MS, NOON + 3 * S)
    assert "new trade 30" in shown([event for event in live(new) if not isinstance(event, Gap)])


async def test_a_clock_that_was_put_back_does_not_hide_what_came_after(pair: tuple[Side, Side]) -> None:
    old, new = pair
    for side in pair:
        side.receive(NOON + 3 * S, snapshot(1), *frames(0, 5))
        side.receive(NOON + S, *frames(5, 8))  # put back 3 s, and a second later
    new.receive(NOON + S + 20 * MS, *frames(8, 12))
    await new.take_over(old.folder)

    trades = [word for word in shown(live(new)) if "trade" in word]
    assert trades == [f"{'old' if number < 8 else 'new'} trade {number}" for number in range(12)]
    assert not new.pipeline.gaps
    assert read_predecessor(old.folder, "kalshi").last_ns == NOON + S


async def test_a_connection_that_stands_by_for_weeks_is_known_to_on_every_day(pair: tuple[Side, Side]) -> None:
    _, new = pair
    storage = MemoryStorage()
    for number in range(20):
        new.receive(NOON + number * NS_PER_DAY, *frames(number, number + 1))
        new.receive(NOON + number * NS_PER_DAY + S, quote(number))
    marks = []
    for segment in sorted(new.folder.glob("*.spool")):
        marks += [entry for entry in read_entries(segment) if entry.kind == HANDOVER]
    assert len(marks) == 20
    for mark in marks:
        await store_handover(storage, "raw", msgspec.json.decode(mark.body, type=Handover))

    for number in range(20):
        parts = await read_parts(storage, "raw", "kalshi", day_of(NOON + number * NS_PER_DAY))
        assert not parts["c-new"].takes(5)


def test_a_gap_after_a_connection_that_lagged_begins_where_it_had_come_to() -> None:
    def ended(clean: bool, exchange_ns: int) -> int:
        return Predecessor(NOON, "c-1", clean, NOON, event_ns=NOON, exchange_ns=exchange_ns).ended_ns

    assert ended(False, NOON - 4 * S) == NOON - 4 * S
    assert ended(False, NOON - MS) == ended(False, 1) == NOON - 50 * MS
    assert ended(True, NOON - 4 * S) == NOON


async def test_frames_of_a_time_in_which_another_connector_was_active_say_nothing_of_how_far_it_came(
    pair: tuple[Side, Side],
) -> None:
    _, new = pair
    new.receive(NOON + 9 * S, *frames(0, 3))
    state = new.spool.state
    state.covered_ns, state.connection, state.counts_from = NOON, "c-old", new.spool.place
    new.spool.save_state()

    found = read_predecessor(new.folder, "kalshi")
    assert (found.covered_ns, found.connection, found.last_ns) == (NOON, "c-old", NOON)
    new.receive(NOON + 10 * S, *frames(3, 4))
    assert read_predecessor(new.folder, "kalshi").covered_ns == NOON + 10 * S


def test_a_spool_that_is_not_there_is_an_empty_predecessor(tmp_path: Path) -> None:
    found = read_predecessor(tmp_path / "none", "kalshi")
    assert (found.covered_ns, found.unsent, found.latest) == (0, [], {})


def test_numbers_become_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == ((1, 3), (7, 7), (9, 10))
    assert ranges([]) == ()
    assert Position(0, 5) < Position(1, 0)
