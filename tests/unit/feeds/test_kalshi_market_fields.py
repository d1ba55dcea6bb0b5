"""What the exchange's REST objects become, odd and hostile ones included."""

import json
from typing import Any

import pytest

from ssmd.feeds.kalshi.market_fields import VOLATILE, settlement_millionths, status_of, to_event, to_market, to_series
from ssmd.market.events import Status
from tests.tapes import tape

MARKET = {
    "ticker": "KXBTC15M-26SEP251500-00",
    "event_ticker": "KXBTC15M-26SEP251500",
    "title": "BTC price up in next 15 mins?",
    "status": "finalized",
    "open_time": "2026-09-25T18:45:00Z",
    "close_time": "2026-09-25T19:00:00Z",
    "expected_expiration_time": "2026-09-25T19:05:00Z",
    "latest_expiration_time": "2026-10-02T19:00:00Z",
    "result": "no",
    "settlement_ts": "2026-09-25T19:00:08.135664Z",
    "settlement_value_dollars": "0.0000",
    "updated_time": "2026-09-25T19:00:08.16622Z",
    "yes_bid_dollars": "0.0000",
}


def test_a_market_has_the_fields_of_the_object_and_keeps_it_whole() -> None:
    market = to_market(MARKET)
    assert market is not None
    assert market.raw is MARKET
    assert (market.series_ticker, market.category) == ("", "")
    assert market.expiration_time == "2026-10-02T19:00:00Z"
    assert market.settlement_time == "2026-09-25T19:05:00Z"
    assert (market.settled_at, market.settlement_value) == ("2026-09-25T19:00:08.135664Z", "0.0000")
    assert market.updated_time == "2026-09-25T19:00:08.16622Z"
    older = to_market({**MARKET, "expiration_time": "2026-10-01T00:00:00Z", "series_ticker": "S", "category": "C"})
    assert older is not None
    assert (older.expiration_time, older.series_ticker, older.category) == ("2026-10-01T00:00:00Z", "S", "C")


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"settlement_value_dollars": "1.0000", "settlement_value": 0}, "1.0000"),
        ({"settlement_value": 100}, "1.00"),
        ({"settlement_value": 7}, "0.07"),
        ({"settlement_value": True}, ""),
        ({"settlement_value": -1}, ""),
        ({"settlement_value_dollars": 0.5}, ""),
        ({}, ""),
    ],
)
def test_a_settlement_value_is_decimal_dollars_whatever_the_era(fields: dict[str, Any], value: str) -> None:
    market = to_market({"ticker": "A", **fields})
    assert market is not None
    assert market.settlement_value == value


def test_nul_and_control_characters_come_through_as_they_were_sent() -> None:
    sent = {"ticker": "A\0B", "title": "x\0\x1b[31m", "custom_strike": {"k\0": ["\0"]}, "result": None}
    market = to_market(sent)
    assert market is not None
    assert (market.ticker, market.title, market.result) == ("A\0B", "x\0\x1b[31m", "")
    assert market.raw["custom_strike"] == {"k\0": ["\0"]}


@pytest.mark.parametrize("odd", [7, [], {}, True, 1.5, None, "", {"a": "b"}])
def test_values_of_another_type_are_as_good_as_none(odd: Any) -> None:
    market = to_market({**dict.fromkeys(MARKET, odd), "ticker": "A"})
    assert market is not None
    assert (market.title, market.status, market.open_time, market.settled_at) == ("", "", None, None)
    event = to_event({"event_ticker": "E", "title": odd, "series_ticker": odd, "last_updated_ts": odd})
    assert event is not None
    assert (event.title, event.series_ticker, event.updated_time) == ("", "", None)
    series = to_series({"ticker": "S", "title": odd, "category": odd})
    assert series is not None
    assert (series.title, series.category) == ("", "")
    for read, name in ((to_market, "ticker"), (to_event, "event_ticker"), (to_series, "ticker")):
        assert read({name: odd}) is None
        assert read(odd) is None


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("initialized", Status.CREATED),
        ("inactive", Status.HALTED),
        ("active", Status.OPEN),
        ("closed", Status.CLOSED),
        ("determined", Status.DETERMINED),
        ("disputed", Status.DETERMINED),
        ("amended", Status.DETERMINED),
        ("finalized", Status.SETTLED),
        ("settled", Status.SETTLED),
        ("ACTIVE", Status.UNKNOWN),
        ("", Status.UNKNOWN),
    ],
)
def test_every_status_word_of_the_exchange_has_its_state(word: str, status: Status) -> None:
    assert status_of(word) is status


@pytest.mark.parametrize(
    ("text", "value"), [("1.0000", 1_000_000), ("0.123456", 123_456), ("0", 0), ("", None), ("1e9", None), ("x", None)]
)
def test_settlement_values_are_exact_or_none(text: str, value: int | None) -> None:
    assert settlement_millionths(text) == value


@pytest.mark.replay
def test_what_trading_changes_is_volatile_and_nothing_else() -> None:
    names: set[str] = set()
    for folder in ("kalshi_rest_2026-09-25", "kalshi_golden_2026-01"):
        for path in sorted(tape(folder).glob("markets_*.json")):
            body = json.loads(path.read_text())
            names |= {name for market in body.get("response", body)["markets"] for name in market}
    trading = {
        name
        for name in names
        if any(part in name for part in ("bid", "ask", "price", "volume", "interest", "liquidity", "updated_time"))
    }
    assert trading - VOLATILE == {"price_level_structure", "price_ranges", "response_price_units"}
    assert names & VOLATILE == trading & VOLATILE


@pytest.mark.replay
def test_recorded_events_and_series_of_both_eras_are_read() -> None:
    today = json.loads((tape("kalshi_rest_2026-09-25") / "series_KXBTC15M.json").read_text())["series"]
    series = to_series(today)
    assert series is not None
    assert (series.ticker, series.category, series.updated_time) == (
        "KXBTC15M", "Crypto", "2026-09-18T15:20:18.321673Z",
    )  # fmt: skip
    folder = tape("kalshi_golden_2026-01")
    listed = json.loads((folder / "events_list_response.json").read_text())["response"]["events"]
    combos = json.loads((folder / "events_multivariate_list_response.json").read_text())["response"]["events"]
    events = [to_event(each) for each in [*listed, *combos]]
    assert len(events) > 2
    assert all(event is not None and event.series_ticker and event.title and "markets" not in event.raw
               for event in events)  # fmt: skip
    older = json.loads((folder / "series_list_response.json").read_text())["response"]["series"]
    assert all(to_series(each) is not None for each in older)
