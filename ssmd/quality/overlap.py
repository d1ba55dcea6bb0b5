"""What several connections heard at the same time, by content: where one stood by, nothing is lost, nothing twice.

Everything that a connection heard and did not publish must have been published by another one, or lie in a recorded
gap; and what the old connection published the new one must not publish again. Where no connection was there between
the end of the old one and the beginning of the new one, a gap must say so.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import msgspec

from ssmd.archive.handover import Handover, Part
from ssmd.clock import NS_PER_MS, NS_PER_S, iso
from ssmd.market.events import Event, Gap, Kind, OrderBookUpdate, Trade
from ssmd.market.identity import trade_identity
from ssmd.quality.findings import Findings
from ssmd.quality.recount import Numbers
from ssmd.registry.values import day_bounds
from ssmd.wire.normalized import encode, event_type_of

WINDOW_NS = 20 * NS_PER_S
"""So long apart two connections may bring the same event."""
LAG_NS = 2 * NS_PER_S
"""Changes of books that were left out are in the books of a takeover when another connection published so lately."""
TRANSIT_NS = 50 * NS_PER_MS
"""The same event may come so much earlier or later on another connection: gaps count so much longer."""
_MINUTE_NS = 60 * NS_PER_S

Span = tuple[int, int]


class Frames(NamedTuple):
    """The frames of a day by connection, the last ones of the day before; the gaps that touch the day."""

    numbers: Mapping[str, Numbers]
    before: Mapping[str, int]
    gaps: Sequence[Gap]

    def last(self, connection: str) -> int | None:
        """The last frame that is archived of a connection, of this day or the one before."""
        its = self.numbers.get(connection)
        return self.before.get(connection) if its is None else its.last


class _Life:
    """When a connection brought events, and the longest pause between two of them, by minute."""

    def __init__(self) -> None:
        self.first_ns = 0
        self.last_ns = 0
        self.first_published_ns = 0
        self.last_published_ns = 0
        self.pauses: defaultdict[int, int] = defaultdict(int)

    def add(self, ns: int, published: bool) -> None:
        if self.last_ns:
            minute = ns // _MINUTE_NS
            if ns - self.last_ns > self.pauses[minute]:
                self.pauses[minute] = ns - self.last_ns
        else:
            self.first_ns = ns
        self.last_ns = max(self.last_ns, ns)
        if published:
            self.first_published_ns = self.first_published_ns or ns
            self.last_published_ns = max(self.last_published_ns, ns)


class _Said:
    """One content: when it was heard first, and by whom; who published it. `lost_if_alone`: it must be published."""

    __slots__ = ("connection", "heard", "kind", "lost_if_alone", "ns", "published", "ticker")

    def __init__(self, kind: str, ticker: str, ns: int, connection: str, lost_if_alone: bool) -> None:
        self.kind = kind
        self.ticker = ticker
        self.ns = ns
        self.connection = connection
        self.lost_if_alone = lost_if_alone
        self.heard: list[str] = []
        self.published: list[str] = []


class _Loss:
    """What was lost of what one connection heard."""

    def __init__(self, its: _Said) -> None:
        self.kinds: Counter[str] = Counter()
        self.first, self.last = its, its

    def add(self, its: _Said) -> None:
        self.kinds[its.kind] += 1
        self.first, self.last = min(self.first, its, key=_time), max(self.last, its, key=_time)


class Overlap:
    """Give it all events of a day in order of their receive times, then ask for `findings`.

    `parts` are the connections of which not everything was published, `takeovers` the day's records. Of a day that is
    not `closed`, what came after the last event that is there is not judged.
    """

    def __init__(
        self,
        day: date,
        parts: Mapping[str, Part],
        takeovers: Sequence[Handover],
        frames: Frames,
        *,
        closed: bool,
    ) -> None:
        self._start_ns, self._end_ns = day_bounds(day)
        self._parts = parts
        self._takeovers = takeovers
        self._frames = frames
        self._closed = closed
        self._watched = self._spans()
        self._ends = [end for _, end in self._watched]
        self._lives: defaultdict[str, _Life] = defaultdict(_Life)
        self._latest: dict[tuple[str, str], tuple[int, str]] = {}
        self._published = (self._start_ns, "")
        self._said: dict[bytes, _Said] = {}
        self._lost: dict[str, _Loss] = {}
        self._twice: dict[frozenset[str], _Loss] = {}

    def _spans(self) -> list[Span]:
        """When contents are compared: while a connection stands by, and where one ends before its last frame."""
        took_ns = {handover.to: handover.at_ns for handover in self._takeovers}
        spans: list[Span] = []
        for name, part in self._parts.items():
            numbers = self._frames.numbers.get(name)
            if numbers is None:
                continue
            if part.first_n != 0:
                spans.append((numbers.first_ns - WINDOW_NS, took_ns.get(name, numbers.last_ns) + WINDOW_NS))
            if part.last_n is not None:
                spans.append((numbers.last_ns - WINDOW_NS, numbers.last_ns + WINDOW_NS))
        return _united(spans)

    # -- events -------------------------------------------------------------------------------------------------

    def heard(self, event: Event, published: bool) -> None:
        """An event that a connection brought, and whether it is one of the day's."""
        if isinstance(event, Gap):
            return
        ns, connection = event.received_ns, event.connection
        self._lives[connection].add(ns, published)
        place = bisect_right(self._ends, ns)
        if place < len(self._watched) and self._watched[place][0] <= ns:
            self._compare(event, published)
        if published:
            self._published = max(self._published[0], ns), connection

    def _compare(self, event: Event, published: bool) -> None:
        assert not isinstance(event, Gap)
        kind, ns, connection = event_type_of(event), event.received_ns, event.connection
        self._expire(ns - WINDOW_NS)
        if isinstance(event, OrderBookUpdate) and event.kind is Kind.SNAPSHOT:
            return  # asked for by the connection itself
        content = _content_of(event)
        its = self._said.get(content)
        if its is None:
            must = not published and self._must_be_published(event, kind)
            its = self._said[content] = _Said(kind, event.ticker, ns, connection, must)
        its.heard.append(connection)
        if published:
            its.published.append(connection)
            if event.exchange_ns > self._latest.get((kind, event.ticker), (0, ""))[0]:
                self._latest[kind, event.ticker] = event.exchange_ns, connection

    def _must_be_published(self, event: Event, kind: str) -> bool:
        """Is it a loss when nobody publishes this event, which is heard now by a connection that does not?"""
        assert not isinstance(event, Gap)
        ns, edge_ns = event.received_ns, LAG_NS
        if not self._start_ns + edge_ns <= ns < self._end_ns - edge_ns:
            return False  # published on the other day, perhaps
        if isinstance(event, Trade):
            return True
        if isinstance(event, OrderBookUpdate):
            return ns - self._published[0] > LAG_NS
        latest_ns, by = self._latest.get((kind, event.ticker), (0, ""))
        return not (latest_ns > event.exchange_ns and by != event.connection)  # a state that is known to be outdated

    def _expire(self, before_ns: int) -> None:
        while self._said:
            content = next(iter(self._said))
            if self._said[content].ns >= before_ns:
                return
            self._judge(self._said.pop(content))

    def _judge(self, its: _Said) -> None:
        if not its.published:
            known = self._closed or its.ns < self._published[0] - LAG_NS
            if its.lost_if_alone and known and not self._in_gap(its):
                self._lost.setdefault(its.connection, _Loss(its)).add(its)
        elif len(set(its.published)) > 1 and its.kind != "trade":  # a trade is merged by its id
            counts = Counter(its.heard)
            if len(its.published) > max(counts.values()):
                self._twice.setdefault(frozenset(its.published), _Loss(its)).add(its)

    def _in_gap(self, its: _Said) -> bool:
        return any(
            gap.from_ns - TRANSIT_NS <= its.ns <= gap.to_ns + TRANSIT_NS
            and (gap.tickers is None or its.ticker in gap.tickers)
            for gap in self._frames.gaps
        )

    # -- the end ------------------------------------------------------------------------------------------------

    def findings(self, findings: Findings) -> None:
        """All events were given: what is wrong with them."""
        self._expire(1 << 64)
        for name, loss in sorted(self._lost.items()):
            findings.add("handover", name, f"{_counted(loss)} that it heard nobody published, and no gap says so")
        for handover in self._takeovers:
            twice = self._twice.get(frozenset((handover.to, handover.from_)))
            if twice is not None:
                message = f"{_counted(twice)} of {handover.from_} were published again by {handover.to}"
                findings.add("handover", handover.object.key, message)
            hole = self._hole(handover)
            if hole is not None:
                message = (
                    f"nothing was captured from {iso(hole[0])} to {iso(hole[1])}, between {handover.from_} and "
                    f"{handover.to}, and no gap says so"
                )
                findings.add("handover", handover.object.key, message)

    def _hole(self, handover: Handover) -> Span | None:
        """The longest time in which no connection was there: longer than the exchange was silent around it."""
        new, old = self._lives.get(handover.to), self._lives.get(handover.from_)
        if self._frames.last(handover.from_) is None or new is None or not new.first_published_ns:
            return None
        start_ns, end_ns = self._start_ns, new.first_published_ns
        if old is not None and old.first_published_ns:
            start_ns = old.last_published_ns
        there = [(gap.from_ns, gap.to_ns) for gap in self._frames.gaps if gap.tickers is None and gap.sid is None]
        for name, life in self._lives.items():
            if name in self._parts and name != handover.from_:
                numbers = self._frames.numbers.get(name)
                since_ns = self._start_ns if numbers is not None and numbers.first > 0 else life.first_ns
                there.append((since_ns, life.last_ns))
        left = _without((start_ns, end_ns), _united(there))
        if not left:
            return None
        longest = max(left, key=lambda span: span[1] - span[0])
        silence = max(TRANSIT_NS, _pause(old, start_ns, -1), _pause(new, end_ns, 1))
        return longest if longest[1] - longest[0] > silence else None


def _time(its: _Said) -> int:
    return its.ns


def _counted(loss: _Loss) -> str:
    """`3 trade, 2 ticker events (…)`."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(loss.kinds.items()))
    return f"{kinds} events from {iso(loss.first.ns)} to {iso(loss.last.ns)} (the first: {loss.first.ticker})"


def _content_of(event: Event) -> bytes:
    """What is the same in two events that tell the same thing, whichever connection brought it."""
    if isinstance(event, Trade) and (identity := trade_identity(event.trade_id)):
        return identity
    return encode(msgspec.structs.replace(event, received_ns=0, connection="", sid=0, seq=0))


def _pause(life: _Life | None, at_ns: int, step: int) -> int:
    """The longest pause in the minute of `at_ns` and in the one beside it."""
    minute = at_ns // _MINUTE_NS
    return 0 if life is None else max(life.pauses.get(minute, 0), life.pauses.get(minute + step, 0))


def _united(spans: Sequence[Span]) -> list[Span]:
    """The same times in order, without overlaps."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _without(whole: Span, spans: Sequence[Span]) -> list[Span]:
    """What is left of `whole`; `spans` in order, without overlaps."""
    start, end = whole
    left = []
    for first, last in spans:
        if last <= start or first >= end:
            continue
        if first > start:
            left.append((start, first))
        start = max(start, last)
    return [*left, (start, end)] if start < end else left
