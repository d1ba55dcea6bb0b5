"""`/v1/stream` over real sockets: many clients, one that never reads, bad requests, outages, the end."""

import asyncio
import contextlib
import errno
import inspect
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from ssmd.config.environment import Gateway as Settings
from ssmd.errors import ConfigError
from ssmd.gateway import actions, fanout, flow, listening, stream
from ssmd.gateway import client as clients
from ssmd.gateway.outside import Outside
from ssmd.gateway.service import Gateway
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.service_state import Farewell, write_farewell
from ssmd.telemetry import METRICS
from tests.flow.gateway_stage import FEED, Stage, connected, running, until
from tests.unit.gateway.events import book, delta, quote, trade

TICKER = "INXD-25-B4000"
UPGRADE = (
    b"GET /v1/stream?symbols=* HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def disconnections(reason: str) -> float:
    return METRICS.get_sample_value("ssmd_gateway_disconnections_total", {"reason": reason}) or 0.0


async def test_a_client_sees_live_trades_exactly() -> None:
    async with running() as stage, connected(stage, TICKER) as client:
        answer = await client.next()
        assert (answer["type"], answer["symbols"]) == ("subscribed", [TICKER])
        stage.publish(trade(TICKER, 1, price=450_000, size=9_850_000))
        await client.next()
        assert b'"price":0.45,"size":9.85,' in client.raw[-1]


async def test_fifty_clients_with_different_subscriptions_each_see_their_own_numbers_without_a_hole() -> None:
    async with running() as stage, contextlib.AsyncExitStack() as stack:
        choices = ("*", "A", "A,B", "B", "C")
        readers = [await stack.enter_async_context(connected(stage, choices[n % 5])) for n in range(50)]
        for reader in readers:
            await reader.until_type("subscribed")
        for n in range(100):
            stage.publish(*(trade(ticker, n) for ticker in ("A", "B", "C")), quote("A"))
            if n % 10 == 0:
                await asyncio.sleep(0)
        expected = {"*": 400, "A": 200, "A,B": 300, "B": 100, "C": 100}
        for n, reader in enumerate(readers):
            while reader.count < expected[choices[n % 5]]:
                await reader.next()
        assert stage.gateway.health()["clients"] == 50


async def test_a_client_that_never_reads_does_not_disturb_the_others_and_costs_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow, "STALL_S", 3.0)
    monkeypatch.setattr(stream, "CLOSE_MOST_S", 0.2)
    before = disconnections("slow_consumer")
    limit = 256 * 1024
    async with running(buffer_bytes=limit) as stage, connected(stage, "*") as good:
        never = socket.socket()
        never.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        never.connect(("127.0.0.1", stage.gateway.port))
        never.setblocking(False)
        never.send(UPGRADE)
        await until(lambda: stage.gateway.health()["clients"] == 2)
        await good.next()
        (slow,) = [c for c in stage.gateway.hub.fanout.clients.values() if c.number == 2]
        peak = 0
        for n in range(120):
            stage.publish(*(trade("T", n * 500 + k) for k in range(500)))
            await asyncio.sleep(0)
            while good.count < (n + 1) * 500:
                await good.next()
            peak = max(peak, slow.outlet.get_write_buffer_size() if not slow.leaving else 0)
        assert good.skipped == 0
        assert slow.dropped > 0
        assert 0 < peak <= 2 * limit
        await until(lambda: stage.gateway.health()["clients"] == 1)
        assert disconnections("slow_consumer") == before + 1
        await until(lambda: slow.outlet.get_write_buffer_size() == 0)
        never.close()


async def test_a_slow_reader_that_wakes_up_is_told_what_it_missed_and_gets_its_books_back() -> None:
    async with running(buffer_bytes=64 * 1024) as stage, connected(stage, "*") as slow:
        stage.publish(book("A", 1, bids=((440_000, 10**6),)))
        await slow.until_type("subscribed")
        seq = 1
        while slow_client(stage).dropped == 0:  # aiohttp's client reads ahead a little, the kernel a lot
            updates = []
            for _ in range(500):
                seq += 1
                updates.append(delta("A", seq, bids=((440_000, seq * 10**6),)))
            stage.publish(*updates)
            await asyncio.sleep(0)
        stage.publish(trade("B", 1))
        while not (slow.skipped and slow.books.get("A") == ({0.44: seq}, {})):
            await slow.next()


def slow_client(stage: Stage) -> clients.Client:
    (client,) = stage.gateway.hub.fanout.clients.values()
    return client


async def test_subscribe_sends_the_whole_book_first_and_unsubscribe_ends_it() -> None:
    async with running() as stage, connected(stage) as client:
        stage.publish(book("A", 1, bids=((440_000, 100 * 10**6),), asks=((460_000, 150 * 10**6),)))
        await client.ask(action="subscribe", symbols=["A", "UNHEARD"], id=7)
        answer = await client.next()
        assert answer == {
            "type": "subscribed", "symbols": ["A", "UNHEARD"], "channels": ["trade", "orderbook", "ticker", "status"],
            "mode": "realtime", "seq": client.told, "unknown": ["UNHEARD"], "id": 7,
        }  # fmt: skip
        snapshot = await client.next()
        assert (snapshot["kind"], snapshot["bids"], snapshot["asks"]) == ("snapshot", [[0.44, 100]], [[0.46, 150]])
        stage.publish(delta("A", 2, bids=((440_000, 0),)))
        assert (await client.next())["bids"] == [[0.44, 0]]
        await client.ask(action="unsubscribe", symbols=["A"])
        assert (await client.next())["symbols"] == ["UNHEARD"]
        stage.publish(trade("A", 1), trade("UNHEARD", 1))
        assert (await client.next())["ticker"] == "UNHEARD"


async def test_star_covers_single_symbols_until_it_is_given_up() -> None:
    async with running() as stage, connected(stage, "*") as client:
        assert (await client.next())["symbols"] == ["*"]
        await client.ask(action="subscribe", symbols=["A"])
        assert (await client.next())["symbols"] == ["*"]
        await client.ask(action="unsubscribe", symbols=["A"])
        assert (await client.next())["code"] == "bad_symbol"
        await client.ask(action="unsubscribe", symbols=["*"])
        assert (await client.next())["symbols"] == []
        stage.publish(trade("A", 1))
        await client.ask(action="ping", id="p")
        assert await client.next() == {"type": "pong", "ts": client.messages[-1]["ts"], "id": "p"}


async def test_a_snapshot_is_sent_on_request_and_a_missing_book_is_said_so() -> None:
    async with running() as stage, connected(stage) as client:
        stage.publish(book("A", 1, bids=((440_000, 10**6),)))
        await client.ask(action="snapshot", symbols=["A", "B"], id=1)
        error, snapshot = await client.next(), await client.next()
        assert (error["code"], error["id"]) == ("no_book", 1)
        assert "B" in error["message"]
        assert (snapshot["ticker"], snapshot["kind"]) == ("A", "snapshot")


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("not json", "bad_json"),
        ("[]", "bad_request"),
        ('{"action":"fly"}', "unknown_action"),
        ('{"action":"subscribe"}', "bad_symbols"),
        ('{"action":"subscribe","symbols":["-x"]}', "bad_symbol"),
        ('{"action":"subscribe","symbols":[' + ",".join(f'"T{n}"' for n in range(1_025)) + "]}", "too_many_symbols"),
    ],
)
async def test_a_bad_request_is_answered_and_the_connection_goes_on(request_text: str, code: str) -> None:
    async with running() as stage, connected(stage) as client:
        await client.web.send_str(request_text)
        answer = await client.next()
        assert (answer["type"], answer["code"]) == ("error", code)
        assert answer["message"]
        await client.ask(action="ping")
        assert (await client.next())["type"] == "pong"


async def test_a_binary_message_is_refused_politely_and_an_oversized_one_ends_the_connection() -> None:
    async with running() as stage, connected(stage) as client:
        await client.web.send_bytes(b"\x00")
        assert (await client.next())["code"] == "bad_request"
        await client.web.send_str("x" * 70_000)
        assert (await client.next())["code"] == 1009
        await until(lambda: disconnections("protocol_error") >= 1)


async def test_a_client_that_subscribes_to_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SUBSCRIBE_WITHIN_S", 0.1)
    async with running() as stage, connected(stage) as client:
        closed = await client.next()
        assert (closed["type"], closed["code"]) == ("closed", 1008)


async def test_a_connection_that_never_asks_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_S", 0.1)
    async with running() as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(b"GET /v1/health HT")
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        writer.close()
        async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/v1/health") as response:
            assert response.status == 200


async def test_more_clients_than_allowed_are_refused_before_the_upgrade() -> None:
    async with running(max_clients=1) as stage, connected(stage, "*"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(stage, "*"):
                pass
        assert refused.value.status == 503


@pytest.mark.parametrize("symbols", ["-x", "A," + "y" * 129, ",".join(f"T{n}" for n in range(1_025))])
async def test_impossible_symbols_in_the_url_are_refused_before_the_upgrade(symbols: str) -> None:
    async with running() as stage:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(stage, symbols):
                pass
        assert refused.value.status == 400


async def test_a_plain_request_for_the_stream_is_told_to_upgrade() -> None:
    async with (
        running() as stage,
        aiohttp.ClientSession() as session,
        session.get(f"{stage.url}/v1/stream") as response,
    ):
        assert response.status == 426
        assert response.content_type == "application/problem+json"
        assert "WebSocket" in (await response.json())["title"]


async def test_hostile_tickers_reach_the_client_unchanged() -> None:
    hostile = 'a.b *>"\\\r\n é%2E'
    async with running() as stage, connected(stage) as client:
        await client.ask(action="subscribe", symbols=[hostile])
        await client.next()
        stage.publish(trade(hostile, 1))
        assert (await client.next())["ticker"] == hostile


async def test_an_outage_of_the_broker_is_a_gap_and_books_come_anew() -> None:
    async with running() as stage, connected(stage, "A") as client:
        stage.publish(book("A", 1, bids=((440_000, 10**6),)))
        await client.until_type("orderbook")
        stage.broker.up = False
        assert (await client.next())["code"] == "UPSTREAM_LOST"
        stage.books["A"] = book("A", 5, bids=((410_000, 10**6),))
        stage.broker.up = True
        gap = await client.next()
        assert (gap["type"], gap["reason"]) == ("gap", "connection_lost")
        assert (await client.next())["state"] == "syncing"
        assert (await client.next())["state"] == "live"
        await client.next()
        assert client.books["A"] == ({0.41: 1}, {})


async def test_no_data_follows_the_close_frame() -> None:
    async with running() as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(UPGRADE)
        await until(lambda: stage.gateway.health()["clients"] == 1)
        slow_client(stage).kick(1008, "the test says so")
        await asyncio.sleep(0)
        stage.publish(trade("A", 1))
        seen = await reader.read()
        assert seen.endswith(b"\x88\x12\x03\xf0the test says so")
        writer.close()


async def test_quiet_clients_hear_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "HEARTBEAT_S", 0.1)
    async with running() as stage, connected(stage, "A") as client:
        beat = await client.until_type("heartbeat")
        assert beat["ts"] > 0


async def test_stopping_tells_clients_and_takes_less_than_five_seconds() -> None:
    async with running() as stage, connected(stage, "*") as client, connected(stage, "A") as other:
        await client.next()
        await other.next()
        started = asyncio.get_running_loop().time()
        stage.stop.set()
        for reader in (client, other):
            assert (await reader.next())["code"] == "GOING_AWAY"
            closed = await reader.next()
            assert (closed["type"], closed["code"]) == ("closed", 1001)
        await until(lambda: not stage.gateway.ready.is_set())
        assert asyncio.get_running_loop().time() - started < 5
    with pytest.raises(aiohttp.ClientConnectorError):
        async with connected(stage):
            pass


async def stop_with_a_client_that_never_reads(stage: Stage) -> float:
    """How many seconds it takes until it is gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port, limit=1_024)
    writer.write(UPGRADE)
    await until(lambda: stage.gateway.health()["clients"] == 1)
    client = slow_client(stage)
    count = 0
    while client.dropped == 0:
        stage.publish(*(trade("T", count + k) for k in range(1_000)))
        count += 1_000
        await asyncio.sleep(0)
    started = asyncio.get_running_loop().time()
    stage.stop.set()
    await until(lambda: stage.gateway.health()["clients"] == 0, within_s=5)
    took = asyncio.get_running_loop().time() - started
    writer.close()
    del reader
    return took


async def test_stopping_does_not_wait_for_a_client_that_never_reads() -> None:
    async with running(buffer_bytes=64 * 1024) as stage:
        assert await stop_with_a_client_that_never_reads(stage) < 5


async def test_a_restart_does_not_wait_for_it_until_others_were_told_to_be_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    write_farewell(tmp_path, "gateway", Farewell("restarted", retry_after_s=3))
    async with running(buffer_bytes=64 * 1024) as stage:
        took = await stop_with_a_client_that_never_reads(stage)
    assert took < 2


async def test_a_taken_port_is_a_configuration_error_that_says_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        gateway = Gateway(FEED, Outside(MemoryTransport(), MemoryRegistry()), Settings(port=port))
        with pytest.raises(ConfigError) as failure:
            await gateway.run(asyncio.Event())
    assert str(port) in failure.value.message
    assert "spec.gateway.port" in failure.value.hint
    cause: Any = failure.value.__cause__
    assert cause.errno == errno.EADDRINUSE


async def test_a_client_may_not_collect_symbols_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "SYMBOLS_PER_CLIENT", 3)
    async with running() as stage, connected(stage, "A,B,C") as client:
        await client.next()
        await client.ask(action="subscribe", symbols=["C", "D"], id=1)
        assert (await client.next())["code"] == "too_many_symbols"
        await client.ask(action="subscribe", symbols=["C"])
        assert (await client.next())["symbols"] == ["A", "B", "C"]


async def test_a_flood_of_requests_is_answered_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "REQUESTS_PER_S", 10)
    async with running() as stage, connected(stage, "A") as client:
        await client.next()
        started = asyncio.get_running_loop().time()
        for n in range(12):
            await client.ask(action="ping", id=n)
        stage.publish(trade("A", 1))
        seen = [await client.next() for _ in range(13)]
        assert asyncio.get_running_loop().time() - started > 0.9
        assert seen[-1]["id"] == 11
        assert "trade" in [message["type"] for message in seen[:-2]], "data does not wait for it"


async def test_a_client_that_vanishes_is_forgotten() -> None:
    before = disconnections("lost") + disconnections("client_closed")
    async with running() as stage:
        _reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(UPGRADE)
        await until(lambda: stage.gateway.health()["clients"] == 1)
        writer.transport.abort()
        await until(lambda: stage.gateway.health()["clients"] == 0)
        assert stage.gateway.hub.fanout.groups == 0
    assert disconnections("lost") + disconnections("client_closed") == before + 1


@pytest.mark.parametrize(
    "scenario",
    [
        test_fifty_clients_with_different_subscriptions_each_see_their_own_numbers_without_a_hole,
        test_a_client_that_never_reads_does_not_disturb_the_others_and_costs_bounded_memory,
        test_a_slow_reader_that_wakes_up_is_told_what_it_missed_and_gets_its_books_back,
        test_a_binary_message_is_refused_politely_and_an_oversized_one_ends_the_connection,
        test_stopping_tells_clients_and_takes_less_than_five_seconds,
        test_stopping_does_not_wait_for_a_client_that_never_reads,
    ],
)
def test_it_holds_under_uvloop_too(scenario: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssmd run gateway` uses uvloop, whose transports buffer differently from asyncio's."""
    needs = {"monkeypatch": monkeypatch} if "monkeypatch" in inspect.signature(scenario).parameters else {}

    async def run() -> None:
        await scenario(**needs)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
