"""What gateway clients read and send: JSON objects, one per message.

An event's JSON is made once and without its opening brace: the gateway puts `{"seq":123,` in front of it for each
group of subscribers. Prices are dollars and sizes contracts, printed exactly from the integers (0.45, 10, 9.85), never
through floats. `ts` is milliseconds since the epoch: the exchange's time where it gave one, else the receive time.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

import msgspec

from ssmd.clock import NS_PER_MS
from ssmd.errors import DataError
from ssmd.market.events import SCALE, Event, Gap, Kind, Level, MarketStatus, OrderBookUpdate, Quote, Side, Trade
from ssmd.market.subjects import encode_ticker

ALL_SYMBOLS = "*"
ACTIONS = ("subscribe", "unsubscribe", "snapshot", "ping")
MODES = ("realtime",)
MAX_REQUEST_BYTES = 65_536
MAX_SYMBOLS = 1_024
MAX_ID_CHARS = 64

_SIDES = {Side.BUY: "buy", Side.SELL: "sell"}
_KINDS = {Kind.SNAPSHOT: "snapshot", Kind.DELTA: "delta"}

RequestId: TypeAlias = str | int | None


class Request(msgspec.Struct, frozen=True):
    """What a client asks for. `symbols` are tickers or `*`; `id` comes back in the answer."""

    action: str
    symbols: tuple[str, ...] = ()
    id: RequestId = None


class RequestError(DataError):
    """A client's message that cannot be followed; `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str, id: RequestId = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id


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


def parse_request(data: bytes | str) -> Request:
    """A client's message. RequestError (a DataError with a code) when it is not a request the gateway knows.

    Codes: too_large, bad_json, bad_request, bad_id, unknown_action, unknown_mode, bad_symbols, too_many_symbols,
    bad_symbol.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise RequestError("too_large", f"a request has at most {MAX_REQUEST_BYTES} bytes, this one {len(data)}")
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RequestError("bad_json", f"a request is one JSON object: {error}") from error
    if not isinstance(fields, dict):
        raise RequestError("bad_request", 'a request is a JSON object such as {"action":"subscribe","symbols":["*"]}')
    request_id = _request_id(fields)
    action = fields.get("action")
    if not isinstance(action, str) or action not in ACTIONS:
        raise RequestError("unknown_action", f"action must be one of {', '.join(ACTIONS)}", request_id)
    mode = fields.get("mode", "realtime")
    if mode not in MODES:
        raise RequestError("unknown_mode", f"mode must be one of {', '.join(MODES)}", request_id)
    return Request(action, () if action == "ping" else _symbols(fields.get("symbols"), action, request_id), request_id)


def _request_id(fields: dict[str, Any]) -> RequestId:
    value = fields.get("id")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63):
        return value
    if isinstance(value, str) and len(value) <= MAX_ID_CHARS:
        return value
    raise RequestError("bad_id", f"id must be a whole number or a text of at most {MAX_ID_CHARS} characters")


def _symbols(value: Any, action: str, request_id: RequestId) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(symbol, str) for symbol in value):
        raise RequestError("bad_symbols", f'{action} needs symbols: a list of tickers, or ["*"] for all', request_id)
    if len(value) > MAX_SYMBOLS:
        raise RequestError("too_many_symbols", f"at most {MAX_SYMBOLS} symbols, not {len(value)}", request_id)
    if action == "snapshot" and ALL_SYMBOLS in value:
        raise RequestError("bad_symbol", "snapshot needs single tickers, not *", request_id)
    for symbol in value:
        try:
            encode_ticker(symbol)
        except DataError as error:
            raise RequestError("bad_symbol", error.message, request_id) from error
    return tuple(dict.fromkeys(value))


def _message(fields: dict[str, Any], request_id: RequestId = None) -> bytes:
    return msgspec.json.encode(fields if request_id is None else fields | {"id": request_id})


def subscribed(symbols: Sequence[str], seq: int, unknown: Sequence[str] = (), id: RequestId = None) -> bytes:
    """The answer to subscribe: all symbols now subscribed; data messages go on from `seq` + 1.

    `unknown` names the tickers that nothing is known of yet; they are subscribed too.
    """
    return _message({"type": "subscribed", "symbols": list(symbols), "seq": seq, "unknown": list(unknown)}, id)


def unsubscribed(symbols: Sequence[str], seq: int, id: RequestId = None) -> bytes:
    """The answer to unsubscribe: all symbols still subscribed; data messages go on from `seq` + 1."""
    return _message({"type": "unsubscribed", "symbols": list(symbols), "seq": seq}, id)


def error(code: str, message: str, id: RequestId = None) -> bytes:
    """A request that was not followed, and why."""
    return _message({"type": "error", "code": code, "message": message}, id)


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
