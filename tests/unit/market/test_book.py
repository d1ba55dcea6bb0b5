"""The order book against a naive model."""

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ssmd.market.book import OrderBook
from ssmd.market.events import Kind, OrderBookUpdate, Side

PRICES = st.integers(min_value=0, max_value=8)
SIZES = st.integers(min_value=-3, max_value=5)
LEVELS = st.lists(st.tuples(PRICES, SIZES), max_size=6)
SIDES = st.sampled_from([Side.BUY, Side.SELL])


class BookAgainstModel(RuleBasedStateMachine):
    """The model is one dict of (side, price) and sorts everything each time."""

    @initialize()
    def begin(self) -> None:
        self.book = OrderBook()
        self.model: dict[tuple[Side, int], int] = {}
        self.shortfalls = 0

    @rule(bids=LEVELS, asks=LEVELS)
    def snapshot(self, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        self.book.apply_snapshot(bids, asks)
        self.model = {}
        for side, levels in ((Side.BUY, bids), (Side.SELL, asks)):
            for price, size in levels:
                if size > 0:
                    self.model[side, price] = size

    @rule(side=SIDES, price=PRICES, delta=SIZES)
    def change(self, side: Side, price: int, delta: int) -> None:
        expected = self.model.get((side, price), 0) + delta
        self.shortfalls += expected < 0
        assert self.book.change(side, price, delta) == max(0, expected)
        self._set(side, price, expected)

    @rule(side=SIDES, price=PRICES, size=SIZES)
    def set_level(self, side: Side, price: int, size: int) -> None:
        self.book.set_level(side, price, size)
        self._set(side, price, size)

    def _set(self, side: Side, price: int, size: int) -> None:
        if size > 0:
            self.model[side, price] = size
        else:
            self.model.pop((side, price), None)

    @invariant()
    def agrees(self) -> None:
        bids = sorted(((p, s) for (side, p), s in self.model.items() if side is Side.BUY), reverse=True)
        asks = sorted((p, s) for (side, p), s in self.model.items() if side is Side.SELL)
        assert self.book.sorted_bids() == tuple(bids)
        assert self.book.sorted_asks() == tuple(asks)
        assert self.book.best_bid() == (bids[0] if bids else None)
        assert self.book.best_ask() == (asks[0] if asks else None)
        assert self.book.crossed() == bool(bids and asks and bids[0][0] >= asks[0][0])
        assert self.book.shortfalls == self.shortfalls


TestBookAgainstModel = BookAgainstModel.TestCase


def update(kind: Kind, bids: tuple[tuple[int, int], ...], asks: tuple[tuple[int, int], ...]) -> OrderBookUpdate:
    return OrderBookUpdate(0, 1, "T", "c-1", 1, 1, kind, bids, asks)


def test_a_snapshot_event_replaces_the_book_and_a_delta_event_sets_absolute_sizes() -> None:
    book = OrderBook()
    book.apply(update(Kind.SNAPSHOT, ((450_000, 5), (440_000, 7)), ((460_000, 3),)))
    book.apply(update(Kind.DELTA, ((440_000, 0), (430_000, 9)), ((460_000, 1),)))
    assert book.sorted_bids() == ((450_000, 5), (430_000, 9))
    assert book.sorted_asks() == ((460_000, 1),)
    book.apply(update(Kind.SNAPSHOT, (), ()))
    assert book.best_bid() is None
    assert book.best_ask() is None
    assert not book.crossed()


def test_taking_more_than_rests_empties_the_level_and_is_counted() -> None:
    book = OrderBook()
    book.apply_snapshot([(450_000, 5)], [])
    assert book.change(Side.BUY, 450_000, -6) == 0
    assert book.bids == {}
    assert book.shortfalls == 1
    assert book.change(Side.SELL, 450_000, 0) == 0
    assert book.shortfalls == 1


@given(bids=LEVELS, asks=LEVELS)
def test_a_touching_book_is_crossed(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
    book = OrderBook()
    book.apply_snapshot([*bids, (4, 1)], [*asks, (4, 1)])
    assert book.crossed()
