"""The JSON documents that the HTTP API answers with; /openapi.json is made from these types.

Prices, sizes and other exact decimals are JSON numbers that were printed from integers, never through floats: their
fields are declared as numbers, and hold the digits themselves.
"""

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, field

from ssmd.wire.client import number

if TYPE_CHECKING:
    Exact: TypeAlias = msgspec.Raw
else:
    Exact = Annotated[float, Meta(description="An exact decimal number.")]

Moment: TypeAlias = Annotated[
    str, Meta(description="A time in UTC, ISO 8601.", extra_json_schema={"format": "date-time"})
]
Milliseconds: TypeAlias = Annotated[int, Meta(description="Milliseconds since the epoch, UTC.")]


def exact(millionths: int | None) -> "Exact | None":
    """A JSON number, printed exactly; None stays null."""
    return None if millionths is None else digits(millionths)


def digits(millionths: int) -> "Exact":
    """A JSON number, printed exactly."""
    return msgspec.Raw(number(millionths).encode())


class Links(msgspec.Struct, frozen=True):
    """The paths of a market."""

    self_: str = field(name="self")
    trades: str
    orderbook: str
    historical: str
    stream: str


class CurrentPrice(msgspec.Struct, frozen=True):
    """In dollars; `yes` is the price of the last trade, `no` what is left to one dollar."""

    yes: Exact
    no: Exact
    last_trade: Exact
    last_trade_time: Moment | None


class OrderbookSummary(msgspec.Struct, frozen=True):
    """The best prices and all sizes of each side, of the book, or where there is none of the last quote."""

    best_bid: Exact | None
    best_ask: Exact | None
    spread: Exact | None
    bid_depth: Exact
    ask_depth: Exact
    source: Literal["orderbook", "ticker"]


class Contract(msgspec.Struct, frozen=True):
    """When it ends; times in the exchange's own text."""

    open: str | None
    close: str | None
    expiration: str | None
    settlement: str | None
    settlement_value: str | None
    days_to_expiry: int | None


class DataQuality(msgspec.Struct, frozen=True):
    """How far what is shown can be trusted.

    `gaps_today`: recorded gaps of today that touch the market; null while the database is away. `metadata`: does the
    database know the market?
    """

    status: Literal["healthy", "degraded", "unavailable", "unknown"]
    last_update: Moment | None
    gaps_today: int | None
    metadata: Literal["present", "absent", "unavailable"]
    reasons: list[str]


class Hints(msgspec.Struct, frozen=True, omit_defaults=True):
    """For agents: how to read the document and what to do next."""

    text_fields: str
    suggested_actions: list[str]
    price_interpretation: str | None = None


class MarketRow(msgspec.Struct, frozen=True):
    """One market of a list. `status` and `result` are the exchange's words."""

    ticker: str
    event_ticker: str | None
    series_ticker: str | None
    category: str | None
    title: str | None
    status: str | None
    open_time: str | None
    close_time: str | None
    result: str | None
    listed: bool | None
    best_bid: Exact | None
    best_ask: Exact | None
    last_trade: Exact | None
    links: Links = field(name="_links")


class MarketPage(msgspec.Struct, frozen=True):
    """A page of markets, by ticker. `source` live: the database is away, these were heard since the start.

    `as_known`: the database is away, and this is what it said then, at most an hour ago (`stale`).
    """

    feed: str
    markets: list[MarketRow]
    next_cursor: str | None
    source: Literal["registry", "live"]
    stale: bool
    as_known: Moment | None = None


class MarketDocument(msgspec.Struct, frozen=True):
    """One market, with what an agent needs to understand it and to go on.

    `stale`: the database is away, and the metadata (not the live data) is what it said at `as_known`.
    """

    ticker: str
    title: str | None
    subtitle: str | None
    rules: str | None
    feed: str
    event_ticker: str | None
    series_ticker: str | None
    category: str | None
    status: str | None
    result: str | None
    listed: bool | None
    current_price: CurrentPrice | None
    orderbook_summary: OrderbookSummary | None
    contract: Contract | None
    data_quality: DataQuality
    links: Links = field(name="_links")
    hints: Hints = field(name="_hints")
    stale: bool = False
    as_known: Moment | None = None


class Missing(msgspec.Struct, frozen=True):
    """A part of the range asked for of which data may be missing, and why."""

    from_ts: Milliseconds
    to_ts: Milliseconds
    reason: str


class TradeRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One trade, as on the stream; `ts` is the exchange's time, or where it gave none the receive time."""

    price: Exact
    size: Exact
    side: Literal["buy", "sell"]
    ts: Milliseconds
    trade_id: str
    block: bool = False


class TradePage(msgspec.Struct, frozen=True):
    """Trades, each once.

    `source` tells where they are from; `complete` whether nothing is known to be missing in the range that they cover,
    `missing` what is.
    """

    feed: str
    ticker: str
    trades: list[TradeRow]
    order: Literal["asc", "desc"]
    start: Moment | None
    end: Moment | None
    next_cursor: str | None
    source: Literal["memory", "archive", "archive+memory"]
    complete: bool
    missing: list[Missing]
    links: Links = field(name="_links")


class Candle(msgspec.Struct, frozen=True, omit_defaults=True):
    """The trades of one interval, which begins at `ts`: first, highest, lowest and last price, in dollars.

    `volume` in contracts; `vwap` is the average price by volume, rounded to six decimals. `block_volume` is the part
    of `volume` in block trades. `gap`: a recorded gap (or another hole in `missing`) overlaps the interval: trades of
    it may be missing. `forming`: the interval is not over.
    """

    ts: Milliseconds
    open: Exact
    high: Exact
    low: Exact
    close: Exact
    volume: Exact
    trades: int
    vwap: Exact
    gap: bool
    forming: bool = False
    block_trades: int = 0
    block_volume: Exact | None = None


class CandlePage(msgspec.Struct, frozen=True):
    """Candles by time; intervals without a trade have none. `complete` and `missing` as for trades."""

    feed: str
    ticker: str
    interval: Literal["1m", "5m", "1h", "1d"]
    start: Moment
    end: Moment
    candles: list[Candle]
    next_cursor: str | None
    source: Literal["memory", "archive", "archive+memory"]
    complete: bool
    missing: list[Missing]
    links: Links = field(name="_links")


class OrderbookDocument(msgspec.Struct, frozen=True):
    """The book now, best levels first: `[price, size]`. `stale`: a gap touched it and no snapshot came since."""

    type: Literal["orderbook"]
    feed: str
    ticker: str
    kind: Literal["snapshot"]
    bids: list[tuple[Exact, Exact]]
    asks: list[tuple[Exact, Exact]]
    ts: Milliseconds
    bid_levels: int
    ask_levels: int
    stale: bool
    links: Links = field(name="_links")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457): `code` is for programs, `detail` for people, `next` says what to do. More may be there.

    `parameter` names the wrong one; `near` what was perhaps meant.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    code: str = ""
    next: str = ""
    parameter: str = ""
    near: list[str] = []
