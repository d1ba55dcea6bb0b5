"""Events to Cap'n Proto bytes: one `struct.pack` per message, with templates compiled from the schema's layout.

The bytes are those that pycapnp builds when the fields are set in schema order and empty texts and lists are left
unset: one segment, texts and lists behind the struct in the order of their pointers.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from struct import Struct, pack, pack_into
from typing import TypeAlias

from ssmd.market.events import Gap, MarketStatus, OrderBookUpdate, Quote, Trade
from ssmd.wire.layout import (
    WORD,
    StructLayout,
    frame_header,
    list_pointer,
    struct_tag,
    text_list_pointer,
    text_pointer,
    text_words,
)

_MAX_TEMPLATES = 65_536  # about 20 MB; emptied when full, so that hostile tickers cannot fill the memory
_MAX_CACHED_BYTES = 1_024  # a template with longer texts is used once

Template: TypeAlias = tuple[Callable[..., bytes], bytes, bytes]
"""(pack, segment table and root pointer, pointers and the texts that do not change)."""

ATTRIBUTES = {
    "exchangeTime": "exchange_ns",
    "receivedTime": "received_ns",
    "sid": "sid",
    "seq": "seq",
    "price": "price",
    "size": "size",
    "side": "side",
    "block": "block",
    "kind": "kind",
    "clock": "clock",
    "bid": "bid",
    "bidSize": "bid_size",
    "ask": "ask",
    "askSize": "ask_size",
    "last": "last",
    "lastSize": "last_size",
    "volume": "volume",
    "openInterest": "open_interest",
}
"""The event attribute of each number in the hot structs, by its schema name."""


def plain_fields(layout: StructLayout) -> list[str]:
    """The fields of a hot struct that are packed as they are: all numbers but the constant exponents."""
    return [name for name in layout.data if name in ATTRIBUTES]


# The numbers of each hot struct in the order of their bytes. The packers name the attributes one by one, which is a
# third faster than a list of them; the layout says at import whether this is still their order.
_TRADE_NUMBERS = ("exchangeTime", "receivedTime", "sid", "side", "seq", "price", "size", "block")
_ORDERBOOK_NUMBERS = ("exchangeTime", "receivedTime", "sid", "kind", "seq", "clock")
_QUOTE_NUMBERS = (
    "exchangeTime", "receivedTime", "sid", "seq", "bid", "bidSize", "ask", "askSize", "last", "lastSize", "volume",
    "openInterest",
)  # fmt: skip


@lru_cache(maxsize=1_024)
def _compiled(codes: str) -> Callable[..., bytes]:
    """Shared by all tickers of one length: what is used for every message stays in the processor's cache."""
    return Struct(codes).pack


def _number_codes(layout: StructLayout, names: tuple[str, ...]) -> str:
    """`struct` codes of a hot struct's data section; ValueError when its numbers are not `names` in this order."""
    codes, order = layout.data_codes(plain_fields(layout))
    if order != names:
        raise ValueError(f"the schema's numbers are {', '.join(order)}: the packer expects {', '.join(names)}")
    return codes


def _padded(text: bytes) -> bytes:
    return text.ljust(text_words(len(text)) * WORD, b"\0") if text else b""


class _Heap:
    """Pointer words of a struct, and how far the objects behind it reach."""

    def __init__(self, layout: StructLayout) -> None:
        self._layout = layout
        self.words = layout.body_words
        self.pointers = [0] * layout.pointer_words

    def _offset(self, slot: int) -> int:
        return self.words - (1 + self._layout.data_words + slot) - 1

    def text(self, name: str, size: int) -> None:
        """Reserve a text of `size` bytes; an empty one stays unset."""
        if size:
            slot = self._layout.pointers[name]
            self.pointers[slot] = text_pointer(self._offset(slot), size)
            self.words += text_words(size)

    def structs(self, name: str, element: StructLayout, count: int) -> None:
        """Reserve a list of structs; an empty one stays unset."""
        if count:
            slot = self._layout.pointers[name]
            self.pointers[slot] = list_pointer(self._offset(slot), element.data_words, count)
            self.words += 1 + count * element.data_words

    def texts(self, name: str, texts: Sequence[bytes]) -> bytes:
        """Reserve a list of texts and return its bytes; an empty one stays unset."""
        if not texts:
            return b""
        slot = self._layout.pointers[name]
        self.pointers[slot] = text_list_pointer(self._offset(slot), len(texts))
        pointers, reach = [], len(texts)
        for index, text in enumerate(texts):
            pointers.append(text_pointer(reach - index - 1, len(text)) if text else 0)
            reach += text_words(len(text)) if text else 0
        self.words += reach
        return pack(f"<{len(pointers)}Q", *pointers) + b"".join(map(_padded, texts))

    @property
    def head(self) -> bytes:
        return pack("<QQ", frame_header(self.words), self._layout.root)

    @property
    def pointer_bytes(self) -> bytes:
        return pack(f"<{len(self.pointers)}Q", *self.pointers)


def trade_packer(layout: StructLayout) -> Callable[[Trade], bytes]:
    """A function from Trade to bytes. It raises struct.error, UnicodeEncodeError or DataError for what does not fit."""
    codes = _number_codes(layout, _TRADE_NUMBERS)
    templates: dict[tuple[str, str, int], Template] = {}

    def template(ticker: str, connection: str, id_size: int) -> Template:
        first, second = ticker.encode(), connection.encode()
        heap = _Heap(layout)
        heap.text("ticker", len(first))
        heap.text("connection", len(second))
        heap.text("tradeId", id_size)
        middle = heap.pointer_bytes + _padded(first) + _padded(second)
        id_bytes = text_words(id_size) * WORD if id_size else 0
        made = _compiled(f"<16s{codes}{len(middle)}s{id_bytes}s"), heap.head, middle
        _remember(templates, (ticker, connection, id_size), made, len(middle) + id_size)
        return made

    def encode(event: Trade) -> bytes:
        trade_id = event.trade_id.encode()
        key = (event.ticker, event.connection, len(trade_id))
        pack_message, head, middle = templates.get(key) or template(*key)
        return pack_message(
            head, event.exchange_ns, event.received_ns, event.sid, event.side, event.seq, event.price, event.size,
            event.block, middle, trade_id,
        )  # fmt: skip

    return encode


def quote_packer(layout: StructLayout) -> Callable[[Quote], bytes]:
    """A function from Quote to bytes; errors as `trade_packer`."""
    codes = _number_codes(layout, _QUOTE_NUMBERS)
    templates: dict[tuple[str, str], Template] = {}

    def template(ticker: str, connection: str) -> Template:
        first, second = ticker.encode(), connection.encode()
        heap = _Heap(layout)
        heap.text("ticker", len(first))
        heap.text("connection", len(second))
        tail = heap.pointer_bytes + _padded(first) + _padded(second)
        made = _compiled(f"<16s{codes}{len(tail)}s"), heap.head, tail
        _remember(templates, (ticker, connection), made, len(tail))
        return made

    def encode(event: Quote) -> bytes:
        key = (event.ticker, event.connection)
        pack_message, head, tail = templates.get(key) or template(*key)
        return pack_message(
            head, event.exchange_ns, event.received_ns, event.sid, event.seq, event.bid, event.bid_size, event.ask,
            event.ask_size, event.last, event.last_size, event.volume, event.open_interest, tail,
        )  # fmt: skip

    return encode


def orderbook_packer(layout: StructLayout, level: StructLayout) -> Callable[[OrderBookUpdate], bytes]:
    """A function from OrderBookUpdate to bytes; errors as `trade_packer`."""
    codes = _number_codes(layout, _ORDERBOOK_NUMBERS)
    level_codes, level_order = level.data_codes(level.data)
    if (level_codes.replace("0x", ""), level_order) != ("qq", ("price", "size")):
        raise ValueError("the schema's Level is not a pair of Int64")
    # Changes of one level are nearly all there is; (price, size) alone tells no side, so each side has its templates.
    one_bid: dict[tuple[str, str], Template] = {}
    one_ask: dict[tuple[str, str], Template] = {}

    def template(ticker: str, connection: str, bids: int, asks: int) -> Template:
        first, second = ticker.encode(), connection.encode()
        heap = _Heap(layout)
        heap.text("ticker", len(first))
        heap.text("connection", len(second))
        heap.structs("bids", level, bids)
        heap.structs("asks", level, asks)
        middle = heap.pointer_bytes + _padded(first) + _padded(second)
        # The first list's tag is constant, like all before it; a second list has its own between the levels.
        if bids or asks:
            middle += pack("<Q", struct_tag(level, bids or asks))
        levels = f"{2 * bids}qQ{2 * asks}q" if bids and asks else f"{2 * (bids or asks)}q"
        made = _compiled(f"<16s{codes}{len(middle)}s{levels}"), heap.head, middle
        if bids + asks == 1:
            _remember(one_bid if bids else one_ask, (ticker, connection), made, len(middle))
        return made

    def encode(event: OrderBookUpdate) -> bytes:
        bids, asks = event.bids, event.asks
        if len(bids) + len(asks) == 1:
            key = event.ticker, event.connection
            if bids:
                pack_message, head, middle = one_bid.get(key) or template(*key, 1, 0)
                price, size = bids[0]
            else:
                pack_message, head, middle = one_ask.get(key) or template(*key, 0, 1)
                price, size = asks[0]
            return pack_message(
                head, event.exchange_ns, event.received_ns, event.sid, event.kind, event.seq, event.clock, middle,
                price, size,
            )  # fmt: skip
        pack_message, head, middle = template(event.ticker, event.connection, len(bids), len(asks))
        tag = (struct_tag(level, len(asks)),) if bids and asks else ()
        return pack_message(
            head, event.exchange_ns, event.received_ns, event.sid, event.kind, event.seq, event.clock, middle,
            *chain.from_iterable(bids), *tag, *chain.from_iterable(asks),
        )  # fmt: skip

    return encode


def status_packer(layout: StructLayout) -> Callable[[MarketStatus], bytes]:
    """A function from MarketStatus to bytes; errors as `trade_packer`."""

    def encode(event: MarketStatus) -> bytes:
        value = event.settlement_value
        numbers = {
            "exchangeTime": event.exchange_ns,
            "receivedTime": event.received_ns,
            "sid": event.sid,
            "seq": event.seq,
            "status": event.status,
            "settlementValue": value or 0,
            "hasSettlementValue": value is not None,
        }
        texts = {"ticker": event.ticker, "connection": event.connection, "result": event.result}
        return _assemble(layout, numbers, texts)

    return encode


def gap_packer(layout: StructLayout) -> Callable[[Gap], bytes]:
    """A function from Gap to bytes; errors as `trade_packer`."""

    def encode(event: Gap) -> bytes:
        numbers = {
            "receivedTime": event.to_ns,
            "fromTime": event.from_ns,
            "toTime": event.to_ns,
            "sid": event.sid or 0,
            "hasSid": event.sid is not None,
            "lastSeq": event.last_seq or 0,
            "hasLastSeq": event.last_seq is not None,
            "nextSeq": event.next_seq or 0,
            "hasNextSeq": event.next_seq is not None,
            "allTickers": event.tickers is None,
        }
        texts = {"connection": event.connection, "feed": event.feed, "reason": event.reason}
        return _assemble(layout, numbers, texts, {"tickers": event.tickers or ()})

    return encode


def _assemble(
    layout: StructLayout,
    numbers: dict[str, int],
    texts: dict[str, str],
    lists: dict[str, Sequence[str]] | None = None,
) -> bytes:
    """A message field by field, for the rare events: exponents stay at their default."""
    data = bytearray(layout.data_words * WORD)
    for name, value in numbers.items():
        field = layout.data[name]
        if field.bit is None:
            pack_into(f"<{field.code}", data, field.offset, value ^ field.default)
        else:
            data[field.offset] |= (value ^ field.default) << field.bit
    heap, objects = _Heap(layout), []
    for name in sorted(layout.pointers, key=layout.pointers.__getitem__):
        if lists and name in lists:
            objects.append(heap.texts(name, [text.encode() for text in lists[name]]))
        else:
            raw = texts.get(name, "").encode()
            heap.text(name, len(raw))
            objects.append(_padded(raw))
    return b"".join((heap.head, data, heap.pointer_bytes, *objects))


def _remember(templates: dict, key: tuple, made: Template, size: int) -> None:  # type: ignore[type-arg]
    if size > _MAX_CACHED_BYTES:
        return
    if len(templates) >= _MAX_TEMPLATES:
        templates.clear()
    templates[key] = made
