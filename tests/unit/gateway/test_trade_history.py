"""Pages of trades: together they are every trade once, in order, however the pieces arrive."""

from hypothesis import given
from hypothesis import strategies as st

from ssmd.gateway.archived_trades import AHEAD_NS, LATE_NS, Step, time_of
from ssmd.gateway.board import Board
from ssmd.gateway.trade_history import Gathered, Range, place_of
from ssmd.market.events import SCALE, Side, Trade
from tests.unit.gateway.events import trade as live

NOON = 1_700_000_000_000_000_000
HOUR = 3_600 * 10**9


def trade(received_ns: int, lag_ns: int, n: int) -> Trade:
    return Trade(received_ns - lag_ns, received_ns, "T", "c", 1, n, 450_000, SCALE, Side.BUY, f"id-{n}")


received = st.lists(st.tuples(st.integers(NOON, NOON + 3 * HOUR), st.integers(-2 * AHEAD_NS, 2 * LATE_NS)), max_size=40)


@given(received, st.booleans(), st.integers(1, 10), st.integers(1, 10))
def test_pages_hold_every_trade_once_in_order(
    times: list[tuple[int, int]], newest_first: bool, per_step: int, limit: int
) -> None:
    trades = sorted((trade(at, lag, n) for n, (at, lag) in enumerate(times)), key=lambda t: t.received_ns)
    span = Range(NOON + HOUR, NOON + 2 * HOUR, newest_first)
    expected = sorted((t for t in trades if span.start_ns <= time_of(t) < span.end_ns), key=place_of)
    pages: list[Trade] = []
    while True:
        counted = 0

        def enough(more: list[Trade]) -> bool:
            nonlocal counted
            counted += len(more)
            return counted > limit

        gathered = Gathered(span, enough)
        ordered = trades[::-1] if newest_first else trades
        for first in range(0, len(ordered), per_step):
            rest = ordered[first + per_step :]
            if newest_first:
                frontier = max((t.received_ns for t in rest), default=0) + AHEAD_NS
            else:
                frontier = min((t.received_ns for t in rest), default=NOON * 2) - LATE_NS
            gathered.add(Step(ordered[first : first + per_step] * 2, frontier))
            if gathered.enough:
                break
        gathered.finish()
        pages += gathered.settled[:limit]
        if len(gathered.settled) <= limit:
            assert gathered.reached_ns is None
            break
        span = span._replace(after=place_of(gathered.settled[limit - 1]))
    assert pages == (expected[::-1] if newest_first else expected)


def test_of_a_trade_that_two_connections_received_the_first_counts() -> None:
    first, second = trade(NOON + 1, 0, 1), trade(NOON + 5, 4, 1)
    for order in ([first, second], [second, first]):
        gathered = Gathered(Range(NOON, NOON + 100), lambda _: False)
        for its in order:
            gathered.add(Step([its], 0))
        gathered.finish()
        assert gathered.settled == [first]


def test_the_board_knows_since_when_it_holds_every_trade() -> None:
    board = Board(trades_per_ticker=3, trades_total=5)
    assert board.trades_since("A") == 0
    for n in range(1, 4):
        board.take(live("A", n))
    oldest = board.trades("A", 3)[-1]
    assert board.trades_since("A") == oldest.received_ns + 1  # full: one more would have pushed this out
    assert board.trades_since("B") == 0
    newest = board.trades("A", 1)[0]
    for n in range(10, 13):
        board.take(live("B", n))
    assert board.trades("A", 9) == []
    assert board.trades_since("A") == newest.received_ns + 1
