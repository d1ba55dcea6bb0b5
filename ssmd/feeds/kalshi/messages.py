"""Kalshi's WebSocket messages of today as typed structs, one tagged union over `type`.

Fields that the mapper needs have exact types; fields that are known but not needed are `Scalar`, so that a change of
theirs does not make a frame unreadable. Two decoders are built from one set of classes: `decode_strict` knows each
field of a frame (nothing in it is skipped unread), `decode_tolerant` takes fields that came after this was written.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, cast

import msgspec

UINT32_MAX = 2**32 - 1
INT64_MAX = 2**63 - 1
MAX_TS_MS = INT64_MAX // 1_000_000
MAX_TS_S = INT64_MAX // 1_000_000_000

Sid: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=UINT32_MAX)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
TimeMs: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_TS_MS)]
TimeS: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_TS_S)]
Scalar: TypeAlias = str | int | float | None


class Body(msgspec.Struct, gc=False, kw_only=True):
    """What every market message's `msg` has."""

    market_ticker: str
    market_id: Scalar = None


class DeltaBody(Body, gc=False, kw_only=True):
    """One level's signed change."""

    price_dollars: str
    delta_fp: str
    side: str
    ts_ms: TimeMs | None = None
    clock: Count | None = None
    ts: Scalar = None
    client_order_id: Scalar = None
    subaccount: Scalar = None


class SnapshotBody(Body, gc=False, kw_only=True):
    """Both sides of a book, each a list of [price, size]; a side without orders has no key."""

    yes_dollars_fp: list[tuple[str, str]] | None = None
    no_dollars_fp: list[tuple[str, str]] | None = None
    clock: Count | None = None
    ts: Scalar = None
    ts_ms: TimeMs | None = None


class TradeBody(Body, gc=False, kw_only=True):
    """One public trade; of the three ways to say who took, the newest comes first."""

    trade_id: str
    yes_price_dollars: str
    count_fp: str
    taker_outcome_side: str | None = None
    taker_book_side: str | None = None
    taker_side: str | None = None
    is_block_trade: bool | None = None
    ts_ms: TimeMs | None = None
    ts: TimeS | None = None
    no_price_dollars: Scalar = None


class TickerBody(Body, gc=False, kw_only=True):
    """Best prices and day totals."""

    price_dollars: str
    yes_bid_dollars: str
    yes_ask_dollars: str
    volume_fp: str = "0"
    open_interest_fp: str = "0"
    yes_bid_size_fp: str = "0"
    yes_ask_size_fp: str = "0"
    last_trade_size_fp: str = "0"
    ts_ms: TimeMs | None = None
    ts: TimeS | None = None
    dollar_volume: Scalar = None
    dollar_open_interest: Scalar = None
    time: Scalar = None


class LifecycleBody(Body, kw_only=True):
    """A step in a market's life; which fields there are depends on `event_type`."""

    event_type: str
    result: str | None = None
    settlement_value: str | None = None
    ts_ms: TimeMs | None = None
    determination_ts: TimeS | None = None
    settled_ts: TimeS | None = None
    open_ts: Scalar = None
    close_ts: Scalar = None
    exchange_index: Scalar = None
    is_deactivated: bool | None = None
    additional_metadata: Any = None
    price_level_structure: Scalar = None
    price_ranges: Any = None
    strike_type: Scalar = None
    floor_strike: Scalar = None
    cap_strike: Scalar = None
    custom_strike: Any = None
    yes_sub_title: Scalar = None


class Envelope(msgspec.Struct, gc=False, kw_only=True):
    """What surrounds every `msg`."""

    sid: Sid | None = None
    seq: Count | None = None
    id: Scalar = None
    sending_ts_ms: Scalar = None


class Delta(Envelope, tag_field="type", tag="orderbook_delta", gc=False, kw_only=True):
    """A change of one level of a book."""

    msg: DeltaBody


class Snapshot(Envelope, tag_field="type", tag="orderbook_snapshot", gc=False, kw_only=True):
    """A whole book."""

    msg: SnapshotBody


class TradeMessage(Envelope, tag_field="type", tag="trade", gc=False, kw_only=True):
    """A public trade."""

    msg: TradeBody


class Ticker(Envelope, tag_field="type", tag="ticker", gc=False, kw_only=True):
    """A quote; its channel has no `seq`."""

    msg: TickerBody


class Lifecycle(Envelope, tag_field="type", tag="market_lifecycle_v2", kw_only=True):
    """A step in a market's life."""

    msg: LifecycleBody


class MultivariateLifecycle(Lifecycle, tag_field="type", tag="multivariate_market_lifecycle", kw_only=True):
    """The same for combinations of markets."""


class EventLifecycle(Envelope, tag_field="type", tag="event_lifecycle", kw_only=True):
    """An event was created."""

    msg: Any = None


class EventFeeUpdate(EventLifecycle, tag_field="type", tag="event_fee_update", kw_only=True):
    """An event's fee changed."""


class Subscribed(Envelope, tag_field="type", tag="subscribed", kw_only=True):
    """A subscription exists: `msg` has its channel and sid."""

    msg: Any = None


class Unsubscribed(Subscribed, tag_field="type", tag="unsubscribed", kw_only=True):
    """A subscription ended."""


class Ok(Subscribed, tag_field="type", tag="ok", kw_only=True):
    """A command was done: `msg` has the subscription's full list of tickers, or is a list of subscriptions."""


class ErrorMessage(Subscribed, tag_field="type", tag="error", kw_only=True):
    """A command was refused or a subscription failed: `msg` has a code and a text."""


Message: TypeAlias = (
    Delta
    | Snapshot
    | TradeMessage
    | Ticker
    | Lifecycle
    | MultivariateLifecycle
    | EventLifecycle
    | EventFeeUpdate
    | Subscribed
    | Unsubscribed
    | Ok
    | ErrorMessage
)

KINDS: dict[type[Envelope], tuple[str, str]] = {
    Delta: ("orderbook_delta", "orderbook"),
    Snapshot: ("orderbook_snapshot", "orderbook"),
    TradeMessage: ("trade", "trades"),
    Ticker: ("ticker", "ticker"),
    Lifecycle: ("market_lifecycle_v2", "lifecycle"),
    MultivariateLifecycle: ("multivariate_market_lifecycle", "lifecycle"),
    EventLifecycle: ("event_lifecycle", "lifecycle"),
    EventFeeUpdate: ("event_fee_update", "lifecycle"),
    Subscribed: ("subscribed", "control"),
    Unsubscribed: ("unsubscribed", "control"),
    Ok: ("ok", "control"),
    ErrorMessage: ("error", "control"),
}
"""Each message's `type` and the raw archive's file family."""

GROUP_OF_TYPE = dict(KINDS.values())


def _strict(envelope: type[Envelope]) -> type[Envelope]:
    """`envelope` that refuses fields it does not know, in itself and in its body."""
    body = next(field.type for field in msgspec.structs.fields(envelope) if field.name == "msg")
    fields: list[tuple[str, Any]] = []
    if body is not Any:
        strict_body = msgspec.defstruct(
            body.__name__, [], bases=(body,), forbid_unknown_fields=True, kw_only=True, gc=body.__struct_config__.gc
        )
        fields.append(("msg", strict_body))
    return cast(
        type[Envelope],
        msgspec.defstruct(
            envelope.__name__,
            fields,
            bases=(envelope,),
            tag_field="type",
            tag=KINDS[envelope][0],
            forbid_unknown_fields=True,
            kw_only=True,
            gc=envelope.__struct_config__.gc,
        ),
    )


def _decoder(classes: list[type[Envelope]]) -> Callable[[bytes], Any]:
    union: Any = classes[0]
    for each in classes[1:]:
        union = union | each
    return msgspec.json.Decoder(union).decode


_STRICT = {kind: _strict(kind) for kind in KINDS}
KIND_OF: dict[type[Envelope], tuple[str, str]] = {**KINDS, **{_STRICT[kind]: KINDS[kind] for kind in KINDS}}
"""`KINDS`, also for the strict classes."""

decode_strict = _decoder(list(_STRICT.values()))
decode_tolerant = _decoder(list(KINDS))
