"""The gateway's port from outside: rebinding names, strangers' pages, floods, clients that never finish anything."""

import asyncio
import contextlib
import json
import socket
from typing import Any

import aiohttp
import pytest

from ssmd.errors import ConfigError
from ssmd.gateway import doors, listening
from ssmd.gateway.outside import Outside
from ssmd.gateway.service import Gateway
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.memory import MemoryRegistry
from ssmd.telemetry import METRICS
from tests.flow.gateway_stage import Stage, connected, running, until
from tests.gateway_settings import any_port

STREAM = "/v1/stream?symbols=*"
FRIEND, STRANGER = "https://app.example", "https://evil.example"


async def ask(
    stage: Stage, path: str = "/v1/markets", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, stage.url + path, headers=headers) as response,
    ):
        return response.status, dict(response.headers), await response.text()


async def handshake(stage: Stage, **headers: str) -> int:
    """101, or the status with which the WebSocket is refused."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(stage.url + STREAM, headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def raw(stage: Stage, data: bytes, within_s: float = 20.0) -> bytes:
    """What comes back until the end, for bytes as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
    try:
        writer.write(data)
        async with asyncio.timeout(within_s):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.close()


def refused(reason: str) -> float:
    return METRICS.get_sample_value("ssmd_gateway_refused_total", {"reason": reason}) or 0.0


# --- names and pages --------------------------------------------------------------------------------------------------


async def test_a_name_that_was_bent_to_this_machine_is_refused() -> None:
    async with running() as stage:
        port = stage.gateway.port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost", f"[::1]:{port}", "127.8.9.1"):
            assert (await ask(stage, Host=host))[0] == 200, host
            assert await handshake(stage, Host=host) == 101
        for host in (
            f"evil.example:{port}",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
        ):
            status, _, text = await ask(stage, Host=host)
            assert (status, json.loads(text)["code"]) == (421, "wrong_host"), host
            assert await handshake(stage, Host=host) == 421
        answer = await raw(stage, b"GET /v1/markets HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 421")


async def test_pages_of_strangers_cannot_use_a_gateway_without_keys() -> None:
    async with running(cors_origins=(FRIEND,)) as stage:
        ours = stage.url
        for origin, status in (
            (ours, 200), (FRIEND, 200), (f"{FRIEND}:443", 200), (STRANGER, 403), ("null", 403), ("", 403),
            (f"http://127.0.0.1:{stage.gateway.port + 1}", 403), ("http://app.example", 403),
            (f"{FRIEND}.evil.example", 403), ("https://evil.example/https://app.example", 403),
        ):  # fmt: skip
            found, headers, _ = await ask(stage, Origin=origin)
            assert found == status, origin
            assert await handshake(stage, Origin=origin) == (101 if status == 200 else 403), origin
            allowed = headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if origin.startswith(FRIEND + ":") or origin == FRIEND else None)
            assert headers["Vary"] == "Origin"


async def test_cross_origin_answers_are_off_unless_wanted() -> None:
    async with running() as stage:
        status, headers, _ = await ask(
            stage, method="OPTIONS", Origin=FRIEND, **{"Access-Control-Request-Method": "GET"}
        )
        assert status == 403
        _, plain, _ = await ask(stage)
        assert not [name for name in [*headers, *plain] if name.startswith("Access-Control")]
    async with running(cors_origins=(f"{FRIEND}/",)) as stage:
        preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        status, headers, _ = await ask(stage, method="OPTIONS", Origin=FRIEND, **preflight)
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, FRIEND)
        assert "Authorization" in headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in headers
        _, headers, _ = await ask(stage, path="/v1/nothing", Origin=FRIEND)
        assert headers["Access-Control-Allow-Origin"] == FRIEND  # problems can be read, too


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_keys_it_listens_on_this_machine_only(host: str) -> None:
    settings = any_port().model_copy(update={"host": host})
    with pytest.raises(ConfigError, match="without a key"):
        Gateway("kalshi", Outside(MemoryTransport(), MemoryRegistry()), settings)


def test_a_name_that_leads_elsewhere_than_it_promised_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: before("0.0.0.0", *rest, **more))
    monkeypatch.setattr(socket, "create_server", _on_all_addresses(socket.create_server))
    with pytest.raises(ConfigError, match="without a key"):
        listening.listen("localhost", 0, only_here=True)


def _on_all_addresses(create: Any) -> Any:
    return lambda address, **more: create(("0.0.0.0", address[1]), **more)


# --- floods -----------------------------------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    async with running(limits={"burst": 5}) as stage:
        answers = await asyncio.gather(*(ask(stage) for _ in range(30)))
        statuses = [status for status, _, _ in answers]
        assert statuses.count(429) >= 15
        assert set(statuses) == {200, 429}
        _, headers, text = next(answer for answer in answers if answer[0] == 429)
        assert json.loads(text)["code"] == "rate_limited"
        assert "5 requests per second" in text
        assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("5", "0")
        await asyncio.sleep(int(headers["Retry-After"]))
        status, headers, _ = await ask(stage)
        assert (status, headers["RateLimit-Limit"]) == (200, "6000")


async def test_a_stream_that_asks_too_often_is_told_so_and_survives() -> None:
    async with running(limits={"burst": 10}) as stage, connected(stage, "*") as client:
        assert (await client.next())["type"] == "subscribed"
        for number in range(30):
            await client.ask(action="ping", id=number)
        answers = [await client.next() for _ in range(30)]
        limited = [answer for answer in answers if answer["type"] == "error"]
        assert len(limited) >= 15
        assert {answer["code"] for answer in limited} == {"too_many_requests"}
        assert all("id" in answer and "per second" in answer["message"] for answer in limited)
        await asyncio.sleep(2.0)
        await client.ask(action="ping", id="still here")
        assert (await client.until_type("pong"))["id"] == "still here"


async def test_one_address_has_so_many_clients_and_no_more() -> None:
    async with running(limits={"clients_per_address": 2}) as stage:
        async with connected(stage, "*"), connected(stage, "*"):
            assert await handshake(stage) == 429
            assert (await ask(stage))[0] == 200
        await until(lambda: not stage.gateway.doors._heads._here)
        assert await handshake(stage) == 101


async def test_connections_beyond_the_cap_are_cut_and_the_first_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MORE_CONNECTIONS", 20)
    before = refused("too_many_connections")
    async with running(limits={"clients_per_address": 1}) as stage, connected(stage, "*") as client:
        assert (await client.next())["type"] == "subscribed"
        links = [await asyncio.open_connection("127.0.0.1", stage.gateway.port) for _ in range(40)]
        await until(lambda: refused("too_many_connections") >= before + 34)
        await client.ask(action="ping")
        assert (await client.next())["type"] == "pong"
        for _, writer in links:
            writer.close()


# --- who never finishes -----------------------------------------------------------------------------------------------


async def test_slowloris_costs_a_few_seconds_and_hinders_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_S", 0.5)
    async with running() as stage:
        links = [await asyncio.open_connection("127.0.0.1", stage.gateway.port) for _ in range(200)]
        for _, writer in links:
            writer.write(b"GET /v1/markets HTTP/1.1\r\nHost: localhost\r\n")

        async def drip(writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"X-A: b\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.1)

        drips = [asyncio.create_task(drip(writer)) for _, writer in links]
        assert (await ask(stage))[0] == 200
        async with asyncio.timeout(20):
            for reader, _ in links:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        for task in drips:
            task.cancel()
        for _, writer in links:
            writer.close()


async def test_a_second_request_that_never_ends_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssmd.gateway.service.KEEP_ALIVE_S", 0.5)
    async with running() as stage:
        whole = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await raw(stage, whole + whole[:-2] + b"X-A: b\r\n")
        assert answer.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/markets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + b"ssmd_secret" * 2_000 + b"\r\n\r\n",
        b"GET /v1/markets?" + b"ssmd_secret" * 2_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/markets HTTP/1.1\r\nHost: localhost\r\n" + b"X-ssmd_secret: a\r\n" * 20_000 + b"\r\n",
        b"GET /v1/markets HTTP/1.1\r\nHost: localhost\r\nssmd_secret\x00: b\r\n\r\n",
        b"ssmd_secret\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 ssmd_secret\r\n\r\n",
        b"GET ssmd_secret HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nssmd_secret",
    ],
    ids=["header", "line", "many headers", "nul", "word", "tls", "version", "smuggling"],
)
async def test_what_is_no_http_is_answered_without_repeating_it(
    request_bytes: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as stage:
        answer = await raw(stage, request_bytes)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
        assert b"ssmd_secret" not in answer
        assert b"Got more than" not in answer
        assert b"aiohttp" not in answer
        if answer:
            assert b"application/problem+json" in answer
        assert (await ask(stage))[0] == 200
    out = capfd.readouterr()
    assert "ssmd_secret" not in out.out + out.err + caplog.text


async def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "BODY_S", 0.3)
    async with running() as stage:
        posts = [route.path for route in stage.gateway.routes if route.method == "POST"]
        path = posts[0] if posts else "/v1/health"
        method = "POST" if posts else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
        assert b" 408 " in await raw(stage, head.encode() + b"{")


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with running() as stage:
        head = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\nConnection: close\r\n\r\n"
        assert b" 413 " in await raw(stage, head + b"x" * 200_000)
