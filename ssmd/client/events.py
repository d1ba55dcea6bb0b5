"""What a stream tells, as frozen values.

Prices (dollars) and sizes (contracts) are exact `Decimal`s, as the gateway printed them. `ts` is the whole number of
milliseconds since the epoch that the gateway sends: cheap for each message, and nothing finer is known; `time` is the
same as an aware `datetime`. `seq` numbers the messages of a subscription; None where a message has no number.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # of the year 9999


class Level(NamedTuple):
    """A price and the size that rests there; in a change, size 0 means that the level is gone."""

    price: Decimal
    size: Decimal


class _Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    ts: int

    @property
    def time(self) -> datetime:
        """`ts` as a datetime in UTC."""
        return moment(self.ts)


class Trade(_Event, frozen=True, kw_only=True, gc=False, tag_field="type", tag="trade"):
    """A trade; `price` is the yes price, `side` that of the taker, where buy means yes."""

    feed: str
    ticker: str
    price: Decimal
    size: Decimal
    side: Literal["buy", "sell"]
    trade_id: str
    block: bool = False
    seq: int | None = None


class OrderBook(_Event, frozen=True, kw_only=True, gc=False, tag_field="type", tag="orderbook"):
    """A whole book (`snapshot`), or the new sizes of some levels (`delta`); both sides in yes prices."""

    feed: str
    ticker: str
    kind: Literal["snapshot", "delta"]
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    seq: int | None = None


class Ticker(_Event, frozen=True, kw_only=True, gc=False, tag_field="type", tag="ticker"):
    """Best prices and totals, as the exchange gives them."""

    feed: str
    ticker: str
    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal
    last: Decimal
    last_size: Decimal
    volume: Decimal
    open_interest: Decimal
    seq: int | None = None


class Status(_Event, frozen=True, kw_only=True, gc=False, tag_field="type", tag="status"):
    """A market's state has changed."""

    feed: str
    ticker: str
    status: str
    result: str | None = None
    settlement_value: Decimal | None = None
    seq: int | None = None


class BookState(_Event, frozen=True, kw_only=True, tag_field="type", tag="book_state"):
    """How far books can be trusted: `stale` (changes may be missing), `syncing` (a snapshot is awaited), `live`.

    `tickers` None: all that are subscribed.
    """

    feed: str
    state: Literal["stale", "syncing", "live"]
    tickers: tuple[str, ...] | None
    reason: str
    seq: int | None = None


GapKind: TypeAlias = Literal["upstream", "skipped", "resume_failed", "slow_consumer", "hole"]


class Gap(_Event, frozen=True, kw_only=True):
    """Something is missing, from `from_ts` to `to_ts` (milliseconds): `Client.trades` can fetch the trades of it later.

    `kind` upstream: it never reached ssmd · skipped: this connection read too slowly · resume_failed: while the
    connection was away, and the gateway does not keep it any more · slow_consumer: the program took its events too
    slowly, and the oldest were given up · hole: numbers are missing for no known reason. `from_seq`, `to_seq` are the
    numbers that never come; `tickers` None: any of them.
    """

    kind: GapKind
    reason: str
    from_ts: int
    to_ts: int
    tickers: tuple[str, ...] | None = None
    from_seq: int | None = None
    to_seq: int | None = None
    seq: int | None = None


class Subscribed(_Event, frozen=True, kw_only=True):
    """The connection is there (again). Nothing is known yet of the tickers in `unknown`: perhaps they are misspelt.

    `resumed` None: there was nothing to go on from · True: nothing was missed · False: a Gap follows.
    """

    symbols: tuple[str, ...]
    mode: str
    unknown: tuple[str, ...]
    resumed: bool | None
    seq: int


class Notice(_Event, frozen=True, kw_only=True):
    """Something that the gateway says about itself: UPSTREAM_LOST, GOING_AWAY, …"""

    code: str
    message: str


Event: TypeAlias = Trade | OrderBook | Ticker | Status | Gap | BookState | Subscribed | Notice


class MarketState(msgspec.Struct, frozen=True):
    """What is known of a market now; None for what is not."""

    ticker: str
    book: OrderBook | None = None
    trade: Trade | None = None
    quote: Ticker | None = None
    status: Status | None = None


class Other(msgspec.Struct, frozen=True):
    """Any other message, and both kinds of gaps."""

    type: str
    seq: int | None = None
    code: str = ""
    message: str = ""
    next: str = ""
    id: str | int | None = None
    ts: int | None = None
    mode: str = "realtime"
    interval_ms: int = 0
    resumed: bool | None = None
    channels: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reason: str = ""
    from_ts: int | None = None
    to_ts: int | None = None
    from_: int | None = msgspec.field(name="from", default=None)
    to: int | None = None
    books: tuple[str, ...] | None = None
    tickers: tuple[str, ...] | None = None


Data: TypeAlias = Trade | OrderBook | Ticker | Status | BookState

_data: msgspec.json.Decoder[Data] = msgspec.json.Decoder(Data)
_other = msgspec.json.Decoder(Other)


def decode(text: str | bytes) -> Data | Other | None:
    """A message; None when it cannot be read."""
    try:
        return _data.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ArithmeticError):
        pass  # of another type: these are rare
    try:
        return _other.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def moment(ms: int) -> datetime:
    """Milliseconds since the epoch as a datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=min(max(ms, 0), _LAST_MS))


def as_dict(row: Any) -> dict[str, Any]:
    """A row as a dict, its values exact."""
    fields: dict[str, Any] = msgspec.structs.asdict(row)
    return fields
