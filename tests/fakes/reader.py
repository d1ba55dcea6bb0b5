"""A WebSocket reader behind a socket: what a client of the gateway sees, and what it makes of it."""

import json
from collections.abc import Callable
from typing import Any

from ssmd.gateway.client import Client
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.waiting import Bounds


def cut_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """(payloads of whole unmasked text frames, the rest)."""
    payloads: list[bytes] = []
    at = 0
    while len(data) - at >= 2:
        assert data[at] == 0x81, "an unfragmented text frame"
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        elif length == 127:
            length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
        if len(data) < start + length:
            break
        payloads.append(data[start : start + length])
        at = start + length
    return payloads, data[at:]


class Socket:
    """What the gateway writes to: bytes stay buffered until the reader takes them.

    Like a transport it tells its `client` to pause when more than `high` bytes are buffered, and `resumed` when no more
    than a quarter of that is left.
    """

    def __init__(self) -> None:
        self.high = 1 << 62
        self.client: Client | None = None
        self.resumed: Callable[[Client], None] = lambda _client: None
        self.buffer = bytearray()
        self.writes = 0
        self.peak = 0
        self.kicked: tuple[int, str] | None = None
        self.closed = False
        self.error: Exception | None = None
        """What `write` raises, as uvloop's transports do when the connection was reset."""

    def write(self, data: bytes, /) -> None:
        if self.error is not None:
            raise self.error
        self.writes += 1
        self.buffer += data
        self.peak = max(self.peak, len(self.buffer))
        if self.client is not None and not self.client.paused and len(self.buffer) > self.high:
            self.client.pause()

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def is_closing(self) -> bool:
        return self.closed

    def kick(self, code: int, reason: str) -> None:
        self.kicked = code, reason

    def take(self, most: int | None = None) -> bytes:
        """The next bytes, at most `most`."""
        data = bytes(self.buffer if most is None else self.buffer[:most])
        del self.buffer[: len(data)]
        if self.client is not None and self.client.paused and len(self.buffer) <= self.high // 4:
            self.client.paused = False
            self.resumed(self.client)
        return data


class Reader:
    """Follows the protocol as documented: checks every number, keeps books from their first snapshot on."""

    def __init__(self, socket: Socket | None = None) -> None:
        self.socket = socket or Socket()
        self.messages: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.seq: int | None = None  # the number of the last data message, or what an answer or a notice said
        self.told = 0  # what the last answer said
        self.books: dict[str, tuple[dict[float, float], dict[float, float]]] = {}
        self.skipped = 0
        self._rest = b""

    @property
    def count(self) -> int:
        """Numbers since the last answer, the skipped ones too."""
        return (self.seq or 0) - self.told

    def read(self, most: int | None = None) -> list[dict[str, Any]]:
        """Read what is buffered (at most `most` bytes) and follow it; the messages that were whole."""
        payloads, self._rest = cut_frames(self._rest + self.socket.take(most))
        fresh = []
        for payload in payloads:
            message = json.loads(payload)
            self.raw.append(payload)
            self.messages.append(message)
            fresh.append(message)
            self.follow(message)
        return fresh

    def follow(self, message: dict[str, Any]) -> None:
        """Check the number and apply the message."""
        kind = message["type"]
        if kind in ("subscribed", "unsubscribed"):
            self.seq = self.told = message["seq"]
        elif message.get("code") == "SKIPPED":
            assert message["from"] == (self.seq or 0) + 1, f"the notice begins after {self.seq}: {message}"
            self.seq = message["to"]
            self.skipped += message["to"] - message["from"] + 1
            for ticker in message["books"]:  # good again from the next snapshot on
                self.books.pop(ticker, None)
        elif "seq" in message:
            assert self.seq is not None, f"data before an answer: {message}"
            assert message["seq"] == self.seq + 1, f"after {self.seq} comes {message['seq']}"
            self.seq = message["seq"]
        if kind == "orderbook":
            self._follow_book(message)

    def _follow_book(self, message: dict[str, Any]) -> None:
        ticker = message["ticker"]
        if message["kind"] == "snapshot":
            self.books[ticker] = dict(message["bids"]), dict(message["asks"])
        elif ticker in self.books:
            for side, levels in zip(self.books[ticker], (message["bids"], message["asks"]), strict=True):
                for price, size in levels:
                    if size:
                        side[price] = size
                    else:
                        side.pop(price, None)


def seat(reader: Reader, fanout: Fanout, number: int, bounds: Bounds = Bounds(), high: int = 1 << 18) -> Client:  # noqa: B008
    """Connect a reader to a fan-out, as a client whose connection buffers about `high` bytes."""
    client = Client(number, reader.socket, reader.socket.kick, bounds)
    reader.socket.client, reader.socket.high, reader.socket.resumed = client, high, fanout.resumed
    fanout.join(client)
    return client
