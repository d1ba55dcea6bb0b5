"""Frames as lines of the raw archive: the frame's own bytes, unchanged, behind what we know about its arrival.

    {"ts":1786410915579,"type":"trade","conn":"c-1","n":1234,"recv_ns":1786410915579123456,"data":<the frame>}

`data` is always last, so the frame is cut out, never parsed and printed again. A frame that cannot stand in a line of
JSON is stored as `"data_b64":"<base64>"` instead.
"""

import binascii
import json
import re
import sys
from functools import lru_cache
from typing import TypeAlias

import msgspec

from ssmd.clock import NS_PER_MS
from ssmd.errors import DataError

MAX_TYPE_CHARS = 64

_LF, _CR = 0x0A, 0x0D
_STRING = rb'("[^"\\]*(?:\\.[^"\\]*)*")'
_HEAD = re.compile(
    rb'\{"ts":[0-9]+,"type":' + _STRING + rb',"conn":' + _STRING
    + rb',"n":([0-9]{1,20}),"recv_ns":([0-9]{1,20}),"data(_b64)?":'
)  # fmt: skip

# The usual line, all of it as raw_line writes it: names that need no escapes, and a `ts` that `recv_ns` begins with.
_PLAIN = rb"[ !#-\[\]-~]"
_LINES = re.compile(
    rb'(?m)^\{"ts":([1-9][0-9]{12}),"type":"' + _PLAIN + rb'{0,64}","conn":"(' + _PLAIN
    + rb'*)","n":(0|[1-9][0-9]{0,17}),"recv_ns":(\1[0-9]{6}),"data":(.+)\}\n'
)  # fmt: skip
_integers = msgspec.json.Decoder(list[int]).decode

Received: TypeAlias = tuple[int, str, int, bytes]
"""(receive time in ns, connection, n, frame): a record without the names that follow from its frame."""


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """One received frame; `n` counts the frames of its connection from 0, `received_ns` is since the epoch, UTC."""

    ts_ms: int
    type: str
    connection: str
    n: int
    received_ns: int
    frame: bytes


def raw_line(received_ns: int, type: str, connection: str, n: int, frame: bytes, inline: bool) -> bytes:
    r"""The archive line of a frame, `\n` included. `type` (the exchange's own word for it) is cut after 64 characters.

    `inline` says that the frame is one line of valid UTF-8 JSON. An empty frame or one with a line break is never
    inlined, whatever `inline` says: a line stays one line.
    """
    if inline and frame and _LF not in frame and _CR not in frame:
        return inline_template(type, connection) % (received_ns // NS_PER_MS, n, received_ns, frame)
    quoted = b'"%b"' % binascii.b2a_base64(frame, newline=False)
    return _template(type, connection, b"_b64") % (received_ns // NS_PER_MS, n, received_ns, quoted)


def inline_template(type: str, connection: str) -> bytes:
    """`template % (ms, n, received_ns, frame)` is `raw_line` of an inline frame, for those who write many at a time.

    `frame` must be one line, and not empty.
    """
    return _template(type, connection, b"")


@lru_cache(maxsize=4_096)
def _template(type: str, connection: str, encoding: bytes) -> bytes:
    # json.dumps escapes everything outside ASCII, lone surrogates included, so that any text can be written and read.
    names = f'"type":{json.dumps(type[:MAX_TYPE_CHARS])},"conn":{json.dumps(connection)}'
    names_bytes = names.encode().replace(b"%", b"%%")
    return b'{"ts":%d,' + names_bytes + b',"n":%d,"recv_ns":%d,"data' + encoding + b'":%b}\n'


def parse_line(line: bytes) -> RawRecord:
    """The record that `raw_line` wrote, with or without its line end. DataError when `line` is no such line.

    The frame is cut, not parsed: that a last line is whole is known from the object's checksum and its line end.
    """
    if not line.endswith(b"\n"):
        line += b"\n"
    head = _HEAD.match(line)
    if head is None:
        raise DataError(f"{line[:80]!r} is not a line of the raw archive")
    type_, connection, count, received, encoded = head.groups()
    try:
        n, received_ns, type_text, connection_text = int(count), int(received), _text(type_), _text(connection)
        rest = line[head.end() : -2]
        frame = binascii.a2b_base64(rest[1:-1], strict_mode=True) if encoded else rest
    except ValueError as error:
        raise DataError(f"{line[:80]!r} is not a line of the raw archive: {error}") from error
    # Writing it again is the whole check: numbers, escapes, base64, line breaks and the end are as raw_line makes them.
    if raw_line(received_ns, type_text, connection_text, n, frame, not encoded) != line:
        raise DataError(f"{line[:80]!r} is not a line of the raw archive as ssmd writes it")
    return RawRecord(received_ns // NS_PER_MS, type_text, connection_text, n, received_ns, frame)


def parse_lines(block: bytes) -> list[Received]:
    """The records of whole lines, as `parse_line` gives them, in a third of its time. DataError as `parse_line`.

    A block in which any line is unusual is left to `parse_line` altogether.
    """
    found = [] if _CR in block else _LINES.findall(block)
    # A match is a whole line, so as many matches as line ends are all of the block.
    if not found or len(found) != block.count(b"\n") or not block.endswith(b"\n"):
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        records = map(parse_line, lines)
        return [(record.received_ns, record.connection, record.n, record.frame) for record in records]
    _, names, counts, times, frames = zip(*found, strict=True)
    connections = {name: sys.intern(name.decode()) for name in set(names)}
    return list(
        zip(
            _integers(b"[%b]" % b",".join(times)),
            [connections[name] for name in names],
            _integers(b"[%b]" % b",".join(counts)),
            frames,
            strict=True,
        )
    )


@lru_cache(maxsize=4_096)
def _text(quoted: bytes) -> str:
    return str(json.loads(quoted))
