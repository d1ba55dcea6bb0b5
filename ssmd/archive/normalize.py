"""A day's events made again from its raw archive: the one function behind compaction and its verification.

The frames of each connection go, in order, through the decoder of the date and a mapper of their own, as they did
live. A connection that began on an earlier day is followed from its beginning, so that its books are right; the events
of earlier days are dropped. Gap objects become gap events.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from ssmd.archive.frames import compress
from ssmd.archive.layout import TickerObject
from ssmd.archive.manifest import Manifest, raw_manifests
from ssmd.archive.reader import read_gaps, read_raw_day
from ssmd.archive.segments import Measures, normalized_manifest, symbol_of
from ssmd.archive.spill import Spill
from ssmd.errors import DataError
from ssmd.market.events import Event, Trade
from ssmd.market.identity import trade_identity
from ssmd.market.subjects import encode_ticker
from ssmd.middleware.storage.interface import Storage
from ssmd.wire.layout import message_end
from ssmd.wire.normalized import decode, encode, event_type_of, received_ns

MAX_DAYS_BACK = 7
"""How far the beginning of a connection is looked for."""

_BEGINS_BEFORE = "connection_begins_before_archive"

log = structlog.get_logger(component="archive")


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
        """The sequence gaps found; they were recorded when they happened."""
        ...

    def take_problems(self) -> dict[str, int]:
        """Problems by kind since the last call."""
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


class Normalized(msgspec.Struct):
    """What came of a day: raw frames read, events by type, problems by kind (events left out among them)."""

    frames: int = 0
    gaps: int = 0
    events: Counter[str] = msgspec.field(default_factory=Counter)
    problems: Counter[str] = msgspec.field(default_factory=Counter)


async def normalize_day(
    storage: Storage, bucket: str, feed: str, day: date, speaker_on: Callable[[date], Speaker], spill: Spill
) -> Normalized:
    """Put the messages of all events of a day into `spill`, by (event type, ticker; of gaps: connection).

    `speaker_on` gives the feed's decoder and mappers on a date. DataError as `reader.read_raw_day`.
    """
    made = Normalized()
    mappers = await _begun_before(storage, bucket, feed, day, speaker_on, made)
    speaker = speaker_on(day)
    decode_frame, new_mapper = speaker.decoder.decode, speaker.new_mapper
    async for record in read_raw_day(storage, bucket, feed, day):
        mapper = mappers.get(record.connection)
        if mapper is None:
            mapper = mappers[record.connection] = new_mapper(record.connection)
        decoded = decode_frame(record.frame)
        event = mapper.map(decoded, record.received_ns)
        made.frames += 1
        if decoded.problem:
            made.problems[decoded.problem] += 1
        if event is not None:
            _keep(event, spill, made)
    for mapper in mappers.values():
        mapper.take_gaps()
        made.problems.update(mapper.take_problems())
    gaps = await read_gaps(storage, bucket, feed, day)
    for its in sorted(gaps, key=lambda found: (found.received_ns, found.key)):
        _keep(gaps[its], spill, made)
    made.gaps = len(gaps)
    return made


def _keep(event: Event, spill: Spill, made: Normalized) -> None:
    """An event whose ticker cannot be a subject was never published; it is counted here, as it was live."""
    try:
        symbol = symbol_of(event)
        encode_ticker(symbol)
        message = encode(event)
    except DataError:
        made.problems["bad_ticker"] += 1
        return
    kind = event_type_of(event)
    spill.add((kind, symbol), message)
    made.events[kind] += 1


async def _begun_before(
    storage: Storage, bucket: str, feed: str, day: date, speaker_on: Callable[[date], Speaker], made: Normalized
) -> dict[str, Mapper]:
    """The mappers of connections that began on an earlier day, as they stood at midnight."""
    began = {connection: n for connection, n in (await _first_numbers(storage, bucket, feed, day)).items() if n > 0}
    looked_for = dict(began)
    days: list[date] = []
    while looked_for and len(days) < MAX_DAYS_BACK:
        earlier = day - timedelta(days=len(days) + 1)
        firsts = await _first_numbers(storage, bucket, feed, earlier)
        days.append(earlier)
        looked_for = {connection: firsts[connection] for connection in looked_for if firsts.get(connection, 0) > 0}
        if not firsts.keys() & began.keys():
            break
    mappers: dict[str, Mapper] = {}
    reached: set[str] = set()
    for earlier in reversed(days):
        speaker = speaker_on(earlier)
        async for record in read_raw_day(storage, bucket, feed, earlier, began.keys()):
            mapper = mappers.get(record.connection)
            if mapper is None:
                mapper = mappers[record.connection] = speaker.new_mapper(record.connection)
                if record.n == 0:
                    reached.add(record.connection)
            mapper.map(speaker.decoder.decode(record.frame), record.received_ns)
    for connection in sorted(began.keys() - reached):
        log.warning("connection begins before the archive", feed=feed, day=day.isoformat(), connection=connection)
        made.problems[_BEGINS_BEFORE] += 1
    for mapper in mappers.values():
        mapper.take_gaps()
        mapper.take_problems()
    return mappers


async def _first_numbers(storage: Storage, bucket: str, feed: str, day: date) -> dict[str, int]:
    """The first frame number of each connection on a day."""
    firsts: dict[str, int] = {}
    for manifest in (await raw_manifests(storage, bucket, feed, day)).values():
        for connection, numbers in manifest.connections.items():
            firsts[connection] = min(numbers.first_n, firsts.get(connection, numbers.first_n))
    return firsts


def identity_of(event_type: str, message: bytes) -> bytes:
    """What makes two messages the same event for a reader: a trade's id where it has one, else all its bytes.

    The connector publishes a trade under its id, so that the stream keeps the first of several; so does compaction.
    """
    if event_type == "trade":
        event = decode(event_type, message)
        if isinstance(event, Trade):
            return trade_identity(event.trade_id) or message
    return message


class TickerFile:
    """The messages of one event type and ticker, each event once: iterate, then ask for its `measures`.

    `seen` is called with each event's identity.
    """

    def __init__(self, its: TickerObject, spill: Spill, seen: Callable[[bytes], None] | None = None) -> None:
        self._its = its
        self._spill = spill
        self._seen = seen
        self._first_ns = 1 << 64
        self._last_ns = 0
        self._records = 0

    @property
    def measures(self) -> Measures:
        """What the manifest says about the messages that were iterated."""
        return Measures(self._records, self._first_ns, self._last_ns, 1)

    def __iter__(self) -> Iterator[bytes]:
        kind, trades = self._its.type, set[bytes]()
        for message in _messages(self._spill.blobs((kind, self._its.ticker))):
            identity = identity_of(kind, message)
            if kind == "trade":
                if identity in trades:
                    continue
                trades.add(identity)
            if self._seen is not None:
                self._seen(identity)
            ns = received_ns(message)
            self._first_ns, self._last_ns = min(self._first_ns, ns), max(self._last_ns, ns)
            self._records += 1
            yield message

    def write(self, path: Path) -> Manifest:
        """Compress the messages to `path`; the manifest of the object."""
        compressed = compress(self, path)
        return normalized_manifest(self._its, compressed, self.measures)


def _messages(blobs: Iterator[bytes]) -> Iterator[bytes]:
    for blob in blobs:
        start, size = 0, len(blob)
        while start < size:
            end = message_end(blob, start)
            yield blob[start:end]
            start = end
