"""Events as Cap'n Proto messages (SYSTEM contract: schemas/*.capnp, standard framing), the only import of capnp.

`encode` and `decode` are exact inverses. The bytes of `encode` are those pycapnp builds when the fields are set in
schema order and what is empty is left unset. `decode` reads any valid message of the schemas or of a newer version.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, cast

import capnp

from ssmd.errors import DataError
from ssmd.market.events import (
    EVENT_TYPES,
    EXPONENT,
    Event,
    Gap,
    Kind,
    Level,
    MarketStatus,
    OrderBookUpdate,
    Quote,
    Side,
    Status,
    Trade,
)
from ssmd.resources import resource
from ssmd.wire.layout import WORD, message_end, reflect
from ssmd.wire.packing import gap_packer, orderbook_packer, quote_packer, status_packer, trade_packer
from ssmd.wire.unpacking import member, orderbook_unpacker, quote_unpacker, trade_unpacker

_INT64 = range(-(1 << 63), 1 << 63)
_NESTING = 4  # message, list, struct, text: no schema goes deeper

capnp.remove_import_hook()


def _load(event_type: str) -> Any:
    # Once per process: pycapnp aborts when it meets a schema id a second time.
    return capnp.load(str(resource("schemas") / f"{event_type}.capnp"))


_MODULES = {event_type: _load(event_type) for event_type in EVENT_TYPES}
STRUCTS: dict[str, Any] = {name: getattr(_MODULES[name], cls.__name__) for name, cls in EVENT_TYPES.items()}
"""pycapnp's struct of each event type; use these, a second `capnp.load` of the same files ends the process."""

_LAYOUTS = {event_type: reflect(item.schema) for event_type, item in STRUCTS.items()}
_LEVEL = reflect(_MODULES["orderbook"].Level.schema)
_NAMES: dict[type, str] = {cls: name for name, cls in EVENT_TYPES.items()}


def _received_at() -> int:
    # The schemas only ever grow at their end, so what is equal for all types today stays where it is.
    offsets = {layout.data["receivedTime"].offset for layout in _LAYOUTS.values()}
    if len(offsets) != 1:
        raise ValueError("receivedTime lies at different places in the schemas")
    return 2 * WORD + offsets.pop()


RECEIVED_AT = _received_at()
"""Where `receivedTime` (8 bytes, little-endian) lies in any message that `encode` made."""

_TIME = cast("Callable[[bytes, int], tuple[int]]", struct.Struct("<Q").unpack_from)

_ENCODERS = cast(
    "dict[type, Callable[[Event], bytes]]",
    {
        Trade: trade_packer(_LAYOUTS["trade"]),
        OrderBookUpdate: orderbook_packer(_LAYOUTS["orderbook"], _LEVEL),
        Quote: quote_packer(_LAYOUTS["ticker"]),
        MarketStatus: status_packer(_LAYOUTS["status"]),
        Gap: gap_packer(_LAYOUTS["gap"]),
    },
)


def event_type_of(event: Event) -> str:
    """The event's name in subjects, folders and schema files: a key of `EVENT_TYPES`."""
    return _NAMES[type(event)]


def encode(event: Event) -> bytes:
    """One message with its segment table. DataError when a number is out of range or a text is not valid Unicode."""
    try:
        return _ENCODERS[type(event)](event)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise DataError(f"{event_type_of(event)} event cannot be written as Cap'n Proto: {error}") from error


def received_ns(data: bytes) -> int:
    """The receive time of any message that `encode` made, without decoding it. A message cut short gives nonsense."""
    return int.from_bytes(data[RECEIVED_AT : RECEIVED_AT + WORD], "little")


def receive_times(messages: Sequence[bytes]) -> tuple[int, int]:
    """The earliest and the latest receive time of messages that `encode` made; (2**64, 0) of none."""
    times = list(map(_TIME, messages, repeat(RECEIVED_AT)))
    return (min(times)[0], max(times)[0]) if times else (1 << 64, 0)


def decode(event_type: str, data: bytes) -> Event:
    """The event in exactly one message. DataError when `data` is anything else, or `event_type` is unknown."""
    try:
        fast = _DECODERS[event_type]
    except KeyError as error:
        raise DataError(f"{event_type!r} is not an event type: {', '.join(EVENT_TYPES)}") from error
    if fast is not None:
        try:
            event = fast(data)
        except (struct.error, UnicodeDecodeError):
            event = None  # not our own layout: pycapnp says whether it is a message at all
        if event is not None:
            return event
    return _decode_any(event_type, data)


def split(data: bytes) -> list[bytes]:
    """The single messages of concatenated ones, undecoded. DataError when the last one is cut off."""
    return list(_cut(data))


def iter_events(event_type: str, data: bytes) -> Iterator[Event]:
    """The events of concatenated messages, one after the other. DataError where one is malformed or cut off."""
    for message in _cut(data):
        yield decode(event_type, message)


def _cut(data: bytes) -> Iterator[bytes]:
    start, size = 0, len(data)
    while start < size:
        end = message_end(data, start)
        yield data[start:end]
        start = end


def _decode_any(event_type: str, data: bytes) -> Event:
    """Any layout, through pycapnp: about ten times slower, for messages that others wrote."""
    data = bytes(data)
    if message_end(data) != len(data):
        raise DataError(f"{len(data)} bytes are more than one {event_type} message")
    try:
        # Each object is read once, so honest messages stay below their own length; pointer bombs do not.
        limit = len(data) // WORD + 16
        with STRUCTS[event_type].from_bytes(data, traversal_limit_in_words=limit, nesting_limit=_NESTING) as reader:
            return _READERS[event_type](reader)
    except (capnp.KjException, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{len(data)} bytes are not a valid {event_type} message: {reason}") from error


def _scaled(value: int, exponent: int) -> int:
    """`value * 10 ** exponent` in millionths, exactly."""
    shift = exponent - EXPONENT
    up, down = int(10 ** max(shift, 0)), int(10 ** max(-shift, 0))
    scaled, rest = divmod(value * up, down)
    if rest:
        raise DataError(f"{value} * 10^{exponent} is finer than a millionth")
    if scaled not in _INT64:
        raise DataError(f"{value} * 10^{exponent} does not fit into 64 bits of millionths")
    return scaled


def _common(reader: Any) -> tuple[int, int, str, str, int, int]:
    return reader.exchangeTime, reader.receivedTime, reader.ticker, reader.connection, reader.sid, reader.seq


def _read_trade(reader: Any) -> Trade:
    price, size = _scaled(reader.price, reader.priceExponent), _scaled(reader.size, reader.sizeExponent)
    side = member(tuple(Side), reader.side.raw, "side")
    return Trade(*_common(reader), price, size, side, reader.tradeId, reader.block)


def _read_orderbook(reader: Any) -> OrderBookUpdate:
    price_exponent, size_exponent = reader.priceExponent, reader.sizeExponent

    def levels(items: Any) -> tuple[Level, ...]:
        return tuple((_scaled(item.price, price_exponent), _scaled(item.size, size_exponent)) for item in items)

    kind = member(tuple(Kind), reader.kind.raw, "kind")
    return OrderBookUpdate(*_common(reader), kind, levels(reader.bids), levels(reader.asks), reader.clock)


def _read_quote(reader: Any) -> Quote:
    price, size = reader.priceExponent, reader.sizeExponent
    return Quote(
        *_common(reader),
        bid=_scaled(reader.bid, price),
        bid_size=_scaled(reader.bidSize, size),
        ask=_scaled(reader.ask, price),
        ask_size=_scaled(reader.askSize, size),
        last=_scaled(reader.last, price),
        last_size=_scaled(reader.lastSize, size),
        volume=_scaled(reader.volume, size),
        open_interest=_scaled(reader.openInterest, size),
    )


def _read_status(reader: Any) -> MarketStatus:
    status = member(tuple(Status), reader.status.raw, "status")
    value = _scaled(reader.settlementValue, reader.priceExponent) if reader.hasSettlementValue else None
    return MarketStatus(*_common(reader), status, reader.result, value)


def _read_gap(reader: Any) -> Gap:
    return Gap(
        feed=reader.feed,
        connection=reader.connection,
        sid=reader.sid if reader.hasSid else None,
        from_ns=reader.fromTime,
        to_ns=reader.toTime,
        reason=reader.reason,
        last_seq=reader.lastSeq if reader.hasLastSeq else None,
        next_seq=reader.nextSeq if reader.hasNextSeq else None,
        tickers=None if reader.allTickers else tuple(reader.tickers),
    )


_DECODERS: dict[str, Callable[[bytes], Event | None] | None] = {
    "trade": trade_unpacker(_LAYOUTS["trade"]),
    "orderbook": orderbook_unpacker(_LAYOUTS["orderbook"], _LEVEL),
    "ticker": quote_unpacker(_LAYOUTS["ticker"]),
    "status": None,
    "gap": None,
}

_READERS: dict[str, Callable[[Any], Event]] = {
    "trade": _read_trade,
    "orderbook": _read_orderbook,
    "ticker": _read_quote,
    "status": _read_status,
    "gap": _read_gap,
}
