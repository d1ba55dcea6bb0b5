"""What normalization needs of a feed: its decoder of a date, and the state of a connection."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from ssmd.market.events import Event

ReadFrame: TypeAlias = Callable[[bytes, int], tuple[Event | None, str]]
"""See `feeds.interface.ReadFrame`."""

Watch: TypeAlias = Callable[[Event, bool], None]
"""Is told an event, and whether it was published."""


class Decoder(Protocol):
    """Frame bytes to meaning (`feeds.interface.Decoder`)."""

    def decode(self, frame: bytes) -> Any:
        """What `frame` is."""
        ...


class Mapper(Protocol):
    """The state of one connection (`feeds.interface.Mapper`)."""

    def map(self, decoded: Any, received_ns: int) -> Event | None:
        """The event in this frame, or None."""
        ...

    def take_gaps(self) -> Any:
        """The sequence gaps found since the last call (`losses.FoundGap`)."""
        ...

    def take_problems(self) -> dict[str, int]:
        """Problems by kind since the last call."""
        ...

    def snapshots(self, tickers: Sequence[str] | None = None) -> list[Event]:
        """The current books."""
        ...


class Speaker(Protocol):
    """What reads a feed's frames (`feeds.catalogue.FeedParts`)."""

    @property
    def decoder(self) -> Decoder:
        """The decoder of the date."""
        ...

    @property
    def new_mapper(self) -> Callable[[str], Mapper]:
        """Makes the mapper of a connection."""
        ...

    @property
    def new_reader(self) -> Callable[[Any], ReadFrame]:
        """Makes what reads the frames of a mapper's connection: decoder and mapper in one step."""
        ...

    @property
    def eventless(self) -> frozenset[str]:
        """Problems of frames that give no event and need not."""
        ...
