"""Status events of the security master on a real broker: clients get them, the archive (a function of raw) does not."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from ssmd.archive.reader import read_normalized
from ssmd.archiver import Archiver
from ssmd.backfill import compact
from ssmd.gateway.client import Client
from ssmd.gateway.hub import Hub
from ssmd.gateway.subscription import Subscription
from ssmd.gateway.waiting import Bounds
from ssmd.market.events import SECMASTER, MarketStatus, Status
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.quality.findings import VerifyReport
from ssmd.quality.verify import verify
from ssmd.telemetry import METRICS
from ssmd.wire.normalized import decode
from tests.events import DAY, NOON, outgoing
from tests.fakes.reader import Reader
from tests.kalshi_day import NORMALIZED, TICKERS, Talk, Venue
from tests.raw_archive import FEED, RAW
from tests.servers import nats_server

TOMORROW = DAY + timedelta(days=1)
ALIEN = "KXNEVERHEARD-26NOV22 >.*"  # a market that no frame named

pytestmark = pytest.mark.integration


def lifecycle_day() -> Talk:
    said = Talk()
    said.start()
    for n in range(200):
        said.chatter(1)
        said.say(
            "market_lifecycle_v2", 4, 0, market_ticker=TICKERS[n % 3], event_type="activated", is_deactivated=False
        )
    return said


def told_by_secmaster(n: int) -> MarketStatus:
    return MarketStatus(0, NOON + n * 1_000_000, ALIEN if n % 4 == 0 else TICKERS[n % 3], SECMASTER, 0, 0, Status.OPEN)


def unarchived() -> float:
    return METRICS.get_sample_value("ssmd_archiver_messages_unarchived_total", {"feed": FEED}) or 0.0


async def test_the_archive_of_a_mixed_stream_holds_the_connectors_events_and_verifies(tmp_path: Path) -> None:
    venue = Venue(MemoryStorage())
    await venue.receive(tmp_path, [lifecycle_day()])
    live = [Outgoing(m.subject, b"%d" % m.stream_seq, m.payload) for m in venue.transport.stream(FEED).messages]
    ours = [outgoing(told_by_secmaster(n)) for n in range(150)]
    mixed = [message for n, one in enumerate(live) for message in (one, *ours[n : n + 1])]
    assert len(mixed) == len(live) + 150
    before = unarchived()
    with nats_server(tmp_path / "nats") as server:
        transport = NatsTransport(server.url)
        hub, reader = await listening(transport)
        await publish(transport, mixed)
        await archived(Archiver(FEED, transport, venue.storage, NORMALIZED, venue.registry, seal_s=0.2), len(mixed))
        async with asyncio.timeout(20):
            while hub.board.statuses.get(ALIEN) != told_by_secmaster(148):  # noqa: ASYNC110  polled
                await asyncio.sleep(0.01)
        await transport.close()

    assert unarchived() - before == 150
    assert await connections_of_statuses(venue) == {"c-1": 200}
    assert (await verified(venue)).findings == []
    report = await compact(FEED, DAY, venue.storage, RAW, NORMALIZED, venue.registry, today=TOMORROW)
    assert (report.missing_in_stream, report.only_in_stream, report.segments_kept) == ({}, {}, 0)
    assert (await verified(venue)).findings == []
    assert await connections_of_statuses(venue) == {"c-1": 200}
    # Clients hear of all of them, also of a market that nobody ever heard of.
    told = Counter(message["ticker"] for message in reader.read() if message["type"] == "status")
    assert told[ALIEN] == sum(1 for n in range(150) if n % 4 == 0)
    assert told.total() == 350


async def listening(transport: NatsTransport) -> tuple[Hub, Reader]:
    """A gateway's hub on the stream, and a client of it that wants everything."""
    hub, reader = Hub(FEED), Reader()
    client = Client(1, reader.socket, reader.socket.kick, Bounds(10_000, 1 << 24))
    hub.fanout.join(client)
    reader.seq = hub.fanout.move(client, Subscription().plus(["*"]))
    await transport.subscribe(hub.patterns, hub.on_batch, hub.on_state)
    async with asyncio.timeout(20):
        while not hub.connected:  # noqa: ASYNC110  polled
            await asyncio.sleep(0.01)
    await transport.ping()
    return hub, reader


async def publish(transport: NatsTransport, messages: list[Outgoing]) -> None:
    publisher = await transport.publisher(FEED)
    async with asyncio.timeout(30):
        while publisher.room < len(messages):
            await publisher.wait()
        publisher.send([Outgoing(m.subject, b"%d" % n, m.payload) for n, m in enumerate(messages)])
        while publisher.acked < len(messages):
            await publisher.wait()


async def archived(archiver: Archiver, last: int) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(archiver.run(stop))
    async with asyncio.timeout(30):
        while archiver.health()["acked_seq"] != last:  # noqa: ASYNC110  polled
            await asyncio.sleep(0.01)
    stop.set()
    await task


async def verified(venue: Venue) -> VerifyReport:
    return await verify(
        FEED, DAY, venue.storage, venue.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED, today=TOMORROW
    )


async def connections_of_statuses(venue: Venue) -> Counter[str]:
    found: Counter[str] = Counter()
    async for message in read_normalized(venue.storage, NORMALIZED, FEED, "status", DAY):
        event = decode("status", message)
        assert isinstance(event, MarketStatus)
        found[event.connection] += 1
    return found
