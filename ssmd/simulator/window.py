"""One trading window of the generated exchange: its underlyings, its markets and their lives."""

import math
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ssmd.simulator.book import Book
from ssmd.simulator.fixed import MICRO, contracts, dollars, rfc3339
from ssmd.simulator.rows import LINEAR_CENT, event_object, market_object, quotes, series_object
from ssmd.simulator.source import Row

NS_PER_S = 1_000_000_000
_SIGMA = 1.2e-4  # relative standard deviation of the underlying per square root of a second: 0.36 % in 15 minutes
_DETERMINE_NS = 3 * NS_PER_S
_SETTLE_NS = 5 * NS_PER_S


class Underlying:
    """What the markets of a series are about: a geometric random walk."""

    def __init__(self, series: str, value: float) -> None:
        self.series = series
        self.value = value
        self._walked_ns = 0

    def walk(self, now_ns: int, rng: random.Random) -> None:
        """Move on to `now_ns`."""
        elapsed_s = min(max(0, now_ns - self._walked_ns) / NS_PER_S, 60.0) if self._walked_ns else 0.0
        self._walked_ns = max(self._walked_ns, now_ns)
        self.value *= math.exp(rng.gauss(0.0, 1.0) * _SIGMA * math.sqrt(elapsed_s))

    def series_row(self, updated_ns: int) -> Row:
        """The series object of REST."""
        return series_object(self.series, f"{self.series} up or down", updated_ns)


class Market:
    """One strike in one window: its book, its statistics, its status as REST names it."""

    def __init__(
        self, event: str, underlying: Underlying, strike: float, times: tuple[int, int, int], rng: random.Random
    ) -> None:
        self.created_ns, self.open_ns, self.close_ns = times
        self.updated_ns = self.created_ns
        self.determine_ns = self.close_ns + _DETERMINE_NS
        self.settle_ns = self.close_ns + _SETTLE_NS
        self.event = event
        self.underlying = underlying
        self.strike = strike
        self.ticker = f"{event}-T{strike:.2f}"
        self.title = f"{underlying.series} at or above {strike:.2f}?"
        self.status = "initialized"
        self.book = Book(self.new_id(rng), rng.randint(0, 5_000_000))
        self.last_price = self.last_size = self.volume = self.open_interest = 0
        self.result = ""
        self.value = 0.0
        self.settled_ns = 0

    @staticmethod
    def new_id(rng: random.Random) -> str:
        """A UUID out of the seed."""
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    def fair_price(self, now_ns: int) -> int:
        """The chance that the underlying ends at or above the strike, millionths, 0.01 to 0.99."""
        left_s = max((self.close_ns - now_ns) / NS_PER_S, 0.5)
        distance = math.log(self.underlying.value / self.strike) / (_SIGMA * math.sqrt(left_s))
        chance = 0.5 * (1 + math.erf(distance / math.sqrt(2)))
        return round(min(max(chance, 0.01), 0.99) * MICRO)

    def tick_clock(self) -> None:
        """The per-market clock never decreases and skips values; several changes may share one."""
        self.book.clock = (self.book.clock or 0) + 1 + len(self.book.yes) % 3

    def record_trade(self, yes_price: int, size: int, rng: random.Random) -> None:
        """Statistics after a trade."""
        self.last_price = yes_price
        self.last_size = size
        self.volume += size
        self.open_interest += rng.choice((0, 0, size))

    def open(self, now_ns: int) -> None:
        """Trading begins."""
        self.status = "active"
        self.updated_ns = now_ns

    def close(self, now_ns: int) -> None:
        """Trading ends; the underlying's value now decides."""
        self.status = "closed"
        self.updated_ns = now_ns
        self.value = self.underlying.value

    def determine(self, now_ns: int) -> dict[str, Any]:
        """The result is known; the `msg` that tells it."""
        self.status = "determined"
        self.updated_ns = now_ns
        self.result = "yes" if self.value >= self.strike else "no"
        return {
            "market_ticker": self.ticker,
            "determination_ts": now_ns // NS_PER_S,
            "result": self.result,
            "settlement_value": self.settlement_value,
            "event_type": "determined",
        }

    def settle(self, now_ns: int) -> dict[str, Any]:
        """Money moved; the `msg` that tells it."""
        self.status = "finalized"
        self.updated_ns = self.settled_ns = now_ns
        return {"market_ticker": self.ticker, "settled_ts": now_ns // NS_PER_S, "event_type": "settled"}

    @property
    def settlement_value(self) -> str:
        """Dollars of YES, a string."""
        return "1.0000" if self.result == "yes" else "0.0000"

    def created_msg(self) -> dict[str, Any]:
        """The `msg` of its creation."""
        return {
            "market_ticker": self.ticker,
            "exchange_index": 0,
            "open_ts": self.open_ns // NS_PER_S,
            "close_ts": self.close_ns // NS_PER_S,
            "additional_metadata": {
                "name": self.title,
                "title": self.title,
                "yes_sub_title": f"{self.strike:.2f} or above",
                "no_sub_title": f"below {self.strike:.2f}",
                "rules_primary": "Resolves to Yes when the simulated value at the close is at or above the strike.",
                "rules_secondary": "",
                "can_close_early": True,
                "event_ticker": self.event,
                "expected_expiration_ts": self.close_ns // NS_PER_S + 300,
                "strike_type": "greater_or_equal",
                "floor_strike": self.strike,
            },
            "event_type": "created",
            "price_level_structure": "linear_cent",
            "price_ranges": LINEAR_CENT,
        }

    def ticker_msg(self, now_ns: int) -> dict[str, Any]:
        """The `msg` of a ticker frame."""
        return {
            "market_id": self.book.market_id,
            "market_ticker": self.ticker,
            "price_dollars": dollars(self.last_price),
            **quotes(self.book),
            "volume_fp": contracts(self.volume),
            "open_interest_fp": contracts(self.open_interest),
            "dollar_volume": self.volume // MICRO // 2,
            "dollar_open_interest": self.open_interest // MICRO // 2,
            "last_trade_size_fp": contracts(self.last_size),
            "ts": now_ns // NS_PER_S,
            "ts_ms": now_ns // 1_000_000,
            "time": rfc3339(now_ns),
        }

    def row(self) -> Row:
        """The market object of REST."""
        facts: dict[str, Any] = {
            "ticker": self.ticker,
            "event_ticker": self.event,
            "title": self.title,
            "yes_sub_title": f"{self.strike:.2f} or above",
            "no_sub_title": f"below {self.strike:.2f}",
            "status": self.status,
            "created_ns": self.created_ns,
            "updated_ns": self.updated_ns,
            "open_ns": self.open_ns,
            "close_ns": self.close_ns,
            "strike": self.strike,
            "result": self.result,
            "expiration_value": f"{self.value:.2f}" if self.result else "",
            "settlement_value": self.settlement_value if self.result else None,
            "settled_ns": self.settled_ns,
            "last_price": self.last_price,
            "volume": self.volume,
            "open_interest": self.open_interest,
        }
        return market_object(facts, self.book)


class Window:
    """All markets that open and close together."""

    def __init__(
        self,
        open_ns: int,
        close_ns: int,
        underlyings: Sequence[Underlying],
        strikes: int,
        now_ns: int,
        rng: random.Random,
    ) -> None:
        self.open_ns = open_ns
        self.close_ns = close_ns
        self._created_ns = now_ns
        self.markets: list[Market] = []
        self._events: list[tuple[str, Underlying]] = []
        stamp = datetime.fromtimestamp(close_ns // NS_PER_S, UTC).strftime("%y%b%d%H%M").upper()
        if (close_ns - open_ns) % (60 * NS_PER_S):  # windows of seconds need seconds in their names
            stamp = datetime.fromtimestamp(close_ns // NS_PER_S, UTC).strftime("%y%b%d%H%M%S").upper()
        for underlying in underlyings:
            event = f"{underlying.series}-{stamp}"
            self._events.append((event, underlying))
            for index in range(strikes):
                strike = round(underlying.value * (1 + (index - (strikes - 1) / 2) * 0.0012), 2)
                created_ns = now_ns + len(self.markets) * 1000  # distinct, as pages are keyed by it
                times = (created_ns, open_ns, close_ns)
                self.markets.append(Market(event, underlying, strike, times, rng))

    @property
    def is_settled(self) -> bool:
        """True when every market is finalized."""
        return all(market.status == "finalized" for market in self.markets)

    def is_due(self, now_ns: int) -> bool:
        """True when any market may have to change its status."""
        return now_ns >= self.open_ns and not self.is_settled

    def events(self) -> list[Row]:
        """The event objects of REST."""
        return [
            event_object(event, underlying.series, f"{event} window", self.close_ns, self._created_ns)
            for event, underlying in self._events
        ]

    def created_events(self) -> list[dict[str, Any]]:
        """The `msg` of each event's creation."""
        return [
            {
                "event_ticker": event,
                "exchange_index": 0,
                "title": f"{event} window",
                "subtitle": "",
                "collateral_return_type": "",
                "series_ticker": underlying.series,
                "strike_date": self.close_ns // NS_PER_S,
            }
            for event, underlying in self._events
        ]
