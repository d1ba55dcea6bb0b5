"""What the connector that was active before left in its spool: how far it came, and what it published last.

The spool is a folder on this machine and outlives its process, so this is known as well after a kill -9 as after a
drain. Nothing is written there: its own connector archives it, now or after its next start.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from ssmd.clock import NS_PER_S
from ssmd.connector.conversation import TRANSIT_NS
from ssmd.connector.spool import (
    OUT,
    RAW,
    Position,
    RawMeta,
    Segment,
    SpoolState,
    covered,
    find_segments,
    later,
    read_entries,
    read_state,
    unpack_messages,
)
from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES, Event, Gap, Kind, MarketStatus, OrderBookUpdate, Trade
from ssmd.market.identity import trade_identity
from ssmd.middleware.transport.interface import Outgoing
from ssmd.wire.normalized import decode, encode

OVERLAP_NS = NS_PER_S
"""What the old one published in so long before its last event is looked for on the new connection."""
_MAX_LAG_NS = 300 * NS_PER_S
"""An exchange's time that is farther away than this is no lag, but somebody's clock."""
_TAIL_NS = 3 * OVERLAP_NS
_MAX_UNSENT_BYTES = 128 << 20
"""More than this that the broker had not stored is left to compaction: it would hold up the live stream."""

log = structlog.get_logger(component="connector")


class Latest(NamedTuple):
    """The last event of one type and ticker: its content, the exchange's latest time, when its frame came."""

    content: bytes
    exchange_ns: int
    received_ns: int


class Predecessor(msgspec.Struct):
    """Everything up to `covered_ns` was captured; the last frame came at `last_ns` on `connection`.

    `clean`: it drained, so that everything was published; else `last_n` is the last frame whose event was (None: not
    known); `ended_n` is the last one that it captured. `unsent` was meant for the stream and perhaps never reached it.
    `published` counts the events of the last seconds by content, and `latest` is the last event by type and ticker.
    `event_ns` is when the last event came, and `exchange_ns` the exchange's latest time.
    """

    covered_ns: int = 0
    connection: str = ""
    clean: bool = True
    last_ns: int = 0
    last_n: int | None = None
    ended_n: int | None = None
    unsent: list[Outgoing] = []
    published: Counter[bytes] = msgspec.field(default_factory=Counter)
    latest: dict[tuple[type[Event], str], Latest] = {}
    event_ns: int = 0
    exchange_ns: int = 0

    @property
    def ended_ns(self) -> int:
        """Where a gap after its end begins; 0 when it never captured. A connection that lagged ended earlier."""
        if self.clean or not self.covered_ns:
            return self.covered_ns
        lag_ns = self.event_ns - self.exchange_ns if self.exchange_ns else 0
        return self.covered_ns - (lag_ns if OVERLAP_NS < lag_ns < _MAX_LAG_NS else TRANSIT_NS)

    @property
    def gap_reason(self) -> str:
        """Why there is one."""
        return "planned_teardown" if self.clean else "startup"


def content_of(event: Event) -> bytes:
    """What is the same in two events that tell the same thing, whichever connection brought it."""
    if isinstance(event, Trade) and (identity := trade_identity(event.trade_id)):
        return identity
    if isinstance(event, Gap):
        return encode(event)
    return encode(msgspec.structs.replace(event, received_ns=0, connection="", sid=0, seq=0))


def read_predecessor(folder: Path, feed: str) -> Predecessor:
    """What stands in the spool `folder`; an empty answer when there is none. Call it in a thread: it may read much."""
    state = read_state(folder)
    segments = find_segments(folder)
    try:
        covered_ns, connection = covered(state, segments)
        found = Predecessor(covered_ns, connection, state.clean, covered_ns, ended_n=state.ended_n)
        _Reading(found, feed, state).read(segments)
    except FileNotFoundError:  # archived and removed meanwhile
        log.warning("the spool of the connector before is gone", folder=str(folder))
        return Predecessor(state.covered_ns, state.connection, state.clean, state.covered_ns, ended_n=state.ended_n)
    return found


class _Reading:
    """One pass over the end of a spool."""

    def __init__(self, found: Predecessor, feed: str, state: SpoolState) -> None:
        self._found = found
        self._prefix = len(feed) + 1
        self._published = state.published
        self._recent = state.recent
        self._counts_from = state.counts_from
        self._at_ns = 0  # when the last frames came that were read
        self._batches: list[tuple[int, list[Outgoing]]] = []  # receive time of the frames, what was made of them
        self._unsent_bytes = 0

    def read(self, segments: list[Segment]) -> None:
        start = min(self._recent, self._published)
        frames_n: int | None = None
        for segment in segments:
            if segment.number < start.segment:
                continue
            offset = start.offset if segment.number == start.segment else 0
            for entry in read_entries(segment.path, offset):
                place = Position(segment.number, entry.end)
                if entry.kind == RAW and place > self._counts_from:
                    meta = msgspec.json.decode(entry.meta, type=RawMeta)
                    frames_n = self._frames(meta, frames_n)
                elif entry.kind == OUT:
                    self._messages(unpack_messages(entry.body), place)
                    self._found.last_n = frames_n
        if self._found.clean:
            self._found.last_n = None
        if frames_n is not None:
            self._found.ended_n = frames_n
        self._note_events()

    def _frames(self, meta: RawMeta, before_n: int | None) -> int:
        """Take note of frames; the number of the connection's last one."""
        found = self._found
        if before_n is None or meta.connection != found.connection:
            found.connection, before_n = meta.connection, meta.first_n - 1
            found.last_n = before_n  # what came before was published before
        found.last_ns = later(found.last_ns, meta.last_ns)
        self._at_ns = later(self._at_ns, meta.last_ns)
        return max(before_n, meta.last_n)

    def _messages(self, messages: list[Outgoing], place: Position) -> None:
        found = self._found
        self._batches.append((self._at_ns or found.last_ns, messages))
        while self._batches[0][0] < self._at_ns - _TAIL_NS:
            self._batches.pop(0)
        if place <= self._published:
            return
        found.unsent += messages
        self._unsent_bytes += sum(len(message.payload) for message in messages)
        if self._unsent_bytes > _MAX_UNSENT_BYTES:
            log.error("messages left to compaction, too many were not published", messages=len(found.unsent))
            found.unsent, self._unsent_bytes = [], 0

    def _note_events(self) -> None:
        found, latest = self._found, self._found.latest
        for at_ns, messages in self._batches:
            for subject, _, payload in messages:
                name = subject[self._prefix : subject.find(b".", self._prefix)].decode()
                if name not in EVENT_TYPES or name == "gap":
                    continue
                try:
                    event = decode(name, payload)
                except DataError:  # of a newer version: it is only not recognized
                    continue
                content = content_of(event)
                found.published[content] += 1
                if isinstance(event, OrderBookUpdate) and event.kind is Kind.SNAPSHOT:
                    continue  # asked for by the old connection: no other one brings it
                its = (type(event), event.ticker)  # type: ignore[union-attr]  # no gap
                before_ns = latest[its].exchange_ns if its in latest else 0
                exchange_ns = max(before_ns, event.exchange_ns)  # type: ignore[union-attr]
                latest[its] = Latest(content, exchange_ns, at_ns)
                found.event_ns = at_ns
                if not isinstance(event, MarketStatus):
                    found.exchange_ns = max(found.exchange_ns, exchange_ns)
