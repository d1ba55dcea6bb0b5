"""Writing into the archive: once, whole, and the same after any crash."""

from datetime import date
from pathlib import Path

import msgspec
import pytest
import zstandard

from ssmd.archive import layout
from ssmd.archive.manifest import raw_manifests
from ssmd.archive.writer import ObjectConflict, RawSegment, compress, next_number, store_gap, store_raw
from ssmd.clock import day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import Gap
from ssmd.middleware.storage.memory import MemoryStorage
from tests.fakes.faulty_storage import FaultyStorage, Killed

DAY = date(2026, 11, 22)
START = day_start_ns(DAY)
LINES = [b'{"n":%d}\n' % n for n in range(100)]


def sealed(tmp_path: Path, lines: list[bytes] = LINES, number: int = 0, shard: str = "") -> tuple[RawSegment, Path]:
    path = tmp_path / f"segment-{number}"
    made = compress(lines, path, 200)
    segment = RawSegment(
        "kalshi", DAY, "trades", shard, number, len(lines), START, START + 99, {"c-1": (0, len(lines) - 1)}, made
    )
    return segment, path


async def test_a_segment_is_stored_with_its_manifest(tmp_path: Path) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)

    record = await store_raw(storage, "raw-bucket", segment, path)

    assert await storage.get("raw-bucket", "kalshi/2026/11/22/trades-00.jsonl.zst") == path.read_bytes()
    manifest = msgspec.json.decode(await storage.get("raw-bucket", "kalshi/2026/11/22/_manifest/trades-00.json"))
    assert manifest | {"sha256": "", "bytes": 0} == {
        "key": "kalshi/2026/11/22/trades-00.jsonl.zst",
        "sha256": "",
        "bytes": 0,
        "records": 100,
        "first_ns": START,
        "last_ns": START + 99,
        "connections": {"c-1": {"first_n": 0, "last_n": 99}},
        "zstd_frames": segment.compressed.frames,
        "raw_bytes": sum(map(len, LINES)),
        "feed": "kalshi",
        "group": "trades",
        "day": "2026-11-22",
        "writer_version": "0.1.0",
        "schema_version": None,
        "symbols": None,
    }
    assert (manifest["sha256"], manifest["bytes"]) == (segment.compressed.sha256, path.stat().st_size)
    assert (record.data_type, record.group, record.records, record.sha256) == ("raw", "trades", 100, manifest["sha256"])


async def test_storing_a_segment_twice_changes_nothing(tmp_path: Path) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)

    first = await store_raw(storage, "raw-bucket", segment, path)
    again = await store_raw(storage, "raw-bucket", segment, path)

    assert again == first
    assert len(await storage.list("raw-bucket", "")) == 2


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("kill_at", range(2))
async def test_a_crash_at_any_call_is_repaired_by_repeating(tmp_path: Path, kill_at: int, after: bool) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)
    with pytest.raises(Killed):
        await store_raw(FaultyStorage(storage, kill_at, after), "raw-bucket", segment, path)

    record = await store_raw(storage, "raw-bucket", segment, path)

    assert [
        found.record("raw-bucket") for found in (await raw_manifests(storage, "raw-bucket", "kalshi", DAY)).values()
    ] == [record]


async def test_other_lines_under_the_same_key_are_a_conflict(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await store_raw(storage, "raw-bucket", *sealed(tmp_path))
    other, path = sealed(tmp_path, [b"other\n"])

    with pytest.raises(ObjectConflict, match="trades-00"):
        await store_raw(storage, "raw-bucket", other, path)


async def test_the_same_lines_compressed_by_another_version_are_success(tmp_path: Path) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)
    older = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"".join(LINES))
    await storage.put_once("raw-bucket", segment.object.key, older)

    record = await store_raw(storage, "raw-bucket", segment, path)

    assert record.bytes == len(older)
    manifest = (await raw_manifests(storage, "raw-bucket", "kalshi", DAY))[segment.object]
    assert (manifest.sha256, manifest.zstd_frames) == (record.sha256, 1)


async def test_a_damaged_object_under_the_key_is_a_conflict(tmp_path: Path) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)
    await storage.put_once("raw-bucket", segment.object.key, path.read_bytes()[:-3])

    with pytest.raises(ObjectConflict, match="damaged"):
        await store_raw(storage, "raw-bucket", segment, path)


async def test_a_wrong_manifest_is_replaced_by_the_one_of_the_stored_object(tmp_path: Path) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)
    await storage.put_once("raw-bucket", segment.object.manifest_key, b"{}")

    await store_raw(storage, "raw-bucket", segment, path)

    assert (await raw_manifests(storage, "raw-bucket", "kalshi", DAY))[segment.object].records == 100


async def test_the_next_number_follows_the_highest_of_the_same_group_and_shard(tmp_path: Path) -> None:
    storage = MemoryStorage()

    async def following(shard: str) -> int:
        return await next_number(storage, "raw-bucket", "kalshi", DAY, "trades", shard)

    assert await following("") == 0
    for number, shard in ((0, ""), (1, ""), (99, ""), (4, "b"), (7, "b-2")):
        segment, path = sealed(tmp_path, number=number, shard=shard)
        await store_raw(storage, "raw-bucket", segment, path)
    assert (await following(""), await following("b"), await following("b-2"), await following("c")) == (100, 5, 8, 0)

    lost = layout.RawObject("kalshi", DAY, "trades", "", 123)
    await storage.put_once("raw-bucket", lost.manifest_key, b"its object was lost")
    assert await following("") == 124


GAP = Gap("kalshi", "c-1", None, START + 5, START + 9, "connection_lost")


async def test_a_gap_is_an_object_of_its_own() -> None:
    storage = MemoryStorage()

    key = await store_gap(storage, "raw-bucket", GAP)

    assert key == f"kalshi/2026/11/22/_gaps/{START + 9}-c-1.json"
    assert msgspec.json.decode(await storage.get("raw-bucket", key)) == {
        "feed": "kalshi",
        "connection": "c-1",
        "sid": None,
        "from_ns": START + 5,
        "to_ns": START + 9,
        "reason": "connection_lost",
        "last_seq": None,
        "next_seq": None,
        "tickers": None,
    }


async def test_two_gaps_of_the_same_moment_get_two_keys_and_repeating_gets_the_same() -> None:
    storage = MemoryStorage()
    other = msgspec.structs.replace(GAP, sid=3, reason="sequence_gap", last_seq=4, next_seq=7, tickers=("A.B",))

    keys = [await store_gap(storage, "raw-bucket", gap) for gap in (GAP, other, GAP, other)]

    assert keys[0] == keys[2]
    assert keys[1] == keys[3]
    assert keys[1] == f"kalshi/2026/11/22/_gaps/{START + 9}-c-1.1.json"
    assert len(await storage.list("raw-bucket", "")) == 2


async def test_a_manifest_of_another_object_is_an_error(tmp_path: Path) -> None:
    storage = MemoryStorage()
    segment, path = sealed(tmp_path)
    await store_raw(storage, "raw-bucket", segment, path)
    elsewhere = layout.RawObject("kalshi", DAY, "trades", "", 1).manifest_key
    await storage.put_once("raw-bucket", elsewhere, await storage.get("raw-bucket", segment.object.manifest_key))

    with pytest.raises(DataError, match="trades-01"):
        await raw_manifests(storage, "raw-bucket", "kalshi", DAY)
