"""What gateway clients read and send: JSON objects, one per message.

An event's JSON is made once and without its opening brace: the gateway puts `{"seq":123,` in front of it for each
group of subscribers. Prices are dollars and sizes contracts, printed exactly from the integers (0.45, 10, 9.85), never
through floats. `ts` is milliseconds since the epoch: the exchange's time where it gave one, else the receive time.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec

from ssmd.clock import NS_PER_MS
from ssmd.errors import DataError
from ssmd.market.events import SCALE, Event, Gap, Kind, Level, MarketStatus, OrderBookUpdate, Quote, Side, Trade
from ssmd.wire.requests import CHANNELS, HINTS, Mode, RequestId

_SIDES = {Side.BUY: "buy", Side.SELL: "sell"}
_KINDS = {Kind.SNAPSHOT: "snapshot", Kind.DELTA: "delta"}


def event_body(event: Event, feed: str) -> bytes:
    """The event's JSON object without its opening brace. DataError when a text in it is not valid Unicode."""
    try:
        return _BODIES[type(event)](event, feed).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"an event of {feed} holds text that is not valid Unicode: {error}") from error


@lru_cache(maxsize=65_536)
def number(millionths: int) -> str:
    """The exact decimal of a number of millionths, as short as it gets."""
    if millionths < 0:
        return f"-{number(-millionths)}"
    whole, part = divmod(millionths, SCALE)
    if not part:
        return str(whole)
    hundredths, rest = divmod(part, 10_000)
    if rest:
        return f"{whole}.{part:06d}".rstrip("0")
    return f"{whole}.{hundredths:02d}" if hundredths % 10 else f"{whole}.{hundredths // 10}"


def _text(text: str) -> str:
    return msgspec.json.encode(text).decode()


@lru_cache(maxsize=65_536)
def _head(event_type: str, feed: str, ticker: str) -> str:
    return f'"type":"{event_type}","feed":{_text(feed)},"ticker":{_text(ticker)}'


def _ms(event: Trade | OrderBookUpdate | Quote | MarketStatus) -> int:
    return (event.exchange_ns or event.received_ns) // NS_PER_MS


def _trade(event: Trade, feed: str) -> str:
    block = ',"block":true' if event.block else ""
    return (
        f'{_head("trade", feed, event.ticker)},"price":{number(event.price)},"size":{number(event.size)}'
        f',"side":"{_SIDES[event.side]}","ts":{(event.exchange_ns or event.received_ns) // NS_PER_MS}'
        f',"trade_id":{_text(event.trade_id)}{block}}}'
    )


def _levels(levels: Sequence[Level]) -> str:
    return ",".join([f"[{number(price)},{number(size)}]" for price, size in levels])


def _orderbook(event: OrderBookUpdate, feed: str) -> str:
    bids, asks = event.bids, event.asks
    if len(bids) + len(asks) == 1:  # nearly every change
        price, size = (bids or asks)[0]
        level = f"[{number(price)},{number(size)}]"
        levels = f'"bids":[{level}],"asks":[]' if bids else f'"bids":[],"asks":[{level}]'
    else:
        levels = f'"bids":[{_levels(bids)}],"asks":[{_levels(asks)}]'
    return (
        f'{_head("orderbook", feed, event.ticker)},"kind":"{_KINDS[event.kind]}",{levels}'
        f',"ts":{(event.exchange_ns or event.received_ns) // NS_PER_MS}}}'
    )


def _quote(event: Quote, feed: str) -> str:
    return (
        f'{_head("ticker", feed, event.ticker)},"bid":{number(event.bid)},"bid_size":{number(event.bid_size)}'
        f',"ask":{number(event.ask)},"ask_size":{number(event.ask_size)}'
        f',"last":{number(event.last)},"last_size":{number(event.last_size)}'
        f',"volume":{number(event.volume)},"open_interest":{number(event.open_interest)},"ts":{_ms(event)}}}'
    )


def _status(event: MarketStatus, feed: str) -> str:
    result = _text(event.result) if event.result else "null"
    value = "null" if event.settlement_value is None else number(event.settlement_value)
    return (
        f'{_head("status", feed, event.ticker)},"status":"{event.status.name.lower()}"'
        f',"result":{result},"settlement_value":{value},"ts":{_ms(event)}}}'
    )


def _gap(event: Gap, feed: str) -> str:
    # Rounded outwards: the hole in milliseconds covers the hole in nanoseconds.
    to_ts = -(-event.to_ns // NS_PER_MS)
    fields = {
        "type": "gap",
        "feed": event.feed,
        "connection": event.connection,
        "sid": event.sid,
        "reason": event.reason,
        "from_ts": event.from_ns // NS_PER_MS,
        "to_ts": to_ts,
        "last_seq": event.last_seq,
        "next_seq": event.next_seq,
        "tickers": event.tickers,
        "ts": to_ts,
    }
    return msgspec.json.encode(fields).decode()[1:]


_BODIES = cast(
    "dict[type, Callable[[Event, str], str]]",
    {Trade: _trade, OrderBookUpdate: _orderbook, Quote: _quote, MarketStatus: _status, Gap: _gap},
)


def _message(fields: dict[str, Any], request_id: RequestId = None) -> bytes:
    return msgspec.json.encode(fields if request_id is None else fields | {"id": request_id})


def subscribed(
    named: Mapping[str, Sequence[str]],
    seq: int,
    unknown: Sequence[str] = (),
    id: RequestId = None,
    *,
    mode: Mode = "realtime",
    interval_ms: int = 0,
    resumed: bool | None = None,
) -> bytes:
    """The answer to subscribe: everything that is subscribed now; data messages go on from `seq` + 1.

    `named` has the channels of each symbol, `unknown` the tickers that nothing is known of yet; they are subscribed
    too. `resumed` answers `from_seq`: true says that what was missed follows; None, that it was not asked for.
    """
    more: dict[str, Any] = {"mode": mode}
    if interval_ms:
        more["interval_ms"] = interval_ms
    if resumed is not None:
        more["resumed"] = resumed
    return _message({"type": "subscribed"} | _pairs(named) | more | {"seq": seq, "unknown": list(unknown)}, id)


def unsubscribed(named: Mapping[str, Sequence[str]], seq: int, id: RequestId = None) -> bytes:
    """The answer to unsubscribe: everything that is still subscribed; data messages go on from `seq` + 1."""
    return _message({"type": "unsubscribed"} | _pairs(named) | {"seq": seq}, id)


def _pairs(named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Symbols and channels; `channels_of` names those of each symbol where they differ."""
    channels = [channel for channel in CHANNELS if any(channel in of for of in named.values())]
    fields: dict[str, Any] = {"symbols": list(named), "channels": channels}
    if any(len(of) < len(channels) for of in named.values()):
        fields["channels_of"] = {symbol: list(of) for symbol, of in named.items()}
    return fields


def error(code: str, message: str, id: RequestId = None, next: str = "") -> bytes:
    """A request that was not followed: a code for programs; why, and what to do next, for people."""
    return _message({"type": "error", "code": code, "message": message, "next": next or HINTS[code]}, id)


def resume_failed(first_seq: int, last_seq: int) -> bytes:
    """What was missed is not kept any more: these numbers never come. The whole books follow."""
    return _message(
        {
            "type": "gap",
            "code": "RESUME_FAILED",
            "reason": "not_kept",
            "from": first_seq,
            "to": last_seq,
            "message": "what was sent since is not kept any more; the whole books follow",
        }
    )


def book_state(feed: str, state: str, tickers: Sequence[str] | None, reason: str, ts_ms: int) -> bytes:
    """How far books can be trusted, as a body without its opening brace.

    `stale`: changes may be missing. `syncing`: nothing is sent of it until its snapshot comes. `live`: whole again, its
    snapshot follows. `tickers` None: all subscribed ones, or too many to name.
    """
    names = None if tickers is None else list(tickers)
    fields = {"type": "book_state", "feed": feed, "state": state, "tickers": names, "reason": reason, "ts": ts_ms}
    return msgspec.json.encode(fields)[1:]


def snapshot_end(symbols: Sequence[str], missing: Sequence[str], id: RequestId = None) -> str:
    """The end of the answer to snapshot, as text; nothing at all is known of the `missing` ones."""
    return _message({"type": "snapshot", "symbols": list(symbols), "missing": list(missing)}, id).decode()


def answered(answer: Mapping[str, Any], id: RequestId = None) -> bytes:
    """The answer to query."""
    return _message({"type": "query"} | dict(answer), id)


def system(code: str, message: str, **details: int | str) -> bytes:
    """Something the gateway did to this client (SLOW_READER_WARNING, SKIPPED, ...), with its numbers."""
    return _message({"type": "system", "code": code, "message": message} | details)


def skipped(first_seq: int, last_seq: int, books: Sequence[str] | None) -> bytes:
    """A gap of this client's own making: it read too slowly and misses these numbers.

    `books` names the tickers whose book missed changes; each is sent whole soon, and is wrong until then. None when
    they are too many to name.
    """
    return _message(
        {
            "type": "gap",
            "code": "SKIPPED",
            "reason": "slow_reader",
            "from": first_seq,
            "to": last_seq,
            "books": None if books is None else list(books),
            "message": f"{last_seq - first_seq + 1} messages were skipped because they were not read in time",
        }
    )


def heartbeat(ts_ms: int) -> bytes:
    """A sign of life when nothing else is sent; `ts` is the gateway's clock."""
    return _message({"type": "heartbeat", "ts": ts_ms})


def pong(ts_ms: int, id: RequestId = None) -> bytes:
    """The answer to ping."""
    return _message({"type": "pong", "ts": ts_ms}, id)
