"""`/v1/markets…` and `/v1/health` over HTTP: live state first, metadata where the database answers.

Numbers are printed exactly from integers. Market text (titles) comes from the exchange and is data: JSON only, no HTML.
"""

import base64
import binascii
from collections.abc import Callable

import msgspec
from aiohttp import web

from ssmd.clock import day_of, now_ns
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_view import MarketView, links
from ssmd.gateway.problems import ApiProblem, near
from ssmd.gateway.routes import SAFE_HEADERS, TICKER, Ask, Route, whole, words
from ssmd.market.events import Gap
from ssmd.market.subjects import MAX_TICKER_BYTES
from ssmd.registry.interface import Market, RegistryUnavailable
from ssmd.wire.client import event_body

MARKETS_DEFAULT, MARKETS_MAX = 100, 1_000
TRADES_DEFAULT, TRADES_MAX = 50, 200
DEPTH_DEFAULT, DEPTH_MAX = 20, 1_000
STATUS_MAX_CHARS = 32


class RestEndpoint:
    """The HTTP handlers; `health` is the service's own view of itself."""

    def __init__(
        self, hub: Hub, catalogue: Catalogue, health: Callable[[], dict[str, object]], clock: Callable[[], int] = now_ns
    ) -> None:
        self._hub = hub
        self._catalogue = catalogue
        self._health = health
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        limit = whole("limit", "Markets of one page.", default=MARKETS_DEFAULT, most=MARKETS_MAX)
        cursor = words("cursor", "`next_cursor` of the answer before.", most=MAX_TICKER_BYTES * 2)
        status = words("status", "The exchange's word: active, closed, finalized, ...", most=STATUS_MAX_CHARS)
        last = whole("limit", "Trades, newest first.", default=TRADES_DEFAULT, most=TRADES_MAX)
        depth = whole("depth", "Price levels of each side, best first.", default=DEPTH_DEFAULT, most=DEPTH_MAX)
        of_market = "/v1/markets/{ticker}"
        return [
            Route("/v1/health", self.health, None, "How the gateway and everything it needs are", tag="health"),
            Route("/v1/markets", self.markets, "read:live", "Markets, by ticker", parameters=(status, limit, cursor)),
            Route(of_market, self.market, "read:live", "One market", parameters=(TICKER,), problems=(404,)),
            Route(
                f"{of_market}/trades", self.trades, "read:live", "Its last trades",
                parameters=(TICKER, last), problems=(404,),
            ),
            Route(
                f"{of_market}/orderbook", self.orderbook, "read:live", "Its order book now",
                parameters=(TICKER, depth), problems=(404,),
            ),
        ]  # fmt: skip

    async def health(self, _ask: Ask) -> object:
        """Each dependency with its state and age; 503 while live data does not flow."""
        health = self._health()
        if health["status"] != "down":
            return health
        headers = {**SAFE_HEADERS, "Cache-Control": "no-store"}
        return web.Response(
            status=503, body=msgspec.json.encode(health), headers=headers, content_type="application/json"
        )

    async def markets(self, ask: Ask) -> object:
        """A page of markets by ticker; while the database is away, the tickers heard live."""
        limit, status, after = ask["limit"], ask["status"], _decode_cursor(ask["cursor"] or "")
        try:
            found = await self._catalogue.markets(status, limit + 1, after)
            rows = [self._view(market.ticker, market).row() for market in found[:limit]]
            more, source = len(found) > limit, "registry"
        except RegistryUnavailable:
            if status is not None:
                raise  # which markets have this status is only known there
            heard = sorted(ticker for ticker in self._hub.board.updated_ns if ticker > after)
            rows = [self._view(ticker, None).row() for ticker in heard[:limit]]
            more, source = len(heard) > limit, "live"
        cursor = _encode_cursor(str(rows[-1]["ticker"])) if more else None
        return {"feed": self._hub.feed, "markets": rows, "next_cursor": cursor, "source": source}

    async def market(self, ask: Ask) -> object:
        """One market, with what an agent needs to understand it and to go on."""
        ticker: str = ask["ticker"]
        market, metadata = await self._metadata(ticker)
        if market is None and not self._hub.board.known(ticker):
            raise self._unknown(ticker)
        gaps = await self._gaps_today(ticker)
        return self._view(ticker, market).document(metadata, gaps)

    async def trades(self, ask: Ask) -> object:
        """The last trades since the gateway started, newest first."""
        ticker: str = ask["ticker"]
        if not await self._exists(ticker):
            raise self._unknown(ticker)
        feed = self._hub.feed
        trades = [msgspec.Raw(b"{" + event_body(trade, feed)) for trade in self._hub.board.trades(ticker, ask["limit"])]
        return {"ticker": ticker, "feed": feed, "trades": trades, "_links": links(ticker)}

    async def orderbook(self, ask: Ask) -> object:
        """The book now, best levels first."""
        ticker: str = ask["ticker"]
        depth: int = ask["depth"]
        book = self._hub.board.books.get(ticker)
        if book is None:
            if not await self._exists(ticker):
                raise self._unknown(ticker)
            raise ApiProblem(
                404,
                "no_book",
                f"no order book of {ticker} was received yet",
                "Ask again once it trades.",
                ticker=ticker,
            )
        if book.waiting is not None:
            detail = f"the order book of {ticker} waits for its snapshot"
            raise ApiProblem(
                503, "book_not_synced", detail, "Ask again in two seconds.", headers={"Retry-After": "2"}, ticker=ticker
            )
        shown = msgspec.structs.replace(
            book.snapshot(ticker), bids=book.sorted_bids()[:depth], asks=book.sorted_asks()[:depth]
        )
        fields = msgspec.json.decode(b"{" + event_body(shown, self._hub.feed), type=dict[str, msgspec.Raw])
        depths = {"bid_levels": len(book.bids), "ask_levels": len(book.asks), "stale": book.stale}
        return {**fields, **depths, "_links": links(ticker)}

    def _view(self, ticker: str, market: Market | None) -> MarketView:
        return MarketView(ticker, market, self._hub, self._clock())

    async def _metadata(self, ticker: str) -> tuple[Market | None, str]:
        """(the market, `present`), (None, `absent`) or, while the database is away, (None, `unavailable`).

        Raises RegistryUnavailable when the ticker was not heard live either: nobody can say whether it exists.
        """
        try:
            market = await self._catalogue.market(ticker)
        except RegistryUnavailable:
            if not self._hub.board.known(ticker):
                raise
            return None, "unavailable"
        return market, "absent" if market is None else "present"

    async def _exists(self, ticker: str) -> bool:
        return self._hub.board.known(ticker) or (await self._metadata(ticker))[0] is not None

    async def _gaps_today(self, ticker: str) -> list[Gap] | None:
        """Today's recorded gaps that touch the ticker; None while the database is away."""
        try:
            gaps = await self._catalogue.gaps(day_of(self._clock()))
        except RegistryUnavailable:
            return None
        return [gap for gap in gaps if gap.tickers is None or ticker in gap.tickers]

    def _unknown(self, ticker: str) -> ApiProblem:
        close = near(ticker, self._hub.board.updated_ns)
        step = f"Did you mean {' or '.join(close)}?" if close else "GET /v1/markets lists them."
        return ApiProblem(404, "unknown_market", f"no market {ticker}", step, near=close)


def _encode_cursor(ticker: str) -> str:
    return base64.urlsafe_b64encode(ticker.encode()).rstrip(b"=").decode()


def _decode_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ApiProblem(
            400, "bad_parameter", f"parameter 'cursor' {cursor[:40]!r} is not one of a previous answer",
            "Begin again without it.", parameter="cursor",
        ) from error  # fmt: skip
