"""Kalshi's public REST pages over the simulated exchange, its error bodies, and the test's command channel."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from ssmd.errors import ConfigError
from ssmd.simulator.auth import Gatekeeper
from ssmd.simulator.changes import Change, parse_changes
from ssmd.simulator.faults import FaultCommand, FaultRecord, Faults
from ssmd.simulator.listing import NO_CUTOFF, Key, Listed, Listing, micros
from ssmd.simulator.options import REST_PATH
from ssmd.simulator.rest_markets import CataloguePages, Query
from ssmd.simulator.rest_query import Refused, bad_request, flag, integer, limit, page, seconds

Page = Callable[[web.Request], object]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAX_ORDER_BYTES = 256 * 1024 * 1024
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Exchange(Protocol):
    """What REST needs from the exchange."""

    source: Listing
    gatekeeper: Gatekeeper
    faults: Faults

    def order_fault(self, command: FaultCommand) -> FaultRecord:
        """Switch a fault on; ConfigError when there is no such fault."""
        ...

    def order_changes(self, changes: Sequence[Change]) -> dict[str, Any]:
        """Change what is listed, all or nothing; ConfigError when that cannot be done."""
        ...

    def state(self) -> dict[str, Any]:
        """Connections, frames, progress, faults."""
        ...


def make_application(exchange: Exchange) -> web.Application:
    """All routes."""
    app = web.Application(middlewares=[_guard(exchange)], client_max_size=_MAX_ORDER_BYTES)
    pages = RestPages(exchange)
    for path, make in pages.routes().items():
        app.router.add_get(path, _handler(make))
    app.router.add_post("/_simulator/fault", _fault(exchange))
    app.router.add_post("/_simulator/markets", _changes(exchange))
    app.router.add_get("/_simulator/markets", _handler(lambda _: exchange.source.counts()))
    app.router.add_get("/_simulator/state", _handler(lambda _: exchange.state()))
    return app


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _handler(make: Page) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return _json(make(request))

    return handle


def _fault(exchange: Exchange) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            command = msgspec.json.decode(await request.read(), type=FaultCommand)
            return _json(exchange.order_fault(command))
        except (msgspec.DecodeError, ConfigError) as error:
            raise Refused(400, "bad_request", str(error)) from error

    return handle


def _changes(exchange: Exchange) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return _json(exchange.order_changes(parse_changes(await request.read())))
        except ConfigError as error:
            raise bad_request(error.message) from error

    return handle


def _guard(exchange: Exchange) -> Any:
    """Faults, wrong signatures and errors, each in the shape the real exchange gives it."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        now_ns = time.time_ns()
        if request.path.startswith(REST_PATH):
            if exchange.faults.is_on("rest_429", now_ns):
                return _json({"error": "too many requests"}, 429)
            if exchange.faults.is_on("rest_500", now_ns):
                return web.Response(
                    text="<html><body>502 Bad Gateway</body></html>", status=502, content_type="text/html"
                )
            headers = {name.lower(): value for name, value in request.headers.items()}
            if "kalshi-access-key" in headers:
                why = exchange.gatekeeper.refusal(request.method, request.path, headers)
                if why is not None:
                    return _json({"error": {"code": "authentication_error", "message": why}}, 401)
        try:
            return await handler(request)
        except Refused as refused:
            body = {"code": refused.code, "message": refused.message, "details": ""}
            return _json(body, refused.status)
        except web.HTTPException as error:
            return _json({"error": {"code": "not_found", "message": error.reason}}, error.status)

    return guard


class RestPages:
    """One method a page; each returns the body."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._catalogue = CataloguePages(exchange.source)

    def routes(self) -> dict[str, Page]:
        """Path → page. Fixed words stand before `{ticker}`."""
        pages = {
            "/exchange/status": self.status,
            "/exchange/schedule": self.schedule,
            "/historical/cutoff": self.cutoff,
            "/historical/markets": _of_query(self._catalogue.historical_list),
            "/historical/markets/{ticker}": _of_ticker(self._catalogue.historical_one),
            "/series": _of_query(self._catalogue.series_list),
            "/series/{ticker}": _of_ticker(self._catalogue.series_one),
            "/events": _of_query(self._catalogue.event_list),
            "/events/multivariate": _of_query(self._catalogue.multivariate_events),
            "/events/{ticker}": _of_ticker(self._catalogue.event_one),
            "/markets": _of_query(self._catalogue.market_list),
            "/markets/trades": self.trade_list,
            "/markets/orderbooks": self.orderbooks,
            "/markets/{ticker}": _of_ticker(self._catalogue.market_one),
            "/markets/{ticker}/orderbook": self.orderbook,
        }
        return {REST_PATH + path: page for path, page in pages.items()}

    @property
    def _source(self) -> Listing:
        return self._exchange.source

    def status(self, _: web.Request) -> object:
        up = {"exchange_active": True, "trading_active": True, "intra_exchange_transfers_active": True}
        return {**up, "exchange_index_statuses": [{"exchange_index": 0, "description": "default", **up}]}

    def schedule(self, _: web.Request) -> object:
        whole_day = [{"open_time": "00:00", "close_time": "00:00"}]
        week = {"start_time": "2024-12-01T00:00:00Z", "end_time": "2200-12-01T00:00:00Z"}
        hours = {**week, **dict.fromkeys(_DAYS, whole_day)}
        return {"schedule": {"maintenance_windows": [], "standard_hours": [hours]}}

    def cutoff(self, _: web.Request) -> object:
        names = ("market_positions_last_updated_ts", "market_settled_ts", "orders_updated_ts", "trades_created_ts")
        return {**dict.fromkeys(names, NO_CUTOFF), "market_settled_ts": self._source.cutoff}

    def orderbook(self, request: web.Request) -> object:
        depth = integer(request.query, "depth", 0, 0, 100)
        levels = self._source.book_levels(request.match_info["ticker"], depth)
        if levels is None:
            raise Refused(404, "not_found", "market not found")
        return {"orderbook_fp": levels}

    def orderbooks(self, request: web.Request) -> object:
        tickers = [name for value in request.query.getall("tickers", []) for name in value.split(",") if name]
        if not 1 <= len(tickers) <= 100:
            raise bad_request("tickers: 1 to 100 are allowed")
        books = [(ticker, self._source.book_levels(ticker, 0)) for ticker in tickers]
        return {
            "orderbooks": [{"ticker": name, "orderbook_fp": levels} for name, levels in books if levels is not None]
        }

    def trade_list(self, request: web.Request) -> object:
        """Newest first."""
        query = request.query
        ticker, low, high = query.get("ticker") or None, seconds(query, "min_ts"), seconds(query, "max_ts")
        blocks = flag(query, "is_block_trade") if query.get("is_block_trade") else None

        def rows(after: Key | None) -> Iterator[Listed]:
            reached = after is None
            for row in reversed(self._source.trades()):
                key = (micros(row["created_time"]), row["trade_id"])
                second = key[0] / 1_000_000
                if (
                    reached
                    and ticker in (None, row["ticker"])
                    and (low is None or second >= low)
                    and (high is None or second <= high)
                    and blocks in (None, row["is_block_trade"])
                ):
                    yield Listed(key, row)
                reached = reached or key == after

        found, cursor = page(rows, query, limit(query, default=100, low=0, high=1000))
        return {"trades": found, "cursor": cursor}


def _of_query(make: Callable[[Query], object]) -> Page:
    return lambda request: make(request.query)


def _of_ticker(make: Callable[[Query, str], object]) -> Page:
    return lambda request: make(request.query, request.match_info["ticker"])
