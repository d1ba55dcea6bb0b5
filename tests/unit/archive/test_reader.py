"""Reading a day back: every frame once, in the order of its connection, or a clear refusal."""

import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmd.archive.layout import RawObject, SegmentObject
from ssmd.archive.manifest import Range, encode_manifest, read_manifest
from ssmd.archive.raw_day import read_raw_day
from ssmd.archive.reader import read_gaps, read_messages, read_normalized
from ssmd.archive.segments import OpenSegment, store_segment
from ssmd.archive.writer import store_gap
from ssmd.clock import NS_PER_DAY, day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.wire.normalized import encode
from tests.events import DAY, NOON, TICKERS, trade
from tests.raw_archive import FEED, RAW, Frame, archive

GROUPS = ("trades", "orderbook", "ticker", "lifecycle", "control")


class Record(NamedTuple):
    """What `read_raw_day` gives."""

    received_ns: int
    connection: str
    n: int
    frame: bytes


def frames(connection: str, count: int, start_ns: int = NOON, seed: int = 0, step_ns: int = 1_000_000) -> list[Frame]:
    """`count` frames of a connection, of changing groups."""
    pick = random.Random(seed)
    return [
        Frame(connection, n, start_ns + n * step_ns, pick.choice(GROUPS), "t", b'{"n":%d}' % n) for n in range(count)
    ]


async def read(storage: MemoryStorage, day: date = DAY, connections: Sequence[str] | None = None) -> list[Record]:
    return [Record(*one) async for run in read_raw_day(storage, RAW, FEED, day, connections) for one in run]


def in_order(records: Sequence[Record], connection: str) -> list[tuple[int, bytes]]:
    return [(record.n, record.frame) for record in records if record.connection == connection]


async def test_a_connection_comes_back_in_the_order_it_was_received(tmp_path: Path) -> None:
    storage = MemoryStorage()
    sent = frames("c-1", 500)
    await archive(storage, tmp_path, sent, per_segment=37)

    records = await read(storage)

    assert [record.n for record in records] == list(range(500))
    assert [record.frame for record in records] == [frame.data for frame in sent]
    assert [record.received_ns for record in records] == [frame.received_ns for frame in sent]


async def test_connections_at_the_same_time_interleave_by_receive_time(tmp_path: Path) -> None:
    storage = MemoryStorage()
    one, two = frames("c-1", 200), frames("c-2", 200, NOON + 50_500_000, seed=1)
    together = sorted(one + two, key=lambda frame: frame.received_ns)
    await archive(storage, tmp_path, together, per_segment=20)

    records = await read(storage)

    assert [(record.connection, record.n) for record in records] == [(frame.connection, frame.n) for frame in together]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    starts=st.lists(st.integers(0, 50), min_size=4, max_size=4),
    steps=st.lists(st.sampled_from([-3, 0, 1, 2]), min_size=4, max_size=4),
    per_segment=st.integers(1, 30),
    frame_bytes=st.integers(1, 400),
)
async def test_whatever_the_clock_does_no_connection_loses_its_order(
    tmp_path: Path, counts: list[int], starts: list[int], steps: list[int], per_segment: int, frame_bytes: int
) -> None:
    storage = MemoryStorage()
    sent = {
        f"c-{i}": frames(f"c-{i}", count, NOON + starts[i] * 1000, i, steps[i] * 1000) for i, count in enumerate(counts)
    }
    waiting = [list(reversed(own)) for own in sent.values()]
    arrived = []
    pick = random.Random(repr((counts, starts)))
    while waiting := [own for own in waiting if own]:
        arrived.append(pick.choice(waiting).pop())
    await archive(storage, tmp_path, arrived, per_segment, frame_bytes=frame_bytes)

    records = await read(storage)

    assert len(records) == sum(counts)
    for connection, own in sent.items():
        assert in_order(records, connection) == [(frame.n, frame.data) for frame in own]


async def test_a_segment_recovered_late_has_a_high_number_and_still_comes_first(tmp_path: Path) -> None:
    storage = MemoryStorage()
    old, new = frames("c-old", 40), frames("c-new", 40, NOON + 10_000_000_000)
    await archive(storage, tmp_path, new)
    await archive(storage, tmp_path, old)

    records = await read(storage)

    assert [record.connection for record in records] == ["c-old"] * 40 + ["c-new"] * 40


async def test_a_day_holds_only_its_own_frames_and_a_connection_may_begin_before_it(tmp_path: Path) -> None:
    storage = MemoryStorage()
    midnight = day_start_ns(DAY) + NS_PER_DAY
    await archive(storage, tmp_path, frames("c-1", 100, midnight - 30_000_000))

    today, tomorrow = await read(storage), await read(storage, DAY + timedelta(days=1))

    assert [record.n for record in today] == list(range(30))
    assert [record.n for record in tomorrow] == list(range(30, 100))


async def test_only_the_chosen_connections_are_read(tmp_path: Path) -> None:
    storage = MemoryStorage()
    mixed = sorted(frames("c-1", 50) + frames("c-2", 50, seed=3), key=lambda frame: frame.received_ns)
    await archive(storage, tmp_path, mixed, per_segment=7)

    records = await read(storage, connections=["c-2"])

    assert [(record.connection, record.n) for record in records] == [("c-2", n) for n in range(50)]


async def test_shards_are_merged(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await archive(storage, tmp_path, frames("c-a", 30), shard="a")
    await archive(storage, tmp_path, frames("c-b", 30), shard="b")

    records = await read(storage)

    assert [record.received_ns for record in records] == sorted(record.received_ns for record in records)
    assert len(records) == 60


async def test_an_empty_day_has_no_frames() -> None:
    assert await read(MemoryStorage()) == []


async def test_odd_frames_come_back_bit_for_bit(tmp_path: Path) -> None:
    odd = [b'{"a": 1,  "a":2 }', b"\xff\xfe\x00", b'{"text":"\xe2\x80\xa8\\r"}', b"", b"{\n}", b"\r", b" "]
    inline = [True, False, True, False, False, False, False]
    sent = [Frame("c-1", n, NOON + n, "control", "x", data, inline[n]) for n, data in enumerate(odd)]
    storage = MemoryStorage()
    await archive(storage, tmp_path, sent, frame_bytes=10)

    assert [record.frame for record in await read(storage)] == odd


FIRST = RawObject(FEED, DAY, "trades", "", 0)


async def one_group(storage: MemoryStorage, tmp_path: Path, count: int = 100) -> None:
    sent = [Frame("c-1", n, NOON + n, "trades", "trade", b'{"n":%d}' % n) for n in range(count)]
    await archive(storage, tmp_path, sent, per_segment=40, frame_bytes=300)


async def test_a_truncated_object_is_named(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    await storage.replace(RAW, FIRST.key, (await storage.get(RAW, FIRST.key))[:-7])

    with pytest.raises(DataError, match=r"trades-00\.jsonl\.zst ends within zstd frame"):
        await read(storage)


async def test_an_object_without_its_last_frames_is_named(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    other = RawObject(FEED, DAY, "trades", "", 2)
    await storage.replace(RAW, FIRST.key, await storage.get(RAW, other.key))

    with pytest.raises(DataError, match="trades-0"):
        await read(storage)


async def test_an_object_with_another_sha256_than_its_manifest_says_is_named(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    manifest = await read_manifest(storage, RAW, FIRST)
    await storage.replace(RAW, FIRST.manifest_key, encode_manifest(msgspec.structs.replace(manifest, sha256="0" * 64)))

    with pytest.raises(DataError, match=r"trades-00\.jsonl\.zst is not what its manifest says"):
        await read(storage)


async def test_an_object_with_another_count_than_its_manifest_says_is_named(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    manifest = await read_manifest(storage, RAW, FIRST)
    await storage.replace(RAW, FIRST.manifest_key, encode_manifest(msgspec.structs.replace(manifest, records=41)))

    with pytest.raises(DataError, match="has 40 records, its manifest says 41"):
        await read(storage)


async def test_a_repeated_object_is_refused(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    again = RawObject(FEED, DAY, "trades", "", 9)
    manifest = await read_manifest(storage, RAW, FIRST)
    await storage.replace(RAW, again.key, await storage.get(RAW, FIRST.key))
    await storage.replace(RAW, again.manifest_key, encode_manifest(msgspec.structs.replace(manifest, key=again.key)))

    with pytest.raises(DataError, match="frame 0 of c-1 is there twice"):
        await read(storage)


async def test_a_connection_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    manifest = await read_manifest(storage, RAW, FIRST)
    wrong = msgspec.structs.replace(manifest, connections={"c-9": Range(0, 39)})
    await storage.replace(RAW, FIRST.manifest_key, encode_manifest(wrong))

    with pytest.raises(DataError, match="holds c-1, which its manifest does not name"):
        await read(storage)


@pytest.mark.parametrize("lost", ["key", "manifest_key"])
async def test_an_object_or_a_manifest_alone_is_refused(tmp_path: Path, lost: str) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    await storage.delete(RAW, getattr(FIRST, lost))

    with pytest.raises(DataError, match="trades-00"):
        await read(storage)


async def test_a_hole_is_skipped_and_the_frames_behind_it_are_read(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await one_group(storage, tmp_path)
    middle = RawObject(FEED, DAY, "trades", "", 1)
    await storage.delete(RAW, middle.key)
    await storage.delete(RAW, middle.manifest_key)

    assert [record.n for record in await read(storage)] == [*range(40), *range(80, 100)]


async def test_gaps_of_a_day_are_read_back(tmp_path: Path) -> None:
    storage = MemoryStorage()
    gap = Gap(FEED, "c-1", 3, NOON, NOON + 5, "sequence_gap", 7, 9, ("A.B", "C"))
    await store_gap(storage, RAW, gap)

    assert list((await read_gaps(storage, RAW, FEED, DAY)).values()) == [gap]


async def test_a_day_that_is_not_compacted_is_read_from_its_segments(tmp_path: Path) -> None:
    storage = MemoryStorage()
    events = [trade(n, ticker=TICKERS[n % 3]) for n in range(12)]
    for part in (events[:5], events[5:]):
        segment = OpenSegment(FEED, "trade", DAY, "s", 0)
        segment.messages = [encode(one) for one in part]
        segment.first_seq, segment.last_seq = part[0].seq, part[-1].seq
        await store_segment(storage, RAW, segment, tmp_path)

    everything = [message async for message in read_normalized(storage, RAW, FEED, "trade", DAY)]
    dotted = [message async for message in read_normalized(storage, RAW, FEED, "trade", DAY, TICKERS[1])]

    assert everything == [encode(one) for one in events]
    assert dotted == [encode(one) for one in events if one.ticker == TICKERS[1]]


async def test_a_normalized_object_that_ends_within_a_message_is_named(tmp_path: Path) -> None:
    from ssmd.archive.frames import compress

    storage = MemoryStorage()
    its = SegmentObject(FEED, "trade", DAY, "s", 1, 2)
    compress([encode(trade(1)), encode(trade(2))[:-8]], tmp_path / "x")
    await storage.put_once(RAW, its.key, tmp_path / "x")

    with pytest.raises(DataError, match="ends within a message"):
        _ = [messages async for messages in read_messages(storage, RAW, its.key)]
