"""Candles are what anyone computes from the same trades in Decimal."""

from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ssmd.gateway.archived_trades import Hole, time_of
from ssmd.gateway.candles import INTERVALS, Holes, bars, candle
from ssmd.market.events import SCALE, Side, Trade

MINUTE = INTERVALS["1m"]
START = 1_700_000_040_000_000_000


def trade(at_ns: int, price: int, size: int, block: bool = False) -> Trade:
    return Trade(at_ns, at_ns, "T", "c", 1, 0, price, size, Side.BUY, f"{at_ns}-{price}-{size}", block)


some_trades = st.lists(
    st.builds(
        trade,
        st.integers(START, START + 200 * MINUTE),
        st.integers(1, SCALE),
        st.integers(1, 10**12),
        st.booleans(),
    ),
    max_size=60,
)


@given(some_trades, st.sampled_from(sorted(INTERVALS)))
def test_bars_are_those_computed_in_decimal(trades: list[Trade], interval: str) -> None:
    length = INTERVALS[interval]
    trades.sort(key=time_of)
    buckets: dict[int, list[Trade]] = defaultdict(list)
    for its in trades:
        buckets[its.exchange_ns // length].append(its)
    found = bars(trades, length)
    assert [bar.start_ns for bar in found] == [n * length for n in sorted(buckets)]
    for bar in found:
        held = buckets[bar.start_ns // length]
        assert (bar.open, bar.close) == (held[0].price, held[-1].price)
        assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert (bar.low, bar.high) == (min(t.price for t in held), max(t.price for t in held))
        assert (bar.volume, bar.trades) == (sum(t.size for t in held), len(held))
        assert (bar.block_trades, bar.block_volume) == (
            sum(t.block for t in held),
            sum(t.size for t in held if t.block),
        )
        turnover = sum((Decimal(t.price) * t.size for t in held), Decimal(0))
        assert bar.vwap == int((turnover / bar.volume).quantize(Decimal(1), ROUND_HALF_EVEN))
        assert bar.low <= bar.vwap <= bar.high


@given(some_trades)
def test_longer_candles_are_made_of_shorter_ones(trades: list[Trade]) -> None:
    trades.sort(key=time_of)
    hours = {bar.start_ns: bar for bar in bars(trades, INTERVALS["1h"])}
    for start, hour in hours.items():
        minutes = [bar for bar in bars(trades, MINUTE) if start <= bar.start_ns < start + INTERVALS["1h"]]
        assert (hour.open, hour.close) == (minutes[0].open, minutes[-1].close)
        assert hour.high == max(bar.high for bar in minutes)
        assert (hour.volume, hour.trades) == (sum(b.volume for b in minutes), sum(b.trades for b in minutes))


def test_a_candle_is_printed_exactly() -> None:
    (bar,) = bars([trade(START, 449_999, 2_500_000), trade(START + 1, 450_000, 1, block=True)], MINUTE)
    shown = msgspec.json.encode(candle(bar, MINUTE, Holes([]), START + MINUTE))
    assert shown == (
        b'{"ts":1700000040000,"open":0.449999,"high":0.45,"low":0.449999,"close":0.45,"volume":2.500001,"trades":2,'
        b'"vwap":0.449999,"gap":false,"block_trades":1,"block_volume":0.000001}'
    )


def test_a_hole_marks_the_candles_that_it_touches_and_no_other() -> None:
    (bar,) = bars([trade(START, 450_000, SCALE)], MINUTE)
    for from_ns, to_ns, touched in (
        (START - 5, START - 1, False),
        (START - 5, START, True),
        (START + 7, START + 7, True),
        (START + MINUTE - 1, START + 2 * MINUTE, True),
        (START + MINUTE, START + 2 * MINUTE, False),
    ):
        far = [
            Hole(START - 10 * MINUTE, START - 9 * MINUTE, "gap"),
            Hole(START + 9 * MINUTE, START + 99 * MINUTE, "gap"),
        ]
        holes = Holes([*far, Hole(from_ns, to_ns, "gap")])
        assert candle(bar, MINUTE, holes, START).gap is touched


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12), st.integers(0, 70), st.integers(1, 10))
def test_holes_are_found_as_when_each_is_looked_at(spans: list[tuple[int, int]], start: int, length: int) -> None:
    holes = [Hole(at, at + size, "gap") for at, size in spans]
    expected = any(hole.from_ns < start + length and hole.to_ns >= start for hole in holes)
    assert Holes(holes).touch(start, start + length) is expected
