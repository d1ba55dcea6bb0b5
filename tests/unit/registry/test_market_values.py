"""What is stored and followed of a market, and a field's value in two times."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.errors import DataError
from ssmd.registry.interface import Market
from ssmd.registry.market_history import MarketChange, value_at
from ssmd.registry.market_values import canonical_json, fingerprint, stored_columns, stored_ticker

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_every_value_becomes_json_that_a_database_can_store(value: Any) -> None:
    written = canonical_json(value)
    written.encode()  # no lone surrogate
    assert "\x00" not in written
    assert "\x00" not in json.dumps(json.loads(written), ensure_ascii=False)
    assert "\\u0000" not in json.dumps(json.loads(written)).replace("\\\\", "")


def test_the_order_of_keys_makes_no_difference() -> None:
    assert canonical_json({"b": 1, "a": [{"d": 1, "c": 2}]}) == '{"a":[{"c":2,"d":1}],"b":1}'


def test_values_that_no_database_takes_are_replaced() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    stored = json.loads(
        canonical_json({"nul": "\x00", "lone": "\udc80", "nan": float("inf"), "deep": deep, "n": 10**5_000})
    )
    assert (stored["nul"], stored["lone"], stored["nan"]) == ("\ufffd", "\ufffd", None)
    assert stored["n"] == "an integer of 16610 bits"
    assert json.loads(canonical_json("\\u0000")) == "\\u0000"


@pytest.mark.parametrize("ticker", ["", "K" * 129])
def test_a_ticker_that_cannot_be_stored_is_an_error_of_one_short_line(ticker: str) -> None:
    with pytest.raises(DataError) as error:
        stored_ticker(ticker)
    assert len(error.value.message) < 160
    assert stored_ticker("K" * 128) == "K" * 128


def market(**changes: Any) -> Market:
    known = {
        "ticker": "A",
        "event_ticker": "E",
        "title": "T",
        "status": "active",
        "result": "",
        "raw": {"price": 1, "x": 2},
    }
    return Market(**{"open_time": None, "close_time": None, **known, **changes})


def mark(volatile: frozenset[str] = frozenset({"price"}), **changes: Any) -> str:
    changed = market(**changes)
    return fingerprint(stored_columns(changed), changed.raw, volatile)


def test_a_fingerprint_follows_everything_but_what_trading_changes() -> None:
    same = mark()
    assert mark(raw={"x": 2, "price": 9}) == same
    assert mark(updated_time="2026-11-22T18:00:00Z") == same
    assert mark(raw={"x": 2, "price": 1, "k" * 65: 3}) == same
    different = [mark(raw={"x": 3}), mark(status="closed"), mark(title="U"), mark(result="yes"), mark(frozenset())]
    different += [mark(raw={"x": 2, "y": None}), mark(close_time="2026-11-22T18:00:00Z"), mark(settlement_value="1")]
    assert len({same, *different}) == len(different) + 1


def change(number: int, old: str | None, new: str | None, hours: tuple[int, int, int | None]) -> MarketChange:
    """`hours`: changed at, known from, known to."""
    changed_at, known_from, known_to = (None if h is None else datetime(2026, 11, 22, h, tzinfo=UTC) for h in hours)
    assert changed_at is not None
    assert known_from is not None
    return MarketChange(number, "A", "result", old, new, changed_at, known_from, known_to, None)


@pytest.mark.parametrize(
    ("valid", "known", "value"),
    [
        (23, 23, "yes"),  # as it turned out
        (10, 23, "yes"),  # and was all along
        (9, 23, ""),
        (23, 11, "no"),  # as was thought then
        (9, 11, ""),
        (23, 9, ""),  # nobody knew of a result
    ],
)
def test_a_field_has_a_value_in_two_times(valid: int, known: int, value: str) -> None:
    history = [change(1, "", "no", (10, 11, 12)), change(2, "", "yes", (10, 12, None))]
    at, then = (datetime(2026, 11, 22, hour, tzinfo=UTC) for hour in (valid, known))
    assert value_at(history, "yes", at, then) == value


def test_a_field_that_never_changed_is_what_it_is() -> None:
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    assert value_at([], "x", moment, moment) == "x"
    assert value_at([], None, moment, moment) is None
