"""Kalshi's messages before 2026-03-12: prices in whole cents, sizes in whole contracts.

They are turned into today's messages, so that one mapper serves both eras. Where a frame of the last months also has
the fixed-point twin of a field (`price_dollars` beside `price`), the twin is taken: cents are rounded where a market
has finer ticks. `seq` was missing on some channels, a trade could lack its id, and quotes had no sizes (they become 0).
"""

from typing import Any, TypeAlias

import msgspec

from ssmd.feeds.interface import Decoded
from ssmd.feeds.kalshi.decoder import is_strict_json, recover, too_deep
from ssmd.feeds.kalshi.messages import (
    KINDS,
    Body,
    Count,
    Delta,
    DeltaBody,
    Envelope,
    ErrorMessage,
    EventFeeUpdate,
    EventLifecycle,
    Lifecycle,
    LifecycleBody,
    MultivariateLifecycle,
    Ok,
    Scalar,
    Snapshot,
    SnapshotBody,
    Subscribed,
    Ticker,
    TickerBody,
    TimeMs,
    TimeS,
    TradeBody,
    TradeMessage,
    Unsubscribed,
)

LegacyLevel: TypeAlias = tuple[str | int, str | int]


class LegacyDeltaBody(Body, kw_only=True):
    """A change of a level, in cents and contracts."""

    side: str
    price: int | None = None
    price_dollars: str | None = None
    delta: int | None = None
    delta_fp: str | None = None
    ts: Scalar = None
    ts_ms: TimeMs | None = None


class LegacySnapshotBody(Body, kw_only=True):
    """A book: `yes` and `no` in cents, `*_dollars` with fixed-point prices, `*_dollars_fp` wholly fixed-point."""

    yes: list[LegacyLevel] | None = None
    no: list[LegacyLevel] | None = None
    yes_dollars: list[LegacyLevel] | None = None
    no_dollars: list[LegacyLevel] | None = None
    yes_dollars_fp: list[LegacyLevel] | None = None
    no_dollars_fp: list[LegacyLevel] | None = None


class LegacyTradeBody(Body, kw_only=True):
    """A trade, in cents and contracts."""

    trade_id: str = ""
    yes_price: int | None = None
    yes_price_dollars: str | None = None
    count: int | None = None
    count_fp: str | None = None
    taker_side: str | None = None
    ts: TimeS | None = None
    ts_ms: TimeMs | None = None


class LegacyTickerBody(Body, kw_only=True):
    """A quote, in cents and contracts."""

    price: int | None = None
    price_dollars: str | None = None
    yes_bid: int | None = None
    yes_bid_dollars: str | None = None
    yes_ask: int | None = None
    yes_ask_dollars: str | None = None
    volume: int | None = None
    volume_fp: str | None = None
    open_interest: int | None = None
    open_interest_fp: str | None = None
    ts: TimeS | None = None
    ts_ms: TimeMs | None = None
    Clock: Count | None = None


class LegacyLifecycleBody(LifecycleBody, kw_only=True):
    """A step in a market's life; the settlement value was a number once."""

    settlement_value: str | int | None = None  # type: ignore[assignment]  # wider than today's


class LegacyDelta(Envelope, tag_field="type", tag="orderbook_delta", kw_only=True):
    """A change of a level."""

    msg: LegacyDeltaBody


class LegacySnapshot(Envelope, tag_field="type", tag="orderbook_snapshot", kw_only=True):
    """A whole book."""

    msg: LegacySnapshotBody


class LegacyTrade(Envelope, tag_field="type", tag="trade", kw_only=True):
    """A trade."""

    msg: LegacyTradeBody


class LegacyTicker(Envelope, tag_field="type", tag="ticker", kw_only=True):
    """A quote."""

    msg: LegacyTickerBody


class LegacyLifecycle(Envelope, tag_field="type", tag="market_lifecycle_v2", kw_only=True):
    """A step in a market's life."""

    msg: LegacyLifecycleBody


_decode = msgspec.json.Decoder(
    LegacyDelta
    | LegacySnapshot
    | LegacyTrade
    | LegacyTicker
    | LegacyLifecycle
    | MultivariateLifecycle
    | EventLifecycle
    | EventFeeUpdate
    | Subscribed
    | Unsubscribed
    | Ok
    | ErrorMessage
).decode


class LegacyKalshiDecoder:
    """Frames of the integer-cent era, given as today's messages. Stateless."""

    def decode(self, frame: bytes) -> Decoded:
        """What `frame` is; see `feeds.interface.Decoder`. Never raises."""
        if too_deep(frame):
            return Decoded("invalid", "control", False, None, None, None, "too_deep")
        try:
            message = _today(_decode(frame))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return recover(frame)
        name, group = KINDS[type(message)]
        return Decoded(name, group, is_strict_json(frame), message.sid, message.seq, message)


def _today(old: Envelope) -> Envelope:
    """The message as today's decoder would have made it; ValueError when neither form of a field is there."""
    if isinstance(old, LegacyDelta):
        return _in(old, Delta, _delta(old.msg))
    if isinstance(old, LegacySnapshot):
        return _in(old, Snapshot, _snapshot(old.msg))
    if isinstance(old, LegacyTrade):
        return _in(old, TradeMessage, _trade(old.msg))
    if isinstance(old, LegacyTicker):
        return _in(old, Ticker, _ticker(old.msg))
    if isinstance(old, LegacyLifecycle):
        return _in(old, Lifecycle, _lifecycle(old.msg))
    return old


def _in(old: Envelope, envelope: type[Any], body: Body) -> Envelope:
    made: Envelope = envelope(sid=old.sid, seq=old.seq, id=old.id, sending_ts_ms=old.sending_ts_ms, msg=body)
    return made


def _dollars(cents: int | None, twin: str | None) -> str:
    if twin is not None:
        return twin
    if cents is None:
        raise ValueError("neither cents nor dollars")
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def _count(contracts: int | None, twin: str | None) -> str:
    if twin is not None:
        return twin
    if contracts is None:
        raise ValueError("no count")
    return str(contracts)


def _delta(old: LegacyDeltaBody) -> DeltaBody:
    return DeltaBody(
        market_ticker=old.market_ticker,
        market_id=old.market_id,
        price_dollars=_dollars(old.price, old.price_dollars),
        delta_fp=_count(old.delta, old.delta_fp),
        side=old.side,
        ts_ms=old.ts_ms,
        ts=old.ts,
    )


def _snapshot(old: LegacySnapshotBody) -> SnapshotBody:
    return SnapshotBody(
        market_ticker=old.market_ticker,
        market_id=old.market_id,
        yes_dollars_fp=_levels(old.yes, old.yes_dollars, old.yes_dollars_fp),
        no_dollars_fp=_levels(old.no, old.no_dollars, old.no_dollars_fp),
    )


def _levels(*forms: list[LegacyLevel] | None) -> list[tuple[str, str]] | None:
    """The most exact form that is there (the last one); a whole number is cents as a price, contracts as a size."""
    levels = next((form for form in reversed(forms) if form is not None), None)
    if levels is None:
        return None
    return [(_dollars(price, None) if isinstance(price, int) else price, str(size)) for price, size in levels]


def _trade(old: LegacyTradeBody) -> TradeBody:
    return TradeBody(
        market_ticker=old.market_ticker,
        market_id=old.market_id,
        trade_id=old.trade_id,
        yes_price_dollars=_dollars(old.yes_price, old.yes_price_dollars),
        count_fp=_count(old.count, old.count_fp),
        taker_side=old.taker_side,
        ts=old.ts,
        ts_ms=old.ts_ms,
    )


def _ticker(old: LegacyTickerBody) -> TickerBody:
    return TickerBody(
        market_ticker=old.market_ticker,
        market_id=old.market_id,
        price_dollars=_dollars(old.price, old.price_dollars),
        yes_bid_dollars=_dollars(old.yes_bid, old.yes_bid_dollars),
        yes_ask_dollars=_dollars(old.yes_ask, old.yes_ask_dollars),
        volume_fp=_count(old.volume, old.volume_fp),
        open_interest_fp=_count(old.open_interest, old.open_interest_fp),
        ts=old.ts,
        ts_ms=old.ts_ms,
    )


def _lifecycle(old: LegacyLifecycleBody) -> LifecycleBody:
    value = old.settlement_value
    # A whole number was in cents, like every price then.
    old.settlement_value = _dollars(value, None) if isinstance(value, int) else value
    return old
