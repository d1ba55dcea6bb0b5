"""A recorded day through archive, archiver, compaction and verification: it comes out as the mapper gave it live."""

import asyncio
from pathlib import Path

import pytest

from ssmd.archive.raw_day import read_raw_day
from ssmd.archive.reader import read_normalized
from ssmd.archive.segments import symbol_of
from ssmd.backfill import compact
from ssmd.clock import NS_PER_MS, day_of
from ssmd.market.events import EVENT_TYPES
from ssmd.middleware.storage.local import LocalStorage
from ssmd.quality.verify import verify
from ssmd.wire.normalized import encode, event_type_of
from tests.kalshi_day import NORMALIZED, Talk, Venue
from tests.raw_archive import FEED, RAW
from tests.tapes import gold_tape, gold_tapes, lines, renumbered


@pytest.mark.replay
async def test_a_recorded_market_is_archived_compacted_and_verified(tmp_path: Path) -> None:
    names = gold_tapes()
    if not names:
        pytest.skip("no recorded tapes")
    frames = list(renumbered(lines(gold_tape(names[0]))))
    said = Talk(start_ns=frames[0][0] * NS_PER_MS)
    day = day_of(frames[0][0] * NS_PER_MS)
    for received_ms, frame in frames:
        said.frame(frame, received_ms * NS_PER_MS)
    venue = Venue(LocalStorage(tmp_path / "storage"))
    await venue.receive(tmp_path, [said], per_segment=2_000)
    stop, archiver = asyncio.Event(), venue.archiver()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(archiver.run(stop))
        while archiver.health()["taken_seq"] != len(said.events):  # noqa: ASYNC110  polled
            await asyncio.sleep(0.01)
        stop.set()

    before = await verify(FEED, day, venue.storage, venue.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED)
    report = await compact(FEED, day, venue.storage, RAW, NORMALIZED, venue.registry)
    after = await verify(FEED, day, venue.storage, venue.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED)

    assert before.findings == after.findings == []
    assert (report.missing_in_stream, report.only_in_stream) == ({}, {})
    raw = [frame async for run in read_raw_day(venue.storage, RAW, FEED, day) for _, _, _, frame in run]
    assert raw == [frame for _, frame in frames]
    for kind in EVENT_TYPES:
        events = [event for event in said.events if event_type_of(event) == kind]
        for symbol in {symbol_of(event) for event in events}:
            stored = [one async for one in read_normalized(venue.storage, NORMALIZED, FEED, kind, day, symbol)]
            assert stored == [encode(event) for event in events if symbol_of(event) == symbol]
