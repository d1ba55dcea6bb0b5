"""The events: what an exchange told us, in one vocabulary for all exchanges.

Prices and sizes are integers with a fixed exponent: `price` is in millionths of a dollar (0.45 = 450000), `size` in
millionths of a contract, so that no value an exchange can send is rounded. Times are nanoseconds since the epoch,
UTC; `exchange_ns` is 0 where the exchange gave none. `connection` and `sid` name the subscription that delivered
the event, `seq` is the exchange's sequence number on it (0: the channel has none).
"""

from enum import IntEnum
from typing import TypeAlias

import msgspec

SECMASTER = "secmaster"
"""The `connection` of the status events that the security master publishes: they come from no frame."""
EXPONENT = -6
SCALE = 1_000_000


class Side(IntEnum):
    """The aggressor's side in the YES book."""

    BUY = 0
    SELL = 1


class Kind(IntEnum):
    """A book update replaces the whole book or changes levels of it."""

    SNAPSHOT = 0
    DELTA = 1


class Status(IntEnum):
    """Where a market is in its life."""

    UNKNOWN = 0
    CREATED = 1
    OPEN = 2
    HALTED = 3
    CLOSED = 4
    DETERMINED = 5
    SETTLED = 6
    CHANGED = 7  # metadata, price structure or close time changed; the state did not


Level: TypeAlias = tuple[int, int]
"""(price, size): the level's new absolute size; 0 removes it."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One public trade; `price` is the YES price."""

    exchange_ns: int
    received_ns: int
    ticker: str
    connection: str
    sid: int
    seq: int
    price: int
    size: int
    side: Side
    trade_id: str
    block: bool = False


class OrderBookUpdate(msgspec.Struct, frozen=True, gc=False):
    """A snapshot of a book or new absolute sizes of some levels; bids and asks both in YES prices."""

    exchange_ns: int
    received_ns: int
    ticker: str
    connection: str
    sid: int
    seq: int
    kind: Kind
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    clock: int = 0


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask, last trade and day totals. A side without orders has size 0."""

    exchange_ns: int
    received_ns: int
    ticker: str
    connection: str
    sid: int
    seq: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    last: int
    last_size: int
    volume: int
    open_interest: int


class MarketStatus(msgspec.Struct, frozen=True, gc=False):
    """A step in a market's life; `result` and `settlement_value` (millionths of a dollar) once determined."""

    exchange_ns: int
    received_ns: int
    ticker: str
    connection: str
    sid: int
    seq: int
    status: Status
    result: str = ""
    settlement_value: int | None = None


class Gap(msgspec.Struct, frozen=True, gc=False):
    """A hole: what the exchange may have sent between two times and we do not have.

    `sid` is None when all subscriptions of the connection are concerned, `tickers` None when all tickers are.
    `reason` is one of `REASONS`. `last_seq`/`next_seq` are the numbers on both sides, where the channel has them.
    """

    feed: str
    connection: str
    sid: int | None
    from_ns: int
    to_ns: int
    reason: str
    last_seq: int | None = None
    next_seq: int | None = None
    tickers: tuple[str, ...] | None = None


REASONS = (
    "connection_lost",
    "sequence_gap",
    "silence",
    "exchange_outage",
    "rate_limited",
    "planned_teardown",
    "spool_full",
    "startup",
)

Event: TypeAlias = Trade | OrderBookUpdate | Quote | MarketStatus | Gap

EVENT_TYPES: dict[str, type[Trade | OrderBookUpdate | Quote | MarketStatus | Gap]] = {
    "trade": Trade,
    "orderbook": OrderBookUpdate,
    "ticker": Quote,
    "status": MarketStatus,
    "gap": Gap,
}
"""Subject token and folder name of each event type."""
