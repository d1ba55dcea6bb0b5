"""What the exchange plays: numbered-later messages, and the state that snapshots and REST answers come from."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

CHANNEL_OF_TYPE = {
    "orderbook_snapshot": "orderbook_delta",
    "orderbook_delta": "orderbook_delta",
    "trade": "trade",
    "ticker": "ticker",
    "market_lifecycle_v2": "market_lifecycle_v2",
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
}

Row: TypeAlias = Mapping[str, Any]
"""A REST object, as it is written to JSON."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A data frame without its numbers: `head` sid `middle` seq `tail`.

    `numbered` is false on channels without a sequence (ticker): then the frame is `head` sid `middle`. `seq_first`
    means that the two numbers stand the other way round.
    """

    channel: str
    type: str
    ticker: str
    head: bytes
    middle: bytes
    tail: bytes = b""
    numbered: bool = True
    seq_first: bool = False

    def frame(self, sid: int, seq: int) -> bytes:
        """The frame as one subscription sees it."""
        if not self.numbered:
            return b"%b%d%b" % (self.head, sid, self.middle)
        if self.seq_first:
            return b"%b%d%b%d%b" % (self.head, seq, self.middle, sid, self.tail)
        return b"%b%d%b%d%b" % (self.head, sid, self.middle, seq, self.tail)


class Source(Protocol):
    """A market: the seeded generator or recorded tapes."""

    @property
    def unpaced(self) -> bool:
        """True when messages come as fast as the clients take them; the source then waits while nobody listens."""
        ...

    def take(self, now_ns: int, limit: int) -> list[Message]:
        """What happened up to now and was not taken yet, at most about `limit`; the books move along."""
        ...

    def progress(self) -> dict[str, Any]:
        """How far it got, for the state page."""
        ...

    def snapshot_body(self, ticker: str) -> bytes | None:
        """The `msg` of a snapshot of the book as it is now; None for a ticker that does not exist."""
        ...

    def ticker_body(self, ticker: str, now_ns: int) -> bytes | None:
        """The `msg` of a ticker frame; None when the market has none."""
        ...

    def book_levels(self, ticker: str, depth: int) -> dict[str, list[list[str]]] | None:
        """`yes_dollars` and `no_dollars` for REST; None for a ticker that does not exist."""
        ...

    def markets(self) -> Sequence[Row]:
        """All market objects in order of creation."""
        ...

    def events(self) -> Sequence[Row]:
        """All event objects, without their markets."""
        ...

    def series(self) -> Sequence[Row]:
        """All series objects."""
        ...

    def trades(self) -> Sequence[Row]:
        """The public trades so far, oldest first."""
        ...
