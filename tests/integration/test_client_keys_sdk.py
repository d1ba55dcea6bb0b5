"""The Python client at doors with keys in a real PostgreSQL: wrong, missing, revoked, and without the scope."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ssmd.client import Client, Gap, NotAllowed, Stream, Subscribed, Trade
from ssmd.client import stream as stream_module
from ssmd.gateway import keyring as keyring_module
from ssmd.registry.client_keys import ClientKeys
from ssmd.registry.database import Database
from tests.flow.gateway_stage import Stage, running, until
from tests.unit.gateway.events import trade

pytestmark = pytest.mark.integration

WRONG = "ssmd_0123abcd_" + "x" * 43


@pytest.fixture
def keys(database: Database) -> ClientKeys:
    return ClientKeys(database)


@pytest.fixture
async def stage(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(keyring_module, "REFRESH_S", 0.2)
    monkeypatch.setattr(stream_module, "FIRST_WAIT_S", 0.05)
    async with running(database=database, auth="keys") as stage:
        yield stage


async def refused(client: Client) -> list[NotAllowed]:
    """What each way in says."""
    found = []
    async with asyncio.timeout(30):
        for way in (anext(client.stream("A")), client.snapshot("A"), asyncio.to_thread(client.markets)):
            with pytest.raises(NotAllowed) as raised:
                await way
            found.append(raised.value)
    return found


async def test_without_a_key_and_with_a_wrong_one_every_way_says_what_to_do(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSMD_CLIENT_KEY", raising=False)
    for key, code in ((None, "no_key"), (WRONG, "wrong_key")):
        async with Client(stage.url, key) as client:
            for error in await refused(client):
                assert error.status == 401
                assert error.code in (code, "")
                assert error.next
                assert WRONG not in str(error)


async def test_a_key_out_of_the_environment_opens(
    stage: Stage, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMD_CLIENT_KEY", keys.create("bot", ["read:live"], None, "test")[0])
    async with Client(stage.url) as client:
        assert isinstance(await anext(client.stream("A")), Subscribed)
        assert len(await asyncio.to_thread(client.markets)) == 0
        with pytest.raises(NotAllowed, match="read:history") as raised:
            await asyncio.to_thread(client.condition, "kalshi", "2026-11-22")
        assert raised.value.status == 403


async def to_the_end(stream: Stream) -> None:
    async for event in stream:
        assert not isinstance(event, Gap)


async def test_a_revoked_key_ends_the_stream_with_one_clear_error(stage: Stage, keys: ClientKeys) -> None:
    text, created = keys.create("bot", ["read:live"], None, "test")[:2]
    async with Client(stage.url, text) as client:
        stream = client.stream("A")
        assert isinstance(await anext(stream), Subscribed)
        stage.publish(trade("A", 1))
        assert isinstance(await anext(stream), Trade)
        await asyncio.to_thread(keys.revoke, created.id, "test")
        async with asyncio.timeout(40):
            with pytest.raises(NotAllowed) as raised:
                await to_the_end(stream)
        assert raised.value.status == 401
        assert text not in str(raised.value)
        await until(lambda: not stage.gateway.hub.fanout.clients)
