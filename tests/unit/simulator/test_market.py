"""The generated exchange: plausible for any seed, the same for the same seed."""

import json
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.simulator.market import MarketGenerator
from ssmd.simulator.source import Message

START_NS = 1_795_363_200_000_000_000 + 5_000_000_000
STEP_NS = 50_000_000


def play(seed: int, steps: int, window_s: int = 900, step_ns: int = STEP_NS) -> tuple[MarketGenerator, list[Message]]:
    market = MarketGenerator(seed=seed, now_ns=START_NS, rate=2000.0, window_s=window_s, strikes=3)
    messages: list[Message] = []
    for step in range(1, steps + 1):
        messages += market.take(START_NS + step * step_ns, 10_000)
    return market, messages


def body(message: Message) -> dict[str, Any]:
    frame = json.loads(message.frame(1, 2))
    assert frame["type"] == message.type
    return dict(frame["msg"])


def test_the_same_seed_gives_the_same_frames() -> None:
    first, second, other = (play(seed, 20)[1] for seed in (5, 5, 6))

    assert [message.frame(1, 1) for message in first] == [message.frame(1, 1) for message in second]
    assert [message.frame(1, 1) for message in first] != [message.frame(1, 1) for message in other]


def test_the_rate_is_kept() -> None:
    _, messages = play(1, 40)

    assert len(messages) == pytest.approx(2000 * 40 * STEP_NS / 1e9, rel=0.02)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32), st.sampled_from([2, 7, 900]))
def test_books_are_never_crossed_or_negative_and_equal_the_changes_told(seed: int, window_s: int) -> None:
    market = MarketGenerator(seed=seed, now_ns=START_NS, rate=3000.0, window_s=window_s, strikes=2)
    books: dict[str, dict[tuple[str, str], Decimal]] = defaultdict(dict)
    clocks: dict[str, int] = {}
    for row in market.markets():
        _replace(books[row["ticker"]], json.loads(market.snapshot_body(row["ticker"]) or b"{}"))
    for step in range(1, 25):
        for message in market.take(START_NS + step * STEP_NS * 4, 300):
            msg = body(message)
            book = books[message.ticker]
            if message.type == "orderbook_snapshot":
                _replace(book, msg)
            elif message.type == "orderbook_delta":
                assert msg["clock"] >= clocks.get(message.ticker, 0)
                clocks[message.ticker] = msg["clock"]
                level = (msg["side"], msg["price_dollars"])
                size = book.pop(level, Decimal(0)) + Decimal(msg["delta_fp"])
                assert size >= 0
                if size:
                    book[level] = size
            best = {
                side: max((Decimal(price) for name, price in book if name == side), default=Decimal(0))
                for side in ("yes", "no")
            }
            assert best["yes"] + best["no"] < 1 or Decimal(0) in best.values()
        assert not market.is_crossed

    for row in market.markets():
        told: dict[tuple[str, str], Decimal] = {}
        _replace(told, json.loads(market.snapshot_body(row["ticker"]) or b"{}"))
        assert books[row["ticker"]] == told


def _replace(book: dict[tuple[str, str], Decimal], msg: dict[str, Any]) -> None:
    book.clear()
    for side in ("yes", "no"):
        for price, size in msg.get(f"{side}_dollars_fp", []):
            book[side, price] = Decimal(size)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32))
def test_a_trade_takes_from_the_makers_side_just_before_it_is_told(seed: int) -> None:
    _, messages = play(seed, 10)
    trades = 0
    for before, message in pairwise(messages):
        if message.type != "trade":
            continue
        trades += 1
        delta, trade = body(before), body(message)
        maker = "no" if trade["taker_outcome_side"] == "yes" else "yes"
        assert before.type == "orderbook_delta"
        assert (delta["side"], delta["market_ticker"]) == (maker, trade["market_ticker"])
        assert Decimal(delta["delta_fp"]) == -Decimal(trade["count_fp"])
        assert delta["price_dollars"] == trade[f"{maker}_price_dollars"]
        assert Decimal(trade["yes_price_dollars"]) + Decimal(trade["no_price_dollars"]) == 1
        assert trade["taker_book_side"] == ("bid" if trade["taker_outcome_side"] == "yes" else "ask")
        assert delta["ts_ms"] == trade["ts_ms"]

    assert trades > 0


def test_markets_are_created_opened_determined_and_settled_as_windows_roll() -> None:
    market, messages = play(2, 80, window_s=5, step_ns=250_000_000)
    lives: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        if message.type == "market_lifecycle_v2":
            lives[message.ticker].append(body(message)["event_type"])

    whole = [life for life in lives.values() if life == ["created", "activated", "determined", "settled"]]
    assert len(whole) >= 9
    assert {row["status"] for row in market.markets()} >= {"initialized", "active", "finalized"}


def test_a_closed_book_is_emptied_by_changes_and_an_empty_snapshot_follows() -> None:
    market, messages = play(2, 30, window_s=5, step_ns=250_000_000)
    snapshots = [message for message in messages if message.type == "orderbook_snapshot"]

    assert snapshots
    for message in snapshots:
        assert body(message).keys() == {"market_ticker", "market_id", "clock"}
    first = messages.index(snapshots[0])
    drained = [message for message in messages[:first] if message.ticker == snapshots[0].ticker]
    assert body(drained[-1])["delta_fp"].startswith("-")
    later = messages[first + 1 :]
    assert not [each for each in later if each.ticker == snapshots[0].ticker and each.type == "orderbook_delta"]
    assert market.book_levels(snapshots[0].ticker, 0) == {"yes_dollars": [], "no_dollars": []}


def test_tickers_begin_with_test_and_some_hold_a_dot() -> None:
    market, _ = play(1, 1)
    tickers = [row["ticker"] for row in market.markets()]

    assert len(tickers) == len(set(tickers))
    assert all(ticker.startswith("TEST-") for ticker in tickers)
    assert any("." in ticker for ticker in tickers)


def test_sizes_are_sometimes_fractions_of_a_contract() -> None:
    _, messages = play(1, 20)
    deltas = [Decimal(body(message)["delta_fp"]) for message in messages if message.type == "orderbook_delta"]
    fractional = sum(delta != delta.to_integral_value() for delta in deltas) / len(deltas)

    assert 0.05 < fractional < 0.9


def test_a_long_pause_settles_what_should_have_settled() -> None:
    market = MarketGenerator(seed=1, now_ns=START_NS, rate=100.0, window_s=10, strikes=1)
    before = {row["ticker"] for row in market.markets()}
    market.take(START_NS + 3600 * 10**9, 1000)

    states = {row["ticker"]: row["status"] for row in market.markets()}
    assert all(states.get(ticker, "finalized") == "finalized" for ticker in before)
    assert "active" in states.values()
