"""Clients with equal subscriptions are one group: they share numbers, frames and one write per tick."""

from collections.abc import Callable, Iterable

from ssmd.gateway.client import Client
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.gateway.waiting import Meter
from ssmd.wire.requests import ALL_SYMBOLS, CHANNELS


class Group:
    """The clients of one subscription. `seq` is the number of the last message made for it."""

    __slots__ = ("clients", "first", "frames", "kinds", "meter", "pieces", "seq", "subscription", "written")

    def __init__(self, subscription: Subscription, seq: int, now: float) -> None:
        self.subscription = subscription
        self.clients: dict[int, Client] = {}
        self.seq = seq
        self.first = seq + 1  # number of the first message in `frames`
        self.frames: list[bytes] = []  # header, `{"seq":N,`, body; header, …
        self.kinds: list[str] = []
        self.pieces: list[Piece] = []  # what the messages change: who misses them must be sent it whole
        self.written = now
        self.meter = Meter(now)


class Groups:
    """All groups, and which of them want a message.

    `first_number` gives the number after which a new group counts; it must not go backwards.
    """

    def __init__(self, monotonic: Callable[[], float], first_number: Callable[[], int]) -> None:
        self._monotonic = monotonic
        self._first_number = first_number
        self._groups: dict[Subscription, Group] = {}
        self._named: dict[str, dict[str, tuple[Group, ...]]] = {channel: {} for channel in CHANNELS}
        self._everyone: dict[str, tuple[Group, ...]] = dict.fromkeys(CHANNELS, ())
        self._highest = 0  # number of a group that is gone

    def __len__(self) -> int:
        return len(self._groups)

    def all(self) -> Iterable[Group]:
        """Every group, those without a subscription too."""
        return self._groups.values()

    def of(self, subscription: Subscription) -> Group | None:
        """The group of a subscription."""
        return self._groups.get(subscription)

    def interested(self, channel: str, ticker: str) -> tuple[Group, ...]:
        """The groups that want each message of `channel` about `ticker`."""
        named = self._named[channel].get(ticker)
        return self._everyone[channel] if named is None else named + self._everyone[channel]

    def interested_in_any(self, tickers: Iterable[str] | None) -> tuple[Group, ...]:
        """The groups that want messages about one of `tickers` (all groups when None); each once."""
        if tickers is None:
            return tuple(group for group in self._groups.values() if group.subscription)
        found = {
            id(group): group for ticker in tickers for channel in CHANNELS for group in self.interested(channel, ticker)
        }
        return tuple(found.values())

    def open(self, subscription: Subscription) -> Group:
        """The group of a subscription, made when there is none."""
        group = self._groups.get(subscription)
        if group is None:
            seq = max(self._first_number(), self._highest)
            group = self._groups[subscription] = Group(subscription, seq, self._monotonic())
            for symbol, channels in subscription.named().items():
                for channel in channels:
                    if symbol == ALL_SYMBOLS:
                        self._everyone[channel] += (group,)
                    else:
                        named = self._named[channel]
                        named[symbol] = (*named.get(symbol, ()), group)
        return group

    def close(self, group: Group) -> None:
        """Forget a group."""
        del self._groups[group.subscription]
        self._highest = max(self._highest, group.seq)
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


def _without(groups: tuple[Group, ...], gone: Group) -> tuple[Group, ...]:
    return tuple(group for group in groups if group is not gone)
