"""What the connector says of itself."""

import asyncio
import json
from pathlib import Path

import pytest
import websockets

from ssmd.clock import day_of, now_ns
from ssmd.connector import service
from ssmd.connector.exchange import Credentials, Exchange, Settings
from ssmd.connector.service import Connector
from ssmd.feeds.catalogue import open_feed
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.memory import MemoryRegistry


async def refuse_everything(socket: websockets.ServerConnection) -> None:
    async for message in socket:
        told = {"id": json.loads(message)["id"], "type": "error", "msg": {"code": 5, "msg": "not for you"}}
        await socket.send(json.dumps(told))


async def test_a_connection_whose_subscriptions_are_all_refused_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_SUBSCRIBED_AFTER_S", 0.0)
    async with websockets.serve(refuse_everything, "127.0.0.1", 0) as server:
        (listener,) = server.sockets
        parts = open_feed("kalshi", day_of(now_ns()))
        exchange = Exchange(
            f"ws://127.0.0.1:{listener.getsockname()[1]}/", "test", "kalshi", lambda: Credentials(dict, "key"),
            parts.decoder, parts.new_mapper, parts.new_session, None,
        )  # fmt: skip
        settings = Settings("kalshi", "raw", tmp_path / "spool", 1 << 30, 300, 1 << 26, False, lambda _: True, ("A",))
        connector = Connector(
            settings, exchange, MemoryTransport(), LocalStorage(tmp_path / "storage"), MemoryRegistry()
        )
        stop = asyncio.Event()
        running = asyncio.create_task(connector.run(stop))
        async with asyncio.timeout(30):
            while "not for you" not in str(connector.health().get("trouble")):
                assert not running.done()
                await asyncio.sleep(0.01)

        assert connector.health()["connected"] is True
        assert connector.health()["status"] == "degraded"
        stop.set()
        await running
