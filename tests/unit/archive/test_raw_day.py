"""The order of a day: what is read in runs comes as it does record by record, whatever the clocks and counts."""

import asyncio
import heapq
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.archive import raw_day
from ssmd.archive.raw_day import read_raw_day
from ssmd.errors import DataError
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.wire.raw import Received
from tests.events import DAY, NOON
from tests.raw_archive import FEED, RAW, Frame, store_segment

GROUPS = ("trades", "orderbook", "ticker")


class Day(NamedTuple):
    """Segments of frames, as they are stored one after the other; `odd` ones have clocks and counts that are wrong."""

    segments: list[list[Frame]]
    odd: bool = False

    async def stored(self) -> MemoryStorage:
        storage = MemoryStorage()
        with tempfile.TemporaryDirectory() as folder:
            for frames in self.segments:
                await store_segment(storage, Path(folder), frames, frame_bytes=300)
        return storage


@st.composite
def days(draw: st.DrawFn) -> Day:
    """Two connections over three groups; times may stand still or go back, frames may be missing or there twice."""
    odd = draw(st.booleans())
    said: list[list[Frame]] = []
    for connection in ("c-1", "c-2"):
        ns, n = NOON + draw(st.integers(0, 20)), draw(st.integers(0, 2))
        said.append([])
        for _ in range(draw(st.integers(0, 25))):
            ns += draw(st.sampled_from([0, 1, 5, -3, -30] if odd else [0, 1, 5]))
            group = draw(st.sampled_from(GROUPS))
            said[-1].append(Frame(connection, n, ns, group, "t", b'{"n":%d,"ns":%d}' % (n, ns)))
            n += draw(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 0, 2] if odd else [1]))
    frames = list(heapq.merge(*said, key=lambda frame: frame.received_ns))  # each connection in its order, always
    size = draw(st.integers(1, 9))
    segments: list[list[Frame]] = []
    for group in GROUPS:
        mine = [frame for frame in frames if frame.group == group]
        segments += [mine[start : start + size] for start in range(0, len(mine), size)]
    return Day(segments, odd)


async def read(storage: MemoryStorage, connections: list[str] | None) -> list[Received] | None:
    """The day's records, None when a frame is there twice."""
    try:
        return [one async for run in read_raw_day(storage, RAW, FEED, DAY, connections) for one in run]
    except DataError:
        return None


def by_connection(records: list[Received] | None) -> list[Received] | None:
    """Each connection for itself, in its order."""
    return None if records is None else sorted(records, key=lambda record: record[1])


async def no_runs(_sources: object) -> AsyncIterator[list[Received]]:
    runs: list[list[Received]] = []
    for run in runs:
        yield run


@settings(max_examples=150, deadline=None)
@given(days(), st.sampled_from([None, ["c-1"], ["c-2", "c-3"]]))
def test_runs_give_what_the_merge_of_single_records_gives(day: Day, connections: list[str] | None) -> None:
    async def both() -> tuple[list[Received] | None, list[Received] | None]:
        storage = await day.stored()
        fast = await read(storage, connections)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(raw_day._Sources, "runs", no_runs)
            return fast, await read(storage, connections)

    fast, slow = asyncio.run(both())

    assert by_connection(fast) == by_connection(slow)
    if not day.odd:  # where frames are missing, how connections interleave is nobody's promise
        assert fast == slow
        assert fast is not None
        assert [record[0] for record in fast] == sorted(record[0] for record in fast)


def test_a_day_in_order_is_not_merged_record_by_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames = [Frame(f"c-{n % 2}", n // 2, NOON + n, GROUPS[n % 3], "t", b'{"n":%d}' % n) for n in range(300)]
    day = Day([[frame for frame in frames if frame.group == group] for group in GROUPS])

    def refuse(*_arguments: object) -> None:
        raise AssertionError("merged one by one")

    monkeypatch.setattr(raw_day._Merge, "_push", refuse)

    async def work() -> list[Received]:
        storage = await day.stored()
        return [one async for run in read_raw_day(storage, RAW, FEED, DAY) for one in run]

    assert [received for received, _, _, _ in asyncio.run(work())] == [frame.received_ns for frame in frames]


def test_the_bytes_of_all_objects_are_told_as_they_are_read(tmp_path: Path) -> None:
    frames = [Frame("c-1", n, NOON + n, GROUPS[n % 3], "t", b'{"n":%d}' % n) for n in range(90)]
    day = Day([[frame for frame in frames if frame.group == group] for group in GROUPS])
    told: list[int] = []

    async def work() -> int:
        storage = await day.stored()
        async for _ in read_raw_day(storage, RAW, FEED, DAY, on_read=told.append):
            pass
        return sum(one.bytes for one in await storage.list(RAW, "") if one.key.endswith(".zst"))

    stored = asyncio.run(work())

    assert sum(told) == stored


def test_a_hole_of_one_connection_is_not_taken_for_one_of_another_whose_frame_stands_behind_it() -> None:
    behind = [Frame("c-1", 2, NOON, "orderbook", "t", b"{}"), Frame("c-2", 0, NOON, "orderbook", "t", b"{}")]
    others = [Frame("c-1", 0, NOON, "trades", "t", b"{}")], [Frame("c-2", 1, NOON - 3, "ticker", "t", b"{}")]

    async def work() -> list[Received] | None:
        return await read(await Day([behind, *others]).stored(), None)

    found = asyncio.run(work())

    assert found is not None
    assert sorted((connection, n) for _, connection, n, _ in found) == [("c-1", 0), ("c-1", 2), ("c-2", 0), ("c-2", 1)]
