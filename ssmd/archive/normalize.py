"""A day's events made again from its raw archive: the one function behind compaction and its verification.

The frames of each connection go, in order, through the decoder of the date and a mapper of their own, as they did
live; of a connector that stood by, only what it published counts (`archive.handover`). A connection that began on an
earlier day is followed from its beginning, so that its books are right; the events of earlier days are dropped. Gap
objects become gap events.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import msgspec
import structlog

from ssmd.archive.frames import compress_lists
from ssmd.archive.handover import Part, read_parts
from ssmd.archive.layout import TickerObject
from ssmd.archive.losses import BareGap, Recorded
from ssmd.archive.manifest import Manifest, raw_manifests
from ssmd.archive.raw_day import read_raw_day
from ssmd.archive.reader import read_gaps
from ssmd.archive.segments import Measures, normalized_manifest, symbol_of
from ssmd.archive.speaker import Mapper, ReadFrame, Speaker, Watch
from ssmd.archive.spill import Spill
from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES, Event, Trade
from ssmd.market.identity import trade_identity
from ssmd.market.subjects import encode_ticker
from ssmd.middleware.storage.interface import Storage
from ssmd.wire.normalized import decode, encode, event_type_of, receive_times
from ssmd.wire.raw import Received

MAX_DAYS_BACK = 7
"""How far the beginning of a connection is looked for."""

_BEGINS_BEFORE = "connection_begins_before_archive"
_UNFIT = "bad_ticker"
UNRECORDED = "unrecorded_gap"
"""The problem of a hole in the exchange's numbers that no recorded gap covers."""

log = structlog.get_logger(component="archive")


class Normalized(msgspec.Struct):
    """What came of a day: raw frames read, events by type, problems by kind (events left out among them).

    `not_understood` counts frames that should have given an event and gave none, by their type and problem; `bare` are
    (the first) holes in the exchange's numbers that no recorded gap covers.
    """

    frames: int = 0
    gaps: int = 0
    events: Counter[str] = msgspec.field(default_factory=Counter)
    problems: Counter[str] = msgspec.field(default_factory=Counter)
    not_understood: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    bare: list[BareGap] = []


async def normalize_day(
    storage: Storage,
    bucket: str,
    feed: str,
    day: date,
    speaker_on: Callable[[date], Speaker],
    spill: Spill,
    on_read: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> Normalized:
    """Put the messages of all events of a day into `spill`, by (event type, ticker; of gaps: connection).

    `speaker_on` gives the feed's decoder and mappers on a date; `on_read` is told the bytes of the day's raw objects
    as they are read, `watch` each event of a frame and whether it is the day's. DataError as `raw_day.read_raw_day`.
    """
    made, speaker = Normalized(), speaker_on(day)
    gaps = await read_gaps(storage, bucket, feed, day)
    recorded = Recorded(gaps.values(), speaker.decoder.decode)
    parts = await read_parts(storage, bucket, feed, day)
    mappers = await _begun_before(storage, bucket, feed, day, speaker_on, made, parts, recorded.headless)
    day_maker = _Maker(speaker, mappers, spill, made, parts, recorded, watch)
    async for run in read_raw_day(storage, bucket, feed, day, on_read=on_read):
        day_maker.take(run)
    day_maker.give_books()
    for mapper in mappers.values():
        made.problems.update(mapper.take_problems())
    if recorded.count:
        made.problems[UNRECORDED] = recorded.count
        made.bare = recorded.bare
    for its in sorted(gaps, key=lambda found: (found.received_ns, found.key)):
        day_maker.keep(gaps[its])
    made.events.update(spill.counts())
    made.gaps = len(gaps)
    return made


class _Maker:
    """Records in order in, messages into a spill: the inner loop, without any I/O but the spill's."""

    def __init__(
        self,
        speaker: Speaker,
        mappers: dict[str, Mapper],
        spill: Spill,
        made: Normalized,
        parts: Mapping[str, Part],
        recorded: Recorded,
        watch: Watch | None = None,
    ) -> None:
        self._speaker = speaker
        self._recorded = recorded
        self._watch = watch
        self._mappers = mappers
        self._readers: dict[str, ReadFrame] = {}
        self._spill = spill
        self._made = made
        self._parts = parts
        self._takers: dict[type[Event], dict[str, list[bytes]]] = {cls: {} for cls in EVENT_TYPES.values()}
        """The spill's lists by event class and ticker; a ticker is here when it was found to be one."""

    def take(self, run: Sequence[Received]) -> None:
        """Frames in the order in which they are to be mapped."""
        problems, takers, watch = self._made.problems, self._takers, self._watch
        connection, read, part = "", None, None
        items, size, connections = 0, 0, set[str]()
        for received_ns, its, n, frame in run:
            if its is not connection or read is None:
                connection, read, part = its, self._reader(its), self._parts.get(its)
                connections.add(its)
            if part is not None and part.due(n):
                part.give_books(self._mapper(its), self.keep)
            event, problem = read(frame, received_ns)
            if problem:
                problems[problem] += 1
            if watch is not None and event is not None:
                watch(event, part is None or part.takes(n))
            if event is None:
                self._nothing(its, frame, problem)
                continue
            if part is not None and not part.takes(n):
                continue
            taker = takers[event.__class__].get(event.ticker)  # type: ignore[union-attr]  # no mapper makes a gap
            if taker is None:
                self.keep(event)
                continue
            try:
                message = encode(event)
            except DataError:
                problems[_UNFIT] += 1
                continue
            taker.append(message)
            items += 1
            size += len(message)
        self._made.frames += len(run)
        self._spill.grown(items, size)
        for name in connections:
            gaps = self._mapper(name).take_gaps()
            if gaps:
                self._recorded.compare(name, gaps, run, self._parts.get(name))

    def _nothing(self, connection: str, frame: bytes, problem: str) -> None:
        """A frame gave no event: count it by its type when it should have given one."""
        found = {problem: 1}
        if not problem:
            found = self._mapper(connection).take_problems()
            self._made.problems.update(found)
        why = found.keys() - self._speaker.eventless
        if why:
            self._made.not_understood[self._speaker.decoder.decode(frame).type, min(why)] += 1

    def keep(self, event: Event) -> None:
        """An event of any kind. One whose ticker cannot be a subject was never published; it is counted, as it was."""
        symbol = symbol_of(event)
        try:
            encode_ticker(symbol)
            message = encode(event)
        except DataError:
            self._made.problems[_UNFIT] += 1
            return
        taker = self._spill.taker((event_type_of(event), symbol))
        self._takers[event.__class__][symbol] = taker
        taker.append(message)
        self._spill.grown(1, len(message))

    def give_books(self) -> None:
        """The day's frames are through: the books of takeovers behind which no frame came on it."""
        for connection, part in self._parts.items():
            if part.books_ns and connection in self._mappers:
                part.give_books(self._mappers[connection], self.keep)

    def _mapper(self, connection: str) -> Mapper:
        mapper = self._mappers.get(connection)
        if mapper is None:
            mapper = self._mappers[connection] = self._speaker.new_mapper(connection)
        return mapper

    def _reader(self, connection: str) -> ReadFrame:
        reader = self._readers.get(connection)
        if reader is None:
            reader = self._readers[connection] = self._speaker.new_reader(self._mapper(connection))
        return reader


async def _begun_before(
    storage: Storage,
    bucket: str,
    feed: str,
    day: date,
    speaker_on: Callable[[date], Speaker],
    made: Normalized,
    parts: Mapping[str, Part],
    headless: set[str],
) -> dict[str, Mapper]:
    """The mappers of connections that began on an earlier day, as they stood at midnight.

    Those whose beginning is not in the archive are added to `headless`.
    """
    first_numbers = await _first_numbers(storage, bucket, feed, day)
    began = {connection: n for connection, n in first_numbers.items() if n > 0}
    # the books of a takeover may be of this day though no frame of its connection is
    began |= {part.connection: 1 for part in parts.values() if part.books_ns and part.connection not in first_numbers}
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
        decode_frame = speaker.decoder.decode
        async for run in read_raw_day(storage, bucket, feed, earlier, began.keys()):
            for received_ns, connection, n, frame in run:
                mapper = mappers.get(connection)
                if mapper is None:
                    mapper = mappers[connection] = speaker.new_mapper(connection)
                    if n == 0:
                        reached.add(connection)
                mapper.map(decode_frame(frame), received_ns)
    headless |= began.keys() - reached
    for connection in sorted(headless):
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

    `seen` is called with each event's identity. The measures are whole when the iteration is.
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
        return chain.from_iterable(self.lists())

    def write(self, path: Path) -> Manifest:
        """Compress the messages to `path`; the manifest of the object."""
        compressed = compress_lists(self.lists(), path)
        return normalized_manifest(self._its, compressed, self.measures)

    def lists(self) -> Iterator[list[bytes]]:
        """The messages, some at a time."""
        kind, trades = self._its.type, set[bytes]()
        for held in self._spill.lists((kind, self._its.ticker)):
            messages = held
            if kind == "trade":
                messages = _first_of_each(held, trades)
            if self._seen is not None:
                for message in messages:
                    self._seen(identity_of(kind, message))
            first_ns, last_ns = receive_times(messages)
            self._first_ns, self._last_ns = min(self._first_ns, first_ns), max(self._last_ns, last_ns)
            self._records += len(messages)
            yield messages


def _first_of_each(messages: Sequence[bytes], known: set[bytes]) -> list[bytes]:
    """The trades that are not in `known`, which then has them."""
    found = []
    for message in messages:
        identity = identity_of("trade", message)
        if identity not in known:
            known.add(identity)
            found.append(message)
    return found
