"""What may wait for a client that does not read: ticks that all clients share, and holes where some were dropped."""

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from ssmd.gateway.subscription import Piece

BUFFER_MESSAGES = 10_000
BUFFER_BYTES = 1 << 20
BOOKS_NAMED = 1_000

DropPolicy: TypeAlias = Literal["drop_oldest", "drop_newest", "disconnect"]


class Bounds(msgspec.Struct, frozen=True):
    """What may wait for one client, and what happens when it is more."""

    messages: int = BUFFER_MESSAGES
    bytes: int = BUFFER_BYTES
    policy: DropPolicy = "drop_oldest"


class Tick(msgspec.Struct, frozen=True, gc=False):
    """One tick's messages of a group: the frames, their numbers `first`..`last`, what of the board they change.

    `made` is the monotonic time in seconds at which they were made, `kinds` how many there are of each type.
    """

    blob: bytes
    first: int
    last: int
    pieces: tuple[Piece, ...]
    kinds: dict[str, int]
    made: float


class Meter:
    """What a group has sent to each of its clients that keeps up; `at` is the monotonic time of the last of it."""

    __slots__ = ("at", "bytes", "messages")

    def __init__(self, at: float) -> None:
        self.messages = 0
        self.bytes = 0
        self.at = at

    def add(self, messages: int, size: int, at: float) -> None:
        """Count one tick."""
        self.messages += messages
        self.bytes += size
        self.at = at


class Hole:
    """Numbers that a client will never see, and the tickers whose book it must not trust until it is sent whole."""

    __slots__ = ("books", "first", "last")

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.books: dict[str, None] | None = {}  # None: too many to name

    def add(self, pieces: Iterable[Piece]) -> None:
        """Name the books among these pieces."""
        if self.books is not None:
            self.books.update((ticker, None) for channel, ticker in pieces if channel == "orderbook")
            if len(self.books) > BOOKS_NAMED:
                self.books = None
