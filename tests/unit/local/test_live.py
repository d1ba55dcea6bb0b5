"""The first live trade through a real WebSocket."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ssmd.local.live import FirstTrade

TRADE = '{"type":"trade","symbol":"T-1","side":"buy","size":10,"price":0.45}'


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A gateway that drops its first client, and sends a book and a trade to the second."""
    clients = 0

    async def stream(request: web.Request) -> web.WebSocketResponse:
        nonlocal clients
        clients += 1
        link = web.WebSocketResponse()
        await link.prepare(request)
        if clients > 1:
            await link.send_str('{"type":"orderbook","symbol":"T-1"}')
            await link.send_str(TRADE)
        await link.close()
        return link

    app = web.Application()
    app.router.add_get("/v1/stream", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/stream"
    await runner.cleanup()


async def test_it_is_seen_even_when_the_gateway_goes_away_first(url: str) -> None:
    with FirstTrade(url) as trade:
        async with asyncio.timeout(30):
            while not trade.text:  # noqa: ASYNC110 the watcher lives in another thread
                await asyncio.sleep(0.01)

    assert trade.text == "T-1  buy 10 @ 0.45"


def test_it_can_be_left_before_there_is_any() -> None:
    with FirstTrade("http://127.0.0.1:1/v1/stream") as trade:
        pass

    assert trade.text == ""


async def test_a_gateway_that_asks_for_a_key_is_asked_once() -> None:
    asked = 0

    async def stream(request: web.Request) -> web.WebSocketResponse:
        nonlocal asked
        asked += 1
        link = web.WebSocketResponse()
        await link.prepare(request)
        await link.send_str('{"type":"error","code":"no_key","message":"no key within 5 s"}')
        await link.close(code=1008)
        return link

    app = web.Application()
    app.router.add_get("/v1/stream", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with FirstTrade(f"http://127.0.0.1:{runner.addresses[0][1]}/v1/stream") as trade:
        async with asyncio.timeout(30):
            while trade._thread.is_alive():  # noqa: ASYNC110 the watcher lives in another thread
                await asyncio.sleep(0.01)
    await runner.cleanup()
    assert (asked, trade.text) == (1, "")
