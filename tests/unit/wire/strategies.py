"""Hypothesis strategies: any event that the types allow."""

from hypothesis import strategies as st

from ssmd.market.events import REASONS, Event, Gap, Kind, MarketStatus, OrderBookUpdate, Quote, Side, Status, Trade

uint64 = st.integers(0, (1 << 64) - 1)
uint32 = st.integers(0, (1 << 32) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
levels = st.lists(st.tuples(int64, int64), max_size=12).map(tuple)

trades = st.builds(
    Trade, uint64, uint64, texts, texts, uint32, uint64, int64, int64, st.sampled_from(Side), texts, st.booleans()
)
orderbooks = st.builds(
    OrderBookUpdate, uint64, uint64, texts, texts, uint32, uint64, st.sampled_from(Kind), levels, levels, uint64
)
quotes = st.builds(Quote, uint64, uint64, texts, texts, uint32, uint64, *[int64] * 8)
statuses = st.builds(
    MarketStatus, uint64, uint64, texts, texts, uint32, uint64, st.sampled_from(Status), texts, st.none() | int64
)
gaps = st.builds(
    Gap,
    texts,
    texts,
    st.none() | uint32,
    uint64,
    uint64,
    st.sampled_from(REASONS) | texts,
    st.none() | uint64,
    st.none() | uint64,
    st.none() | st.lists(texts, max_size=5).map(tuple),
)
events: st.SearchStrategy[Event] = st.one_of(trades, orderbooks, quotes, statuses, gaps)
