"""Two connectors of a feed: the second one stands by and takes over; nothing is lost, doubled or turned back."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ssmd.archive.handover import Handover, read_handovers
from ssmd.backfill import CompactReport, compact
from ssmd.market.book import OrderBook
from ssmd.market.events import EVENT_TYPES, Event, Gap, Kind, MarketStatus, OrderBookUpdate, Quote, Trade
from ssmd.middleware.transport.interface import Delivered
from ssmd.quality.verify import verify
from ssmd.simulator.options import SimulatorOptions
from ssmd.wire.normalized import decode
from tests.flow.stack import Stack, capture

FAST = SimulatorOptions(rate=3000, window_s=60, heartbeat_s=1.0)


async def both(stack: Stack, archiver: bool = True) -> None:
    """The first connector publishes, the second one is ready to take over."""
    stack.start_connector()
    if archiver:
        stack.start_archiver()
    await stack.until(lambda: stack.sent > 1000)
    stack.start_second()
    await stack.until(lambda: stack.second.health().get("books_ready") is True)
    await more(stack, 3000)


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


async def takeovers(stack: Stack) -> list[Handover]:
    found = await read_handovers(stack.storage, "ssmd-raw", "kalshi", stack.today)
    return [handover for handover in found.values() if handover.first_n is not None]


@pytest.mark.alone
async def test_the_second_connector_goes_on_where_the_first_one_ends_without_a_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        await both(stack)
        assert stack.connector.health()["role"] == "active"
        assert stack.second.health()["role"] == "standby"
        await stack.stop("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        assert stack.second.health()["role"] == "active"
        await more(stack, 3000)
        assert not stack.registry.gaps("kalshi", stack.today)
        await stack.finish()

        assert check_stream(stack) == 2
        report = await archived(stack)
        assert report.missing_in_stream == {}
        assert report.only_in_stream == {}
        (takeover,) = await takeovers(stack)
        assert takeover.from_
        result = stack.check()
        assert not result.findings, result.table()


@pytest.mark.alone
async def test_a_killed_connector_is_followed_by_the_one_that_stands_by_without_a_gap(tmp_path: Path) -> None:
    async with capture(tmp_path, FAST) as stack:
        await both(stack)
        await stack.kill("connector")
        await stack.until(lambda: stack.second.health()["takeover"] is not None)
        stack.start_connector()  # as the supervisor does
        await stack.until(lambda: stack.connector.health().get("books_ready") is True)
        assert stack.connector.health()["role"] == "standby"
        await more(stack, 3000)
        assert not stack.registry.gaps("kalshi", stack.today)
        await stack.stop("connector")
        await stack.finish()

        assert check_stream(stack) == 2
        report = await archived(stack)
        assert report.missing_in_stream == {}
        assert report.only_in_stream == {}
        result = stack.check()
        assert not result.findings, result.table()
