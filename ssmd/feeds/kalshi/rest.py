"""Kalshi's public REST API: markets, events, series, trades and the exchange's state, page by page.

Every request goes through one token bucket and is repeated, with jitter and within a budget, when the exchange is busy
or away. Errors arrive as ssmd's: ConfigError (401, 403), RateLimited (429), Unavailable (5xx, timeouts, no connection),
DataError (anything else that is not what it should be). Bodies are bounded; a cursor that repeats is an error.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
import structlog

from ssmd.errors import ConfigError, DataError, RateLimited, SsmdError, TransientError, Unavailable
from ssmd.feeds.kalshi.throttle import Backoff, TokenBucket
from ssmd.registry.interface import Market

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_TICKERS_BYTES = 6_000
PAGE = 1000
EVENT_PAGE = 200
TIMEOUT_S = 20.0
REQUESTS_PER_S = 20.0
BURST = 60
MAX_TEXT = 300

Query = str | int | bool | None
log = structlog.get_logger(component="kalshi_rest")


class KalshiRest:
    """A client of `base_url` (`https://.../trade-api/v2`); an async context manager that closes what it opened.

    `session` is used and not closed when given. `auth` makes headers from (method, path, Unix milliseconds); without
    it the client is anonymous, which all these endpoints allow.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession | None = None,
        *,
        auth: Callable[[str, str, int], Mapping[str, str]] | None = None,
        bucket: TokenBucket | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = session
        self._owned = session is None
        self._auth = auth
        self._bucket = bucket or TokenBucket(REQUESTS_PER_S, BURST)
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._max_body_bytes = max_body_bytes
        self.malformed = 0
        """Markets left out since the client was made, because they lacked a ticker or were no objects."""

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
        """Markets, page by page. `status` is the filter's word (unopened, open, paused, closed, settled).

        `filters` go into the query as they are (series_ticker, mve_filter, min_updated_ts, ...: Unix seconds).
        """
        for part in [None] if tickers is None else list(_comma_lists(tickers)):
            query = {"status": status, "tickers": part, "limit": PAGE, **filters}
            async for item in self._pages("/markets", "markets", query):
                market = to_market(item)
                if market is None:
                    self.malformed += 1
                    log.warning("market malformed", object=repr(item)[:MAX_TEXT])
                else:
                    yield market

    async def events(self, **filters: Query) -> AsyncIterator[dict[str, Any]]:
        """Events as the exchange gives them, multivariate ones excluded."""
        async for item in self._pages("/events", "events", {"limit": EVENT_PAGE, **filters}):
            yield item

    async def series(self, **filters: Query) -> AsyncIterator[dict[str, Any]]:
        """Series as the exchange gives them."""
        async for item in self._pages("/series", "series", filters):
            yield item

    async def trades(
        self, ticker: str | None = None, min_ts: int | None = None, max_ts: int | None = None, **filters: Query
    ) -> AsyncIterator[dict[str, Any]]:
        """Public trades, newest first; times in Unix seconds."""
        query = {"ticker": ticker, "min_ts": min_ts, "max_ts": max_ts, "limit": PAGE, **filters}
        async for item in self._pages("/markets/trades", "trades", query):
            yield item

    async def exchange_status(self) -> dict[str, Any]:
        """`exchange_active`, `trading_active`, ...: the exchange says so with status 503 and 504 too."""
        body = await self._get("/exchange/status", {}, answer_statuses=frozenset({200, 503, 504}))
        if "exchange_active" not in body:
            raise Unavailable(f"GET {self._base_url}/exchange/status: {_error_text(body)}")
        return body

    async def _pages(self, path: str, name: str, query: Mapping[str, Query]) -> AsyncIterator[Any]:
        seen: set[str] = set()
        cursor = ""
        while True:
            body = await self._get(path, {**query, "cursor": cursor or None})
            items = body.get(name)
            if items is None and name in body:
                items = []  # an empty list of this exchange may be null
            if not isinstance(items, list):
                raise DataError(f"GET {self._base_url}{path}: the answer has no list `{name}`")
            for item in items:
                yield item
            following = body.get("cursor") or ""
            if not following:
                return
            if not isinstance(following, str) or following in seen:
                raise DataError(
                    f"GET {self._base_url}{path}: the cursor {str(following)[:40]!r} came twice after {len(seen)} pages"
                )
            seen.add(following)
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
        what = f"GET {url}"
        if self._session is None:
            self._session = aiohttp.ClientSession()
        headers = {"Accept": "application/json"}
        if self._auth is not None:
            headers |= self._auth("GET", _path_of(url), time.time_ns() // 1_000_000)
        params = {key: _text(value) for key, value in query.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.get(
                url, params=params, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                raw = await self._bounded(response, what)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.InvalidURL):
                raise ConfigError(f"{url!r} is not a URL", "check spec.endpoints.rest") from error
            raise Unavailable(f"{what}: {type(error).__name__} {error}") from error
        body = _parse(raw)
        if status in answer_statuses:
            if isinstance(body, dict):
                return body
            raise (DataError if status == 200 else Unavailable)(f"{what}: status {status}, {_error_text(body, raw)}")
        raise _error(status, f"{what}: status {status}, {_error_text(body, raw)}", retry_after)

    async def _bounded(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        chunks = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            chunks += chunk
            if len(chunks) > self._max_body_bytes:
                raise DataError(f"{what}: the answer is larger than {self._max_body_bytes} bytes")
        return bytes(chunks)


def to_market(item: object) -> Market | None:
    """The registry's market from one of the exchange's objects, which is kept whole; None without a ticker.

    NUL characters, which PostgreSQL cannot store, become U+FFFD.
    """
    if not isinstance(item, dict):
        return None
    raw = _without_nul(item)
    ticker = raw.get("ticker")
    if not isinstance(ticker, str) or not ticker:
        return None
    title = raw.get("title") or raw.get("yes_sub_title") or raw.get("subtitle")
    return Market(
        ticker=ticker,
        event_ticker=_string(raw.get("event_ticker")),
        title=_string(title),
        status=_string(raw.get("status")),
        open_time=_string(raw.get("open_time")) or None,
        close_time=_string(raw.get("close_time")) or None,
        result=_string(raw.get("result")),
        raw=raw,
    )


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return value


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


def _parse(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _error(status: int, message: str, retry_after: str) -> SsmdError:
    if status in (401, 403):
        return ConfigError(message, "check SSMD_KEY_KALSHI_API_KEY and …_API_SECRET_FILE; see: ssmd doctor")
    if status == 429:
        return RateLimited(message, retry_after_s=float(retry_after) if retry_after.isdecimal() else None)
    if status >= 500 or 300 <= status < 400 or status == 408:
        return Unavailable(message)
    return DataError(message)


def _error_text(body: object, raw: bytes = b"") -> str:
    """What an error body says: flat `{"code","message"}`, nested in `error`, `{"error":"..."}`, HTML, nothing."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, str):
            return inner[:MAX_TEXT]
        if isinstance(inner, dict):
            parts = [str(inner[key]) for key in ("code", "message", "details") if inner.get(key)]
            if parts:
                return ": ".join(parts)[:MAX_TEXT]
    text = raw[:MAX_TEXT].decode("utf-8", "replace").strip()
    return repr(text) if text else "an empty body"


def _path_of(url: str) -> str:
    return "/" + url.split("://", 1)[-1].partition("/")[2]


def _text(value: Query) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
