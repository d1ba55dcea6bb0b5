"""Candles (OHLCV) out of trades, in exact integers."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssmd.clock import NS_PER_MS, NS_PER_S
from ssmd.gateway.archived_trades import Hole, time_of
from ssmd.gateway.documents import Candle, digits, exact
from ssmd.market.events import Trade

INTERVALS = {"1m": 60 * NS_PER_S, "5m": 300 * NS_PER_S, "1h": 3_600 * NS_PER_S, "1d": 86_400 * NS_PER_S}


class Bar(NamedTuple):
    """The trades of one interval, prices and sizes in millionths."""

    start_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    vwap: int
    block_trades: int
    block_volume: int


def bars(trades: Iterable[Trade], interval_ns: int) -> list[Bar]:
    """The bars of trades that are in order of time; intervals without a trade have none."""
    found: list[Bar] = []
    held: list[Trade] = []
    start = -1
    for trade in trades:
        begin = time_of(trade) // interval_ns * interval_ns
        if begin != start and held:
            found.append(_bar(start, held))
            held = []
        start = begin
        held.append(trade)
    if held:
        found.append(_bar(start, held))
    return found


def _bar(start_ns: int, trades: Sequence[Trade]) -> Bar:
    prices = [trade.price for trade in trades]
    volume = sum(trade.size for trade in trades)
    turnover = sum(trade.price * trade.size for trade in trades)
    blocks = [trade.size for trade in trades if trade.block]
    return Bar(
        start_ns, prices[0], max(prices), min(prices), prices[-1], volume, len(trades),
        _rounded(turnover, volume) if volume else prices[-1], len(blocks), sum(blocks),
    )  # fmt: skip


def _rounded(dividend: int, divisor: int) -> int:
    """Half to even."""
    whole, rest = divmod(dividend, divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))


class Holes:
    """Times of which something may be missing, for many questions."""

    def __init__(self, holes: Iterable[Hole]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for hole in sorted(holes):
            if self._ends and hole.from_ns <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], hole.to_ns)
            else:
                self._starts.append(hole.from_ns)
                self._ends.append(hole.to_ns)

    def touch(self, from_ns: int, before_ns: int) -> bool:
        """Is there one in the time from `from_ns` to before `before_ns`?"""
        at = bisect_left(self._ends, from_ns)
        return at < len(self._starts) and self._starts[at] < before_ns


def candle(bar: Bar, interval_ns: int, holes: Holes, now_ns: int) -> Candle:
    """The bar as a document. `gap`: something may be missing in its interval."""
    end_ns = bar.start_ns + interval_ns
    return Candle(
        ts=bar.start_ns // NS_PER_MS,
        open=digits(bar.open),
        high=digits(bar.high),
        low=digits(bar.low),
        close=digits(bar.close),
        volume=digits(bar.volume),
        trades=bar.trades,
        vwap=digits(bar.vwap),
        gap=holes.touch(bar.start_ns, end_ns),
        forming=end_ns > now_ns,
        block_trades=bar.block_trades,
        block_volume=exact(bar.block_volume) if bar.block_trades else None,
    )
