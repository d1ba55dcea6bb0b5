"""The slow, plain way to build the messages: pycapnp's own API, written without ssmd's packers."""

import re
from typing import Any

from ssmd.market.events import (
    Event,
    Gap,
    Kind,
    MarketStatus,
    OrderBookUpdate,
    Quote,
    Side,
    Status,
    Trade,
)
from ssmd.wire.normalized import STRUCTS, event_type_of

TICKER, CONNECTION = "KXBTCD-25AUG2617-T112999.99", "c-20261122-1"
HEAD = (1_786_410_915_579_000_000, 1_786_410_915_579_123_456, TICKER, CONNECTION, 3)

SAMPLES: dict[str, Event] = {
    "trade": Trade(*HEAD, 12_345, 450_000, 9_850_000, Side.SELL, "5d937db7-0c71-43cb-0b60-b56a4387af64"),
    "block trade": Trade(*HEAD, 0, -1, 1, Side.BUY, "b", True),
    "trade without id": Trade(*HEAD, 1, 1_000_000, 10_000_000, Side.BUY, ""),
    "delta, bid": OrderBookUpdate(*HEAD, 7, Kind.DELTA, ((440_000, 100_000_000),), (), 4_182_061),
    "delta, ask": OrderBookUpdate(*HEAD, 8, Kind.DELTA, (), ((460_000, 0),)),
    "snapshot": OrderBookUpdate(*HEAD, 9, Kind.SNAPSHOT, ((440_000, 1), (430_000, 2)), ((460_000, 3),), 5),
    "empty snapshot": OrderBookUpdate(*HEAD, 10, Kind.SNAPSHOT, (), ()),
    "quote": Quote(*HEAD, 0, 440_000, 1, 460_000, 2, 450_000, 3, 9_850_000, 613_077_650_000),
    "determined": MarketStatus(*HEAD, 0, Status.DETERMINED, "no", 0),
    "opened": MarketStatus(*HEAD, 0, Status.OPEN),
    "gap of everything": Gap("kalshi", CONNECTION, None, 10, 20, "connection_lost"),
    "gap of two tickers": Gap("kalshi", CONNECTION, 0, 10, 20, "sequence_gap", 0, 9, ("A", "B-ä")),
    "gap of no ticker": Gap("kalshi", CONNECTION, 4, 10, 20, "silence", None, None, ()),
}

_RENAMED = {"exchange_ns": "exchangeTime", "received_ns": "receivedTime", "from_ns": "fromTime", "to_ns": "toTime"}


def _camel(name: str) -> str:
    return _RENAMED.get(name) or re.sub("_(.)", lambda match: match[1].upper(), name)


def values(event: Event) -> dict[str, Any]:
    """What is set in the message, by schema name, presence flags included."""
    found = {_camel(name): getattr(event, name) for name in event.__struct_fields__}
    if isinstance(event, MarketStatus):
        found["hasSettlementValue"] = event.settlement_value is not None
    if isinstance(event, Gap):
        found |= {
            "receivedTime": event.to_ns,
            "hasSid": event.sid is not None,
            "hasLastSeq": event.last_seq is not None,
            "hasNextSeq": event.next_seq is not None,
            "allTickers": event.tickers is None,
        }
    return {name: value for name, value in found.items() if value not in (None, "", ())}


def fill(message: Any, event: Event, names: list[str] | None = None) -> None:
    """Set the fields one by one, in schema order unless `names` says otherwise."""
    found = values(event)
    for name in names or message.schema.fieldnames:
        value = found.get(name)
        if isinstance(value, tuple):
            items = message.init(name, len(value))
            for index, item in enumerate(value):
                if isinstance(item, tuple):
                    items[index].price, items[index].size = item
                elif item:
                    items[index] = item
        elif value is not None:
            setattr(message, name, value if isinstance(value, str | bool) else int(value))


def build(event: Event, first_segment_words: int = 1 << 16, names: list[str] | None = None) -> bytes:
    """The message as pycapnp builds it; a small first segment makes it a message of several segments."""
    message = STRUCTS[event_type_of(event)].new_message(first_segment_words)
    fill(message, event, names)
    return bytes(message.to_bytes())
