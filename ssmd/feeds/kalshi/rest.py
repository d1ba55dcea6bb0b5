"""Kalshi's public REST API: markets, events, series, trades and the exchange's state, page by page.

Every request goes through one token bucket and is repeated, with jitter and within a budget, when the exchange is busy
or away. Errors arrive as ssmd's: ConfigError (401, 403), RateLimited (429), Unavailable (5xx, timeouts, no connection),
DataError (anything else that is not what it should be), without the passwords of URLs. Bodies and lists are bounded; a
cursor that repeats is an error.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import aiohttp
import structlog

from ssmd.config.values import masked
from ssmd.errors import ConfigError, DataError, TransientError, Unavailable
from ssmd.feeds.kalshi.market_fields import to_event, to_market, to_series
from ssmd.feeds.kalshi.rest_answers import error_of, error_text, fault_of, parse_body
from ssmd.feeds.kalshi.throttle import Backoff, TokenBucket
from ssmd.registry.interface import ListedEvent, Market, Series

MAX_TICKERS_BYTES = 6_000
PAGE = 1000
EVENT_PAGE = 200
REQUESTS_PER_S = 20.0
BURST = 60

Query = str | int | bool | None
T = TypeVar("T")
log = structlog.get_logger(component="kalshi_rest")


class Limits(NamedTuple):
    """What no good answer exceeds: bytes of a body, pages of a list, seconds for one answer.

    No list has so many pages: a million markets, even when they come a tenth full.
    """

    body_bytes: int = 64 * 1024 * 1024
    pages: int = 10_000
    timeout_s: float = 20.0


class KalshiRest:
    """A client of `base_url` (`https://.../trade-api/v2`); an async context manager that closes what it opened.

    `session` is used and not closed when given. `auth` makes headers from (method, path, Unix milliseconds); without
    it the client is anonymous, which all these endpoints allow. `environment` is for errors. Answers are decoded in
    threads: whoever captures frames on this loop does not wait for a page of a thousand markets.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession | None = None,
        *,
        auth: Callable[[str, str, int], Mapping[str, str]] | None = None,
        environment: str = "",
        bucket: TokenBucket | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        limits: Limits = Limits(),  # noqa: B008  (a value)
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._said_url = masked(self._base_url)
        self._session = session
        self._owned = session is None
        self._auth = auth
        self._bucket = bucket or TokenBucket(REQUESTS_PER_S, BURST)
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._limits = limits
        self._environment = environment
        self.malformed = 0
        """Markets, events and series left out since the client was made: they lacked a ticker or were no objects."""

    async def __aenter__(self) -> "KalshiRest":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the HTTP session if this client opened it."""
        if self._owned and self._session is not None:
            await self._session.close()
            self._session = None

    async def markets(
        self, status: str | None = None, tickers: Sequence[str] | None = None, **filters: Query
    ) -> AsyncIterator[Market]:
        """Markets, one by one; see `market_pages`."""
        async for page in self.market_pages(status, tickers, **filters):
            for market in page:
                yield market

    async def market_pages(
        self, status: str | None = None, tickers: Sequence[str] | None = None, **filters: Query
    ) -> AsyncGenerator[list[Market], None]:
        """Markets, page by page. `status` is the filter's word (unopened, open, paused, closed, settled).

        `filters` go into the query as they are (series_ticker, mve_filter, min_updated_ts, ...: Unix seconds).
        """
        for part in [None] if tickers is None else list(_comma_lists(tickers)):
            query = {"status": status, "tickers": part, "limit": PAGE, **filters}
            async for items in self._pages("/markets", "markets", query):
                yield await self._understood(items, to_market, "market")

    async def historical_markets(self, tickers: Sequence[str]) -> AsyncIterator[Market]:
        """Those of `tickers` that settled so long ago that `markets` no longer gives them."""
        for part in _comma_lists(tickers):
            query: dict[str, Query] = {"tickers": part, "limit": PAGE}
            async for items in self._pages("/historical/markets", "markets", query):
                for market in await self._understood(items, to_market, "market"):
                    yield market

    async def event_pages(
        self, tickers: Sequence[str] | None = None, *, multivariate: bool = False, **filters: Query
    ) -> AsyncGenerator[list[ListedEvent], None]:
        """Events, page by page: multivariate ones (combos), or all others."""
        path = "/events/multivariate" if multivariate else "/events"
        for part in [None] if tickers is None else list(_comma_lists(tickers)):
            query: dict[str, Query] = {"limit": EVENT_PAGE, "tickers": part, **filters}
            async for items in self._pages(path, "events", query):
                yield await self._understood(items, to_event, "event", "event_ticker")

    async def series(self, **filters: Query) -> list[Series]:
        """All series: the exchange gives them in one answer."""
        return [
            each
            async for items in self._pages("/series", "series", filters)
            for each in await self._understood(items, to_series, "series")
        ]

    async def trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None, **filters: Query
    ) -> AsyncIterator[dict[str, Any]]:
        """Public trades, newest first; times in Unix seconds."""
        query = {"ticker": ticker, "min_ts": min_ts, "max_ts": max_ts, "limit": PAGE, **filters}
        async for items in self._pages("/markets/trades", "trades", query):
            for item in items:
                yield item

    async def exchange_status(self) -> dict[str, Any]:
        """`exchange_active`, `trading_active`, ...: the exchange says so with status 503 and 504 too."""
        body = await self._get("/exchange/status", {}, answer_statuses=frozenset({200, 503, 504}))
        if "exchange_active" not in body:
            raise Unavailable(masked(f"GET {self._said_url}/exchange/status: {error_text(body)}"))
        return body

    async def _understood(
        self, items: list[Any], read: Callable[[object], T | None], what: str, name: str = "ticker"
    ) -> list[T]:
        """`items` as the registry's values; what is none is counted and logged, and the rest goes on."""
        values = await asyncio.to_thread(lambda: [read(item) for item in items])
        found = [value for value in values if value is not None]
        if len(found) < len(items):
            self.malformed += len(items) - len(found)
            first = fault_of(items[values.index(None)], name)
            log.warning("malformed", what=what, objects=len(items) - len(found), **first)
        return found

    async def _pages(self, path: str, name: str, query: Mapping[str, Query]) -> AsyncIterator[list[Any]]:
        seen: set[str] = set()
        cursor = ""
        while True:
            body = await self._get(path, {**query, "cursor": cursor or None})
            items = body.get(name)
            if items is None and name in body:
                items = []  # an empty list of this exchange may be null
            if not isinstance(items, list):
                raise DataError(f"GET {self._said_url}{path}: the answer has no list `{name}`", self._address_hint)
            yield items
            following = body.get("cursor") or ""
            if not following:
                return
            if not isinstance(following, str) or following in seen:
                raise DataError(
                    f"GET {self._said_url}{path}: the cursor {str(following)[:40]!r} came twice after {len(seen)} pages"
                )
            seen.add(following)
            if len(seen) >= self._limits.pages:
                raise DataError(
                    f"GET {self._said_url}{path}: the list has no end after {len(seen):,} pages",
                    "The exchange gives a new cursor with every page; see its status page, and run it again later.",
                )
            cursor = following

    async def _get(
        self, path: str, query: Mapping[str, Query], answer_statuses: frozenset[int] = frozenset({200})
    ) -> dict[str, Any]:
        """The object at `path`, after as many attempts as it takes and the budget allows."""
        started = time.monotonic()
        attempt = 1
        while True:
            await self._bucket.take()
            try:
                return await self._attempt(path, query, answer_statuses)
            except TransientError as error:
                wait = self._backoff.wait_s(attempt, time.monotonic() - started, error.retry_after_s)
                if wait is None:
                    error.hint = f"tried {attempt} times; see `ssmd status` and the exchange's status page"
                    raise
                log.info("request repeated", path=path, attempt=attempt, wait_s=round(wait, 3), reason=error.message)
                await self._sleep(wait)
                attempt += 1

    async def _attempt(self, path: str, query: Mapping[str, Query], answer_statuses: frozenset[int]) -> dict[str, Any]:
        url = self._base_url + path
        what = f"GET {self._said_url}{path}"
        if self._session is None:
            self._session = aiohttp.ClientSession()
        headers = {"Accept": "application/json"}
        if self._auth is not None:
            headers |= self._auth("GET", _path_of(url), time.time_ns() // 1_000_000)
        params = {key: _text(value) for key, value in query.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=self._limits.timeout_s)
        try:
            async with self._session.get(
                url, params=params, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                raw = await self._bounded(response, what)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except aiohttp.InvalidURL as error:
            raise ConfigError(f"{masked(url)!r} is not a URL", "check spec.endpoints.rest") from error
        except TimeoutError as error:
            raise Unavailable(f"{what}: no whole answer within {self._limits.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(masked(f"{what}: {str(error) or type(error).__name__}")) from error
        body = await asyncio.to_thread(parse_body, raw)
        if status in answer_statuses and isinstance(body, dict):
            return body
        said = masked(f"{what}: status {status}, {error_text(body, raw)}")
        if status == 200:
            raise DataError(said, self._address_hint)
        if status in answer_statuses:
            raise Unavailable(said)
        raise error_of(status, said, retry_after, self._login_hint)

    @property
    def _address_hint(self) -> str:
        where = f"spec.endpoints.rest of {self._environment}" if self._environment else "spec.endpoints.rest"
        return (
            f"Is this the exchange's address ({where}, or --rest)? Its own: ssmd feed show kalshi. Then run it again."
        )

    @property
    def _login_hint(self) -> str:
        if self._auth is None:
            return f"No key is needed here, and the exchange refuses us all the same. {self._address_hint}"
        named = self._environment or "ENV"
        return f"Run: ssmd key set {named} kalshi (or set SSMD_KEY_KALSHI_API_KEY and …_API_SECRET_FILE)"

    async def _bounded(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        chunks = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            chunks += chunk
            if len(chunks) > self._limits.body_bytes:
                raise DataError(f"{what}: the answer is larger than {self._limits.body_bytes} bytes")
        return bytes(chunks)


def _comma_lists(tickers: Sequence[str]) -> list[str]:
    """`tickers` joined by commas, in pieces that fit into a URL. DataError for a ticker with a comma."""
    pieces: list[list[str]] = [[]]
    size = 0
    for ticker in tickers:
        if "," in ticker:
            raise DataError(f"ticker {ticker!r} cannot be asked for: it holds a comma")
        if pieces[-1] and size + len(ticker) > MAX_TICKERS_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(ticker)
        size += len(ticker) + 1
    return [",".join(piece) for piece in pieces if piece]


def _path_of(url: str) -> str:
    return "/" + url.split("://", 1)[-1].partition("/")[2]


def _text(value: Query) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
