"""`/v1/stream` over real sockets: channels, modes, snapshots, questions, resuming, requests of odd shapes and sizes."""

import asyncio
import json
import os
import struct
from typing import Any

import aiohttp
import pytest

from ssmd.gateway import actions
from ssmd.market.events import Status
from tests.flow.gateway_stage import Stage, WebSocketReader, connected, running, until
from tests.flow.stream_schema import check_request
from tests.unit.gateway.events import book, delta, gap, quote, status, trade

LEVEL = ((440_000, 10**6),)


async def test_only_the_chosen_channels_of_a_symbol_are_sent() -> None:
    async with running() as stage, connected(stage) as client:
        await client.ask(action="subscribe", symbols=["A"], channels=["trade"])
        await client.ask(action="subscribe", symbols=["B"], channels=["ticker", "status"])
        await client.next()
        answer = await client.next()
        assert answer["channels_of"] == {"A": ["trade"], "B": ["ticker", "status"]}
        stage.publish(
            quote("A"), book("A", 1, bids=LEVEL), trade("B"), quote("B"), trade("A"), status("B", Status.OPEN)
        )
        seen = [await client.next() for _ in range(3)]
        assert [(m["type"], m["ticker"]) for m in seen] == [("ticker", "B"), ("trade", "A"), ("status", "B")]


async def test_conflated_clients_get_the_latest_once_per_interval() -> None:
    async with running() as stage, connected(stage) as client:
        await client.ask(action="subscribe", symbols=["*"], mode="conflated", interval_ms=200)
        assert (await client.next())["interval_ms"] == 200
        stage.publish(trade("A", 1))
        assert (await client.next())["trade_id"] == "A/1"
        started = asyncio.get_running_loop().time()
        stage.publish(book("A", 1, bids=LEVEL), *(delta("A", n, bids=((430_000, n * 10**6),)) for n in range(2, 50)))
        stage.publish(*(trade("A", n) for n in range(2, 40)))
        first, second = await client.next(), await client.next()
        assert asyncio.get_running_loop().time() - started > 0.1
        assert (first["kind"], first["bids"]) == ("snapshot", [[0.44, 1], [0.43, 49]])
        assert second["trade_id"] == "A/39"
        assert second["seq"] == client.told + 3


async def test_latest_sends_nothing_until_it_is_asked() -> None:
    async with running() as stage, connected(stage) as client:
        await client.ask(action="subscribe", symbols=["A", "B"], mode="latest")
        await client.next()
        stage.publish(book("A", 1, bids=LEVEL), trade("A", 1), trade("A", 2), quote("A"), status("A", Status.OPEN))
        await client.ask(action="ping")
        assert (await client.next())["type"] == "pong"
        await client.ask(action="snapshot", id=3)
        seen = [await client.next() for _ in range(6)]
        assert [m["type"] for m in seen] == ["error", "trade", "orderbook", "ticker", "status", "snapshot"]
        assert seen[0]["code"] == "no_book"
        assert (seen[1]["trade_id"], seen[1]["snapshot"]) == ("A/2", True)
        assert seen[-1] == {"type": "snapshot", "symbols": ["A", "B"], "missing": ["B"], "id": 3}
        assert not any("seq" in m for m in seen)


async def test_a_recorded_gap_makes_books_stale_until_they_are_whole_again() -> None:
    async with running() as stage, connected(stage, "A") as client:
        await client.next()
        stage.publish(book("A", 1, bids=LEVEL), gap(tickers=("A",)))
        for kind in ("orderbook", "gap"):
            assert (await client.next())["type"] == kind
        stale = await client.next()
        assert (stale["type"], stale["state"], stale["tickers"]) == ("book_state", "stale", ["A"])
        assert stale["reason"] == "connection_lost"
        async with connected(stage, "*") as late:
            await late.next()
            assert (await late.next())["state"] == "stale", "who comes later is told, too"
            assert (await late.next())["kind"] == "snapshot"
        stage.publish(book("A", 9, bids=LEVEL))
        assert (await client.next())["state"] == "live"
        assert (await client.next())["kind"] == "snapshot"


async def test_resuming_gives_exactly_what_was_missed() -> None:
    async with running() as stage, connected(stage, "*") as keeper:
        async with connected(stage, "A") as client:
            await client.next()
            stage.publish(book("A", 1, bids=LEVEL), *(trade("A", n) for n in range(5)))
            for _ in range(6):
                await client.next()
        await until(lambda: stage.gateway.health()["clients"] == 1)
        for batch in range(10):
            stage.publish(*(trade("A", 100 * batch + n) for n in range(10, 40)), delta("A", batch + 2, bids=LEVEL))
            await asyncio.sleep(0)
        async with connected(stage) as back:
            await back.ask(action="subscribe", symbols=["A"], from_seq=client.seq)
            answer = await back.next()
            assert (answer["resumed"], answer["seq"]) == (True, client.seq)
            stage.publish(trade("A", 5_000))
            seen = [await back.next() for _ in range(311)]
            assert [m["seq"] for m in seen] == [back.told + n for n in range(1, 312)]
            assert seen[-1]["trade_id"] == "A/5000"
            assert [m["type"] for m in seen].count("orderbook") == 10
        del keeper


async def test_a_long_resume_does_not_need_room_for_all_of_it() -> None:
    async with running(buffer_bytes=64 * 1024) as stage:
        async with connected(stage, "A") as client:
            await client.next()
        await until(lambda: stage.gateway.health()["clients"] == 0)
        for batch in range(60):
            stage.publish(*(trade("A", 500 * batch + n) for n in range(500)))
            await asyncio.sleep(0)
        async with connected(stage) as back:
            await back.ask(action="subscribe", symbols=["A"], from_seq=client.seq)
            assert (await back.next())["resumed"] is True
            while (await back.until_type("trade"))["trade_id"] != "A/29999":
                pass
            assert back.skipped == 0
            stage.publish(trade("A", 30_000))
            assert (await back.until_type("trade"))["seq"] == client.told + 30_001


async def test_what_is_not_kept_is_said_to_be_lost_and_books_come_whole() -> None:
    async with running(resume_s=0) as stage, connected(stage, "*"):
        async with connected(stage, "A") as client:
            stage.publish(book("A", 1, bids=LEVEL))
            await client.until_type("orderbook")
        await until(lambda: stage.gateway.health()["clients"] == 1)
        stage.publish(delta("A", 2, bids=((440_000, 7 * 10**6),)))
        await check_refused(stage, client)


async def test_a_restarted_gateway_does_not_mistake_the_number_for_one_of_its_own() -> None:
    async with running() as stage, connected(stage, "A") as client:
        await client.next()
        stage.publish(book("A", 1, bids=LEVEL), *(trade("A", n) for n in range(50)))
        for _ in range(51):
            await client.next()
    async with running() as stage, connected(stage, "A") as other:
        await other.next()
        stage.publish(book("A", 1, bids=((440_000, 7 * 10**6),)), *(trade("A", n) for n in range(50)))
        for _ in range(51):
            await other.next()
        await check_refused(stage, client)


async def check_refused(stage: Stage, client: WebSocketReader) -> None:
    async with connected(stage) as back:
        await back.ask(action="subscribe", symbols=["A"], from_seq=client.seq)
        answer, lost, whole = await back.next(), await back.next(), await back.next()
        assert client.seq is not None
        assert answer["resumed"] is False
        assert answer["seq"] > client.seq
        assert (lost["type"], lost["code"]) == ("gap", "RESUME_FAILED")
        assert (lost["from"], lost["to"]) == (client.seq + 1, answer["seq"])
        assert (whole["kind"], whole["bids"]) == ("snapshot", [[0.44, 7]])


async def test_a_question_in_words_is_answered() -> None:
    async with running() as stage, connected(stage, "A") as client:
        await client.next()
        await client.ask(action="query", natural_language="active markets about Bitcoin", id="q")
        answer = await client.next()
        assert (answer["type"], answer["id"]) in {("query", "q"), ("error", "q")}
        await client.ask(action="query", natural_language=" ", id="q")
        assert (await client.next())["code"] == "bad_question"


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("mode=conflated&symbols=A&interval_ms=5", "interval_ms"),
        ("symbols=A&speed=9", "speed"),
        ("mode=latest", "symbols"),
    ],
)
async def test_a_wrong_url_is_refused_before_the_upgrade(query: str, wrong: str) -> None:
    async with running() as stage, aiohttp.ClientSession() as session:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}  # fmt: skip
        async with session.get(f"{stage.url}/v1/stream?{query}", headers=headers) as response:
            problem = await response.json()
    assert response.status == 400
    assert wrong in problem["detail"]
    assert problem["next"]


async def test_the_url_can_choose_channels_and_mode() -> None:
    async with running() as stage, aiohttp.ClientSession() as session:
        url = f"{stage.url}/v1/stream?symbols=A,B&channels=trade&mode=conflated&interval_ms=50"
        async with session.ws_connect(url) as socket:
            answer = json.loads((await socket.receive()).data)
    assert (answer["symbols"], answer["channels"], answer["mode"]) == (["A", "B"], ["trade"], "conflated")


def masked(opcode: int, payload: bytes, *, final: bool) -> bytes:
    """A client's frame (RFC 6455 §5.2)."""
    key = os.urandom(4)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
    body = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
    return bytes([opcode | (0x80 if final else 0)]) + length + key + body


async def test_a_request_in_fragments_is_followed_and_a_huge_one_is_closed_with_a_reason() -> None:
    async with running() as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(
            b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"permessage-deflate" not in head
        text = b'{"action":"ping","id":1}'
        for at in range(len(text)):
            writer.write(masked(1 if at == 0 else 0, text[at : at + 1], final=at == len(text) - 1))
        assert b'"type":"pong"' in await asyncio.wait_for(reader.read(1_000), 5)
        writer.write(masked(1, b"[" * 40_000, final=False) + masked(0, b"[" * 30_000, final=False))
        end = await asyncio.wait_for(reader.read(), 10)
        assert end[:1] == b"\x88"
        assert int.from_bytes(end[2:4], "big") == 1009
        assert b"name fewer symbols" in end
        writer.close()


async def test_nonsense_is_answered_and_the_connection_lives_on() -> None:
    nonsense: list[Any] = [
        "", "{", "nul", '{"action":"subscribe","symbols":["A"],"channels":"all"}', '{"action":"\\ud800"}',
        '{"action":"subscribe","symbol":"A"}', '{"action":"subscribe","symbols":["A"],"from_seq":1e400}',
        "[" * 30_000, '"' + "é" * 9_000,
    ]  # fmt: skip
    async with running() as stage, connected(stage) as client:
        for text in nonsense:
            await client.web.send_str(text)
            answer = await client.next()
            assert (answer["type"], bool(answer["code"]), bool(answer["next"])) == ("error", True, True), text[:50]
            assert "Traceback" not in answer["message"]
        await client.ask(action="ping")
        assert (await client.next())["type"] == "pong"


async def test_a_snapshot_without_symbols_after_all_is_of_everything_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as stage, connected(stage) as client:
        await client.ask(action="subscribe", symbols=["*"], mode="latest")
        await client.next()
        stage.publish(book("A", 1, bids=LEVEL), book("B", 2, bids=LEVEL), trade("C", 1))
        await client.ask(action="ping")
        await client.next()
        await client.ask(action="snapshot", id=1)
        seen = [await client.next() for _ in range(4)]
        assert [(m["type"], m.get("ticker")) for m in seen[:3]] == [
            ("orderbook", "A"),
            ("orderbook", "B"),
            ("trade", "C"),
        ]
        assert seen[3] == {"type": "snapshot", "symbols": ["A", "B", "C"], "missing": [], "id": 1}
        monkeypatch.setattr(actions, "MAX_SYMBOLS", 2)
        await client.ask(action="snapshot", id=2)
        assert (await client.next())["code"] == "too_many_symbols"


async def test_a_field_that_is_not_described_is_ignored_as_described() -> None:
    request = {"action": "ping", "remark": "mine"}
    check_request(request)
    async with running() as stage, connected(stage) as client:
        await client.ask(**request)
        assert (await client.next())["type"] == "pong"
