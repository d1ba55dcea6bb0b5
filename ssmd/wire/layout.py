"""Where the fields of a Cap'n Proto struct lie in its bytes, read from the schema's own reflection.

Cap'n Proto numbers a struct's bytes by rule, not by declaration order: small fields fill holes. pycapnp tells each
field's slot, so nothing here or in the packers is typed by hand. All words are little-endian, 8 bytes.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Any

import msgspec

from ssmd.errors import DataError
from ssmd.market.events import EXPONENT

WORD = 8
MAX_TEXT_BYTES = (1 << 29) - 2  # a list pointer counts bytes, the closing NUL included, in 29 bits
MAX_LEVELS = (1 << 28) - 1  # and words, two per level, in 29 bits

_CODES = {
    "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "enum": "H", "bool": "B",
}  # fmt: skip
_TABLE = Struct("<II").unpack_from  # number of segments less one, words of the first
_SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8}


class DataField(msgspec.Struct, frozen=True):
    """One number or flag: `offset` in bytes from the struct's start, `bit` of a flag within its byte.

    `default` is XORed with the value on the wire, so a field at its default is stored as 0.
    """

    name: str
    code: str
    offset: int
    bit: int | None
    default: int


class StructLayout(msgspec.Struct, frozen=True):
    """A struct's data section, its fields, and which pointer each text or list is."""

    data_words: int
    pointer_words: int
    data: dict[str, DataField]
    pointers: dict[str, int]

    @property
    def root(self) -> int:
        """The root pointer of a message that begins with this struct."""
        return self.data_words << 32 | self.pointer_words << 48

    @property
    def body_words(self) -> int:
        """Words of the root pointer and the struct itself."""
        return 1 + self.data_words + self.pointer_words

    def data_codes(self, names: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """`struct` codes for the whole data section and the order in which `names` stand in it; the rest is padding.

        ValueError when two of them share a byte or one has an unexpected default: those are more than a plain number.
        """
        fields = sorted((self.data[name] for name in names), key=lambda field: field.offset)
        codes, position = "", 0
        for field in fields:
            default = EXPONENT if field.name in EXPONENTS else 0
            if field.offset < position or field.bit or field.default != default:
                raise ValueError(f"field {field.name} cannot be packed as a plain number")
            codes += f"{field.offset - position}x{field.code}"
            position = field.offset + _SIZES[field.code]
        return f"{codes}{self.data_words * WORD - position}x", tuple(field.name for field in fields)


EXPONENTS = ("priceExponent", "sizeExponent")
"""Events hold millionths, the schemas' default exponent is -6: what is stored for them is always 0."""


def reflect(struct_schema: Any) -> StructLayout:
    """The layout of a pycapnp struct schema (`module.Trade.schema`). ValueError for a field type no packer knows."""
    node = struct_schema.node.struct
    data: dict[str, DataField] = {}
    pointers: dict[str, int] = {}
    for field in node.fields:
        kind, slot = str(field.slot.type.which()), int(field.slot.offset)
        if kind in ("text", "list"):
            pointers[str(field.name)] = slot
            continue
        if kind not in _CODES:
            raise ValueError(f"schema field {field.name} has the type {kind}, which the packer does not know")
        name, code, default = str(field.name), _CODES[kind], int(getattr(field.slot.defaultValue, kind))
        if kind == "bool":
            data[name] = DataField(name, code, slot // 8, slot % 8, default)
        else:
            data[name] = DataField(name, code, slot * _SIZES[code], None, default)
    return StructLayout(int(node.dataWordCount), int(node.pointerCount), data, pointers)


def text_words(size: int) -> int:
    """Words that a text of `size` bytes takes, its closing NUL included."""
    return (size + WORD) // WORD


def text_pointer(offset: int, size: int) -> int:
    """A pointer to a text of `size` bytes, `offset` words behind the pointer's end. DataError when it is too long."""
    if size > MAX_TEXT_BYTES:
        raise DataError(f"a text of {size} bytes does not fit into a Cap'n Proto message")
    return offset << 2 | 1 | 2 << 32 | (size + 1) << 35


def list_pointer(offset: int, element_words: int, count: int) -> int:
    """A pointer to `count` structs of `element_words` words (a tag word in front of them)."""
    if count > MAX_LEVELS:
        raise DataError(f"a list of {count} levels does not fit into a Cap'n Proto message")
    return offset << 2 | 1 | 7 << 32 | (element_words * count) << 35


def text_list_pointer(offset: int, count: int) -> int:
    """A pointer to a list of `count` pointers."""
    if count > MAX_LEVELS:
        raise DataError(f"a list of {count} texts does not fit into a Cap'n Proto message")
    return offset << 2 | 1 | 6 << 32 | count << 35


def struct_tag(layout: StructLayout, count: int) -> int:
    """The tag word in front of a list of `count` structs."""
    return count << 2 | layout.root


def frame_header(words: int) -> int:
    """The segment table of a message with one segment of `words` words."""
    return words << 32


def message_end(data: bytes, start: int = 0) -> int:
    """Where the message that begins at `start` ends, by its segment table. DataError when it is cut off or absurd."""
    if len(data) - start < WORD:
        raise DataError(f"a message of {len(data) - start} bytes is shorter than its own header")
    header: tuple[int, int] = _TABLE(data, start)
    others, words = header
    end = start + WORD + words * WORD
    if not others and end <= len(data):
        return end
    count = others + 1
    if count > 512:
        raise DataError(f"a message claims {count} segments; at most 512 are read")
    table = (4 + 4 * count + 7) // 8 * 8
    sizes = data[start + 4 : start + 4 + 4 * count]
    words = sum(int.from_bytes(sizes[i : i + 4], "little") for i in range(0, len(sizes), 4))
    end = start + table + words * WORD
    if end > len(data) or len(sizes) < 4 * count:
        raise DataError(f"a message of {end - start} bytes is cut off after {len(data) - start}")
    return end
