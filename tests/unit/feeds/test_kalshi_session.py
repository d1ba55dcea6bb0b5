"""The session against a tiny model of the exchange: acknowledgements in any order, losses, refusals, silence."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ssmd.feeds.interface import Command
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.feeds.kalshi.mapper import KalshiMapper
from ssmd.feeds.kalshi.session import KalshiSession
from ssmd.market.events import OrderBookUpdate
from tests.fakes.model_exchange import ModelExchange

S = 1_000_000_000


class Wire:
    """A session and a mapper as a connector drives them, and the exchange at the other end."""

    def __init__(self, exchange: ModelExchange, **options: Any) -> None:
        self.exchange = exchange
        self.decoder = KalshiDecoder()
        self.mapper = KalshiMapper("kalshi", "c-1")
        self.session = KalshiSession(stale_tickers=lambda: self.mapper.stale_tickers, **options)
        self.now_ns = S
        self.to_exchange: list[Command] = []
        self.to_us: list[bytes] = []
        self.problems: list[str] = []
        self.reconnects: list[str] = []
        self.lifecycle_seq = 0

    def start(self, *tickers: str) -> "Wire":
        self.to_exchange += self.session.start(tickers)
        return self

    def receive(self, frame: bytes | dict[str, Any]) -> None:
        raw = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        decoded = self.decoder.decode(raw)
        self.mapper.map(decoded, self.now_ns)
        for gap in self.mapper.take_gaps():
            self.to_exchange += self.session.request_snapshots(gap.sid, gap.tickers or (), self.now_ns)
        self.to_exchange += self.session.receive(decoded, self.now_ns)

    def tick(self, seconds: float = 1) -> None:
        self.now_ns += int(seconds * S)
        self.to_exchange += self.session.tick(self.now_ns)
        for problem in self.session.take_problems():
            (self.reconnects if problem.reconnect else self.problems).append(problem.message)

    def exchange_answers(self, which: int = 0) -> None:
        if self.to_exchange:
            command = self.to_exchange.pop(which % len(self.to_exchange))
            self.to_us += self.exchange.answer(command)

    def deliver(self) -> None:
        """All commands and frames arrive, and what they call for."""
        while self.to_exchange or self.to_us:
            while self.to_exchange:
                self.exchange_answers()
            while self.to_us:
                self.receive(self.to_us.pop(0))

    def settle(self, seconds: int = 3) -> "Wire":
        for _ in range(seconds):
            self.deliver()
            self.tick()
        return self

    def sent(self, *actions: str) -> list[dict[str, Any]]:
        """The commands that the exchange got, by action (all without)."""
        return [
            each
            for each in self.exchange.commands
            if not actions or each["params"].get("action", each["cmd"]) in actions
        ]

    def check(self) -> None:
        """What we believe is what is."""
        session, exchange = self.session, self.exchange
        assert session.requested_tickers == session.subscribed_tickers == exchange.tickers()
        assert session.heard_tickers == session.requested_tickers
        assert not self.mapper.stale_tickers & session.requested_tickers
        books = {}
        for event in self.mapper.snapshots(sorted(session.requested_tickers)):
            assert isinstance(event, OrderBookUpdate)
            books[event.ticker] = (dict(event.bids), dict(event.asks))
        assert books == {ticker: exchange.book(ticker) for ticker in session.requested_tickers}
        for sid, subscription in exchange.subscriptions.items():
            if subscription.channel == "orderbook_delta":
                assert session.sid_tickers(sid) == tuple(sorted(subscription.tickers))


TICKERS = [f"TEST-{n}" for n in range(12)]
TICKER = st.sampled_from(TICKERS)


class Conversation(RuleBasedStateMachine):
    """Whatever is lost or late, in the end both sides agree on subscriptions and books."""

    @initialize(merges=st.booleans(), first=st.lists(TICKER, unique=True, max_size=9))
    def connect(self, merges: bool, first: list[str]) -> None:
        self.wire = Wire(ModelExchange(merges=merges), batch=4).start(*first)
        self.failures = 0

    @rule(which=st.integers(0, 5))
    def the_exchange_answers_some_command(self, which: int) -> None:
        self.wire.exchange_answers(which)

    @rule(count=st.integers(1, 8))
    def frames_arrive(self, count: int) -> None:
        for _ in range(count):
            if self.wire.to_us:
                self.wire.receive(self.wire.to_us.pop(0))

    @rule()
    def a_numbered_frame_is_lost(self) -> None:
        if self.wire.to_us and b'"seq"' in self.wire.to_us[0]:
            del self.wire.to_us[0]

    @rule(ticker=TICKER, side=st.sampled_from(["yes", "no"]), cents=st.integers(1, 40), delta=st.integers(-6, 6))
    def a_book_changes(self, ticker: str, side: str, cents: int, delta: int) -> None:
        self.wire.to_us += self.wire.exchange.change(ticker, side, cents, delta)

    @rule(tickers=st.lists(TICKER, max_size=5))
    def tickers_are_added(self, tickers: list[str]) -> None:
        self.wire.to_exchange += self.wire.session.add_tickers(tickers)

    @rule(tickers=st.lists(TICKER, max_size=3))
    def tickers_are_dropped(self, tickers: list[str]) -> None:
        self.wire.to_exchange += self.wire.session.drop_tickers(tickers)

    @rule(seconds=st.integers(1, 7))
    def time_passes(self, seconds: int) -> None:
        if not self.wire.exchange.merges:
            # Where each subscribe makes a new sid, a repeated one (after 10 s without an answer) would make two.
            self.wire.deliver()
        self.wire.tick(seconds)

    @rule(code=st.sampled_from([1, 18, 27]))
    def a_command_fails_for_the_moment(self, code: int) -> None:
        if self.failures < 2:  # three times in a row is a refusal
            self.failures += 1
            self.wire.exchange.failures.append(code)

    def teardown(self) -> None:
        self.wire.exchange.failures.clear()
        self.wire.settle(60)
        # Only a frame can show that the last frames of a subscription were lost.
        for ticker in sorted(self.wire.exchange.tickers()):
            self.wire.to_us += self.wire.exchange.change(ticker, "yes", 1, 1)
        self.wire.settle(60)
        self.wire.check()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_fresh_connection_subscribes_each_channel_and_the_books_in_batches() -> None:
    tickers = [f"T-{n}" for n in range(600)]
    wire = Wire(ModelExchange()).start(*tickers).settle()
    first = wire.sent("subscribe")
    assert [each["params"]["channels"] for each in first[:3]] == [["trade"], ["ticker"], ["market_lifecycle_v2"]]
    assert all("market_tickers" not in each["params"] for each in first[:3])
    books = first[3:]
    assert [len(each["params"]["market_tickers"]) for each in books] == [256, 256, 88]
    assert all(each["params"]["use_yes_price"] is False for each in books)
    assert len({each["id"] for each in wire.sent()}) == len(wire.sent())
    wire.check()
    assert wire.problems == wire.reconnects == []


@pytest.mark.parametrize("merges", [True, False])
def test_further_books_may_come_on_the_same_or_on_another_sid(merges: bool) -> None:
    wire = Wire(ModelExchange(merges=merges), batch=4).start("A", "B", "C").settle()
    wire.to_exchange += wire.session.add_tickers(["C", "D"])
    wire.to_exchange += wire.session.add_tickers(["E", "F", "E"])
    wire.settle().check()
    assert wire.session.requested_tickers == set("ABCDEF")
    assert next(each["params"]["market_tickers"] for each in wire.sent("add_markets")) == ["D"]
    sids = [sid for sid, each in wire.exchange.subscriptions.items() if each.channel == "orderbook_delta"]
    assert len(sids) == (1 if merges else 2)


def test_markets_created_while_connected_are_added_and_settled_ones_dropped() -> None:
    wire = Wire(ModelExchange(), wants=lambda ticker: ticker.startswith("TEST")).start("TEST-1").settle()
    for seq, (ticker, step) in enumerate(
        [("TEST-2", "created"), ("OTHER-1", "created"), ("TEST-3", "activated"), ("TEST-1", "determined"),
         ("TEST-1", "settled"), ("TEST-4", "created"), ("TEST-4", "settled"), ("TEST-5", "deactivated")], 1
    ):  # fmt: skip
        body = {"market_ticker": ticker, "event_type": step}
        wire.receive({"type": "market_lifecycle_v2", "sid": 3, "seq": seq, "msg": body})
    wire.settle().check()
    assert wire.session.requested_tickers == {"TEST-2", "TEST-3"}


def lifecycle(wire: Wire, *steps: tuple[str, str]) -> None:
    """What the exchange says of markets, one frame each."""
    for ticker, step in steps:
        body = {"market_ticker": ticker, "event_type": step}
        wire.lifecycle_seq += 1
        wire.receive({"type": "market_lifecycle_v2", "sid": 3, "seq": wire.lifecycle_seq, "msg": body})


def test_a_determined_market_is_dropped_and_its_book_leaves_the_memory() -> None:
    wire = Wire(ModelExchange()).start("A", "B").settle()
    lifecycle(wire, ("A", "determined"), ("UNKNOWN", "determined"))
    assert wire.session.take_ended() == ["A", "UNKNOWN"]
    assert wire.session.take_ended() == []
    wire.settle().check()
    assert wire.session.requested_tickers == {"B"}
    assert [event.ticker for event in wire.mapper.snapshots() if isinstance(event, OrderBookUpdate)] == ["B"]
    lifecycle(wire, ("A", "settled"))
    assert wire.session.take_ended() == ["A"]
    wire.settle().check()
    assert len(wire.sent("delete_markets")) == 1


@pytest.mark.parametrize("merges", [True, False])
def test_a_dropped_market_that_is_activated_again_is_subscribed_again(merges: bool) -> None:
    wire = Wire(ModelExchange(merges=merges)).start("A", "B").settle()
    wire.to_exchange += wire.session.drop_tickers(["A"])  # no list has it any more
    wire.settle().check()
    lifecycle(wire, ("A", "created"))  # an old message says nothing
    wire.settle().check()
    assert wire.session.requested_tickers == {"B"}
    lifecycle(wire, ("A", "activated"), ("NEW", "activated"))
    wire.settle().check()
    assert wire.session.requested_tickers == {"A", "B", "NEW"}


def test_a_market_heard_in_a_trade_or_quote_is_added_once_and_not_after_it_settled() -> None:
    wire = Wire(ModelExchange()).start().settle()
    trade = {"trade_id": "t", "yes_price_dollars": "0.5", "count_fp": "1", "taker_side": "yes"}
    quote = {"price_dollars": "0.5", "yes_bid_dollars": "0.4", "yes_ask_dollars": "0.6"}
    for seq in (1, 2):
        wire.receive({"type": "trade", "sid": 1, "seq": seq, "msg": {"market_ticker": "A", **trade}})
        wire.receive({"type": "ticker", "sid": 2, "msg": {"market_ticker": "B", **quote}})
        wire.receive({"type": "ticker", "sid": 2, "msg": {"market_ticker": "-bad", **quote}})
    wire.settle().check()
    assert wire.session.requested_tickers == {"A", "B"}
    assert len(wire.sent("subscribe", "add_markets")) == 4
    wire.receive(
        {"type": "market_lifecycle_v2", "sid": 3, "seq": 1, "msg": {"market_ticker": "A", "event_type": "settled"}}
    )
    wire.receive({"type": "trade", "sid": 1, "seq": 3, "msg": {"market_ticker": "A", **trade}})
    wire.settle()
    wire.receive({"type": "trade", "sid": 1, "seq": 4, "msg": {"market_ticker": "A", **trade}})
    wire.settle().check()
    assert wire.session.requested_tickers == {"B"}


def test_no_more_books_are_asked_for_than_allowed_and_that_is_said() -> None:
    wire = Wire(ModelExchange(), max_tickers=3).start("A", "B", "C", "D", "E").settle()
    wire.receive(
        {"type": "market_lifecycle_v2", "sid": 3, "seq": 1, "msg": {"market_ticker": "F", "event_type": "created"}}
    )
    wire.settle().check()
    assert wire.session.requested_tickers == {"A", "B", "C"}
    assert [problem.split(" more markets")[0] for problem in wire.problems] == ["2", "1"]


def test_a_gap_is_answered_with_fresh_snapshots_of_that_subscription_only() -> None:
    wire = Wire(ModelExchange(merges=False), batch=2).start("A", "B", "C").settle()
    lost, arrived = wire.exchange.change("A", "yes", 30, 4), wire.exchange.change("A", "yes", 31, 4)
    assert lost != arrived
    wire.receive(arrived[0])
    assert wire.mapper.stale_tickers == {"A", "B"}
    wire.settle().check()
    (asked,) = wire.sent("get_snapshot")
    assert sorted(asked["params"]["market_tickers"]) == ["A", "B"]


def test_a_lost_first_snapshot_is_asked_for_with_the_gap_it_left() -> None:
    wire = Wire(ModelExchange()).start("A", "B")
    while wire.to_exchange:
        wire.exchange_answers()
    wire.to_us = [frame for frame in wire.to_us if b'"B"' not in frame]
    wire.to_us += wire.exchange.change("A", "yes", 30, 4)
    wire.settle().check()
    assert "B" in wire.sent("get_snapshot")[0]["params"]["market_tickers"]


def test_a_snapshot_that_does_not_come_is_asked_for_again_then_the_book_is_subscribed_anew() -> None:
    wire = Wire(ModelExchange()).start("A", "B").settle()
    wire.exchange.silent_snapshots = True
    wire.receive({"type": "orderbook_delta", "sid": 4, "seq": 5, "msg": {"market_ticker": "A", "price": 1}})
    wire.settle(8)
    assert len(wire.sent("get_snapshot")) == 2
    wire.settle(6)
    assert [each["params"]["action"] for each in wire.sent("delete_markets", "add_markets")] == [
        "delete_markets",
        "add_markets",
    ]
    wire.settle(20)
    assert [problem for problem in wire.problems if "no snapshot of 1 markets" in problem]
    commands = len(wire.sent())
    wire.to_us += wire.exchange.change("A", "yes", 30, 4)
    wire.settle(60)
    assert wire.mapper.stale_tickers == {"A"}
    assert len(wire.sent()) == commands  # given up: no endless asking
    assert wire.reconnects == []
    wire.exchange.silent_snapshots = False
    wire.to_exchange += wire.session.request_snapshots(4, ["A"], wire.now_ns)
    wire.settle().check()


def test_a_subscription_that_is_wholly_silent_is_renewed_and_then_the_connection() -> None:
    wire = Wire(ModelExchange()).start("A", "B").settle()
    wire.exchange.silent_snapshots = True
    wire.to_exchange += wire.session.request_snapshots(4, ["A", "B"], wire.now_ns)
    wire.settle(13)
    (command,) = wire.sent("unsubscribe")
    assert command["params"] == {"sids": [4]}
    wire.settle(10)
    assert [message for message in wire.reconnects if "no snapshot of 2 markets" in message]


@pytest.mark.parametrize("code", [9, 10, 25])
def test_terminal_errors_end_the_connection(code: int) -> None:
    wire = Wire(ModelExchange()).start("A").settle()
    wire.receive({"type": "error", "sid": 4, "seq": 3, "msg": {"code": code, "msg": "it is over"}})
    wire.tick()
    assert wire.reconnects == [f"the exchange answered error {code} (it is over)"]


def test_an_unknown_channel_is_reported_and_the_others_go_on() -> None:
    wire = Wire(ModelExchange(), channels=("orderbook_delta", "trade"))
    wire.exchange.failures.append(8)
    wire.start("A").settle(30).check()
    assert wire.problems == ["the exchange answered error 8 (error 8) to subscribe of all on trade"]
    assert wire.reconnects == []


def test_a_market_limit_leads_to_smaller_subscriptions() -> None:
    tickers = [f"T-{n}" for n in range(200)]
    wire = Wire(ModelExchange(merges=False, limit=60)).start(*tickers).settle()
    wire.check()
    sizes = [len(each.tickers) for each in wire.exchange.subscriptions.values() if each.tickers]
    assert max(sizes) <= 60
    assert sum(sizes) == 200


def test_a_market_limit_of_the_whole_connection_is_reported_after_a_bounded_number_of_tries() -> None:
    tickers = [f"T-{n:03d}" for n in range(512)]
    wire = Wire(ModelExchange(merges=True, limit=300)).start(*tickers).settle(30)
    assert 256 <= len(wire.session.subscribed_tickers) <= 300
    assert wire.session.subscribed_tickers == wire.exchange.tickers()
    assert len(wire.sent()) < 60
    assert any("error 26" in problem for problem in wire.problems)
    assert wire.reconnects == []


def test_a_full_subscription_is_not_asked_to_take_more_again() -> None:
    wire = Wire(ModelExchange(merges=False, limit=3), batch=4).start("A", "B", "C").settle()
    for ticker in ("D", "E"):
        wire.to_exchange += wire.session.add_tickers([ticker])
        wire.settle()
    wire.check()
    assert [each["params"]["sid"] for each in wire.sent("add_markets")] == [4, 5]


def test_a_ticker_that_the_exchange_let_go_of_is_subscribed_anew_but_not_for_ever() -> None:
    wire = Wire(ModelExchange()).start("A", "B").settle()
    for _ in range(5):
        subscription = wire.exchange.subscriptions[4]
        subscription.tickers.pop("A", None)
        subscription.seq += 1
        wire.receive({"type": "ok", "sid": 4, "seq": subscription.seq, "msg": {"market_tickers": ["B"]}})
        wire.settle()
    assert len([each for each in wire.sent("subscribe") if each["params"].get("market_tickers") == ["A"]]) == 3
    assert wire.session.requested_tickers - wire.session.subscribed_tickers == {"A"}


def test_one_spoiled_ticker_does_not_cost_its_whole_batch() -> None:
    tickers = [f"T-{n}" for n in range(100)]
    wire = Wire(ModelExchange(spoiled=["T-37"])).start(*tickers).settle(20)
    assert wire.session.requested_tickers - wire.session.subscribed_tickers == {"T-37"}
    assert [problem for problem in wire.problems if "T-37" in problem]


def test_a_command_without_an_answer_is_reported_repeated_and_at_last_ends_a_mute_connection() -> None:
    wire = Wire(ModelExchange(), channels=("trade",)).start()
    wire.to_exchange.clear()
    wire.tick()
    wire.tick(9)
    assert wire.problems == []
    wire.tick(2)
    assert wire.problems == ["subscribe of all on trade was not answered within 10 s"]
    assert len(wire.to_exchange) == 1
    wire.to_exchange.clear()
    wire.tick(11)
    assert wire.reconnects == ["subscribe of all on trade was not answered within 10 s"]


def test_an_exchange_that_answers_others_is_not_left_for_one_silent_channel() -> None:
    wire = Wire(ModelExchange(), channels=("trade", "orderbook_delta")).start("A")
    del wire.to_exchange[0]
    wire.settle(12)
    wire.to_exchange.clear()
    wire.settle(30)
    assert len(wire.problems) >= 1
    assert wire.reconnects == []


def test_a_subscription_ended_by_the_exchange_is_made_again() -> None:
    wire = Wire(ModelExchange()).start("A", "B").settle()
    for sid in (1, 4):
        gone = wire.exchange.subscriptions.pop(sid)
        wire.receive({"type": "unsubscribed", "sid": sid, "seq": gone.seq + 1})
    wire.settle().check()
    assert {each.channel for each in wire.exchange.subscriptions.values()} >= {"trade", "orderbook_delta"}
    assert len(wire.problems) == 2


def test_tickers_dropped_before_their_acknowledgement_are_given_up_with_it() -> None:
    wire = Wire(ModelExchange()).start("A", "B")
    wire.to_exchange += wire.session.drop_tickers(["A"])
    wire.settle().check()
    assert wire.session.requested_tickers == {"B"}


def test_frames_of_odd_shape_change_nothing() -> None:
    wire = Wire(ModelExchange()).start("A").settle()
    for frame in (
        {"type": "subscribed", "id": 1},
        {"type": "subscribed", "msg": {"channel": "orderbook_delta", "sid": "4"}},
        {"type": "ok", "id": 99, "msg": [{"channel": "ticker", "sid": 2}]},
        {"type": "ok", "id": "4", "sid": 77, "msg": {"market_tickers": ["Z"]}},
        {"type": "ok", "sid": 4, "msg": {"market_tickers": "A"}},
        {"type": "unsubscribed"},
        {"type": "error", "msg": "just text"},
        {"type": "error", "id": 1, "msg": {"code": "8"}},
    ):
        wire.receive(frame)
    wire.settle().check()
    assert wire.reconnects == []


def test_data_frames_call_for_no_commands() -> None:
    wire = Wire(ModelExchange()).start("A").settle()
    decoded = wire.decoder.decode(wire.exchange.change("A", "yes", 3, 3)[0])
    assert wire.session.receive(decoded, wire.now_ns) == []


def test_without_the_book_channel_no_books_are_asked_for() -> None:
    wire = Wire(ModelExchange(), channels=("trade",)).start("A").settle()
    body = {"market_ticker": "B", "event_type": "created"}
    wire.receive({"type": "market_lifecycle_v2", "sid": 3, "seq": 1, "msg": body})
    wire.settle().check()
    assert wire.session.requested_tickers == frozenset()
