"""The messages of /v1/stream as types: /asyncapi.json is made from them, and tests hold what is really sent to them.

The gateway does not encode these types: `wire.client` writes the JSON of events by hand, once for all clients. Fields
that are not always sent have the default UNSET.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from ssmd.gateway.documents import Exact, Milliseconds
from ssmd.wire.requests import INTERVALS_MS, MAX_ID_CHARS, MAX_QUESTION_CHARS, MAX_SYMBOLS

Channel: TypeAlias = Literal["trade", "orderbook", "ticker", "status"]
Mode: TypeAlias = Literal["realtime", "conflated", "latest"]
Id: TypeAlias = Annotated[str, Meta(max_length=MAX_ID_CHARS)] | int
Seq: TypeAlias = Annotated[int, Meta(ge=0, description="Counts the messages of a subscription, without holes.")]
Level: TypeAlias = Annotated[
    list[Exact], Meta(min_length=2, max_length=2, description="[price, size]; size 0 removes the level.")
]
Symbols: TypeAlias = Annotated[list[str], Meta(min_length=1, max_length=MAX_SYMBOLS)]
Channels: TypeAlias = Annotated[list[Channel], Meta(min_length=1)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One JSON object."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One JSON object. Fields that are not listed are ignored, unless they look like one of these mistyped."""


# --- what clients send ------------------------------------------------------------------------------------------------


class Subscribe(Ask, frozen=True):
    """Add symbols (tickers, or `*` for all). Their whole books come first, then every change; no hole between.

    `mode` is the connection's: all messages, what is latest every `interval_ms`, or only answers to snapshot.
    `from_seq`: go on after this number, that of the last message of the same subscription.
    """

    action: Literal["subscribe"]
    symbols: Symbols
    channels: Channels | UnsetType = UNSET
    mode: Mode | UnsetType = UNSET
    interval_ms: Annotated[int, Meta(ge=INTERVALS_MS[0], le=INTERVALS_MS[1])] | UnsetType = UNSET
    from_seq: Seq | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Unsubscribe(Ask, frozen=True):
    """Take symbols away, or some of their channels."""

    action: Literal["unsubscribe"]
    symbols: Symbols
    channels: Channels | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Snapshot(Ask, frozen=True):
    """The book, last trade, quote and status of symbols now; without `symbols`: of all that are subscribed.

    After `*` that is all that is known, where that is not more than one message may name.
    """

    action: Literal["snapshot"]
    symbols: Symbols | UnsetType = UNSET
    channels: Channels | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Query(Ask, frozen=True):
    """A question in words about markets."""

    action: Literal["query"]
    natural_language: Annotated[str, Meta(min_length=1, max_length=MAX_QUESTION_CHARS)]
    id: Id | UnsetType = UNSET


class Ping(Ask, frozen=True):
    """Is the gateway there?"""

    action: Literal["ping"]
    id: Id | UnsetType = UNSET


class Auth(Ask, frozen=True):
    """The API key, as the first message, where it did not come in the header Authorization."""

    action: Literal["auth"]
    key: str
    id: Id | UnsetType = UNSET


# --- what the gateway sends: market data ------------------------------------------------------------------------------


class Trade(Message, frozen=True):
    """A trade. `side` is the side of the taker, where buy means yes. `snapshot`: the last one, sent again."""

    type: Literal["trade"]
    feed: str
    ticker: str
    price: Exact
    size: Exact
    side: Literal["buy", "sell"]
    ts: Milliseconds
    trade_id: str
    block: bool | UnsetType = UNSET
    snapshot: Literal[True] | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET


class Orderbook(Message, frozen=True):
    """A whole book (`snapshot`, which replaces what was known), or new sizes of some levels (`delta`)."""

    type: Literal["orderbook"]
    feed: str
    ticker: str
    kind: Literal["snapshot", "delta"]
    bids: list[Level]
    asks: list[Level]
    ts: Milliseconds
    seq: Seq | UnsetType = UNSET


class Ticker(Message, frozen=True):
    """Best prices and totals, as the exchange gives them."""

    type: Literal["ticker"]
    feed: str
    ticker: str
    bid: Exact
    bid_size: Exact
    ask: Exact
    ask_size: Exact
    last: Exact
    last_size: Exact
    volume: Exact
    open_interest: Exact
    ts: Milliseconds
    snapshot: Literal[True] | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET


class Status(Message, frozen=True):
    """A market's state has changed."""

    type: Literal["status"]
    feed: str
    ticker: str
    status: str
    result: str | None
    settlement_value: Exact | None
    ts: Milliseconds
    snapshot: Literal[True] | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET


class Gap(Message, frozen=True):
    """Market data from `from_ts` to `to_ts` may be missing: it never reached ssmd. `tickers` null: any of them."""

    type: Literal["gap"]
    feed: str
    connection: str
    sid: int | None
    reason: str
    from_ts: Milliseconds
    to_ts: Milliseconds
    last_seq: int | None
    next_seq: int | None
    tickers: list[str] | None
    ts: Milliseconds
    seq: Seq | UnsetType = UNSET


class Missed(Message, frozen=True):
    """This client misses the numbers `from` to `to`: it read too slowly (SKIPPED), or they are not kept.

    `books`: these must not be trusted until they are sent whole, which happens by itself; null: all of them.
    """

    type: Literal["gap"]
    code: Literal["SKIPPED", "RESUME_FAILED"]
    reason: str
    from_: Seq = field(name="from")
    to: Seq
    message: str
    books: list[str] | UnsetType | None = UNSET


class BookState(Message, frozen=True):
    """How far books can be trusted: `stale` (changes may be missing), `syncing` (a snapshot is awaited), `live`."""

    type: Literal["book_state"]
    feed: str
    state: Literal["stale", "syncing", "live"]
    tickers: list[str] | None
    reason: str
    ts: Milliseconds
    seq: Seq | UnsetType = UNSET


# --- what the gateway sends: about the connection ---------------------------------------------------------------------


class Subscribed(Message, frozen=True):
    """Everything that is subscribed now; data messages go on from `seq` + 1. Nothing is known of `unknown` ones yet.

    `channels_of` names the channels of each symbol where they differ. `resumed` answers `from_seq`.
    """

    type: Literal["subscribed"]
    symbols: list[str]
    channels: list[Channel]
    mode: Mode
    seq: Seq
    unknown: list[str]
    channels_of: dict[str, list[Channel]] | UnsetType = UNSET
    interval_ms: int | UnsetType = UNSET
    resumed: bool | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Unsubscribed(Message, frozen=True):
    """Everything that is still subscribed; data messages go on from `seq` + 1."""

    type: Literal["unsubscribed"]
    symbols: list[str]
    channels: list[Channel]
    seq: Seq
    channels_of: dict[str, list[Channel]] | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class SnapshotEnd(Message, frozen=True):
    """The end of the answer to snapshot. Nothing is known of the `missing` ones."""

    type: Literal["snapshot"]
    symbols: list[str]
    missing: list[str]
    id: Id | UnsetType = UNSET


class Answer(msgspec.Struct, frozen=True):
    """The answer to query: how it was understood, the markets found, suggestions. As of GET /v1/query."""

    type: Literal["query"]
    id: Id | UnsetType = UNSET


class Error(Message, frozen=True):
    """A request that was not followed: `code` for programs, `message` and `next` for people."""

    type: Literal["error"]
    code: str
    message: str
    next: str
    id: Id | UnsetType = UNSET


class System(msgspec.Struct, frozen=True):
    """Something that the gateway did or is about to do: UPSTREAM_LOST, GOING_AWAY, SLOW_READER_WARNING, ..."""

    type: Literal["system"]
    code: str
    message: str


class Authenticated(Message, frozen=True):
    """The key of the first message is valid."""

    type: Literal["authenticated"]
    key_id: str
    name: str
    scopes: list[str]
    id: Id | UnsetType = UNSET


class Heartbeat(Message, frozen=True):
    """A sign of life while nothing else is sent; `ts` is the gateway's clock."""

    type: Literal["heartbeat"]
    ts: Milliseconds


class Pong(Message, frozen=True):
    """The answer to ping."""

    type: Literal["pong"]
    ts: Milliseconds
    id: Id | UnsetType = UNSET


REQUESTS = (Subscribe, Unsubscribe, Snapshot, Query, Ping, Auth)
MESSAGES = (
    Trade, Orderbook, Ticker, Status, Gap, Missed, BookState, Subscribed, Unsubscribed, SnapshotEnd, Answer, Error,
    System, Authenticated, Heartbeat, Pong,
)  # fmt: skip
