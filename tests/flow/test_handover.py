"""Two connectors of a feed: the second one stands by and takes over; nothing is lost, doubled or turned back."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from ssmd.archive.handover import Handover, read_handovers
from ssmd.backfill import CompactReport, compact
from ssmd.clock import NS_PER_S, now_ns
from ssmd.connector import predecessor, role, service
from ssmd.connector.conversation import TRANSIT_NS
from ssmd.connector.predecessor import Predecessor
from ssmd.connector.role import Role
from ssmd.connector.takeover import Takeover
from ssmd.errors import ConfigError
from ssmd.market.book import OrderBook
from ssmd.market.events import EVENT_TYPES, Event, Gap, Kind, MarketStatus, OrderBookUpdate, Quote, Trade
from ssmd.middleware.transport.interface import Delivered, Outgoing
from ssmd.quality.verify import verify
from ssmd.simulator.options import SimulatorOptions
from ssmd.wire.normalized import decode
from tests.checker.check import Result
from tests.flow.gateway_stage import WebSocketReader, connected, running
from tests.flow.stack import Stack, capture

# How long a connection is waited for is part of what is asserted: on a starved machine handovers are gaps.
pytestmark = pytest.mark.alone

BUSY = SimulatorOptions(rate=1000, window_s=60, heartbeat_s=1.0)
LASTING = replace(BUSY, window_s=900)  # no market ends meanwhile


async def both(stack: Stack, archiver: bool = True) -> None:
    """The first connector publishes, the second one is ready to take over."""
    stack.start_connector()
    if archiver:
        stack.start_archiver()
    await stack.until(lambda: stack.sent > 300)
    stack.start_second()
    await stack.until(lambda: stack.second.health().get("books_ready") is True)
    await more(stack, 1000)


async def more(stack: Stack, frames: int) -> None:
    before = stack.sent
    await stack.until(lambda: stack.sent > before + frames)


def events(stack: Stack) -> Iterator[Event]:
    """What the live stream got, in order."""
    message: Delivered
    for message in stack.transport.stream("kalshi").messages:
        name = message.subject.split(b".")[1].decode()
        assert name in EVENT_TYPES
        yield decode(name, message.payload)


def check_stream(stack: Stack) -> int:
    """Trades once; books, quotes and states never go back in time; books continue whole. How many connections."""
    trades: Counter[str] = Counter()
    times: dict[tuple[type, str], int] = {}
    origin: dict[str, str] = {}
    connections: list[str] = []
    books: dict[str, OrderBook] = {}
    for event in events(stack):
        if isinstance(event, Gap):
            continue
        if event.connection not in connections:
            connections.append(event.connection)
        assert event.connection == connections[-1], "the old connection published after the new one"
        if isinstance(event, Trade):
            trades[event.trade_id] += 1
            continue
        its = (type(event), event.ticker)
        if isinstance(event, OrderBookUpdate):
            if origin.get(event.ticker) != event.connection:
                assert event.kind is Kind.SNAPSHOT, event
                origin[event.ticker] = event.connection
            books.setdefault(event.ticker, OrderBook()).apply(event)
        assert isinstance(event, OrderBookUpdate | Quote | MarketStatus)
        if event.exchange_ns:
            assert event.exchange_ns >= times.get(its, 0), event
            times[its] = event.exchange_ns
    assert trades
    assert max(trades.values()) == 1
    return len(connections)


async def archived(stack: Stack) -> CompactReport:
    """Compact the day and verify it; the report."""
    tomorrow = stack.today + timedelta(days=1)
    report = await compact(
        "kalshi", stack.today, stack.storage, "ssmd-raw", "ssmd-normalized", stack.registry, today=tomorrow
    )
    verified = await verify(
        "kalshi", stack.today, stack.storage, stack.registry, raw_bucket="ssmd-raw",
        normalized_bucket="ssmd-normalized", today=tomorrow,
    )  # fmt: skip
    assert not verified.findings, verified.findings
    return report


async def whole(stack: Stack, connections: int) -> Result:
    """The stream came of so many connections, raw gives what it got, and the independent reader agrees: its verdict."""
    assert check_stream(stack) == connections
    report = await archived(stack)
    assert report.missing_in_stream == report.only_in_stream == {}
    result = stack.check()
    assert not result.findings, result.table()
    return result


async def takeovers(stack: Stack) -> list[Handover]:
    found = await read_handovers(stack.storage, "ssmd-raw", "kalshi", stack.today)
    return [handover for handover in found.values() if handover.first_n is not None]


async def test_the_second_connector_goes_on_where_the_first_one_ends_without_a_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        await both(stack)
        assert stack.connector.health()["role"] == "active"
        assert stack.second.health()["role"] == "standby"
        await stack.stop("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        assert stack.second.health()["role"] == "active"
        await more(stack, 1000)
        assert not stack.registry.gaps("kalshi", stack.today)
        await stack.finish()

        await whole(stack, connections=2)
        (takeover,) = await takeovers(stack)
        assert takeover.from_


async def test_a_killed_connector_is_followed_by_the_one_that_stands_by_without_a_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        await both(stack)
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        stack.start_connector()  # as the supervisor does
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        assert stack.connector.health()["role"] == "standby"
        await more(stack, 1000)
        assert not stack.registry.gaps("kalshi", stack.today)
        await stack.stop("connector")
        await stack.finish()

        await whole(stack, connections=2)


async def test_a_standby_that_is_killed_leaves_no_gap_and_no_event(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        await both(stack)
        await stack.kill("second")
        await more(stack, 150)
        stack.start_second()
        await stack.until(lambda: stack.second.health().get("books_ready") is True)
        await more(stack, 650)
        await stack.stop("second")
        assert not stack.registry.gaps("kalshi", stack.today)
        await more(stack, 150)
        await stack.finish()

        result = await whole(stack, connections=1)
        assert not await takeovers(stack)
        assert len(result.archive.records) == 3


async def test_after_both_were_killed_the_gap_begins_where_the_active_one_ended(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        await both(stack)
        await stack.kill("second")
        await stack.kill("connector")
        await asyncio.sleep(0.3)
        stack.start_second()  # the other one comes first
        await stack.until(lambda: stack.second.health().get("role") == "active")
        stack.start_connector()
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        await more(stack, 650)
        await stack.until(lambda: len(stack.registry.gaps("kalshi", stack.today)) > 0)
        (gap,) = stack.registry.gaps("kalshi", stack.today)
        assert gap.reason == "startup"
        assert gap.to_ns - gap.from_ns < 5_000_000_000
        await stack.stop("second")
        await stack.until(lambda: stack.connector.health()["takeover"] is not None)
        await more(stack, 350)
        assert len(stack.registry.gaps("kalshi", stack.today)) == 1
        await stack.finish()

        await whole(stack, connections=3)


async def test_an_exchange_that_lets_nobody_else_in_makes_the_handover_a_strict_one_with_a_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 300)
        stack.simulator.fault("refuse_429", seconds=3600)
        stack.start_second()
        await stack.until(lambda: "patience" in str(stack.second.health().get("problem")))
        assert stack.second.health()["role"] == "standby"
        assert stack.second.health()["books_ready"] is False
        await stack.stop("connector")
        await stack.until(lambda: stack.second.health()["role"] == "active")
        stack.simulator.fault("refuse_429", seconds=0)
        await stack.until(lambda: stack.second.health()["connected"] is True)
        await more(stack, 650)
        await stack.until(lambda: len(stack.registry.gaps("kalshi", stack.today)) > 0)
        (gap,) = stack.registry.gaps("kalshi", stack.today)
        assert gap.from_ns < gap.to_ns
        await stack.finish()

        await whole(stack, connections=2)


async def test_a_broker_that_is_away_at_the_handover_gets_everything_later_in_order(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        await both(stack)
        stack.transport.up = False
        await more(stack, 500)
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        await more(stack, 350)
        stack.transport.up = True
        await more(stack, 350)
        await stack.until(lambda: "stream" not in stack.second.health()["trouble"])  # type: ignore[operator]
        assert not stack.registry.gaps("kalshi", stack.today)
        stack.start_connector()  # it archives what it had captured
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        await stack.stop("connector")
        await stack.finish()

        assert check_stream(stack) == 2
        report = await archived(stack)
        assert report.only_in_stream == {}
        assert report.missing_in_stream == {}


async def test_the_places_change_again_and_again(tmp_path: Path) -> None:
    async with capture(tmp_path, BUSY) as stack:
        stack.seal_bytes = 70_000
        await both(stack)
        names = ["connector", "second"]
        for turn in range(4):
            active, other = names
            await (stack.stop if turn % 2 else stack.kill)(active)
            await stack.until(lambda other=other: getattr(stack, other).health()["role"] == "active")  # type: ignore[misc]
            (stack.start_connector if active == "connector" else stack.start_second)()
            await stack.until(lambda active=active: getattr(stack, active).health().get("books_ready") is True)  # type: ignore[misc]
            await more(stack, 500)
            names.reverse()
        assert not stack.registry.gaps("kalshi", stack.today)
        await stack.finish()

        await whole(stack, connections=5)


async def missing_trades(stack: Stack, from_ns: int, to_ns: int) -> list[str]:
    """Trades of the exchange's own list, made in this time, that are neither on the live stream nor in a gap."""
    live = {event.trade_id for event in events(stack) if isinstance(event, Trade)}
    gaps = [event for event in events(stack) if isinstance(event, Gap)]
    missing, cursor = [], ""
    async with aiohttp.ClientSession() as session:
        while True:
            query = {"limit": "1000", "cursor": cursor}
            async with session.get(f"{stack.simulator.rest_url}/markets/trades", params=query) as response:
                page = await response.json()
            for trade in page["trades"]:
                made = datetime.fromisoformat(trade["created_time"])
                at_ns = int(made.timestamp() * 1e9)
                covered = any(gap.from_ns - TRANSIT_NS <= at_ns <= gap.to_ns + TRANSIT_NS for gap in gaps)
                if from_ns <= at_ns <= to_ns and trade["trade_id"] not in live and not covered:
                    missing.append(trade["trade_id"])
            cursor = page["cursor"]
            if not cursor:
                return missing


async def ended_well(stack: Stack, from_ns: int) -> None:
    """Finish: no trade is lost without a gap, nothing goes back in time, and raw gives what the stream got."""
    to_ns = now_ns() - NS_PER_S // 2
    await stack.finish()
    assert not await missing_trades(stack, from_ns, to_ns)
    check_stream(stack)
    report = await archived(stack)
    assert report.only_in_stream == {}
    result = stack.check()
    assert not result.findings, result.table()


async def test_a_connector_that_comes_after_the_active_one_went_silent_leaves_a_gap_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        await asyncio.sleep(3600)

    async with capture(tmp_path, LASTING) as stack:
        stack.start_connector()
        stack.start_archiver()
        await more(stack, 650)
        from_ns = now_ns()
        await more(stack, 150)
        monkeypatch.setattr(stack.connector._connections, "_dial", never)
        stack.simulator.fault("close")
        await stack.until(lambda: stack.connector.health()["connected"] is False)
        await asyncio.sleep(1.0)
        stack.start_second()
        await stack.until(lambda: stack.second.health().get("books_ready") is True)
        await more(stack, 150)
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        stack.start_connector()  # it archives what it had captured
        await more(stack, 350)
        (gap,) = [event for event in events(stack) if isinstance(event, Gap)]
        assert NS_PER_S < gap.to_ns - gap.from_ns < 6 * NS_PER_S
        await ended_well(stack, from_ns)


async def test_after_an_outage_of_the_exchange_nothing_of_before_is_published_again(tmp_path: Path) -> None:
    async with capture(tmp_path, LASTING) as stack:
        await both(stack)
        from_ns = now_ns() - NS_PER_S // 2
        stack.simulator.fault("refuse_429", seconds=3600)
        stack.simulator.fault("close")
        each = (stack.connector, stack.second)
        await stack.until(lambda: not any(its.health()["connected"] for its in each))
        before = len(list(events(stack)))
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        await asyncio.sleep(0.3)
        assert len(list(events(stack))) == before
        stack.simulator.fault("refuse_429", seconds=0)
        await stack.until(lambda: stack.second.health()["connected"] is True)
        stack.start_connector()
        await more(stack, 500)
        await ended_well(stack, from_ns)


async def test_both_ending_at_once_leaves_the_place_to_nobody_and_nothing_unrecorded(tmp_path: Path) -> None:
    async with capture(tmp_path, LASTING) as stack:
        await both(stack)
        from_ns = now_ns() - NS_PER_S // 2
        await asyncio.gather(stack.stop("connector"), stack.stop("second"))
        await asyncio.sleep(0.3)
        stack.start_connector()
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        assert not await takeovers(stack)
        await more(stack, 500)
        await ended_well(stack, from_ns)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_takeover_that_is_cut_short_is_a_gap_from_the_old_ones_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    publish, slices = Takeover._publish, [0]

    async def cut_short(self: Takeover, messages: list[Outgoing]) -> None:
        slices[0] += 1
        if slices[0] == 3:  # recorded; its books are due
            await asyncio.sleep(3600)
        await publish(self, messages)

    monkeypatch.setattr(service, "_TAKEOVER_S", 0.2)
    async with capture(tmp_path, LASTING) as stack:
        await both(stack)
        from_ns = now_ns() - NS_PER_S // 2
        monkeypatch.setattr(Takeover, "_publish", cut_short)
        await stack.kill("connector")
        await stack.until(lambda: slices[0] == 3)
        await more(stack, 150)
        await getattr(stack, end)("second")
        monkeypatch.setattr(Takeover, "_publish", publish)
        stack.start_second()
        await stack.until(lambda: stack.second.health().get("role") == "active")
        stack.start_connector()  # it archives what it had captured
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        await more(stack, 500)
        await ended_well(stack, from_ns)


async def test_a_killed_connector_that_comes_back_waits_until_its_spool_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = predecessor.read_predecessor

    def slowly(folder: Path, feed: str) -> Predecessor:
        time.sleep(1.0)
        return read(folder, feed)

    async with capture(tmp_path, LASTING) as stack:
        await both(stack)
        from_ns = now_ns() - NS_PER_S // 2
        monkeypatch.setattr("ssmd.connector.takeover.read_predecessor", slowly)
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["role"] == "active")
        stack.start_connector()
        await asyncio.sleep(0.5)
        assert stack.connector.health() == {"status": "starting"}
        assert stack.second.health()["takeover"] is None
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        assert [each.health()["role"] for each in (stack.connector, stack.second)] == ["standby", "active"]
        assert not [event for event in events(stack) if isinstance(event, Gap)]
        await more(stack, 500)
        await ended_well(stack, from_ns)


async def test_a_third_connector_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "_PATIENCE_S", 0.1)
    held = [Role("kalshi", tmp_path / name) for name in ("a", "b", "c")]
    await held[0].take()
    with pytest.raises(ConfigError, match="already"):
        await held[1].take()  # it may be the one whose spool is still read
    held[0].announce()
    await held[1].take()
    assert [each.name for each in held[:2]] == ["active", "standby"]
    with pytest.raises(ConfigError, match="already"):
        await held[2].take()
    held[0].release()
    await held[1].become_active()
    with pytest.raises(ConfigError, match="already"):
        await held[2].take()
    held[1].announce()
    await held[2].take()
    assert [each.name for each in held[1:]] == ["active", "standby"]
    for each in held:
        each.release()


async def read_on(reader: WebSocketReader) -> None:
    while (await reader.next())["type"] != "closed":
        pass


def truth(stack: Stack, ticker: str) -> tuple[dict[float, float], dict[float, float]]:
    """The exchange's own book, in the words of the gateway."""
    levels = stack.simulator.source.book_levels(ticker, 0)
    assert levels is not None
    bids = {float(price): float(size) for price, size in levels["yes_dollars"]}
    asks = {round(1 - float(price), 6): float(size) for price, size in levels["no_dollars"]}
    return bids, asks


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_client_of_the_gateway_sees_the_handover_as_books_and_no_gap(tmp_path: Path, end: str) -> None:
    async with capture(tmp_path, LASTING) as stack, running(broker=stack.transport) as stage:
        await both(stack, archiver=False)
        async with connected(stage, symbols="*") as reader:
            reading = asyncio.create_task(read_on(reader))
            await more(stack, 350)
            await getattr(stack, end)("connector")
            await stack.until(lambda: stack.second.health()["takeover"] is not None)
            books = stack.second.health()["takeover"]["books"]  # type: ignore[index]
            await more(stack, 650)
            stack.simulator.fault("stall", seconds=60)
            count = -1
            while count < len(reader.messages):  # until all that was sent has come
                count = len(reader.messages)
                await asyncio.sleep(0.5)
            right = [reader.books[ticker] == truth(stack, ticker) for ticker in sorted(reader.books)]
            reading.cancel()
        kinds = Counter(message["type"] for message in reader.messages)
        assert kinds["gap"] == 0
        assert not [message for message in reader.messages if message["type"] == "book_state"]
        trades = Counter(message["trade_id"] for message in reader.messages if message["type"] == "trade")
        assert max(trades.values()) == 1
        snapshots = [m for m in reader.messages if m["type"] == "orderbook" and m["kind"] == "snapshot"]
        assert len(snapshots) >= books * 2
        assert len(right) >= books
        assert all(right)
        await stack.finish()


async def test_a_takeover_ends_although_the_machine_is_overloaded(tmp_path: Path) -> None:
    turns = 0

    async def busy() -> None:
        nonlocal turns
        while True:
            time.sleep(0.5)  # noqa: ASYNC251 - somebody else has the processor
            turns += 1
            await asyncio.sleep(0)

    async with capture(tmp_path, replace(LASTING, rate=3000)) as stack:
        await both(stack)
        load = asyncio.create_task(busy())
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        load.cancel()
        assert turns < 25, "the takeover got too little of the time"
        await stack.finish()
        check_stream(stack)
        assert await takeovers(stack)
