"""`/v1/markets…` over HTTP: live state first, metadata where the database answers.

Numbers are printed exactly from integers. Market text (titles) comes from the exchange and is data: JSON only, no HTML.
"""

import asyncio
from collections.abc import Callable

import msgspec

from ssmd.clock import NS_PER_MS, day_of, iso, now_ns
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.cursors import MAX_CURSOR_CHARS, decode_cursor, encode_cursor
from ssmd.gateway.documents import MarketDocument, MarketPage, MarketRow, OrderbookDocument, digits
from ssmd.gateway.hot import stale_headers
from ssmd.gateway.hub import Hub
from ssmd.gateway.lookup import Lookup
from ssmd.gateway.market_view import MarketView, links
from ssmd.gateway.problems import ApiProblem, near
from ssmd.gateway.questions.status import STATUSES
from ssmd.gateway.routes import TICKER, Ask, Parameter, Reply, Route, choice, moment, whole, words
from ssmd.market.events import Gap, Level
from ssmd.registry.interface import Market, MarketFilter, RegistryUnavailable
from ssmd.registry.values import printable

MARKETS_DEFAULT, MARKETS_MAX = 100, 1_000
DEPTH_DEFAULT, DEPTH_MAX = 20, 1_000
WORD_MAX_CHARS = 128
WORDS_MAX = 8
ROWS_AT_ONCE = 50

STATUS_WORDS = frozenset[str]().union(*STATUSES.values())
LISTED = {"true": True, "false": False, "any": None}


class RestEndpoint:
    """The HTTP handlers."""

    def __init__(self, hub: Hub, catalogue: Catalogue, clock: Callable[[], int] = now_ns) -> None:
        self._hub = hub
        self._catalogue = catalogue
        self._lookup = Lookup(hub, catalogue)
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        of_market = "/v1/markets/{ticker}"
        depth = whole("depth", "Price levels of each side, best first.", default=DEPTH_DEFAULT, most=DEPTH_MAX)
        return [
            Route(
                "/v1/markets", self.markets, "read:live", "Markets, by ticker",
                answer=MarketPage, parameters=_FILTERS, problems=(503,), etag=True,
                description="All that is given must hold. Ask on with `cursor` while `next_cursor` is not null.",
            ),
            Route(
                of_market, self.market, "read:live", "One market, as an agent needs it",
                answer=MarketDocument, parameters=(TICKER,), problems=(404, 503),
            ),
            Route(
                f"{of_market}/orderbook", self.orderbook, "read:live", "Its order book now",
                answer=OrderbookDocument, parameters=(TICKER, depth), problems=(404, 503),
            ),
        ]  # fmt: skip

    async def markets(self, ask: Ask) -> MarketPage | Reply:
        """A page of markets by ticker; while the database is away, what it last said, or the tickers heard live."""
        limit: int = ask["limit"]
        wanted = _filter(ask)
        await self._known_status(wanted.status)
        after = decode_cursor(ask["cursor"], wanted, str) if ask["cursor"] else ""
        try:
            known = await self._catalogue.known_markets(wanted, limit + 1, after)
            found: list[tuple[str, Market | None]] = [(market.ticker, market) for market in known.value]
            live, as_known_ns = False, known.at_ns if known.stale else None
        except RegistryUnavailable:
            if wanted != MarketFilter():
                raise  # only the database knows which markets these are
            heard = sorted(ticker for ticker in self._hub.board.updated_ns if ticker > after)
            found, live, as_known_ns = [(ticker, None) for ticker in heard[: limit + 1]], True, None
        rows: list[MarketRow] = []
        for ticker, market in found[:limit]:
            rows.append(self._view(ticker, market).row())
            if len(rows) % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)  # live messages first
        cursor = encode_cursor(wanted, rows[-1].ticker) if len(found) > limit else None
        if as_known_ns is None:
            return MarketPage(self._hub.feed, rows, cursor, "live" if live else "registry", live)
        page = MarketPage(self._hub.feed, rows, cursor, "registry", True, iso(as_known_ns))
        return Reply(page, stale_headers(as_known_ns, self._clock()))

    async def market(self, ask: Ask) -> MarketDocument | Reply:
        """One market, with what an agent needs to understand it and to go on."""
        ticker: str = ask["ticker"]
        market, metadata, as_known_ns = await self._lookup.metadata(ticker)
        if market is None and not self._hub.board.known(ticker):
            raise await self._lookup.unknown(ticker)
        gaps = await self._gaps_today(ticker)
        document = self._view(ticker, market).document(metadata, gaps)
        if as_known_ns is None:
            return document
        old = msgspec.structs.replace(document, stale=True, as_known=iso(as_known_ns))
        return Reply(old, stale_headers(as_known_ns, self._clock()))

    async def orderbook(self, ask: Ask) -> OrderbookDocument:
        """The book now, best levels first."""
        ticker: str = ask["ticker"]
        depth: int = ask["depth"]
        book = self._hub.board.books.get(ticker)
        if book is None:
            await self._lookup.require(ticker)
            detail = f"no order book of {ticker} was received yet"
            raise ApiProblem(404, "no_book", detail, "Ask again once it trades.", ticker=ticker)
        if book.waiting is not None:
            detail = f"the order book of {ticker} waits for its snapshot"
            raise ApiProblem(
                503, "book_not_synced", detail, "Ask again in two seconds.", headers={"Retry-After": "2"}, ticker=ticker
            )
        return OrderbookDocument(
            type="orderbook",
            feed=self._hub.feed,
            ticker=ticker,
            kind="snapshot",
            bids=[_level(level) for level in book.sorted_bids()[:depth]],
            asks=[_level(level) for level in book.sorted_asks()[:depth]],
            ts=(book.last.exchange_ns or book.last.received_ns) // NS_PER_MS,
            bid_levels=len(book.bids),
            ask_levels=len(book.asks),
            stale=book.stale or not self._hub.connected,
            links=links(ticker),
        )

    async def _known_status(self, status: str | None) -> None:
        """ApiProblem 400 for a status that no market can have; one that none has now is a page without rows."""
        if status is None or status in STATUS_WORDS:
            return
        known = sorted({*STATUS_WORDS, *(await self._catalogue.market_words()).statuses})
        if status not in known:
            detail = f"no market can have the status {printable(status)!r}"
            step = f"One of: {', '.join(known)}"
            raise ApiProblem(400, "bad_parameter", detail, step, parameter="status", near=near(status, known))

    def _view(self, ticker: str, market: Market | None) -> MarketView:
        return MarketView(ticker, market, self._hub, self._clock())

    async def _gaps_today(self, ticker: str) -> list[Gap] | None:
        """Today's recorded gaps that touch the ticker; None while the database is away."""
        try:
            gaps = await self._catalogue.gaps(day_of(self._clock()))
        except RegistryUnavailable:
            return None
        return [gap for gap in gaps if gap.tickers is None or ticker in gap.tickers]


def _read_search(text: str) -> tuple[str, ...]:
    found = text.lower().split()
    if len(found) > WORDS_MAX or len(text) > WORD_MAX_CHARS * 2 or "\x00" in text:
        raise ValueError(f"at most {WORDS_MAX} words with {WORD_MAX_CHARS * 2} characters")
    return tuple(dict.fromkeys(found))


_SEARCH = Parameter(
    "q",
    _read_search,
    {"type": "string", "maxLength": WORD_MAX_CHARS * 2, "pattern": f"^\\s*([^\\s\\u0000]+(\\s+|$)){{0,{WORDS_MAX}}}$"},
    "Words that all occur in the title, the ticker, its event or series.",
    default=(),
)
_FILTERS = (
    _SEARCH,
    words("status", "The exchange's word: active, closed, determined, finalized, ...", most=32),
    words("category", "The exchange's category: Crypto, Politics, ...", most=WORD_MAX_CHARS),
    words("series", "The ticker of the series.", most=WORD_MAX_CHARS),
    words("event", "The ticker of the event.", most=WORD_MAX_CHARS),
    words("result", "How it was settled: yes, no, ...", most=32),
    moment("close_after", "Markets that close at this time or later."),
    moment("close_before", "Markets that close before this time (a day: its first moment)."),
    choice("listed", "Markets the exchange lists, those that vanished, or both.", tuple(LISTED), "true"),
    whole("limit", "Markets of one page.", default=MARKETS_DEFAULT, most=MARKETS_MAX),
    words("cursor", "`next_cursor` of the answer before.", most=MAX_CURSOR_CHARS),
)


def _filter(ask: Ask) -> MarketFilter:
    return MarketFilter(
        status=ask["status"],
        category=ask["category"],
        series_ticker=ask["series"],
        event_ticker=ask["event"],
        result=ask["result"],
        words=ask["q"],
        close_after=ask["close_after"],
        close_before=ask["close_before"],
        listed=LISTED[ask["listed"]],
    )


def _level(level: Level) -> tuple[msgspec.Raw, msgspec.Raw]:
    price, size = level
    return digits(price), digits(size)
