"""The archiver on a real broker, a real file system and a real database, through kills of both sides."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ssmd.archive.reader import normalized_objects, read_messages
from ssmd.archiver import Archiver
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.local import LocalStorage
from ssmd.middleware.transport.interface import Outgoing, Publisher
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.registry.postgres import PostgresRegistry
from tests.databases import Database
from tests.events import DAY, event, outgoing
from tests.fakes.faulty_storage import FaultyStorage, Killed
from tests.servers import NatsServer

FEED, BUCKET = "kalshi", "ssmd-normalized"

pytestmark = pytest.mark.integration


async def publish(publisher: Publisher, messages: list[Outgoing]) -> None:
    async with asyncio.timeout(60):
        before = publisher.acked
        for start in range(0, len(messages), 500):
            part = messages[start : start + 500]
            while publisher.room < len(part):
                await publisher.wait()
            publisher.send(part)
        while publisher.acked < before + len(messages):
            await publisher.wait()


async def archived(storage: LocalStorage) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for kind in EVENT_TYPES:
        for its in (await normalized_objects(storage, BUCKET, FEED, kind, DAY))[1]:
            async for messages in read_messages(storage, BUCKET, its.key):
                found.update(messages)
    return found


# nats-py leaves the killed server's stream to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*StreamWriter:pytest.PytestUnraisableExceptionWarning")
async def test_each_message_is_archived_once_through_kills_of_archiver_and_broker(
    tmp_path: Path, nats_broker: NatsServer, postgres: Database
) -> None:
    storage = LocalStorage(tmp_path / "storage")
    registry = PostgresRegistry(postgres.fresh())
    messages = [outgoing(event(n)) for n in range(30_000)]
    async with AsyncExitStack() as stack:
        stack.callback(registry.close)
        transport = NatsTransport(nats_broker.url)
        stack.push_async_callback(transport.close)
        await transport.ensure_stream(FEED)
        publisher = await transport.publisher(FEED)

        async def run(part: list[Outgoing], kill_at: int | None, kill_broker: bool = False) -> None:
            """Publish a part while an archiver of its own connection runs; end it politely or at a storage call."""
            own = NatsTransport(nats_broker.url)
            faulty = FaultyStorage(storage, kill_at)
            archiver = Archiver(FEED, own, faulty, BUCKET, registry, seal_s=0.2)
            stop = asyncio.Event()
            task = asyncio.create_task(archiver.run(stop))
            await publish(publisher, part)
            if kill_broker:
                nats_broker.kill()
                await asyncio.sleep(0.3)
                nats_broker.start()
            async with asyncio.timeout(60):
                while not task.done() and archiver.health()["acked_seq"] != publisher.acked:  # noqa: ASYNC110  polled
                    await asyncio.sleep(0.05)
            stop.set()
            try:
                await asyncio.wait_for(task, 30)
            except* Killed:
                pass
            await own.close()

        await run(messages[:5_000], kill_at=None)
        await run(messages[5_000:12_000], kill_at=9)
        await run(messages[12_000:20_000], kill_at=14)
        await run(messages[20_000:26_000], kill_at=None, kill_broker=True)
        await run(messages[26_000:], kill_at=None)

        assert await archived(storage) == Counter(message.payload for message in messages)
        keys = {entry.key for entry in await storage.list(BUCKET, "") if entry.key.endswith(".zst")}
        rows = await asyncio.to_thread(registry.objects, FEED, DAY, "normalized")
        assert {row.key for row in rows} == keys
        assert sum(row.records for row in rows) == len(messages)
