"""The client: live events to iterate over, and the past as tables."""

import asyncio
import os
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar

import msgspec

from ssmd.client.address import Address
from ssmd.client.books import AllBooks, Book
from ssmd.client.documents import Candle, CandlePage, Market, MarketPage, Missing, Page, TradePage
from ssmd.client.errors import GatewayError, IncompleteData, printable
from ssmd.client.events import MarketState, OrderBook, Trade
from ssmd.client.following import Wanted
from ssmd.client.requesting import Requests, in_path, not_understood
from ssmd.client.rows import Rows, windows
from ssmd.client.snapshots import take_snapshot
from ssmd.client.stream import OnGap, Stream
from ssmd.wire.requests import ALL_SYMBOLS, CHANNELS, DEFAULT_INTERVAL_MS, INTERVALS_MS, MAX_SYMBOLS, MODES, Mode

URL_VARIABLE = "SSMD_CLIENT_URL"
DEFAULT_URL = "http://127.0.0.1:18080"
TIMEOUT_S = 60.0
WAITING = 65_536
PAGE = 1_000
TRADES_DAYS = 31
CANDLE_DAYS = {"1m": 31, "5m": 92, "1h": 366, "1d": 366}
"""What one question to the gateway may cover."""

Time: TypeAlias = str | date | datetime
Interval: TypeAlias = Literal["1m", "5m", "1h", "1d"]


R = TypeVar("R", bound=msgspec.Struct)


class Client:
    """A gateway's client: `stream`, `snapshot` and `query` are asynchronous, everything else blocks.

    What blocks works in an event loop that runs, too (Jupyter). `url` and `key` come from the variables SSMD_CLIENT_URL
    (else http://127.0.0.1:18080) and SSMD_CLIENT_KEY where they are not given. `ca_file` has the certificates that a
    gateway with one of its own is checked against. `timeout_s` is for one answer of what blocks. Errors are
    GatewayError, GatewayAway and NotAllowed.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        ca_file: str | Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.books = AllBooks()
        self._address = Address(url or os.environ.get(URL_VARIABLE) or DEFAULT_URL, key, ca_file)
        self._requests = Requests(self._address, timeout_s)
        self._timeout_s = timeout_s
        self._streams: list[Stream] = []

    def __repr__(self) -> str:
        return f"Client({str(self._address)!r})"

    # --- live ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for stream in list(self._streams):
            await stream.aclose()
        self.close()

    def stream(
        self,
        *symbols: str | Iterable[str],
        channels: Iterable[str] = CHANNELS,
        mode: Mode = "realtime",
        interval_ms: int | None = None,
        on_gap: OnGap | None = None,
        max_waiting: int = WAITING,
        patience_s: float | None = None,
    ) -> Stream:
        """Iterate over the events of tickers, or of all markets (`*`). It connects again by itself, and goes on.

        `channels`: trade, orderbook, ticker, status. `mode` conflated: what is latest every `interval_ms`; latest: the
        whole state every `interval_ms` (1,000). What is missing comes as a Gap, and `on_gap` (a function or a coroutine
        function) is called with it before. `max_waiting`: events that may wait for a slow program. `patience_s`: how
        long a gateway may be away before GatewayAway; None: 5 s at the start, later for ever.
        """
        wanted = _wanted(symbols, channels, mode, interval_ms)
        if max_waiting < 1:
            raise GatewayError(f"max_waiting cannot be {max_waiting}", "Give a number of events.")
        stream = Stream(
            self._address, wanted, on_gap=on_gap, max_waiting=max_waiting, patience_s=patience_s,
            poll_s=(interval_ms or 1_000) / 1_000, forget=self._forget,
        )  # fmt: skip
        self._streams.append(stream)
        self.books.parts.append(stream.books)
        return stream

    async def snapshot(self, *symbols: str | Iterable[str]) -> dict[str, MarketState]:
        """Book, last trade, quote and status of tickers now; those of which nothing is known are left out."""
        wanted = _wanted(symbols, CHANNELS, "latest", None)
        return await take_snapshot(self._address, wanted.symbols, self._timeout_s)

    async def query(self, question: str) -> dict[str, Any]:
        """Markets for a question in words: `understood`, `interpretation`, `results`, `suggestions`."""
        return await asyncio.to_thread(self.ask, question)

    def _forget(self, stream: Stream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self.books.parts.remove(stream.books)

    # --- the past, and the state --------------------------------------------------------------------------------------

    def trades(
        self,
        ticker: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        order: Literal["asc", "desc"] = "asc",
        limit: int | None = None,
    ) -> Rows[Trade]:
        """The trades of a market from `start` until before `end` (a day: to its end; None: now), each once.

        Without `start`: the last ones that the gateway has in memory. Texts and times without a zone are UTC. When
        something is known to be missing, a warning (IncompleteData) says so.
        """
        path = f"/v1/markets/{in_path(ticker)}/trades"
        return self._rows(TradePage, path, _range(start, end, TRADES_DAYS, order), limit, order=order)

    def history(
        self,
        ticker: str,
        interval: Interval = "1h",
        start: Time | None = None,
        end: Time | None = None,
        *,
        limit: int | None = None,
    ) -> Rows[Candle]:
        """Candles (OHLCV) of 1m, 5m, 1h or 1d by time; intervals without a trade have none."""
        path = f"/v1/markets/{in_path(ticker)}/history"
        spans = _range(start, end, CANDLE_DAYS.get(interval, 31), "asc")
        return self._rows(CandlePage, path, spans, limit, interval=interval)

    def markets(self, search: str | None = None, *, limit: int | None = None, **filters: str) -> Rows[Market]:
        """Markets by ticker. `search`: words of the title; filters: status, category, series, event, result, listed,
        close_after, close_before."""
        spans: list[dict[str, str]] = [{}]
        return self._rows(MarketPage, "/v1/markets", spans, limit, q=search, **filters)

    def market(self, ticker: str) -> dict[str, Any]:
        """One market with everything that is known of it; decimals are exact."""
        return self._requests.document(f"/v1/markets/{in_path(ticker)}")

    def orderbook(self, ticker: str, depth: int = 1_000) -> Book:
        """The book now."""
        path = f"/v1/markets/{in_path(ticker)}/orderbook"
        body = self._requests.get(path, depth=depth)
        try:
            update = msgspec.json.decode(body, type=OrderBook)
            stale = msgspec.json.decode(body)["stale"]
        except (msgspec.MsgspecError, KeyError, UnicodeError):
            raise not_understood(self._address, path) from None
        book = Book(update.ticker)
        book.apply(update)
        book.said = "stale" if stale else "live"
        return book

    def health(self) -> dict[str, Any]:
        """How the gateway and everything that it needs are."""
        return self._requests.document("/v1/health")

    def condition(self, feed: str, day: Time) -> dict[str, Any]:
        """May a day's data be used as it is, and why not: `condition`, and `days` with their reasons."""
        return self._requests.document("/v1/meta/condition", feed=feed, date=moment_of(day).date().isoformat())

    def ask(self, question: str) -> dict[str, Any]:
        """As `query`, but blocking."""
        return self._requests.document("/v1/query", q=question)

    def close(self) -> None:
        """Close the connection that blocking calls keep; the next one opens it again."""
        self._requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _rows(
        self, page_type: type[Page[R]], path: str, spans: Sequence[dict[str, str]], limit: int | None, **query: Any
    ) -> Rows[R]:
        """All pages of all spans."""
        rows: list[R] = []
        missing: list[Missing] = []
        complete = True
        for span in spans:
            cursor = None
            while limit is None or len(rows) < limit:
                size = PAGE if limit is None else min(PAGE, limit - len(rows))
                body = self._requests.get(path, **query, **span, limit=size, cursor=cursor)
                try:
                    page = msgspec.json.decode(body, type=page_type)
                except (msgspec.MsgspecError, UnicodeError, RecursionError, ArithmeticError):
                    raise not_understood(self._address, path) from None
                rows += page.rows()
                missing += page.missing
                complete = complete and page.complete and not page.stale
                cursor = page.next_cursor
                if cursor is None:
                    break
        if not complete:
            reasons = ", ".join(sorted({part.reason for part in missing})) or "the gateway's database is away"
            text = f"something is missing among these {len(rows)} rows ({printable(reasons)}); .missing says what"
            warnings.warn(text, IncompleteData, stacklevel=3)
        return Rows(page_type.row_type(), rows, missing=missing, complete=complete)


def _wanted(
    symbols: Sequence[str | Iterable[str]], channels: Iterable[str], mode: str, interval_ms: int | None
) -> Wanted:
    """A subscription that makes sense."""
    names = tuple(dict.fromkeys(name for part in symbols for name in ([part] if isinstance(part, str) else part)))
    if not 1 <= len(names) <= MAX_SYMBOLS:
        raise GatewayError(
            f"a stream has 1 to {MAX_SYMBOLS} symbols, not {len(names)}", 'Use "*" for all, or several streams.'
        )
    listed = (channels,) if isinstance(channels, str) else tuple(channels)
    wrong = [channel for channel in listed if channel not in CHANNELS]
    if wrong or not listed:
        raise GatewayError(f"there is no channel {wrong[:3]!a}", f"Use some of {', '.join(CHANNELS)}.")
    if mode not in MODES:
        raise GatewayError(f"there is no mode {mode!a}", f"Use one of {', '.join(MODES)}.")
    if interval_ms is not None and (mode == "realtime" or not INTERVALS_MS[0] <= interval_ms <= INTERVALS_MS[1]):
        raise GatewayError(
            f"interval_ms cannot be {interval_ms} in mode {mode}",
            f"It belongs to conflated and latest: {INTERVALS_MS[0]} to {INTERVALS_MS[1]}.",
        )
    if mode == "latest" and ALL_SYMBOLS in names:
        raise GatewayError("mode latest and snapshots need single tickers, not *", "Name up to 1,024 tickers.")
    ordered = tuple(channel for channel in CHANNELS if channel in listed)
    return Wanted(names, ordered, mode, (interval_ms or DEFAULT_INTERVAL_MS) if mode == "conflated" else 0)


def _range(start: Time | None, end: Time | None, days: int, order: str) -> list[dict[str, str]]:
    """The questions that cover a range, none longer than the gateway answers."""
    until = None if end is None else moment_of(end, end_of_day=True)
    if start is None:
        return [{} if until is None else {"end": until.isoformat()}]
    pieces = windows(moment_of(start), until, days)
    asked = [{"start": a.isoformat()} | ({} if b is None else {"end": b.isoformat()}) for a, b in pieces]
    return asked if order == "asc" else asked[::-1]


def moment_of(when: Time, *, end_of_day: bool = False) -> datetime:
    """A time in UTC; a day is its beginning, or its end. GatewayError when it is no time."""
    found: date | datetime
    try:
        if isinstance(when, str):
            found = date.fromisoformat(when) if len(when) == len("2026-11-22") else datetime.fromisoformat(when)
        else:
            found = when
        if not isinstance(found, datetime):
            day = datetime(found.year, found.month, found.day, tzinfo=UTC)
            return day + timedelta(days=1) if end_of_day else day
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise GatewayError(f"{str(when)[:60]!a} is not a time", "Give 2026-11-22, or 2026-11-22T16:00:00Z.") from None
