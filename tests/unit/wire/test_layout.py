"""The packers follow the schema's own layout, and refuse schemas and sizes that they cannot write."""

from pathlib import Path
from typing import Any

import capnp
import pytest

from ssmd.errors import DataError
from ssmd.wire import normalized
from ssmd.wire.layout import (
    MAX_LEVELS,
    MAX_TEXT_BYTES,
    StructLayout,
    list_pointer,
    reflect,
    text_list_pointer,
    text_pointer,
    text_words,
)
from ssmd.wire.packing import orderbook_packer
from ssmd.wire.unpacking import trade_unpacker


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Structs that no packer of ours can write."""
    path: Path = tmp_path_factory.mktemp("odd") / "odd.capnp"
    path.write_text(
        """@0xe5d1c1a3b7f90246;
        struct Floating { price @0 :Float64; }
        struct Flags { one @0 :Bool; two @1 :Bool; }
        struct Defaulted { size @0 :Int64 = 5; }
        struct Cents { priceExponent @0 :Int8 = -2; }
        """
    )
    return capnp.load(str(path))


def layout_of(struct: Any) -> StructLayout:
    return reflect(struct.schema)


def test_a_field_of_a_type_without_packer_is_refused(odd: Any) -> None:
    with pytest.raises(ValueError, match="price has the type float64"):
        layout_of(odd.Floating)


@pytest.mark.parametrize("name", ["Flags", "Defaulted", "Cents"])
def test_what_is_more_than_a_plain_number_is_not_packed_as_one(odd: Any, name: str) -> None:
    layout = layout_of(getattr(odd, name))

    with pytest.raises(ValueError, match="cannot be packed as a plain number"):
        layout.data_codes(layout.data)


@pytest.mark.parametrize("event_type", list(normalized.STRUCTS))
def test_no_two_fields_of_a_schema_overlap(event_type: str) -> None:
    layout = layout_of(normalized.STRUCTS[event_type])
    sizes = {"b": 8, "B": 8, "H": 16, "I": 32, "q": 64, "Q": 64}
    taken: list[int] = []
    for field in layout.data.values():
        first = field.offset * 8 + (field.bit or 0)
        taken.extend(range(first, first + (1 if field.bit is not None else sizes[field.code])))

    assert len(taken) == len(set(taken))
    assert max(taken) < layout.data_words * 64
    assert sorted(layout.pointers.values()) == list(range(layout.pointer_words))


@pytest.mark.parametrize("event_type", list(normalized.STRUCTS))
def test_both_exponents_default_to_millionths_in_every_schema(event_type: str) -> None:
    data = layout_of(normalized.STRUCTS[event_type]).data

    assert data["priceExponent"].default == data["sizeExponent"].default == -6


def test_sizes_beyond_the_format_are_a_data_error() -> None:
    assert text_pointer(0, MAX_TEXT_BYTES) < 1 << 64
    assert list_pointer(0, 2, MAX_LEVELS) < 1 << 64
    with pytest.raises(DataError, match="does not fit"):
        text_pointer(0, MAX_TEXT_BYTES + 1)
    with pytest.raises(DataError, match="does not fit"):
        list_pointer(0, 2, MAX_LEVELS + 1)
    with pytest.raises(DataError, match="does not fit"):
        text_list_pointer(0, MAX_LEVELS + 1)


@pytest.mark.parametrize(("size", "words"), [(0, 1), (7, 1), (8, 2), (15, 2), (16, 3)])
def test_a_text_always_has_room_for_its_closing_nul(size: int, words: int) -> None:
    assert text_words(size) == words


def test_packers_refuse_a_schema_whose_fields_lie_otherwise() -> None:
    trade, quote, book = (layout_of(normalized.STRUCTS[name]) for name in ("trade", "ticker", "orderbook"))

    with pytest.raises(ValueError, match="fields lie as"):
        trade_unpacker(quote)
    with pytest.raises(ValueError, match="not a pair of Int64"):
        orderbook_packer(book, trade)
