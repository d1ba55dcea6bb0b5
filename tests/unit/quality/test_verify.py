"""Verification goes red: each planted fault is found, under its own rule."""

import re
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
import zstandard

from ssmd import archiver as archiver_module
from ssmd.archive.frames import Decompressor, compress
from ssmd.archive.layout import DataObject, RawObject, SegmentObject, TickerObject
from ssmd.archive.manifest import Manifest, encode_manifest, read_manifest
from ssmd.archive.reader import normalized_objects
from ssmd.archive.writer import store_gap
from ssmd.backfill import compact
from ssmd.clock import NS_PER_DAY, day_start_ns
from ssmd.market.events import Gap
from ssmd.middleware.storage.interface import StorageUnavailable
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.findings import MAX_PER_OBJECT, RAN, VerifyReport
from ssmd.quality.recount import Numbers, spans
from ssmd.quality.verify import verify
from ssmd.registry.interface import ObjectRecord
from ssmd.wire.normalized import encode
from tests.events import DAY, NOON, trade
from tests.fakes.faulty_storage import FaultyStorage
from tests.kalshi_day import NORMALIZED, TICKERS, Talk, Venue
from tests.raw_archive import FEED, RAW, Frame, store_segment

TOMORROW = DAY + timedelta(days=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver_module, "FETCH_S", 0.002)


@pytest.fixture
async def venue(tmp_path: Path) -> Venue:
    """A day as it is after a night: raw, segments, rows, one recorded gap; nothing compacted."""
    made = Venue(MemoryStorage())
    said = Talk()
    said.start()
    said.chatter(150)
    said.delta(TICKERS[0], skip=2)
    said.chatter(150)
    await made.receive(tmp_path, [said])
    await made.archive_stream()
    return made


async def check(venue: Venue, day: date = DAY, today: date = TOMORROW, rows: bool = True) -> VerifyReport:
    registry = venue.registry if rows else None
    return await verify(FEED, day, venue.storage, registry, raw_bucket=RAW, normalized_bucket=NORMALIZED, today=today)


def rules(report: VerifyReport) -> set[str]:
    return {finding.rule for finding in report.findings}


async def close_day(venue: Venue) -> None:
    await compact(FEED, DAY, venue.storage, RAW, NORMALIZED, venue.registry, today=TOMORROW)


FIRST = RawObject(FEED, DAY, "trades", "", 0)


async def content(venue: Venue, bucket: str, its: DataObject) -> bytes:
    reader = Decompressor(its.key)
    parts = reader.feed(await venue.storage.get(bucket, its.key))
    return b"".join(parts)


async def rewrite(
    venue: Venue, tmp_path: Path, bucket: str, its: DataObject, chunks: list[bytes], **told: object
) -> None:
    """Replace an object and make its manifest, and its row, agree with it in all that a careful forger would."""
    made = compress(chunks, tmp_path / "forged", 4096)
    await venue.storage.replace(bucket, its.key, tmp_path / "forged")
    manifest = await read_manifest(venue.storage, bucket, its)
    changed = {
        "sha256": made.sha256,
        "bytes": made.bytes,
        "zstd_frames": made.frames,
        "raw_bytes": made.raw_bytes,
        **told,
    }
    await put_manifest(venue, bucket, its, msgspec.structs.replace(manifest, **changed))


async def put_manifest(venue: Venue, bucket: str, its: DataObject, manifest: Manifest) -> None:
    await venue.storage.replace(bucket, its.manifest_key, encode_manifest(manifest))
    venue.registry.replace_objects(FEED, [(bucket, its.key)], [manifest.record(bucket)])


async def test_a_sound_day_has_no_findings_and_its_gaps_are_noted(venue: Venue) -> None:
    report = await check(venue)

    assert report.findings == []
    assert report.clean
    assert set(report.checks.values()) == {RAN}
    assert set(report.checks) == {"raw", "seam", "normalized", "inventory", "renormalize"}
    assert report.counts["raw_records"] == 305
    assert report.counts["gaps"] == 1
    assert any("sequence_gap" in note for note in report.notes)


async def test_a_sound_compacted_day_has_no_findings(venue: Venue) -> None:
    await close_day(venue)

    report = await check(venue)

    assert report.findings == []
    assert report.counts["normalized_objects"] > 5


async def test_an_empty_day_has_no_findings(tmp_path: Path) -> None:
    report = await check(Venue(MemoryStorage()))

    assert report.findings == []
    assert report.counts["raw_records"] == 0


# -- raw objects --------------------------------------------------------------------------------------------------


async def flip_a_byte(venue: Venue, tmp_path: Path) -> None:
    data = bytearray(await venue.storage.get(RAW, FIRST.key))
    data[len(data) // 2] ^= 0x10
    await venue.storage.replace(RAW, FIRST.key, bytes(data))


async def truncate_a_frame(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.replace(RAW, FIRST.key, (await venue.storage.get(RAW, FIRST.key))[:-9])


async def delete_a_manifest(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.delete(RAW, FIRST.manifest_key)


async def delete_an_object(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.delete(RAW, FIRST.key)


async def delete_an_object_and_all_traces(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.delete(RAW, FIRST.key)
    await venue.storage.delete(RAW, FIRST.manifest_key)
    venue.registry.replace_objects(FEED, [(RAW, FIRST.key)], [])


async def drop_a_line(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    await rewrite(venue, tmp_path, RAW, FIRST, lines[:10] + lines[11:], records=len(lines) - 1)


async def drop_a_line_unsaid(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    await rewrite(venue, tmp_path, RAW, FIRST, lines[:10] + lines[11:])


async def swap_two_lines(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    lines[10], lines[11] = lines[11], lines[10]
    await rewrite(venue, tmp_path, RAW, FIRST, lines)


async def repeat_a_line(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    await rewrite(venue, tmp_path, RAW, FIRST, [*lines[:11], lines[10], *lines[11:]], records=len(lines) + 1)


async def garble_a_line(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    await rewrite(venue, tmp_path, RAW, FIRST, [*lines[:11], b'{"ts":1}\n', *lines[11:]])


async def end_within_a_line(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    await rewrite(venue, tmp_path, RAW, FIRST, [*lines, b'{"ts":1'])


async def duplicate_an_object(venue: Venue, tmp_path: Path) -> None:
    again = RawObject(FEED, DAY, "trades", "", 77)
    await venue.storage.replace(RAW, again.key, await venue.storage.get(RAW, FIRST.key))
    manifest = await read_manifest(venue.storage, RAW, FIRST)
    await put_manifest(venue, RAW, again, msgspec.structs.replace(manifest, key=again.key))


async def copy_without_manifest(venue: Venue, tmp_path: Path) -> None:
    again = RawObject(FEED, DAY, "trades", "", 77)
    await venue.storage.replace(RAW, again.key, await venue.storage.get(RAW, FIRST.key))


async def leave_a_stray(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.replace(RAW, f"{FEED}/2026/11/22/notes.txt", b"hello")


async def spoil_a_manifest(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.replace(RAW, FIRST.manifest_key, b"{}")


async def add_a_frame_of_another_day(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    late = Frame("c-late", 0, NOON + NS_PER_DAY, "trades", "trade", b"{}").line
    await rewrite(venue, tmp_path, RAW, FIRST, [*lines, late], records=len(lines) + 1)


async def begin_with_frame_one(venue: Venue, tmp_path: Path) -> None:
    frames = [Frame("c-new", n, NOON + n, "trades", "trade", b'{"n":%d}' % n) for n in range(1, 5)]
    venue.registry.record_objects(FEED, [await store_segment(venue.storage, tmp_path, frames)])


async def forget_a_frame_without_checksums(venue: Venue, tmp_path: Path) -> None:
    data = await content(venue, RAW, FIRST)
    await venue.storage.replace(RAW, FIRST.key, zstandard.ZstdCompressor(write_checksum=False).compress(data))


async def invent_a_count(venue: Venue, tmp_path: Path) -> None:
    manifest = await read_manifest(venue.storage, RAW, FIRST)
    await put_manifest(venue, RAW, FIRST, msgspec.structs.replace(manifest, records=manifest.records + 1))


async def invent_a_first_time(venue: Venue, tmp_path: Path) -> None:
    manifest = await read_manifest(venue.storage, RAW, FIRST)
    await put_manifest(venue, RAW, FIRST, msgspec.structs.replace(manifest, first_ns=manifest.first_ns - 1))


async def invent_a_connection(venue: Venue, tmp_path: Path) -> None:
    manifest = await read_manifest(venue.storage, RAW, FIRST)
    await put_manifest(venue, RAW, FIRST, msgspec.structs.replace(manifest, connections={}))


# -- rows and gaps ------------------------------------------------------------------------------------------------


async def drop_a_row(venue: Venue, tmp_path: Path) -> None:
    venue.registry.replace_objects(FEED, [(RAW, FIRST.key)], [])


async def invent_a_row(venue: Venue, tmp_path: Path) -> None:
    [row] = [row for row in venue.registry.objects(FEED, DAY, "raw") if row.key == FIRST.key]
    venue.registry.record_objects(FEED, [msgspec.structs.replace(row, key=row.key.replace("-00", "-99"))])


def change_row(**changes: object) -> Callable[[Venue, Path], Awaitable[None]]:
    async def plant(venue: Venue, tmp_path: Path) -> None:
        [row] = [row for row in venue.registry.objects(FEED, DAY, "raw") if row.key == FIRST.key]
        changed: ObjectRecord = msgspec.structs.replace(row, **changes)
        venue.registry.replace_objects(FEED, [(RAW, row.key)], [changed])

    return plant


GAP = Gap(FEED, "c-1", None, NOON, NOON + 1000, "connection_lost")


async def gap_without_row(venue: Venue, tmp_path: Path) -> None:
    await store_gap(venue.storage, RAW, GAP)


async def gap_row_altered(venue: Venue, tmp_path: Path) -> None:
    [known] = venue.registry.gaps(FEED, DAY)
    venue.registry.record_gaps([msgspec.structs.replace(known, to_ns=known.to_ns + 1, next_seq=99)])


async def gap_without_object(venue: Venue, tmp_path: Path) -> None:
    venue.registry.record_gaps([GAP])


async def unreadable_gap(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.replace(RAW, f"{FEED}/2026/11/22/_gaps/1-c-1.json", b"nothing")


async def misplaced_gap(venue: Venue, tmp_path: Path) -> None:
    venue.registry.record_gaps([GAP])
    await venue.storage.replace(RAW, f"{FEED}/2026/11/22/_gaps/1-c-1.json", msgspec.json.encode(GAP))


# -- normalized ---------------------------------------------------------------------------------------------------


async def trade_segment(venue: Venue) -> SegmentObject:
    _, segments = await normalized_objects(venue.storage, NORMALIZED, FEED, "trade", DAY)
    return segments[0]


async def flip_a_segment_byte(venue: Venue, tmp_path: Path) -> None:
    its = await trade_segment(venue)
    data = bytearray(await venue.storage.get(NORMALIZED, its.key))
    data[len(data) // 2] ^= 0x10
    await venue.storage.replace(NORMALIZED, its.key, bytes(data))


async def garble_a_message(venue: Venue, tmp_path: Path) -> None:
    its = await trade_segment(venue)
    await rewrite(venue, tmp_path, NORMALIZED, its, [await content(venue, NORMALIZED, its), b"\xff" * 64])


async def invent_a_trade(venue: Venue, tmp_path: Path) -> None:
    its = await trade_segment(venue)
    invented = encode(trade(1, ticker=TICKERS[0]))
    manifest = await read_manifest(venue.storage, NORMALIZED, its)
    chunks = [await content(venue, NORMALIZED, its), invented]
    await rewrite(venue, tmp_path, NORMALIZED, its, chunks, records=manifest.records + 1)


async def lose_a_segment(venue: Venue, tmp_path: Path) -> None:
    its = await trade_segment(venue)
    await venue.storage.delete(NORMALIZED, its.key)
    await venue.storage.delete(NORMALIZED, its.manifest_key)
    venue.registry.replace_objects(FEED, [(NORMALIZED, its.key)], [])


async def overlap_a_segment(venue: Venue, tmp_path: Path) -> None:
    its = await trade_segment(venue)
    again = SegmentObject(FEED, "trade", DAY, its.stream, its.first_seq + 1, its.last_seq + 1)
    await venue.storage.replace(NORMALIZED, again.key, await venue.storage.get(NORMALIZED, its.key))
    manifest = await read_manifest(venue.storage, NORMALIZED, its)
    await put_manifest(venue, NORMALIZED, again, msgspec.structs.replace(manifest, key=again.key))


async def move_a_message_to_another_day(venue: Venue, tmp_path: Path) -> None:
    its = await trade_segment(venue)
    late = encode(trade(1, NOON + NS_PER_DAY))
    await rewrite(venue, tmp_path, NORMALIZED, its, [await content(venue, NORMALIZED, its), late])


async def drop_a_segment_manifest(venue: Venue, tmp_path: Path) -> None:
    await venue.storage.delete(NORMALIZED, (await trade_segment(venue)).manifest_key)


PLANTED = [
    (flip_a_byte, {"sha256", "frame"}),
    (truncate_a_frame, {"sha256", "frame"}),
    (delete_a_manifest, {"no_manifest"}),
    (delete_an_object, {"no_object", "row_without_object", "hole", "day_row"}),
    (delete_an_object_and_all_traces, {"hole", "only_in_stream"}),
    (drop_a_line, {"hole", "only_in_stream"}),
    (drop_a_line_unsaid, {"hole", "count", "row", "day_row"}),
    (swap_two_lines, {"order"}),
    (repeat_a_line, {"repeat"}),
    (garble_a_line, {"line"}),
    (end_within_a_line, {"line"}),
    (duplicate_an_object, {"repeat"}),
    (copy_without_manifest, {"repeat", "no_manifest", "no_row", "day_row"}),
    (leave_a_stray, {"stray"}),
    (spoil_a_manifest, {"bad_manifest"}),
    (add_a_frame_of_another_day, {"day"}),
    (begin_with_frame_one, {"hole"}),
    (forget_a_frame_without_checksums, {"frame", "sha256"}),
    (invent_a_count, {"count", "row", "day_row"}),
    (invent_a_first_time, {"count", "row"}),
    (invent_a_connection, {"count"}),
    (drop_a_row, {"no_row", "day_row"}),
    (invent_a_row, {"row_without_object", "day_row"}),
    (change_row(sha256="0" * 64), {"row"}),
    (change_row(records=1), {"row", "day_row"}),
    (change_row(bytes=1), {"row", "day_row"}),
    (change_row(last_ns=NOON * 2), {"row", "day_row"}),
    (change_row(group="control"), {"row"}),
    (gap_without_row, {"gap_row", "missing_in_stream"}),
    (gap_without_object, {"gap_object"}),
    (gap_row_altered, {"gap_row"}),
    (unreadable_gap, {"gap"}),
    (misplaced_gap, {"gap"}),
    (flip_a_segment_byte, {"frame", "sha256"}),
    (garble_a_message, {"message"}),
    (invent_a_trade, {"only_in_stream"}),
    (lose_a_segment, {"missing_in_stream"}),
    (overlap_a_segment, {"overlap"}),
    (move_a_message_to_another_day, {"day"}),
    (drop_a_segment_manifest, {"no_manifest"}),
]


@pytest.mark.parametrize(
    ("plant", "expected"),
    PLANTED,
    ids=[plant.__qualname__.split(".")[0] + str(n) for n, (plant, _) in enumerate(PLANTED)],
)
async def test_a_planted_fault_is_found_by_its_rule(
    venue: Venue, tmp_path: Path, plant: Callable[[Venue, Path], Awaitable[None]], expected: set[str]
) -> None:
    await plant(venue, tmp_path)

    report = await check(venue)

    assert expected <= rules(report)
    assert not report.clean


async def test_of_a_damaged_object_the_cause_comes_first_and_its_frames_are_one_line(
    venue: Venue, tmp_path: Path
) -> None:
    await flip_a_byte(venue, tmp_path)

    report = await check(venue)

    assert [finding.rule for finding in report.findings[:2]] == ["frame", "sha256"]
    assert rules(report) == {"frame", "sha256", "hole", "row"}
    [row] = [finding for finding in report.findings if finding.rule == "row"]
    assert row.message.startswith("sha256 is ")
    lost = [finding for finding in report.findings if finding.rule == "hole"]
    assert len(lost) == 1
    assert re.fullmatch(r"\d+ of the frames \d+ to \d+ are missing", lost[0].message)
    assert report.suppressed == 0


async def test_a_day_whose_first_object_is_damaged_does_not_begin_in_1970(venue: Venue, tmp_path: Path) -> None:
    await flip_a_byte(venue, tmp_path)
    await venue.storage.delete(RAW, FIRST.manifest_key)

    assert not any(
        "first_ns is 0," in finding.message for finding in (await check(venue)).findings if finding.rule == "day_row"
    )


def test_holes_close_together_are_told_as_one() -> None:
    assert list(spans([])) == []
    assert list(spans([(5, 5), (1_000, 1_009), (1_011, 1_011), (1_100, 1_102), (9_000, 9_001)])) == [
        "frame 5 is missing", "14 of the frames 1000 to 1102 are missing", "frames 9000 to 9001 are missing",
    ]  # fmt: skip


# -- compacted ----------------------------------------------------------------------------------------------------

TICKER = TickerObject(FEED, "trade", DAY, TICKERS[1])


async def messages_of(venue: Venue) -> list[bytes]:
    data, found = await content(venue, NORMALIZED, TICKER), []
    while data:
        size = 8 + (int.from_bytes(data[4:8], "little") << 3)
        found.append(data[:size])
        data = data[size:]
    return found


async def test_an_event_missing_from_a_compacted_object_is_found(venue: Venue, tmp_path: Path) -> None:
    await close_day(venue)
    messages = await messages_of(venue)
    await rewrite(venue, tmp_path, NORMALIZED, TICKER, messages[:-1], records=len(messages) - 1)

    assert "renormalize" in rules(await check(venue))


async def test_two_events_swapped_in_a_compacted_object_are_found(venue: Venue, tmp_path: Path) -> None:
    await close_day(venue)
    messages = await messages_of(venue)
    messages[0], messages[1] = messages[1], messages[0]
    await rewrite(venue, tmp_path, NORMALIZED, TICKER, messages)

    assert rules(await check(venue)) == {"renormalize"}


async def test_an_event_of_another_ticker_in_a_compacted_object_is_found(venue: Venue, tmp_path: Path) -> None:
    await close_day(venue)
    messages = await messages_of(venue)
    other = encode(trade(3, NOON, "OTHER"))
    await rewrite(venue, tmp_path, NORMALIZED, TICKER, [*messages, other], records=len(messages) + 1, symbols=2)

    assert {"ticker", "renormalize"} <= rules(await check(venue))


async def test_a_lost_compacted_object_is_found(venue: Venue) -> None:
    await close_day(venue)
    for key in (TICKER.key, TICKER.manifest_key):
        await venue.storage.delete(NORMALIZED, key)
    venue.registry.replace_objects(FEED, [(NORMALIZED, TICKER.key)], [])

    assert rules(await check(venue)) == {"renormalize"}


async def test_segments_that_stand_beside_compacted_objects_of_a_closed_day_are_found(venue: Venue) -> None:
    await compact(FEED, DAY, venue.storage, RAW, NORMALIZED, venue.registry, today=DAY)

    assert rules(await check(venue)) == {"segments_left"}


# -- days ---------------------------------------------------------------------------------------------------------


async def over_midnight(tmp_path: Path) -> Venue:
    venue = Venue(MemoryStorage())
    said = Talk(start_ns=day_start_ns(DAY) + NS_PER_DAY - 150_000_000)
    said.start()
    said.chatter(300)
    await venue.receive(tmp_path, [said])
    await venue.archive_stream()
    return venue


async def test_a_connection_over_midnight_is_sound_on_both_days(tmp_path: Path) -> None:
    venue = await over_midnight(tmp_path)

    assert (await check(venue)).findings == []
    assert (await check(venue, TOMORROW, TOMORROW + timedelta(days=1))).findings == []


@pytest.mark.parametrize("day", [DAY, TOMORROW], ids=["before", "after"])
async def test_frames_lost_at_midnight_are_found_on_both_days(tmp_path: Path, day: date) -> None:
    venue = Venue(MemoryStorage())
    said = Talk(start_ns=day_start_ns(DAY) + NS_PER_DAY - 150_000_000)
    said.start()
    said.chatter(300)
    del said.frames[145:155]
    await venue.receive(tmp_path, [said])

    findings = (await check(venue, day, day + timedelta(days=1))).findings

    assert [finding.object for finding in findings if finding.rule == "hole"] == ["c-1"]


async def test_of_today_the_stream_may_be_ahead_of_raw(venue: Venue) -> None:
    await venue.publish([trade(1, ticker=TICKERS[0])])
    await venue.archive_stream()

    report = await check(venue, today=DAY)

    assert report.findings == []
    assert any("the day is not over" in note for note in report.notes)


async def test_without_a_database_the_inventory_is_said_to_be_unchecked(venue: Venue) -> None:
    report = await check(venue, rows=False)

    assert report.findings == []
    assert report.checks["inventory"] == "not run: no database"


async def test_a_storage_that_is_away_is_no_finding(venue: Venue) -> None:
    faulty = FaultyStorage(venue.storage)
    faulty.away = True
    venue.storage = faulty

    with pytest.raises(StorageUnavailable):
        await check(venue)


async def test_many_findings_of_one_kind_are_counted_not_listed(venue: Venue, tmp_path: Path) -> None:
    lines = (await content(venue, RAW, FIRST)).splitlines(keepends=True)
    await rewrite(venue, tmp_path, RAW, FIRST, [*lines, *[b"junk\n"] * 100])

    report = await check(venue)

    assert len([finding for finding in report.findings if finding.rule == "line"]) == MAX_PER_OBJECT
    assert report.suppressed == 100 - MAX_PER_OBJECT


def test_numbers_know_their_holes_wherever_they_are() -> None:
    numbers = Numbers()
    seen = [5, 6, 9, 65_535, 65_536, 65_537, 200_000, 10**19]
    assert all(numbers.add(n) for n in seen)
    assert not numbers.add(9)

    assert (numbers.first, numbers.last) == (5, 10**19)
    assert list(numbers.holes()) == [
        (7, 8),
        (10, 65_534),
        (65_538, 199_999),
        (200_001, 10**19 - 1),
    ]
