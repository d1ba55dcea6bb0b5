"""Kalshi's public REST pages over the simulated exchange, its error bodies, and the test's command channel."""

import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec
from aiohttp import web

from ssmd.errors import ConfigError
from ssmd.simulator.auth import Gatekeeper
from ssmd.simulator.faults import FaultCommand, FaultRecord, Faults
from ssmd.simulator.options import REST_PATH
from ssmd.simulator.source import Row, Source

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The filter's words are not the words in Market.status.
STATUS_FILTER = {
    "unopened": {"initialized"},
    "open": {"active"},
    "paused": {"inactive"},
    "closed": {"closed", "determined", "disputed", "amended"},
    "settled": {"finalized"},
}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Exchange(Protocol):
    """What REST needs from the exchange."""

    source: Source
    gatekeeper: Gatekeeper
    faults: Faults

    def order_fault(self, command: FaultCommand) -> FaultRecord:
        """Switch a fault on; ConfigError when there is no such fault."""
        ...

    def state(self) -> dict[str, Any]:
        """Connections, frames, progress, faults."""
        ...


class Refused(Exception):
    """Answered with the flat error body."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def make_application(exchange: Exchange) -> web.Application:
    """All routes."""
    app = web.Application(middlewares=[_guard(exchange)], client_max_size=64 * 1024)
    pages = RestPages(exchange)
    for path, page in pages.routes().items():
        app.router.add_get(path, _handler(page))
    app.router.add_post("/_simulator/fault", _fault(exchange))
    app.router.add_get("/_simulator/state", _handler(lambda _: exchange.state()))
    return app


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _handler(page: Callable[[web.Request], object]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return _json(page(request))

    return handle


def _fault(exchange: Exchange) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            command = msgspec.json.decode(await request.read(), type=FaultCommand)
            return _json(exchange.order_fault(command))
        except (msgspec.DecodeError, ConfigError) as error:
            raise Refused(400, "bad_request", str(error)) from error

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

    def routes(self) -> dict[str, Callable[[web.Request], object]]:
        """Path → page. Fixed words stand before `{ticker}`."""
        pages = {
            "/exchange/status": self.status,
            "/exchange/schedule": self.schedule,
            "/historical/cutoff": self.cutoff,
            "/series": self.series_list,
            "/series/{ticker}": self.series_one,
            "/events": self.event_list,
            "/events/{ticker}": self.event_one,
            "/markets": self.market_list,
            "/markets/trades": self.trade_list,
            "/markets/orderbooks": self.orderbooks,
            "/markets/{ticker}": self.market_one,
            "/markets/{ticker}/orderbook": self.orderbook,
        }
        return {REST_PATH + path: page for path, page in pages.items()}

    @property
    def _source(self) -> Source:
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
        never = "2020-01-01T00:00:00Z"
        names = ("market_positions_last_updated_ts", "market_settled_ts", "orders_updated_ts", "trades_created_ts")
        return dict.fromkeys(names, never)

    def series_list(self, request: web.Request) -> object:
        category = request.query.get("category")
        return {"series": [row for row in self._source.series() if category in (None, row["category"])]}

    def series_one(self, request: web.Request) -> object:
        return {"series": _find(self._source.series(), "ticker", request.match_info["ticker"], "series")}

    def event_list(self, request: web.Request) -> object:
        status, series = request.query.get("status"), request.query.get("series_ticker")
        wanted = _names(request.query.get("tickers"))
        rows = []
        for row in self._source.events():
            markets = self._markets_of(row["event_ticker"])
            if series not in (None, row["series_ticker"]) or (wanted and row["event_ticker"] not in wanted):
                continue
            if status is not None and not any(_has_status(market, status) for market in markets):
                continue
            rows.append({**row, "markets": markets} if request.query.get("with_nested_markets") == "true" else row)
        page, cursor = _page(rows, request, "event_ticker", default=200, most=200)
        return {"events": page, "cursor": cursor}

    def event_one(self, request: web.Request) -> object:
        ticker = request.match_info["ticker"]
        event = _find(self._source.events(), "event_ticker", ticker, "event")
        if request.query.get("exclude_markets") == "true":
            return {"event": event}
        if request.query.get("with_nested_markets") == "true":
            return {"event": {**event, "markets": self._markets_of(ticker)}}
        return {"event": event, "markets": self._markets_of(ticker)}

    def market_list(self, request: web.Request) -> object:
        query = request.query
        status = query.get("status") or None
        if status is not None and status not in STATUS_FILTER:
            raise Refused(400, "bad_request", f"invalid status: {status}")
        bounds = _time_bounds(query, status)
        wanted = _names(query.get("tickers"))
        rows = [
            row
            for row in self._source.markets()
            if (status is None or _has_status(row, status))
            and query.get("event_ticker") in (None, "", row["event_ticker"])
            and query.get("series_ticker") in (None, "", row["event_ticker"].rpartition("-")[0])
            and (not wanted or row["ticker"] in wanted)
            and query.get("mve_filter") != "only"
            and all(_within(row, *bound) for bound in bounds)
        ]
        page, cursor = _page(rows, request, "ticker", default=100, most=1000)
        return {"markets": page, "cursor": cursor}

    def market_one(self, request: web.Request) -> object:
        return {"market": _find(self._source.markets(), "ticker", request.match_info["ticker"], "market")}

    def orderbook(self, request: web.Request) -> object:
        depth = _integer(request, "depth", 0, 100)
        levels = self._source.book_levels(request.match_info["ticker"], depth)
        if levels is None:
            raise Refused(404, "not_found", "market not found")
        return {"orderbook_fp": levels}

    def orderbooks(self, request: web.Request) -> object:
        tickers = [name for value in request.query.getall("tickers", []) for name in value.split(",") if name]
        if not 1 <= len(tickers) <= 100:
            raise Refused(400, "bad_request", "tickers: 1 to 100 are allowed")
        books = [(ticker, self._source.book_levels(ticker, 0)) for ticker in tickers]
        return {
            "orderbooks": [{"ticker": name, "orderbook_fp": levels} for name, levels in books if levels is not None]
        }

    def trade_list(self, request: web.Request) -> object:
        ticker = request.query.get("ticker") or None
        low = _integer(request, "min_ts", 0, None)
        high = _integer(request, "max_ts", 0, None)
        rows = []
        for row in reversed(self._source.trades()):
            if ticker not in (None, row["ticker"]):
                continue
            if (low or high) and not low <= _seconds(row["created_time"]) <= (high or float("inf")):
                continue
            rows.append(row)
        page, cursor = _page(rows, request, "trade_id", default=100, most=1000)
        return {"trades": page, "cursor": cursor}

    def _markets_of(self, event_ticker: str) -> list[Row]:
        return [row for row in self._source.markets() if row["event_ticker"] == event_ticker]


def _has_status(row: Row, status: str) -> bool:
    return row["status"] in STATUS_FILTER.get(status, ())


def _names(text: str | None) -> set[str]:
    return {name for name in (text or "").split(",") if name}


def _find(rows: Iterable[Row], key: str, value: str, what: str) -> Row:
    for row in rows:
        if row[key] == value:
            return row
    raise Refused(404, "not_found", f"{what} not found")


def _time_bounds(query: Mapping[str, str], status: str | None) -> list[tuple[str, str, int]]:
    """The time filters; two kinds at once, or one with the wrong status, is a bad request."""
    fields: dict[str, tuple[str, set[str | None]]] = {
        "created": ("created_time", {None, "unopened", "open"}),
        "close": ("close_time", {None, "closed"}),
        "settled": ("settlement_ts", {None, "settled"}),
        "updated": ("updated_time", {None}),
    }
    bounds = []
    kinds = set()
    for kind, (field, statuses) in fields.items():
        for end in ("min", "max"):
            text = query.get(f"{end}_{kind}_ts")
            if text:
                kinds.add(kind)
                if status not in statuses or not text.lstrip("-").isdigit():
                    raise Refused(400, "bad_request", f"{end}_{kind}_ts does not go with this request")
                bounds.append((field, end, int(text)))
    if len(kinds) > 1:
        raise Refused(400, "bad_request", "timestamp filters are mutually exclusive")
    return bounds


def _within(row: Row, field: str, end: str, bound: int) -> bool:
    value = row.get(field)
    if value is None:
        return False
    return _seconds(value) > bound if end == "min" else _seconds(value) <= bound


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _integer(request: web.Request, name: str, default: int, most: int | None) -> int:
    text = request.query.get(name) or str(default)
    if not text.lstrip("-").isdigit() or (most is not None and int(text) > most):
        raise Refused(400, "bad_request", f"{name}: not a number up to {most}")
    return max(int(text), 0)


def _page(rows: list[Any], request: web.Request, key: str, *, default: int, most: int) -> tuple[list[Any], str]:
    """The page after the cursor, which names the last row of the page before; "" at the end."""
    limit = _integer(request, "limit", default, most) or default
    start = 0
    cursor = request.query.get("cursor")
    if cursor:
        try:
            last = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise Refused(400, "bad_request", "invalid cursor") from error
        start = next((index + 1 for index, row in enumerate(rows) if row[key] == last), len(rows))
    page = rows[start : start + limit]
    more = start + limit < len(rows)
    return page, base64.urlsafe_b64encode(str(page[-1][key]).encode()).decode() if more else ""
