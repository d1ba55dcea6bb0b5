"""What every registry promises: idempotent records, days recounted from their objects, hostile values kept out."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from ssmd.clock import NS_PER_DAY, NS_PER_S, day_start_ns
from ssmd.errors import ConfigError, DataError
from ssmd.market.events import Gap
from ssmd.registry.interface import Issue, Market, MarketFilter, MarketWords, ObjectRecord, Registry
from ssmd.registry.memory import MemoryRegistry
from ssmd.registry.postgres import PostgresRegistry
from tests.databases import Database

DAY = date(2026, 11, 22)
START = day_start_ns(DAY)
NEXT_DAY = date(2026, 11, 23)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    opened: Registry
    if request.param == "memory":
        opened = MemoryRegistry()
    else:
        database: Database = request.getfixturevalue("postgres")
        opened = PostgresRegistry(database.fresh())
    yield opened
    opened.close()


def raw(number: int, **changes: Any) -> ObjectRecord:
    """A raw object of ten minutes, the `number`th of the day."""
    record = ObjectRecord(
        bucket="ssmd-raw",
        key=f"kalshi/2026/11/22/trades-{number:02d}.jsonl.zst",
        data_type="raw",
        group="trades",
        day=DAY,
        sha256=f"{number:064x}",
        bytes=1_000,
        records=10,
        first_ns=START + number * 600 * NS_PER_S,
        last_ns=START + (number + 1) * 600 * NS_PER_S - 1,
        symbols=3,
        writer_version="0.1.0",
    )
    return msgspec.structs.replace(record, **changes)


def gap(from_s: float, to_s: float, **changes: Any) -> Gap:
    """A gap between two seconds of the day."""
    known = Gap(
        feed="kalshi",
        connection="c-1",
        sid=None,
        from_ns=START + int(from_s * NS_PER_S),
        to_ns=START + int(to_s * NS_PER_S),
        reason="connection_lost",
    )
    return msgspec.structs.replace(known, **changes)


def market(ticker: str, **changes: Any) -> Market:
    """An open market."""
    known = Market(
        ticker=ticker,
        event_ticker="KXBTC15M-26NOV22",
        title="BTC up in next 15 mins?",
        status="active",
        open_time="2026-11-22T18:45:00Z",
        close_time="2026-11-22T19:00:00Z",
        result="",
        raw={"ticker": ticker, "floor_strike": 83955.99, "price_ranges": [{"step": "0.0010"}]},
    )
    return msgspec.structs.replace(known, **changes)


def test_kalshi_is_reached_on_the_hosts_of_the_day(registry: Registry) -> None:
    before = registry.feed_version("kalshi", date(2026, 5, 6))
    after = registry.feed_version("kalshi", date(2026, 5, 7))
    assert before.ws == "wss://api.elections.kalshi.com/trade-api/ws/v2"
    assert before.rest == "https://api.elections.kalshi.com/trade-api/v2"
    assert after.ws == "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
    assert after.rest == "https://external-api.kalshi.com/trade-api/v2"
    assert registry.feed_version("kalshi", date(2030, 1, 1)) == after


def test_a_misspelled_feed_is_answered_with_the_nearest_one(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'kalshi'"):
        registry.feed_version("kalsih", DAY)
    with pytest.raises(ConfigError, match="no feed"):
        registry.record_objects("binance", [raw(0)])
    with pytest.raises(ConfigError, match="no version for 1999"):
        registry.feed_version("kalshi", date(1999, 1, 1))


def test_objects_come_back_as_they_went_in_sorted_by_key(registry: Registry) -> None:
    records = [raw(2), raw(0), raw(1, symbols=None, writer_version="")]
    registry.record_objects("kalshi", records)
    assert registry.objects("kalshi", DAY) == [records[1], records[2], records[0]]
    assert registry.objects("kalshi", DAY, "normalized") == []
    assert registry.objects("kalshi", NEXT_DAY) == []


def test_a_day_row_is_the_sum_of_its_objects(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0), raw(1, symbols=7)])
    registry.record_objects("kalshi", [raw(5)])
    (row,) = registry.inventory("kalshi", DAY, DAY)
    assert (row.record_count, row.byte_size, row.symbol_count) == (30, 3_000, 7)
    assert (row.first_ns, row.last_ns) == (START, START + 3_600 * NS_PER_S - 1)
    assert (row.status, row.schema_version, row.storage_path) == ("processing", None, "ssmd-raw/kalshi/2026/11/22/")


def test_recording_an_object_twice_changes_nothing(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0)])
    registry.set_day_condition("kalshi", DAY, "raw", "complete")
    registry.record_objects("kalshi", [raw(0), raw(0)])
    registry.record_objects("kalshi", [raw(0, sha256="f" * 64, records=99)])
    assert registry.objects("kalshi", DAY) == [raw(0)]
    (row,) = registry.inventory("kalshi", DAY, DAY)
    assert (row.record_count, row.status) == (10, "complete")


def test_a_complete_day_that_gains_or_loses_an_object_is_unfinished_again(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0)])
    registry.set_day_condition("kalshi", DAY, "raw", "complete")
    registry.record_objects("kalshi", [raw(1)])
    assert registry.inventory("kalshi", DAY, DAY)[0].status == "processing"
    registry.set_day_condition("kalshi", DAY, "raw", "complete")
    registry.replace_objects("kalshi", [("ssmd-raw", raw(1).key)], [])
    assert registry.inventory("kalshi", DAY, DAY)[0].status == "processing"


def test_compaction_replaces_segments_by_one_object_per_ticker(registry: Registry) -> None:
    folder = "kalshi/v1/trade/2026/11/22"
    normalized: dict[str, Any] = {"data_type": "normalized", "schema_version": "v1", "bucket": "ssmd-normalized"}
    segments = [raw(n, key=f"{folder}/_segments/{n:04d}.capnp.zst", group="trade", **normalized) for n in range(3)]
    compacted = [
        raw(
            9, key=f"{folder}/{t}/data.capnp.zst", group="trade", symbols=1, sha256=f"{i:064x}", records=6, **normalized
        )
        for i, t in enumerate(["A", "B", "C", "D", "E"])
    ]
    registry.record_objects("kalshi", [raw(0), *segments])
    registry.replace_objects("kalshi", [(s.bucket, s.key) for s in segments], compacted)
    assert registry.objects("kalshi", DAY, "normalized") == compacted
    normalized_row, raw_row = registry.inventory("kalshi", DAY, DAY)
    assert (normalized_row.record_count, normalized_row.symbol_count, normalized_row.schema_version) == (30, 5, "v1")
    assert normalized_row.storage_path == "ssmd-normalized/kalshi/v1/*/2026/11/22/"
    assert raw_row.record_count == 10


def test_a_day_without_objects_left_counts_nothing(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0)])
    registry.replace_objects("kalshi", [("ssmd-raw", raw(0).key), ("ssmd-raw", "never-there")], [])
    (row,) = registry.inventory("kalshi", DAY, DAY)
    assert (row.record_count, row.byte_size, row.first_ns, row.last_ns, row.symbol_count) == (0, 0, 0, 0, None)


def test_inventory_is_sorted_by_day_and_kind(registry: Registry) -> None:
    later = raw(0, key="kalshi/2026/11/23/trades-00.jsonl.zst", day=NEXT_DAY)
    normal = raw(1, data_type="normalized", schema_version="v1", key="n", bucket="ssmd-normalized")
    registry.record_objects("kalshi", [later, raw(0), normal])
    found = [(row.day, row.data_type) for row in registry.inventory("kalshi", DAY, NEXT_DAY)]
    assert found == [(DAY, "normalized"), (DAY, "raw"), (NEXT_DAY, "raw")]
    assert [row.day for row in registry.inventory("kalshi", NEXT_DAY, date(2027, 1, 1))] == [NEXT_DAY]


def test_a_status_is_one_of_four_and_of_a_day_that_exists(registry: Registry) -> None:
    with pytest.raises(DataError, match="finished"):
        registry.set_day_condition("kalshi", DAY, "raw", "finished")
    with pytest.raises(ConfigError, match="no raw data"):
        registry.set_day_condition("kalshi", DAY, "raw", "complete")
    with pytest.raises(DataError, match="cooked"):
        registry.record_objects("kalshi", [raw(0, data_type="cooked")])


def test_a_verdict_is_kept_with_its_score_until_the_day_changes(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0), raw(1, data_type="normalized", schema_version="v1", key="n")])
    assert [row.quality_score for row in registry.inventory("kalshi", DAY, DAY)] == [None, None]

    registry.set_day_condition("kalshi", DAY, "raw", "complete", 0.99)
    normalized_row, raw_row = registry.inventory("kalshi", DAY, DAY)
    assert (raw_row.status, raw_row.quality_score) == ("complete", 0.99)
    assert raw_row.verified_at is not None
    assert (normalized_row.status, normalized_row.quality_score, normalized_row.verified_at) == (
        "processing",
        None,
        None,
    )

    registry.record_objects("kalshi", [raw(2)])
    row = registry.inventory("kalshi", DAY, DAY)[1]
    assert (row.status, row.quality_score, row.verified_at) == ("processing", None, None)


def test_a_running_day_may_have_a_score_and_a_score_is_between_0_and_1(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0)])
    for score, kept in ((0.954, 0.95), (0.0, 0.0), (1.0, 1.0), (None, None)):
        registry.set_day_condition("kalshi", DAY, "raw", "processing", score)
        (row,) = registry.inventory("kalshi", DAY, DAY)
        assert (row.status, row.quality_score, row.verified_at) == ("processing", kept, None)
    for score in (-0.01, 1.01, float("nan")):
        with pytest.raises(DataError, match="not between 0 and 1"):
            registry.set_day_condition("kalshi", DAY, "raw", "processing", score)


def test_a_day_that_gains_a_gap_later_is_not_complete_any_more(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0), raw(1, day=NEXT_DAY)])
    registry.record_gaps([gap(10, 20)])
    for day in (DAY, NEXT_DAY):
        registry.set_day_condition("kalshi", day, "raw", "complete", 1.0)
    registry.record_gaps([gap(10, 20)])
    assert [row.quality_score for row in registry.inventory("kalshi", DAY, NEXT_DAY)] == [1.0, 1.0]

    registry.record_gaps([gap(30, 40)])

    first, second = registry.inventory("kalshi", DAY, NEXT_DAY)
    assert (first.status, first.quality_score, first.gap_count) == ("partial", None, 2)
    assert (second.status, second.quality_score) == ("complete", 1.0)


def test_a_gap_reported_twice_is_one_gap_with_the_later_end(registry: Registry) -> None:
    registry.record_gaps([gap(10, 20)])
    registry.record_gaps([gap(10, 15), gap(10, 30, next_seq=7), gap(10, 30, next_seq=7)])
    registry.record_gaps([gap(10, 12, next_seq=5)])
    assert registry.gaps("kalshi", DAY) == [gap(10, 30, next_seq=7)]


def test_gaps_of_several_days_come_in_one_answer_and_each_once(registry: Registry) -> None:
    day_s = 86_400
    over_midnight, second, later = gap(day_s - 5, day_s + 5), gap(day_s + 10, day_s + 20), gap(3 * day_s, 3 * day_s + 1)
    registry.record_gaps([gap(-20, -10), over_midnight, second, later])

    assert registry.gaps("kalshi", DAY) == [over_midnight]
    assert registry.gaps("kalshi", DAY, DAY) == [over_midnight]
    assert registry.gaps("kalshi", DAY, NEXT_DAY) == [over_midnight, second]


def test_unknown_tickers_are_told_in_their_order(registry: Registry) -> None:
    odd = ["KXA", "", "KX'; DROP TABLE markets", "x" * 200, "\udc80", "\x00", "KXB", "KXA"]
    registry.upsert_markets("kalshi", [market("KXA"), market("KXGONE")])

    assert registry.unknown_tickers("kalshi", odd) == odd[1:7]
    assert registry.unknown_tickers("kalshi", ["KXGONE"]) == []
    assert registry.unknown_tickers("kalshi", []) == []


def test_gaps_of_one_subscription_all_subscriptions_and_another_reason_are_different(registry: Registry) -> None:
    gaps = [
        gap(10, 20),
        gap(10, 20, sid=3, last_seq=4, next_seq=6, tickers=("KXA", "KXB.5")),
        gap(10, 20, sid=4, tickers=()),
        gap(10, 20, sid=4, reason="silence"),
        gap(10, 20, connection="c-2"),
    ]
    registry.record_gaps(gaps)
    found = registry.gaps("kalshi", DAY)
    assert len(found) == 5
    assert all(one in found for one in gaps)


def test_a_gap_over_midnight_belongs_to_both_days_and_one_that_ends_at_midnight_to_one(registry: Registry) -> None:
    over = gap(86_390, 86_410)
    until = gap(86_380, 86_400)
    instant = gap(0, 0, reason="startup")
    after = gap(86_400, 86_401)
    registry.record_objects("kalshi", [raw(0), raw(1, day=NEXT_DAY)])
    registry.record_gaps([over, until, instant, after])
    assert registry.gaps("kalshi", DAY) == [instant, until, over]
    assert registry.gaps("kalshi", NEXT_DAY) == [over, after]
    assert [row.gap_count for row in registry.inventory("kalshi", DAY, NEXT_DAY)] == [3, 2]


def test_objects_recorded_after_their_gap_count_it(registry: Registry) -> None:
    registry.record_gaps([gap(0, NS_PER_DAY * 3 / NS_PER_S)])
    registry.record_objects("kalshi", [raw(0)])
    assert registry.inventory("kalshi", DAY, DAY)[0].gap_count == 1


def test_a_hostile_gap_is_kept_in_a_storable_form(registry: Registry) -> None:
    registry.record_gaps(
        [gap(20, 10, connection="c\x00" + "x" * 300, sid=2**70, last_seq=-(2**80), tickers=("A\x00'); --",))]
    )
    (kept,) = registry.gaps("kalshi", DAY)
    assert kept.to_ns == kept.from_ns
    assert (kept.sid, kept.last_seq) == (2**63 - 1, -(2**63))
    assert kept.connection == "c\ufffd" + "x" * 126
    assert kept.tickers == ("A\ufffd'); --",)
    with pytest.raises(DataError, match="bad_luck"):
        registry.record_gaps([gap(1, 2, reason="bad_luck")])


def issue(count: int, **changes: Any) -> Issue:
    known = Issue("kalshi", DAY, "raw", "parse_error", "warning", count, sample="", connection="c-1")
    return msgspec.structs.replace(known, **changes)


def test_issues_are_counted_and_keep_their_first_sample(registry: Registry) -> None:
    registry.record_issues([issue(2)])
    registry.record_issues([issue(3, sample="first"), issue(1, sample="second"), issue(1, connection="c-2")])
    registry.record_issues([])
    assert registry.issues("kalshi", DAY) == [issue(6, sample="first"), issue(1, connection="c-2")]
    assert registry.issues("kalshi", NEXT_DAY) == []


def test_kinds_of_one_issue_type_are_counted_apart(registry: Registry) -> None:
    finer = [issue(2, detail="bad_price"), issue(3, detail="invalid_json"), issue(1, detail="bad_price")]
    registry.record_issues(finer)
    found = [(one.issue_type, one.detail, one.count) for one in registry.issues("kalshi", DAY)]
    assert found == [("parse_error", "bad_price", 3), ("parse_error", "invalid_json", 3)]


def test_a_batch_of_issues_that_comes_again_is_counted_once(registry: Registry) -> None:
    first, second = "0b0c7d8e-58a5-4c43-9e55-6d3b2f0c7a01", "0b0c7d8e-58a5-4c43-9e55-6d3b2f0c7a02"
    with pytest.raises(DataError, match="catastrophe"):
        registry.record_issues([issue(1, severity="catastrophe")], first)
    for batch in (first, first, second, None, None, first):
        registry.record_issues([issue(2)], batch)
    assert registry.issues("kalshi", DAY) == [issue(8)]
    with pytest.raises(DataError, match="UUID"):
        registry.record_issues([issue(1)], "first")


def test_issues_of_a_data_type_are_replaced_whole_and_others_stay(registry: Registry) -> None:
    registry.record_issues([issue(2), issue(4, day=NEXT_DAY, data_type="quality")])
    first = [issue(3, data_type="quality", detail="a"), issue(1, data_type="quality", detail="b")]
    for replacing in (first, first, [first[1], issue(5, data_type="quality", detail="b")]):
        registry.replace_issues("kalshi", DAY, "quality", replacing)

    assert registry.issues("kalshi", DAY) == [issue(6, data_type="quality", detail="b"), issue(2)]
    assert [one.count for one in registry.issues("kalshi", NEXT_DAY)] == [4]
    registry.replace_issues("kalshi", DAY, "quality", [])
    assert registry.issues("kalshi", DAY) == [issue(2)]

    with pytest.raises(DataError, match="is none of kalshi"):
        registry.replace_issues("kalshi", DAY, "quality", [issue(1)])
    with pytest.raises(ConfigError, match="nofeed"):
        registry.replace_issues("nofeed", DAY, "quality", [])


def test_a_score_alone_leaves_the_status_and_when_it_was_given(registry: Registry) -> None:
    registry.record_objects("kalshi", [raw(0)])
    registry.set_day_condition("kalshi", DAY, "raw", "complete", 0.9)
    [before] = registry.inventory("kalshi", DAY, DAY)

    registry.set_day_score("kalshi", DAY, "raw", 0.5)
    registry.set_day_score("kalshi", DAY, "normalized", 0.4)  # there is no such row

    assert registry.inventory("kalshi", DAY, DAY) == [msgspec.structs.replace(before, quality_score=0.5)]
    with pytest.raises(DataError, match="not between 0 and 1"):
        registry.set_day_score("kalshi", DAY, "raw", 1.5)


def test_a_hostile_sample_becomes_printable_and_short(registry: Registry) -> None:
    registry.record_issues([issue(1, sample="\x00\x1b[2J\ud800 ok " + "é" * 2_000, detail="x\x1b" * 100)])
    (kept,) = registry.issues("kalshi", DAY)
    assert kept.sample.startswith("\ufffd\ufffd[2J\ufffd ok é")
    assert len(kept.sample.encode()) <= 1_024
    assert kept.detail == "x\ufffd" * 32
    with pytest.raises(DataError, match="invalid_json"):
        registry.record_issues([issue(1, issue_type="invalid_json")])
    with pytest.raises(DataError, match="catastrophe"):
        registry.record_issues([issue(1, severity="catastrophe")])


def test_markets_are_inserted_updated_and_left_alone(registry: Registry) -> None:
    first = [market("KXB"), market("KXA")]
    assert registry.upsert_markets("kalshi", first) == 2
    assert registry.upsert_markets("kalshi", first) == 0
    settled = market("KXA", status="finalized", result="yes")
    assert registry.upsert_markets("kalshi", [market("KXA"), settled, market("KXB")]) == 1
    assert registry.market("kalshi", "KXA") == settled
    assert registry.market("kalshi", "KXZ") is None


def test_a_market_comes_back_as_it_went_in(registry: Registry) -> None:
    odd = market(
        "KX.5-ü%",
        close_time="2026-11-22T19:00:00.16622Z",
        raw={"nested": {"list": [1, 2.5, None, True, "x"], "empty": {}}, "big": 2**70},
    )
    registry.upsert_markets("kalshi", [odd])
    found = registry.market("kalshi", "KX.5-ü%")
    assert found == msgspec.structs.replace(odd, close_time="2026-11-22T19:00:00.166220Z")


def test_markets_are_paged_by_ticker_in_code_point_order(registry: Registry) -> None:
    tickers = ["KXB", "KXa", "KX-1", "KX.1", "kx", "KXÄ"]
    registry.upsert_markets("kalshi", [market(t, status="closed" if t == "kx" else "active") for t in tickers])
    pages: list[str] = []
    while page := registry.markets("kalshi", limit=4, after=pages[-1] if pages else ""):
        pages += [found.ticker for found in page]
    assert pages == sorted(tickers)
    assert [found.ticker for found in registry.markets("kalshi", status="closed")] == ["kx"]
    assert registry.markets("kalshi", limit=0) == []


def test_hostile_market_text_is_stored_without_harm(registry: Registry) -> None:
    deep: Any = "bottom"
    for _ in range(200):
        deep = [deep]
    hostile = market(
        "KX'; DROP TABLE markets; --",
        title="\x1b]0;owned\x07\x00\u202eevil",
        open_time="0001-01-01T00:00:00Z",
        close_time="soon",
        raw={"nul\x00key": "nul\x00", "lone": "\ud800", "nan": float("nan"), "deep": deep},
    )
    assert registry.upsert_markets("kalshi", [hostile]) == 1
    kept = registry.market("kalshi", hostile.ticker)
    assert kept is not None
    assert kept.title == "\ufffd]0;owned\ufffd\ufffd\ufffdevil"
    assert (kept.open_time, kept.close_time) == (None, None)
    assert kept.raw["nul\ufffdkey"] == "nul\ufffd"
    assert (kept.raw["lone"], kept.raw["nan"]) == ("\ufffd", None)
    assert registry.upsert_markets("kalshi", [hostile]) == 0


FOUND = [
    market("KXBTC-A", category="Crypto", series_ticker="KXBTC", title="Bitcoin above 90,000?"),
    market("KXBTC-B", category="Crypto", series_ticker="KXBTC", status="finalized", result="yes"),
    market("KXETH-A", category="Crypto", series_ticker="KXETH", title="Ethereum above 3,000?"),
    market("KXHIGH.5", category="Climate", event_ticker="KXHIGH", title="100% sure of _rain_?", close_time=None),
    market("KXLATE", category="Climate", event_ticker="KXHIGH", close_time="2026-12-01T00:00:00Z"),
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "KXBTC-A KXBTC-B KXETH-A KXHIGH.5 KXLATE"),
        ({"status": "finalized"}, "KXBTC-B"),
        ({"category": "Crypto", "status": "active"}, "KXBTC-A KXETH-A"),
        ({"series_ticker": "KXETH"}, "KXETH-A"),
        ({"event_ticker": "KXHIGH"}, "KXHIGH.5 KXLATE"),
        ({"result": "yes"}, "KXBTC-B"),
        ({"words": ("BITCOIN", "above")}, "KXBTC-A"),
        ({"words": ("kxbtc", "15 mins")}, "KXBTC-B"),
        ({"words": ("100%",)}, "KXHIGH.5"),
        ({"words": ("_rain_",)}, "KXHIGH.5"),
        ({"words": ("%%",)}, ""),
        ({"words": ("'; DROP TABLE markets; --",)}, ""),
        ({"words": ("\x00",)}, ""),
        ({"status": "\udc80"}, ""),
        ({"any_of": ("bitcoin", "ethereum")}, "KXBTC-A KXETH-A"),
        ({"any_of": ("bitcoin", "ethereum"), "words": ("3,000",)}, "KXETH-A"),
        ({"close_after": datetime(2026, 11, 22, 19, tzinfo=UTC)}, "KXBTC-A KXBTC-B KXETH-A KXLATE"),
        ({"close_after": datetime(2026, 11, 22, 19, 0, 1, tzinfo=UTC)}, "KXLATE"),
        ({"close_before": datetime(2026, 11, 22, 19, tzinfo=UTC)}, ""),
        ({"close_before": datetime(2026, 12, 1, tzinfo=UTC), "category": "Crypto"}, "KXBTC-A KXBTC-B KXETH-A"),
    ],
)
def test_markets_are_found_by_all_that_is_asked(registry: Registry, wanted: dict[str, Any], expected: str) -> None:
    registry.upsert_markets("kalshi", FOUND)
    found = registry.find_markets("kalshi", MarketFilter(**wanted))
    assert [its.ticker for its in found] == expected.split()
    assert all(its.raw == {} for its in found)


def test_found_markets_come_page_by_page_and_vanished_ones_when_asked_for(registry: Registry) -> None:
    registry.upsert_markets("kalshi", FOUND)
    everything = MarketFilter(category="Crypto")
    assert [its.ticker for its in registry.find_markets("kalshi", everything, 2)] == ["KXBTC-A", "KXBTC-B"]
    assert [its.ticker for its in registry.find_markets("kalshi", everything, 2, "KXBTC-B")] == ["KXETH-A"]
    assert registry.find_markets("kalshi", everything, 0) == []
    assert isinstance(registry, MemoryRegistry | PostgresRegistry)
    registry.unlist_markets("kalshi", ["KXETH-A"])
    tickers = {
        listed: [its.ticker for its in registry.find_markets("kalshi", MarketFilter(category="Crypto", listed=listed))]
        for listed in (True, False, None)
    }
    assert tickers == {True: ["KXBTC-A", "KXBTC-B"], False: ["KXETH-A"], None: ["KXBTC-A", "KXBTC-B", "KXETH-A"]}


def test_a_market_whose_ticker_cannot_be_stored_costs_only_itself(registry: Registry) -> None:
    odd = ["KX-1", "K" * 129, "KX-2", "", "KX-3"]
    assert registry.upsert_markets("kalshi", [market(ticker) for ticker in odd]) == 3
    assert [each.ticker for each in registry.markets("kalshi")] == ["KX-1", "KX-2", "KX-3"]


def test_what_trading_changes_alone_is_no_change(registry: Registry) -> None:
    volatile = frozenset({"last_price", "updated_time"})

    def traded(price: str, **changes: Any) -> Market:
        raw = {"ticker": "KXA", "last_price": price, "strike": 5}
        return market("KXA", **{"raw": raw, **changes})

    assert registry.upsert_markets("kalshi", [traded("0.1")], volatile) == 1
    later = traded("0.9", updated_time="2026-11-22T18:50:00Z")
    assert registry.upsert_markets("kalshi", [later], volatile) == 0
    kept = registry.market("kalshi", "KXA")
    assert kept == traded("0.1", updated_time="2026-11-22T18:50:00Z")
    strike = traded("0.9", raw={"ticker": "KXA", "last_price": "0.9", "strike": 6})
    assert registry.upsert_markets("kalshi", [strike], volatile) == 1
    assert registry.upsert_markets("kalshi", [strike], volatile) == 0
    found = registry.market("kalshi", "KXA")
    assert found is not None
    assert (found.raw["strike"], found.updated_time) == (6, "2026-11-22T18:50:00Z")


def test_series_and_category_stay_when_an_answer_does_not_tell_them(registry: Registry) -> None:
    registry.upsert_markets("kalshi", [market("KXA", series_ticker="KX", category="Crypto")])
    assert registry.upsert_markets("kalshi", [market("KXA")]) == 0
    found = registry.market("kalshi", "KXA")
    assert found == market("KXA", series_ticker="KX", category="Crypto")
    assert registry.upsert_markets("kalshi", [market("KXA", category="Politics")]) == 1
    found = registry.market("kalshi", "KXA")
    assert found == market("KXA", series_ticker="KX", category="Politics")


FINAL = {"result": "yes", "settlement_value": "1.0000", "settled_at": "2026-11-22T19:00:08Z"}


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        ({}, {"status": "determined", "result": "no"}, {"result": "no"}),
        ({"status": "finalized", **FINAL}, {"status": "closed"}, {"status": "finalized", **FINAL}),
        (
            {"status": "finalized", **FINAL},
            {"status": "amended", "result": "no", "settlement_value": "0.0000"},
            {"status": "finalized", **FINAL},
        ),
        ({"status": "determined", "result": "no"}, {"status": "finalized", **FINAL}, FINAL),
        ({"status": "determined", "result": "no"}, {"status": "determined", "result": "yes"}, {"result": "no"}),
        ({"status": "determined", "result": "no"}, {"status": "amended", "result": "yes"}, {"result": "yes"}),
        ({"status": "determined", "result": "yes"}, {"status": "disputed", **FINAL}, FINAL),
        (
            {"status": "determined", **FINAL},
            {"status": "finalized", "result": "yes", "settled_at": "2026-11-22T19:05:00Z"},
            {**FINAL, "settled_at": "2026-11-22T19:05:00Z"},
        ),
    ],
)
def test_a_settlement_changes_by_better_evidence_only(
    registry: Registry, first: dict[str, Any], then: dict[str, Any], kept: dict[str, Any]
) -> None:
    registry.upsert_markets("kalshi", [market("KXA", **first)])
    registry.upsert_markets("kalshi", [market("KXA", **then)])
    assert registry.market("kalshi", "KXA") == market("KXA", **{**then, **kept})
    assert registry.upsert_markets("kalshi", [market("KXA", **then)]) == 0


def test_a_market_that_was_corrected_is_held_against_what_it_was_before(registry: Registry) -> None:
    registry.upsert_markets("kalshi", [market("KXA", status="determined", result="no")])
    registry.upsert_markets("kalshi", [market("KXA", status="finalized", **FINAL)])
    registry.upsert_markets("kalshi", [market("KXA", status="amended", result="no")])
    assert registry.market("kalshi", "KXA") == market("KXA", status="finalized", **FINAL)


def test_active_markets_are_told_with_when_they_were_heard_page_by_page(registry: Registry) -> None:
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    known = [market("KXA"), market("KXB", open_time=None), market("KXC"), market("KXD", status="closed")]
    registry.upsert_markets("kalshi", known)
    registry.record_heard("kalshi", ["KXA", "KXD"], at)
    registry.record_heard("kalshi", ["KXA"], at + timedelta(hours=1))

    first = registry.heard_markets("kalshi", 2)
    assert [one.ticker for one in first] == ["KXA", "KXB"]
    assert (first[0].first_heard, first[0].last_heard) == (at, at + timedelta(hours=1))
    assert first[0].open_time == datetime(2026, 11, 22, 18, 45, tzinfo=UTC)
    assert (first[1].open_time, first[1].first_heard, first[1].last_heard) == (None, None, None)
    assert abs((first[0].known_from - datetime.now(UTC)).total_seconds()) < 60
    assert [one.ticker for one in registry.heard_markets("kalshi", 2, "KXB")] == ["KXC"]
    assert registry.heard_markets("kalshi", 2, "KXC") == []


def test_markets_never_heard_are_active_ones_without_a_frame(registry: Registry) -> None:
    at = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
    registry.upsert_markets("kalshi", [market(t) for t in ("KXC", "KXA", "KXB")] + [market("KXD", status="closed")])
    assert [m.ticker for m in registry.never_heard("kalshi")] == ["KXA", "KXB", "KXC"]
    registry.record_heard("kalshi", ["KXB", "KX-UNKNOWN", "KXB", "nul\x00"], at)
    registry.record_heard("kalshi", [], at)
    assert registry.never_heard("kalshi") == [market("KXA"), market("KXC")]
    assert [m.ticker for m in registry.never_heard("kalshi", limit=1)] == ["KXA"]
    registry.record_heard("kalshi", ["KXA", "KXB", "KXC"], at - timedelta(hours=1))
    registry.record_heard("kalshi", ["KXA", "KXB", "KXC"], at + timedelta(seconds=59))
    assert registry.never_heard("kalshi") == []
    with pytest.raises(ConfigError, match="no feed"):
        registry.record_heard("nofeed", ["KXA"], at)


def test_a_vanished_market_is_in_no_list_until_it_is_listed_again(registry: Registry) -> None:
    assert isinstance(registry, MemoryRegistry | PostgresRegistry)
    registry.upsert_markets("kalshi", [market("KXA"), market("KXB")])
    assert registry.unlist_markets("kalshi", ["KXA", "KX-UNKNOWN"]) == 1
    assert registry.unlist_markets("kalshi", ["KXA"]) == 0
    assert registry.markets("kalshi") == registry.markets("kalshi", "active") == [market("KXB")]
    assert registry.never_heard("kalshi") == [market("KXB")]
    assert registry.market("kalshi", "KXA") == market("KXA", listed=False)
    assert registry.upsert_markets("kalshi", [market("KXA")]) == 0
    assert registry.markets("kalshi") == registry.never_heard("kalshi") == [market("KXA"), market("KXB")]
    assert registry.market("kalshi", "KXA") == market("KXA")
    registry.unlist_markets("kalshi", ["KXA"])
    assert registry.upsert_markets("kalshi", [market("KXA", status="closed")]) == 1
    assert registry.market("kalshi", "KXA") == market("KXA", status="closed")


def test_connectors_that_hear_the_same_markets_at_once_do_not_wait_for_ever(registry: Registry) -> None:
    tickers = [f"KX-{n:03d}" for n in range(300)]
    registry.upsert_markets("kalshi", [market(t) for t in tickers])
    start = datetime(2026, 11, 22, tzinfo=UTC)
    failures: list[BaseException] = []

    def hear(order: int) -> None:
        try:
            for minute in range(5):
                registry.record_heard("kalshi", tickers[::order], start + timedelta(minutes=2 * minute))
        except BaseException as error:  # noqa: BLE001  (reported below, in the test's own thread)
            failures.append(error)

    threads = [threading.Thread(target=hear, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert registry.never_heard("kalshi") == []


def test_five_thousand_markets_go_in_at_once(registry: Registry) -> None:
    many = [market(f"KX-{n:05d}") for n in range(5_000)]
    assert registry.upsert_markets("kalshi", many) == 5_000
    assert registry.upsert_markets("kalshi", [*many[:4000], market("KX-04999", status="closed")]) == 1


def test_concurrent_writers_of_one_day_agree(registry: Registry) -> None:
    failures: list[BaseException] = []

    def connector(shard: int) -> None:
        for segment in range(10):
            registry.record_objects("kalshi", [raw(shard * 10 + segment), raw(99)])
            registry.record_gaps([gap(shard * 10 + segment, shard * 10 + segment + 1)])
            registry.record_issues([issue(1)])

    def secmaster(number: int) -> None:
        for turn in range(10):
            registry.upsert_markets("kalshi", [market("KXA"), market("KXB", title=f"{number}-{turn}")])

    def guarded(work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  (reported below, in the test's own thread)
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work, n)) for work in (connector, secmaster) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    (row,) = registry.inventory("kalshi", DAY, DAY)
    assert (row.record_count, row.gap_count) == (410, 40)
    assert registry.issues("kalshi", DAY) == [issue(40)]


def test_writers_of_the_same_instant_do_not_overlook_each_other(registry: Registry) -> None:
    rounds = 12
    registry.record_objects("kalshi", [raw(n, day=date(2026, 1, 1 + n), key=f"first-{n}") for n in range(rounds)])
    at_once = threading.Barrier(4, timeout=30)

    def writer(shard: int) -> None:
        for n in range(rounds):
            record = raw(n, day=date(2026, 1, 1 + n), key=f"shard-{shard}-{n}")
            at_once.wait()
            registry.record_objects("kalshi", [record])

    threads = [threading.Thread(target=writer, args=(shard,)) for shard in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counts = [row.record_count for row in registry.inventory("kalshi", date(2026, 1, 1), date(2026, 2, 1))]
    assert counts == [50] * rounds


def test_it_answers_a_ping(registry: Registry) -> None:
    registry.ping()


def test_the_strikes_of_markets_are_given_to_who_asks_for_them(registry: Registry) -> None:
    market = Market(
        "KXGOLD-1", "KXGOLD", "Gold?", "active", None, None, "", {"floor_strike": 4180.5, "rules": "long"},
        series_ticker="KXGOLD", category="Commodities",
    )  # fmt: skip
    registry.upsert_markets("kalshi", [market])
    found = registry.find_markets("kalshi", MarketFilter(words=("kxgold-1",), strikes=True))
    assert [its.raw for its in found] == [{"strike_type": None, "floor_strike": 4180.5, "cap_strike": None}]


def test_the_words_that_markets_have_are_each_told_once(registry: Registry) -> None:
    assert registry.market_words("kalshi") == MarketWords((), ())
    named = [("A", "closed", "Crypto"), ("B", "active", "Test"), ("C", "active", "Crypto"), ("D", "active", "")]
    registry.upsert_markets(
        "kalshi",
        [
            Market(t, t, t, status, None, None, "", {}, series_ticker=t, category=category)
            for t, status, category in named
        ],
    )
    assert registry.market_words("kalshi") == MarketWords(("active", "closed"), ("Crypto", "Test"))
