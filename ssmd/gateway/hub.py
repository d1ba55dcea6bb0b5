"""The heart of the gateway: one live subscription in, the board and the fan-out kept in step with it.

Books are handed over atomically: on start and whenever the broker was away, every book waits for the connector's
snapshot, collects what passes meanwhile, and goes on from the snapshot with the changes that are newer. Clients see
a gap message first and the whole book next; they never see a change without its book.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

import msgspec
import structlog

from ssmd.clock import NS_PER_MS, now_ns
from ssmd.errors import DataError
from ssmd.gateway.board import Board
from ssmd.gateway.client import Client, text_frame
from ssmd.gateway.conflation import Later, call_later
from ssmd.gateway.fanout import Fanout
from ssmd.gateway.groups import Group
from ssmd.gateway.resume import Window
from ssmd.gateway.subscription import Piece, Subscription
from ssmd.market.events import EVENT_TYPES, Event, Gap, OrderBookUpdate
from ssmd.market.subjects import check_feed
from ssmd.middleware.transport.interface import Batch, Transport, TransportUnavailable
from ssmd.telemetry import GATEWAY_DROPPED
from ssmd.wire import client as wire
from ssmd.wire.client import event_body
from ssmd.wire.normalized import decode, split

BOOKS_TIMEOUT_S = 5.0
BOOKS_RETRY_S = 2.0
BOOKS_RETRY_MAX_S = 30.0
BOOKS_PER_REQUEST = 500
INSTALL_AT_ONCE = 100
TICKERS_NAMED = 1_000

NUMBERS_SINCE_NS = 1_735_689_600_000_000_000  # 2025-01-01
NUMBER_NS = 10_000  # a subscription that begins later than another ended, begins with a higher number

log = structlog.get_logger()


class Hub:
    """State and routing of one feed; every method but `keep_books` is immediate and runs on the event loop."""

    def __init__(
        self,
        feed: str,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], int] = now_ns,
        *,
        window: Window | None = None,
        later: Later = call_later,
    ) -> None:
        self.feed = check_feed(feed)
        self.board = Board()
        self.patterns = tuple(f"{feed}.{event_type}.*" for event_type in EVENT_TYPES)
        self.connected = False
        self.changed_ns = clock()  # when `connected` changed last
        self.last_message_ns = 0
        self.undecodable = 0
        self.taken = dict.fromkeys(("", *EVENT_TYPES), 0)  # messages of each type so far; "": of none that is known
        self._clock = clock
        self.fanout = Fanout(
            self.frame, monotonic, self._first_number, body=self.body, books=self.books, window=window, later=later
        )
        self._event_types = {name.encode(): name for name in EVENT_TYPES}
        self._prefix = len(feed) + 1
        self._flushing = False
        self._interrupted = False
        self._generation = 0  # counts losses of the broker: an answer to an older question is void
        self._wake = asyncio.Event()
        self._restarted = asyncio.Event()

    def on_batch(self, batch: Batch) -> None:
        """Take one batch of live messages. Clients get it at the end of this turn of the event loop."""
        take, add, interested = self.board.take, self.fanout.add, self.fanout.interested
        feed, prefix, event_types, taken = self.feed, self._prefix, self._event_types, self.taken
        note = self.fanout.conflation.note if self.fanout.conflation.wanted else None
        turned = self.board.turned
        kept_back = 0
        for subject, payload in batch:
            event_type = event_types.get(subject[prefix : subject.find(b".", prefix)], "")
            taken[event_type] += 1
            try:
                event = decode(event_type, payload)
            except DataError as error:
                self._count_undecodable(subject, error)
                continue
            if not take(event):
                kept_back += 1
            elif event_type == "gap":
                assert isinstance(event, Gap)
                self._pass_gap(event)
            else:
                ticker = event.ticker  # type: ignore[union-attr]  # only a Gap has none
                if turned:
                    self._tell_states("snapshot")
                groups = interested(event_type, ticker)
                if groups:
                    add(groups, event_type, ticker, event_body(event, feed))
                if note is not None:
                    note(event_type, ticker)
            if turned:
                self._tell_states(event.reason if isinstance(event, Gap) else "resubscribed")
        self.last_message_ns = self._clock()
        if kept_back:
            GATEWAY_DROPPED.labels("repeated_or_unsynced").inc(kept_back)
            self._wake.set()
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._tick)

    def on_state(self, connected: bool) -> None:
        """The broker came or went. While it is away messages are missed: gap first, books anew when it is back."""
        now = self._clock()
        if connected == self.connected:
            return
        self.connected = connected
        if not connected:
            self._interrupted = True
            self._generation += 1
            log.warning("broker lost", feed=self.feed)
            self.fanout.announce(wire.system("UPSTREAM_LOST", "the live stream is interrupted; a gap message follows"))
        elif self._interrupted:
            self._interrupted = False
            self.board.restart_books()
            since = min(self.last_message_ns or now, self.changed_ns)
            self._pass_gap(Gap(self.feed, "gateway", None, since, now, "connection_lost"))
            self._tell_states("connection_lost")
            self.fanout.flush()
            log.info("broker back", feed=self.feed)
        self.changed_ns = now
        self._restarted.set()
        self._wake.set()

    def frame(self, piece: Piece) -> bytes | None:
        """A piece of the board as a frame; None when it is not known (or the book waits for its snapshot)."""
        channel, ticker = piece
        if channel == "orderbook":
            return self.book_frame(ticker)
        if channel == "answer":
            return text_frame(ticker.encode())  # the end of an answer is sent in its turn, too
        body = self.body(piece)
        return None if body is None else text_frame(b'{"snapshot":true,' + body)

    def body(self, piece: Piece) -> bytes | None:
        """A piece of the board as the body of a message: the whole book, or the last trade, quote or status."""
        channel, ticker = piece
        if channel == "orderbook":
            frame = self.book_frame(ticker)
            return None if frame is None else body_of(frame)
        event: Event | None
        if channel == "trade":
            event = next(iter(self.board.trades(ticker, 1)), None)
        else:
            event = self.board.quotes.get(ticker) if channel == "ticker" else self.board.statuses.get(ticker)
        return None if event is None else event_body(event, self.feed)

    def book_frame(self, ticker: str) -> bytes | None:
        """The whole book of `ticker` as a frame, made once per change; None while it waits for its snapshot."""
        book = self.board.books.get(ticker)
        if book is None or book.waiting is not None:
            return None
        if book.frame is None:
            book.frame = text_frame(b"{" + event_body(book.snapshot(ticker), self.feed))
        return book.frame

    def has(self, piece: Piece) -> bool:
        """Is this piece of the board known now?"""
        channel, ticker = piece
        board = self.board
        if channel == "orderbook":
            book = board.books.get(ticker)
            return book is not None and book.waiting is None
        if channel == "trade":
            return bool(board.trades(ticker, 1))
        return ticker in (board.quotes if channel == "ticker" else board.statuses)

    def new_books(self, before: Subscription, after: Subscription) -> list[Piece]:
        """The books that a client needs when its subscription changes from `before` to `after`."""
        if before.mode == "latest":
            before = Subscription()
        if after.mode == "latest":
            return []
        if "orderbook" in before.every:
            return []
        if "orderbook" in after.every:
            return [book.piece for book in self.board.books.values()]
        had, wanted = before.named(), after.named()
        return [
            ("orderbook", symbol)
            for symbol, channels in wanted.items()
            if "orderbook" in channels and "orderbook" not in had.get(symbol, ()) and symbol in self.board.books
        ]

    def books(self, subscription: Subscription) -> list[Piece]:
        """All books of a subscription."""
        return self.new_books(Subscription(), subscription)

    def impaired(self, subscription: Subscription) -> list[bytes]:
        """What a new client must know of its books: which are stale or being synced."""
        if not self.board.impaired or subscription.mode == "latest":
            return []
        states: dict[str, list[str]] = defaultdict(list)
        for ticker, state in self.board.impaired.items():
            if "orderbook" in subscription.channels(ticker):
                states[state].append(ticker)
        ts_ms = self._clock() // NS_PER_MS
        return [
            b"{" + wire.book_state(self.feed, state, _few(tickers), "already", ts_ms)
            for state, tickers in states.items()
        ]

    def watch(self) -> None:
        """Housekeeping, a few times a second: slow clients, heartbeats."""
        self.fanout.watch(lambda: wire.heartbeat(self._clock() // NS_PER_MS))

    def prune(self) -> None:
        """Housekeeping, once a minute: forget ended tickers."""
        forgotten = self.board.prune(self._clock())
        if forgotten:
            log.info("tickers forgotten", feed=self.feed, count=forgotten)

    def drop(self, client: Client) -> None:
        """Forget a client."""
        self.fanout.leave(client)

    async def keep_books(self, transport: Transport) -> None:
        """Until cancelled: ask the connector for all books whenever the stream (re)starts, and for single ones missing.

        Failing to get all at once (too many for one message, say), it asks in turn for those that changes wait for.
        """
        complete_for = -1  # the generation whose books were answered as a whole
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._restarted.clear()
            generation, missing = self._generation, self.board.unsynced()
            incomplete = complete_for != generation
            if not self.connected or not (incomplete or missing):
                continue
            whole = incomplete and (failures % 2 == 0 or not missing)
            asked = [] if whole else missing[:BOOKS_PER_REQUEST]
            try:
                await self._fetch_books(transport, asked, generation)
                complete_for = generation if whole else complete_for
                failures = 0
            except TransportUnavailable as error:
                failures += 1
                log.warning("books not answered", feed=self.feed, tickers=len(asked) or "all", error=error.message)
            if generation == self._generation and not failures:
                self.board.drop_unanswered(asked or missing)
            if complete_for != self._generation or self.board.unsynced():
                await self._pause(min(BOOKS_RETRY_S * 2**failures, BOOKS_RETRY_MAX_S))
                self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Wait before asking again; a restart of the stream ends the wait."""
        try:
            async with asyncio.timeout(seconds):
                await self._restarted.wait()
        except TimeoutError:
            return

    async def _fetch_books(self, transport: Transport, tickers: list[str], generation: int) -> None:
        """Ask for the books of `tickers` and install them; all books, page by page, when `tickers` is empty.

        Raises TransportUnavailable when nobody answers or the broker was lost meanwhile.
        """
        request: object = tickers
        after = ""
        while True:
            answer = await transport.request(f"ssmd.books.{self.feed}", msgspec.json.encode(request), BOOKS_TIMEOUT_S)
            try:
                messages = split(answer)
            except DataError as error:
                raise TransportUnavailable(f"the answer with {self.feed} books is cut off: {error.message}") from error
            last = ""
            for start in range(0, len(messages), INSTALL_AT_ONCE):
                if generation != self._generation:
                    raise TransportUnavailable("the broker was lost while books were handed over")
                last = max(last, self._install(messages[start : start + INSTALL_AT_ONCE]))
                await asyncio.sleep(0)
            if tickers or last <= after:
                return
            after = last
            request = {"after": after}

    def _install(self, messages: list[bytes]) -> str:
        """Start the books in `messages`; the last of their tickers."""
        snapshots: list[OrderBookUpdate] = []
        for message in messages:
            try:
                event = decode("orderbook", message)
            except DataError as error:
                self._count_undecodable(b"ssmd.books", error)
                continue
            if isinstance(event, OrderBookUpdate):
                snapshots.append(event)
        synced = self.board.install(snapshots)
        self._tell_states("snapshot")
        for ticker in synced:
            self.fanout.conflation.note("orderbook", ticker)
            groups = self.fanout.interested("orderbook", ticker)
            if groups:
                body = event_body(self.board.books[ticker].snapshot(ticker), self.feed)
                self.fanout.add(groups, "orderbook", ticker, body)
        self.fanout.flush()
        return max((snapshot.ticker for snapshot in snapshots), default="")

    def _first_number(self) -> int:
        return max(0, (self._clock() - NUMBERS_SINCE_NS) // NUMBER_NS)

    def _tick(self) -> None:
        self._flushing = False
        self.fanout.flush()

    def _tell_states(self, reason: str) -> None:
        """Tell which books have become stale, syncing or live since the last time."""
        turned, ts_ms = self.board.turned, self._clock() // NS_PER_MS
        told: dict[tuple[str, int], tuple[Group, list[str]]] = {}
        for ticker, state in turned:
            for group in self.fanout.told("orderbook", ticker):
                told.setdefault((state, id(group)), (group, []))[1].append(ticker)
        turned.clear()
        for (state, _), (group, tickers) in told.items():
            body = wire.book_state(self.feed, state, _few(tickers), reason, ts_ms)
            self.fanout.add((group,), "book_state", "", body)

    def _pass_gap(self, gap: Gap) -> None:
        groups = self.fanout.told_of_any(gap.tickers)
        if groups:
            self.fanout.add(groups, "gap", "", event_body(gap, self.feed))

    def _count_undecodable(self, subject: bytes, error: DataError) -> None:
        GATEWAY_DROPPED.labels("undecodable").inc()
        if not self.undecodable:  # the counter tells the rest; one sample is enough to find the cause
            name = subject[:200].decode("ascii", "replace")
            log.error("message not decodable", feed=self.feed, subject=name, error=error.message)
        self.undecodable += 1


def _few(tickers: list[str]) -> list[str] | None:
    return tickers if len(tickers) <= TICKERS_NAMED else None


def body_of(frame: bytes) -> bytes:
    """The body of an unnumbered message in its frame."""
    return frame[{126: 5, 127: 11}.get(frame[1], 3) :]
