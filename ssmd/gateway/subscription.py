"""What a client has asked for: pairs of symbol and channel, and the mode in which it wants them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ssmd.wire.requests import ALL_SYMBOLS, CHANNELS, Mode

Piece: TypeAlias = tuple[str, str]
"""(channel, ticker): a part of the board's state that can be sent whole."""

_BITS = {channel: 1 << n for n, channel in enumerate(CHANNELS)}
_LISTS = tuple(tuple(c for c in CHANNELS if bits & _BITS[c]) for bits in range(1 << len(CHANNELS)))


@dataclass(frozen=True, slots=True)
class Subscription:
    """A set of (symbol, channel) pairs in one mode; equal ones are one group of clients.

    `wanted` holds (symbol, bits of its channels). What `*` covers is not named again for single symbols.
    """

    wanted: frozenset[tuple[str, int]] = frozenset()
    mode: Mode = "realtime"
    interval_ms: int = 0  # of `conflated`

    def __bool__(self) -> bool:
        return bool(self.wanted)

    def plus(self, symbols: Iterable[str], channels: Sequence[str] = CHANNELS) -> "Subscription":
        """This one and `channels` of `symbols`."""
        bits = sum(_BITS[channel] for channel in set(channels))
        wanted = dict(self.wanted)
        for symbol in symbols:
            wanted[symbol] = wanted.get(symbol, 0) | bits
        covered = wanted.get(ALL_SYMBOLS, 0)
        pairs = ((symbol, of if symbol == ALL_SYMBOLS else of & ~covered) for symbol, of in wanted.items())
        return Subscription(frozenset((symbol, of) for symbol, of in pairs if of), self.mode, self.interval_ms)

    def minus(self, symbols: Iterable[str], channels: Sequence[str] = CHANNELS) -> "Subscription":
        """This one without `channels` of `symbols`; `*` takes them from every symbol."""
        bits = sum(_BITS[channel] for channel in set(channels))
        taken = set(symbols)
        rest = ((symbol, of & ~bits if ALL_SYMBOLS in taken or symbol in taken else of) for symbol, of in self.wanted)
        return Subscription(frozenset((symbol, of) for symbol, of in rest if of), self.mode, self.interval_ms)

    def in_mode(self, mode: Mode, interval_ms: int = 0) -> "Subscription":
        """The same pairs in another mode."""
        return Subscription(self.wanted, mode, interval_ms)

    def channels(self, symbol: str) -> tuple[str, ...]:
        """The channels of a symbol, those that come with `*` included."""
        wanted = dict(self.wanted)
        return _LISTS[wanted.get(symbol, 0) | wanted.get(ALL_SYMBOLS, 0)]

    @property
    def symbols(self) -> list[str]:
        """The symbols in alphabetical order; `*` may be one of them."""
        return sorted(symbol for symbol, _ in self.wanted)

    def named(self) -> dict[str, tuple[str, ...]]:
        """The channels of each symbol that was named, `*` as a name of its own."""
        return {symbol: _LISTS[bits] for symbol, bits in sorted(self.wanted)}

    @property
    def every(self) -> tuple[str, ...]:
        """The channels that are wanted of all symbols."""
        return _LISTS[dict(self.wanted).get(ALL_SYMBOLS, 0)]
