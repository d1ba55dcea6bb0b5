"""`/v1/markets/{ticker}/trades` and `/history`: the past of a market, page by page, honest about what is missing."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from ssmd.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, iso, now_ns
from ssmd.gateway.archived_trades import Hole, time_of
from ssmd.gateway.candles import INTERVALS, Bar, Holes, bars, candle
from ssmd.gateway.cursors import MAX_CURSOR_CHARS, decode_cursor, encode_cursor
from ssmd.gateway.documents import Candle, CandlePage, Missing, TradePage, TradeRow, digits
from ssmd.gateway.lookup import Lookup
from ssmd.gateway.market_view import links
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.routes import TICKER, Ask, Route, choice, moment, whole, words
from ssmd.gateway.trade_history import HOLES_SHOWN, Found, Place, Range, SourceName, TradeHistory, place_of
from ssmd.market.events import Side, Trade
from ssmd.registry.interface import RegistryUnavailable

TRADES_DEFAULT, TRADES_MAX = 50, 1_000
TRADES_DAYS = 31
CANDLES_DEFAULT, CANDLES_MAX = 500, 2_000
SPANS = {"1m": 31, "5m": 92, "1h": 366, "1d": 366}
"""Days that one question may cover, by interval."""
DEFAULT_SPANS = {"1m": timedelta(hours=6), "5m": timedelta(days=1), "1h": timedelta(days=7), "1d": timedelta(days=31)}

FARTHEST_NS = 4_102_444_800 * NS_PER_S  # 2100-01-01: no trade is newer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class TradesEndpoint:
    """The handlers; `history` reads memory and archive."""

    def __init__(self, feed: str, lookup: Lookup, history: TradeHistory, clock: Callable[[], int] = now_ns) -> None:
        self._feed = feed
        self._lookup = lookup
        self._history = history
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        of_market = "/v1/markets/{ticker}"
        cursor = words("cursor", "`next_cursor` of the answer before.", most=MAX_CURSOR_CHARS)
        problems = (400, 403, 404, 413, 503)
        return [
            Route(
                f"{of_market}/trades", self.trades, "read:live", "Its trades",
                answer=TradePage, problems=problems, etag=True,
                description=(
                    "Without `start`: the last trades that memory holds. With it: all from there on, older ones out of "
                    "the archive (scope read:history). Ask on with `cursor` while `next_cursor` is not null; a page "
                    "may be short, or empty, when much of the archive had to be read for it. A trade with an exchange "
                    "time that is more than ten minutes before its receipt (or one after) counts by its receipt."
                ),
                parameters=(
                    TICKER,
                    moment("start", "Trades at this time or later."),
                    moment("end", "Trades before this time; a day: to its end. Without it: now.", end_of_day=True),
                    choice("order", "Newest first, or oldest first.", ("desc", "asc"), "desc"),
                    whole("limit", "Trades of one page.", default=TRADES_DEFAULT, most=TRADES_MAX),
                    cursor,
                ),
            ),
            Route(
                f"{of_market}/history", self.candles, "read:history", "Its candles (OHLCV), computed from its trades",
                answer=CandlePage, problems=problems, etag=True,
                description=(
                    "Start and end are widened to whole intervals. A candle tells whether trades of it may be missing."
                ),
                parameters=(
                    TICKER,
                    choice("interval", "How long a candle is.", tuple(INTERVALS), "1h"),
                    moment("start", "The first candle's time. Without it: 6 hours, 1, 7, 31 days before the end."),
                    moment("end", "Candles before this time; a day: to its end. Without it: now.", end_of_day=True),
                    whole("limit", "Candles of one page.", default=CANDLES_DEFAULT, most=CANDLES_MAX),
                    cursor,
                ),
            ),
        ]  # fmt: skip

    async def trades(self, ask: Ask) -> TradePage:
        """The last trades, or those of a range."""
        ticker: str = ask["ticker"]
        order: Literal["asc", "desc"] = ask["order"]
        newest_first, limit = order == "desc", int(ask["limit"])
        start, end = ask["start"], ask["end"]
        if start is None and (end is not None or ask["cursor"]):
            raise _bad("start", "is missing", "Give start with end and with cursor; without them: the last trades.")
        known = await self._exists(ticker)
        if start is None:
            return await self._last(ticker, order, limit, known)
        _may_read_history(ask)
        question = ["trades", ticker, order, start, end]
        span = _range(start, end, self._clock(), TRADES_DAYS, newest_first)
        if ask["cursor"]:
            span = _beyond(span, decode_cursor(ask["cursor"], question, tuple[int, int, int, str]))
        count = 0

        def enough(trades: list[Trade]) -> bool:
            nonlocal count
            count += len(trades)
            return count > limit

        found = await self._history.find(ticker, span, enough)
        if known is None and not found.trades:
            raise _nobody_knows()
        shown = found.trades[:limit]
        next_place = _next(found, shown, newest_first)
        covered = _covered(span, next_place, newest_first)
        holes = await self._history.holes(ticker, *covered, found.holes)
        cursor = encode_cursor(question, next_place) if next_place else None
        return self._trade_page(ticker, order, shown, covered, cursor, found.source, holes)

    async def _last(self, ticker: str, order: Literal["asc", "desc"], limit: int, known: bool | None) -> TradePage:
        """What memory holds."""
        shown = self._history.last(ticker, limit)
        if known is None and not shown:
            raise _nobody_knows()
        now = self._clock()
        since = min(self._history.memory_since(ticker), now)
        covered = (time_of(shown[-1]) if len(shown) == limit else since), max(since, now)
        holes = await self._history.holes(ticker, *covered, ())
        return self._trade_page(
            ticker, order, shown if order == "desc" else shown[::-1], covered, None, "memory", holes
        )

    def _trade_page(
        self,
        ticker: str,
        order: Literal["asc", "desc"],
        shown: Sequence[Trade],
        covered: tuple[int, int],
        cursor: str | None,
        source: SourceName,
        holes: Sequence[Hole],
    ) -> TradePage:
        return TradePage(
            feed=self._feed,
            ticker=ticker,
            trades=[_row(trade) for trade in shown],
            order=order,
            start=iso(covered[0]),
            end=iso(covered[1]),
            next_cursor=cursor,
            source=source,
            complete=not holes,
            missing=_missing(holes),
            links=links(ticker),
        )

    async def candles(self, ask: Ask) -> CandlePage:
        """Candles by time."""
        ticker: str = ask["ticker"]
        interval: Literal["1m", "5m", "1h", "1d"] = ask["interval"]
        length, limit, now = INTERVALS[interval], int(ask["limit"]), self._clock()
        known = await self._exists(ticker)
        question = ["history", ticker, interval, ask["start"], ask["end"]]
        span = _candle_range(ask, question, now)
        buckets: set[int] = set()

        def enough(trades: list[Trade]) -> bool:
            buckets.update(time_of(trade) // length for trade in trades)
            return len(buckets) > limit

        found = await self._history.find(ticker, span, enough)
        if known is None and not found.trades:
            raise _nobody_knows()
        whole_bars = await asyncio.to_thread(bars, found.trades, length)
        shown, next_ns = _page(whole_bars, found, length, limit)
        if next_ns is not None and next_ns <= span.start_ns:
            raise _interval_too_long(interval)
        end_ns = span.end_ns if next_ns is None else next_ns
        holes = await self._history.holes(ticker, span.start_ns, end_ns, found.holes)
        return CandlePage(
            feed=self._feed,
            ticker=ticker,
            interval=interval,
            start=iso(span.start_ns),
            end=iso(end_ns),
            candles=await _documents(shown, length, holes, now),
            next_cursor=None if next_ns is None else encode_cursor(question, next_ns),
            source=found.source,
            complete=not holes,
            missing=_missing(holes),
            links=links(ticker),
        )

    async def _exists(self, ticker: str) -> bool | None:
        """True, or None when the database is away and nothing was heard; ApiProblem 404 when it does not exist."""
        try:
            await self._lookup.require(ticker)
        except RegistryUnavailable:
            return None
        return True


async def _documents(shown: Sequence[Bar], length: int, holes: Sequence[Hole], now: int) -> list[Candle]:
    def make() -> list[Candle]:
        marked = Holes(holes)
        return [candle(bar, length, marked, now) for bar in shown]

    return await asyncio.to_thread(make)


class _Page(NamedTuple):
    shown: list[Bar]
    next_ns: int | None  # where the next page begins


def _page(found_bars: list[Bar], found: Found, length: int, limit: int) -> _Page:
    """The bars of the page; those behind what was read are not whole."""
    if len(found_bars) > limit and (found.reached_ns is None or found_bars[limit].start_ns < found.reached_ns):
        return _Page(found_bars[:limit], found_bars[limit].start_ns)
    if found.reached_ns is None:
        return _Page(found_bars, None)
    whole_until = found.reached_ns // length * length
    return _Page([bar for bar in found_bars if bar.start_ns < whole_until][:limit], whole_until)


def _range(start: datetime, end: datetime | None, now: int, days: int, newest_first: bool, interval: str = "") -> Range:
    """The times asked for. The end of a day is the next midnight."""
    start_ns = max(0, _ns(start))
    end_ns = now + 1 if end is None else min(_ns(end) + (1_000 if end.microsecond == 999_999 else 0), FARTHEST_NS)
    if end_ns <= start_ns:
        raise _bad("start", "is not before the end", "Give a start before the end (without end: now).")
    if end_ns - start_ns > days * NS_PER_DAY:
        longer = [name for name, most in SPANS.items() if interval and most > days]
        step = f"Ask for a shorter time, or for interval={longer[0]}." if longer else "Ask for one part after another."
        of_interval = f" of interval {interval}" if interval else ""
        raise ApiProblem(
            400, "range_too_long", f"from start to end are more than {days} days{of_interval}", step, parameter="start"
        )
    return Range(start_ns, end_ns, newest_first)


def _candle_range(ask: Ask, question: list[object], now: int) -> Range:
    """The times of the page, in whole intervals."""
    interval: str = ask["interval"]
    length, start, end = INTERVALS[interval], ask["start"], ask["end"]
    if start is None:
        if ask["cursor"]:
            raise _bad("start", "is missing", "Give the start of the answer before with its cursor.")
        start = max(end or _time(now), _EPOCH + DEFAULT_SPANS[interval]) - DEFAULT_SPANS[interval]
    span = _range(start, end, now, SPANS[interval], False, interval)
    span = Range(span.start_ns // length * length, -(-span.end_ns // length) * length)
    if ask["cursor"]:
        begin = decode_cursor(ask["cursor"], question, int)
        if not span.start_ns <= begin < span.end_ns or begin % length:
            raise _bad("cursor", "is out of the range", "Begin again without it.")
        span = span._replace(start_ns=begin)
    return span


def _beyond(span: Range, place: Place) -> Range:
    at = place[0]
    if not span.start_ns <= at <= span.end_ns:
        raise _bad("cursor", "is out of the range", "Begin again without it.")
    if span.newest_first:
        return span._replace(end_ns=min(span.end_ns, at + 1), after=place)
    return span._replace(start_ns=at, after=place)


def _next(found: Found, shown: list[Trade], newest_first: bool) -> Place | None:
    """Where the next page begins: beyond the last trade shown, or where reading stopped. None: nothing is left."""
    if len(found.trades) > len(shown):
        return place_of(shown[-1])
    if found.reached_ns is None:
        return None
    return found.reached_ns + newest_first, -1, -1, ""


def _covered(span: Range, next_place: Place | None, newest_first: bool) -> tuple[int, int]:
    """The times that the page says everything about."""
    if next_place is None:
        return span.start_ns, span.end_ns
    at = max(span.start_ns, min(span.end_ns, next_place[0]))
    return (at, span.end_ns) if newest_first else (span.start_ns, at)


def _row(trade: Trade) -> TradeRow:
    return TradeRow(
        price=digits(trade.price),
        size=digits(trade.size),
        side="buy" if trade.side is Side.BUY else "sell",
        ts=(trade.exchange_ns or trade.received_ns) // NS_PER_MS,
        trade_id=trade.trade_id,
        block=trade.block,
    )


def _missing(holes: Sequence[Hole]) -> list[Missing]:
    """As documents; when they are very many, the last one stands for the rest."""
    found = [Missing(hole.from_ns // NS_PER_MS, -(-hole.to_ns // NS_PER_MS), hole.reason) for hole in holes]
    if len(found) <= HOLES_SHOWN:
        return found
    rest = found[HOLES_SHOWN - 1 :]
    last = Missing(rest[0].from_ts, max(hole.to_ts for hole in rest), f"{len(rest)}_more")
    return [*found[: HOLES_SHOWN - 1], last]


def _may_read_history(ask: Ask) -> None:
    if not ask.caller.may("read:history"):
        detail = "this key may not read what is archived"
        step = "Leave out start for the last trades, or use a key with the scope read:history."
        raise ApiProblem(403, "scope_missing", detail, step, scope="read:history")


def _bad(parameter: str, what: str, step: str) -> ApiProblem:
    return ApiProblem(400, "bad_parameter", f"parameter {parameter!r} {what}", step, parameter=parameter)


def _nobody_knows() -> RegistryUnavailable:
    return RegistryUnavailable("nothing was found, and whether the market exists cannot be said now")


def _interval_too_long(interval: str) -> ApiProblem:
    detail = f"one candle of {interval} needs more of the archive than one request may read"
    step = "Ask for a shorter interval; a day that is compacted needs much less."
    return ApiProblem(413, "too_much_to_read", detail, step, parameter="interval")


def _ns(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND * 1_000


def _time(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1_000)
