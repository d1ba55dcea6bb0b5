"""Connecting: quickly, or with an error that says where and why."""

import asyncio
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ssmd.connector import link
from ssmd.connector.link import ExchangeUnavailable, Frame, Link, connect
from ssmd.errors import SsmdError


def ignore(_link: Link, _frames: list[Frame]) -> None:
    pass


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_host_that_accepts_and_says_nothing_does_not_hold_up_the_next_try(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_CONNECT_S", 0.1)
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()

    with pytest.raises(ExchangeUnavailable, match=f"cannot connect to {scheme}://127.0.0.1:{port}"):
        await connect(f"{scheme}://127.0.0.1:{port}/", {}, ignore)

    assert time.monotonic() - began < 2
    for writer in held:
        writer.close()
    server.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ws://u:hunter2@127.0.0.1:1/x?token=hunter2", "cannot connect to ws://u:***@127.0.0.1:1/x?token=***: "),
        ("nonsense://u:hunter2@h/", "cannot connect to nonsense://u:***@h/: "),
        ("ws://u:hunter2@h:99999/", "is not a URL"),
        ("ws://u:hunter2/3@h/", "is not a URL"),
    ],
)
async def test_no_error_shows_what_is_secret_in_an_address(url: str, why: str) -> None:
    with pytest.raises(SsmdError) as refused:
        await connect(url, {}, ignore)

    assert why in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("status", [403, 429, 500])
async def test_no_refusal_shows_what_is_secret_in_an_address(status: int) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/", refuse)
    async with TestServer(app) as server:
        with pytest.raises(SsmdError) as refused:
            await connect(f"ws://127.0.0.1:{server.port}/?token=hunter2", {}, ignore)

    assert "?token=***" in str(refused.value)
    assert "hunter2" not in str(refused.value)
