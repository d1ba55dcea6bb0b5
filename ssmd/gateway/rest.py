"""`/v1/markets…` and `/v1/health` over HTTP: live state first, metadata where the database answers.

Numbers are printed exactly from integers. Market text (titles) comes from the exchange and is data: JSON only, no HTML.
"""

import base64
import binascii
from collections.abc import Callable

import msgspec
from aiohttp import web

from ssmd.clock import day_of, now_ns
from ssmd.errors import DataError
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_view import MarketView, links
from ssmd.gateway.problems import near, problem
from ssmd.market.events import Gap
from ssmd.market.subjects import MAX_TICKER_BYTES, encode_ticker
from ssmd.registry.interface import Market, RegistryUnavailable
from ssmd.wire.client import event_body

MARKETS_DEFAULT, MARKETS_MAX = 100, 1_000
TRADES_DEFAULT, TRADES_MAX = 50, 200
DEPTH_DEFAULT, DEPTH_MAX = 20, 1_000
STATUS_MAX_CHARS = 32

PATHS = (
    "/v1/health",
    "/v1/markets",
    "/v1/markets/{ticker}",
    "/v1/markets/{ticker}/trades",
    "/v1/markets/{ticker}/orderbook",
    "/v1/stream",
)


class RestEndpoint:
    """The HTTP handlers; `health` is the service's own view of itself."""

    def __init__(
        self, hub: Hub, catalogue: Catalogue, health: Callable[[], dict[str, object]], clock: Callable[[], int] = now_ns
    ) -> None:
        self._hub = hub
        self._catalogue = catalogue
        self._health = health
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get("/v1/health", self.health),
            web.get("/v1/markets", self.markets),
            web.get("/v1/markets/{ticker}", self.market),
            web.get("/v1/markets/{ticker}/trades", self.trades),
            web.get("/v1/markets/{ticker}/orderbook", self.orderbook),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        """Each dependency with its state and age; 503 while live data does not flow."""
        health = self._health()
        return _reply(health, status=503 if health["status"] == "down" else 200)

    async def markets(self, request: web.Request) -> web.Response:
        """A page of markets by ticker; while the database is away, the tickers heard live."""
        limit = _whole(request, "limit", MARKETS_DEFAULT, MARKETS_MAX)
        after = _decode_cursor(request.query.get("cursor", ""))
        status = request.query.get("status") or None
        if status is not None and len(status) > STATUS_MAX_CHARS:
            raise DataError(f"status has at most {STATUS_MAX_CHARS} characters")
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
        return _reply({"feed": self._hub.feed, "markets": rows, "next_cursor": cursor, "source": source})

    async def market(self, request: web.Request) -> web.Response:
        """One market, with what an agent needs to understand it and to go on."""
        ticker = _ticker(request)
        market, metadata = await self._metadata(ticker)
        if market is None and not self._hub.board.known(ticker):
            return self._unknown(ticker)
        gaps = await self._gaps_today(ticker)
        return _reply(self._view(ticker, market).document(metadata, gaps))

    async def trades(self, request: web.Request) -> web.Response:
        """The last trades since the gateway started, newest first."""
        ticker = _ticker(request)
        limit = _whole(request, "limit", TRADES_DEFAULT, TRADES_MAX)
        if not await self._exists(ticker):
            return self._unknown(ticker)
        feed = self._hub.feed
        trades = [msgspec.Raw(b"{" + event_body(trade, feed)) for trade in self._hub.board.trades(ticker, limit)]
        return _reply({"ticker": ticker, "feed": feed, "trades": trades, "_links": links(ticker)})

    async def orderbook(self, request: web.Request) -> web.Response:
        """The book now, best levels first."""
        ticker = _ticker(request)
        depth = _whole(request, "depth", DEPTH_DEFAULT, DEPTH_MAX)
        book = self._hub.board.books.get(ticker)
        if book is None:
            if not await self._exists(ticker):
                return self._unknown(ticker)
            return problem(404, "No order book", f"no order book of {ticker} was received yet", ticker=ticker)
        if book.waiting is not None:
            detail = f"the order book of {ticker} waits for its snapshot"
            return problem(503, "Order book not synced", detail, headers={"Retry-After": "2"}, ticker=ticker)
        shown = msgspec.structs.replace(
            book.snapshot(ticker), bids=book.sorted_bids()[:depth], asks=book.sorted_asks()[:depth]
        )
        fields = msgspec.json.decode(b"{" + event_body(shown, self._hub.feed), type=dict[str, msgspec.Raw])
        depths = {"bid_levels": len(book.bids), "ask_levels": len(book.asks), "stale": book.stale}
        return _reply({**fields, **depths, "_links": links(ticker)})

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

    def _unknown(self, ticker: str) -> web.Response:
        close = near(ticker, self._hub.board.updated_ns)
        detail = f"no market {ticker}" + (f"; did you mean {' or '.join(close)}?" if close else "")
        return problem(404, "Unknown market", detail, near=close)


def _reply(document: object, status: int = 200) -> web.Response:
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    body = msgspec.json.encode(document)
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def _ticker(request: web.Request) -> str:
    ticker = request.match_info["ticker"]
    encode_ticker(ticker)  # DataError when it cannot be one
    return ticker


def _whole(request: web.Request, name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most` of the query."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise DataError(f"{name} must be a whole number from 1 to {most}, not {text[:40]!r}")
    return int(text)


def _encode_cursor(ticker: str) -> str:
    return base64.urlsafe_b64encode(ticker.encode()).rstrip(b"=").decode()


def _decode_cursor(cursor: str) -> str:
    if len(cursor) > MAX_TICKER_BYTES * 2:
        raise DataError("cursor is not one of a previous answer")
    try:
        return base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise DataError(f"cursor {cursor[:40]!r} is not one of a previous answer") from error
