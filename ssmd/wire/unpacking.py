"""Cap'n Proto bytes to events, for messages laid out exactly as `packing` lays them out.

A message's header, root pointer, exponents and pointers decide where everything lies. They are read first and serve as
the key of a plan, a `struct.Struct` made and checked once for all messages of that shape; the rest is one unpack.
Anything of another shape (several segments, other order, longer structs, other exponents) is None here: the caller
then asks pycapnp.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, TypeAlias, TypeVar

from ssmd.errors import DataError
from ssmd.market.events import Kind, Level, OrderBookUpdate, Quote, Side, Trade
from ssmd.wire.layout import EXPONENTS, WORD, StructLayout, frame_header, struct_tag, text_words
from ssmd.wire.packing import plain_fields

_MAX_PLANS = 4_096  # shapes remembered; emptied when full
_MAX_PLANNED_WORDS = 256  # bigger messages come in too many shapes to remember them
_LOW = (1 << 35) - 1  # of a list pointer: kind, offset and element size; the count is above
_TEXT = 1 | 2 << 32
_STRUCTS = 1 | 7 << 32
_SIDES = tuple(Side)
_KINDS = tuple(Kind)

Shape: TypeAlias = tuple[int, ...]
"""Segment table, root pointer, the two exponents as stored, and the pointers."""

Unpack: TypeAlias = Callable[[bytes], tuple[Any, ...]]
M = TypeVar("M")
P = TypeVar("P")


class _Plans(dict[Shape, P | None]):
    """Plans by shape, made on first sight; None for a shape that is not ours."""

    def __init__(self, make: Callable[[Shape], P | None]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, shape: Shape) -> P | None:
        plan = self._make(shape)
        if shape[0] >> 32 <= _MAX_PLANNED_WORDS:
            if len(self) >= _MAX_PLANS:
                self.clear()
            self[shape] = plan
        return plan


def _shape_reader(layout: StructLayout) -> Callable[[bytes], Shape]:
    codes, _ = layout.data_codes(EXPONENTS)
    return Struct(f"<QQ{codes}{layout.pointer_words}Q").unpack_from


def _body_codes(layout: StructLayout, shape: Shape, fields: str, texts: Sequence[str]) -> tuple[str, int] | None:
    """Codes of the struct and of its first texts (each: bytes, closing NUL), and the words up to there."""
    if shape[1] != layout.root or shape[2] or shape[3]:
        return None
    codes, words = f"<16x{fields}{layout.pointer_words * WORD}x", layout.body_words
    for name in texts:
        slot = layout.pointers[name]
        pointer = shape[4 + slot]
        size = (pointer >> 35) - 1
        if size < 0 or pointer & _LOW != _TEXT | _offset(layout, slot, words) << 2:
            return None
        codes += f"{size}sB{text_words(size) * WORD - size - 1}x"
        words += text_words(size)
    return codes, words


def _offset(layout: StructLayout, slot: int, words: int) -> int:
    return words - layout.data_words - slot - 2


def _flat_plans(layout: StructLayout, fields: str, texts: Sequence[str]) -> _Plans[Unpack]:
    def plan(shape: Shape) -> Unpack | None:
        body = _body_codes(layout, shape, fields, texts)
        return None if body is None or shape[0] != frame_header(body[1]) else Struct(body[0]).unpack

    return _Plans(plan)


def _expect(order: tuple[str, ...], expected: str) -> None:
    # The numbers are named one by one where they are unpacked: the schema must hold them in that order.
    if order != tuple(expected.split()):
        raise ValueError(f"the schema's fields lie as {order}, not as {expected}")


def member(members: Sequence[M], value: int, what: str) -> M:
    """The enumerant with number `value`; DataError when this version knows no such."""
    if value >= len(members):
        raise DataError(f"{what} {value} is none of the {len(members)} known", "a newer ssmd may know it")
    return members[value]


def trade_unpacker(layout: StructLayout) -> Callable[[bytes], Trade | None]:
    """A function from bytes to Trade. It raises struct.error or UnicodeDecodeError where the bytes do not fit."""
    shape_of = _shape_reader(layout)
    fields, order = layout.data_codes(plain_fields(layout))
    _expect(order, "exchangeTime receivedTime sid side seq price size block")
    plans = _flat_plans(layout, fields, ("ticker", "connection", "tradeId"))

    def decode(data: bytes) -> Trade | None:
        unpack = plans[shape_of(data)]
        if unpack is None:
            return None
        # fmt: off
        (exchange_ns, received_ns, sid, side, seq, price, size, block,
         ticker, end, connection, end_2, trade_id, end_3) = unpack(data)
        if end or end_2 or end_3:
            return None
        return Trade(
            exchange_ns, received_ns, ticker.decode(), connection.decode(), sid, seq, price, size,
            _SIDES[side] if side < 2 else member(_SIDES, side, "side"), trade_id.decode(), block & 1 == 1,
        )
        # fmt: on

    return decode


def quote_unpacker(layout: StructLayout) -> Callable[[bytes], Quote | None]:
    """A function from bytes to Quote; errors as `trade_unpacker`."""
    shape_of = _shape_reader(layout)
    fields, order = layout.data_codes(plain_fields(layout))
    _expect(order, "exchangeTime receivedTime sid seq bid bidSize ask askSize last lastSize volume openInterest")
    plans = _flat_plans(layout, fields, ("ticker", "connection"))

    def decode(data: bytes) -> Quote | None:
        unpack = plans[shape_of(data)]
        if unpack is None:
            return None
        exchange_ns, received_ns, sid, seq, *numbers, ticker, end, connection, end_2 = unpack(data)
        if end or end_2:
            return None
        return Quote(exchange_ns, received_ns, ticker.decode(), connection.decode(), sid, seq, *numbers)

    return decode


def _book_plans(layout: StructLayout, level: StructLayout, fields: str) -> _Plans[tuple[Unpack, int, int]]:
    """Plans of order books: unpack, number of bids, number of asks."""

    def plan(shape: Shape) -> tuple[Unpack, int, int] | None:
        body = _body_codes(layout, shape, fields, ("ticker", "connection"))
        if body is None:
            return None
        codes, words = body
        counts = []
        for name in ("bids", "asks"):
            slot = layout.pointers[name]
            pointer = shape[4 + slot]
            count, odd = divmod(pointer >> 35, level.data_words)
            if pointer and (odd or not count or pointer & _LOW != _STRUCTS | _offset(layout, slot, words) << 2):
                return None
            if count:
                codes += f"Q{2 * count}q"
                words += 1 + level.data_words * count
            counts.append(count)
        if shape[0] != frame_header(words):
            return None
        return Struct(codes).unpack, counts[0], counts[1]

    return _Plans(plan)


def orderbook_unpacker(layout: StructLayout, level: StructLayout) -> Callable[[bytes], OrderBookUpdate | None]:
    """A function from bytes to OrderBookUpdate; errors as `trade_unpacker`."""
    shape_of = _shape_reader(layout)
    fields, order = layout.data_codes(plain_fields(layout))
    _expect(order, "exchangeTime receivedTime sid kind seq clock")
    plans = _book_plans(layout, level, fields)
    one = struct_tag(level, 1)

    def decode(data: bytes) -> OrderBookUpdate | None:
        plan = plans[shape_of(data)]
        if plan is None:
            return None
        unpack, bid_count, ask_count = plan
        # fmt: off
        (exchange_ns, received_ns, sid, kind, seq, clock,
         ticker, end, connection, end_2, *levels) = unpack(data)
        # fmt: on
        if end or end_2:
            return None
        bids: tuple[Level, ...] = ()
        asks: tuple[Level, ...] = ()
        if bid_count + ask_count == 1:
            tag, price, size = levels
            if tag != one:
                return None
            if bid_count:
                bids = ((price, size),)
            else:
                asks = ((price, size),)
        else:
            split = 1 + 2 * bid_count if bid_count else 0
            if bid_count:
                if levels[0] != struct_tag(level, bid_count):
                    return None
                bids = tuple(zip(levels[1:split:2], levels[2:split:2], strict=True))
            if ask_count:
                if levels[split] != struct_tag(level, ask_count):
                    return None
                asks = tuple(zip(levels[split + 1 :: 2], levels[split + 2 :: 2], strict=True))
        known = _KINDS[kind] if kind < 2 else member(_KINDS, kind, "kind")
        # fmt: off
        return OrderBookUpdate(
            exchange_ns, received_ns, ticker.decode(), connection.decode(), sid, seq, known, bids, asks, clock
        )
        # fmt: on

    return decode
