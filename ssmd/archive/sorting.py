"""Sort the stream's messages by event type and UTC day: the archiver's inner loop, without any I/O."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import islice

from ssmd.archive.segments import OpenSegment
from ssmd.clock import day_of, day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES, SECMASTER, MarketStatus
from ssmd.middleware.transport.interface import Delivered
from ssmd.wire.normalized import RECEIVED_AT, decode, received_ns

MAX_SUBJECTS = 200_000
_EARLIEST_NS = day_start_ns(date(2015, 1, 1))
_LATEST_NS = day_start_ns(date(2200, 1, 1))
_WORD = 8
_SIGNED = SECMASTER.encode() + b"\x00"


class _Lane:
    """Where the messages of one event type go now."""

    __slots__ = ("screened", "segment", "type")

    def __init__(self, event_type: str, segment: OpenSegment) -> None:
        self.type = event_type
        self.segment = segment
        self.screened = event_type == "status"  # may hold messages that are not archived


def _endless(start_ns: int, end_ns: int, covered: int) -> OpenSegment:
    segment = OpenSegment("none", "none", date(1970, 1, 1), "none", covered)
    segment.start_ns, segment.end_ns = start_ns, end_ns
    return segment


class Sorter:
    """Messages in stream order in, open segments out.

    `last` is the last sequence number taken, `held` the bytes in open segments, `holes` the (first, last) sequence
    numbers that never came, `malformed` the messages that are no events, by kind, `repeated` those that came again.
    `unarchived` counts the security master's status events: they come from no frame, so the archive, which is a
    function of raw, does not hold them.
    """

    def __init__(self, feed: str) -> None:
        self._feed = feed.encode()
        self._sink = _endless(0, 1 << 64, 1 << 64)  # takes every time and keeps nothing
        self._nowhere = _endless(0, 0, 0)  # takes no time: the first message looks for its segment
        self._types = {name: _Lane(name, self._nowhere) for name in EVENT_TYPES}
        self._lanes: dict[bytes, _Lane] = {}
        self._segments: dict[tuple[str, date], OpenSegment] = {}
        self.last = 0
        self.held = 0
        self.holes: list[tuple[int, int]] = []
        self.malformed: Counter[str] = Counter()
        self.unarchived = 0
        self.repeated = 0

    def begin(self, last: int) -> None:
        """Another stream, archived up to `last`."""
        self.last, self.held = last, 0
        self._segments.clear()
        self._reset_lanes()

    def open(self, segment: OpenSegment) -> None:
        """The segment that `take` stopped for."""
        self._segments[segment.type, segment.day] = segment

    def wanted(self, message: Delivered) -> tuple[str, date]:
        """Event type and day of the message that `take` stopped at."""
        return message.subject.split(b".")[1].decode(), day_of(received_ns(message.payload))

    def filled(self) -> list[OpenSegment]:
        """The segments that hold messages, by day and type."""
        found = [segment for segment in self._segments.values() if segment.messages]
        return sorted(found, key=lambda segment: (segment.day, segment.type))

    def stored(self, oldest: date) -> None:
        """All that was held is stored; segments of days before `oldest` are closed."""
        self.held = 0
        for key in [key for key in self._segments if key[1] < oldest]:
            del self._segments[key]
        self._reset_lanes()

    def take(self, batch: Sequence[Delivered], start: int) -> int:
        """Take messages from `start` on; the index of the first whose segment must be opened, else the batch's end.

        Repeated messages (their number was taken) are ignored, and so are those that a segment covers already.
        """
        lanes, number = self._lanes, int.from_bytes
        expected, held = self.last + 1, self.held
        for index, (seq, subject, payload) in enumerate(islice(batch, start, None), start):
            if seq != expected:
                if seq < expected:
                    self.repeated += 1
                    continue
                self.holes.append((expected, seq - 1))
                expected = seq
            lane = lanes.get(subject) or self._lane(subject)
            segment = lane.segment
            ns = number(payload[RECEIVED_AT : RECEIVED_AT + _WORD], "little")
            if not segment.start_ns <= ns < segment.end_ns:
                found = self._segment(lane, ns)
                if found is None:
                    self.last, self.held = expected - 1, held
                    return index
                segment = found
            expected += 1
            if seq <= segment.covered:
                self.repeated += segment is not self._sink
                continue
            # One Cap'n Proto segment and as long as it says: garbage would make the whole object unreadable.
            if number(payload[:_WORD], "little") != (len(payload) - _WORD) << 29:
                self.malformed["not one message"] += 1
                continue
            if lane.screened and _SIGNED in payload and _is_from_secmaster(payload):
                self.unarchived += 1
                continue
            if not segment.messages:
                segment.first_seq = seq
            segment.last_seq = seq
            segment.messages.append(payload)
            segment.subjects.add(subject)
            held += len(payload)
        self.last, self.held = expected - 1, held
        return len(batch)

    def _reset_lanes(self) -> None:
        for lane in self._types.values():
            lane.segment = self._nowhere

    def _lane(self, subject: bytes) -> _Lane:
        """The lane of a subject seen for the first time."""
        feed, event_type, _token = [*subject.split(b"."), b"", b"", b""][:3]
        lane = self._types.get(event_type.decode("ascii", "replace"))
        if lane is None or feed != self._feed or subject.count(b".") != 2:
            lane = _Lane("none", self._sink)
            if event_type != b"raw":  # the connector may publish frames as well; they are in the raw archive
                self.malformed["unknown subject"] += 1
        if len(self._lanes) >= MAX_SUBJECTS:
            self._lanes.clear()
        self._lanes[subject] = lane
        return lane

    def _segment(self, lane: _Lane, ns: int) -> OpenSegment | None:
        """The open segment for a message received at `ns`; None when it must be opened first."""
        if not _EARLIEST_NS <= ns < _LATEST_NS:
            self.malformed["absurd receive time"] += 1
            return self._sink
        found = self._segments.get((lane.type, day_of(ns)))
        if found is not None:
            lane.segment = found
        return found


def _is_from_secmaster(payload: bytes) -> bool:
    try:
        event = decode("status", payload)
    except DataError:
        return False
    return isinstance(event, MarketStatus) and event.connection == SECMASTER
