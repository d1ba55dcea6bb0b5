"""What a feed is: a decoder that never raises, a mapper per connection, and a session that knows no sockets.

A frame is the exact payload of one WebSocket message. `Decoder.decode` says what it is; the raw archive stores it
under that name whatever happens next; `Mapper.map` turns it into at most one event. Both are pure: the same frames in
the same order give the same events, live or years later.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from ssmd.market.events import Event

GROUPS = ("trades", "orderbook", "ticker", "lifecycle", "control")
"""The raw archive's file families (SYSTEM contract: `trades-00.jsonl.zst`, ...)."""


class Decoded(msgspec.Struct, gc=False):
    """What the decoder made of one frame.

    `type` is the raw line's `type` (`trade`, `orderbook_delta`, ...; `invalid` when the frame is not JSON or has no
    type). `group` is one of `GROUPS`. `inline` is true when the frame is one line of valid UTF-8 JSON, so that it can
    stand verbatim in a raw line. `sid`/`seq` are None where the frame has none. `message` is feed-private and is given
    back to the mapper and the session. `problem` names what is wrong (a short, bounded vocabulary: a metric label and
    an issue type) or is "".
    """

    type: str
    group: str
    inline: bool
    sid: int | None
    seq: int | None
    message: object
    problem: str = ""


class Decoder(Protocol):
    """Frame bytes to meaning; stateless."""

    def decode(self, frame: bytes) -> Decoded:
        """What `frame` is. Never raises, whatever the bytes."""
        ...


class SequenceGap(msgspec.Struct, frozen=True):
    """A hole in a subscription's sequence; `last_seq` and `next_seq` stand on both sides of it.

    `tickers` are those known to be on the subscription; None when it covers all markets or nothing came on it yet.
    """

    sid: int
    last_seq: int
    next_seq: int
    tickers: tuple[str, ...] | None


class Mapper(Protocol):
    """The state of one connection: sequences and books. Make a new one for each connection."""

    def map(self, decoded: Decoded, received_ns: int) -> Event | None:
        """The event in this frame, or None. Never raises; what could not be mapped is counted in `problems`."""
        ...

    def take_gaps(self) -> list[SequenceGap]:
        """The sequence gaps found since the last call, oldest first."""
        ...

    def take_problems(self) -> dict[str, int]:
        """Problems by kind since the last call (bad_price, negative_size, stale_delta, ...).

        What the decoder found (`Decoded.problem`) is not among them.
        """
        ...

    def snapshots(self, tickers: Sequence[str] | None = None) -> list[Event]:
        """The current book of each ticker (all when None) that is synced, as snapshot events."""
        ...

    @property
    def stale_tickers(self) -> frozenset[str]:
        """Tickers whose book waits for a snapshot; the session is made with access to them and asks at its ticks."""
        ...


class ListedTrade(msgspec.Struct, frozen=True):
    """A trade as the exchange's REST API lists it; `size` in millionths of a contract, `created_ns` since the epoch."""

    trade_id: str
    ticker: str
    size: int
    created_ns: int


ReadFrame: TypeAlias = Callable[[bytes, int], tuple[Event | None, str]]
"""Frame and receive time to the event of a connection's next frame, and what the decoder found wrong ("": nothing)."""

Command: TypeAlias = bytes
"""A text message for the exchange."""


class SessionProblem(msgspec.Struct, frozen=True):
    """Something the exchange refused or ended. `fatal_for` the session: reconnect."""

    message: str
    reconnect: bool = False


class Session(Protocol):
    """The protocol of one connection, without any I/O: what to send, given what came."""

    def start(self, tickers: Sequence[str]) -> list[Command]:
        """The commands that subscribe a fresh connection: all-market channels and books of `tickers`."""
        ...

    def receive(self, decoded: Decoded, now_ns: int) -> list[Command]:
        """Follow a frame; the commands it calls for. Cheap for data frames."""
        ...

    def add_tickers(self, tickers: Sequence[str]) -> list[Command]:
        """Subscribe the books of more tickers (already subscribed ones are ignored)."""
        ...

    def drop_tickers(self, tickers: Sequence[str]) -> list[Command]:
        """Give up the books of tickers."""
        ...

    def take_ended(self) -> list[str]:
        """The markets that the exchange said are over since the last call; their books were given up."""
        ...

    def request_snapshots(self, sid: int, tickers: Sequence[str], now_ns: int) -> list[Command]:
        """Ask for fresh books after a sequence gap on `sid`: of `tickers`, and of those on it that never sent one."""
        ...

    def tick(self, now_ns: int) -> list[Command]:
        """Call about once a second: repeats what was not answered, falls back to unsubscribe and subscribe."""
        ...

    def take_problems(self) -> list[SessionProblem]:
        """What the exchange refused since the last call."""
        ...

    @property
    def requested_tickers(self) -> frozenset[str]:
        """Tickers whose book was asked for."""
        ...

    @property
    def subscribed_tickers(self) -> frozenset[str]:
        """Tickers whose subscription the exchange acknowledged."""
        ...

    @property
    def heard_tickers(self) -> frozenset[str]:
        """Tickers from which a book frame came on this connection."""
        ...

    def sid_tickers(self, sid: int) -> tuple[str, ...] | None:
        """The tickers of a subscription; None when it covers all markets or is unknown."""
        ...
