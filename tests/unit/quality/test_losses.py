"""Verification sees in the frames themselves what nobody recorded: holes in the exchange's numbers, unread frames."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from ssmd import archiver as archiver_module
from ssmd.archive.handover import Handover, store_handover
from ssmd.archive.writer import store_gap
from ssmd.backfill import compact
from ssmd.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, day_start_ns, iso
from ssmd.market.events import Gap
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.findings import VerifyReport
from ssmd.quality.verify import verify
from tests.events import DAY, NOON
from tests.kalshi_day import NORMALIZED, TICKERS, Talk, Venue
from tests.raw_archive import FEED, RAW

TOMORROW = DAY + timedelta(days=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver_module, "FETCH_S", 0.002)


async def verified(said: Talk, folder: Path, day: date = DAY, today: date | None = None, *gaps: Gap) -> VerifyReport:
    """The report on a day that holds what was said, with these gaps recorded and no other; compacted."""
    venue = Venue(MemoryStorage())
    said.events = [event for event in said.events if not isinstance(event, Gap)]
    await venue.receive(folder, [said])
    for gap in gaps:
        await store_gap(venue.storage, RAW, gap)
    venue.registry.record_gaps(gaps)
    await compact(FEED, day, venue.storage, RAW, NORMALIZED, venue.registry, today=day + timedelta(days=1))
    return await verify(
        FEED, day, venue.storage, venue.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED,
        today=today or day + timedelta(days=1),
    )  # fmt: skip


def skipping(start_ns: int = NOON, before: int = 60, after: int = 60) -> Talk:
    said = Talk(start_ns=start_ns)
    said.start()
    said.chatter(before)
    said.delta(TICKERS[0], skip=5)
    said.chatter(after)
    return said


def recorded(said: Talk) -> Gap:
    [gap] = [event for event in said.events if isinstance(event, Gap)]
    return gap


async def test_a_hole_in_the_exchanges_numbers_that_no_gap_records_is_found(tmp_path: Path) -> None:
    said = skipping()
    gap = recorded(said)

    report = await verified(said, tmp_path)

    [finding] = report.findings
    assert (finding.rule, finding.object) == ("unrecorded_gap", "c-1 sid 1")
    assert f"from {gap.last_seq} to {gap.next_seq} at {iso(gap.to_ns)}" in finding.message
    assert "5 are missing" in finding.message


async def test_the_recorded_gap_covers_it_by_its_numbers_or_by_its_time(tmp_path: Path) -> None:
    said = skipping()
    gap = recorded(said)
    assert gap.last_seq is not None
    assert gap.next_seq is not None
    numbers = Gap(FEED, "c-1", 1, NOON, NOON + 1, "sequence_gap", gap.last_seq - 3, gap.next_seq + 2)
    lost = Gap(FEED, "c-1", None, gap.from_ns - NS_PER_S, gap.to_ns - NS_PER_S // 2, "spool_full")
    everybody = Gap(FEED, "", None, gap.from_ns, gap.to_ns, "exchange_outage")

    for covering in (gap, numbers, lost, everybody):
        assert (await verified(skipping(), tmp_path, DAY, None, covering)).findings == []


async def test_a_gap_of_other_numbers_another_connection_or_another_time_covers_nothing(tmp_path: Path) -> None:
    gap = recorded(skipping())
    assert gap.next_seq is not None
    smaller = Gap(FEED, "c-1", 1, gap.from_ns, gap.to_ns, "sequence_gap", gap.last_seq, gap.next_seq - 1)
    other = Gap(FEED, "c-2", 1, gap.from_ns, gap.to_ns, "sequence_gap", gap.last_seq, gap.next_seq)
    subscription = Gap(FEED, "c-1", 2, gap.from_ns, gap.to_ns, "sequence_gap", gap.last_seq, gap.next_seq)
    early = Gap(FEED, "c-1", None, gap.from_ns - 9 * NS_PER_S, gap.to_ns - 8 * NS_PER_S, "connection_lost")

    for beside in (smaller, other, subscription, early):
        report = await verified(skipping(), tmp_path, DAY, None, beside)
        assert [finding.rule for finding in report.findings] == ["unrecorded_gap"]


async def test_compaction_counts_it_among_its_problems(tmp_path: Path) -> None:
    venue = Venue(MemoryStorage())
    said = skipping()
    said.events.clear()
    await venue.receive(tmp_path, [said])

    report = await compact(FEED, DAY, venue.storage, RAW, NORMALIZED, venue.registry, today=TOMORROW)

    assert report.problems["unrecorded_gap"] == 1


async def test_a_hole_over_midnight_belongs_to_the_day_on_which_it_ended(tmp_path: Path) -> None:
    midnight = day_start_ns(DAY) + NS_PER_DAY
    earlier = skipping(midnight - 90 * NS_PER_MS, before=20, after=200)
    late = skipping(midnight - 40 * NS_PER_MS, before=60, after=60)

    assert (await verified(earlier, tmp_path, TOMORROW)).findings == []
    assert [finding.rule for finding in (await verified(late, tmp_path, TOMORROW)).findings] == ["unrecorded_gap"]


async def test_where_a_connection_began_before_the_archive_its_first_number_is_no_hole(tmp_path: Path) -> None:
    midnight = day_start_ns(DAY) + NS_PER_DAY
    said = skipping(midnight - 90 * NS_PER_MS, before=20, after=200)
    said.frames = [frame for frame in said.frames if frame.received_ns >= midnight]

    report = await verified(said, tmp_path, TOMORROW)

    assert [finding.rule for finding in report.findings] == ["hole"]


async def test_where_our_own_frames_are_missing_the_hole_is_told_once(tmp_path: Path) -> None:
    said = Talk()
    said.start()
    said.chatter(120)
    said.frames = [frame for frame in said.frames if frame.n not in (60, 61, 62)]

    report = await verified(said, tmp_path)

    assert [finding.rule for finding in report.findings] == ["hole"]


async def test_what_a_connection_that_stands_by_did_not_hear_is_no_gap_of_the_day(tmp_path: Path) -> None:
    said = skipping()
    said.events.clear()
    venue = Venue(MemoryStorage())
    await venue.receive(tmp_path, [said])
    await store_handover(venue.storage, RAW, Handover(FEED, "c-1", said.frames[0].received_ns))

    report = await compact(FEED, DAY, venue.storage, RAW, NORMALIZED, venue.registry, today=TOMORROW)

    assert "unrecorded_gap" not in report.problems


async def test_on_a_day_that_is_not_over_it_is_a_note(tmp_path: Path) -> None:
    report = await verified(skipping(), tmp_path, DAY, DAY)

    assert "unrecorded_gap" not in {finding.rule for finding in report.findings}
    assert any("the day is not over" in note and "no recorded gap" in note for note in report.notes)


# -- frames that are not understood -------------------------------------------------------------------------------


def renamed(data: bytes, field: str) -> bytes:
    frame = json.loads(data)
    frame["msg"][f"new_{field}"] = frame["msg"].pop(field)
    return json.dumps(frame).encode()


def with_trades(total: int, unread: int, field: str) -> Talk:
    """A talk of trades, some of which have a field under another name."""
    said = Talk()
    said.start()
    for n in range(total):
        said.trade(TICKERS[0], f"t-{n}")
    said.frames = [
        frame._replace(data=renamed(frame.data, field)) if 0 <= frame.n - len(TICKERS) - 1 < unread else frame
        for frame in said.frames
    ]
    return said


@pytest.mark.parametrize("field", ["yes_price_dollars", "count_fp", "taker_outcome_side", "market_ticker"])
async def test_a_renamed_field_that_takes_away_half_of_the_trades_is_a_finding(tmp_path: Path, field: str) -> None:
    report = await verified(with_trades(200, 100, field), tmp_path)

    [finding] = report.findings
    assert (finding.rule, finding.object) == ("not_understood", "trade")
    assert "of 200 trade frames" in finding.message
    assert not report.clean


async def test_one_bad_frame_of_many_is_a_note(tmp_path: Path) -> None:
    report = await verified(with_trades(2_000, 2, "count_fp"), tmp_path)

    assert report.findings == []
    assert any("gave nothing" in note for note in report.notes)


async def test_frames_that_need_not_give_an_event_are_no_finding(tmp_path: Path) -> None:
    said = Talk()
    said.start()
    for n in range(50):
        said.frame(b'{"type":"new_kind","msg":{}}')
        said.frame(b"not json")
        said.frame(b'{"type":"error","id":3,"msg":{"code":6,"msg":"no"}}')
        said.trade(TICKERS[0], f"t-{n}")
    report = await verified(said, tmp_path)

    assert report.findings == []
    assert len([note for note in report.notes if "gave nothing" in note]) == 3
