"""Connecting: quickly, or with an error that says where and why."""

import asyncio
import time

import pytest

from ssmd.connector import link
from ssmd.connector.link import ExchangeUnavailable, Frame, Link, connect


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
