"""Keys: what is built can be parsed, what could not have been built is refused, and everything has one form."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.archive import layout
from ssmd.archive.layout import GapObject, HandoverObject, PositionObject, RawObject, SegmentObject, TickerObject
from ssmd.errors import DataError
from ssmd.middleware.storage.keys import check_key, check_prefix

DAY = date(2026, 11, 22)

feeds = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
days = st.dates(date(1970, 1, 1), date(9999, 12, 31))
words = st.from_regex(r"[a-z]{1,12}", fullmatch=True)
shards = st.just("") | st.from_regex(r"[a-z0-9]{1,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True)
tickers = st.text(min_size=1, max_size=32).filter(
    lambda text: not text.startswith("-") and not any("\ud800" <= char <= "\udfff" for char in text)
)


@given(feeds, days, words, shards, st.integers(0, 10**9))
def test_a_raw_key_and_its_manifest_lead_back_to_the_object(
    feed: str, day: date, group: str, shard: str, number: int
) -> None:
    built = RawObject(feed, day, group, shard, number)

    assert layout.parse_raw(check_key(built.key)) == built
    assert layout.parse_raw_manifest(check_key(built.manifest_key)) == built
    assert built.key.startswith(check_prefix(layout.raw_day_prefix(feed, day)))
    assert built.manifest_key.startswith(layout.raw_manifests_prefix(feed, day))


@given(feeds, days, st.integers(0, 2**63), tickers, st.integers(0, 1000))
def test_a_gap_key_leads_back_to_the_object(feed: str, day: date, ns: int, connection: str, copy: int) -> None:
    built = GapObject(feed, day, ns, connection, copy)

    assert layout.parse_gap(check_key(built.key)) == built
    assert built.key.startswith(layout.gaps_prefix(feed, day))


@given(feeds, days, st.integers(0, 2**63), tickers)
def test_a_handover_key_leads_back_to_the_object(feed: str, day: date, ns: int, connection: str) -> None:
    built = HandoverObject(feed, day, ns, connection)

    assert layout.parse_handover(check_key(built.key)) == built
    assert layout.is_raw_record(built.key, feed, day)


@given(feeds, words, days, tickers, st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_segment_key_and_its_manifest_lead_back_to_the_object(
    feed: str, event_type: str, day: date, stream: str, first: int, last: int
) -> None:
    built = SegmentObject(feed, event_type, day, stream, first, last)

    assert layout.parse_normalized(check_key(built.key)) == built
    assert layout.parse_normalized_manifest(check_key(built.manifest_key)) == built
    assert built.key.startswith(layout.segments_prefix(feed, event_type, day))
    assert built.manifest_key.startswith(layout.normalized_manifests_prefix(feed, event_type, day))


@given(feeds, words, days, tickers | st.sampled_from(["_segments", "_manifest", "data", "v1", ".", "..", "a/b", "~"]))
def test_a_ticker_key_and_its_manifest_lead_back_to_the_object(
    feed: str, event_type: str, day: date, ticker: str
) -> None:
    built = TickerObject(feed, event_type, day, ticker)

    assert layout.parse_normalized(check_key(built.key)) == built
    assert layout.parse_normalized_manifest(check_key(built.manifest_key)) == built


def test_keys_look_as_the_contract_says() -> None:
    assert RawObject("kalshi", DAY, "trades", "", 0).key == "kalshi/2026/11/22/trades-00.jsonl.zst"
    assert RawObject("kalshi", DAY, "trades", "twin-b", 7).key == "kalshi/2026/11/22/trades-twin-b-07.jsonl.zst"
    assert RawObject("kalshi", DAY, "orderbook", "", 123).key == "kalshi/2026/11/22/orderbook-123.jsonl.zst"
    assert RawObject("kalshi", DAY, "trades", "", 0).manifest_key == "kalshi/2026/11/22/_manifest/trades-00.json"
    assert GapObject("kalshi", DAY, 17, "c-1").key == "kalshi/2026/11/22/_gaps/17-c-1.json"
    assert GapObject("kalshi", DAY, 17, "c-1", 2).key == "kalshi/2026/11/22/_gaps/17-c-1.2.json"
    assert (
        SegmentObject("kalshi", "trade", DAY, "2026", 1, 99).key
        == "kalshi/v1/trade/2026/11/22/_segments/2026-000000000001-000000000099.capnp.zst"
    )
    assert TickerObject("kalshi", "trade", DAY, "A.B").key == "kalshi/v1/trade/2026/11/22/A%2EB/data.capnp.zst"
    assert PositionObject("kalshi", "2026").key == "kalshi/v1/_manifest/_position/2026.json"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "kalshi/2026/11/22",
        "kalshi/2026/11/22/trades-0.jsonl.zst",
        "kalshi/2026/11/22/trades-007.jsonl.zst",
        "kalshi/2026/11/22/trades.jsonl.zst",
        "kalshi/2026/11/22/trades-00.jsonl",
        "kalshi/2026/11/22/trades--00.jsonl.zst",
        "kalshi/2026/11/22/TRADES-00.jsonl.zst",
        "kalshi/2026/11/32/trades-00.jsonl.zst",
        "kalshi/2026/1/22/trades-00.jsonl.zst",
        "Kalshi/2026/11/22/trades-00.jsonl.zst",
        "kalshi/2026/11/22/x/trades-00.jsonl.zst",
        "kalshi/2026/11/22/_manifest/trades-00.json",
    ],
)
def test_a_raw_key_that_nobody_builds_is_refused(key: str) -> None:
    with pytest.raises(DataError):
        layout.parse_raw(key)


@pytest.mark.parametrize(
    "key",
    [
        "kalshi/v1/trade/2026/11/22/A.B/data.capnp.zst",
        "kalshi/v1/trade/2026/11/22/A%2eB/data.capnp.zst",
        "kalshi/v2/trade/2026/11/22/A/data.capnp.zst",
        "kalshi/v1/trade/2026/11/22/A/other.capnp.zst",
        "kalshi/v1/trade/2026/11/22/_segments/s-1-2.capnp.zst",
        "kalshi/v1/_manifest/_position/1.json",
        "kalshi/v1/trade/2026/11/22/data.capnp.zst",
    ],
)
def test_a_normalized_key_that_nobody_builds_is_refused(key: str) -> None:
    with pytest.raises(DataError):
        layout.parse_normalized(key)


@pytest.mark.parametrize("shard", ["A", "-", "a--b", "a-", "ä", "a/b", "../x"])
def test_a_shard_name_that_a_key_cannot_hold_is_refused(shard: str) -> None:
    with pytest.raises(DataError):
        _ = RawObject("kalshi", DAY, "trades", shard, 0).key
