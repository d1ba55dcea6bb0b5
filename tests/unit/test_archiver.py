"""The archiver: every message of the stream in exactly one segment, acknowledged only when it is durable."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmd import archiver as module
from ssmd.archive import inventory, layout
from ssmd.archive.layout import SegmentObject
from ssmd.archive.manifest import read_manifest
from ssmd.archive.segments import symbol_of
from ssmd.archiver import Archiver
from ssmd.clock import NS_PER_S, day_of, day_start_ns
from ssmd.errors import FatalError
from ssmd.market.events import EVENT_TYPES, SECMASTER, Event, MarketStatus, Status
from ssmd.middleware.storage.interface import Storage
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.middleware.transport.interface import Outgoing
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.interface import ObjectRecord, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from ssmd.wire.normalized import encode, event_type_of, received_ns, split
from tests.events import DAY, NOON, event, outgoing, trade
from tests.fakes.faulty_storage import FaultyStorage, Killed

FEED, BUCKET = "kalshi", "ssmd-normalized"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.002)
    monkeypatch.setattr(module, "BACK_OFF_S", (0.001, 0.002))
    monkeypatch.setattr(inventory, "RETRY_S", 0.002)


class AwayRegistry(MemoryRegistry):
    """A database that can be switched off."""

    away = False

    def record_objects(self, feed: str, objects: Sequence[ObjectRecord]) -> None:
        if self.away:
            raise RegistryUnavailable("the database is switched off")
        super().record_objects(feed, objects)


class World:
    """What survives a restart of the archiver."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.storage = MemoryStorage()
        self.registry = AwayRegistry()
        self.clock = NOON
        self.task: asyncio.Task[None]

    async def publish(self, events: Sequence[Event]) -> None:
        self.transport.store(FEED, [outgoing(one) for one in events])

    def archiver(self, storage: Storage | None = None, seal_s: float = 3600, seal_mb: float = 64) -> Archiver:
        return Archiver(
            FEED,
            self.transport,
            storage or self.storage,
            BUCKET,
            self.registry,
            seal_s=seal_s,
            seal_mb=seal_mb,
            clock_ns=lambda: self.clock,
        )

    @asynccontextmanager
    async def running(self, archiver: Archiver) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = self.task = asyncio.create_task(archiver.run(stop))
        try:
            yield
            stop.set()
            await asyncio.wait_for(task, 10)
        finally:
            task.cancel()

    async def until(self, archiver: Archiver, name: str, value: object) -> None:
        async with asyncio.timeout(30):
            while archiver.health()[name] != value and not self.task.done():  # noqa: ASYNC110  health is polled
                await asyncio.sleep(0.001)

    async def run_once(self, storage: Storage | None = None, seal_s: float = 3600) -> Archiver:
        """Start, take all there is, stop."""
        archiver = self.archiver(storage, seal_s)
        async with self.running(archiver):
            await self.until(archiver, "taken_seq", self.transport.stream(FEED).last_seq)
        return archiver

    async def segments(self) -> dict[SegmentObject, list[bytes]]:
        found: dict[SegmentObject, list[bytes]] = {}
        for entry in await self.storage.list(BUCKET, ""):
            if "/_segments/" in entry.key and entry.key.endswith(".zst"):
                its = layout.parse_normalized(entry.key)
                assert isinstance(its, SegmentObject)
                data = await self.storage.get(BUCKET, entry.key)
                reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
                found[its] = split(reader.read())
        return found

    async def archived(self) -> Counter[bytes]:
        return Counter(message for messages in (await self.segments()).values() for message in messages)

    @property
    def floor(self) -> int:
        return self.transport.stream(FEED).floors.get("archiver", 0)


@pytest.fixture
def world() -> World:
    return World()


async def test_messages_are_stored_by_type_and_day_in_stream_order(world: World) -> None:
    events = [event(n) for n in range(40)]
    await world.publish(events)

    await world.run_once()

    segments = await world.segments()
    for its, messages in segments.items():
        assert messages == [encode(one) for one in events if event_type_of(one) == its.type]
        assert its.day == DAY
    assert {its.type for its in segments} == set(EVENT_TYPES)
    assert world.floor == 40


async def test_a_segment_is_named_by_the_stream_and_the_sequence_numbers_it_covers(world: World) -> None:
    await world.publish([event(2), trade(10), event(3), trade(11), event(12)])

    await world.run_once()

    identity = (await world.transport.ensure_stream(FEED)).identity
    assert SegmentObject(FEED, "trade", DAY, identity, 2, 4) in await world.segments()


async def test_each_segment_has_a_manifest_and_a_row_that_say_the_same(world: World) -> None:
    events = [event(n) for n in range(40)]
    await world.publish(events)

    await world.run_once()

    rows = {row.key: row for row in world.registry.objects(FEED, DAY, "normalized")}
    segments = await world.segments()
    assert set(rows) == {its.key for its in segments}
    for its, messages in segments.items():
        manifest = await read_manifest(world.storage, BUCKET, its)
        times = [received_ns(message) for message in messages]
        assert rows[its.key] == manifest.record(BUCKET)
        assert (manifest.records, manifest.first_ns, manifest.last_ns) == (len(times), min(times), max(times))
        assert manifest.raw_bytes == sum(map(len, messages))
        assert manifest.symbols == len({symbol_of(one) for one in events if event_type_of(one) == its.type})


async def test_status_events_of_the_security_master_are_acknowledged_and_not_archived(world: World) -> None:
    ours = [MarketStatus(0, NOON + n, "KX-1", SECMASTER, 0, 0, Status.OPEN) for n in range(5)]
    lookalikes: list[Event] = [
        MarketStatus(0, NOON, "secmaster", "c-1", 4, 1, Status.OPEN),
        MarketStatus(0, NOON, "KX-1", "c-1", 4, 2, Status.DETERMINED, "secmaster"),
        MarketStatus(0, NOON, "KX-1", "c-secmaster", 4, 3, Status.OPEN),
        trade(1, connection=SECMASTER),
    ]
    await world.publish([*ours[:2], *lookalikes, *ours[2:]])

    await world.run_once()
    await world.run_once()

    assert await world.archived() == Counter(encode(one) for one in lookalikes)
    assert world.floor == 9
    assert world.registry.issues(FEED, DAY) == []


async def test_a_stream_of_only_such_events_is_acknowledged_and_leaves_no_object(world: World) -> None:
    await world.publish([MarketStatus(0, NOON + n, "KX-1", SECMASTER, 0, 0, Status.OPEN) for n in range(5)])

    await world.run_once()

    assert (await world.archived(), world.floor) == (Counter(), 5)


async def test_nothing_is_acknowledged_before_it_is_stored(world: World) -> None:
    await world.publish([trade(n) for n in range(10)])
    archiver = world.archiver()

    async with world.running(archiver):
        await world.until(archiver, "taken_seq", 10)
        assert world.floor == 0
        assert archiver.health()["held_bytes"] == sum(len(encode(trade(n))) for n in range(10))

    assert world.floor == 10


async def test_what_is_held_is_stored_when_the_seal_time_is_over(world: World) -> None:
    await world.publish([trade(n) for n in range(10)])
    archiver = world.archiver(seal_s=0.05)

    async with world.running(archiver):
        await world.until(archiver, "acked_seq", 10)
        assert len(await world.segments()) == 1


async def test_what_is_held_is_stored_when_it_reaches_the_seal_size(world: World) -> None:
    archiver = world.archiver(seal_mb=0.001)

    async with world.running(archiver):
        for n in range(30):
            await world.publish([trade(n)])
            await world.until(archiver, "taken_seq", n + 1)
        assert 2 <= len(await world.segments()) <= 10


async def test_a_day_is_stored_soon_after_its_end(world: World) -> None:
    midnight = day_start_ns(DAY) + 86_400 * NS_PER_S
    await world.publish([trade(n, midnight - NS_PER_S) for n in range(5)])
    archiver = world.archiver()

    async with world.running(archiver):
        world.clock = midnight - NS_PER_S
        await world.until(archiver, "taken_seq", 5)
        world.clock = midnight + 4 * NS_PER_S
        await asyncio.sleep(0.02)
        assert world.floor == 0
        world.clock = midnight + 6 * NS_PER_S
        await world.until(archiver, "acked_seq", 5)


async def test_messages_on_both_sides_of_midnight_go_to_their_own_days(world: World) -> None:
    midnight = day_start_ns(DAY) + 86_400 * NS_PER_S
    events = [trade(n, midnight + (-3 if n % 2 else 3) * NS_PER_S) for n in range(10)]
    await world.publish(events)

    await world.run_once()

    segments = await world.segments()
    assert {its.day: len(messages) for its, messages in segments.items()} == {DAY: 5, date(2026, 11, 23): 5}
    for its, messages in segments.items():
        assert all(day_of(received_ns(message)) == its.day for message in messages)


async def test_a_restart_goes_on_where_the_last_run_ended(world: World) -> None:
    for part in range(4):
        await world.publish([event(n) for n in range(part * 10, part * 10 + 10)])
        await world.run_once()

    assert await world.archived() == Counter(encode(event(n)) for n in range(40))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kills=st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=4),
    parts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    fetch=st.integers(1, 9),
)
async def test_killed_at_any_storage_call_it_never_loses_and_never_doubles_a_message(
    monkeypatch: pytest.MonkeyPatch, kills: list[tuple[int, bool]], parts: list[int], fetch: int
) -> None:
    monkeypatch.setattr(module, "FETCH_MESSAGES", fetch)
    world = World()
    published = 0
    for index, part in enumerate(parts):
        midnight = day_start_ns(DAY) + 86_400 * NS_PER_S
        await world.publish([event(n, midnight - 20_000) for n in range(published, published + part)])
        published += part
        if index < len(kills):
            try:
                await world.run_once(FaultyStorage(world.storage, *kills[index]), seal_s=0)
            except* Killed:
                pass
    await world.publish([event(published)])
    await world.run_once()

    assert await world.archived() == Counter(message.payload for message in world.transport.stream(FEED).messages)
    assert world.floor == published + 1
    for its in await world.segments():
        assert (await read_manifest(world.storage, BUCKET, its)).key == its.key
    days = (DAY, date(2026, 11, 23))
    rows = [row.key for day in days for row in world.registry.objects(FEED, day, "normalized")]
    assert sorted(rows) == sorted(its.key for its in await world.segments())


async def test_what_was_stored_before_a_crash_is_acknowledged_when_it_comes_again(world: World) -> None:
    await world.publish([trade(n) for n in range(5)])
    await world.run_once()
    world.transport.stream(FEED).floors.clear()
    archiver = world.archiver()

    async with world.running(archiver):
        async with asyncio.timeout(30):
            while world.floor != 5:  # noqa: ASYNC110  the broker is polled
                await asyncio.sleep(0.001)

    assert await world.archived() == Counter(encode(trade(n)) for n in range(5))
    [issue] = world.registry.issues(FEED, DAY)
    assert (issue.issue_type, issue.detail, issue.severity, issue.count) == ("duplicate", "redelivered", "info", 5)


async def test_a_hole_in_the_stream_is_counted_and_reported_and_the_rest_archived(world: World) -> None:
    await world.publish([trade(n) for n in range(10)])
    await world.run_once()
    await world.publish([trade(n) for n in range(10, 30)])
    stream = world.transport.stream(FEED)
    for _ in range(17):  # the broker's limit: the oldest messages are gone, seven of them never archived
        stream.messages.popleft()
        stream.first_seq += 1

    await world.run_once()

    assert await world.archived() == Counter(encode(trade(n)) for n in [*range(10), *range(17, 30)])
    [issue] = world.registry.issues(FEED, DAY)
    assert (issue.issue_type, issue.detail, issue.count) == ("missing_data", "stream_gap", 7)
    assert issue.data_type == "normalized"


async def test_messages_that_are_no_events_are_counted_and_left_out(world: World) -> None:
    good = outgoing(trade(1))
    bad = [
        (b"kalshi.trade.A", good.payload[:-8]),
        (b"kalshi.trade.A", good.payload + bytes(8)),
        (b"kalshi.trade.A", b""),
        (b"kalshi.trade.A", b"\xff" * 80),
        (b"kalshi.unknown.A", good.payload),
        (b"other.trade.A", good.payload),
        (b"kalshi.trade", good.payload),
        (b"kalshi.raw.trade", b'{"a frame": "as it came"}'),
    ]
    world.transport.store(FEED, [Outgoing(subject, b"%d" % i, data) for i, (subject, data) in enumerate(bad)])
    world.transport.store(FEED, [good])

    await world.run_once()

    assert await world.archived() == Counter([good.payload])
    assert world.floor == 9
    [issue] = world.registry.issues(FEED, DAY)
    assert (issue.issue_type, issue.detail, issue.count) == ("parse_error", "malformed_message", 7)


async def test_while_the_storage_is_away_it_takes_no_more_and_goes_on_when_it_is_back(world: World) -> None:
    storage = FaultyStorage(world.storage)
    archiver = world.archiver(storage, seal_mb=0.0001)

    async with world.running(archiver):
        await world.publish([trade(0)])
        await world.until(archiver, "acked_seq", 1)
        storage.away = True
        await world.publish([trade(n) for n in range(1, 50)])
        await world.until(archiver, "status", "degraded")
        await world.publish([trade(n) for n in range(50, 500)])
        await asyncio.sleep(0.05)
        assert archiver.health()["taken_seq"] == 50
        assert world.floor == 1
        storage.away = False
        await world.until(archiver, "acked_seq", 500)
        assert archiver.health()["status"] == "ok"

    assert await world.archived() == Counter(encode(trade(n)) for n in range(500))


async def test_told_to_stop_while_the_storage_is_away_it_leaves_and_the_stream_keeps_the_messages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.05)
    storage = FaultyStorage(world.storage)
    archiver = world.archiver(storage)
    await world.publish([trade(0)])
    async with world.running(archiver):
        await world.until(archiver, "taken_seq", 1)
        storage.away = True

    assert world.floor == 0
    await world.run_once()
    assert await world.archived() == Counter([encode(trade(0))])


async def test_while_the_database_is_away_objects_are_stored_and_their_rows_follow(world: World) -> None:
    world.registry.away = True
    await world.publish([event(n) for n in range(20)])
    archiver = world.archiver(seal_s=0)

    async with world.running(archiver):
        await world.until(archiver, "acked_seq", 20)
        await world.until(archiver, "inventory", "the database is switched off")
        assert archiver.health()["status"] == "degraded"
        assert world.registry.objects(FEED, DAY) == []
        world.registry.away = False
        await world.until(archiver, "inventory", "ok")
        assert archiver.health()["status"] == "ok"
        assert len(world.registry.objects(FEED, DAY)) == len(await world.segments())


async def test_rows_that_no_run_could_write_are_written_by_the_next(world: World) -> None:
    world.registry.away = True
    await world.publish([event(n) for n in range(20)])
    await world.run_once()
    world.registry.away = False

    await world.run_once()

    assert len(world.registry.objects(FEED, DAY)) == len(await world.segments()) > 0


async def test_while_the_broker_is_away_it_waits_and_goes_on(world: World) -> None:
    archiver = world.archiver(seal_s=0)
    world.transport.up = False

    async with world.running(archiver):
        await world.until(archiver, "status", "degraded")
        world.transport.up = True
        await world.publish([trade(n) for n in range(10)])
        await world.until(archiver, "acked_seq", 10)
        world.transport.up = False
        await world.until(archiver, "status", "degraded")
        world.transport.up = True
        await world.publish([trade(n) for n in range(10, 20)])
        await world.until(archiver, "acked_seq", 20)

    assert await world.archived() == Counter(encode(trade(n)) for n in range(20))


async def test_told_to_stop_before_the_broker_was_there_it_leaves(world: World) -> None:
    world.transport.up = False
    archiver = world.archiver()

    async with world.running(archiver):
        await world.until(archiver, "status", "degraded")


async def test_a_stream_made_anew_is_archived_from_its_beginning(world: World) -> None:
    await world.publish([trade(n) for n in range(5)])
    await world.run_once()
    world.transport = MemoryTransport()
    world.transport.stream("other")  # so that the new stream has another identity
    await world.publish([trade(n) for n in range(5, 8)])

    await world.run_once()

    assert await world.archived() == Counter(encode(trade(n)) for n in range(8))


async def test_a_stream_made_anew_while_messages_are_held_loses_none_of_them(world: World) -> None:
    archiver = world.archiver()
    await world.publish([trade(n) for n in range(5)])
    async with world.running(archiver):
        await world.until(archiver, "taken_seq", 5)
        world.transport.up = False
        await world.until(archiver, "status", "degraded")
        stream = world.transport.stream(FEED)
        stream.identity, stream.first_seq = "anew", 1
        stream.messages.clear()
        stream.floors.clear()
        await world.publish([trade(n) for n in range(5, 8)])
        world.transport.up = True
        await world.until(archiver, "stream", "anew")

    await world.run_once()
    assert await world.archived() == Counter(encode(trade(n)) for n in range(8))


async def test_numbers_that_a_broker_gave_twice_do_not_hide_messages(world: World) -> None:
    await world.publish([trade(n) for n in range(10)])
    await world.run_once()
    stream = world.transport.stream(FEED)
    for _ in range(4):  # a power cut: the broker forgets its last acknowledged messages
        stream.messages.pop()
    stream.floors["archiver"] = 6

    await world.run_once()
    await world.publish([trade(n) for n in range(10, 13)])
    await world.run_once()

    assert await world.archived() == Counter(encode(trade(n)) for n in range(13))
    assert "stream_rewound" in {issue.detail for issue in world.registry.issues(FEED, DAY)}


async def test_a_segment_left_without_manifest_is_described_by_the_next_run(world: World) -> None:
    await world.publish([trade(n) for n in range(5)])
    await world.run_once()
    [its] = await world.segments()
    before = await world.storage.get(BUCKET, its.manifest_key)
    await world.storage.delete(BUCKET, its.manifest_key)
    await world.publish([trade(6)])

    await world.run_once()

    assert await world.storage.get(BUCKET, its.manifest_key) == before


async def test_an_unreadable_position_only_makes_it_read_the_stream_again(world: World) -> None:
    await world.publish([event(n) for n in range(12)])
    await world.run_once()
    identity = (await world.transport.ensure_stream(FEED)).identity
    await world.storage.replace(BUCKET, layout.PositionObject(FEED, identity).key, b"not json")
    world.transport.stream(FEED).floors.clear()

    await world.run_once()

    assert await world.archived() == Counter(encode(event(n)) for n in range(12))
    position = await world.storage.get(BUCKET, layout.PositionObject(FEED, identity).key)
    assert msgspec.json.decode(position) == {"last_seq": 12, "generation": 0}


async def test_a_damaged_segment_without_manifest_and_a_stray_object_stop_nothing(world: World) -> None:
    await world.publish([trade(n) for n in range(5)])
    await world.run_once()
    [its] = await world.segments()
    await world.storage.delete(BUCKET, its.manifest_key)
    await world.storage.replace(BUCKET, its.key, (await world.storage.get(BUCKET, its.key))[:-1])
    await world.storage.replace(BUCKET, its.key.rpartition("/")[0] + "/notes.txt", b"stray")
    await world.publish([trade(6)])

    await world.run_once()

    assert world.floor == 6
    manifests = await world.storage.list(BUCKET, layout.normalized_manifests_prefix(FEED, "trade", DAY))
    assert [entry.key for entry in manifests] != [its.manifest_key]


async def test_a_segment_that_another_archiver_wrote_ends_the_service_with_what_to_do(world: World) -> None:
    await world.publish([trade(n) for n in range(5)])
    archiver = world.archiver()
    stop = asyncio.Event()
    task = asyncio.create_task(archiver.run(stop))
    world.task = task
    await world.until(archiver, "taken_seq", 5)
    identity = (await world.transport.ensure_stream(FEED)).identity
    await world.storage.replace(BUCKET, SegmentObject(FEED, "trade", DAY, identity, 1, 5).key, b"theirs")
    stop.set()

    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(task, 5)

    [error] = caught.value.exceptions
    assert isinstance(error, FatalError)
    assert "one archiver" in error.hint
    assert world.floor == 0
