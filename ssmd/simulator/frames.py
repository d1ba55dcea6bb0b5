"""WebSocket on the wire, server side: the upgrade, frames out (any bytes, on purpose), frames in."""

import base64
import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0
_FIN = 0x80
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_CLIENT_MESSAGE = 16 * 1024 * 1024


class ProtocolViolation(ValueError):
    """The client broke RFC 6455; `code` is the close code it gets."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Request(NamedTuple):
    """The head of an HTTP request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Incoming(NamedTuple):
    """A whole message or control frame from the client."""

    opcode: int
    payload: bytes


def parse_request(head: bytes) -> Request | None:
    """The request line and headers; None when they are not HTTP."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    pairs = (line.partition(":") for line in lines[1:] if line)
    return Request(words[0], words[1], {name.strip().lower(): value.strip() for name, _, value in pairs})


def accept_upgrade(request: Request) -> bytes | None:
    """The 101 answer, or None when the request is no valid upgrade."""
    headers = request.headers
    key = headers.get("sec-websocket-key", "")
    if headers.get("upgrade", "").lower() != "websocket" or not key or request.method != "GET":
        return None
    accept = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _MAGIC, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def http_error(status: int, reason: str, body: bytes) -> bytes:
    """A whole HTTP answer that ends the connection."""
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def encode(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """One unmasked frame around any bytes."""
    first = opcode | (_FIN if fin else 0)
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", first, size) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def encode_fragments(payload: bytes, pieces: int, opcode: int = TEXT) -> bytes:
    """One message cut into at least `pieces` frames."""
    size = max(1, len(payload) // pieces)
    cuts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    last = len(cuts) - 1
    return b"".join(
        encode(cut, _CONTINUATION if index else opcode, fin=index == last) for index, cut in enumerate(cuts)
    )


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return encode(struct.pack("!H", code) + reason.encode()[:123], CLOSE)


class FrameReader:
    """Client bytes to messages; fragments are joined, masks removed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self._opcode = 0

    def feed(self, data: bytes) -> list[Incoming]:
        """What became complete; ProtocolViolation when the client broke the rules."""
        self._buffer += data
        complete = []
        while (frame := self._next_frame()) is not None:
            first, payload = frame
            if (incoming := self._join(first & 0x0F, bool(first & _FIN), payload)) is not None:
                complete.append(incoming)
        return complete

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        if buffer[0] & 0x70:
            raise ProtocolViolation(1002, "reserved bits are set")
        if not buffer[1] & 0x80:
            raise ProtocolViolation(1002, "client frames must be masked")
        size, at = buffer[1] & 0x7F, 2
        if size == 126:
            if len(buffer) < 4:
                return None
            size, at = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            if len(buffer) < 10:
                return None
            size, at = int.from_bytes(buffer[2:10], "big"), 10
        if size > MAX_CLIENT_MESSAGE:
            raise ProtocolViolation(1009, "message too big")
        end = at + 4 + size
        if len(buffer) < end:
            return None
        payload = _unmask(bytes(buffer[at + 4 : end]), bytes(buffer[at : at + 4]))
        first = buffer[0]
        del buffer[:end]
        return first, payload

    def _join(self, opcode: int, fin: bool, payload: bytes) -> Incoming | None:
        if opcode >= CLOSE:
            if not fin or len(payload) > 125:
                raise ProtocolViolation(1002, "control frames are short and whole")
            return Incoming(opcode, payload)
        if opcode != _CONTINUATION:
            if self._opcode:
                raise ProtocolViolation(1002, "a new message began inside another")
            self._opcode = opcode
        elif not self._opcode:
            raise ProtocolViolation(1002, "a continuation of nothing")
        self._message += payload
        if len(self._message) > MAX_CLIENT_MESSAGE:
            raise ProtocolViolation(1009, "message too big")
        if not fin:
            return None
        message = Incoming(self._opcode, bytes(self._message))
        self._message.clear()
        self._opcode = 0
        return message


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
