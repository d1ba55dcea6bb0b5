"""The pages of the security master, asked over HTTP: filters, what goes together, paging, errors."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ssmd.clock import NS_PER_S, now_ns
from ssmd.feeds.kalshi.rest import KalshiRest
from ssmd.simulator.listing import Listing
from ssmd.simulator.market import MarketGenerator
from ssmd.simulator.objects import Objects
from ssmd.simulator.rest_markets import CataloguePages, event_status
from tests import tapes
from tests.unit.simulator.listing import EVENTS, GENERATED, MARKETS, SERIES, Asked, exchange, write_objects

ALL = ["KXA-1-T2", "KXB-2-T1", "KXA-2-T1", "KXB-1-T1", "KXA-1-T1", "KXMVEX-S1-1"]
"""In order of creation."""
T0 = 1_793_491_200
"""2026-11-01T00:00:00Z"""


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with exchange(write_objects(tmp_path / "objects")) as client:
        yield client


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ALL),
        ({"status": "open"}, ["KXA-1-T1", "KXMVEX-S1-1"]),
        ({"status": "open", "mve_filter": "exclude"}, ["KXA-1-T1"]),
        ({"mve_filter": "only"}, ["KXMVEX-S1-1"]),
        ({"status": "unopened"}, ["KXB-1-T1"]),
        ({"status": "paused"}, ["KXA-1-T2"]),
        ({"status": "closed"}, ["KXB-2-T1"]),
        ({"status": "settled"}, ["KXA-2-T1"]),
        ({"tickers": "KXA-2-T1,KXB-1-T1,NOPE"}, ["KXA-2-T1", "KXB-1-T1"]),
        ({"event_ticker": "KXA-1"}, ["KXA-1-T2", "KXA-1-T1"]),
        ({"series_ticker": "KXA"}, ["KXA-1-T2", "KXA-2-T1", "KXA-1-T1"]),
        ({"series_ticker": "KX"}, []),
        ({"min_created_ts": T0 + 240}, ["KXA-1-T1", "KXMVEX-S1-1"]),
        ({"max_created_ts": T0 + 240}, ["KXA-1-T2", "KXB-2-T1", "KXA-2-T1"]),
        ({"min_created_ts": T0 + 60, "max_created_ts": T0 + 181, "status": ""}, ["KXB-2-T1", "KXA-2-T1"]),
        ({"min_created_ts": T0, "status": "unopened"}, ["KXB-1-T1"]),
        ({"max_close_ts": T0 + 30 * 86_400}, ["KXB-2-T1", "KXA-2-T1"]),
        ({"max_close_ts": T0 + 2 * 86_400, "status": "closed"}, ["KXB-2-T1"]),
        ({"min_settled_ts": T0 + 2 * 86_400}, ["KXA-2-T1"]),
        ({"min_settled_ts": T0 + 2 * 86_400 + 1, "status": "settled"}, []),
        ({"max_settled_ts": T0 + 2 * 86_400}, []),
        ({"min_updated_ts": T0 + 240, "mve_filter": "exclude"}, ["KXA-1-T1"]),
        ({"min_updated_ts": T0 + 240}, ["KXA-1-T1", "KXMVEX-S1-1"]),
        ({"max_updated_ts": T0 + 60}, ["KXA-1-T2"]),
        ({"min_updated_ts": T0 + 60, "series_ticker": "KXA", "mve_filter": "exclude"}, ["KXA-2-T1", "KXA-1-T1"]),
    ],
    ids=str,
)
async def test_markets_are_filtered(asked: Asked, query: dict[str, Any], expected: list[str]) -> None:
    assert await asked.tickers(**query) == expected
    assert await asked.tickers(**query, limit=1) == expected


@pytest.mark.parametrize(
    "query",
    [
        {"status": "active"},
        {"status": "open,closed"},
        {"mve_filter": "include"},
        {"limit": 1001},
        {"limit": -1},
        {"limit": "ten"},
        {"limit": "١"},
        {"cursor": "%%%"},
        {"cursor": "bm8"},
        {"min_created_ts": T0, "min_close_ts": T0},
        {"max_settled_ts": T0, "max_updated_ts": T0},
        {"min_created_ts": T0, "status": "closed"},
        {"max_created_ts": T0, "status": "settled"},
        {"min_close_ts": T0, "status": "open"},
        {"min_close_ts": T0, "status": "settled"},
        {"min_settled_ts": T0, "status": "closed"},
        {"min_updated_ts": T0, "status": "open"},
        {"min_updated_ts": T0, "mve_filter": "only"},
        {"min_updated_ts": T0, "tickers": "KXA-1-T1"},
        {"min_updated_ts": T0, "event_ticker": "KXA-1"},
        {"min_updated_ts": T0, "series_ticker": "KXA"},
        {"min_updated_ts": "2026-11-01T00:00:00Z"},
    ],
    ids=str,
)
async def test_what_does_not_go_together_is_a_flat_error(asked: Asked, query: dict[str, Any]) -> None:
    body = await asked.get("/markets", 400, **query)

    assert body.keys() == {"code", "message", "details"}
    assert body["code"] == "bad_request"
    assert body["message"]


async def test_generated_and_recorded_markets_are_listed_together(asked: Asked) -> None:
    rows = (await asked.get("/markets", limit=1000))["markets"]

    assert len(rows) == GENERATED + len(MARKETS)
    by_ticker = {row["ticker"]: row for row in rows}
    assert [by_ticker[row["ticker"]] for row in MARKETS] == MARKETS
    assert (await asked.get("/markets"))["cursor"] == ""
    assert (await asked.get("/markets/KXA-1-T1"))["market"] == MARKETS[0]
    assert (await asked.get("/markets/KXA-1-T1/orderbook"))["orderbook_fp"] == {"yes_dollars": [], "no_dollars": []}
    assert (await asked.get("/markets/KXA-1-T9", 404)) == {
        "code": "not_found", "message": "market not found", "details": "",
    }  # fmt: skip


async def test_a_page_is_not_moved_by_markets_that_come_and_go(asked: Asked) -> None:
    first = await asked.get("/markets", limit=3, max_created_ts=T0 + 3600)
    await asked.order([{"remove": "KXA-2-T1"}, {"remove": "KXA-1-T2"}])

    second = await asked.get("/markets", limit=3, max_created_ts=T0 + 3600, cursor=first["cursor"])

    assert [row["ticker"] for row in first["markets"]] == ALL[:3]
    assert [row["ticker"] for row in second["markets"]] == ALL[3:]
    assert second["cursor"] == ""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["KXA-1", "KXA-2", "KXB-1", "KXB-2", "KXC-1"]),
        ({"status": "open"}, ["KXA-1", "KXC-1"]),
        ({"status": "unopened"}, ["KXB-1"]),
        ({"status": "closed"}, ["KXB-2"]),
        ({"status": "settled"}, ["KXA-2"]),
        ({"series_ticker": "KXB"}, ["KXB-1", "KXB-2"]),
        ({"tickers": "KXA-2,KXMVEX-S1,KXC-1"}, ["KXA-2", "KXC-1"]),
        ({"min_close_ts": T0 + 86_400}, ["KXA-1", "KXB-1", "KXB-2"]),
        ({"min_updated_ts": T0 + 9}, ["KXA-1", "KXB-1"]),
        ({"min_updated_ts": T0 + 10}, ["KXB-1"]),
        ({"limit": 2}, ["KXA-1", "KXA-2"]),
    ],
    ids=str,
)
async def test_events_are_filtered_and_hold_no_combos(asked: Asked, query: dict[str, Any], expected: list[str]) -> None:
    assert await asked.events(**query) == expected


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 201},
        {"limit": 0},
        {"status": "paused"},
        {"with_nested_markets": "yes"},
        {"cursor": "!"},
        {"min_close_ts": "x"},
    ],
    ids=str,
)
async def test_wrong_questions_about_events_are_flat_errors(asked: Asked, query: dict[str, Any]) -> None:
    assert (await asked.get("/events", 400, **query))["code"] == "bad_request"


async def test_combos_have_a_page_of_their_own(asked: Asked) -> None:
    assert await asked.events("/events/multivariate") == ["KXMVEX-S1"]
    assert await asked.events("/events/multivariate", series_ticker="KXMVEX") == ["KXMVEX-S1"]
    assert await asked.events("/events/multivariate", collection_ticker="KXMVEX-R") == ["KXMVEX-S1"]
    assert await asked.events("/events/multivariate", collection_ticker="other") == []
    assert await asked.events("/events/multivariate", tickers="KXA-1") == []
    await asked.get("/events/multivariate", 400, series_ticker="KXMVEX", collection_ticker="KXMVEX-R")


async def test_an_event_comes_with_its_markets_where_they_were_asked_for(asked: Asked) -> None:
    plain = await asked.get("/events/KXA-1")
    nested = await asked.get("/events/KXA-1", with_nested_markets="true")
    bare = await asked.get("/events/KXA-1", exclude_markets="true")

    markets = [MARKETS[1], MARKETS[0]]
    assert plain == {"event": EVENTS[0], "markets": markets}
    assert nested == {"event": {**EVENTS[0], "markets": markets}}
    assert bare == {"event": EVENTS[0]}
    await asked.get("/events/KXA-1", 400, with_nested_markets="true", exclude_markets="true")
    assert (await asked.get("/events/KXA-9", 404))["message"] == "event not found"
    listed = await asked.get("/events", tickers="KXA-1", with_nested_markets="true", with_milestones="true")
    assert listed == {"events": [{**EVENTS[0], "markets": markets}], "cursor": "", "milestones": []}


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "open"),
        (["finalized", "active"], "open"),
        (["finalized", "inactive"], "open"),
        (["finalized", "initialized"], "unopened"),
        (["finalized", "amended"], "closed"),
        (["closed"], "closed"),
        (["finalized", "finalized"], "settled"),
    ],
)
def test_an_event_is_where_its_last_market_is(statuses: list[str], expected: str) -> None:
    assert event_status([{"status": status} for status in statuses]) == expected


async def test_series_are_filtered_and_not_paged(asked: Asked) -> None:
    async def tickers(**query: Any) -> list[str]:
        rows = (await asked.get("/series", **query))["series"]
        return [row["ticker"] for row in rows if not row["ticker"].startswith("TEST-")]

    body = await asked.get("/series", limit=1)
    assert body.keys() == {"series"}
    assert await tickers(limit=1) == ["KXA", "KXB"]
    assert await tickers(category="Politics") == ["KXB"]
    assert await tickers(category="politics") == []
    assert await tickers(tags="eth,btc") == ["KXA"]
    assert await tickers(min_updated_ts=T0 + 3 * 86_400) == ["KXA"]
    assert await tickers(min_updated_ts=T0 + 4 * 86_400) == []
    assert (await asked.get("/series/KXA"))["series"] == SERIES[0]
    await asked.get("/series/KXZ", 404)
    await asked.get("/series", 400, include_volume="maybe")


async def test_what_costs_the_exchange_something_must_be_asked_for(asked: Asked) -> None:
    async def fields(**query: Any) -> set[str]:
        (row,) = (await asked.get("/series", tags="btc", **query))["series"]
        return {"volume_fp", "product_metadata"} & set(row)

    assert await fields() == set()
    assert await fields(include_volume="true") == {"volume_fp"}
    assert await fields(include_volume="true", include_product_metadata="true") == {"volume_fp", "product_metadata"}


async def test_markets_settled_before_the_cutoff_are_on_the_historical_pages_only(asked: Asked) -> None:
    assert (await asked.get("/historical/markets"))["markets"] == []
    await asked.order({"cutoff": "2026-11-04T00:00:00Z"})

    assert "KXA-2-T1" not in await asked.tickers()
    assert [row["ticker"] for row in (await asked.get("/historical/markets"))["markets"]] == ["KXA-2-T1"]
    assert (await asked.get("/historical/markets", tickers="KXA-1-T1"))["markets"] == []
    assert (await asked.get("/historical/markets/KXA-2-T1"))["market"]["result"] == "yes"
    assert (await asked.get("/historical/cutoff"))["market_settled_ts"] == "2026-11-04T00:00:00Z"
    await asked.get("/historical/markets/KXA-1-T1", 404)
    await asked.get("/historical/markets", 400, tickers="KXA-1-T1", event_ticker="KXA-1")


def test_generated_markets_settle_and_stay_listed() -> None:
    generator = MarketGenerator(seed=1, now_ns=T0 * NS_PER_S, rate=1, window_s=60, strikes=2)
    pages: Any = CataloguePages(Listing(generator, Objects()))
    first = {row["ticker"] for row in pages.market_list({"status": "open"})["markets"]}
    for second in range(0, 60 * 30, 5):  # thirty windows: the generator itself has forgotten the first ones
        generator.take((T0 + second) * NS_PER_S, 10)

    settled = {row["ticker"]: row for row in pages.market_list({"status": "settled", "limit": "1000"})["markets"]}

    assert first <= settled.keys()
    assert len(settled) > 6 * 25
    for ticker in first:
        row = settled[ticker]
        assert row["settlement_ts"] > row["close_time"]
        assert row["settlement_value_dollars"] == {"yes": "1.0000", "no": "0.0000"}[row["result"]]
        event = pages.event_one({}, row["event_ticker"])
        assert row in event["markets"]
        assert pages.market_one({}, ticker) == {"market": row}


async def test_trades_page_newest_first_without_repeats() -> None:
    async with exchange(rate=5000) as asked:
        asked.simulator.source.take(now_ns() + NS_PER_S, 500)
        first = await asked.get("/markets/trades", limit=5)
        asked.simulator.source.take(now_ns() + 2 * NS_PER_S, 500)  # more at the head
        second = await asked.get("/markets/trades", limit=5, cursor=first["cursor"])

        times = [trade["created_time"] for trade in first["trades"] + second["trades"]]
        assert len({trade["trade_id"] for trade in first["trades"] + second["trades"]}) == 10
        assert times == sorted(times, reverse=True)
        assert (await asked.get("/markets/trades", is_block_trade="true"))["trades"] == []
        assert (await asked.get("/markets/trades", max_ts=1))["trades"] == []


@pytest.mark.replay
@pytest.mark.parametrize("name", ["kalshi_rest_2026-09-25", "kalshi_golden_2026-01", "kalshi_gold15m/metadata"])
async def test_real_recordings_are_served_unchanged_to_our_own_client(name: str) -> None:
    folder = tapes.tape(*name.split("/"))
    async with exchange(folder) as asked, KalshiRest(asked.simulator.rest_url) as rest:
        recorded = asked.simulator.source.market_table.recorded()
        listed = {market.ticker: market async for market in rest.markets()}
        events = [event.ticker async for page in rest.event_pages() for event in page]
        combos = [event.ticker async for page in rest.event_pages(multivariate=True) for event in page]

        assert len(recorded) >= 6
        assert set(recorded) <= set(listed)
        assert rest.malformed == 0
        assert set(asked.simulator.source.event_table.recorded()) <= {*events, *combos}
        for ticker, row in list(recorded.items())[:20]:
            assert (await asked.get(f"/markets/{ticker}"))["market"] == row
