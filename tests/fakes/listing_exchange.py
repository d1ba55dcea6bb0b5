"""An exchange's public lists over HTTP, paged, filtered and refused as Kalshi does; tests change its state.

It shares no code with ssmd.simulator on purpose: what the simulator misunderstood would go unnoticed. And it does what
the simulator never does: cursors that repeat or never end, status words that it does not know, bodies of any text.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Row = dict[str, Any]
PATH = "/trade-api/v2"
STATUS = {
    "unopened": {"initialized"},
    "open": {"active"},
    "paused": {"inactive"},
    "closed": {"closed", "determined", "disputed", "amended"},
    "settled": {"finalized"},
}
# which status words a time filter goes with ("" is no status)
TIMES: dict[str, tuple[str, set[str]]] = {
    "created": ("created_time", {"", "unopened", "open"}),
    "close": ("close_time", {"", "closed"}),
    "settled": ("settlement_ts", {"", "settled"}),
    "updated": ("updated_time", {""}),
}


class BadRequest(Exception):
    """Answered with status 400 and the flat error body."""


class ListingExchange:
    """Markets, events and series by ticker; `faults` are answered before anything else, one a request."""

    def __init__(self) -> None:
        self.series: dict[str, Row] = {}
        self.events: dict[str, Row] = {}
        self.markets: dict[str, Row] = {}
        self.historical: dict[str, Row] = {}
        self.faults: list[tuple[int, str]] = []
        self.fault_after: int | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.first_request = asyncio.Event()
        self.on_request: Callable[[str], None] = lambda _path: None
        self.knows_paused = True
        self.repeat_cursor = False
        self.endless = False
        self.silent = False
        self.url = ""

    # -- what tests say ---------------------------------------------------------------------------------------------

    def add_series(self, ticker: str, category: str = "Crypto", at: str = "2026-11-01T00:00:00Z") -> None:
        self.series[ticker] = {"ticker": ticker, "title": f"series {ticker}", "category": category,
                               "last_updated_ts": at, "fee_multiplier": 1}  # fmt: skip

    def add_event(self, ticker: str, series: str, at: str = "2026-11-01T00:00:00Z", category: str = "old") -> None:
        self.events[ticker] = {"event_ticker": ticker, "series_ticker": series, "title": f"event {ticker}",
                               "category": category, "last_updated_ts": at}  # fmt: skip

    def add_market(self, ticker: str, event: str, at: str = "2026-11-20T10:00:00Z", **fields: Any) -> Row:
        row = {
            "ticker": ticker, "event_ticker": event, "market_type": "binary", "title": f"market {ticker}",
            "status": "active", "result": "", "created_time": at, "updated_time": at,
            "open_time": "2026-11-20T12:00:00Z", "close_time": "2026-12-20T12:00:00Z",
            "expected_expiration_time": "2026-12-20T12:05:00Z", "latest_expiration_time": "2026-12-27T12:00:00Z",
            "yes_bid_dollars": "0.4000", "volume_fp": "1.00", "rules_primary": "If …", "can_close_early": True,
        }  # fmt: skip
        self.markets[ticker] = {**row, **fields}
        return self.markets[ticker]

    def change(self, ticker: str, at: str, **fields: Any) -> None:
        self.markets[ticker].update(fields, updated_time=at)

    def settle(self, ticker: str, at: str, result: str = "yes", status: str = "finalized") -> None:
        value = {"yes": "1.0000", "no": "0.0000"}[result]
        self.change(ticker, at, status=status, result=result, settlement_value_dollars=value, settlement_ts=at)

    def asked(self, path: str) -> list[dict[str, str]]:
        return [query for asked, query in self.requests if asked == path]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get(PATH + "/{path:.*}", self._handle)
        async with TestServer(app) as server:
            self.url = str(server.make_url(PATH))
            yield self.url

    # -- what the exchange answers ----------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, query = "/" + request.match_info["path"], dict(request.query)
        self.requests.append((path, query))
        self.first_request.set()
        self.on_request(path)
        if self.silent:
            await asyncio.sleep(60)
        if self.fault_after is not None:
            self.fault_after -= 1
        if self.faults and (self.fault_after is None or self.fault_after < 0):
            status, body = self.faults.pop(0)
            return web.Response(status=status, text=body)
        pages = {"/series": self._series, "/events": self._events, "/events/multivariate": self._combos,
                 "/markets": self._markets, "/historical/markets": self._historical}  # fmt: skip
        if path not in pages:
            return web.json_response({"error": {"code": "not_found", "message": "not found"}}, status=404)
        try:
            return web.Response(body=json.dumps(pages[path](query)).encode(), content_type="application/json")
        except BadRequest as error:
            return web.json_response({"code": "bad_request", "message": str(error), "details": ""}, status=400)

    def _series(self, query: Mapping[str, str]) -> Row:
        since = query.get("min_updated_ts")
        rows = [row for row in self.series.values() if since is None or _after(row.get("last_updated_ts"), since)]
        return {"series": rows}

    def _events(self, query: Mapping[str, str]) -> Row:
        return self._event_page(query, combos=False, most=200)

    def _combos(self, query: Mapping[str, str]) -> Row:
        return self._event_page(query, combos=True, most=200)

    def _event_page(self, query: Mapping[str, str], *, combos: bool, most: int) -> Row:
        wanted = set(filter(None, query.get("tickers", "").split(",")))
        status, since = query.get("status", ""), query.get("min_updated_ts")
        if status and status not in STATUS:
            raise BadRequest("invalid status")
        states: dict[str, set[str]] = {}
        for market in self.markets.values():
            states.setdefault(market["event_ticker"], set()).add(market["status"])
        rows = [
            row for ticker, row in self.events.items()
            if ticker.startswith("KXMVE") == combos
            and (not wanted or ticker in wanted)
            and (not status or states.get(ticker, set()) & STATUS[status])
            and (since is None or _after(row.get("last_updated_ts"), since))
        ]  # fmt: skip
        return self._page("events", rows, query, most)

    def _historical(self, query: Mapping[str, str]) -> Row:
        wanted = set(query.get("tickers", "").split(","))
        rows = [row for row in self.historical.values() if row["ticker"] in wanted]
        return self._page("markets", rows, query, 1000)

    def _markets(self, query: Mapping[str, str]) -> Row:
        status, combos = query.get("status", ""), query.get("mve_filter")
        if status and (status not in STATUS or (status == "paused" and not self.knows_paused)):
            raise BadRequest("invalid status")
        wanted = set(filter(None, query.get("tickers", "").split(",")))
        bounds = self._bounds(query, status)
        rows = [
            row for row in self.markets.values()
            if (not status or row["status"] in STATUS[status])
            and (not wanted or row["ticker"] in wanted)
            and (combos is None or row["ticker"].startswith("KXMVE") == (combos == "only"))
            and all(_after(row.get(field), bound) for field, bound in bounds)
        ]  # fmt: skip
        rows.sort(key=lambda row: (row.get("created_time", ""), row["ticker"]))
        return self._page("markets", rows, query, 1000)

    def _bounds(self, query: Mapping[str, str], status: str) -> list[tuple[str, str]]:
        """The time filters in `query`; BadRequest for those that exclude each other."""
        kinds = [name[4:-3] for name in query if name.startswith("min_") and name.endswith("_ts")]
        if len(kinds) > 1:
            raise BadRequest("timestamp filters are mutually exclusive")
        for kind in kinds:
            if status not in TIMES[kind][1]:
                raise BadRequest(f"{kind} does not go with status {status}")
            others = set(query) - {"min_updated_ts", "mve_filter", "limit", "cursor"}
            if kind == "updated" and (query.get("mve_filter") != "exclude" or others):
                raise BadRequest("min_updated_ts goes with mve_filter=exclude only")
        return [(TIMES[kind][0], query[f"min_{kind}_ts"]) for kind in kinds]

    def _page(self, name: str, rows: list[Row], query: Mapping[str, str], most: int) -> Row:
        limit = int(query.get("limit", "100"))
        if not 0 < limit <= most:
            raise BadRequest("limit")
        start = int(base64.b64decode(query["cursor"])) if "cursor" in query else 0
        more = start + limit < len(rows)
        cursor = base64.b64encode(str(start + limit).encode()).decode() if more or self.endless else ""
        return {name: rows[start : start + limit], "cursor": "MA==" if self.repeat_cursor else cursor}


def _after(text: object, bound: str) -> bool:
    return isinstance(text, str) and datetime.fromisoformat(text).timestamp() > int(bound)


def fill(exchange: ListingExchange, markets: int, per_event: int = 5, series: int = 3) -> Iterable[str]:
    """`markets` open markets in events in series; their tickers."""
    for number in range(series):
        exchange.add_series(f"KX{number}", category=f"Category {number}")
    tickers = []
    for number in range(markets):
        event = f"KX{number // per_event % series}-{number // per_event}"
        if event not in exchange.events:
            exchange.add_event(event, event.partition("-")[0])
        ticker = f"{event}-T{number:06d}"
        exchange.add_market(ticker, event)
        tickers.append(ticker)
    return tickers
