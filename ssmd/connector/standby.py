"""What a connector that stands by keeps, so that it can go on where the other one ends: the last seconds of frames.

The frames are in the raw archive like any other. Those of the last seconds are held here as well, in front of a
mapper that has seen only what came before them: its books are some seconds old. At a takeover the held frames go
through it up to the place where the old connection ended. There its books are published whole, and after them the
events of all held frames behind that place: nothing is lost, and no book goes back in time.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from ssmd.archive.handover import books_at
from ssmd.clock import NS_PER_S
from ssmd.connector.conversation import Conversation
from ssmd.connector.link import Frame
from ssmd.connector.predecessor import OVERLAP_NS, Predecessor, content_of
from ssmd.feeds.interface import Decoder, Mapper
from ssmd.market.events import Event, Gap, MarketStatus, OrderBookUpdate, Trade
from ssmd.middleware.transport.interface import Outgoing

HOLD_NS = 15 * NS_PER_S
"""Longer than the other connector takes from its last frame to the end of its publishing."""
MAX_BYTES = 64 << 20
MAX_GAPS = 1_000
_FRAME_OVERHEAD = 120

Render = Callable[[Conversation, Event | None, int, Frame], list[Outgoing]]
"""The messages of a frame: (conversation, event, n, frame)."""


class Held(NamedTuple):
    """Frames of one read; `first_n` is the number of the first one."""

    conversation: Conversation
    first_n: int
    frames: list[Frame]


class Standby:
    """The frames of the current connection that the other connector may not have published yet."""

    def __init__(self, decoder: Decoder, new_mapper: Callable[[str], Mapper], render: Render) -> None:
        self._decode = decoder.decode
        self._new_mapper = new_mapper
        self.render = render
        self._held: deque[Held] = deque()
        self._bytes = 0
        self._latest_ns = 0
        self.conversation: Conversation | None = None
        self.mapper: Mapper | None = None
        """Its books are as they were before the first frame held."""
        self.next_n = 0
        self.mapped_ns = 0
        """Receive time of the last frame that is no longer held."""
        self.exchange_ns = 0
        """The exchange's latest time in what is no longer held."""
        self.covers_ns = 0
        """Until then events were given away; everything later can be published."""
        self.ordered = True
        """Did the receive times of this connection ascend, but for a second? Else the clock was put back."""
        self.taking_over = False
        """From now on new connections are the day's, and gaps count."""
        self.gaps: deque[Gap] = deque(maxlen=MAX_GAPS)

    @property
    def empty(self) -> bool:
        """Nothing is held."""
        return not self._held

    @property
    def held_bytes(self) -> int:
        """Memory that the frames take, about."""
        return self._bytes

    def hold(self, conversation: Conversation, first_n: int, frames: list[Frame]) -> None:
        """Frames came, and are in the spool; the oldest ones are let go."""
        if conversation is not self.conversation and not self.taking_over:
            self._begin(conversation)
        self.ordered = self.ordered and frames[0][0] > self._latest_ns - NS_PER_S
        self._latest_ns = max(self._latest_ns, frames[-1][0])
        self._held.append(Held(conversation, first_n, frames))
        self._bytes += _size(frames)
        if self.taking_over:
            return
        oldest_ns = frames[-1][0] - HOLD_NS
        while len(self._held) > 1 and (self._held[0].frames[-1][0] < oldest_ns or self._bytes > MAX_BYTES):
            self._let_go(self._held.popleft())

    def _begin(self, conversation: Conversation) -> None:
        self._held.clear()
        self._bytes = 0
        self.conversation = conversation
        self.mapper = self._new_mapper(conversation.connection)
        self.ordered, self._latest_ns = True, 0
        self.next_n, self.mapped_ns, self.covers_ns, self.exchange_ns = 0, 0, 0, 0

    def _let_go(self, held: Held) -> None:
        self._bytes -= _size(held.frames)
        for n, frame in enumerate(held.frames, held.first_n):
            if self.map_next(n, frame) is not None:
                self.covers_ns = frame[0]

    def map_next(self, n: int, frame: Frame) -> Event | None:
        """The event of the next frame; the mapper's gaps and problems were taken note of when it came."""
        assert self.mapper is not None
        self.next_n, self.mapped_ns = n + 1, frame[0]
        event = self.mapper.map(self._decode(frame[1]), frame[0])
        self.mapper.take_gaps()
        self.mapper.take_problems()
        if event is not None and not isinstance(event, Gap | MarketStatus):
            self.exchange_ns = max(self.exchange_ns, event.exchange_ns)
        return event

    def take(self) -> Held:
        """The oldest frames that are held."""
        held = self._held.popleft()
        self._bytes -= _size(held.frames)
        return held

    def take_of(self, conversation: Conversation) -> Held | None:
        """The same, of this conversation; None when nothing is held or another's come next."""
        return self.take() if self._held and self._held[0].conversation is conversation else None

    def discard(self) -> None:
        """Give up what is held of the connection that stood by; those that began since then are the day's."""
        while self._held and self._held[0].conversation is self.conversation:
            self.take()

    def put_back(self, held: Held) -> None:
        """Frames that were taken and not mapped."""
        if held.frames:
            self._held.appendleft(held)
            self._bytes += _size(held.frames)

    def messages(self, held: Held) -> list[Outgoing]:
        """What is published of held frames that were taken; call it in order."""
        if held.conversation is not self.conversation:  # it was lost while we took over
            self.conversation = held.conversation
            self.mapper = self._new_mapper(held.conversation.connection)
        made: list[Outgoing] = []
        for n, frame in enumerate(held.frames, held.first_n):
            made += self.render(held.conversation, self.map_next(n, frame), n, frame)
        return made

    def books(self, at_ns: int) -> list[Event]:
        """All books as they are before the first frame held."""
        return [] if self.mapper is None else list(books_at(self.mapper, at_ns))


class Cut:
    """The search for the place where the old connection ended, among the frames that are held: by content alone.

    It is reached when all that the old one published last, of each type and ticker, has come. Behind that place there
    is nothing of the old one's. The events shortly before it that the old one had not published are gathered in
    `also`, with the numbers of their frames; changes of books among them are in the books that are published there.
    """

    def __init__(self, standby: Standby, old: Predecessor) -> None:
        self._standby = standby
        self._old = old
        self._published = Counter(old.published)
        start_ns = old.event_ns - OVERLAP_NS
        began_ns = standby.conversation.first_ns if standby.conversation else 0
        if start_ns < began_ns <= old.event_ns:
            start_ns = began_ns  # what came before the new connection began does not come on it
        self._awaited = {latest.content for latest in old.latest.values() if latest.received_ns >= start_ns}
        self._near = False
        self.findable = bool(self._awaited)
        self.also: list[Outgoing] = []
        self.numbers: list[int] = []

    def search(self, held: Held) -> bool:
        """Go on through frames that were taken; True when the cut is reached: the rest is held again."""
        for place, frame in enumerate(held.frames):
            if not self._awaited:
                self._standby.put_back(Held(held.conversation, held.first_n + place, held.frames[place:]))
                return True
            self._map(held.conversation, held.first_n + place, frame)
        return not self._awaited

    def _map(self, conversation: Conversation, n: int, frame: Frame) -> None:
        event = self._standby.map_next(n, frame)
        if event is None or isinstance(event, Gap):
            return
        content = content_of(event)
        awaited = content in self._awaited
        self._near = self._near or awaited
        if self._published[content] > 0:
            self._published[content] -= 1
            if awaited and not self._published[content]:
                self._awaited.discard(content)
            return
        if not self._near or isinstance(event, OrderBookUpdate) or self._is_older(event):
            return
        self.also += self._standby.render(conversation, event, n, frame)
        self.numbers.append(n)

    def _is_older(self, event: Event) -> bool:
        """Did the old connection publish a later one? A trade is no state: it is wanted in any case."""
        if isinstance(event, Trade | Gap):
            return False
        latest = self._old.latest.get((type(event), event.ticker))
        return latest is not None and event.exchange_ns < latest.exchange_ns


def ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as (first, last) of each run."""
    found: list[tuple[int, int]] = []
    for n in numbers:
        if found and found[-1][1] == n - 1:
            found[-1] = (found[-1][0], n)
        else:
            found.append((n, n))
    return tuple(found)


def _size(frames: list[Frame]) -> int:
    return sum([len(payload) for _, payload in frames]) + _FRAME_OVERHEAD * len(frames)
