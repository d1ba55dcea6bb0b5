"""Trades and candles over HTTP, out of memory and archive, compared with what the exchange sent."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from ssmd.archive.layout import TickerObject
from ssmd.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, now_ns
from ssmd.gateway import archived_trades, trade_history
from ssmd.gateway.caller import Caller
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.routes import Ask
from ssmd.market.events import Gap
from ssmd.middleware.storage.local import LocalStorage
from ssmd.registry.interface import Market, RegistryUnavailable
from ssmd.simulator.options import SimulatorOptions
from tests.checker.reading import read_archive
from tests.checker.trades import raw_trade
from tests.flow.gateway_stage import FEED, Stage, running, until
from tests.flow.stack import capture
from tests.trade_archive import (
    GENEROUS,
    NOON,
    NORMALIZED,
    OTHER,
    TICKER,
    TODAY,
    YESTERDAY,
    World,
    archive_an_hour,
    trade,
)


async def ask(stage: Stage, path: str, status: int = 200, **query: Any) -> dict[str, Any]:
    """The document, its numbers as Decimal."""
    url = URL(f"{stage.url}{path}?{urlencode(query)}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
        assert response.status == status, text
        document: dict[str, Any] = json.loads(text, parse_float=Decimal)
        return document


async def all_pages(stage: Stage, path: str, rows: str, **query: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """The rows of all pages, and the pages."""
    pages = [await ask(stage, path, **query)]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(await ask(stage, path, **query, cursor=cursor))
        assert len(pages) < 500
    return [row for page in pages for row in page[rows]], pages


def iso(ns: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)).isoformat()


# --- the whole capture ------------------------------------------------------------------------------------------------


@dataclass
class Sent:
    """A trade as the exchange sent it, read from the raw archive without ssmd's code."""

    trade_id: str
    price: Decimal
    size: Decimal
    side: str
    ts_ms: int
    order: tuple[int, int]


def sent_trades(folder: Path) -> dict[str, list[Sent]]:
    """By ticker, each once, in the order of time."""
    found: dict[str, dict[str, Sent]] = defaultdict(dict)
    for record, frame in read_archive(folder, FEED).raw_trades:
        trade, _ = raw_trade(record, frame)
        if trade is not None:
            ts = json.loads(frame)["msg"]["ts_ms"]
            sent = Sent(trade.trade_id, trade.price, trade.size, trade.side, ts, (record.recv_ns, trade.seq))
            found[trade.ticker].setdefault(trade.trade_id, sent)
    return {ticker: sorted(trades.values(), key=lambda t: (t.ts_ms, t.order)) for ticker, trades in found.items()}


def candles_of(trades: Sequence[Sent], length_ms: int) -> list[dict[str, Any]]:
    """Computed anew, in Decimal."""
    buckets: dict[int, list[Sent]] = defaultdict(list)
    for each in trades:
        buckets[each.ts_ms - each.ts_ms % length_ms].append(each)
    return [
        {
            "ts": ts,
            "open": held[0].price,
            "high": max(t.price for t in held),
            "low": min(t.price for t in held),
            "close": held[-1].price,
            "volume": sum(t.size for t in held),
            "trades": len(held),
        }
        for ts, held in sorted(buckets.items())
    ]


async def test_what_was_captured_is_answered_trade_by_trade_and_candle_by_candle(tmp_path: Path) -> None:
    begun = now_ns()
    async with capture(tmp_path, SimulatorOptions(rate=3000, window_s=60)) as stack:
        stack.start_connector()
        stack.start_archiver()
        await stack.until(lambda: stack.sent > 3000)
        await asyncio.sleep(2.5)  # the archiver has stored what came before the gateway
        async with running(stack.registry, storage=stack.storage, broker=stack.transport, limits=GENEROUS) as stage:
            before = stack.sent
            await stack.until(lambda: stack.sent > before + 3000)
            await stack.finish()
            expected = sent_trades(tmp_path / "storage")
            assert sum(map(len, expected.values())) > 100
            start = iso(begun - begun % (60 * NS_PER_S))
            for ticker in sorted(expected, key=lambda t: -len(expected[t]))[:5]:
                await compare(stage, ticker, expected[ticker], start)


async def compare(stage: Stage, ticker: str, expected: list[Sent], start: str) -> None:
    path = f"/v1/markets/{percent(ticker, safe='')}"
    rows, pages = await all_pages(stage, f"{path}/trades", "trades", start=start, order="asc", limit=7)
    assert [(r["trade_id"], r["price"], r["size"], r["side"], r["ts"]) for r in rows] == [
        (t.trade_id, t.price, t.size, t.side, t.ts_ms) for t in expected
    ]
    assert pages[0]["source"] in ("archive", "archive+memory")
    newest_first, _ = await all_pages(stage, f"{path}/trades", "trades", start=start, limit=1000)
    assert newest_first == rows[::-1]
    candles, _ = await all_pages(stage, f"{path}/history", "candles", start=start, interval="1m", limit=1)
    assert [{name: candle[name] for name in candles_of(expected, 60_000)[0]} for candle in candles] == candles_of(
        expected, 60_000
    )


# --- an archive made by hand ------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(LocalStorage(tmp_path))


@pytest.fixture
async def stage(world: World) -> AsyncIterator[Stage]:
    async with running(world.registry, lambda: world.now, storage=world.storage, limits=GENEROUS) as stage:
        await until(lambda: stage.gateway.hub.connected)
        yield stage


TRADES = f"/v1/markets/{TICKER}/trades"
HISTORY = f"/v1/markets/{TICKER}/history"
SINCE_YESTERDAY = "2026-11-21"


async def test_archive_and_memory_are_one_without_seam_or_repetition(world: World, stage: Stage) -> None:
    archived = await archive_an_hour(world)
    live = [trade(world.now + 2 * NS_PER_S + n * NS_PER_MS, 2000 + n) for n in range(30)]
    stage.publish(*live[:20])
    last = [
        *live[:20],
        msgspec.structs.replace(live[5], connection="c-2", received_ns=live[5].received_ns + 1),
        *live[20:],
    ]
    await world.segment(TODAY, last[:25], 500)
    stage.publish(*live[20:])
    await until(lambda: len(stage.gateway.hub.board.trades(TICKER, 100)) == 30)
    world.now += 10 * NS_PER_S
    ids = [t.trade_id for t in (*archived, *live)]
    for limit in (1, 7, 95, 1000):
        for order in ("asc", "desc"):
            rows, pages = await all_pages(stage, TRADES, "trades", start=SINCE_YESTERDAY, order=order, limit=limit)
            assert [row["trade_id"] for row in rows] == (ids if order == "asc" else ids[::-1]), (limit, order)
            assert all(len(page["trades"]) <= limit for page in pages)
    whole = await ask(stage, TRADES, start=SINCE_YESTERDAY, limit=1000)
    assert whole["source"] == "archive+memory"
    assert (whole["complete"], whole["missing"]) == (True, [])


async def test_without_start_the_last_trades_come_from_memory_without_a_look_at_the_archive(
    world: World, stage: Stage
) -> None:
    await archive_an_hour(world)
    stage.publish(*[trade(world.now + 2 * NS_PER_S + n, n) for n in range(1, 4)])
    await until(lambda: len(stage.gateway.hub.board.trades(TICKER, 9)) == 3)
    world.now += 3 * NS_PER_S
    world.storage.log.clear()
    found = await ask(stage, TRADES)
    assert ([row["size"] for row in found["trades"]], found["source"]) == (
        [Decimal("0.75"), Decimal("0.5"), Decimal("0.25")],
        "memory",
    )
    assert found["next_cursor"] is None
    assert world.storage.log == []
    assert [row["size"] for row in (await ask(stage, TRADES, order="asc", limit=2))["trades"]] == [
        Decimal("0.5"),
        Decimal("0.75"),
    ]


async def test_what_memory_holds_is_answered_without_the_archive(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    world.now += 300 * NS_PER_S
    stage.publish(*[trade(world.now + n, n) for n in range(1, 4)])
    await until(lambda: len(stage.gateway.hub.board.trades(TICKER, 9)) == 3)
    start, world.now = iso(world.now - 100 * NS_PER_S), world.now + NS_PER_S
    world.storage.log.clear()
    for order in ("asc", "desc"):
        rows, pages = await all_pages(stage, TRADES, "trades", start=start, order=order, limit=2)
        assert len(rows) == 3
        assert {page["source"] for page in pages} == {"memory"}
    assert world.storage.log == []


async def test_what_memory_let_go_comes_from_the_archive(world: World, stage: Stage) -> None:
    first = world.now + 300 * NS_PER_S
    many = [trade(first + n * NS_PER_MS, n) for n in range(1, 301)]  # memory holds 200 of a ticker
    stage.publish(*many)
    await until(lambda: len(stage.gateway.hub.board.trades(TICKER, 999)) == 200)
    world.now = first + NS_PER_S
    found = await ask(stage, TRADES, start=iso(first), limit=1000)
    assert (len(found["trades"]), [hole["reason"] for hole in found["missing"]]) == (200, ["not_archived_yet"])
    await world.segment(TODAY, many[:150], 1)
    found = await ask(stage, TRADES, start=iso(first), limit=1000)
    assert (len(found["trades"]), found["complete"], found["source"]) == (300, True, "archive+memory")


async def test_only_the_segments_of_the_time_asked_for_are_read(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    world.storage.log.clear()
    start, end = NOON - 3_600 * NS_PER_S, NOON - 3_570 * NS_PER_S
    found = await ask(stage, TRADES, start=iso(start), end=iso(end))
    assert [row["trade_id"] for row in found["trades"]] == [f"{TICKER[-12:]}/1"]
    read = [key for method, key in world.storage.log if method == "stream"]
    assert len(read) == 2, read  # the first, and one whose trades may be as late as this


async def test_what_is_not_archived_yet_is_said(world: World, stage: Stage) -> None:
    archived = await archive_an_hour(world)
    world.now += NS_PER_S
    found = await ask(stage, TRADES, start="2026-11-22", limit=1000)
    assert found["complete"] is False
    assert [hole["reason"] for hole in found["missing"]] == ["not_archived_yet"]
    assert found["missing"][0]["from_ts"] == archived[-1].received_ns // NS_PER_MS
    earlier = await ask(stage, TRADES, start="2026-11-22", end="2026-11-22T11:30:00Z", limit=1000)
    assert (earlier["complete"], len(earlier["trades"])) == (True, 30)


async def test_a_day_with_nothing_archived_is_missing_and_a_quiet_one_is_not(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    quiet = await ask(stage, f"/v1/markets/{OTHER}/trades", start="2026-11-21", end="2026-11-21")
    assert (quiet["trades"], quiet["complete"]) == ([], True)
    nothing = await ask(stage, TRADES, start="2026-11-19", end="2026-11-19")
    assert [hole["reason"] for hole in nothing["missing"]] == ["nothing_archived"]


async def test_recorded_gaps_mark_the_range_and_the_candles_that_they_touch(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    from_ns = NOON - 1_800 * NS_PER_S + 10 * NS_PER_S
    gap = Gap(FEED, "c-1", None, from_ns, from_ns + 60 * NS_PER_S, "connection_lost")
    foreign = msgspec.structs.replace(gap, tickers=(OTHER,), from_ns=from_ns - 600 * NS_PER_S, reason="sequence_gap")
    world.registry.record_gaps([gap, foreign])
    found = await ask(
        stage, HISTORY, interval="1m", start="2026-11-22T11:00:00Z", end="2026-11-22T11:50:00Z", limit=100
    )
    assert [hole["reason"] for hole in found["missing"]] == ["connection_lost"]
    assert [c["ts"] // 60_000 % 60 for c in found["candles"] if c["gap"]] == [30, 31]
    assert len(found["candles"]) == 50


async def test_candles_are_exact_and_tell_blocks_and_the_one_that_is_not_over(world: World, stage: Stage) -> None:
    at = NOON - 1_800 * NS_PER_S
    trades = [
        trade(at, 1, price=440_000),
        trade(at + 1, 2, price=990_000, block=True),
        trade(at + 2, 3, price=10_000),
        trade(at + 3, 5, price=450_001),
        trade(world.now - 3 * NS_PER_S, 4, price=500_000),
    ]
    await world.segment(TODAY, trades, 1)
    found = await ask(stage, HISTORY, interval="1h", start="2026-11-22T11:00:00Z")
    volume = Decimal("2.75")
    turnover = sum(Decimal(n) / 4 * Decimal(p) for n, p in ((1, "0.44"), (2, "0.99"), (3, "0.01"), (5, "0.450001")))
    first, second = found["candles"]
    assert (first["open"], first["high"], first["low"], first["close"]) == tuple(
        map(Decimal, ("0.44", "0.99", "0.01", "0.450001"))
    )
    assert (first["volume"], first["trades"], first["block_trades"], first["block_volume"]) == (
        volume,
        4,
        1,
        Decimal("0.5"),
    )
    assert first["vwap"] == (turnover / volume).quantize(Decimal("0.000001"))
    assert "forming" not in first
    assert (second["forming"], second["ts"]) == (True, NOON // NS_PER_MS)


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d"])
async def test_candles_of_pages_are_the_candles_of_one_answer(world: World, stage: Stage, interval: str) -> None:
    await archive_an_hour(world)
    query: dict[str, Any] = {"interval": interval, "start": "2026-11-21", "end": "2026-11-22T12:00:00Z"}
    whole = await ask(stage, HISTORY, **query, limit=2000)
    for limit in (1, 9):
        rows, _ = await all_pages(stage, HISTORY, "candles", **query, limit=limit)
        assert rows == whole["candles"]
    assert sum(candle["trades"] for candle in whole["candles"]) == 65


async def test_a_damaged_object_costs_its_own_time_only(world: World, stage: Stage, tmp_path: Path) -> None:
    await archive_an_hour(world)
    segments = sorted((tmp_path / NORMALIZED).rglob("_segments/*.capnp.zst"))
    whole = segments[2].read_bytes()
    for damage in (whole[:-7], whole[:40] + b"\xff" + whole[41:], b"", whole + whole, b"\x00" * 99):
        segments[2].chmod(0o644)
        segments[2].write_bytes(damage)
        found = await ask(stage, TRADES, start="2026-11-22", end="2026-11-22T11:50:00Z", limit=1000)
        assert [hole["reason"] for hole in found["missing"]] == ["archive_object_damaged"]
        assert found["complete"] is False
        assert len({row["trade_id"] for row in found["trades"]} | {f"{TICKER[-12:]}/{n}" for n in range(21, 31)}) == 50
    segments[2].unlink()
    assert len((await ask(stage, TRADES, start="2026-11-22", limit=1000))["trades"]) == 50


async def test_damaged_and_missing_manifests_hide_no_trade(world: World, stage: Stage, tmp_path: Path) -> None:
    await archive_an_hour(world)
    manifests = sorted((tmp_path / NORMALIZED).rglob("_manifest/_segments/*.json"))
    manifests[0].unlink()
    for file in (manifests[1], tmp_path / NORMALIZED / TickerObject(FEED, "trade", YESTERDAY, TICKER).manifest_key):
        file.chmod(0o644)
        file.write_bytes(b'{"key":')
    stray = manifests[2].parents[2] / "_segments" / "stray.txt"
    stray.write_text("?")
    found = await ask(stage, TRADES, start="2026-11-21", limit=1000)
    assert len(found["trades"]) == 65


async def test_compaction_between_listing_and_reading_is_followed(world: World, stage: Stage) -> None:
    day = date(2026, 11, 20)
    trades = [trade(NOON - 2 * NS_PER_DAY + n * NS_PER_S, n) for n in range(1, 41)]
    for first in (0, 20):
        await world.segment(day, trades[first : first + 20], first + 1)
    listed = world.inner.list
    pending = True

    async def list_then_compact(bucket: str, prefix: str) -> Any:
        nonlocal pending
        entries = await listed(bucket, prefix)
        if pending and prefix.endswith("2026/11/20/_segments/"):
            pending = False
            await world.compacted(day, TICKER, trades)
            for entry in entries:
                await world.inner.delete(bucket, entry.key)
        return entries

    world.inner.list = list_then_compact  # type: ignore[method-assign]
    found = await ask(stage, TRADES, start="2026-11-20", end="2026-11-20", limit=1000)
    assert len(found["trades"]) == 40
    assert found["missing"] == []


async def test_a_storage_that_is_away_costs_the_past_only(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    world.storage.away = True
    problem = await ask(stage, TRADES, 503, start="2026-11-22")
    assert (problem["code"], "next" in problem) == ("archive_away", True)
    stage.publish(trade(world.now + 2 * NS_PER_S, 77))
    await until(lambda: bool(stage.gateway.hub.board.trades(TICKER, 1)))
    world.now += 3 * NS_PER_S
    found = await ask(stage, TRADES, start="2026-11-22")
    assert ([row["trade_id"] for row in found["trades"]], found["complete"]) == ([f"{TICKER[-12:]}/77"], False)
    assert [hole["reason"] for hole in found["missing"]] == ["archive_away"]
    recent = await ask(stage, TRADES)
    assert (recent["source"], recent["complete"]) == ("memory", True)


async def test_a_silent_storage_is_given_up(world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await archive_an_hour(world)
    monkeypatch.setattr(trade_history, "READ_S", 0.05)
    monkeypatch.setattr(trade_history, "WAIT_S", 0.02)

    async def silence(bucket: str, prefix: str) -> Any:
        await asyncio.sleep(30)

    world.inner.list = silence  # type: ignore[method-assign]
    answers = await asyncio.gather(*(ask(stage, TRADES, 503, start="2026-11-22") for _ in range(5)))
    assert {answer["code"] for answer in answers} == {"archive_slow", "archive_busy"}


async def test_one_request_reads_so_much_and_the_next_goes_on(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived = await archive_an_hour(world)
    monkeypatch.setattr(archived_trades, "LATE_NS", NS_PER_S)
    monkeypatch.setattr(archived_trades, "SCAN_OBJECTS", 4)
    for order in ("asc", "desc"):
        rows, pages = await all_pages(stage, TRADES, "trades", start="2026-11-21", order=order, limit=1000)
        expected = [t.trade_id for t in archived]
        assert [row["trade_id"] for row in rows] == (expected if order == "asc" else expected[::-1])
        assert len(pages) > 2
    candles, _ = await all_pages(stage, HISTORY, "candles", start="2026-11-21", interval="1m", limit=1000)
    assert sum(candle["trades"] for candle in candles) == 65
    monkeypatch.setattr(archived_trades, "SCAN_BYTES", 10)
    problem = await ask(stage, TRADES, 413, start="2026-11-22")
    assert problem["code"] == "too_much_to_read"
    assert "shorter" in problem["next"]


async def test_an_exchange_clock_that_cannot_be_is_not_believed(world: World, stage: Stage) -> None:
    old = trade(NOON, 1, received_ns=NOON, exchange_ns=NOON - 40 * NS_PER_DAY)
    await world.segment(TODAY, [old], 1)
    found = await ask(stage, TRADES, start="2026-11-22", end="2026-11-22T12:10:00Z")
    assert [row["ts"] for row in found["trades"]] == [old.exchange_ns // NS_PER_MS]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"start": "2026-11-22", "end": "2026-11-21T00:00:00Z"}, "start"),
        ({"start": "2026-09-22"}, "start"),
        ({"end": "2026-11-22"}, "start"),
        ({"start": "yesterday"}, "start"),
        ({"start": "2026-11-22", "cursor": "AAAA"}, "cursor"),
        ({"start": "2026-11-22", "cursor": "%%%"}, "cursor"),
        ({"cursor": "AAAA"}, "start"),
        ({"start": "2026-11-22", "limit": "0"}, "limit"),
        ({"start": "2026-11-22", "order": "up"}, "order"),
        ({"start": "9999-12-31", "end": "9999-12-31"}, "start"),
    ],
)
async def test_wrong_questions_are_answered_with_the_parameter(
    stage: Stage, query: dict[str, str], parameter: str
) -> None:
    problem = await ask(stage, TRADES, 400, **query)
    assert problem["parameter"] == parameter
    assert problem["next"]


async def test_a_cursor_belongs_to_its_question(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    cursor = (await ask(stage, TRADES, start="2026-11-21", limit=1))["next_cursor"]
    assert (await ask(stage, TRADES, start="2026-11-21", limit=3, cursor=cursor))["trades"]
    await ask(stage, TRADES, 400, start="2026-11-22", cursor=cursor)
    await ask(stage, TRADES, 400, start="2026-11-21", order="asc", cursor=cursor)
    await ask(stage, f"/v1/markets/{OTHER}/trades", 400, start="2026-11-21", cursor=cursor)
    await ask(stage, HISTORY, 400, start="2026-11-21", cursor=cursor)
    await ask(stage, TRADES, 400, start="2026-11-21", cursor=cursor[:-2] + "AA")


async def test_the_archive_needs_the_scope_of_history(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    (route,) = [route for route in stage.gateway.routes if route.path.endswith("/trades")]
    caller = Caller("192.0.2.1", scopes=frozenset({"read:live"}))
    asked: dict[str, Any] = {"ticker": TICKER, "start": None, "end": None, "order": "desc", "limit": 5, "cursor": None}
    await route.handler(Ask(make_mocked_request("GET", TRADES), asked, caller))
    asked["start"] = datetime(2026, 11, 22, tzinfo=UTC)
    with pytest.raises(ApiProblem) as refused:
        await route.handler(Ask(make_mocked_request("GET", TRADES), asked, caller))
    assert (refused.value.status, refused.value.code) == (403, "scope_missing")


@pytest.mark.parametrize(("interval", "start"), [("1m", "2026-10-01"), ("5m", "2026-08-01"), ("1d", "2025-01-01")])
async def test_a_range_that_is_too_long_says_what_to_ask_instead(stage: Stage, interval: str, start: str) -> None:
    problem = await ask(stage, HISTORY, 400, interval=interval, start=start)
    assert problem["code"] == "range_too_long"
    assert ("interval=" in problem["next"]) == (interval != "1d")


@pytest.mark.parametrize(
    "ticker", ["../../etc/passwd", "A/B", "%", "é" * 64, "x" * 128, "KX HIGH.5*>", "_segments", "a\nb", "_"]
)
async def test_hostile_tickers_are_markets_like_others(world: World, stage: Stage, ticker: str) -> None:
    path = f"/v1/markets/{percent(ticker, safe='')}"
    for name in ("trades", "history"):
        assert (await ask(stage, f"{path}/{name}", 404, start="2026-11-21"))["code"] == "unknown_market"
    world.registry.upsert_markets(FEED, [Market(ticker, "E", "?", "active", None, None, "", {})])
    await world.segment(TODAY, [trade(NOON, 7, ticker=ticker, trade_id="own")], 1)
    for name, rows in (("trades", "trades"), ("history", "candles")):
        found = await ask(stage, f"{path}/{name}", start="2026-11-22")
        assert len(found[rows]) == 1


async def test_an_unchanged_past_is_answered_304(world: World, stage: Stage) -> None:
    await archive_an_hour(world)
    url = f"{stage.url}{HISTORY}?start=2026-11-21&end=2026-11-21&interval=1h"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as first:
            assert first.status == 200
        async with session.get(url, headers={"If-None-Match": first.headers["ETag"]}) as second:
            assert (second.status, await second.read()) == (304, b"")


async def test_the_event_loop_keeps_its_time_while_the_archive_is_read(world: World, stage: Stage) -> None:
    many = [
        trade(NOON - 3_600 * NS_PER_S + n * NS_PER_MS, n, ticker=OTHER if n % 3 else TICKER) for n in range(1, 60_000)
    ]
    for first in range(0, len(many), 15_000):
        await world.segment(TODAY, many[first : first + 15_000], first + 1)
    longest, stop = 0.0, asyncio.Event()
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        nonlocal longest
        while not stop.is_set():
            before = loop.time()
            await asyncio.sleep(0.001)
            longest = max(longest, loop.time() - before - 0.001)

    watching = asyncio.create_task(watch())
    found = await ask(stage, HISTORY, start="2026-11-22T11:00:00Z", interval="1m")
    stop.set()
    await watching
    assert sum(candle["trades"] for candle in found["candles"]) == 19_999
    assert longest < 0.25  # a generous bound for a busy machine: read on the loop, this takes longer


async def test_an_environment_without_storage_says_so(world: World) -> None:
    async with running(world.registry, lambda: world.now) as stage:
        found = await ask(stage, TRADES, start="2026-11-22")
        assert [hole["reason"] for hole in found["missing"]] == ["no_archive"]


async def test_without_its_database_the_past_is_answered_and_its_gaps_are_not_known(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive_an_hour(world)

    def away(*_: object) -> Any:
        raise RegistryUnavailable("away")

    for name in ("market", "gaps", "inventory", "find_markets"):
        monkeypatch.setattr(world.registry, name, away)
    found = await ask(stage, TRADES, start="2026-11-22", end="2026-11-22T11:30:00Z", limit=1000)
    assert (len(found["trades"]), [hole["reason"] for hole in found["missing"]]) == (30, ["gaps_not_known"])
    problem = await ask(stage, "/v1/markets/NOBODY/trades", 503, start="2026-11-22")
    assert problem["code"] == "unavailable"
