"""Order books that follow the stream."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias

from ssmd.client.errors import NoBook
from ssmd.client.events import Level, OrderBook, moment

State: TypeAlias = Literal["live", "stale", "syncing", "away"]
ZERO = Decimal(0)


class Book:
    """One market's book, as new as it can be: it may be ahead of the event that the program is just looking at.

    `state` live: whole and followed · stale: the exchange side recorded a gap that touches it · syncing: its snapshot
    is awaited, do not use it · away: the connection to the gateway is down.
    """

    __slots__ = ("_asks", "_bids", "_sorted_asks", "_sorted_bids", "connected", "said", "ticker", "ts", "whole")

    def __init__(self, ticker: str) -> None:
        self.ticker = ticker
        self.ts = 0
        self.connected = True
        self.whole = False  # was its snapshot received, and every change since?
        self.said: Literal["live", "stale", "syncing"] = "live"  # what the gateway last said of it
        self._bids: dict[Decimal, Decimal] = {}
        self._asks: dict[Decimal, Decimal] = {}
        self._sorted_bids: tuple[Level, ...] | None = None
        self._sorted_asks: tuple[Level, ...] | None = None

    @property
    def state(self) -> State:
        """How far it can be trusted."""
        if not self.connected:
            return "away"
        return self.said if self.whole else "syncing"

    @property
    def time(self) -> datetime:
        """Of the last update."""
        return moment(self.ts)

    @property
    def bids(self) -> tuple[Level, ...]:
        """All bids, best (highest) first."""
        if self._sorted_bids is None:
            self._sorted_bids = tuple(Level(*level) for level in sorted(self._bids.items(), reverse=True))
        return self._sorted_bids

    @property
    def asks(self) -> tuple[Level, ...]:
        """All asks, best (lowest) first."""
        if self._sorted_asks is None:
            self._sorted_asks = tuple(Level(*level) for level in sorted(self._asks.items()))
        return self._sorted_asks

    @property
    def best_bid(self) -> Level | None:
        """None when nobody bids."""
        return self.bids[0] if self._bids else None

    @property
    def best_ask(self) -> Level | None:
        """None when nobody asks."""
        return self.asks[0] if self._asks else None

    @property
    def spread(self) -> Decimal | None:
        """The best ask less the best bid."""
        return self.asks[0].price - self.bids[0].price if self._bids and self._asks else None

    @property
    def mid(self) -> Decimal | None:
        """Half way between the best bid and the best ask."""
        return (self.asks[0].price + self.bids[0].price) / 2 if self._bids and self._asks else None

    def apply(self, update: OrderBook) -> None:
        """Follow an event; changes before the first snapshot are left out."""
        if update.kind == "snapshot":
            self._bids = {price: size for price, size in update.bids if size > ZERO}
            self._asks = {price: size for price, size in update.asks if size > ZERO}
            self.whole = True
            if self.said == "syncing":
                self.said = "live"
            self._sorted_bids = self._sorted_asks = None
        elif not self.whole:
            return
        else:
            if update.bids:
                _set(self._bids, update.bids)
                self._sorted_bids = None
            if update.asks:
                _set(self._asks, update.asks)
                self._sorted_asks = None
        self.ts = update.ts

    def __repr__(self) -> str:
        bid, ask = self.best_bid, self.best_ask
        return f"<Book {self.ticker} {bid.price if bid else '–'} / {ask.price if ask else '–'} {self.state}>"


def _set(levels: dict[Decimal, Decimal], changes: Iterable[Level]) -> None:
    for price, size in changes:
        if size > ZERO:
            levels[price] = size
        else:
            levels.pop(price, None)


class Books(Mapping[str, Book]):
    """The books of a stream by ticker; NoBook (a KeyError) where there is none."""

    def __init__(self) -> None:
        self._books: dict[str, Book] = {}

    def __getitem__(self, ticker: str) -> Book:
        try:
            return self._books[ticker]
        except KeyError:
            raise NoBook(f"no book of {ticker!a}: stream it, and wait for its first OrderBook event") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._books)

    def __len__(self) -> int:
        return len(self._books)

    def follow(self, update: OrderBook) -> None:
        """Apply an update; the first one of a ticker begins its book."""
        book = self._books.get(update.ticker)
        if book is None:
            book = self._books[update.ticker] = Book(update.ticker)
        book.apply(update)

    def judge(self, state: Literal["live", "stale", "syncing"], tickers: Iterable[str] | None) -> None:
        """The gateway says how far these (None: all) can be trusted."""
        for book in self._of(tickers):
            book.said = state

    def distrust(self, tickers: Iterable[str] | None = None) -> None:
        """Changes of these (None: all) were missed: wrong until their snapshots come."""
        for book in self._of(tickers):
            book.whole = False

    def connection(self, up: bool) -> None:
        """Is anything heard at all?"""
        for book in self._books.values():
            book.connected = up

    def _of(self, tickers: Iterable[str] | None) -> list[Book]:
        if tickers is None:
            return list(self._books.values())
        return [self._books[ticker] for ticker in tickers if ticker in self._books]


class AllBooks(Mapping[str, Book]):
    """The books of all streams of a client; where several have a ticker, the first that is live."""

    def __init__(self) -> None:
        self.parts: list[Books] = []

    def __getitem__(self, ticker: str) -> Book:
        found = [part[ticker] for part in self.parts if ticker in part]
        if not found:
            raise NoBook(f"no book of {ticker!a}: stream it, and wait for its first OrderBook event")
        return next((book for book in found if book.state == "live"), found[0])

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(ticker for part in self.parts for ticker in part))

    def __len__(self) -> int:
        return len(set().union(*self.parts))
