"""The suites on a day that is not over: what a live connector or archiver has not written yet is no finding."""

import copy
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ssmd.clock import NS_PER_S
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.judge import Judge
from ssmd.quality.outcome import ExpectationOutcome, QualityRun
from ssmd.quality.runner import run_suites
from ssmd.quality.suites import load_suites
from ssmd.registry.interface import ObjectRecord
from tests.kalshi_day import TICKERS, Venue
from tests.quality_day import DAY, START, CleanTalk, QualityWorld, clean_world
from tests.raw_archive import FEED, RAW, archive

pytestmark = pytest.mark.usefixtures("quiet")

SUITES = {suite.name: suite for suite in load_suites()}
BEGAN = datetime.fromtimestamp(START // NS_PER_S, UTC)


async def run(world: QualityWorld, judge: Judge, *names: str, **changes: object) -> QualityRun:
    """A run on the day itself, unless `today` says otherwise."""
    return await run_suites(world.day(**{"today": DAY, **changes}), [SUITES[name] for name in names], judge)


def bad(found: QualityRun) -> set[str]:
    return {
        f"{suite.suite} {outcome.column}"
        for suite in found.suites
        for outcome in suite.outcomes
        if outcome.state in ("failed", "error")
    }


def about(found: QualityRun, column: str) -> ExpectationOutcome:
    [outcome] = [its for suite in found.suites for its in suite.outcomes if its.column == column]
    return outcome


# -- trades that the exchange lists ----------------------------------------------------------------------------------


async def behind(folder: Path, archived: int) -> QualityWorld:
    """A world whose raw archive has a whole talk, while the archiver stored the events of its first frames only."""
    world = QualityWorld(folder)
    world.list_markets()
    talk = CleanTalk().clean()
    early, late = copy.copy(talk), copy.copy(talk)
    early.frames, late.frames = talk.frames[:archived], talk.frames[archived:]
    since = early.frames[-1].received_ns if archived else 0
    early.events = [event for event in talk.events if getattr(event, "received_ns", 0) <= since]
    late.events = talk.events[len(early.events) :]
    venue = Venue(world.storage, world.registry)
    await venue.receive(folder, [early])
    if archived:
        await venue.archive_stream()
    await venue.receive(folder, [late])
    world.listed = talk.trades
    return world


async def test_trades_that_the_archiver_still_holds_are_not_missing_on_a_day_that_is_not_over(
    tmp_path: Path, judge: Judge
) -> None:
    world = await behind(tmp_path, archived=300)

    found = await run(world, judge, "trades")

    assert bad(found) == set()
    assert about(found, "missing").state == "passed"
    assert about(found, "missing").rows == len(TICKERS)


async def test_a_trade_lost_before_the_last_archived_one_is_missing_on_a_day_that_is_not_over(
    tmp_path: Path, judge: Judge
) -> None:
    world = await behind(tmp_path, archived=300)
    world.listed.append({**world.listed[20], "trade_id": "missed"})

    assert bad(await run(world, judge, "trades")) == {
        "trades missing", "trades archived_contracts, exchange_contracts",
    }  # fmt: skip


async def test_of_an_ended_day_all_that_was_captured_is_asked(tmp_path: Path, judge: Judge) -> None:
    world = await behind(tmp_path, archived=300)

    assert "trades missing" in bad(await run(world, judge, "trades", today=DAY + timedelta(days=1)))


async def test_without_a_normalized_trade_nothing_is_asked_before_the_day_is_over(tmp_path: Path, judge: Judge) -> None:
    world = await behind(tmp_path, archived=0)

    [trades] = (await run(world, judge, "trades")).suites

    assert not trades.ran
    assert "the day is not over: none of its trades is in the normalized archive yet" in trades.why_not


# -- markets that are new --------------------------------------------------------------------------------------------


async def with_new_market(folder: Path) -> QualityWorld:
    world = QualityWorld(folder)
    world.list_markets(TICKERS[:2])
    await world.archive(CleanTalk().clean(), compacted=False)
    return world


async def test_a_market_heard_since_the_last_sync_need_not_be_listed_before_the_day_is_over(
    tmp_path: Path, judge: Judge
) -> None:
    world = await with_new_market(tmp_path)

    for synced in (BEGAN - timedelta(minutes=1), None):
        found = await run(world, judge, "security_master", synced=lambda synced=synced: synced)

        assert bad(found) == set()
        listed = about(found, "listed")
        assert listed.observed == "none of 2 rows"
        assert listed.message.startswith("not asked of 1 of the markets: ")
        assert listed.message.endswith("the day is not over. Run: ssmd market sync")


async def test_a_market_that_a_later_sync_did_not_list_is_found_on_any_day(tmp_path: Path, judge: Judge) -> None:
    world = await with_new_market(tmp_path)

    found = await run(world, judge, "security_master", synced=lambda: BEGAN + timedelta(minutes=30))

    assert bad(found) == {"security_master listed"}
    assert about(found, "listed").observed == "1 of 3 rows"


async def test_a_market_that_is_not_listed_is_found_on_an_ended_day_whatever_was_synced(
    tmp_path: Path, judge: Judge
) -> None:
    world = await with_new_market(tmp_path)
    before = BEGAN - timedelta(minutes=1)

    found = await run(world, judge, "security_master", synced=lambda: before, today=DAY + timedelta(days=1))

    assert bad(found) == {"security_master listed"}


# -- rows that come after their objects ------------------------------------------------------------------------------


class LateRows:
    """Takes rows out of the inventory; they are written while somebody waits, if `come`."""

    def __init__(self, world: QualityWorld, *, come: bool) -> None:
        self._world = world
        self._come = come
        self._rows: list[ObjectRecord] = []
        self.pauses: list[float] = []

    def take(self, data_type: str, group: str) -> None:
        rows = [row for row in self._world.registry.objects(FEED, DAY, data_type) if row.group == group]
        self._world.registry.replace_objects(FEED, [(rows[-1].bucket, rows[-1].key)], [])
        self._rows.append(rows[-1])

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self._come:
            self._world.registry.record_objects(FEED, self._rows)


@pytest.mark.parametrize("come", [True, False])
async def test_a_row_may_come_a_moment_after_its_object_but_it_must_come(
    tmp_path: Path, judge: Judge, come: bool
) -> None:
    world = await clean_world(tmp_path, before=False, compacted=False)
    late = LateRows(world, come=come)
    late.take("normalized", "trade")
    late.take("raw", "trades")

    found = await run(world, judge, "trades", "raw", pause=late.pause)

    assert bad(found) == (set() if come else {"trades in_inventory", "raw in_inventory"})
    assert all(seconds <= 10 for seconds in late.pauses)


async def test_nobody_waits_for_the_rows_of_an_ended_day(tmp_path: Path, judge: Judge) -> None:
    world = await clean_world(tmp_path, before=False, compacted=False)
    late = LateRows(world, come=True)
    late.take("raw", "trades")

    found = await run(world, judge, "raw", pause=late.pause, today=DAY + timedelta(days=1))

    assert (bad(found), late.pauses) == ({"raw in_inventory"}, [])


class GrowingStorage(MemoryStorage):
    """Another raw object is stored when the first one is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.coming: list[CleanTalk] = []

    async def stream(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        if bucket == RAW and self.coming:
            await archive(self, self.folder, self.coming.pop().frames)
        async for chunk in super().stream(bucket, key):
            yield chunk


async def test_an_object_that_is_stored_while_the_others_are_read_is_not_missing(tmp_path: Path, judge: Judge) -> None:
    storage = GrowingStorage(tmp_path)
    world = QualityWorld(tmp_path, storage)
    world.list_markets()
    await world.archive(CleanTalk().clean(), compacted=False)
    storage.coming.append(CleanTalk("c-2", START + 600 * NS_PER_S).clean(40))

    found = await run(world, judge, "raw")

    assert storage.coming == []
    assert bad(found) == set()
