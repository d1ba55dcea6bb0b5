"""What the gateway answers over HTTP, as far as it has rows; decimals are exact."""

from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, TypeVar

import msgspec

from ssmd.client.events import Trade, moment

R = TypeVar("R", bound=msgspec.Struct)


class Missing(msgspec.Struct, frozen=True):
    """A part of the time asked for of which data may be missing, and why; milliseconds since the epoch."""

    from_ts: int
    to_ts: int
    reason: str

    @property
    def start(self) -> datetime:
        """`from_ts` as a datetime in UTC."""
        return moment(self.from_ts)

    @property
    def end(self) -> datetime:
        """`to_ts` as a datetime in UTC."""
        return moment(self.to_ts)


class Candle(msgspec.Struct, frozen=True, kw_only=True):
    """The trades of one interval, which begins at `ts` (milliseconds): first, highest, lowest, last price in dollars.

    `gap`: trades of it may be missing; `forming`: it is not over.
    """

    ts: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    vwap: Decimal
    gap: bool = False
    forming: bool = False
    block_trades: int = 0
    block_volume: Decimal | None = None


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """A market of a list; words and times are the exchange's own."""

    ticker: str
    event_ticker: str | None = None
    series_ticker: str | None = None
    category: str | None = None
    title: str | None = None
    status: str | None = None
    open_time: str | None = None
    close_time: str | None = None
    result: str | None = None
    listed: bool | None = None
    best_bid: Decimal | None = None
    best_ask: Decimal | None = None
    last_trade: Decimal | None = None


class Page(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A page of rows, and where the next one begins. `stale`: the database is away."""

    next_cursor: str | None = None
    complete: bool = True
    missing: list[Missing] = []
    stale: bool = False

    def rows(self) -> list[R]:
        """Its rows."""
        raise TypeError("a page of nothing has no rows")

    @classmethod
    def row_type(cls) -> type[R]:
        """The type of its rows."""
        raise TypeError("a page of nothing has no rows")


class TradeRow(msgspec.Struct, frozen=True):
    """A trade without its market."""

    price: Decimal
    size: Decimal
    side: Literal["buy", "sell"]
    ts: int
    trade_id: str
    block: bool = False


class TradePage(Page[Trade], frozen=True, kw_only=True):
    """Trades of a market."""

    feed: str
    ticker: str
    trades: list[TradeRow]

    def rows(self) -> list[Trade]:
        """As on the stream."""
        return [
            Trade(
                feed=self.feed, ticker=self.ticker, price=row.price, size=row.size, side=row.side, ts=row.ts,
                trade_id=row.trade_id, block=row.block,
            )
            for row in self.trades
        ]  # fmt: skip

    @classmethod
    def row_type(cls) -> type[Trade]:
        """The type of its rows."""
        return Trade


class CandlePage(Page[Candle], frozen=True, kw_only=True):
    """Candles of a market."""

    candles: list[Candle]

    def rows(self) -> list[Candle]:
        """By time."""
        return self.candles

    @classmethod
    def row_type(cls) -> type[Candle]:
        """The type of its rows."""
        return Candle


class MarketPage(Page[Market], frozen=True, kw_only=True):
    """Markets."""

    markets: list[Market]

    def rows(self) -> list[Market]:
        """By ticker."""
        return self.markets

    @classmethod
    def row_type(cls) -> type[Market]:
        """The type of its rows."""
        return Market
