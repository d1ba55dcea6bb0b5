"""A seeded exchange that is always on: series of short windows, several strikes each, books that are never crossed.

An underlying walks at random; the fair price of each market follows from its strike and the time left. Makers post and
pull orders around it, takers hit the best opposite bid. All randomness comes from one seed, all time is passed in.
"""

import random
from collections import deque
from typing import Any

import msgspec

from ssmd.simulator.fixed import MICRO, contracts, dollars, rfc3339
from ssmd.simulator.source import CHANNEL_OF_TYPE, Message, Row
from ssmd.simulator.window import NS_PER_S, Market, Underlying, Window

_TICK = 10_000  # one cent in millionths of a dollar
_DEPTH = 14
_KEPT_WINDOWS = 8
_KEPT_TRADES = 100_000
_KEPT_SETTLED = 10_000
"""Markets that stay listed after their window is forgotten: none disappears from one sync to the next."""
_UNDERLYINGS = (("TEST-BTC15M", 84_000.0), ("TEST-ETH15M", 3_200.0), ("TEST-GOLD15M", 4_180.0))
_encode = msgspec.json.Encoder().encode


class MarketGenerator:
    """Plays `rate` messages a second; windows open and close at multiples of `window_s`."""

    unpaced = False

    def __init__(self, *, seed: int, now_ns: int, rate: float, window_s: int, strikes: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- a market, not a secret
        self._rate = rate
        self._window_ns = window_s * NS_PER_S
        self._strikes = strikes
        self._last_ns = now_ns
        self._budget = 0.0
        self._played = 0
        self._underlyings = [Underlying(name, value) for name, value in _UNDERLYINGS]
        self._windows: deque[Window] = deque()
        self._markets: dict[str, Market] = {}
        self._active: list[Market] = []
        self._trades: deque[Row] = deque(maxlen=_KEPT_TRADES)
        self._settled: deque[Row] = deque(maxlen=_KEPT_SETTLED)
        self._past_events: deque[Row] = deque(maxlen=_KEPT_SETTLED)
        self._roll(now_ns)
        for market in self._active:
            for _ in range(20):
                self._add(market, now_ns)

    def take(self, now_ns: int, limit: int) -> list[Message]:
        messages = self._roll(now_ns)
        elapsed = max(0, now_ns - self._last_ns)
        self._last_ns = max(self._last_ns, now_ns)
        self._budget = min(self._budget + elapsed * self._rate / NS_PER_S, max(self._rate, 1.0))
        while self._budget >= 1 and len(messages) < limit and self._active:
            made = self._act(now_ns)
            self._budget -= max(1, len(made))
            messages += made
        self._played += len(messages)
        return messages

    def progress(self) -> dict[str, Any]:
        return {"source": "generator", "played": self._played, "active_markets": len(self._active), "finished": False}

    def snapshot_body(self, ticker: str) -> bytes | None:
        market = self._markets.get(ticker)
        return None if market is None else market.book.body(ticker)

    def ticker_body(self, ticker: str, now_ns: int) -> bytes | None:
        market = self._markets.get(ticker)
        return None if market is None else _encode(market.ticker_msg(now_ns))

    def book_levels(self, ticker: str, depth: int) -> dict[str, list[list[str]]] | None:
        market = self._markets.get(ticker)
        if market is None:
            return None
        return {f"{side}_dollars": market.book.levels(side, depth) for side in ("yes", "no")}

    def markets(self) -> list[Row]:
        return [*self._settled, *(market.row() for market in self._markets.values())]

    def events(self) -> list[Row]:
        return [*self._past_events, *(event for window in self._windows for event in window.events())]

    def series(self) -> list[Row]:
        opened_ns = self._windows[0].open_ns if self._windows else 0
        return [underlying.series_row(opened_ns) for underlying in self._underlyings]

    def trades(self) -> list[Row]:
        return list(self._trades)

    @property
    def is_crossed(self) -> bool:
        """True when any book is crossed; it never is."""
        return any(market.book.is_crossed() for market in self._markets.values())

    def _roll(self, now_ns: int) -> list[Message]:
        """Create the next window, open, close, determine and settle what is due."""
        messages: list[Message] = []
        current = now_ns - now_ns % self._window_ns
        for open_ns in (current, current + self._window_ns):
            if not any(window.open_ns == open_ns for window in self._windows):
                messages += self._create(open_ns, now_ns)
        for window in self._windows:
            if window.is_due(now_ns):
                for market in window.markets:
                    messages += self._advance(market, now_ns)
        while len(self._windows) > _KEPT_WINDOWS and self._windows[0].is_settled:
            window = self._windows.popleft()
            self._past_events += window.events()
            for market in window.markets:
                self._settled.append(self._markets.pop(market.ticker).row())
        return messages

    def _create(self, open_ns: int, now_ns: int) -> list[Message]:
        window = Window(open_ns, open_ns + self._window_ns, self._underlyings, self._strikes, now_ns, self._random)
        self._windows.append(window)
        messages = [_message("event_lifecycle", "", msg, now_ns) for msg in window.created_events()]
        for market in window.markets:
            self._markets[market.ticker] = market
            messages.append(_message("market_lifecycle_v2", market.ticker, market.created_msg(), now_ns))
        return messages

    def _advance(self, market: Market, now_ns: int) -> list[Message]:
        """One market's life: the same steps whether they come on time or all at once after a pause."""
        messages: list[Message] = []
        if market.status == "initialized" and now_ns >= market.open_ns:
            market.open(now_ns)
            self._active.append(market)
            msg = {"market_ticker": market.ticker, "is_deactivated": False, "event_type": "activated"}
            messages.append(_message("market_lifecycle_v2", market.ticker, msg, now_ns))
        if market.status == "active" and now_ns >= market.close_ns:
            self._active.remove(market)
            messages += self._drain(market, now_ns)
            market.close(now_ns)
        if market.status == "closed" and now_ns >= market.determine_ns:
            messages.append(_message("market_lifecycle_v2", market.ticker, market.determine(now_ns), now_ns))
        if market.status == "determined" and now_ns >= market.settle_ns:
            messages.append(_message("market_lifecycle_v2", market.ticker, market.settle(now_ns), now_ns))
        return messages

    def _drain(self, market: Market, now_ns: int) -> list[Message]:
        """After the close the book is emptied by changes, then an empty snapshot follows; no frame says "closed"."""
        messages = [
            self._change(market, side, price, -size, now_ns)
            for side in ("yes", "no")
            for price, size in sorted(market.book.side(side).items())
        ]
        return [*messages, _snapshot(market, now_ns)]

    def _act(self, now_ns: int) -> list[Message]:
        market = self._random.choice(self._active)
        market.underlying.walk(now_ns, self._random)
        choice = self._random.random()
        best = market.book.best("yes"), market.book.best("no")
        if choice < 0.50:
            messages = self._add(market, now_ns)
        elif choice < 0.82:
            messages = self._pull(market, now_ns)
        else:
            messages = self._trade(market, self._random.choice(("yes", "no")), now_ns)
        moved = (market.book.best("yes"), market.book.best("no")) != best
        if messages and (messages[-1].type == "trade" or (moved and self._random.random() < 0.5)):
            messages.append(_message("ticker", market.ticker, market.ticker_msg(now_ns), now_ns))
        return messages

    def _add(self, market: Market, now_ns: int) -> list[Message]:
        """A maker's order near the fair price; one that would cross takes the opposite best instead."""
        side = self._random.choice(("yes", "no"))
        opposite = "no" if side == "yes" else "yes"
        fair = market.fair_price(now_ns) // _TICK
        top = (fair if side == "yes" else 100 - fair) - 1
        price = (top - int(self._random.expovariate(0.45))) * _TICK
        best = market.book.best(opposite)
        if price < _TICK:
            return self._pull(market, now_ns)
        if best is not None and price + best >= MICRO:
            return self._trade(market, side, now_ns)
        messages = [self._change(market, side, price, self._size(), now_ns)]
        levels = market.book.side(side)
        if len(levels) > _DEPTH:
            worst = min(levels)
            messages.append(self._change(market, side, worst, -levels[worst], now_ns))
        return messages

    def _pull(self, market: Market, now_ns: int) -> list[Message]:
        side = self._random.choice(("yes", "no"))
        levels = market.book.side(side)
        if not levels:
            return []
        price = self._random.choice(sorted(levels))
        size = levels[price]
        part = size if self._random.random() < 0.6 else self._random.randint(1, size // MICRO * 100 + 1) * 10_000
        return [self._change(market, side, price, -min(size, part), now_ns)]

    def _trade(self, market: Market, taker: str, now_ns: int) -> list[Message]:
        """The taker's side hits the best opposite bid; the book changes first, then the trade is told."""
        maker = "no" if taker == "yes" else "yes"
        price = market.book.best(maker)
        if price is None:
            return []
        size = min(market.book.side(maker)[price], self._size())
        messages = [self._change(market, maker, price, -size, now_ns)]
        yes_price = price if maker == "yes" else MICRO - price
        market.record_trade(yes_price, size, self._random)
        trade = {
            "trade_id": market.new_id(self._random),
            "market_ticker": market.ticker,
            "yes_price_dollars": dollars(yes_price),
            "no_price_dollars": dollars(MICRO - yes_price),
            "count_fp": contracts(size),
            "taker_side": taker,
            "taker_outcome_side": taker,
            "taker_book_side": "bid" if taker == "yes" else "ask",
            "is_block_trade": False,
            "ts": now_ns // NS_PER_S,
            "ts_ms": now_ns // 1_000_000,
        }
        row = {name: value for name, value in trade.items() if name not in ("market_ticker", "ts", "ts_ms")}
        self._trades.append({**row, "ticker": market.ticker, "created_time": rfc3339(now_ns)})
        messages.append(_message("trade", market.ticker, trade, now_ns))
        return messages

    def _size(self) -> int:
        """Whole contracts mostly, fractions of a hundredth sometimes; in millionths."""
        if self._random.random() < 0.8:
            return self._random.choice((1, 2, 5, 10, 20, 25, 50, 100, 250)) * MICRO
        return self._random.randint(1, 30_000) * 10_000

    @staticmethod
    def _change(market: Market, side: str, price: int, delta: int, now_ns: int) -> Message:
        market.book.change(side, price, delta)
        market.tick_clock()
        msg = {
            "market_ticker": market.ticker,
            "market_id": market.book.market_id,
            "clock": market.book.clock,
            "price_dollars": dollars(price),
            "delta_fp": contracts(delta),
            "side": side,
            "ts": rfc3339(now_ns),
            "ts_ms": now_ns // 1_000_000,
        }
        return _message("orderbook_delta", market.ticker, msg, now_ns)


def _snapshot(market: Market, now_ns: int) -> Message:
    return _raw_message("orderbook_snapshot", market.ticker, market.book.body(market.ticker), now_ns)


def _message(kind: str, ticker: str, msg: dict[str, Any], now_ns: int) -> Message:
    return _raw_message(kind, ticker, _encode(msg), now_ns)


def _raw_message(kind: str, ticker: str, body: bytes, now_ns: int) -> Message:
    head = b'{"type":"%b","sid":' % kind.encode()
    rest = b',"msg":%b,"sending_ts_ms":%d}' % (body, now_ns // 1_000_000)
    channel = CHANNEL_OF_TYPE[kind]
    if kind == "ticker":
        return Message(channel, kind, ticker, head, rest, numbered=False)
    return Message(channel, kind, ticker, head, b',"seq":', rest)
