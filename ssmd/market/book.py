"""An order book in integers: the state between a snapshot and the changes that follow it."""

from collections.abc import Iterable

from ssmd.market.events import Kind, Level, OrderBookUpdate, Side


class OrderBook:
    """One market's book: `bids` and `asks` map a price to the size that rests there, both in millionths.

    The book keeps levels of positive size only. It does not judge what it is told: a book may be crossed for a moment,
    and `crossed` says so. Not thread-safe.
    """

    __slots__ = ("asks", "bids", "shortfalls")

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.shortfalls = 0
        """How many changes took more from a level than rested there; each proves that an earlier change is missing."""

    def apply_snapshot(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Replace the whole book; levels of size 0 or less are left out, the last of two levels at one price holds."""
        self.bids = {price: size for price, size in bids if size > 0}
        self.asks = {price: size for price, size in asks if size > 0}

    def change(self, side: Side, price: int, delta: int) -> int:
        """Add `delta` (signed) to a level and return its new absolute size.

        A result below zero becomes 0 and adds one to `shortfalls`; at 0 the level is gone.
        """
        levels = self.asks if side else self.bids
        size: int = levels.get(price, 0) + delta
        if size > 0:
            levels[price] = size
            return size
        levels.pop(price, None)
        if size < 0:
            self.shortfalls += 1
        return 0

    def set_level(self, side: Side, price: int, size: int) -> None:
        """Set a level's absolute size; 0 or less removes it."""
        levels = self.asks if side else self.bids
        if size > 0:
            levels[price] = size
        else:
            levels.pop(price, None)

    def apply(self, update: OrderBookUpdate) -> None:
        """Follow an event: a snapshot replaces the book, a delta sets absolute sizes."""
        if update.kind is Kind.SNAPSHOT:
            self.apply_snapshot(update.bids, update.asks)
            return
        for price, size in update.bids:
            self.set_level(Side.BUY, price, size)
        for price, size in update.asks:
            self.set_level(Side.SELL, price, size)

    def best_bid(self) -> Level | None:
        """The highest bid, or None when nobody bids."""
        if not self.bids:
            return None
        price = max(self.bids)
        return price, self.bids[price]

    def best_ask(self) -> Level | None:
        """The lowest ask, or None when nobody asks."""
        if not self.asks:
            return None
        price = min(self.asks)
        return price, self.asks[price]

    def sorted_bids(self) -> tuple[Level, ...]:
        """All bids, best (highest) first."""
        return tuple(sorted(self.bids.items(), reverse=True))

    def sorted_asks(self) -> tuple[Level, ...]:
        """All asks, best (lowest) first."""
        return tuple(sorted(self.asks.items()))

    def crossed(self) -> bool:
        """True when the best bid reaches or passes the best ask: an exchange never shows that for long."""
        return bool(self.bids and self.asks) and max(self.bids) >= min(self.asks)
