"""The listing changed while the exchange runs: what REST says, what the lifecycle channel tells, what is refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ssmd.clock import now_ns
from ssmd.simulator.listing import micros
from tests.unit.simulator.listing import GENERATED, MARKETS, Asked, event, exchange, market, series, write_objects


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with exchange(write_objects(tmp_path / "objects"), rate=0.001) as client:
        yield client


async def row(asked: Asked, ticker: str) -> Any:
    return (await asked.get(f"/markets/{ticker}"))["market"]


class Heard:
    """A client of the lifecycle channels."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def next(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """(type, msg) of the next frames; their numbers have no hole."""
        frames = [await asyncio.wait_for(self._socket.receive_json(), 5) for _ in range(count)]
        return [(frame["type"], frame["msg"]) for frame in frames]


@pytest.fixture
async def heard(asked: Asked) -> AsyncIterator[Heard]:
    async with aiohttp.ClientSession() as session, session.ws_connect(asked.simulator.ws_url) as socket:
        channels = ["market_lifecycle_v2", "multivariate_market_lifecycle"]
        await socket.send_json({"id": 1, "cmd": "subscribe", "params": {"channels": channels}})
        for _ in channels:
            assert (await socket.receive_json())["type"] == "subscribed"
        yield Heard(socket)


async def test_a_changed_field_moves_the_time_of_the_last_update(asked: Asked) -> None:
    before = now_ns() // 1000
    await asked.order({"ticker": "KXA-1-T1", "set": {"rules_primary": "new", "yes_sub_title": None}})

    found = await row(asked, "KXA-1-T1")

    assert before - 1 <= micros(found["updated_time"]) <= now_ns() // 1000
    assert found == {**MARKETS[0], "rules_primary": "new", "yes_sub_title": None, "updated_time": found["updated_time"]}
    assert await asked.tickers(min_updated_ts=before // 1_000_000 - 1) == ["KXA-1-T1"]


async def test_the_time_of_the_last_update_stays_or_is_what_it_was_told_to_be(asked: Asked) -> None:
    await asked.order({"ticker": "KXA-1-T1", "set": {"volume_fp": "1.00"}, "touch": False})
    await asked.order({"ticker": "KXA-1-T2", "set": {"updated_time": "2026-11-20T00:00:00Z"}})

    assert (await row(asked, "KXA-1-T1"))["updated_time"] == MARKETS[0]["updated_time"]
    assert (await row(asked, "KXA-1-T1"))["volume_fp"] == "1.00"
    assert (await row(asked, "KXA-1-T2"))["updated_time"] == "2026-11-20T00:00:00Z"


async def test_generated_markets_can_be_changed_and_removed(asked: Asked) -> None:
    tickers = [row["ticker"] for row in (await asked.get("/markets", status="open", limit=1000))["markets"]]
    generated = [ticker for ticker in tickers if ticker.startswith("TEST-")]
    await asked.order([{"ticker": generated[0], "set": {"title": "changed"}}, {"remove": generated[1]}])
    await asked.order({"ticker": generated[0], "set": {"subtitle": "too"}})

    found = await row(asked, generated[0])

    assert (found["title"], found["subtitle"]) == ("changed", "too")
    await asked.get(f"/markets/{generated[1]}", 404)
    assert len((await asked.get("/markets", limit=1000))["markets"]) == GENERATED + len(MARKETS) - 1


async def test_a_settlement_is_completed_as_the_exchange_does(asked: Asked, heard: Heard) -> None:
    await asked.order({"ticker": "KXA-1-T1", "set": {"status": "determined", "result": "yes"}})
    determined = await row(asked, "KXA-1-T1")
    await asked.order({"ticker": "KXA-1-T1", "set": {"status": "finalized"}})
    finalized = await row(asked, "KXA-1-T1")

    assert (determined["settlement_value_dollars"], "settlement_ts" in determined) == ("1.0000", False)
    assert micros(finalized["settlement_ts"]) > micros("2026-11-01T00:00:00Z")
    now = micros(finalized["settlement_ts"]) // 1_000_000
    first, second = await heard.next(2)
    assert abs(first[1].pop("determination_ts") - now) <= 1
    assert first == (
        "market_lifecycle_v2",
        {"market_ticker": "KXA-1-T1", "result": "yes", "settlement_value": "1.0000", "event_type": "determined"},
    )
    assert second == (
        "market_lifecycle_v2",
        {"market_ticker": "KXA-1-T1", "settled_ts": now, "event_type": "settled"},
    )


@pytest.mark.parametrize(
    ("ticker", "fields", "told"),
    [
        ("KXB-1-T1", {"status": "active"}, [{"is_deactivated": False, "event_type": "activated"}]),
        ("KXA-1-T1", {"status": "inactive"}, [{"is_deactivated": True, "event_type": "deactivated"}]),
        ("KXB-1-T1", {"floor_strike": 1.5}, [{"event_type": "metadata_updated", "floor_strike": 1.5}]),
        (
            "KXB-1-T1",
            {"close_time": "2026-12-24T00:00:00Z"},
            [{"close_ts": 1_798_070_400, "event_type": "close_date_updated"}],
        ),
        (
            "KXB-1-T1",
            {"price_level_structure": "deci_cent", "price_ranges": [{"start": "0.0000"}]},
            [
                {
                    "event_type": "price_level_structure_updated",
                    "price_level_structure": "deci_cent",
                    "price_ranges": [{"start": "0.0000"}],
                }
            ],
        ),
    ],
)
async def test_the_lifecycle_channel_tells_of_changes(
    asked: Asked, heard: Heard, ticker: str, fields: dict[str, Any], told: list[dict[str, Any]]
) -> None:
    await asked.order({"ticker": ticker, "set": {"rules_primary": "nothing tells of this"}})
    await asked.order({"ticker": ticker, "set": fields})

    frames = await heard.next(len(told))

    assert frames == [("market_lifecycle_v2", {"market_ticker": ticker, **msg}) for msg in told]


async def test_a_combo_is_told_on_its_own_channel(asked: Asked, heard: Heard) -> None:
    await asked.order({"ticker": "KXMVEX-S1-1", "set": {"status": "inactive"}})

    ((kind, msg),) = await heard.next(1)

    assert (kind, msg["event_type"]) == ("multivariate_market_lifecycle", "deactivated")


async def test_a_new_market_is_listed_and_told(asked: Asked, heard: Heard) -> None:
    bare = {"ticker": "KXN-1-T1", "event_ticker": "KXN-1", "status": "active", "close_time": "2026-12-24T00:00:00Z"}
    await asked.order([{"add": series("KXN")}, {"add": {"event": event("KXN-1", "KXN"), "markets": [bare]}}])

    found = await row(asked, "KXN-1-T1")
    frames = await heard.next(3)

    assert found == {**bare, "created_time": found["created_time"], "updated_time": found["updated_time"], "result": ""}
    assert (await asked.get("/events/KXN-1"))["markets"] == [found]
    assert (await asked.get("/series/KXN"))["series"]["last_updated_ts"]
    assert [(kind, msg.get("event_type")) for kind, msg in frames] == [
        ("event_lifecycle", None),
        ("market_lifecycle_v2", "created"),
        ("market_lifecycle_v2", "activated"),
    ]
    assert frames[0][1]["series_ticker"] == "KXN"
    assert frames[1][1]["close_ts"] == 1_798_070_400
    assert frames[1][1]["additional_metadata"]["event_ticker"] == "KXN-1"


async def test_a_recorded_market_has_an_empty_book_for_subscribers(asked: Asked) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(asked.simulator.ws_url) as socket:
        await socket.send_json(
            {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"], "market_tickers": ["KXA-1-T1"]}}
        )
        assert (await socket.receive_json())["type"] == "subscribed"
        snapshot = (await socket.receive_json())["msg"]

    assert snapshot["market_ticker"] == "KXA-1-T1"
    assert snapshot["market_id"]
    assert "yes_dollars_fp" not in snapshot


async def test_lists_can_be_empty_for_a_while(asked: Asked) -> None:
    await asked.order({"hide": 2, "of": "markets"})
    lists = [await asked.get("/markets", limit=1) for _ in range(3)]
    assert [(len(body["markets"]), bool(body["cursor"])) for body in lists] == [(0, False), (0, False), (1, True)]

    await asked.order({"hide": True})
    for _ in range(3):
        assert (await asked.get("/markets"))["markets"] == []
        assert (await asked.get("/events"))["events"] == []
        assert (await asked.get("/series"))["series"] == []
    assert (await asked.get("/markets/KXA-1-T1"))["market"]["ticker"] == "KXA-1-T1"
    await asked.order({"hide": False})
    assert (await asked.get("/series"))["series"]


async def test_events_and_series_can_be_changed_and_removed(asked: Asked) -> None:
    await asked.order([{"event": "KXA-1", "set": {"title": "new"}}, {"series": "KXA", "set": {"tags": ["gold"]}}])
    await asked.order([{"remove": "KXB-1", "of": "events"}, {"remove": "KXB", "of": "series"}])

    changed = (await asked.get("/events/KXA-1"))["event"]
    assert changed["title"] == "new"
    assert micros(changed["last_updated_ts"]) > micros("2026-11-02T00:00:00Z")
    assert (await asked.get("/series/KXA"))["series"]["tags"] == ["gold"]
    await asked.get("/events/KXB-1", 404)
    await asked.get("/series/KXB", 404)


async def test_the_answer_and_a_page_say_what_is_listed(asked: Asked) -> None:
    answer = await asked.order([{"remove": "KXA-1-T1"}, {"hide": 1, "of": "events"}])

    assert answer["changed"] == 2
    assert answer["listed"]["markets"] == GENERATED + len(MARKETS) - 1
    async with aiohttp.ClientSession() as session, session.get(f"{asked.simulator.control_url}/markets") as page:
        assert await page.json() == answer["listed"]
    assert answer["listed"]["hidden"] == {"events": 1}


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({}, "one of"),
        ({"ticker": "KXA-1-T1"}, "one of"),
        ({"set": {"status": "active"}}, "one of"),
        ({"ticker": "KXA-1-T1", "event": "KXA-1", "set": {}}, "one of"),
        ({"ticker": "KXA-1-T1", "set": {}, "hide": 1}, "one of"),
        ({"ticker": "NOPE", "set": {}}, "there is no NOPE among the markets"),
        ({"event": "NOPE", "set": {}}, "there is no NOPE among the events"),
        ({"remove": "NOPE"}, "there is no NOPE"),
        ({"ticker": "KXA-1-T1", "set": {"ticker": "KXA-9"}}, "ticker cannot be changed"),
        ({"add": {"title": "nameless"}}, "no market, event or series to add"),
        ({"add": market("KXA-1-T1", "KXA-1", 1)}, "KXA-1-T1 is listed already"),
        ({"hide": -1}, "hide takes"),
        ({"hide": "all"}, "not an order"),
        ({"cutoff": "soon"}, "is not a time"),
        ({"tikcer": "KXA-1-T1"}, "not an order"),
        ([{"remove": "KXA-1-T1"}, {"remove": "KXA-1-T1"}], "order 2 of 2"),
        ("KXA-1-T1", "not an order"),
    ],
    ids=str,
)
async def test_an_order_that_cannot_be_carried_out_changes_nothing(asked: Asked, order: object, told: str) -> None:
    body = await asked.order([{"remove": "KXB-1-T1"}, *(order if isinstance(order, list) else [order])], 400)

    assert told.replace("2 of 2", "3 of 3") in body["message"]
    assert body["code"] == "bad_request"
    assert await row(asked, "KXB-1-T1") == MARKETS[3]


async def test_orders_of_one_list_build_on_each_other(asked: Asked) -> None:
    added = market("KXNEW-1-T1", "KXNEW-1", 30)
    await asked.order([{"add": added}, {"ticker": "KXNEW-1-T1", "set": {"status": "closed"}}, {"remove": "KXA-1-T1"},
                       {"add": MARKETS[0]}])  # fmt: skip

    assert (await row(asked, "KXNEW-1-T1"))["status"] == "closed"
    assert await row(asked, "KXA-1-T1") == MARKETS[0]
