"""One WebSocket reader: its bounded buffer, what it missed, and which books it still has to be sent."""

from collections.abc import Callable, Iterable
from typing import Protocol

SYMBOLS_PER_CLIENT = 4_096
BUFFER_BYTES = 1 << 20
CONTROL_BYTES = 1 << 18  # answers may exceed the buffer by this much before the reader is sent away

HEADER_LIMIT = 65_536


def frame_header(length: int) -> bytes:
    """The header of an unmasked, final text frame with `length` bytes of payload (RFC 6455 §5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < HEADER_LIMIT:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def text_frame(body: bytes) -> bytes:
    """A whole text frame."""
    return frame_header(len(body)) + body


class Outlet(Protocol):
    """The part of `asyncio.Transport` that a client writes to."""

    def write(self, data: bytes, /) -> None:
        """Send now or buffer; never waits."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet."""
        ...


class Client:
    """A connected reader. `symbols` is its subscription: tickers, or `{"*"}`.

    `first_skipped`..`last_skipped` are the sequence numbers that it missed and was not told of yet (0: none);
    `due` holds the tickers whose whole book it has to be sent, oldest first.
    """

    __slots__ = (
        "_kick",
        "due",
        "first_skipped",
        "last_skipped",
        "leaving",
        "limit",
        "number",
        "outlet",
        "skipped",
        "skipping_since",
        "symbols",
    )

    def __init__(
        self, number: int, outlet: Outlet, kick: Callable[[int, str], None], limit: int = BUFFER_BYTES
    ) -> None:
        self.number = number
        self.outlet = outlet
        self.limit = limit
        self.symbols: frozenset[str] = frozenset()
        self.due: dict[str, None] = {}
        self.first_skipped = 0
        self.last_skipped = 0
        self.skipped = 0
        self.skipping_since = 0.0
        self.leaving = False
        self._kick = kick

    @property
    def behind(self) -> bool:
        """Has it missed messages, or is it owed books?"""
        return bool(self.first_skipped or self.due)

    def fits(self, size: int) -> bool:
        """Is there room for `size` bytes? One tick always fits into an empty buffer."""
        buffered = self.outlet.get_write_buffer_size()
        return not buffered or buffered + size <= self.limit

    def room(self) -> int:
        """Bytes that may be added without filling more than half of the buffer, which stays free for live messages."""
        return self.limit // 2 - self.outlet.get_write_buffer_size()

    def skip(self, first: int, last: int, books: Iterable[str], now: float) -> None:
        """Note that the messages `first`..`last` were not sent, and that these books must be sent anew."""
        if not self.first_skipped:
            self.first_skipped = first
            self.skipping_since = now
        self.last_skipped = last
        self.skipped += last - first + 1
        self.due.update(dict.fromkeys(books))

    def take_skipped(self) -> tuple[int, int]:
        """(first, last) sequence number missed since the last call."""
        missed = self.first_skipped, self.last_skipped
        self.first_skipped = self.last_skipped = 0
        return missed

    def kick(self, code: int, reason: str) -> None:
        """End the connection with a WebSocket close code; once."""
        if not self.leaving:
            self.leaving = True
            self._kick(code, reason)
