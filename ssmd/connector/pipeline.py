"""The path of a frame: spool, map, encode, spool again, publish — synchronous, a whole read at a time."""

import contextlib
from collections.abc import Callable, Iterable

import msgspec
import structlog

from ssmd.archive.handover import Handover
from ssmd.clock import NS_PER_DAY, NS_PER_MS, day_of, now_ns
from ssmd.connector.conversation import TRANSIT_NS, Lines
from ssmd.connector.conversation import Conversation as Conversation
from ssmd.connector.link import Frame
from ssmd.connector.outbox import Outbox
from ssmd.connector.spool import (
    GAP,
    HANDOVER,
    OUT,
    RAW,
    Position,
    RawMeta,
    Segment,
    Spool,
    SpoolFull,
    pack,
    pack_messages,
)
from ssmd.connector.standby import Standby
from ssmd.errors import DataError
from ssmd.feeds.interface import Command, Decoded, Decoder, SequenceGap
from ssmd.market.events import Event, Gap, MarketStatus, OrderBookUpdate, Quote, Trade
from ssmd.market.identity import trade_identity
from ssmd.market.subjects import encode_ticker
from ssmd.middleware.transport.interface import Outgoing
from ssmd.wire import normalized
from ssmd.wire.raw import raw_line

_KINDS: dict[type[Event], bytes] = {
    Trade: b"trade",
    OrderBookUpdate: b"orderbook",
    Quote: b"ticker",
    MarketStatus: b"status",
}
_MAX_SUBJECTS = 200_000
_MAX_TYPES = 200
_FULL_RETRY_NS = 1_000_000_000

log = structlog.get_logger(component="connector")


class Pipeline:
    """Frames in; a durable log, events on the stream and commands for the exchange out."""

    def __init__(
        self,
        feed: str,
        decoder: Decoder,
        spool: Spool,
        outbox: Outbox,
        *,
        max_segment_bytes: int,
        publish_raw: bool,
        on_segment_end: Callable[[Segment], None],
        make_room: Callable[[], bool],
    ) -> None:
        self._feed = feed
        self._decode = decoder.decode
        self._spool = spool
        self._outbox = outbox
        self._max_segment_bytes = max_segment_bytes
        self._publish_raw = publish_raw
        self._on_segment_end = on_segment_end
        self._make_room = make_room
        self._subjects: dict[tuple[type[Event], str], bytes | None] = {}
        self._prefix = feed.encode() + b"."
        self._full_since_ns = 0
        self._full_retry_ns = 0
        self.received: dict[str, int] = {}
        self.published = 0
        self.last_frame: tuple[str, int] | None = None
        """The last frame that was kept: its connection and number."""
        self.gaps: list[Gap] = []
        self._day_number = 0
        self.problems: dict[str, int] = {}
        self.samples: dict[str, bytes] = {}
        self.newly_heard: list[str] = []
        """Tickers whose first event of some kind came; the reader takes them away."""
        self.standby: Standby | None = None
        """While another connector publishes: what comes is held there, and is published when we take over."""
        self.handovers: list[Handover] = []

    # -- the hot path -------------------------------------------------------------------------------------------

    def process(self, conversation: Conversation, frames: list[Frame]) -> list[Command]:
        """Take in the frames of one read; the commands to send."""
        midnight = (frames[-1][0] // NS_PER_DAY) * NS_PER_DAY
        if frames[0][0] < midnight:  # a read across midnight: each frame belongs to the day it was received in
            before = [frame for frame in frames if frame[0] < midnight]
            after = [frame for frame in frames if frame[0] >= midnight]
            return self.process(conversation, before) + self.process(conversation, after)
        decode = self._decode
        try:
            decoded = [decode(frame) for _, frame in frames]
        except Exception as error:  # noqa: BLE001 - capture goes on whatever a decoder does; the frames are kept as they are
            self._bug("decoder_failed", error, frames[0][1])
            decoded = [Decoded("invalid", "control", False, None, None, None, "decoder_failed") for _ in frames]
        first_n = conversation.n
        if not self._keep(conversation, first_n, frames, decoded):
            # lost, and covered by a gap; the protocol goes on (the mapper will see the hole in the sequence)
            return [c for what in decoded for c in conversation.session.receive(what, frames[0][0])]
        conversation.n += len(frames)
        messages, commands = self._map(conversation, first_n, frames, decoded)
        if self.standby is not None:
            self.standby.hold(conversation, first_n, frames)
        elif messages:
            self._emit(messages)
        return commands

    def _keep(self, conversation: Conversation, first_n: int, frames: list[Frame], decoded: list[Decoded]) -> bool:
        """Write the raw lines; False when the spool is full (the frames are lost and a gap is open)."""
        try:
            self._turn_segment(frames[0][0])
        except SpoolFull as error:
            return self._spool_full(error, frames[0][0], conversation)
        groups: dict[str, Lines] = {}
        received, templates, connection = self.received, conversation.templates, conversation.connection
        n = first_n
        for (received_ns, frame), what in zip(frames, decoded, strict=True):
            kind = what.type
            lines = groups.get(what.group)
            if lines is None:
                lines = groups[what.group] = Lines(n)
            if what.inline:
                template = templates.get(kind) or conversation.template(kind)
                lines.lines.append(template % (received_ns // NS_PER_MS, n, received_ns, frame))
            else:
                lines.lines.append(raw_line(received_ns, kind, connection, n, frame, False))
            lines.last_n = n
            received[kind] = received.get(kind, 0) + 1
            if len(received) > _MAX_TYPES:  # a hostile exchange may name as many as it likes
                received["other"] = received.get("other", 0) + received.pop(kind)
            n += 1
        entries = []
        mark = self._stands_by(conversation, frames[0][0])
        if mark:  # each day again: whoever reads a day looks for it some days back only
            stands_by = Handover(self._feed, connection, frames[0][0])
            entries.append(pack(HANDOVER, b"", msgspec.json.encode(stands_by)))
        for group, lines in groups.items():
            first_ns, last_ns = frames[lines.first_n - first_n][0], frames[lines.last_n - first_n][0]
            meta = RawMeta(group, connection, len(lines.lines), lines.first_n, lines.last_n, first_ns, last_ns)
            entries.append(pack(RAW, msgspec.json.encode(meta), b"".join(lines.lines)))
        if not self._append(entries, frames[0][0], conversation):
            return False
        if not conversation.first_ns:
            conversation.first_ns = frames[0][0]
        if mark:
            conversation.marked_ns = frames[0][0]
        conversation.last_ns = frames[-1][0]
        self.last_frame = (connection, n - 1)
        return True

    def _stands_by(self, conversation: Conversation, at_ns: int) -> bool:
        """Is it to be recorded that this connection stands by: with its first frame, and its first one of each day?"""
        if self.standby is None or self.standby.taking_over:
            return False
        return not conversation.n or at_ns // NS_PER_DAY > conversation.marked_ns // NS_PER_DAY

    def _map(
        self, conversation: Conversation, first_n: int, frames: list[Frame], decoded: list[Decoded]
    ) -> tuple[list[Outgoing], list[Command]]:
        mapper, receive = conversation.mapper, conversation.session.receive
        map_one, take_gaps, encode, subjects = mapper.map, mapper.take_gaps, normalized.encode, self._subjects
        make, heard, silent = tuple.__new__, conversation.sid_last_ns, self.standby is not None
        identity_of = conversation.id.replace(b"%", b"%%") + b":%d"
        messages: list[Outgoing] = []
        commands: list[Command] = []
        n = first_n
        for (received_ns, frame), what in zip(frames, decoded, strict=True):
            try:
                event = map_one(what, received_ns)
                answer = receive(what, received_ns)
            except Exception as error:  # noqa: BLE001 - the frame is in the archive; capture goes on whatever a mapper does
                self._bug("mapper_failed", error, frame)
                event, answer = None, []
            if what.problem:
                self._problem(what.problem, 1, frame)
            gaps = take_gaps()
            if gaps:
                commands += self._sequence_gaps(conversation, gaps, received_ns)
            if what.sid is not None:
                heard[what.sid] = received_ns
            if event is not None:
                made = event.__class__
                key = (made, event.ticker)  # type: ignore[union-attr]  # a mapper makes no Gap
                subject = subjects.get(key) or self._subject(key, frame)
                if subject is not None and not silent:
                    identity = identity_of % n
                    if made is Trade:
                        identity = trade_identity(event.trade_id) or identity  # type: ignore[union-attr]
                    messages.append(make(Outgoing, (subject, identity, encode(event))))  # half of Outgoing(…)'s time
            if answer:
                commands += answer
            if self._publish_raw and not silent:
                messages.append(self._raw_message(conversation, what.type, n, frame))
            n += 1
        for kind, count in mapper.take_problems().items():
            self._problem(kind, count, frames[-1][1])
        return messages, commands

    def _raw_message(self, conversation: Conversation, kind: str, n: int, frame: bytes) -> Outgoing:
        token = encode_ticker(kind).encode()
        return Outgoing(self._prefix + b"raw." + token, b"%b:%d:raw" % (conversation.id, n), frame)

    def render(self, conversation: Conversation, event: Event | None, n: int, frame: Frame) -> list[Outgoing]:
        """The messages of one frame, as `process` makes them: of those that were held back."""
        made: list[Outgoing] = []
        if event is not None and not isinstance(event, Gap):
            identity = b"%b:%d" % (conversation.id, n)
            if isinstance(event, Trade):
                identity = trade_identity(event.trade_id) or identity
            made = self.messages_of([event], lambda _: identity)
        if self._publish_raw:
            made.append(self._raw_message(conversation, self._decode(frame[1]).type, n, frame[1]))
        return made

    def messages_of(self, events: Iterable[Event], identity: Callable[[str], bytes]) -> list[Outgoing]:
        """Events as messages; `identity` makes the id from a ticker. None of a ticker that fits into no subject."""
        made = []
        for event in events:
            key = (type(event), event.ticker)  # type: ignore[union-attr]  # a mapper makes no Gap
            subject = self._subjects.get(key) or self._subject(key, b"")
            if subject is not None:
                made.append(Outgoing(subject, identity(key[1]), normalized.encode(event)))
        return made

    def publish(self, messages: list[Outgoing]) -> None:
        """Messages that come from no frame of just now: those held back, or another connector's."""
        if not messages:
            return
        with contextlib.suppress(SpoolFull):
            self._turn_segment(now_ns())
        if self._spool.current is None:
            self._problem("not_published_spool_full", len(messages), b"")
        else:
            self._emit(messages)

    def record_handover(self, handover: Handover) -> None:
        """Keep it in the spool, before anything that follows from it, and hand it on (`handovers`) to be stored."""
        self.handovers.append(handover)
        with contextlib.suppress(SpoolFull):  # it is stored all the same
            self._turn_segment(now_ns())
            self._spool.append(pack(HANDOVER, b"", msgspec.json.encode(handover)))

    def _emit(self, messages: list[Outgoing]) -> None:
        try:
            place = self._spool.append(pack(OUT, b"", pack_messages(messages)))
        except SpoolFull:
            # the raw lines of these frames are safe; the live stream lacks them until it is healed from raw
            self._problem("not_published_spool_full", len(messages), b"")
            return
        self.published += len(messages)
        self._outbox.offer(messages, place)

    # -- the rare paths -----------------------------------------------------------------------------------------

    def _subject(self, key: tuple[type[Event], str], frame: bytes) -> bytes | None:
        if key in self._subjects:
            return None  # known as impossible
        if len(self._subjects) > _MAX_SUBJECTS:
            self._subjects.clear()
        try:
            subject = self._prefix + _KINDS[key[0]] + b"." + encode_ticker(key[1]).encode()
        except DataError:
            self._problem("bad_ticker", 1, frame)
            self._subjects[key] = None
            return None
        self._subjects[key] = subject
        self.newly_heard.append(key[1])
        return subject

    def note_again(self) -> None:
        """Forget which tickers were noted in `newly_heard`."""
        self._subjects.clear()

    def _bug(self, kind: str, error: Exception, frame: bytes) -> None:
        if kind not in self.problems:
            log.error("a bug in ssmd, capture goes on", kind=kind, error=repr(error), exc_info=error)
        self._problem(kind, 1, frame)

    def _problem(self, kind: str, count: int, sample: bytes) -> None:
        self.problems[kind] = self.problems.get(kind, 0) + count
        if sample and kind not in self.samples:
            self.samples[kind] = sample[:1024]

    def _sequence_gaps(self, conversation: Conversation, gaps: list[SequenceGap], received_ns: int) -> list[Command]:
        commands: list[Command] = []
        for found in gaps:
            start = conversation.sid_last_ns.get(found.sid, conversation.first_ns or received_ns)
            self.record_gap(
                Gap(
                    feed=self._feed,
                    connection=conversation.connection,
                    sid=found.sid,
                    from_ns=start - TRANSIT_NS,
                    to_ns=received_ns,
                    reason="sequence_gap",
                    last_seq=found.last_seq,
                    next_seq=found.next_seq,
                    tickers=found.tickers,
                )
            )
            commands += conversation.session.request_snapshots(found.sid, found.tickers or (), received_ns)
        return commands

    def _turn_segment(self, now_ns: int) -> None:
        current = self._spool.current
        if current is not None:
            same_day = now_ns // NS_PER_DAY == self._day_number
            if same_day and self._spool.offset < self._max_segment_bytes:
                return
            self.end_segment()
        self._day_number = now_ns // NS_PER_DAY
        self._outbox.begin(self._spool.begin(day_of(now_ns)))

    def end_segment(self) -> None:
        """Close the current segment and have it sealed."""
        segment = self._spool.end()
        if segment is not None:
            self._on_segment_end(segment)

    def _append(self, entries: list[bytes], first_ns: int, conversation: Conversation) -> bool:
        if self._full_since_ns and self._full_retry_ns - _FULL_RETRY_NS <= first_ns < self._full_retry_ns:
            return False
        while True:
            try:
                self._spool.append(b"".join(entries))
                break
            except SpoolFull as error:
                if not self._make_room():
                    return self._spool_full(error, first_ns, conversation)
        self.close_full_gap(conversation.connection, first_ns)
        return True

    @property
    def losing(self) -> bool:
        """Is the spool full, so that frames are being lost?"""
        return self._full_since_ns > 0

    def close_full_gap(self, connection: str, to_ns: int) -> None:
        """Record the frames that a full spool cost, if it did."""
        if self._full_since_ns:
            start, self._full_since_ns = self._full_since_ns, 0
            self.record_gap(Gap(self._feed, connection, None, start, to_ns, "spool_full"))

    def _spool_full(self, error: SpoolFull, first_ns: int, conversation: Conversation) -> bool:
        if not self._full_since_ns:
            self._full_since_ns = conversation.last_ns or first_ns
            log.error("spool full, frames are being lost", error=str(error), hint="free some disk space")
        self._full_retry_ns = first_ns + _FULL_RETRY_NS
        return False

    def record_gap(self, gap: Gap) -> None:
        """Keep a gap in the spool, announce it on the stream and hand it on (`gaps`) to become an object and a row.

        While another connector publishes it is none: that one has the frames. It is remembered for a takeover.
        """
        if self.standby is not None and not self.standby.taking_over:
            self.standby.gaps.append(gap)
            return
        log.warning(
            "gap recorded", reason=gap.reason, connection=gap.connection, sid=gap.sid,
            seconds=round((gap.to_ns - gap.from_ns) / 1e9, 3),
        )  # fmt: skip
        self.gaps.append(gap)
        identity = b"gap:%b:%d:%d" % (gap.connection.encode(), gap.from_ns, -1 if gap.sid is None else gap.sid)
        subject = self._prefix + b"gap." + encode_ticker(gap.connection or "none").encode()
        message = Outgoing(subject, identity, normalized.encode(gap))
        try:
            if self._spool.current is None:
                self._turn_segment(gap.to_ns)
            place: Position = self._spool.append(
                pack(GAP, b"", msgspec.json.encode(gap)) + pack(OUT, b"", pack_messages([message]))
            )
        except SpoolFull:
            return  # the object is stored all the same, from `gaps`
        self.published += 1
        self._outbox.offer([message], place)
