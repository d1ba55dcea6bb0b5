"""The Python client on a real gateway: live events, connections that break anywhere, restarts, slow programs."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from ssmd.client import (
    BookState,
    Client,
    Event,
    Gap,
    GatewayAway,
    GatewayError,
    NoBook,
    OrderBook,
    Stream,
    Subscribed,
    Ticker,
    Trade,
)
from ssmd.client import stream as stream_module
from ssmd.market.events import SCALE, Level
from tests.fakes.cutting_proxy import CuttingProxy
from tests.flow.gateway_stage import Stage, running, until
from tests.unit.gateway.events import T0, book, delta, gap, quote, trade

FAST = {"requests_per_minute": 1_000_000, "requests_per_hour": 60_000_000, "burst": 100_000, "clients_per_address": 500}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(stream_module, "LONGEST_WAIT_S", 0.1)


@pytest.fixture
async def proxy() -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy()
    await proxy.start(0)
    yield proxy
    await proxy.stop()


async def take(stream: Stream, kind: type, within_s: float = 20.0) -> Any:
    """The next event of a kind."""
    async with asyncio.timeout(within_s):
        async for event in stream:
            if isinstance(event, kind):
                return event
    raise AssertionError("the stream has ended")


async def take_trades(stream: Stream, last: str, within_s: float = 30.0) -> list[Event]:
    """All events to the trade with this id."""
    found: list[Event] = []
    async with asyncio.timeout(within_s):
        async for event in stream:
            found.append(event)
            if isinstance(event, Trade) and event.trade_id == last:
                return found
    raise AssertionError("the stream has ended")


async def with_book(stage: Stage, *tickers: str) -> None:
    for ticker in tickers:
        stage.publish(book(ticker, 1, bids=((440_000, 100_000_000),), asks=((470_000, 5_500_000),)))
    await until(lambda: all(ticker in stage.gateway.hub.board.books for ticker in tickers))


async def test_events_come_typed_and_exact_and_the_book_is_kept() -> None:
    async with running() as stage, Client(stage.url) as client:
        await with_book(stage, "A")
        stream = client.stream("A", "B")
        first = await take(stream, Subscribed)
        assert (first.symbols, first.unknown, first.resumed) == (("A", "B"), ("B",), None)
        whole = await take(stream, OrderBook)
        assert whole.kind == "snapshot"
        assert whole.bids[0].price == Decimal("0.44")
        stage.publish(trade("A", 1), delta("A", 2, bids=((450_000, 7_000_000),)), quote("A"))
        told = await take(stream, Trade)
        assert (told.price, told.size, told.side) == (Decimal("0.45"), Decimal(10), "buy")
        assert told.time.year == 2023
        assert (await take(stream, Ticker)).bid == Decimal("0.44")
        kept = client.books["A"]
        assert kept.best_bid == (Decimal("0.45"), Decimal(7))
        assert (kept.spread, kept.mid, kept.state) == (Decimal("0.02"), Decimal("0.46"), "live")
        with pytest.raises(NoBook, match="no book of 'B'"):
            client.books["B"]


async def test_a_cut_connection_goes_on_with_every_trade_exactly_once(proxy: CuttingProxy) -> None:
    async with running(limits=FAST) as stage, Client(proxy.url) as client:
        proxy.to = stage.gateway.port
        await with_book(stage, "A")
        gaps: list[Gap] = []
        stream = client.stream("A", on_gap=gaps.append)
        await take(stream, OrderBook)
        await until(lambda: stream._follower._whole)
        seen: list[Event] = []
        for n in range(1, 21):
            stage.publish(trade("A", n))
            seen += await take_trades(stream, f"A/{n}")
            proxy.cut()
            await asyncio.sleep(random.Random(n).choice([0, 0.01, 0.05]))
        assert [e.trade_id for e in seen if isinstance(e, Trade)] == [f"A/{n}" for n in range(1, 21)]
        assert all(e.resumed for e in seen if isinstance(e, Subscribed))
        assert gaps == []
        assert stream.connections > 10


@pytest.mark.parametrize("seed", range(6))
async def test_cut_after_any_byte_books_equal_the_truth_and_trades_come_once(seed: int) -> None:
    rng = random.Random(seed)
    proxy = CuttingProxy(rng.choice([150, 400, 700, 1_500, 4_000]) + rng.randrange(300) for _ in range(25))
    tickers = [f"T{n}" for n in range(8)]
    async with running(limits=FAST) as stage:
        await proxy.start(stage.gateway.port)
        try:
            await with_book(stage, *tickers)
            async with Client(proxy.url) as client:
                stream = client.stream("*")
                seen: list[Event] = []
                await take(stream, Subscribed)
                seqs = dict.fromkeys(tickers, 1)
                for n in range(1, 401):
                    ticker = tickers[-1] if n == 400 else rng.choice(tickers)
                    seqs[ticker] += 1
                    price, size = rng.randrange(1, 99) * 10_000, rng.choice([0, 1, 5]) * SCALE
                    bids: tuple[Level, ...]
                    asks: tuple[Level, ...]
                    bids, asks = (((price, size),), ()) if rng.random() < 0.5 else ((), ((price, size),))
                    stage.publish(delta(ticker, seqs[ticker], bids=bids, asks=asks), trade(ticker, n))
                    if n % 7 == 0:
                        await asyncio.sleep(0.002)
                seen += await take_trades(stream, f"{tickers[-1]}/400")
                await until(lambda: stream._follower._whole and not stream._follower._asked)
                ids = [e.trade_id for e in seen if isinstance(e, Trade)]
                assert not [e for e in seen if isinstance(e, Gap)]
                assert len(ids) == len(set(ids)) == 400
                await until(lambda: all(same(stage, client, ticker) for ticker in tickers), 10)
                assert stream.connections > 3
                assert {client.books[ticker].state for ticker in tickers} == {"live"}
        finally:
            await proxy.stop()


def same(stage: Stage, client: Client, ticker: str) -> bool:
    truth, kept = stage.gateway.hub.board.books[ticker], client.books[ticker]
    return [(int(p * SCALE), int(s * SCALE)) for p, s in (*kept.bids, *kept.asks)] == [
        *truth.sorted_bids(), *truth.sorted_asks()
    ]  # fmt: skip


async def test_a_gateway_that_was_restarted_is_a_gap_and_whole_books(proxy: CuttingProxy) -> None:
    gaps: list[Gap] = []

    async def on_gap(event: Gap) -> None:
        gaps.append(event)

    async with Client(proxy.url) as client:
        stream = client.stream("A", on_gap=on_gap)
        async with running() as stage:
            proxy.to = stage.gateway.port
            await with_book(stage, "A")
            await take(stream, OrderBook)
            stage.publish(trade("A", 1))
            await take(stream, Trade)
            seq = stream.seq
        await until(lambda: client.books["A"].state == "away")
        async with running() as stage:
            stage.books["A"] = book("A", 9, bids=((990_000, 1_000_000),))
            proxy.to = stage.gateway.port
            stage.publish(book("A", 9, bids=((990_000, 1_000_000),)))
            again = await take(stream, Subscribed)
            assert again.resumed is False
            missed = await take(stream, Gap)
            assert gaps == [missed]
            assert missed.kind == "resume_failed"
            assert missed.from_seq == (seq or 0) + 1
            assert missed.from_ts <= missed.to_ts <= time.time_ns() // 1_000_000
            await until(lambda: client.books["A"].state == "live")
            assert client.books["A"].bids == ((Decimal("0.99"), Decimal(1)),)


async def test_outside_the_window_a_gap_says_so(proxy: CuttingProxy) -> None:
    async with running(resume_s=1, limits=FAST) as stage, Client(proxy.url) as client:
        proxy.to = stage.gateway.port
        stream = client.stream("*", channels=["trade"])
        await take(stream, Subscribed)
        stage.publish(trade("A", 1))
        await take(stream, Trade)
        proxy.open = False
        proxy.cut()
        await asyncio.sleep(2.5)
        stage.publish(trade("A", 2))
        await asyncio.sleep(0.1)
        proxy.open = True
        assert (await take(stream, Gap)).kind == "resume_failed"
        stage.publish(trade("A", 3))
        assert (await take(stream, Trade)).trade_id == "A/3"


async def test_a_slow_program_is_told_what_was_given_up_and_its_book_is_right() -> None:
    async with running() as stage, Client(stage.url) as client:
        await with_book(stage, "A")
        calls: list[Gap] = []
        stream = client.stream("A", max_waiting=50, on_gap=calls.append)
        await take(stream, OrderBook)
        for n in range(1, 301):
            stage.publish(trade("A", n), delta("A", n + 1, bids=((n * 1_000, n * SCALE),)))
        await until(lambda: stream.dropped > 500 and client.books["A"].best_bid == (Decimal("0.44"), Decimal(100)))
        await until(lambda: len(client.books["A"].bids) == 301)
        told = await take(stream, Gap)
        assert calls == [told]
        assert told.kind == "slow_consumer"
        assert told.to_seq - told.from_seq + 1 == stream.dropped
        rest = await take_trades(stream, "A/300")
        assert len(rest) <= 50
        assert stream.waiting <= 50


async def test_gaps_and_stale_books_of_the_exchange_side_are_told() -> None:
    async with running() as stage, Client(stage.url) as client:
        await with_book(stage, "A")
        stream = client.stream("A")
        await take(stream, OrderBook)
        stage.publish(gap())
        assert (await take(stream, Gap)).kind == "upstream"
        stale = await take(stream, BookState)
        assert stale.state == "stale"
        assert client.books["A"].state == "stale"
        stage.publish(book("A", 2, sid=2, at=T0 + 2 * 10**9, bids=((10_000, SCALE),)))
        assert (await take(stream, OrderBook)).kind == "snapshot"
        await until(lambda: client.books["A"].state == "live")


async def test_modes_conflated_and_latest() -> None:
    async with running() as stage, Client(stage.url) as client:
        await with_book(stage, "A")
        conflated = client.stream("A", mode="conflated", interval_ms=10)
        latest = client.stream("A", mode="latest", interval_ms=20)
        await take(conflated, OrderBook)
        stage.publish(trade("A", 1))
        assert (await take(conflated, Trade)).trade_id == "A/1"
        assert (await take(latest, OrderBook)).kind == "snapshot"
        assert (await take(latest, Trade)).trade_id == "A/1"
        stage.publish(trade("A", 2))
        await take_trades(latest, "A/2")


async def test_a_snapshot_without_a_stream() -> None:
    async with running() as stage, Client(stage.url) as client:
        await with_book(stage, "A")
        stage.publish(trade("A", 1))
        await until(lambda: bool(stage.gateway.hub.board.trades("A", 1)))
        found = await client.snapshot("A", "NOBODY")
        assert list(found) == ["A"]
        assert found["A"].book is not None
        assert found["A"].trade is not None
        assert found["A"].quote is None


async def test_an_operator_who_changes_the_mode_changes_no_truth() -> None:
    async with running() as stage, Client(stage.url) as client:
        await with_book(stage, "A")
        stream = client.stream("A")
        await take(stream, OrderBook)
        await until(lambda: stream._follower._whole)
        endpoint = stage.gateway._stream
        endpoint.actions.set_mode(endpoint.connected()[0], "conflated", 10)
        assert (await take(stream, Subscribed)).mode == "conflated"
        stage.publish(delta("A", 2, bids=((450_000, SCALE),)))
        await take(stream, OrderBook)
        assert client.books["A"].best_bid == (Decimal("0.45"), Decimal(1))
        assert client.books["A"].state == "live"


async def test_a_gateway_that_is_away_at_the_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "FIRST_PATIENCE_S", 0.2)
    async with Client("http://127.0.0.1:9") as client:
        with pytest.raises(GatewayAway, match=r"127\.0\.0\.1:9 cannot be reached") as raised:
            await anext(client.stream("A"))
        assert "make up" in raised.value.next
        with pytest.raises(GatewayAway):
            await client.snapshot("A")


async def test_a_gateway_that_comes_later_is_found_by_a_patient_stream(proxy: CuttingProxy) -> None:
    proxy.open = False
    async with Client(proxy.url) as client:
        stream = client.stream("A", patience_s=20)
        waiting = asyncio.create_task(take(stream, Subscribed))
        await asyncio.sleep(0.2)
        async with running() as stage:
            proxy.to, proxy.open = stage.gateway.port, True
            await waiting


@pytest.mark.parametrize("symbol", ["", "a\nb", "\x00", "x" * 1_000, "\ud800", "💥", "../../etc", "*\x1b[2J"])
async def test_hostile_tickers_are_an_error_of_one_line_or_unknown(symbol: str) -> None:
    async with running() as stage, Client(stage.url) as client:
        said: str = ""
        try:
            assert (await take(client.stream(symbol), Subscribed)).unknown == (symbol,)
        except GatewayError as error:
            said = error.detail
        assert said.isprintable()
        assert len(said) < 500


async def test_what_makes_no_sense_is_refused_before_it_is_sent() -> None:
    client = Client()
    wrong: list[dict[str, Any]] = [
        {"channels": ["nothing"]}, {"mode": "fast"}, {"interval_ms": 5}, {"mode": "conflated", "interval_ms": 5},
        {"max_waiting": 0}, {"channels": []},
    ]  # fmt: skip
    for settings in wrong:
        with pytest.raises(GatewayError):
            client.stream("A", **settings)
    for symbols in ([], ["x"] * 0, [str(n) for n in range(1_025)]):
        with pytest.raises(GatewayError, match="1 to 1024"):
            client.stream(symbols)
    with pytest.raises(GatewayError, match="single tickers"):
        client.stream("*", mode="latest")


async def test_a_stream_that_is_left_leaves_the_gateway() -> None:
    async with running() as stage, Client(stage.url) as client:
        async with client.stream("A") as stream:
            await take(stream, Subscribed)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await until(lambda: not stage.gateway.hub.fanout.clients)
        assert len(client.books) == 0
