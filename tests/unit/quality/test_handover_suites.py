"""The suites on a day with a handover: what a connector heard while it stood by is no loss, no repeat and no fault."""

from pathlib import Path

import pytest

from ssmd.archive.handover import Handover, store_handover
from ssmd.clock import NS_PER_MS
from ssmd.quality.batches import Batches
from ssmd.quality.judge import Judge
from ssmd.quality.runner import run_suites
from ssmd.quality.suites import load_suites
from tests.kalshi_day import TICKERS
from tests.quality_day import DAY, FRAMES, CleanTalk, QualityWorld
from tests.raw_archive import FEED, RAW

pytestmark = pytest.mark.usefixtures("quiet")

CUT = 1 + 2 * len(TICKERS) + FRAMES // 2
"""Acknowledgement, snapshots and states come before the talk's events."""


def same(talk: CleanTalk, late_ns: int, skip: int = 0) -> CleanTalk:
    """The same on a second connection; of the last ten frames that say a number `skip` are lost."""
    other = CleanTalk("c-2")
    other.events = []
    kept = talk.frames[: CUT - 20 - skip] + talk.frames[CUT - 20 :] if skip else talk.frames
    other.frames = [
        frame._replace(connection="c-2", n=n, received_ns=frame.received_ns + late_ns) for n, frame in enumerate(kept)
    ]
    return other


async def handed_over(folder: Path, *, skip: int = 0, taken: bool = True) -> QualityWorld:
    """The first connection ends in the middle of the day, and the second one, which heard the same, goes on."""
    world = QualityWorld(folder)
    world.list_markets()
    whole = CleanTalk("c-1").clean()
    new = same(whole, 3 * NS_PER_MS, skip)
    cut = CUT - skip
    await store_handover(world.storage, RAW, Handover(FEED, "c-2", new.frames[0].received_ns))
    if taken:
        old = CleanTalk("c-1")
        old.frames, old.trades = whole.frames[:CUT], whole.trades
        record = Handover(FEED, "c-2", new.frames[cut - 1].received_ns, cut, "c-1", ended_n=CUT - 1)
        await store_handover(world.storage, RAW, record)
        whole = old
    whole.events = []  # the stream is not looked at: compaction makes the day from raw
    await world.archive(whole, new)
    world.follow()
    return world


@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "stood by"])
async def test_a_day_with_two_connections_is_as_good_as_one_with_one(tmp_path: Path, taken: bool) -> None:
    world = await handed_over(tmp_path, taken=taken)
    found = await run_suites(world.day(), load_suites(), Judge())

    wrong = [
        (suite.suite, outcome.column or outcome.type, outcome.message)
        for suite in found.suites
        for outcome in suite.outcomes
        if outcome.state in ("failed", "error")
    ]
    assert wrong == []


async def test_the_raw_scan_takes_records_of_handovers_for_no_object_and_counts_a_trade_of_both_once(
    tmp_path: Path,
) -> None:
    world = await handed_over(tmp_path)
    scanned = await Batches(world.day()).raw()

    assert [row["key"] for row in scanned.objects if row["problem"] or "_handovers" in row["key"]] == []
    assert sum(row["repeated_trades"] for row in scanned.objects) == 0
    assert {row["connection"] for row in scanned.connections} == {"c-1", "c-2"}
    assert sum(scanned.trades.values()) == FRAMES // 4


@pytest.mark.parametrize("recorded", [True, False])
async def test_what_only_a_standby_lacks_is_no_loss(tmp_path: Path, recorded: bool) -> None:
    world = await handed_over(tmp_path, skip=6)
    if not recorded:  # without the records both connections are the day's
        for entry in await world.storage.list(RAW, f"{FEED}/{DAY:%Y/%m/%d}/_handovers/"):
            await world.storage.delete(RAW, entry.key)
    scanned = await Batches(world.day()).raw()
    lacking = {row["connection"]: row["missing_unrecorded"] for row in scanned.sequences if row["missing_unrecorded"]}

    assert any(row["missing"] for row in scanned.sequences)
    assert lacking.keys() == (set() if recorded else {"c-2"})
