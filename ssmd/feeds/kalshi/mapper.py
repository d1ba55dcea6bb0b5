"""Kalshi's messages to events: sequences verified, books kept, `no` bids turned into asks at 1 − p.

Choices that readers of the events can rely on:

- Events depend on the frames and their receive times only; the same frames in the same order give the same events.
- `exchange_ns` is the exchange's `ts_ms` (its canonical time), else its seconds, else 0.
- A snapshot event lists bids and asks best first; a side without orders is empty.
- A delta event has one level with its new absolute size.
- Kalshi's per-market `clock` is carried, not acted upon: books follow the order of arrival on their subscription.
- A book that missed a change (a gap, an unreadable delta) is stale: its deltas give no events until its next snapshot.
- A legacy or abridged quote without sizes has size 0.
- A trade whose id came before on the connection, and an exchange time before an earlier one of the same market and
  channel, are counted and give their events all the same: readers know a trade by its id.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ssmd.feeds.interface import Decoded, SequenceGap
from ssmd.feeds.kalshi import translate
from ssmd.feeds.kalshi.fixedpoint import BadValue
from ssmd.feeds.kalshi.messages import (
    Delta,
    ErrorMessage,
    Lifecycle,
    Ok,
    Snapshot,
    Subscribed,
    Ticker,
    TradeMessage,
    Unsubscribed,
)
from ssmd.feeds.kalshi.repeats import LatestTimes, RecentTrades
from ssmd.feeds.kalshi.sequence import Sequences, Verdict
from ssmd.feeds.kalshi.translate import CHANGES, NS_PER_MS, PRICES, SIZES, is_ticker
from ssmd.market.book import OrderBook
from ssmd.market.events import SCALE, Event, Kind, Level, OrderBookUpdate, Side, Status

MAX_STALE = 100_000
EVENTLESS = frozenset(
    ["invalid_json", "not_object", "no_type", "bad_type", "too_deep", "unknown_type", "unknown_lifecycle"]
    + ["stale_delta", "wrong_sid", "unknown_market", "exchange_error"]
    + ["negative_size", "crossed_book", "duplicate_trade", "time_backwards"]
    + [verdict.value for verdict in Verdict]
)
"""Problems of frames that give an event all the same, or need not give one; every other one takes an event away."""
_SNAPSHOT, _DELTA = Kind.SNAPSHOT, Kind.DELTA
_BUY, _SELL = Side.BUY, Side.SELL
_BOOK_CHANNEL = "orderbook_delta"


class _Book(OrderBook):
    """A synced book, the subscription that feeds it, and the exchange's time of its latest change."""

    __slots__ = ("changed_ns", "sid")

    def __init__(self, sid: int) -> None:
        super().__init__()
        self.sid = sid
        self.changed_ns = 0


class KalshiMapper:
    """The state of one connection of a feed; see `feeds.interface.Mapper`."""

    def __init__(self, feed: str, connection: str) -> None:
        self.feed = feed
        self.connection = connection
        self._sequences = Sequences()
        self.last = self._sequences.last
        self._books: dict[str, _Book] = {}
        self._stale: set[str] = set()
        self._sid_tickers: dict[int, set[str]] = {}
        self._gaps: list[SequenceGap] = []
        self._problems: dict[str, int] = {}
        self.received_ns = 0
        self._late_seq = 0
        self._recent_trades = RecentTrades()
        self._trade_times = LatestTimes()
        self._quote_times = LatestTimes()
        self.handlers: dict[str, Callable[[Any, int], Event | None]] = {
            "orderbook_delta": self._delta,
            "orderbook_snapshot": self._snapshot,
            "trade": self._trade,
            "ticker": self._quote,
            "market_lifecycle_v2": self._status,
            "multivariate_market_lifecycle": self._status,
            "subscribed": self._subscribed,
            "unsubscribed": self._unsubscribed,
            "ok": self._ok,
            "error": self._error,
        }

    def map(self, decoded: Decoded, received_ns: int) -> Event | None:
        """The event in this frame, or None; see `feeds.interface.Mapper`. Never raises."""
        sid = decoded.sid
        seq = decoded.seq
        self.received_ns = received_ns
        if sid is not None and seq is not None:
            if self.last.get(sid, 0) + 1 == seq:
                self.last[sid] = seq
            elif not self._judge(decoded, sid, seq):
                return None
        if decoded.problem:
            self._unreadable(decoded)
            return None
        handler = self.handlers.get(decoded.type)
        return None if handler is None else handler(decoded.message, received_ns)

    def take_gaps(self) -> list[SequenceGap]:
        """The sequence gaps found since the last call, oldest first."""
        if not self._gaps:
            return []
        gaps, self._gaps = self._gaps, []
        return gaps

    def take_problems(self) -> dict[str, int]:
        """Problems by kind since the last call; what the decoder found (`Decoded.problem`) is not among them."""
        problems, self._problems = self._problems, {}
        return problems

    def snapshots(self, tickers: Sequence[str] | None = None) -> list[Event]:
        """The synced books as snapshot events, received when the last frame was."""
        names = self._books if tickers is None else [ticker for ticker in tickers if ticker in self._books]
        return [self._book_event(name, self._books[name], 0, self.received_ns, 0) for name in names]

    @property
    def stale_tickers(self) -> frozenset[str]:
        """Tickers whose book waits for a snapshot: it missed a change, or deltas came before any snapshot."""
        return frozenset(self._stale)

    def _count(self, problem: str) -> Event | None:
        """Count a problem; the answer is the event it leaves: none."""
        self._problems[problem] = self._problems.get(problem, 0) + 1
        return None

    def _judge(self, decoded: Decoded, sid: int, seq: int) -> bool:
        """Follow an unexpected sequence number; whether the frame is to be mapped."""
        last = self.last.get(sid, 0)
        control = decoded.group == "control"
        opening = control or decoded.type == "orderbook_snapshot"
        verdict = self._sequences.judge(sid, seq, malformed=bool(decoded.problem), opening=opening)
        if verdict is Verdict.GAP:
            tickers = self._sid_tickers.get(sid)
            self._gaps.append(SequenceGap(sid, last, seq, tuple(sorted(tickers)) if tickers else None))
            self._distrust_sid(sid)
            return True
        if verdict is Verdict.IGNORE:
            return True
        self._count(verdict.value)
        if verdict is Verdict.RESTART:
            self._distrust_sid(sid)
        elif verdict is Verdict.LATE:
            self._late_seq = seq
        return control or verdict in (Verdict.LATE, Verdict.RESTART)

    def _distrust_sid(self, sid: int) -> None:
        for ticker in self._sid_tickers.get(sid, ()):
            self._distrust(ticker)

    def _distrust(self, ticker: str) -> None:
        """The book of `ticker` is no longer known; wait for a snapshot."""
        if self._books.pop(ticker, None) is not None or len(self._stale) < MAX_STALE:
            self._stale.add(ticker)

    def _unreadable(self, decoded: Decoded) -> None:
        """A frame without a message: if it may have changed a book, that book is no longer right."""
        if decoded.group != "orderbook":
            return
        ticker = decoded.message
        if isinstance(ticker, str) and ticker in self._books:
            self._distrust(ticker)
        elif not isinstance(ticker, str) and decoded.sid is not None:
            self._distrust_sid(decoded.sid)

    def _delta(self, message: Delta, received_ns: int) -> Event | None:
        body = message.msg
        ticker = body.market_ticker
        sid = message.sid or 0
        book = self._books.get(ticker)
        if book is None or book.sid != sid:
            return self._delta_without_book(ticker, sid, book)
        try:
            price = PRICES[body.price_dollars]
            change = CHANGES[body.delta_fp]
        except BadValue as error:
            return self._bad_book_frame(ticker, error.problem)
        side = body.side
        if side == "yes":
            bids: tuple[Level, ...] = ((price, book.change(_BUY, price, change)),)
            asks: tuple[Level, ...] = ()
        elif side == "no":
            price = SCALE - price
            bids = ()
            asks = ((price, book.change(_SELL, price, change)),)
        else:
            return self._bad_book_frame(ticker, "bad_side")
        if book.shortfalls:
            book.shortfalls = 0
            self._count("negative_size")
        exchange_ns = (body.ts_ms or 0) * NS_PER_MS
        if exchange_ns >= book.changed_ns:
            book.changed_ns = exchange_ns
        elif exchange_ns:
            self._backwards(message.seq)
        return OrderBookUpdate(
            exchange_ns,
            received_ns,
            ticker,
            self.connection,
            sid,
            message.seq or 0,
            _DELTA,
            bids,
            asks,
            body.clock or 0,
        )

    def _delta_without_book(self, ticker: str, sid: int, book: _Book | None) -> Event | None:
        if book is not None:
            # Its changes come on another subscription: applying these too would count them twice.
            return self._count("wrong_sid")
        if is_ticker(ticker):
            self._distrust(ticker)
        if ticker in self._stale:  # not so when too many are
            self._sid_tickers.setdefault(sid, set()).add(ticker)
        return self._count("stale_delta")

    def _bad_book_frame(self, ticker: str, problem: str) -> Event | None:
        self._distrust(ticker)
        return self._count(problem)

    def _snapshot(self, message: Snapshot, received_ns: int) -> Event | None:
        body = message.msg
        ticker = body.market_ticker
        if not is_ticker(ticker):
            return self._count("bad_ticker")
        if body.market_id == "" and not body.yes_dollars_fp and not body.no_dollars_fp:
            self._forget_book(ticker)
            return self._count("unknown_market")
        sid = message.sid or 0
        try:
            bids = [(PRICES[price], SIZES[size]) for price, size in body.yes_dollars_fp or ()]
            asks = [(SCALE - PRICES[price], SIZES[size]) for price, size in body.no_dollars_fp or ()]
        except BadValue as error:
            return self._bad_book_frame(ticker, error.problem)
        book = self._books.get(ticker)
        if book is None or book.sid != sid:
            self._forget_book(ticker)
            book = self._books[ticker] = _Book(sid)
            self._sid_tickers.setdefault(sid, set()).add(ticker)
        book.apply_snapshot(bids, asks)
        if book.crossed():
            self._count("crossed_book")
        return self._book_event(ticker, book, (body.ts_ms or 0) * NS_PER_MS, received_ns, body.clock or 0, message.seq)

    def _book_event(
        self, ticker: str, book: _Book, exchange_ns: int, received_ns: int, clock: int, seq: int | None = None
    ) -> OrderBookUpdate:
        return OrderBookUpdate(
            exchange_ns,
            received_ns,
            ticker,
            self.connection,
            book.sid,
            self.last.get(book.sid, 0) if seq is None else seq,
            _SNAPSHOT,
            book.sorted_bids(),
            book.sorted_asks(),
            clock,
        )

    def _forget_book(self, ticker: str) -> None:
        """`ticker` has no book on this connection."""
        book = self._books.pop(ticker, None)
        self._stale.discard(ticker)
        if book is not None:
            self._sid_tickers.get(book.sid, set()).discard(ticker)

    def _trade(self, message: TradeMessage, received_ns: int) -> Event | None:
        try:
            event = translate.trade(message, self.connection, received_ns)
        except BadValue as error:
            return self._count(error.problem)
        if self._recent_trades.repeated(event.trade_id):
            self._count("duplicate_trade")  # its time is an old one, naturally
            return event
        exchange_ns, times = event.exchange_ns, self._trade_times
        if exchange_ns >= times[event.ticker]:
            times[event.ticker] = exchange_ns
        elif exchange_ns:
            self._backwards(message.seq)
        return event

    def _quote(self, message: Ticker, received_ns: int) -> Event | None:
        try:
            event = translate.quote(message, self.connection, received_ns)
        except BadValue as error:
            return self._count(error.problem)
        exchange_ns, times = event.exchange_ns, self._quote_times
        if exchange_ns >= times[event.ticker]:
            times[event.ticker] = exchange_ns
        elif exchange_ns:
            self._backwards(message.seq)
        return event

    def _backwards(self, seq: int | None) -> None:
        """An exchange time went back; of a frame that came late this is known."""
        if not seq or seq != self._late_seq:
            self._count("time_backwards")

    def _status(self, message: Lifecycle, received_ns: int) -> Event | None:
        try:
            event = translate.market_status(message, self.connection, received_ns)
        except BadValue as error:
            return self._count(error.problem)
        if event.status is Status.SETTLED:
            self._forget_book(event.ticker)
        return event

    def _subscribed(self, message: Subscribed, _received_ns: int) -> None:
        self._acknowledged(message)
        msg = message.msg
        if isinstance(msg, dict) and msg.get("channel") == _BOOK_CHANNEL and type(msg.get("sid")) is int:
            self._sid_tickers.setdefault(msg["sid"], set())

    def _ok(self, message: Ok, _received_ns: int) -> None:
        """A book subscription's full list of tickers: what is not in it any more has no book."""
        self._acknowledged(message)
        listed = message.msg.get("market_tickers") if isinstance(message.msg, dict) else None
        known = None if message.sid is None else self._sid_tickers.get(message.sid)
        if known is None or not isinstance(listed, list):
            return
        current = {ticker for ticker in listed if isinstance(ticker, str)}
        for ticker in known - current:
            self._forget_book(ticker)
        known.clear()
        known.update(current)

    def _unsubscribed(self, message: Unsubscribed, _received_ns: int) -> None:
        if message.sid is None:
            return
        for ticker in tuple(self._sid_tickers.pop(message.sid, ())):
            self._forget_book(ticker)
        self._sequences.forget(message.sid)

    def _error(self, message: ErrorMessage, _received_ns: int) -> None:
        self._acknowledged(message)
        self._count("exchange_error")

    def _acknowledged(self, message: Subscribed) -> None:
        if message.sid is not None and message.seq is not None:
            self._sequences.acknowledge(message.sid, message.seq)
