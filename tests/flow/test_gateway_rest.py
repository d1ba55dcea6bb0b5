"""The gateway over HTTP: exact numbers, pages, problems, and what is served while the database is away."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote as percent

import aiohttp
import msgspec
import pytest
from yarl import URL

from ssmd.gateway import catalogue
from ssmd.gateway.health import StorageWatch
from ssmd.market.events import SCALE, Gap, MarketStatus, Status
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.registry.interface import Market, MarketFilter, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from tests.fakes.faulty_storage import FaultyStorage
from tests.flow.gateway_stage import FEED, Stage, connected, running, until
from tests.unit.gateway.events import T0, book, delta, quote, trade

TICKER = "INXD-25-B4000"
HOSTILE = 'KXHIGH/25% <b>"B32.5"</b>{x}.*>'


def market(ticker: str, status: str = "active", **raw: Any) -> Market:
    return Market(
        ticker, "INXD", f"Will <i>{ticker}</i> close above 4000?", status, None, "2023-12-31T23:59:59Z", "", raw
    )


class Registry(MemoryRegistry):
    """A database that can go away, or keep silent."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.silence = threading.Event()
        self.silence.set()

    def _answer(self) -> None:
        self.silence.wait(10)
        if self.away:
            raise RegistryUnavailable("the database at 127.0.0.1 does not answer")

    def find_markets(self, feed: str, wanted: MarketFilter, limit: int = 1000, after: str = "") -> list[Market]:
        self._answer()
        return super().find_markets(feed, wanted, limit, after)

    def market(self, feed: str, ticker: str) -> Market | None:
        self._answer()
        return super().market(feed, ticker)

    def gaps(self, feed: str, day: Any, last: Any = None) -> list[Gap]:
        self._answer()
        return super().gaps(feed, day, last)

    def ping(self) -> None:
        self._answer()


@pytest.fixture
async def registry() -> Registry:
    registry = Registry()
    registry.upsert_markets(
        FEED, [market(TICKER), market("B-1"), market("B-2", "closed"), market("B-3"), market(HOSTILE)]
    )
    return registry


@pytest.fixture
async def stage(registry: Registry) -> AsyncIterator[Stage]:
    async with running(registry, clock=lambda: T0 + 3_600 * 10**9) as stage:
        yield stage


async def get(stage: Stage, path: str, status: int = 200) -> dict[str, Any]:
    """The JSON object at a path, taken as it is written."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(stage.url + path, encoded=True)) as response,
    ):
        assert response.status == status, await response.text()
        expected = "application/json" if status == 200 or path == "/v1/health" else "application/problem+json"
        assert response.content_type == expected
        body: dict[str, Any] = await response.json(content_type=None)
        body["_text"] = await response.text()
        if response.content_type == "application/problem+json":
            assert body["status"] == status
            assert body["title"]
        return body


async def test_a_market_explains_itself_with_exact_numbers(stage: Stage) -> None:
    stage.publish(
        book(TICKER, 1, bids=((440_000, 1500 * SCALE), (100_000, 5_500_000)), asks=((460_000, 2000 * SCALE),)),
        trade(TICKER, 1, price=450_000),
    )
    found = await get(stage, f"/v1/markets/{TICKER}")
    assert found["title"].startswith("Will <i>")
    assert (found["feed"], found["status"]) == (FEED, "active")
    assert '"yes":0.45,"no":0.55,"last_trade":0.45,' in found["_text"]
    assert '"best_bid":0.44,"best_ask":0.46,"spread":0.02,"bid_depth":1505.5,"ask_depth":2000,' in found["_text"]
    assert found["current_price"]["last_trade_time"].startswith("2023-11-14T22:13:20.000000")
    quality = found["data_quality"]
    assert (quality["status"], quality["gaps_today"], quality["metadata"]) == ("healthy", 0, "present")
    assert quality["last_update"].startswith("2023-11-14T22:13:20")
    assert found["contract"]["days_to_expiry"] == 47
    assert found["_links"]["trades"] == f"/v1/markets/{TICKER}/trades"
    assert found["_hints"]["price_interpretation"] == "0.45 yes price implies 45% probability of yes"


async def test_a_market_with_quotes_only_is_summarized_from_them(stage: Stage) -> None:
    stage.publish(quote(TICKER))
    found = await get(stage, f"/v1/markets/{TICKER}")
    assert found["orderbook_summary"] == {
        "best_bid": 0.44, "best_ask": 0.46, "spread": 0.02, "bid_depth": 100, "ask_depth": 150, "source": "ticker",
    }  # fmt: skip
    assert found["current_price"]["yes"] == 0.45


async def test_a_market_never_heard_live_says_so(stage: Stage) -> None:
    found = await get(stage, "/v1/markets/B-1")
    assert found["current_price"] is found["orderbook_summary"] is None
    assert found["data_quality"]["status"] == "unknown"


async def test_gaps_of_today_degrade_the_markets_they_touch(stage: Stage, registry: Registry) -> None:
    stage.publish(trade(TICKER), trade("B-1"))
    registry.record_gaps([Gap(FEED, "c-1", 1, T0, T0 + 10**9, "sequence_gap", 1, 3, (TICKER,))])
    assert (await get(stage, f"/v1/markets/{TICKER}"))["data_quality"]["status"] == "degraded"
    quality = (await get(stage, "/v1/markets/B-1"))["data_quality"]
    assert (quality["status"], quality["gaps_today"]) == ("healthy", 0)


async def test_the_live_state_of_a_market_overrides_older_metadata(stage: Stage) -> None:
    stage.publish(MarketStatus(T0, T0, TICKER, "c-1", 4, 0, Status.DETERMINED, "yes", SCALE))
    found = await get(stage, f"/v1/markets/{TICKER}")
    assert (found["status"], found["result"]) == ("determined", "yes")


async def test_markets_are_listed_in_pages(stage: Stage) -> None:
    tickers: list[str] = []
    path = "/v1/markets?limit=2"
    while True:
        page = await get(stage, path)
        tickers += [row["ticker"] for row in page["markets"]]
        assert page["source"] == "registry"
        if page["next_cursor"] is None:
            break
        assert len(page["markets"]) == 2
        path = f"/v1/markets?limit=2&cursor={page['next_cursor']}"
    assert tickers == sorted(["B-1", "B-2", "B-3", TICKER, HOSTILE])
    assert (await get(stage, "/v1/markets?limit=5"))["next_cursor"] is None


async def test_markets_are_filtered_by_status(stage: Stage) -> None:
    page = await get(stage, "/v1/markets?status=closed")
    assert [row["ticker"] for row in page["markets"]] == ["B-2"]


async def test_a_status_that_no_market_can_have_is_a_problem_and_one_that_none_has_now_is_not(stage: Stage) -> None:
    problem = await get(stage, "/v1/markets?status=finalised", 400)
    assert (problem["code"], problem["parameter"], problem["near"][0]) == ("bad_parameter", "status", "finalized")
    assert "closed" in problem["next"]
    assert (await get(stage, "/v1/markets?status=disputed"))["markets"] == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=%D9%A3", "cursor=%21", "cursor=" + "A" * 999, "cursor=gICA",
     "status=" + "x" * 33],
)  # fmt: skip
async def test_wrong_parameters_are_a_problem_that_names_them(stage: Stage, query: str) -> None:
    problem = await get(stage, f"/v1/markets?{query}", 400)
    assert query.partition("=")[0] in problem["detail"]


async def test_trades_come_newest_first_and_exactly(stage: Stage) -> None:
    stage.publish(*(trade(TICKER, n, price=450_000 + n, size=SCALE // 4) for n in range(60)))
    found = await get(stage, f"/v1/markets/{TICKER}/trades?limit=3")
    assert [t["trade_id"] for t in found["trades"]] == [f"{TICKER}/{n}" for n in (59, 58, 57)]
    assert '"price":0.450059,"size":0.25,' in found["_text"]
    assert len((await get(stage, f"/v1/markets/{TICKER}/trades"))["trades"]) == 50
    await get(stage, f"/v1/markets/{TICKER}/trades?limit=1001", 400)
    assert (await get(stage, "/v1/markets/B-1/trades"))["trades"] == []


async def test_an_order_book_shows_its_best_levels(stage: Stage) -> None:
    stage.publish(book(TICKER, 1, bids=tuple((n * 10_000, n * SCALE) for n in range(1, 31)), asks=((460_000, SCALE),)))
    found = await get(stage, f"/v1/markets/{TICKER}/orderbook?depth=2")
    assert '"bids":[[0.3,30],[0.29,29]],"asks":[[0.46,1]]' in found["_text"]
    assert (found["bid_levels"], found["ask_levels"], found["stale"]) == (30, 1, False)


async def test_a_book_that_waits_for_its_snapshot_is_not_shown(stage: Stage) -> None:
    stage.publish(delta(TICKER, 5))
    await get(stage, f"/v1/markets/{TICKER}/orderbook", 503)
    await get(stage, "/v1/markets/B-1/orderbook", 404)


async def test_hostile_tickers_are_found_by_their_percent_encoding(stage: Stage) -> None:
    stage.publish(trade(HOSTILE))
    found = await get(stage, f"/v1/markets/{percent(HOSTILE, safe='')}")
    assert found["ticker"] == HOSTILE
    assert len((await get(stage, found["_links"]["trades"]))["trades"]) == 1
    async with connected(stage) as client:
        await client.ask(action="subscribe", symbols=[HOSTILE])
        assert (await client.next())["unknown"] == []


@pytest.mark.parametrize("name", ["%2e%2e", "-x", "x" * 129, "%00", "%FF", "%ED%A0%80", "a%0d%0ab"])
async def test_impossible_tickers_are_refused_or_unknown(stage: Stage, name: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(URL(f"{stage.url}/v1/markets/{name}", encoded=True)) as response,
    ):
        assert response.status in (400, 404)
        assert response.content_type == "application/problem+json"


async def test_an_unknown_market_names_near_ones(stage: Stage) -> None:
    stage.publish(trade("INXD-25-B4000"))
    problem = await get(stage, "/v1/markets/INXD-25-B400", 404)
    assert problem["near"] == ["INXD-25-B4000"]
    for tail in ("/trades", "/orderbook"):
        await get(stage, f"/v1/markets/INXD-25-B400{tail}", 404)


@pytest.mark.parametrize(
    ("path", "near"), [("/v1/market", "/v1/markets"), ("/v1/helth", "/v1/health"), ("/v2/streem", "/v1/stream")]
)
async def test_an_unknown_path_names_near_ones(stage: Stage, path: str, near: str) -> None:
    assert near in (await get(stage, path, 404))["detail"]


async def test_an_unlike_path_lists_what_there_is_and_other_methods_are_refused(stage: Stage) -> None:
    assert "/v1/health" in (await get(stage, "/zzzz", 404))["near"]
    async with aiohttp.ClientSession() as session, session.delete(f"{stage.url}/v1/markets") as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]
        assert response.content_type == "application/problem+json"


async def test_nothing_is_served_as_html(stage: Stage) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/v1/markets") as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.content_type == "application/json"


async def test_health_tells_each_dependency_and_turns_503_without_a_broker(stage: Stage, registry: Registry) -> None:
    await until(lambda: stage.gateway.health()["status"] == "ok")
    stage.publish(trade(TICKER))
    health = await get(stage, "/v1/health")
    assert health["dependencies"]["transport"] == {"state": "connected", "age_s": 0.0, "last_message_age_s": 0.0}
    assert health["dependencies"]["registry"]["state"] == "connected"
    registry.away = True
    await get(stage, "/v1/markets?status=active", 503)
    health = await get(stage, "/v1/health")
    assert (health["status"], health["dependencies"]["registry"]["state"]) == ("degraded", "away")
    stage.broker.up = False
    assert (await get(stage, "/v1/health", 503))["status"] == "down"
    assert (await get(stage, f"/v1/markets/{TICKER}"))["data_quality"]["status"] == "unavailable"


async def test_live_data_is_served_while_the_database_is_away(stage: Stage, registry: Registry) -> None:
    stage.publish(trade(TICKER), book("NEW", 1))
    registry.away = True
    found = await get(stage, f"/v1/markets/{TICKER}")
    assert (found["title"], found["contract"], found["current_price"]["yes"]) == (None, None, 0.45)
    assert (found["data_quality"]["metadata"], found["data_quality"]["gaps_today"]) == ("unavailable", None)
    page = await get(stage, "/v1/markets?limit=1")
    assert (page["source"], [row["ticker"] for row in page["markets"]]) == ("live", [TICKER])
    page = await get(stage, f"/v1/markets?limit=1&cursor={page['next_cursor']}")
    assert ([row["ticker"] for row in page["markets"]], page["next_cursor"]) == (["NEW"], None)
    assert len((await get(stage, f"/v1/markets/{TICKER}/trades"))["trades"]) == 1
    await get(stage, "/v1/markets/NEVER-HEARD", 503)
    registry.away = False
    assert (await get(stage, f"/v1/markets/{TICKER}"))["data_quality"]["metadata"] == "present"


async def test_a_silent_database_costs_a_moment_never_the_live_data(
    stage: Stage, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "ANSWER_S", 0.05)
    stage.publish(trade(TICKER))
    registry.silence.clear()
    try:
        for _ in range(6):  # more than there are threads for it
            assert (await get(stage, f"/v1/markets/{TICKER}"))["data_quality"]["metadata"] == "unavailable"
            assert stage.gateway._catalogue._busy <= catalogue.CONCURRENT
        async with connected(stage, f"{TICKER},NEVER-HEARD") as client:
            assert (await client.next())["unknown"] == ["NEVER-HEARD"]
    finally:
        registry.silence.set()
    await until(lambda: stage.gateway._catalogue._busy == 0)
    assert (await get(stage, f"/v1/markets/{TICKER}"))["data_quality"]["metadata"] == "present"


async def test_a_bug_in_one_answer_is_a_problem_like_any_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.gateway.hub.board, "updated_ns", None)
    await get(stage, "/v1/markets/NEVER-HEARD", 500)
    monkeypatch.undo()
    await get(stage, "/v1/health")


async def test_markets_are_found_by_all_that_is_asked_and_page_by_page(stage: Stage, registry: Registry) -> None:
    found = [
        Market(
            f"KXBTC-{n}",
            "KXBTC-26",
            f"Bitcoin above {n}?",
            "active",
            None,
            f"2026-12-0{n}T00:00:00Z",
            "",
            {},
            "KXBTC",
            "Crypto",
        )
        for n in range(1, 6)
    ]
    registry.upsert_markets(FEED, found)

    async def tickers(query: str) -> list[str]:
        page = await get(stage, f"/v1/markets?{query}")
        assert page["stale"] is False
        return [row["ticker"] for row in page["markets"]]

    assert await tickers("q=bitcoin+ABOVE") == [m.ticker for m in found]
    assert await tickers("q=bitcoin+3") == ["KXBTC-3"]
    assert await tickers("category=Crypto&series=KXBTC&event=KXBTC-26&status=active") == [m.ticker for m in found]
    assert await tickers("close_after=2026-12-02&close_before=2026-12-04T00:00:00Z") == ["KXBTC-2", "KXBTC-3"]
    assert await tickers("result=yes") == []
    first = await get(stage, "/v1/markets?q=bitcoin&limit=2")
    assert (first["source"], first["markets"][0]["category"]) == ("registry", "Crypto")
    assert await tickers(f"q=bitcoin&limit=2&cursor={first['next_cursor']}") == ["KXBTC-3", "KXBTC-4"]
    problem = await get(stage, f"/v1/markets?q=ethereum&cursor={first['next_cursor']}", 400)
    assert problem["parameter"] == "cursor"
    registry.unlist_markets(FEED, ["KXBTC-3"])
    assert await tickers("q=bitcoin+3") == []
    assert await tickers("q=bitcoin+3&listed=any") == await tickers("q=bitcoin+3&listed=false") == ["KXBTC-3"]


@pytest.mark.parametrize(
    "query", ["q=" + "a+" * 9, "q=" + "a" * 257, "listed=maybe", "close_after=soon", "series=", "q=%00"]
)
async def test_a_filter_that_is_none_is_named(stage: Stage, query: str) -> None:
    assert (await get(stage, f"/v1/markets?{query}", 400))["parameter"] == query.split("=", maxsplit=1)[0]


async def test_answers_are_what_their_types_say(stage: Stage) -> None:
    stage.publish(book(TICKER, 1, bids=((440_000, SCALE),), asks=((460_000, 3),)), trade(TICKER, 1), trade(HOSTILE, 2))
    await until(lambda: stage.gateway.hub.board.known(HOSTILE))
    for route in stage.gateway.routes:
        if not route.path.startswith("/v1/markets"):
            continue
        for ticker in (TICKER, HOSTILE, "B-1"):
            path = route.path.replace("{ticker}", percent(ticker, safe=""))
            if route.path.endswith("orderbook") and ticker != TICKER:
                continue
            found = await get(stage, path)
            msgspec.json.decode(found["_text"], type=route.answer)
            assert set(found) - {"_text"} == {field.encode_name for field in msgspec.structs.fields(route.answer)}


async def test_a_market_tells_its_contract_and_its_links(stage: Stage, registry: Registry) -> None:
    full = Market(
        "FULL", "E", "Will it?", "finalized", "2023-11-01T00:00:00Z", "2023-12-31T00:00:00Z", "yes",
        {"yes_sub_title": "Above 4000", "rules_primary": "If so.", "expected_expiration_time": "2023-12-30T00:00:00Z"},
        "S", "Crypto", "2024-01-05T00:00:00Z", None, "2024-01-01T12:00:00Z", "1.00",
    )  # fmt: skip
    registry.upsert_markets(FEED, [full])
    found = await get(stage, "/v1/markets/FULL")
    assert found["contract"] == {
        "open": "2023-11-01T00:00:00Z", "close": "2023-12-31T00:00:00Z", "expiration": "2023-12-30T00:00:00Z",
        "settlement": "2024-01-01T12:00:00Z", "settlement_value": "1.00", "days_to_expiry": 45,
    }  # fmt: skip
    assert (found["subtitle"], found["rules"], found["series_ticker"]) == ("Above 4000", "If so.", "S")
    assert found["_links"]["historical"] == "/v1/markets/FULL/history"
    for name in ("trades", "historical"):
        await get(stage, found["_links"][name])
    assert found["data_quality"]["reasons"] == ["nothing of this market was heard since the gateway started"]


async def test_health_names_every_dependency_and_tells_strangers_no_reasons(stage: Stage) -> None:
    health = await get(stage, "/v1/health")
    assert set(health["dependencies"]) == {"transport", "registry", "cache", "storage"}
    assert health["dependencies"]["storage"]["state"] == "none"
    assert health["dependencies"]["transport"]["state"] == "connected"
    stage.gateway.hub.on_state(False)
    assert (await get(stage, "/v1/health", 503))["status"] == "down"


async def test_an_archive_that_is_away_is_a_degraded_state_with_a_reason_for_operators() -> None:
    storage = FaultyStorage(MemoryStorage())
    watch = StorageWatch(storage)
    following = asyncio.create_task(watch.follow())
    await until(lambda: watch.available is True)
    following.cancel()
    storage.away = True
    following = asyncio.create_task(watch.follow())
    await until(lambda: watch.available is False)
    following.cancel()
    assert (watch.state, bool(watch.error)) == ("away", True)
