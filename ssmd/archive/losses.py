"""What a raw archive itself shows to be lost: holes in the exchange's numbers, and frames that nobody understands.

When frames were captured, holes were recorded as gaps. Here the same holes are found once more from the frames, and
held against what was recorded.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from ssmd.archive.handover import Part
from ssmd.clock import NS_PER_S
from ssmd.market.events import Gap
from ssmd.wire.raw import Received

MAX_KEPT = 1_000
NEAR_NS = NS_PER_S
"""A frame shows a hole so long after the end of the gap that was recorded; and so long after a takeover it may lie in
what the connection before had."""


class FoundGap(Protocol):
    """A hole in a subscription's numbers (`feeds.interface.SequenceGap`)."""

    @property
    def sid(self) -> int:
        """The subscription."""
        ...

    @property
    def last_seq(self) -> int:
        """The number before the hole."""
        ...

    @property
    def next_seq(self) -> int:
        """The number behind it."""
        ...


class BareGap(NamedTuple):
    """A hole that no recorded gap covers: shown by frame `n`, received at `received_ns`.

    `after_n`: the frame before the hole, -1 when it came too long before to be known.
    """

    connection: str
    sid: int
    last_seq: int
    next_seq: int
    received_ns: int
    n: int
    after_n: int


class Recorded:
    """The recorded gaps of a day, and the holes in its frames that none of them covers: `bare`, `count` of them."""

    def __init__(self, gaps: Iterable[Gap], decode: Callable[[bytes], Any]) -> None:
        self._decode = decode
        self._by_place: defaultdict[tuple[str, int | None], list[Gap]] = defaultdict(list)
        self._exact: set[tuple[str, int | None, int | None, int | None]] = set()
        for gap in gaps:
            self._by_place[gap.connection, gap.sid].append(gap)
            self._exact.add((gap.connection, gap.sid, gap.last_seq, gap.next_seq))
        self.headless: set[str] = set()
        """Connections whose first frames are not in the archive: where their numbers began is not known."""
        self.bare: list[BareGap] = []
        self.count = 0

    def compare(self, connection: str, found: Sequence[FoundGap], run: Sequence[Received], part: Part | None) -> None:
        """Hold the gaps found in the frames of `run` against those recorded; of what was published (`part`) only."""
        left = [gap for gap in found if (connection, gap.sid, gap.last_seq, gap.next_seq) not in self._exact]
        left = [gap for gap in left if gap.last_seq or connection not in self.headless]
        if not left:
            return
        places = self._places(connection, run)
        for gap in left:
            received_ns, n = places.get((gap.sid, gap.next_seq), (run[-1][0], run[-1][2]))
            if not _published(part, n, received_ns) or self._covered(connection, gap, received_ns):
                continue
            self.count += 1
            if len(self.bare) < MAX_KEPT:
                after_n = places.get((gap.sid, gap.last_seq), (0, -1))[1]
                self.bare.append(BareGap(connection, gap.sid, gap.last_seq, gap.next_seq, received_ns, n, after_n))

    def _places(self, connection: str, run: Sequence[Received]) -> dict[tuple[int, int], tuple[int, int]]:
        """Receive time and number of the frames of a connection, by subscription and the exchange's number."""
        places: dict[tuple[int, int], tuple[int, int]] = {}
        for received_ns, its, n, frame in run:
            if its == connection:
                decoded = self._decode(frame)
                if decoded.sid is not None and decoded.seq is not None:
                    places[decoded.sid, decoded.seq] = received_ns, n
        return places

    def _covered(self, connection: str, found: FoundGap, received_ns: int) -> bool:
        """Does a recorded gap with other numbers, or one of time alone, cover the hole?"""
        by_place = self._by_place
        for gap in chain(
            by_place.get((connection, found.sid), ()),
            by_place.get((connection, None), ()),
            by_place.get(("", None), ()),
        ):
            if gap.last_seq is not None and gap.next_seq is not None:
                if gap.last_seq <= found.last_seq and gap.next_seq >= found.next_seq:
                    return True
            elif gap.from_ns <= received_ns <= gap.to_ns + NEAR_NS:
                return True
        return False


def _published(part: Part | None, n: int, received_ns: int) -> bool:
    """Was the connection the day's when this frame came? What another one captures is no gap."""
    if part is None:
        return True
    if part.first_n is None or n < part.first_n or received_ns <= part.taken_ns + NEAR_NS:
        return False
    return part.last_n is None or n <= part.last_n
