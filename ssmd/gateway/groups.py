"""Clients with equal subscriptions are one group: they share numbers, frames and one write per tick."""

from collections import deque
from collections.abc import Callable, Iterable

from ssmd.gateway.client import Client
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.gateway.waiting import Meter, Tick
from ssmd.wire.requests import ALL_SYMBOLS, CHANNELS

_BOOKS = frozenset({"orderbook"})
_ALL = frozenset(CHANNELS)


class Group:
    """The clients of one subscription. `seq` is the number of the last message made for it."""

    __slots__ = (
        "changed", "clients", "conflated", "evicted", "first", "flushed", "frames", "interval_s", "kept", "kinds",
        "meter", "pieces", "replaying", "seq", "subscription", "timed", "whole", "written",
    )  # fmt: skip

    def __init__(self, subscription: Subscription, seq: int, now: float) -> None:
        self.subscription = subscription
        self.clients: dict[int, Client] = {}
        self.replaying: dict[int, Client] = {}  # they are sent what they missed, and join then
        self.seq = seq
        self.first = seq + 1  # number of the first message in `frames`
        self.frames: list[bytes] = []  # header, `{"seq":N,`, body; header, …
        self.kinds: list[str] = []
        self.pieces: list[Piece] = []  # what the messages change: who misses them must be sent it whole
        self.conflated = subscription.mode == "conflated"
        # The channels whose last message is the whole truth are made good by the next one; a book never is.
        self.whole = _ALL if self.conflated else _BOOKS
        self.kept: deque[Tick] = deque()  # the recent ticks, for those who come back; contiguous up to `seq`
        self.evicted = 0  # ticks that were kept once
        self.changed: dict[Piece, None] = {}  # conflated: what the next interval has to tell
        self.timed = False  # conflated: will the interval end?
        self.interval_s = subscription.interval_ms / 1e3
        self.flushed = now - self.interval_s  # conflated: when the last interval ended
        self.written = now
        self.meter = Meter(now)

    @property
    def empty(self) -> bool:
        """Is nobody here?"""
        return not (self.clients or self.replaying)


class Index:
    """Which groups want a message."""

    def __init__(self) -> None:
        self._named: dict[str, dict[str, tuple[Group, ...]]] = {channel: {} for channel in CHANNELS}
        self._everyone: dict[str, tuple[Group, ...]] = dict.fromkeys(CHANNELS, ())
        self.size = 0

    def find(self, channel: str, ticker: str) -> tuple[Group, ...]:
        """The groups that want messages of `channel` about `ticker`."""
        named = self._named[channel].get(ticker)
        return self._everyone[channel] if named is None else named + self._everyone[channel]

    def add(self, group: Group) -> None:
        """A new group."""
        self.size += 1
        for symbol, channels in group.subscription.named().items():
            for channel in channels:
                if symbol == ALL_SYMBOLS:
                    self._everyone[channel] += (group,)
                else:
                    named = self._named[channel]
                    named[symbol] = (*named.get(symbol, ()), group)

    def remove(self, group: Group) -> None:
        """A group that is gone."""
        self.size -= 1
        for symbol, channels in group.subscription.named().items():
            for channel in channels:
                if symbol == ALL_SYMBOLS:
                    self._everyone[channel] = _without(self._everyone[channel], group)
                    continue
                rest = _without(self._named[channel][symbol], group)
                if rest:
                    self._named[channel][symbol] = rest
                else:
                    del self._named[channel][symbol]


class Groups:
    """All groups: those that get each message (`live`), those that get the latest now and then (`conflated`).

    `first_number` gives the number after which a new group counts; it must not go backwards.
    """

    def __init__(self, monotonic: Callable[[], float], first_number: Callable[[], int]) -> None:
        self.live = Index()
        self.conflated = Index()
        self._monotonic = monotonic
        self._first_number = first_number
        self._groups: dict[Subscription, Group] = {}
        self._highest = 0  # number of a group that is gone

    def all(self) -> Iterable[Group]:
        """Every group, those without a subscription or without a client too."""
        return self._groups.values()

    def of(self, subscription: Subscription) -> Group | None:
        """The group of a subscription."""
        return self._groups.get(subscription)

    def told(self, channel: str, ticker: str) -> tuple[Group, ...]:
        """The groups that hear at once what is said about `channel` of `ticker` (gaps, states)."""
        groups = self.live.find(channel, ticker)
        return groups + self.conflated.find(channel, ticker) if self.conflated.size else groups

    def told_of_any(self, tickers: Iterable[str] | None) -> tuple[Group, ...]:
        """The groups that hear at once what is said about `tickers` (None: about all); each once."""
        if tickers is None:
            return tuple(g for g in self._groups.values() if g.subscription and g.subscription.mode != "latest")
        found = {id(group): group for ticker in tickers for channel in CHANNELS for group in self.told(channel, ticker)}
        return tuple(found.values())

    def open(self, subscription: Subscription) -> Group:
        """The group of a subscription, made when there is none."""
        group = self._groups.get(subscription)
        if group is None:
            seq = max(self._first_number(), self._highest)
            group = self._groups[subscription] = Group(subscription, seq, self._monotonic())
            index = self._index(subscription)
            if index is not None:
                index.add(group)
        return group

    def close(self, group: Group) -> None:
        """Forget a group."""
        del self._groups[group.subscription]
        self._highest = max(self._highest, group.seq)
        index = self._index(group.subscription)
        if index is not None:
            index.remove(group)

    def _index(self, subscription: Subscription) -> Index | None:
        return {"realtime": self.live, "conflated": self.conflated, "latest": None}[subscription.mode]


def _without(groups: tuple[Group, ...], gone: Group) -> tuple[Group, ...]:
    return tuple(group for group in groups if group is not gone)
