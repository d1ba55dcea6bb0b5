"""Real recorded frames through decoder and mapper, beside an oracle that shares no code with them (JSON, Decimal)."""

import json
from decimal import Decimal
from typing import Any

import pytest

from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.legacy import LegacyKalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.market.book import OrderBook
from ssmd.market.events import Kind, MarketStatus, OrderBookUpdate, Quote, Side, Status, Trade
from tests.tapes import gold_tape, gold_tapes, lines, renumbered, tape

MILLION = Decimal(1_000_000)


def micros(text: str) -> int:
    value = Decimal(text) * MILLION
    assert value == int(value)
    return int(value)


class Oracle:
    """What the frames say, computed the slow and obvious way."""

    def __init__(self) -> None:
        self.books: dict[str, dict[str, dict[Decimal, Decimal]]] = {}

    def follow(self, frame: bytes) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(frame)
        body = message["msg"]
        if message["type"] == "orderbook_snapshot":
            self.books[body["market_ticker"]] = {
                side: {Decimal(price): Decimal(size) for price, size in body.get(f"{side}_dollars_fp", [])}
                for side in ("yes", "no")
            }
        elif message["type"] == "orderbook_delta":
            side = self.books[body["market_ticker"]][body["side"]]
            price = Decimal(body["price_dollars"])
            side[price] = side.get(price, Decimal(0)) + Decimal(body["delta_fp"])
            if side[price] == 0:
                del side[price]
        return message

    def book(self, ticker: str) -> tuple[dict[int, int], dict[int, int]]:
        yes, no = self.books[ticker]["yes"], self.books[ticker]["no"]
        return (
            {int(price * MILLION): int(size * MILLION) for price, size in yes.items()},
            {int((1 - price) * MILLION): int(size * MILLION) for price, size in no.items()},
        )

    def level(self, body: dict[str, Any]) -> tuple[int, int]:
        price = Decimal(body["price_dollars"])
        size = self.books[body["market_ticker"]][body["side"]].get(price, Decimal(0))
        return int((price if body["side"] == "yes" else 1 - price) * MILLION), int(size * MILLION)


def check_trade(event: object, message: dict[str, Any], received_ns: int) -> None:
    body = message["msg"]
    buys = {"yes": Side.BUY, "no": Side.SELL}[body.get("taker_outcome_side") or body["taker_side"]]
    time_ns = body["ts_ms"] * 1_000_000 if "ts_ms" in body else body["ts"] * 1_000_000_000
    assert event == Trade(
        exchange_ns=time_ns,
        received_ns=received_ns,
        ticker=body["market_ticker"],
        connection="c-1",
        sid=message["sid"],
        seq=message["seq"],
        price=micros(body["yes_price_dollars"]),
        size=micros(body["count_fp"]),
        side=buys,
        trade_id=body["trade_id"],
    )


@pytest.mark.replay
@pytest.mark.parametrize("name", gold_tapes() or ["absent"])
def test_a_recorded_market_gives_the_oracle_s_books_and_trades(name: str) -> None:
    decoder, mapper, oracle = KalshiDecoder(), KalshiMapper("kalshi", "c-1"), Oracle()
    rebuilt: dict[str, OrderBook] = {}
    trades = deltas = 0
    for n, (received_ms, frame) in enumerate(renumbered(lines(gold_tape(name)))):
        received_ns = received_ms * 1_000_000
        decoded = decoder.decode(frame)
        assert decoded.inline
        assert decoded.problem == ""
        event = mapper.map(decoded, received_ns)
        message = oracle.follow(frame)
        if message["type"] == "trade":
            trades += 1
            check_trade(event, message, received_ns)
            continue
        assert isinstance(event, OrderBookUpdate)
        ticker = message["msg"]["market_ticker"]
        rebuilt.setdefault(ticker, OrderBook()).apply(event)
        if message["type"] == "orderbook_delta":
            deltas += 1
            assert event.kind is Kind.DELTA
            assert (event.bids + event.asks) == (oracle.level(message["msg"]),)
            assert bool(event.bids) == (message["msg"]["side"] == "yes")
            assert event.exchange_ns == message["msg"]["ts_ms"] * 1_000_000
        if n % 200 == 0 or event.kind is Kind.SNAPSHOT:
            assert (rebuilt[ticker].bids, rebuilt[ticker].asks) == oracle.book(ticker)
            assert not rebuilt[ticker].crossed()
    for ticker, book in rebuilt.items():
        assert (book.bids, book.asks) == oracle.book(ticker)
        (snapshot,) = mapper.snapshots([ticker])
        assert isinstance(snapshot, OrderBookUpdate)
        assert (dict(snapshot.bids), dict(snapshot.asks)) == oracle.book(ticker)
    assert trades
    assert deltas > 10_000
    assert mapper.take_gaps() == []
    assert mapper.take_problems() == {}


@pytest.mark.replay
def test_a_frame_taken_out_of_a_recording_makes_one_gap_and_a_book_that_waits_for_its_snapshot() -> None:
    names = gold_tapes() or ["absent"]
    frames = [frame for _, frame in renumbered(lines(gold_tape(names[0])))]
    lost = next(n for n, frame in enumerate(frames) if n > 5_000 and b'"orderbook_delta"' in frame)
    decoder, mapper = KalshiDecoder(), KalshiMapper("kalshi", "c-1")
    unmapped = 0
    for n, frame in enumerate(frames[:10_000]):
        if n == lost:
            continue
        decoded = decoder.decode(frame)
        event = mapper.map(decoded, n)
        if n > lost and decoded.type == "orderbook_delta":
            assert event is None
            unmapped += 1
    message = json.loads(frames[lost])
    (gap,) = mapper.take_gaps()
    assert (gap.sid, gap.last_seq, gap.next_seq) == (message["sid"], message["seq"] - 1, message["seq"] + 1)
    assert gap.tickers == (message["msg"]["market_ticker"],)
    assert mapper.stale_tickers == {message["msg"]["market_ticker"]}
    assert mapper.take_problems() == {"stale_delta": unmapped}


@pytest.mark.replay
def test_a_real_reconnect_starts_a_new_mapper_from_its_snapshot() -> None:
    path = tape("kalshi_slices", "reconnect_KXGOLD15M-26AUG102030-30_lines1-6000.ndjson.gz")
    frames = list(lines(path))
    before, after = frames[:4079], frames[4079:]
    assert b'"orderbook_snapshot"' in after[0][1]
    decoder = KalshiDecoder()
    for part in (before, after):
        mapper, oracle = KalshiMapper("kalshi", "c-1"), Oracle()
        mapped = 0
        for _, frame in renumbered(iter(part)):
            event = mapper.map(decoder.decode(frame), 1)
            if b'"orderbook_delta"' in frame and not oracle.books:
                assert event is None  # deltas before any snapshot cannot be turned into sizes
                continue
            oracle.follow(frame)
            mapped += event is not None
        for ticker in oracle.books:
            (snapshot,) = mapper.snapshots([ticker])
            assert isinstance(snapshot, OrderBookUpdate)
            assert (dict(snapshot.bids), dict(snapshot.asks)) == oracle.book(ticker)
        assert mapped > 1_900


@pytest.mark.replay
def test_single_frames_of_many_eras_are_known() -> None:
    expected: dict[str, Any] = {
        "ticker": Quote,
        "trade": Trade,
        "orderbook_snapshot": OrderBookUpdate,
        "market_lifecycle_v2": MarketStatus,
    }
    path = tape("kalshi_verbatim", "kalshi_ws_frames_verbatim.jsonl")
    seen = set()
    for line in path.read_text().splitlines():
        record = json.loads(line)
        legacy = record["date"] < "2026-03-12"
        decoder = LegacyKalshiDecoder() if legacy else KalshiDecoder()
        frame = record["raw"].encode()
        decoded = decoder.decode(frame)
        assert decoded.type == json.loads(frame)["type"]
        assert decoded.inline
        event = KalshiMapper("kalshi", "c-1").map(decoded, 1)
        seen.add(decoded.type)
        if decoded.type == "cfbenchmarks_value":
            assert decoded.problem == "unknown_type"
        elif '"market_id":""' in record["raw"]:
            assert event is None  # a market that does not exist
        elif decoded.type in expected:
            assert isinstance(event, expected[decoded.type])
            assert decoded.problem == ""
        if decoded.type == "trade":
            check_trade(event, json.loads(frame), 1)
        if isinstance(event, MarketStatus):
            assert event.status in (Status.DETERMINED, Status.SETTLED)
            assert event.exchange_ns > 0
    assert len(seen) >= 9
