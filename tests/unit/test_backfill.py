"""Compaction: raw decides; what the stream lacked is healed, what only the stream has is a finding."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest
import structlog

from ssmd import archiver as archiver_module
from ssmd.archive.layout import RawObject, SegmentObject, TickerObject
from ssmd.archive.manifest import read_manifest
from ssmd.archive.reader import normalized_objects, read_messages, read_normalized
from ssmd.archive.segments import symbol_of
from ssmd.archive.spill import Spill
from ssmd.archive.writer import compress
from ssmd.backfill import CompactReport, Place, backfill_date, compact, compaction, dates, survey
from ssmd.clock import NS_PER_DAY, day_start_ns
from ssmd.errors import DataError
from ssmd.market.events import EVENT_TYPES, Event, Gap, OrderBookUpdate
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.registry.interface import RegistryUnavailable
from ssmd.wire.normalized import encode, event_type_of
from tests.events import DAY, trade
from tests.fakes.faulty_storage import FaultyStorage, Killed
from tests.kalshi_day import NORMALIZED, TICKERS, Talk, Venue
from tests.raw_archive import FEED, RAW

TOMORROW = DAY + timedelta(days=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver_module, "FETCH_S", 0.002)
    for module in (compaction, dates):
        monkeypatch.setattr(module, "now_ns", lambda: day_start_ns(TOMORROW))


@pytest.fixture
def venue() -> Venue:
    return Venue(MemoryStorage())


async def run(venue: Venue, day: date = DAY, today: date = TOMORROW) -> CompactReport:
    return await compact(FEED, day, venue.storage, RAW, NORMALIZED, venue.registry, today=today)


def talk(connection: str = "c-1", count: int = 300, **options: int) -> Talk:
    said = Talk(connection, **options)
    said.start()
    said.chatter(count)
    return said


async def compacted(venue: Venue, day: date = DAY) -> dict[tuple[str, str], list[bytes]]:
    found: dict[tuple[str, str], list[bytes]] = {}
    for kind in EVENT_TYPES:
        tickers, _ = await normalized_objects(venue.storage, NORMALIZED, FEED, kind, day)
        for its in tickers:
            parts = [part async for part in read_messages(venue.storage, NORMALIZED, its.key)]
            found[kind, its.ticker] = [message for part in parts for message in part]
    return found


def by_ticker(events: Sequence[Event]) -> dict[tuple[str, str], list[bytes]]:
    found: dict[tuple[str, str], list[bytes]] = {}
    for event in events:
        found.setdefault((event_type_of(event), symbol_of(event)), []).append(encode(event))
    return found


async def test_each_ticker_gets_one_object_with_the_events_that_were_live(venue: Venue, tmp_path: Path) -> None:
    said = talk()
    said.delta(TICKERS[0], skip=3)
    said.chatter(20)
    await venue.receive(tmp_path, [said])
    await venue.archive_stream()

    report = await run(venue)

    assert await compacted(venue) == by_ticker(said.events)
    assert report.missing_in_stream == report.only_in_stream == {}
    assert report.frames == len(said.frames)
    assert report.gaps == 1
    assert report.events == Counter(event_type_of(event) for event in said.events)


async def test_the_segments_of_a_closed_day_give_way_to_the_objects_and_their_rows(
    venue: Venue, tmp_path: Path
) -> None:
    said = talk()
    await venue.receive(tmp_path, [said])
    await venue.archive_stream()

    report = await run(venue)

    keys = [entry.key for entry in await venue.storage.list(NORMALIZED, f"{FEED}/v1/") if "_position" not in entry.key]
    assert not [key for key in keys if "/_segments/" in key]
    rows = {row.key: row for row in venue.registry.objects(FEED, DAY, "normalized")}
    assert sorted(rows) == sorted(key for key in keys if key.endswith(".zst"))
    for (kind, ticker), messages in by_ticker(said.events).items():
        its = TickerObject(FEED, kind, DAY, ticker)
        manifest = await read_manifest(venue.storage, NORMALIZED, its)
        assert rows[its.key] == manifest.record(NORMALIZED)
        assert (manifest.records, manifest.symbols) == (len(messages), 1)
    assert report.segments_deleted > 0
    assert report.kept_because == ""


async def test_compacting_again_changes_nothing(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    await venue.archive_stream()
    await run(venue)
    before = {
        entry.key: await venue.storage.get(NORMALIZED, entry.key) for entry in await venue.storage.list(NORMALIZED, "")
    }
    rows = venue.registry.objects(FEED, DAY)

    report = await run(venue)

    after = {
        entry.key: await venue.storage.get(NORMALIZED, entry.key) for entry in await venue.storage.list(NORMALIZED, "")
    }
    assert after == before
    assert venue.registry.objects(FEED, DAY) == rows
    assert (report.missing_in_stream, report.only_in_stream, report.segments_deleted) == ({}, {}, 0)


async def test_events_that_the_stream_lost_are_healed_and_counted(venue: Venue, tmp_path: Path) -> None:
    said = talk()
    lost = [event for event in said.events if event_type_of(event) in ("trade", "orderbook")][10:15]
    complete, said.events = said.events, [event for event in said.events if event not in lost]
    await venue.receive(tmp_path, [said])
    await venue.archive_stream()

    report = await run(venue)

    assert await compacted(venue) == by_ticker(complete)
    assert report.missing_in_stream == Counter(event_type_of(event) for event in lost)
    assert report.segments_deleted > 0


async def test_events_that_only_the_stream_has_are_a_finding_and_keep_the_segments(
    venue: Venue, tmp_path: Path
) -> None:
    said = talk()
    await venue.receive(tmp_path, [said])
    await venue.publish([trade(1, ticker="NOBODY"), trade(2, ticker=TICKERS[0])])
    await venue.archive_stream()

    report = await run(venue)

    assert report.only_in_stream == {"trade": 2}
    assert report.segments_kept > 0
    assert report.segments_deleted == 0
    assert "raw archive does not give" in report.kept_because
    assert await compacted(venue) == by_ticker(said.events)
    rows = {row.key for row in venue.registry.objects(FEED, DAY, "normalized")}
    assert {key for key in rows if "/_segments/" in key}


async def test_the_segments_of_today_are_kept(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    await venue.archive_stream()

    report = await run(venue, today=DAY)

    assert report.kept_because == "the day is not over"
    assert report.segments_kept > 0
    assert {row.key for row in venue.registry.objects(FEED, DAY) if "/_segments/" in row.key}


async def test_a_trade_that_came_twice_is_kept_once(venue: Venue, tmp_path: Path) -> None:
    first, second = Talk("c-1"), Talk("c-2")
    for said in (first, second):
        said.start()
        for n in range(20):
            said.trade(TICKERS[n % 3], f"same-{n}")
    await venue.receive(tmp_path, [first, second])
    await venue.archive_stream()

    report = await run(venue)

    trades = {key: messages for key, messages in (await compacted(venue)).items() if key[0] == "trade"}
    assert sum(map(len, trades.values())) == 20
    assert (report.missing_in_stream, report.only_in_stream) == ({}, {})


async def test_a_trade_that_the_broker_kept_twice_is_no_finding(venue: Venue, tmp_path: Path) -> None:
    said = talk(count=50)
    await venue.receive(tmp_path, [said])
    again = next(event for event in said.events if event_type_of(event) == "trade")
    venue.transport.stream(FEED).ids.clear()  # its window for duplicates has passed
    await venue.publish([again])
    await venue.archive_stream()

    report = await run(venue)

    assert (report.missing_in_stream, report.only_in_stream) == ({}, {})


async def test_a_connection_that_began_yesterday_keeps_its_books_over_midnight(venue: Venue, tmp_path: Path) -> None:
    midnight = day_start_ns(DAY) + NS_PER_DAY
    said = talk(count=400, start_ns=midnight - 200_000_000)
    await venue.receive(tmp_path, [said])

    report = await run(venue, TOMORROW, TOMORROW + timedelta(days=1))

    late = [event for event in said.events if not isinstance(event, Gap) and event.received_ns >= midnight]
    assert await compacted(venue, TOMORROW) == by_ticker(late)
    assert any(isinstance(event, OrderBookUpdate) for event in late)
    assert "connection_begins_before_archive" not in report.problems


async def test_a_connection_whose_beginning_is_lost_is_counted(venue: Venue, tmp_path: Path) -> None:
    midnight = day_start_ns(DAY) + NS_PER_DAY
    said = talk(count=400, start_ns=midnight - 200_000_000)
    said.frames = [frame for frame in said.frames if frame.received_ns >= midnight]
    await venue.receive(tmp_path, [said])

    report = await run(venue, TOMORROW, TOMORROW + timedelta(days=1))

    assert report.problems["connection_begins_before_archive"] == 1


async def test_an_object_of_an_earlier_compaction_that_raw_no_longer_gives_is_removed(
    venue: Venue, tmp_path: Path
) -> None:
    await venue.receive(tmp_path, [talk()])
    stale = TickerObject(FEED, "trade", DAY, "STALE")
    compress([encode(trade(1, ticker="STALE"))], tmp_path / "x")
    await venue.storage.put_once(NORMALIZED, stale.key, tmp_path / "x")

    await run(venue)

    assert ("trade", "STALE") not in await compacted(venue)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_compaction_killed_anywhere_is_finished_by_the_next(tmp_path: Path, after: bool) -> None:
    calls = 0
    while True:
        venue = Venue(MemoryStorage())
        said = talk(count=40)
        await venue.receive(tmp_path, [said])
        await venue.archive_stream()
        reliable, venue.storage = venue.storage, FaultyStorage(venue.storage, calls, after)
        try:
            await run(venue)
            break
        except* Killed:
            pass
        venue.storage = reliable
        await run(venue)
        assert await compacted(venue) == by_ticker(said.events)
        keys = {entry.key for entry in await reliable.list(NORMALIZED, "") if entry.key.endswith(".zst")}
        assert {row.key for row in venue.registry.objects(FEED, DAY, "normalized")} == keys
        assert not [key for key in keys if "/_segments/" in key]
        calls += 7
    assert calls > 30


def place(venue: Venue) -> Place:
    return Place(venue.storage, RAW, NORMALIZED, venue.registry)


async def test_a_plan_touches_nothing_and_names_what_a_run_then_does(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    await venue.archive_stream()
    await run(venue)
    stale = TickerObject(FEED, "trade", DAY, "STALE")
    await venue.storage.put_once(NORMALIZED, stale.key, b"x")
    changed = TickerObject(FEED, "trade", DAY, TICKERS[0])
    await venue.storage.replace(NORMALIZED, changed.key, b"y")
    await venue.storage.delete(NORMALIZED, TickerObject(FEED, "trade", DAY, TICKERS[1]).key)
    rows = venue.registry.objects(FEED, DAY)
    watched = venue.storage = FaultyStorage(venue.storage)

    planned = await backfill_date(FEED, DAY, place(venue), await survey(place(venue), FEED, DAY), write=False)

    assert {method for method, _ in watched.log} <= {"list", "get", "stream"}
    assert venue.registry.objects(FEED, DAY) == rows
    done = await backfill_date(FEED, DAY, place(venue), await survey(place(venue), FEED, DAY))
    assert (planned.state, done.state) == ("planned", "written")
    assert planned.objects == done.objects
    assert (done.objects.added, done.objects.changed, done.objects.removed) == (1, 1, 1)
    assert set(done.changed_objects) == {
        its.key for its in (stale, changed, TickerObject(FEED, "trade", DAY, TICKERS[1]))
    }
    again = await backfill_date(FEED, DAY, place(venue), await survey(place(venue), FEED, DAY))
    assert (again.objects.added, again.objects.changed, again.objects.removed) == (0, 0, 0)
    assert again.events == again.events_before


async def test_nothing_is_replaced_when_the_lock_is_lost_before_that(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    watched = venue.storage = FaultyStorage(venue.storage)

    class Lost:
        def read(self, count: int) -> None: ...

        def compared(self, done: int, total: int) -> None: ...

        def publishing(self) -> None:
            raise RegistryUnavailable("the lock is lost")

    with pytest.raises(RegistryUnavailable):
        await backfill_date(FEED, DAY, place(venue), await survey(place(venue), FEED, DAY), steps=Lost())

    assert {method for method, _ in watched.log} <= {"list", "get", "stream"}


async def test_the_bytes_read_are_told_up_to_the_total(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    told: list[int] = []

    class Watch:
        def read(self, count: int) -> None:
            told.append(count)

        def compared(self, done: int, total: int) -> None:
            assert done <= total

        def publishing(self) -> None: ...

    raw = await survey(place(venue), FEED, DAY)
    await backfill_date(FEED, DAY, place(venue), raw, steps=Watch())

    assert sum(told) == raw.bytes > 0


async def test_a_day_that_began_before_the_format_of_today_is_read_with_its_own_decoder(
    venue: Venue, tmp_path: Path
) -> None:
    said = Talk("c-old", start_ns=day_start_ns(date(2026, 2, 1)))
    said.frame(b'{"type":"trade","sid":1,"seq":1,"msg":{"market_ticker":"OLD","trade_id":"t","yes_price":45,"count":3,'
               b'"taker_side":"yes","ts":1769904000}}')  # fmt: skip
    await venue.receive(tmp_path, [said])

    report = await backfill_date(
        FEED, date(2026, 2, 1), place(venue), await survey(place(venue), FEED, date(2026, 2, 1))
    )

    assert (report.decoder, report.events, report.problems) == ("integer-cents", {"trade": 1}, {})


async def test_a_damaged_raw_archive_is_not_compacted(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    await venue.archive_stream()
    its = RawObject(FEED, DAY, "orderbook", "", 0)
    await venue.storage.replace(RAW, its.key, (await venue.storage.get(RAW, its.key))[:-1])

    with pytest.raises(DataError, match="orderbook-00"):
        await run(venue)

    kept = [entry.key for entry in await venue.storage.list(NORMALIZED, "") if entry.key.endswith(".zst")]
    assert kept
    assert all("/_segments/" in key for key in kept)


async def test_what_is_read_is_compacted_where_there_is_both(venue: Venue, tmp_path: Path) -> None:
    said = talk()
    await venue.receive(tmp_path, [said])
    await venue.archive_stream()
    await run(venue, today=DAY)

    dotted = [message async for message in read_normalized(venue.storage, NORMALIZED, FEED, "trade", DAY, TICKERS[1])]

    assert dotted == by_ticker(said.events)["trade", TICKERS[1]]
    _, segments = await normalized_objects(venue.storage, NORMALIZED, FEED, "trade", DAY)
    assert isinstance(segments[0], SegmentObject)


def test_the_spill_gives_back_by_key_in_order_whatever_its_memory(tmp_path: Path) -> None:
    items = [((f"type-{n % 3}", f"ticker-{n % 7}"), b"%05d;" % n) for n in range(3000)]
    for limit in (1, 1000, 1 << 20):
        with Spill(tmp_path / "spill", limit) as spill:
            for key, item in items:
                spill.add(key, item)
            assert spill.sorted_keys() == sorted({key for key, _ in items})
            for key in spill.sorted_keys():
                assert [item for some in spill.lists(key) for item in some] == [
                    item for its, item in items if its == key
                ]
            assert spill.counts() == {f"type-{n}": 1000 for n in range(3)}
        assert not (tmp_path / "spill").exists()


async def test_objects_made_again_of_a_day_that_goes_on_are_no_warning(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    await run(venue, today=DAY)
    await venue.receive(tmp_path, [talk("c-2", count=100, seed=2)])

    with structlog.testing.capture_logs() as said:
        await run(venue, today=DAY)

    assert "manifest replaced" in {entry["event"] for entry in said}
    assert [entry for entry in said if entry["log_level"] == "warning"] == []


async def test_a_manifest_that_did_not_describe_its_object_is_a_warning(venue: Venue, tmp_path: Path) -> None:
    await venue.receive(tmp_path, [talk()])
    await run(venue)
    [its] = (await normalized_objects(venue.storage, NORMALIZED, FEED, "trade", DAY))[0][:1]
    await venue.storage.replace(NORMALIZED, its.manifest_key, b"{}\n")

    with structlog.testing.capture_logs() as said:
        await run(venue)

    assert [entry["key"] for entry in said if entry["event"] == "manifest replaced"] == [its.manifest_key]
    assert {entry["log_level"] for entry in said if entry["event"] == "manifest replaced"} == {"warning"}
