"""Which connection's events are the day's while two connectors capture a feed: recorded in the raw archive.

Both write every frame to the raw archive, and one publishes. A connection that begins while another connector
publishes has a record that says so: nothing of it is published. When its connector takes over, a second record says
from which of its frames on it is, what of its earlier ones was published after all, and up to which frame the old
connection's events were. Whoever makes events from raw again follows these records and gets what the live stream got.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any, Protocol

import msgspec

from ssmd.archive import layout
from ssmd.archive.layout import HandoverObject
from ssmd.archive.reader import read_records
from ssmd.clock import day_of
from ssmd.errors import DataError
from ssmd.market.events import Event
from ssmd.middleware.storage.interface import Storage

DAYS_BACK = 7
"""How far the records of a connection that lives over midnight are looked for."""


class Handover(msgspec.Struct, frozen=True):
    """A record about the connection `to`. Without `first_n`: it stands by, its first frame came at `at_ns`.

    With `first_n` it takes over: whole books, received at `at_ns`, after its frames before `first_n`; then the events
    of its frames from `first_n` on. `also` are frames before that (first, last) whose events, books aside, the old
    connection `from_` had not sent. Of that one's frames after `last_n` nothing was published (None: all was).
    """

    feed: str
    to: str
    at_ns: int
    first_n: int | None = None
    from_: str = msgspec.field(default="", name="from")
    last_n: int | None = None
    also: tuple[tuple[int, int], ...] = ()
    ended_n: int | None = None
    """The last frame of `from_` that was captured, whether or not it was published (None: an old record)."""

    @property
    def object(self) -> HandoverObject:
        """Where it belongs."""
        return HandoverObject(self.feed, day_of(self.at_ns), self.at_ns, self.to)


async def store_handover(storage: Storage, bucket: str, handover: Handover) -> str:
    """Store a record; the key. Storing it again changes nothing; DataError when another one is there."""
    content = msgspec.json.encode(handover) + b"\n"
    key = handover.object.key
    if not await storage.put_once(bucket, key, content) and await storage.get(bucket, key) != content:
        raise DataError(f"{bucket}/{key} holds another handover")
    return key


async def read_handovers(storage: Storage, bucket: str, feed: str, day: date) -> dict[HandoverObject, Handover]:
    """The records of a day; DataError for an object that is none or stands in another's place."""
    prefix = layout.handovers_prefix(feed, day)
    found = await read_records(storage, bucket, prefix, layout.parse_handover, Handover)
    for its, handover in found.items():
        if handover.object != its or any(first > last for first, last in handover.also):
            raise DataError(f"{bucket}/{its.key} does not hold the handover that its key names")
    return found


class Books(Protocol):
    """A mapper's books (`feeds.interface.Mapper.snapshots`)."""

    def snapshots(self, tickers: Any = None) -> list[Event]:
        """The current book of each ticker that is synced."""
        ...


class Part:
    """What of one connection was published."""

    def __init__(self, connection: str, first_n: int | None = 0) -> None:
        self.connection = connection
        self.first_n = first_n
        """Everything from this frame on; None: nothing."""
        self.last_n: int | None = None
        self._also: list[tuple[int, int]] = []
        self.books_ns = 0
        """When its whole books were published, before the frame `first_n`; 0: they were not, or not on this day."""
        self.taken_ns = 0
        """When its connector took over; 0: it was the day's from its beginning."""

    def take_over(self, handover: Handover, day: date) -> None:
        """Its connector has taken over."""
        self.first_n, self.taken_ns = handover.first_n, handover.at_ns
        self._also += handover.also
        self.books_ns = handover.at_ns if day_of(handover.at_ns) == day else 0

    def takes(self, n: int) -> bool:
        """Was the event of frame `n` published?"""
        if self.first_n is None or n < self.first_n:
            return any(first <= n <= last for first, last in self._also)
        return self.last_n is None or n <= self.last_n

    def due(self, n: int) -> bool:
        """Are the whole books to be given before frame `n`?"""
        return self.books_ns > 0 and self.first_n is not None and n >= self.first_n

    def give_books(self, mapper: Books, keep: Callable[[Event], None]) -> None:
        """The whole books as they were published; once."""
        at_ns, self.books_ns = self.books_ns, 0
        for event in books_at(mapper, at_ns):
            keep(event)


def books_at(mapper: Books, at_ns: int) -> Iterable[Event]:
    """All books of a mapper as events received at `at_ns`: the same live and from raw."""
    for event in mapper.snapshots():
        yield msgspec.structs.replace(event, received_ns=at_ns)


async def read_parts(storage: Storage, bucket: str, feed: str, day: date) -> dict[str, Part]:
    """The connections of which not everything was published on a day; the others have no part.

    A takeover that is recorded on the day after may begin with frames of before midnight.
    """
    parts: dict[str, Part] = {}
    for back in range(DAYS_BACK, -2, -1):
        found = await read_handovers(storage, bucket, feed, day - timedelta(days=back))
        for its in sorted(found, key=lambda record: record.at_ns):
            _note(parts, found[its], day)
    return parts


def _note(parts: dict[str, Part], handover: Handover, day: date) -> None:
    if handover.first_n is None:
        parts.setdefault(handover.to, Part(handover.to, None))
        return
    parts.setdefault(handover.to, Part(handover.to, None)).take_over(handover, day)
    if handover.from_ and handover.last_n is not None:
        old = parts.setdefault(handover.from_, Part(handover.from_))
        old.last_n = handover.last_n
