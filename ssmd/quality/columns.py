"""Events as Arrow columns: the Parquet schema of each event type, exact decimals and nanosecond times included.

Prices and sizes are `decimal128(19, 6)`: dollars and contracts, as exact as the archive's millionths. Times are
`timestamp[ns, UTC]`, null where the exchange gave none. An order book's row holds the levels that the update named and
the best prices of the book after it, as that connection's updates built it (null: nobody bids, asks).
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from ssmd.market.book import OrderBook
from ssmd.market.events import EVENT_TYPES, Event, Kind, OrderBookUpdate, Side, Status

TIME = pa.timestamp("ns", tz="UTC")
MONEY = pa.decimal128(19, 6)
NAME = pa.dictionary(pa.int32(), pa.string())
LEVELS = pa.list_(pa.struct([("price", MONEY), ("size", MONEY)]))
_MAX_TIME = (1 << 63) - 1

_COMMON = [
    ("exchange_time", TIME),
    ("received_time", TIME),
    ("ticker", NAME),
    ("connection", NAME),
    ("sid", pa.uint32()),
    ("seq", pa.uint64()),
]

SCHEMAS: dict[str, pa.Schema] = {
    "trade": pa.schema(
        [*_COMMON, ("price", MONEY), ("size", MONEY), ("side", NAME), ("trade_id", pa.string()), ("block", pa.bool_())]
    ),
    "orderbook": pa.schema(
        [
            *_COMMON, ("kind", NAME), ("bids", LEVELS), ("asks", LEVELS), ("clock", pa.uint64()),
            ("best_bid", MONEY), ("best_ask", MONEY),
        ]
    ),
    "ticker": pa.schema(
        [
            *_COMMON, ("bid", MONEY), ("bid_size", MONEY), ("ask", MONEY), ("ask_size", MONEY), ("last", MONEY),
            ("last_size", MONEY), ("volume", MONEY), ("open_interest", MONEY),
        ]
    ),
    "status": pa.schema([*_COMMON, ("status", NAME), ("result", pa.string()), ("settlement_value", MONEY)]),
    "gap": pa.schema(
        [
            ("feed", NAME), ("connection", NAME), ("sid", pa.uint32()), ("from_time", TIME), ("to_time", TIME),
            ("reason", NAME), ("last_seq", pa.uint64()), ("next_seq", pa.uint64()),
            ("tickers", pa.list_(pa.string())),
        ]
    ),
}  # fmt: skip
"""Columns of each event type. They only ever grow at their end."""


def table_of(event_type: str, events: Sequence[Event], books: "Books | None" = None) -> pa.RecordBatch:
    """The events as rows. `books` follows the order books over all batches of a day."""
    schema = SCHEMAS[event_type]
    members = EVENT_TYPES[event_type].__struct_fields__
    values: list[Sequence[Any]] = list(zip(*map(msgspec.structs.astuple, events), strict=True))
    columns = dict(zip(members, values, strict=True))
    if event_type == "orderbook":
        columns["best_bid"], columns["best_ask"] = (books or Books()).follow(events)
    arrays = [_ARRAYS.get(_source(field.name), _plain)(columns[_source(field.name)], field.type) for field in schema]
    return pa.record_batch(arrays, schema=schema)


class Books:
    """The books of all markets, one for each connection, as far as updates have told of them."""

    def __init__(self) -> None:
        self._books: dict[tuple[str, str], OrderBook] = {}

    def follow(self, events: Sequence[Any]) -> tuple[list[int | None], list[int | None]]:
        """Best bid and ask after each update."""
        bids: list[int | None] = []
        asks: list[int | None] = []
        for update in events:
            book = self._book(update)
            book.apply(update)
            bids.append(max(book.bids) if book.bids else None)
            asks.append(min(book.asks) if book.asks else None)
        return bids, asks

    def _book(self, update: OrderBookUpdate) -> OrderBook:
        key = update.ticker, update.connection
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = OrderBook()
        return book

    def keep(self, ticker: str) -> None:
        """Nothing follows of other markets: the files are sorted by ticker."""
        self._books = {key: book for key, book in self._books.items() if key[0] == ticker}


def money(values: Sequence[int | None]) -> pa.Array:
    """Millionths as exact decimals: a decimal128 is the same integer in 16 bytes."""
    missing = [value is None for value in values]
    low = np.fromiter((value or 0 for value in values), np.int64, len(values))
    words = np.empty((len(values), 2), np.int64)
    words[:, 0] = low
    words[:, 1] = low >> 63
    valid = pa.array([not gone for gone in missing]).buffers()[1] if any(missing) else None
    return pa.Array.from_buffers(MONEY, len(values), [valid, pa.py_buffer(words.tobytes())])


def _source(column: str) -> str:
    """The member of the event that a column shows."""
    return {
        "exchange_time": "exchange_ns",
        "received_time": "received_ns",
        "from_time": "from_ns",
        "to_time": "to_ns",
    }.get(column, column)


def _times(values: Sequence[int], kind: pa.DataType) -> pa.Array:
    return pa.array([value if 0 < value <= _MAX_TIME else None for value in values], pa.int64()).cast(kind)


def _money(values: Sequence[int | None], _kind: pa.DataType) -> pa.Array:
    return money(values)


def _names(members: type[Side | Kind | Status]) -> Callable[[Sequence[Any], pa.DataType], pa.Array]:
    names = pa.array([member.name.lower() for member in members])

    def make(values: Sequence[Any], _kind: pa.DataType) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(values, pa.int32()), names)

    return make


def _levels(values: Sequence[tuple[tuple[int, int], ...]], kind: pa.DataType) -> pa.Array:
    flat = [level for levels in values for level in levels]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(levels) for levels in values], out=offsets[1:])
    prices, sizes = money([price for price, _ in flat]), money([size for _, size in flat])
    items = pa.StructArray.from_arrays([prices, sizes], fields=list(kind.value_type.fields))
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=kind)


def _plain(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind)


_ARRAYS: dict[str, Callable[[Sequence[Any], pa.DataType], pa.Array]] = {
    **dict.fromkeys(("exchange_ns", "received_ns", "from_ns", "to_ns"), _times),
    **dict.fromkeys(
        (
            "price", "size", "best_bid", "best_ask", "bid", "bid_size", "ask", "ask_size", "last", "last_size",
            "volume", "open_interest", "settlement_value",
        ),
        _money,
    ),
    "side": _names(Side),
    "kind": _names(Kind),
    "status": _names(Status),
    "bids": _levels,
    "asks": _levels,
}  # fmt: skip
