"""The Python client on a real gateway: live events, connections that break anywhere, restarts, slow programs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal

from ssmd.client import Client, Event, Gap, OrderBook, Subscribed, Trade
from tests.flow.gateway_stage import running, until
from tests.unit.gateway.events import book, delta, trade


async def take(stream: AsyncIterator[Event], kind: type, within_s: float = 20.0) -> Event:
    """The next event of a kind."""
    async with asyncio.timeout(within_s):
        async for event in stream:
            if isinstance(event, kind):
                return event
    raise AssertionError("the stream has ended")


async def test_events_come_typed_and_exact_and_the_book_is_kept() -> None:
    async with running() as stage, Client(stage.url) as client:
        stage.publish(book("A", 1, bids=((440_000, 100_000_000),), asks=((470_000, 5_500_000),)))
        await until(lambda: "A" in stage.gateway.hub.board.books)
        stream = client.stream("A", "B")
        first = await take(stream, Subscribed)
        assert isinstance(first, Subscribed)
        assert (first.symbols, first.unknown, first.resumed) == (("A", "B"), ("B",), None)
        whole = await take(stream, OrderBook)
        assert isinstance(whole, OrderBook)
        assert whole.kind == "snapshot"
        assert whole.bids[0].price == Decimal("0.44")
        stage.publish(trade("A", 1), delta("A", 2, bids=((450_000, 7_000_000),)))
        told = await take(stream, Trade)
        assert isinstance(told, Trade)
        assert (told.price, told.size, told.side) == (Decimal("0.45"), Decimal(10), "buy")
        assert told.time.year == 2023
        await take(stream, OrderBook)
        kept = client.books["A"]
        assert kept.best_bid == (Decimal("0.45"), Decimal(7))
        assert (kept.spread, kept.mid, kept.state) == (Decimal("0.02"), Decimal("0.46"), "live")
