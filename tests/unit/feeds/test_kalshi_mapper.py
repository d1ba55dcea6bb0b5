"""Frames to events: each shape and era, sequences, stale books, bad values, old cents."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ssmd.feeds.catalogue import open_feed
from ssmd.feeds.interface import SequenceGap
from ssmd.feeds.kalshi import repeats
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.legacy import LegacyKalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.market.events import EVENT_TYPES, Event, Kind, OrderBookUpdate, Trade

T = "TEST-26NOV22-T1"
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data" / "kalshi" / "frames.json").read_text())


def plain(event: Event) -> dict[str, Any]:
    """The event as plain data, without what is the same in all cases."""
    kind = next(name for name, cls in EVENT_TYPES.items() if isinstance(event, cls))
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    for same, value in (("ticker", T), ("connection", "c-1"), ("received_ns", 99)):
        assert fields.pop(same) == value
    for side in ("bids", "asks"):
        if side in fields:
            fields[side] = [list(level) for level in fields[side]]
    return {"type": kind, **fields}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_shape_gives_the_event_written_beside_it(case: dict[str, Any]) -> None:
    on = date(2026, 11, 22) if case["era"] == "fixed-point" else date(2026, 1, 12)
    parts = open_feed("kalshi", on)
    assert parts.version == case["era"]
    decoded = parts.decoder.decode(case["frame"].encode())
    assert decoded.problem == ""
    assert decoded.inline
    assert decoded.type == json.loads(case["frame"])["type"]
    mapper = parts.new_mapper("c-1")
    event = mapper.map(decoded, 99)
    assert (None if event is None else plain(event)) == case["event"]
    assert mapper.take_gaps() == []


class Feed:
    """A mapper that is fed with messages given as dicts."""

    def __init__(self) -> None:
        self.decoder = KalshiDecoder()
        self.mapper = KalshiMapper("kalshi", "c-1")
        self.seq: dict[int, int] = {}

    def send(self, type_: str, msg: Any = None, sid: int = 1, seq: int | None = None, **envelope: Any) -> Event | None:
        if seq is None:
            seq = self.seq.get(sid, 0) + 1
        self.seq[sid] = seq
        frame = {"type": type_, "sid": sid, "seq": seq, **envelope} | ({} if msg is None else {"msg": msg})
        return self.mapper.map(self.decoder.decode(json.dumps(frame).encode()), 99)

    def snapshot(
        self, ticker: str = T, yes: Any = (("0.45", "10.00"),), no: Any = (("0.50", "5.00"),), **kw: Any
    ) -> Event | None:
        body = {"market_ticker": ticker, "market_id": "m", "yes_dollars_fp": yes, "no_dollars_fp": no}
        return self.send("orderbook_snapshot", body, **kw)

    def delta(
        self, price: str = "0.45", delta: str = "1.00", side: str = "yes", ticker: str = T, **kw: Any
    ) -> OrderBookUpdate | None:
        body = {"market_ticker": ticker, "price_dollars": price, "delta_fp": delta, "side": side, "ts_ms": 5}
        event = self.send("orderbook_delta", body, **kw)
        assert event is None or isinstance(event, OrderBookUpdate)
        return event

    def trade(self, trade_id: str = "t", sid: int = 2, **kw: Any) -> Event | None:
        fields = {"yes_price_dollars": "0.45", "count_fp": "1.00", "taker_outcome_side": "yes", "ts_ms": 5}
        changed = {key: kw.pop(key) for key in (*fields, "market_ticker") if key in kw}
        body = {"trade_id": trade_id, "market_ticker": T, **fields, **changed}
        return self.send("trade", body, sid, **kw)


def test_a_delta_gives_the_level_s_new_absolute_size_and_no_becomes_an_ask() -> None:
    feed = Feed()
    feed.snapshot()
    bought = feed.delta("0.4500", "-2.50")
    assert bought is not None
    assert (bought.kind, bought.bids, bought.asks) == (Kind.DELTA, ((450_000, 7_500_000),), ())
    sold = feed.delta("0.5000", "-5.00", "no")
    assert sold is not None
    assert (sold.bids, sold.asks) == ((), ((500_000, 0),))
    (book,) = feed.mapper.snapshots()
    assert isinstance(book, OrderBookUpdate)
    assert (book.kind, book.bids, book.asks, book.seq) == (Kind.SNAPSHOT, ((450_000, 7_500_000),), (), 3)


def test_a_delta_before_any_snapshot_gives_no_event() -> None:
    feed = Feed()
    assert feed.delta() is None
    assert feed.mapper.take_problems() == {"stale_delta": 1}
    assert feed.mapper.stale_tickers == {T}
    feed.snapshot()
    assert feed.mapper.stale_tickers == frozenset()
    assert feed.delta() is not None


def test_a_gap_makes_the_books_of_its_subscription_stale_until_their_snapshots() -> None:
    feed = Feed()
    feed.snapshot("A")
    feed.snapshot("B")
    feed.snapshot("OTHER", sid=9)
    assert feed.delta(ticker="A", seq=7) is None
    assert feed.mapper.take_gaps() == [SequenceGap(1, 2, 7, ("A", "B"))]
    assert feed.mapper.take_gaps() == []
    assert feed.mapper.stale_tickers == {"A", "B"}
    assert feed.delta(ticker="OTHER", sid=9) is not None
    feed.snapshot("A", yes=[["0.40", "1.00"]])
    update = feed.delta("0.40", "1.00", ticker="A")
    assert update is not None
    assert update.bids == ((400_000, 2_000_000),)
    assert feed.delta(ticker="B") is None
    assert [event.ticker for event in feed.mapper.snapshots()] == ["OTHER", "A"]  # type: ignore[union-attr]
    assert feed.mapper.snapshots(["B", "nobody"]) == []


def test_a_gap_of_an_all_market_subscription_names_no_tickers() -> None:
    feed = Feed()
    assert feed.trade("t-1") is not None
    assert feed.trade("t-2", seq=5) is not None
    assert feed.mapper.take_gaps() == [SequenceGap(2, 1, 5, None)]


def test_frames_lost_before_the_first_one_are_a_gap() -> None:
    feed = Feed()
    feed.send("subscribed", {"channel": "orderbook_delta", "sid": 1}, sid=0, seq=1)
    assert feed.snapshot(seq=4) is not None
    assert feed.mapper.take_gaps() == [SequenceGap(1, 0, 4, None)]
    assert feed.delta() is not None


def test_acknowledgements_and_malformed_frames_use_up_their_number() -> None:
    feed = Feed()
    feed.snapshot()
    feed.send("ok", {"market_tickers": [T]}, id=3)
    feed.send("error", {"code": 11, "msg": "Invalid parameter"})
    feed.send("something_new", {})
    assert feed.delta() is not None
    assert feed.mapper.take_gaps() == []
    assert feed.mapper.take_problems() == {"exchange_error": 1}


def test_a_malformed_frame_with_a_far_number_moves_nothing() -> None:
    feed = Feed()
    feed.snapshot()
    feed.send("something_new", {}, seq=10**15)
    feed.seq[1] = 1
    assert feed.delta() is not None
    assert feed.mapper.take_gaps() == []


def test_a_repeated_frame_is_not_applied_twice() -> None:
    feed = Feed()
    feed.snapshot()
    feed.delta(delta="1.00")
    assert feed.delta(delta="1.00", seq=2) is None
    assert feed.trade("t-1", seq=1) is not None
    assert feed.trade("t-1", seq=1) is None
    update = feed.delta(delta="1.00", seq=3)
    assert update is not None
    assert update.bids == ((450_000, 12_000_000),)
    assert feed.mapper.take_problems() == {"sequence_repeat": 2}
    assert feed.mapper.take_gaps() == []


def test_an_old_frame_is_not_applied_again() -> None:
    feed = Feed()
    feed.snapshot()
    for _ in range(4):
        feed.delta()
    assert feed.delta(seq=3) is None
    update = feed.delta(seq=6)
    assert update is not None
    assert update.bids == ((450_000, 15_000_000),)
    assert feed.mapper.take_problems() == {"sequence_reset": 1}


def test_a_trade_that_comes_twice_is_counted_and_mapped_both_times() -> None:
    feed = Feed()
    events = [feed.trade("t-1"), feed.trade("t-2", ts_ms=9), feed.trade("t-1"), feed.trade("t-1")]
    assert all(isinstance(event, Trade) for event in events)
    assert feed.mapper.take_problems() == {"duplicate_trade": 2}


def test_of_very_many_trades_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_TRADES", 4)
    feed = Feed()
    for n in range(11):
        feed.trade(f"t-{n}")
    for n in (6, 10, 3):
        feed.trade(f"t-{n}")
    assert feed.mapper.take_problems() == {"duplicate_trade": 2}


def test_an_exchange_time_that_goes_back_is_counted_by_market_and_channel() -> None:
    feed = Feed()
    feed.snapshot()
    feed.delta()
    feed.trade("t-1", ts_ms=100)
    feed.trade("t-2", ts_ms=90, market_ticker="OTHER")
    feed.trade("t-3", ts_ms=100)
    feed.trade("t-4", ts_ms=0)
    assert feed.mapper.take_problems() == {}
    assert feed.trade("t-5", ts_ms=99) is not None
    body = {"market_ticker": T, "yes_bid_dollars": "0.40", "yes_ask_dollars": "0.50", "price_dollars": "0.45"}
    for ts_ms in (8, 9, 7):
        assert feed.send("ticker", {**body, "ts_ms": ts_ms}, sid=3) is not None
    late = {"market_ticker": T, "price_dollars": "0.45", "delta_fp": "1.00", "side": "yes", "ts_ms": 4}
    assert feed.send("orderbook_delta", late) is not None
    assert feed.mapper.take_problems() == {"time_backwards": 3}


def test_two_swapped_frames_lose_no_trade() -> None:
    feed = Feed()
    assert [feed.trade(f"t-{seq}", seq=seq, ts_ms=seq) is not None for seq in (1, 3, 2, 4)] == [True] * 4
    assert feed.mapper.take_gaps() == [SequenceGap(2, 1, 3, None)]
    assert feed.mapper.take_problems() == {"sequence_late": 1}


def test_after_a_bogus_jump_no_trade_is_lost_and_counting_goes_on() -> None:
    feed = Feed()
    numbers = [1, 2, 1_000_000, *range(3, 40)]
    assert all(feed.trade(f"t-{seq}", seq=seq) is not None for seq in numbers)
    assert feed.mapper.take_gaps() == [SequenceGap(2, 2, 1_000_000, None)]
    feed.trade("t-50", seq=50)
    assert feed.mapper.take_gaps() == [SequenceGap(2, 39, 50, None)]


def test_a_subscription_that_begins_anew_with_a_snapshot_is_followed() -> None:
    feed = Feed()
    feed.snapshot("A")
    feed.snapshot("B")
    feed.snapshot("A", yes=[["0.30", "1.00"]], seq=1)
    update = feed.delta("0.30", "1.00", ticker="A", seq=2)
    assert update is not None
    assert update.bids == ((300_000, 2_000_000),)
    assert feed.mapper.stale_tickers == {"B"}


def test_an_ended_subscription_takes_its_books_and_number_along() -> None:
    feed = Feed()
    feed.send("subscribed", {"channel": "orderbook_delta", "sid": 1}, sid=0, seq=1)
    feed.snapshot("A")
    feed.send("unsubscribed", id=4)
    assert feed.mapper.snapshots() == []
    assert feed.mapper.stale_tickers == frozenset()
    feed.snapshot("A", seq=1)
    assert feed.mapper.take_gaps() == []


def test_a_ticker_taken_off_a_subscription_has_no_book() -> None:
    feed = Feed()
    feed.snapshot("A")
    feed.snapshot("B")
    feed.send("ok", {"market_tickers": ["B"]})
    assert [event.ticker for event in feed.mapper.snapshots()] == ["B"]  # type: ignore[union-attr]


def test_a_book_that_moved_to_another_subscription_ignores_the_old_one() -> None:
    feed = Feed()
    feed.snapshot(sid=1)
    feed.snapshot(sid=5)
    assert feed.delta(sid=1) is None
    assert feed.delta(sid=5) is not None
    assert feed.mapper.take_problems() == {"wrong_sid": 1}


def test_taking_more_than_rests_empties_the_level_and_is_reported() -> None:
    feed = Feed()
    feed.snapshot()
    update = feed.delta("0.45", "-10.01")
    assert update is not None
    assert update.bids == ((450_000, 0),)
    assert feed.mapper.take_problems() == {"negative_size": 1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"price": "0.45000001"}, "bad_price"),
        ({"price": "4.5e-1"}, "bad_price"),
        ({"price": "٠.٤٥"}, "bad_price"),
        ({"price": ""}, "bad_price"),
        ({"price": "1.000001"}, "price_out_of_range"),
        ({"price": "-0.01"}, "price_out_of_range"),
        ({"delta": "+1"}, "bad_size"),
        ({"delta": "9223372036855"}, "bad_size"),
        ({"delta": "1,000"}, "bad_size"),
        ({"side": "both"}, "bad_side"),
    ],
)
def test_a_delta_that_cannot_be_applied_makes_its_book_stale(change: dict[str, str], problem: str) -> None:
    feed = Feed()
    feed.snapshot()
    feed.snapshot("OTHER")
    assert feed.delta(**change) is None
    assert feed.mapper.take_problems() == {problem: 1}
    assert feed.mapper.stale_tickers == {T}
    assert feed.mapper.take_gaps() == []


def test_an_unreadable_delta_makes_its_book_stale_or_all_when_it_does_not_say_which() -> None:
    feed = Feed()
    feed.snapshot("A")
    feed.snapshot("B")
    feed.send("orderbook_delta", {"market_ticker": "A", "price": 45})
    assert feed.mapper.stale_tickers == {"A"}
    feed.send("orderbook_delta", {"price": 45})
    assert feed.mapper.stale_tickers == {"A", "B"}


def test_a_bad_level_spoils_its_snapshot() -> None:
    feed = Feed()
    feed.snapshot()
    assert feed.snapshot(yes=[["0.45", "1.00"], ["0.46", "-1.00"]]) is None
    assert feed.mapper.take_problems() == {"bad_size": 1}
    assert feed.mapper.stale_tickers == {T}
    assert feed.snapshot(yes=[["0.45", "0.00"]], no=[]) is not None
    assert feed.mapper.snapshots()[0].bids == ()  # type: ignore[union-attr]


def test_a_crossed_snapshot_is_reported_and_kept() -> None:
    feed = Feed()
    assert feed.snapshot(yes=[["0.60", "1.00"]], no=[["0.60", "1.00"]]) is not None
    assert feed.mapper.take_problems() == {"crossed_book": 1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"trade_id": "a\r\nPUB x 0"}, "bad_trade_id"),
        ({"trade_id": "x" * 129}, "bad_trade_id"),
        ({"yes_price_dollars": "1.01"}, "price_out_of_range"),
        ({"count_fp": "-1.00"}, "bad_size"),
        ({"taker_outcome_side": "maybe"}, "bad_side"),
        ({"market_ticker": ""}, "bad_ticker"),
        ({"market_ticker": "-x"}, "bad_ticker"),
        ({"market_ticker": "x" * 129}, "bad_ticker"),
    ],
)
def test_a_trade_that_is_not_one_gives_no_event(change: dict[str, str], problem: str) -> None:
    feed = Feed()
    assert feed.trade(**change) is None  # type: ignore[arg-type]
    assert feed.mapper.take_problems() == {problem: 1}


def test_block_trades_and_sides_are_told_apart() -> None:
    feed = Feed()
    buy, sell = feed.trade("a"), feed.trade("b", taker_outcome_side="no")
    assert isinstance(buy, Trade)
    assert isinstance(sell, Trade)
    assert (buy.side.name, sell.side.name, buy.block) == ("BUY", "SELL", False)


def test_a_settled_market_has_no_book_any_more() -> None:
    feed = Feed()
    feed.snapshot()
    feed.send("market_lifecycle_v2", {"market_ticker": T, "event_type": "settled", "settled_ts": 5}, sid=4)
    assert feed.mapper.snapshots() == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"market_ticker": T, "event_type": "exploded"}, "unknown_lifecycle"),
        ({"market_ticker": "", "event_type": "created"}, "bad_ticker"),
        ({"market_ticker": T, "event_type": "determined", "result": "x" * 500}, "bad_result"),
        ({"market_ticker": T, "event_type": "determined", "settlement_value": "one"}, "bad_price"),
    ],
)
def test_an_unclear_lifecycle_step_gives_no_event(body: dict[str, str], problem: str) -> None:
    feed = Feed()
    assert feed.send("market_lifecycle_v2", body, sid=4) is None
    assert feed.mapper.take_problems() == {problem: 1}


def test_unknown_tickers_in_deltas_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssmd.feeds.kalshi.mapper.MAX_STALE", 10)
    feed = Feed()
    for n in range(50):
        feed.delta(ticker=f"X-{n}")
    assert len(feed.mapper.stale_tickers) == 10
    feed.delta(ticker="X-0", seq=100)
    (gap,) = feed.mapper.take_gaps()
    assert gap.tickers is not None
    assert len(gap.tickers) == 10


def test_an_acknowledgement_that_shares_its_number_with_the_next_frame_costs_nothing() -> None:
    feed = Feed()
    feed.snapshot()
    feed.send("ok", {"market_tickers": [T]}, seq=2)
    assert feed.delta(seq=2) is not None
    assert feed.delta(seq=2) is None
    assert feed.delta(seq=3) is not None


def test_old_deltas_in_cents_change_a_book_in_cents() -> None:
    decoder, mapper = LegacyKalshiDecoder(), KalshiMapper("kalshi", "c-1")

    def send(frame: dict[str, Any]) -> Event | None:
        return mapper.map(decoder.decode(json.dumps(frame).encode()), 99)

    send({"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": {"market_ticker": T, "yes": [[8, 300]], "no": None}})
    update = send(
        {"type": "orderbook_delta", "sid": 1, "seq": 2,
         "msg": {"market_ticker": T, "price": 8, "delta": -54, "side": "yes", "ts": "2025-11-22T20:44:01Z"}}
    )  # fmt: skip
    assert isinstance(update, OrderBookUpdate)
    assert (update.bids, update.exchange_ns) == (((80_000, 246_000_000),), 0)
    sold = send(
        {
            "type": "orderbook_delta",
            "sid": 1,
            "seq": 3,
            "msg": {"market_ticker": T, "price": 90, "delta": 5, "side": "no"},
        }
    )
    assert isinstance(sold, OrderBookUpdate)
    assert sold.asks == ((100_000, 5_000_000),)


def test_an_old_frame_with_neither_cents_nor_dollars_has_drifted() -> None:
    frame = {"type": "trade", "sid": 1, "seq": 1, "msg": {"market_ticker": T, "count": 1, "taker_side": "yes"}}
    decoded = LegacyKalshiDecoder().decode(json.dumps(frame).encode())
    assert (decoded.problem, decoded.group, decoded.seq) == ("shape_drift", "trades", 1)
