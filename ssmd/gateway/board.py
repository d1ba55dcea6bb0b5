"""What is known now about each ticker: its book, its last trades, its last quote, its status."""

from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec

from ssmd.clock import NS_PER_S
from ssmd.market.book import OrderBook
from ssmd.market.events import (
    SECMASTER,
    Event,
    Gap,
    Kind,
    MarketStatus,
    OrderBookUpdate,
    Quote,
    Status,
    Trade,
)

TRADES_PER_TICKER = 200
TRADES_TOTAL = 200_000
TRADE_IDS = 65_536
WAITING_PER_BOOK = 2_000
WAITING_TOTAL = 200_000
ENDED = frozenset({Status.CLOSED, Status.DETERMINED, Status.SETTLED})
FORGET_ENDED_NS = 3_600 * NS_PER_S
FORGET_SILENT_NS = 48 * 3_600 * NS_PER_S


NO_UPDATE = OrderBookUpdate(0, 0, "", "", 0, 0, Kind.SNAPSHOT, (), ())


class Book(OrderBook):
    """An order book that knows which subscription it follows and how far.

    `waiting` holds the changes that came before their snapshot; it is None while the book is synced. `stale` says
    that the exchange side recorded a gap that touches the book and no snapshot came since.
    """

    __slots__ = ("frame", "last", "piece", "stale", "waiting")

    def __init__(self, ticker: str = "") -> None:
        super().__init__()
        self.piece = ("orderbook", ticker)  # one for all clients that wait for the book
        self.last = NO_UPDATE  # the newest update in the book
        self.stale = False
        self.waiting: list[OrderBookUpdate] | None = []
        self.frame: bytes | None = None  # the snapshot as sent to clients, until the next change

    def same_origin(self, update: OrderBookUpdate) -> bool:
        """Does `update` come from the subscription that the book follows?"""
        last = self.last
        return update.sid == last.sid and update.connection == last.connection

    def continues(self, change: OrderBookUpdate) -> bool:
        """Is `change` the book's own subscription going on? Changes of another subscription lack their snapshot."""
        last = self.last
        if change.sid != last.sid or change.connection != last.connection:
            return False
        if change.seq and last.seq:
            return change.seq > last.seq
        return change.received_ns >= last.received_ns

    def outdates(self, snapshot: OrderBookUpdate) -> bool:
        """Is `snapshot` older than the book? By sequence on one subscription, else by receive time."""
        last = self.last
        if self.same_origin(snapshot) and snapshot.seq and last.seq:
            return snapshot.seq < last.seq
        return snapshot.received_ns < last.received_ns

    def start(self, snapshot: OrderBookUpdate) -> None:
        """Begin anew from a snapshot."""
        self.apply(snapshot)
        self.last = snapshot
        self.stale = False
        self.frame = None

    def follow(self, change: OrderBookUpdate) -> None:
        """Take over a change's absolute sizes; a size of 0 removes the level. Written out: it runs for each message."""
        for price, size in change.bids:
            if size > 0:
                self.bids[price] = size
            else:
                self.bids.pop(price, None)
        for price, size in change.asks:
            if size > 0:
                self.asks[price] = size
            else:
                self.asks.pop(price, None)
        self.last = change
        self.frame = None

    def snapshot(self, ticker: str) -> OrderBookUpdate:
        """The whole book as an event, with the origin of the last update that it contains."""
        return msgspec.structs.replace(
            self.last, ticker=ticker, kind=Kind.SNAPSHOT, bids=self.sorted_bids(), asks=self.sorted_asks()
        )


class Board:
    """The current state of all tickers, bounded in trades, in waiting changes and, by `prune`, in tickers."""

    def __init__(self, trades_per_ticker: int = TRADES_PER_TICKER, trades_total: int = TRADES_TOTAL) -> None:
        self.books: dict[str, Book] = {}
        self.quotes: dict[str, Quote] = {}
        self.statuses: dict[str, MarketStatus] = {}
        self.updated_ns: dict[str, int] = {}
        self.impaired: dict[str, str] = {}  # tickers whose book is `stale` or `syncing`, once it was whole
        self.turned: list[tuple[str, str]] = []  # (ticker, state): what is new about that; the reader empties it
        self.overflowed = 0  # changes given up because too many waited for a snapshot
        self._trades: OrderedDict[str, deque[Trade]] = OrderedDict()
        self._trades_per_ticker = trades_per_ticker
        self._trades_total = trades_total
        self._trade_count = 0
        self._trades_forgotten_ns = 0  # what was received until then may have been given up, of any ticker
        self._trade_ids: set[str] = set()
        self._older_trade_ids: set[str] = set()
        self._waiting_count = 0

    def take(self, event: Event) -> bool:
        """Follow one live event; False when clients must not see it (repeated, old, or waiting for its snapshot)."""
        if type(event) is OrderBookUpdate:
            if not self._take_book(event):
                return False
        elif type(event) is Trade:
            if not self._take_trade(event):
                return False
        elif type(event) is Quote:
            self.quotes[event.ticker] = event
        elif type(event) is MarketStatus:
            known = self.statuses.get(event.ticker)
            if event.connection == SECMASTER and known is not None and known.exchange_ns > event.exchange_ns:
                return False  # a sync tells what the feed has told already, and more
            self.statuses[event.ticker] = event
        else:
            assert type(event) is Gap
            self._take_gap(event)
            return True
        self.updated_ns[event.ticker] = event.received_ns
        return True

    def known(self, ticker: str) -> bool:
        """Was anything heard of `ticker`?"""
        return ticker in self.updated_ns or ticker in self.books

    @property
    def size(self) -> int:
        """Not more tickers than are known, found at once."""
        return max(len(self.updated_ns), len(self.books))

    def tickers(self) -> set[str]:
        """All that is known."""
        return self.updated_ns.keys() | self.books.keys()

    def trades(self, ticker: str, limit: int) -> list[Trade]:
        """The last trades of `ticker`, newest first."""
        ring = self._trades.get(ticker)
        if not ring or limit <= 0:
            return []
        return list(ring)[: -limit - 1 : -1]

    def trades_since(self, ticker: str) -> int:
        """Every trade of `ticker` that was taken with a receive time of this or later is still held."""
        ring = self._trades.get(ticker)
        full_ns = ring[0].received_ns + 1 if ring and len(ring) == ring.maxlen else 0
        return max(full_ns, self._trades_forgotten_ns)

    def unsynced(self) -> list[str]:
        """Tickers whose book waits for a snapshot."""
        return [ticker for ticker, book in self.books.items() if book.waiting is not None]

    def restart_books(self) -> None:
        """Changes may have been missed: each book waits for a snapshot and collects what comes meanwhile."""
        for ticker, book in self.books.items():
            if book.waiting is None:
                self._await_snapshot(ticker, book)

    def install(self, snapshots: Iterable[OrderBookUpdate]) -> list[str]:
        """Hand-over: start waiting books from `snapshots`, then apply the collected changes that are newer.

        Returns the tickers whose book is synced now and was not before. A book that is synced already follows the
        stream and is left alone; a snapshot older than changes that were given up is refused.
        """
        synced: list[str] = []
        for snapshot in snapshots:
            book = self._book(snapshot.ticker)
            if book.waiting is None or (book.same_origin(snapshot) and book.outdates(snapshot)):
                continue
            self._start(book, snapshot)
            self.updated_ns[snapshot.ticker] = max(book.last.received_ns, self.updated_ns.get(snapshot.ticker, 0))
            synced.append(snapshot.ticker)
        return synced

    def drop_unanswered(self, tickers: Iterable[str]) -> None:
        """Forget books that the connector does not have: they still wait, and no change says that they live."""
        for ticker in tickers:
            book = self.books.get(ticker)
            if book is not None and book.waiting is not None and not book.waiting:
                del self.books[ticker]

    def prune(self, now_ns: int) -> int:
        """Forget tickers that ended an hour ago or were silent for two days; how many were forgotten."""
        gone = [
            ticker
            for ticker, at in self.updated_ns.items()
            if now_ns - at > FORGET_SILENT_NS
            or (now_ns - at > FORGET_ENDED_NS and ticker in self.statuses and self.statuses[ticker].status in ENDED)
        ]
        for ticker in gone:
            del self.updated_ns[ticker]
            self.quotes.pop(ticker, None)
            self.statuses.pop(ticker, None)
            self.impaired.pop(ticker, None)
            book = self.books.pop(ticker, None)
            if book is not None and book.waiting:
                self._waiting_count -= len(book.waiting)
            if ticker in self._trades:
                self._forget_trades(self._trades.pop(ticker))
        return len(gone)

    def _book(self, ticker: str) -> Book:
        book = self.books.get(ticker)
        if book is None:
            book = self.books[ticker] = Book(ticker)
        return book

    def _start(self, book: Book, snapshot: OrderBookUpdate) -> None:
        """Sync `book`: the snapshot, then what was collected on the same subscription since."""
        if self.impaired and self.impaired.pop(snapshot.ticker, ""):
            self.turned.append((snapshot.ticker, "live"))
        waiting, book.waiting = book.waiting or [], None
        self._waiting_count -= len(waiting)
        book.start(snapshot)
        for change in waiting:
            if book.continues(change):
                book.follow(change)

    def _take_book(self, update: OrderBookUpdate) -> bool:
        book = self.books.get(update.ticker) or self._book(update.ticker)
        if update.kind is Kind.SNAPSHOT:
            if book.outdates(update):
                if book.waiting is None and not book.same_origin(update):
                    # Leftovers of an earlier connection, or a clock that was set back: the connector knows which.
                    self._await_snapshot(update.ticker, book)
                return False
            self._start(book, update)
            return True
        if book.waiting is not None:
            self._collect(book, book.waiting, update)
            return False
        if book.continues(update):
            book.follow(update)
            return True
        if book.stale and not book.same_origin(update):
            # The book's own subscription ended in a gap and another one carries on: ask for its book.
            self._collect(book, self._await_snapshot(update.ticker, book), update)
        return False

    def _await_snapshot(self, ticker: str, book: Book) -> list[OrderBookUpdate]:
        """A book that was whole can no longer be followed; where changes are collected until its snapshot comes."""
        self.impaired[ticker] = "syncing"
        self.turned.append((ticker, "syncing"))
        waiting: list[OrderBookUpdate] = []
        book.waiting = waiting
        return waiting

    def _collect(self, book: Book, waiting: list[OrderBookUpdate], change: OrderBookUpdate) -> None:
        """Keep a change until its snapshot comes. When too many wait, all are given up: a later snapshot must come."""
        if len(waiting) < WAITING_PER_BOOK and self._waiting_count < WAITING_TOTAL:
            waiting.append(change)
            self._waiting_count += 1
            return
        self.overflowed += len(waiting)
        self._waiting_count += 1 - len(waiting)
        waiting[:] = [change]
        book.last = change

    def _take_trade(self, trade: Trade) -> bool:
        trade_id = trade.trade_id
        if trade_id:
            if trade_id in self._trade_ids or trade_id in self._older_trade_ids:
                return False  # sent again by the connector after the broker came back
            self._trade_ids.add(trade_id)
            if len(self._trade_ids) >= TRADE_IDS:
                self._older_trade_ids, self._trade_ids = self._trade_ids, set()
        ring = self._trades.get(trade.ticker)
        if ring is None:
            ring = self._trades[trade.ticker] = deque(maxlen=self._trades_per_ticker)
        else:
            self._trades.move_to_end(trade.ticker)
        if len(ring) < self._trades_per_ticker:
            self._trade_count += 1
        ring.append(trade)
        while self._trade_count > self._trades_total:
            self._forget_trades(self._trades.popitem(last=False)[1])
        return True

    def _forget_trades(self, ring: deque[Trade]) -> None:
        self._trade_count -= len(ring)
        self._trades_forgotten_ns = max(self._trades_forgotten_ns, ring[-1].received_ns + 1)

    def _take_gap(self, gap: Gap) -> None:
        """Mark the books that the gap touches stale until their next snapshot."""
        tickers = self.books if gap.tickers is None else gap.tickers
        for ticker in tickers:
            book = self.books.get(ticker)
            if book is None or book.last.connection != gap.connection or book.last.received_ns > gap.to_ns:
                continue
            if gap.sid is None or gap.sid == book.last.sid:
                book.stale = True
                if ticker not in self.impaired:
                    self.impaired[ticker] = "stale"
                    self.turned.append((ticker, "stale"))
