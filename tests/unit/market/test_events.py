"""Events are values: frozen, comparable, complete in the table of types."""

import msgspec
import pytest

from ssmd.market.events import EVENT_TYPES, REASONS, SCALE, Gap, Kind, OrderBookUpdate, Side, Trade


def trade() -> Trade:
    return Trade(1, 2, "A", "c-1", 3, 4, 450_000, 10 * SCALE, Side.BUY, "id")


@pytest.mark.parametrize("event_type", list(EVENT_TYPES))
def test_every_event_is_frozen_and_names_the_connection_that_delivered_it(event_type: str) -> None:
    event = EVENT_TYPES[event_type]

    assert event.__struct_config__.frozen
    assert "connection" in event.__struct_fields__


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        trade().price = 1  # type: ignore[misc]


def test_equal_events_are_equal_and_hash_alike() -> None:
    assert trade() == trade()
    assert hash(trade()) == hash(trade())
    assert msgspec.structs.replace(trade(), price=1) != trade()


def test_a_book_update_holds_levels_by_value() -> None:
    one = OrderBookUpdate(1, 2, "A", "c", 3, 4, Kind.DELTA, ((1, 2),), ())
    two = OrderBookUpdate(1, 2, "A", "c", 3, 4, Kind.DELTA, ((1, 2),), ())

    assert one == two


def test_a_gap_says_all_tickers_and_subscriptions_with_none() -> None:
    gap = Gap("kalshi", "c", None, 1, 2, REASONS[0])

    assert (gap.sid, gap.tickers, gap.last_seq, gap.next_seq) == (None, None, None, None)
