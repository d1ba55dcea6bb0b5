"""Coming back: the recent ticks of all groups are kept within bounds, and sent from any number that is among them."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from ssmd.gateway.client import Client
from ssmd.gateway.groups import Group
from ssmd.gateway.subscription import Piece
from ssmd.gateway.waiting import Tick

IDLE_GROUPS = 32
"""Groups without a client that go on being numbered; a client that changes its mind on and on must not make more."""

TICK_OVERHEAD = 512
PIECE_OVERHEAD = 100


class Window:
    """What can be sent again: ticks of at most `seconds` ago, at most `size` bytes of all groups; the oldest go first.

    A group whose last client was disconnected stays for as long.
    """

    def __init__(self, seconds: float, size: int) -> None:
        self.seconds = seconds
        self.size = size
        self.bytes = 0
        self.idle: OrderedDict[Group, float] = OrderedDict()  # since when
        self._order: deque[tuple[Group, Tick]] = deque()

    @property
    def open(self) -> bool:
        """Is anything kept?"""
        return self.seconds > 0 and self.size > 0

    def keep(self, group: Group, tick: Tick) -> None:
        """Keep a tick, and let go what is too old or too much."""
        group.kept.append(tick)
        self._order.append((group, tick))
        self.bytes += _cost(tick)
        while self.bytes > self.size:
            self._evict()

    def expire(self, now: float) -> list[Group]:
        """Let go what is too old; the idle groups that nobody came back to, or that are too many."""
        order = self._order
        while order and now - order[0][1].made > self.seconds:
            self._evict()
        gone: list[Group] = []
        for group, since in list(self.idle.items()):
            if now - since <= self.seconds and len(self.idle) <= IDLE_GROUPS:
                break
            del self.idle[group]
            gone.append(group)
        return gone

    def holds(self, group: Group, seq: int) -> bool:
        """Is everything here that the group was sent after number `seq`?"""
        return seq == group.seq or (seq < group.seq and bool(group.kept) and group.kept[0].first <= seq + 1)

    def _evict(self) -> None:
        group, tick = self._order.popleft()
        self.bytes -= _cost(tick)
        group.kept.popleft()
        group.evicted += 1


class Replay:
    """The place of one client that comes back in the kept ticks of its group; `seq` is the number it has come to."""

    __slots__ = ("_at", "group", "seq")

    def __init__(self, group: Group, seq: int) -> None:
        self.group = group
        self.seq = seq
        later = sum(1 for tick in group.kept if tick.last > seq)
        self._at = group.evicted + len(group.kept) - later  # counted from the group's first tick ever

    def go_on(self, client: Client, lost: Callable[[], Iterable[Piece]], now: float) -> bool:
        """Write kept ticks as long as the connection takes them; True when there are no more.

        What was let go meanwhile, because the client reads too slowly, is a hole: its numbers are told, and `lost`
        names what has to be sent whole. What is not flushed yet comes with the group's next tick.
        """
        group = self.group
        flushed = group.first - 1
        while self.seq < flushed and not (client.paused or client.leaving):
            place = self._at - group.evicted
            if not 0 <= place < len(group.kept):
                self._at = group.evicted
                last = group.kept[0].first - 1 if place < 0 and group.kept else flushed
                client.miss(self.seq + 1, last, lost(), now)
                self.seq = last
                continue
            tick = group.kept[place]
            client.write_again(tick if tick.first > self.seq else cut(tick, self.seq), now)
            self.seq = tick.last
            self._at += 1
        return self.seq >= flushed

    def give_up(self, client: Client, lost: Callable[[], Iterable[Piece]], now: float) -> None:
        """The client wants something else: the rest is a hole."""
        if self.seq < self.group.seq:
            client.miss(self.seq + 1, self.group.seq, lost(), now)


def cut(tick: Tick, seq: int) -> Tick:
    """The part of a tick that comes after number `seq`."""
    blob, at = tick.blob, 0
    for _ in range(seq - tick.first + 1):
        length, at = blob[at + 1], at + 2
        if length == 126:
            length, at = int.from_bytes(blob[at : at + 2], "big"), at + 2
        elif length == 127:
            length, at = int.from_bytes(blob[at : at + 8], "big"), at + 8
        at += length
    return Tick(blob[at:], seq + 1, tick.last, tick.pieces, tick.kinds, tick.made)


def _cost(tick: Tick) -> int:
    return len(tick.blob) + TICK_OVERHEAD + PIECE_OVERHEAD * len(tick.pieces)
