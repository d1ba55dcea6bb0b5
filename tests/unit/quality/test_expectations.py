"""The suites on whole days: nothing is found on a clean one, a planted fault by the expectation that is for it."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from ssmd.archive.frames import compress
from ssmd.archive.handover import Handover, store_handover
from ssmd.archive.layout import ParquetDay, TickerObject
from ssmd.archive.reader import read_lines, read_messages
from ssmd.archive.segments import Measures, normalized_manifest
from ssmd.archive.writer import store_replacing
from ssmd.clock import NS_PER_DAY, NS_PER_S
from ssmd.market.events import Event, Gap, OrderBookUpdate
from ssmd.quality.export import export
from ssmd.quality.exported import Exported
from ssmd.quality.judge import Judge
from ssmd.quality.outcome import ExpectationOutcome, QualityRun
from ssmd.quality.runner import record, run_suites
from ssmd.quality.suites import load_suites
from ssmd.registry.interface import Market
from ssmd.registry.values import QUALITY
from ssmd.wire.normalized import decode, encode
from tests.kalshi_day import NORMALIZED, TICKERS
from tests.quality_day import DAY, START, TODAY, CleanTalk, QualityWorld, clean_world
from tests.raw_archive import FEED, RAW

pytestmark = pytest.mark.usefixtures("quiet")

TICKER = TICKERS[0]
SUITES = {suite.name: suite for suite in load_suites()}


async def run(world: QualityWorld, judge: Judge, *names: str, **changes: object) -> QualityRun:
    return await run_suites(world.day(**changes), [SUITES[name] for name in names or SUITES], judge)


def bad(found: QualityRun) -> dict[str, ExpectationOutcome]:
    """What is not as it should be: `suite column` (or the type, where it is about the whole table) to its outcome."""
    return {
        f"{suite.suite} {outcome.column or outcome.type}": outcome
        for suite in found.suites
        for outcome in suite.outcomes
        if outcome.state in ("failed", "error")
    }


async def altered(
    world: QualityWorld, event_type: str, change: Callable[[list[Event]], Sequence[Event]], ticker: str = TICKER
) -> None:
    """A compacted object holds something else than raw gives; its manifest describes what it holds."""
    its = TickerObject(FEED, event_type, DAY, ticker)
    messages = [m async for some in read_messages(world.storage, NORMALIZED, its.key) for m in some]
    events = change([decode(event_type, message) for message in messages])
    path = world.folder / "altered"
    compressed = compress([encode(event) for event in events], path)
    times = [event.received_ns for event in events if not isinstance(event, Gap)]
    manifest = normalized_manifest(its, compressed, Measures(len(events), min(times), max(times), 1))
    stored = await store_replacing(world.storage, NORMALIZED, its, manifest, path)
    world.registry.replace_objects(FEED, [(NORMALIZED, its.key)], [stored])


# -- clean -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compacted", [True, False])
async def test_nothing_is_found_on_a_clean_day(tmp_path: Path, judge: Judge, compacted: bool) -> None:
    world = await clean_world(tmp_path, compacted=compacted)

    found = await run(world, judge)

    assert {suite.suite: suite.why_not for suite in found.suites if not suite.ran} == {}
    assert bad(found) == {}
    assert {o.state for suite in found.suites for o in suite.outcomes} == {"passed"}
    assert (found.findings, found.ran) == (0, True)


# -- faults that the exchange or the capture makes: all the way from the frames --------------------------------------


def repeat_trade(talk: CleanTalk) -> None:
    talk.trade(TICKER, "again")
    talk.trade(TICKER, "again")


def cross(talk: CleanTalk) -> None:
    talk.snapshot(TICKER, yes="0.60", no="0.50")


def lose(talk: CleanTalk) -> None:
    talk.delta(TICKER, skip=4)
    talk.snapshot(TICKER)


def lose_unnoticed(talk: CleanTalk) -> None:
    lose(talk)
    talk.events = [event for event in talk.events if not isinstance(event, Gap)]


def lose_frame(talk: CleanTalk) -> None:
    del talk.frames[300]


def worthless(talk: CleanTalk) -> None:
    talk.trade(TICKER, "worthless", price="0.00")


def whole_dollar(talk: CleanTalk) -> None:
    talk.trade(TICKER, "whole", price="1.00")


def nothing_traded(talk: CleanTalk) -> None:
    talk.trade(TICKER, "nothing", count="0.00")


def wrong_clock(talk: CleanTalk) -> None:
    talk.late_ns = 30 * NS_PER_S
    for n in range(12):
        talk.trade(TICKER, f"late-{n}")


def early_clock(talk: CleanTalk) -> None:
    talk.late_ns = -5 * NS_PER_S
    for _ in range(12):
        talk.quote(TICKER)


def old_frames(talk: CleanTalk) -> None:
    talk.late_ns = 7_200 * NS_PER_S
    talk.delta(TICKER)


def locked_quote(talk: CleanTalk) -> None:
    talk.quote(TICKER, bid="0.50", ask="0.50")


def nonsense(talk: CleanTalk) -> None:
    talk.frame(b"not json")


def renamed(talk: CleanTalk) -> None:
    """From some hour on the exchange calls the price of a trade something else."""
    for n in range(150):
        at = talk.next()
        body: dict[str, Any] = {"yes_price_usd": "0.45", "count_fp": "1.00", "taker_outcome_side": "yes", "ts_ms": at}
        talk.say("trade", 2, trade_id=f"renamed-{n}", market_ticker=TICKER, **body)


FROM_FRAMES: dict[Callable[[CleanTalk], None], set[str]] = {
    repeat_trade: {"raw repeated_trades"},
    cross: {"orderbook crossed"},
    lose: {"raw missing", "gaps unplanned_seconds"},
    lose_unnoticed: {"raw missing_unrecorded", "raw missing"},
    lose_frame: {"raw missing", "raw missing_unrecorded"},
    worthless: {"trades price"},
    whole_dollar: {"trades price"},
    nothing_traded: {"trades size"},
    wrong_clock: {"trades latency_s"},
    early_clock: {"quotes latency_s"},
    old_frames: {"orderbook latency_s"},
    locked_quote: {"quotes spread"},
    nonsense: {"raw frames", "raw share"},
    renamed: {"raw frames", "raw share"},
}


@pytest.mark.parametrize("fault", FROM_FRAMES, ids=lambda fault: fault.__name__)
async def test_a_planted_fault_is_found_by_the_expectation_that_is_for_it(
    tmp_path: Path, judge: Judge, fault: Callable[[CleanTalk], None]
) -> None:
    world = await clean_world(tmp_path, fault, before=False)

    found = bad(await run(world, judge))

    assert found.keys() == FROM_FRAMES[fault]
    assert all(outcome.state == "failed" and outcome.unexpected for outcome in found.values())
    assert all(outcome.samples for outcome in found.values())


# -- faults of what was made of them ---------------------------------------------------------------------------------


async def doubled(world: QualityWorld) -> None:
    await altered(world, "trade", lambda events: [*events, msgspec.structs.replace(events[3], seq=10_000)])


async def lost_on_the_way(world: QualityWorld) -> None:
    await altered(world, "trade", lambda events: [*events[:5], *events[8:]])


async def disordered(world: QualityWorld) -> None:
    await altered(world, "trade", lambda events: [*events[:5], events[6], events[5], *events[7:]])


async def negative_level(world: QualityWorld) -> None:
    def change(events: list[Event]) -> list[Event]:
        last = events[-1]
        assert isinstance(last, OrderBookUpdate)
        return [*events[:-1], msgspec.structs.replace(last, bids=((440_000, -1_000_000),), asks=())]

    await altered(world, "orderbook", change)


async def free_level(world: QualityWorld) -> None:
    def change(events: list[Event]) -> list[Event]:
        return [*events[:-1], msgspec.structs.replace(events[-1], bids=((0, 1_000_000),), asks=())]

    await altered(world, "orderbook", change)


async def negative_trade(world: QualityWorld) -> None:
    await altered(world, "trade", lambda events: [msgspec.structs.replace(events[0], size=-1), *events[1:]])


async def unnamed_trade(world: QualityWorld) -> None:
    await altered(world, "trade", lambda events: [msgspec.structs.replace(events[0], trade_id=""), *events[1:]])


async def timeless(world: QualityWorld) -> None:
    await altered(world, "ticker", lambda events: [msgspec.structs.replace(e, exchange_ns=0) for e in events])


async def forge(world: QualityWorld, made: Exported, content: bytes) -> None:
    """The file of an export is another, and its manifest says so."""
    part = msgspec.structs.replace(made.parts[0], sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    forged = msgspec.json.encode(msgspec.structs.replace(made, parts=[part]))
    await world.storage.replace(NORMALIZED, part.key, content)
    await world.storage.replace(NORMALIZED, ParquetDay(FEED, made.type, DAY).manifest_key, forged)


async def missing_column(world: QualityWorld) -> None:
    made, _ = await export(world.storage, NORMALIZED, ParquetDay(FEED, "trade", DAY))
    path = world.folder / "part"
    path.write_bytes(await world.storage.get(NORMALIZED, made.parts[0].key))
    pq.write_table(pq.read_table(path).drop_columns(["size"]), path)
    await forge(world, made, path.read_bytes())


async def damaged_export(world: QualityWorld) -> None:
    made, _ = await export(world.storage, NORMALIZED, ParquetDay(FEED, "trade", DAY))
    content = bytearray(await world.storage.get(NORMALIZED, made.parts[0].key))
    content[len(content) // 2] ^= 4
    await world.storage.replace(NORMALIZED, made.parts[0].key, bytes(content))


QUOTES = TickerObject(FEED, "ticker", DAY, TICKER)
TRADES = TickerObject(FEED, "trade", DAY, TICKER)


async def flipped_quotes(world: QualityWorld) -> None:
    """The export was made before: nobody would look at the object again."""
    await export(world.storage, NORMALIZED, ParquetDay(FEED, "ticker", DAY))
    content = bytearray(await world.storage.get(NORMALIZED, QUOTES.key))
    content[len(content) // 2] ^= 4
    await world.storage.replace(NORMALIZED, QUOTES.key, bytes(content))


async def deleted_quotes(world: QualityWorld) -> None:
    await world.storage.delete(NORMALIZED, QUOTES.key)


async def deleted_trades(world: QualityWorld) -> None:
    """Object, manifest and row: only the frames, and the exchange, know of this market's trades."""
    await world.storage.delete(NORMALIZED, TRADES.key)
    await world.storage.delete(NORMALIZED, TRADES.manifest_key)
    world.registry.replace_objects(FEED, [(NORMALIZED, TRADES.key)], [])


async def forgotten_trades(world: QualityWorld) -> None:
    world.registry.replace_objects(FEED, [(NORMALIZED, TRADES.key)], [])


async def flipped_byte(world: QualityWorld) -> None:
    key = f"{FEED}/2026/11/21/orderbook-01.jsonl.zst"
    content = bytearray(await world.storage.get(RAW, key))
    content[len(content) // 2] ^= 1
    await world.storage.replace(RAW, key, bytes(content))


async def missing_object(world: QualityWorld) -> None:
    await world.storage.delete(RAW, f"{FEED}/2026/11/21/trades-01.jsonl.zst")


async def forgotten_row(world: QualityWorld) -> None:
    world.registry.replace_objects(FEED, [(RAW, f"{FEED}/2026/11/21/trades-01.jsonl.zst")], [])


async def gap_without_object(world: QualityWorld) -> None:
    world.registry.record_gaps([Gap(FEED, "c-1", None, START, START + 5, "planned_teardown")])


async def long_gap(world: QualityWorld) -> None:
    from ssmd.archive.writer import store_gap

    gap = Gap(FEED, "c-1", None, START, START + 400 * NS_PER_S, "silence")
    world.registry.record_gaps([gap])
    await store_gap(world.storage, RAW, gap)


async def silent_market(world: QualityWorld) -> None:
    world.list_markets([*TICKERS, "SILENT-26NOV22"])


async def unlisted_market(world: QualityWorld) -> None:
    from ssmd.registry.memory import MemoryRegistry

    assert isinstance(world.registry, MemoryRegistry)
    del world.registry._feeds[FEED].markets[TICKER]


async def early_result(world: QualityWorld) -> None:
    market = Market("EARLY", "E", "Early?", "active", "2026-11-22T00:00:00Z", "2026-12-01T00:00:00Z", "yes", {})
    world.registry.upsert_markets(FEED, [market])


async def market_that_closes_first(world: QualityWorld) -> None:
    market = Market("ODD", "E", "Odd?", "closed", "2026-11-22T00:00:00Z", "2026-11-01T00:00:00Z", "", {})
    world.registry.upsert_markets(FEED, [market])


async def missed_trade(world: QualityWorld) -> None:
    world.listed.append({**world.listed[50], "trade_id": "missed"})


async def other_size(world: QualityWorld) -> None:
    world.listed[50] = {**world.listed[50], "count_fp": "3.00"}


async def exchange_forgot(world: QualityWorld) -> None:
    del world.listed[50]


AFTERWARDS: dict[Callable[[QualityWorld], Awaitable[None]], set[str]] = {
    doubled: {"trades same_id_before", "trades received_step_s", "raw surplus"},
    lost_on_the_way: {"raw lost", "trades missing", "trades archived_contracts, exchange_contracts"},
    disordered: {"trades seq_step", "trades received_step_s"},
    negative_level: {"orderbook level_size_min"},
    free_level: {"orderbook level_price_min"},
    negative_trade: {"trades size", "trades archived_contracts, exchange_contracts"},
    unnamed_trade: {
        "trades trade_id", "trades missing", "trades archived_contracts, exchange_contracts", "trades only_archived",
    },
    timeless: {"quotes exchange_time"},
    missing_column: {
        "trades expect_table_columns_to_match_set", "trades size", "trades missing", "trades only_archived",
        "trades archived_contracts, exchange_contracts",
    },
    damaged_export: set(),
    flipped_quotes: {"quotes readable", "quotes same_as_inventory"},
    deleted_quotes: {"quotes present"},
    deleted_trades: {"raw lost", "trades missing", "trades archived_contracts, exchange_contracts"},
    forgotten_trades: {"trades in_inventory"},
    flipped_byte: {"raw readable", "raw missing", "raw missing_unrecorded"},
    missing_object: {"raw present", "raw readable", "raw missing", "raw missing_unrecorded"},
    forgotten_row: {"raw in_inventory"},
    gap_without_object: {"gaps differences"},
    long_gap: {"gaps unplanned_seconds", "gaps lost_share"},
    silent_market: {"security_master silent"},
    unlisted_market: {"security_master listed"},
    early_result: {"security_master result_fits"},
    market_that_closes_first: {"security_master close_time, open_time"},
    missed_trade: {"trades missing", "trades archived_contracts, exchange_contracts"},
    other_size: {"trades archived_contracts, exchange_contracts"},
    exchange_forgot: {"trades only_archived"},
}  # fmt: skip


@pytest.mark.parametrize("fault", AFTERWARDS, ids=lambda fault: fault.__name__)
async def test_what_went_wrong_afterwards_is_found(
    tmp_path: Path, judge: Judge, fault: Callable[[QualityWorld], Awaitable[None]]
) -> None:
    world = await clean_world(tmp_path, before=False)
    await fault(world)

    ended = await run(world, judge)

    assert bad(ended).keys() == AFTERWARDS[fault]
    assert msgspec.json.decode(msgspec.json.encode(ended), type=QualityRun) == ended


async def test_a_damaged_file_is_an_error_of_every_expectation_about_it_and_names_it(
    tmp_path: Path, judge: Judge
) -> None:
    world = await clean_world(tmp_path, before=False)
    made, _ = await export(world.storage, NORMALIZED, ParquetDay(FEED, "ticker", DAY))
    content = await world.storage.get(NORMALIZED, made.parts[0].key)
    await forge(world, made, content[:-100])

    [suite] = (await run(world, judge, "quotes")).suites

    assert (suite.ran, suite.colour) == (True, "red")
    of_rows = [its for its in suite.outcomes if "normalized object" not in its.meaning]
    assert {outcome.state for outcome in of_rows} == {"error"}
    assert all("ticker-2026-11-21-00000.parquet cannot be read as Parquet" in its.message for its in of_rows)


async def test_figures_that_dry_up_or_swell_are_found_beside_the_day_before(tmp_path: Path, judge: Judge) -> None:
    world = await clean_world(tmp_path, before=False)
    before = CleanTalk("c-0", START - NS_PER_DAY)
    before.start()
    for n in range(1, 1_201):  # ten times as many trades as on the day itself, and no quote without a fortune between
        before.trade(TICKERS[n % 3], f"b-{n}") if n % 10 else before.quote(TICKERS[n % 3], bid="0.02", ask="0.90")
    await world.archive(before, day=DAY - timedelta(days=1))
    await export(world.storage, NORMALIZED, ParquetDay(FEED, "ticker", DAY - timedelta(days=1)))

    found = bad(await run(world, judge, "drift"))

    figures = {sample.values["figure"] for sample in found["drift ratio"].samples}
    assert figures == {"median spread of quotes", "orderbook frames per hour"}
    assert found["drift ratio"].severity == "warning"


# -- what did not run ------------------------------------------------------------------------------------------------


async def states(world: QualityWorld, judge: Judge, **changes: object) -> dict[str, set[str]]:
    """Of each suite, what was said of expectations that were not asked."""
    found = await run(world, judge, **changes)
    assert bad(found) == {}
    return {
        suite.suite: {suite.why_not} if not suite.ran else {o.message for o in suite.outcomes if o.state == "not_run"}
        for suite in found.suites
        if not suite.ran or any(o.state == "not_run" for o in suite.outcomes)
    }


async def test_without_a_day_before_there_is_no_drift_and_without_an_exchange_no_volume(
    tmp_path: Path, judge: Judge
) -> None:
    world = await clean_world(tmp_path, before=False)
    assert await states(world, judge) == {"drift": {"there is no archived day before this one"}}

    world.lister_fails = True
    why = await states(world, judge)
    assert why["trades"] == {"the exchange could not be asked: GET /markets/trades: no answer"}

    world.lister_fails, world.listed = False, []
    assert (await states(world, judge))["trades"] == {"the exchange lists no trade of that time any more"}
    assert (await states(world, judge, lister=None, no_lister="nobody knows"))["trades"] == {"nobody knows"}


async def test_a_day_without_anything_runs_nothing_but_the_gaps_and_says_why(tmp_path: Path, judge: Judge) -> None:
    found = await run(QualityWorld(tmp_path), judge, "raw", "trades", "drift", "security_master")

    assert {suite.suite: suite.why_not for suite in found.suites} == {
        "raw": "the raw archive has nothing of the day",
        "trades": f"the normalized archive has no trade of {DAY}; the normalized archive has no trade of the day",
        "drift": "there is no archived day before this one",
        "security_master": "the security master has no market. Run: ssmd market sync; no market was heard on the day",
    }
    assert not found.ran
    assert {suite.colour for suite in found.suites} == {"grey"}


# -- samples and the record ------------------------------------------------------------------------------------------


async def test_a_failing_row_leads_to_its_raw_object_and_to_the_gap_beside_it(tmp_path: Path, judge: Judge) -> None:
    def fault(talk: CleanTalk) -> None:
        lose(talk)
        talk.trade(TICKER, "whole", price="1.00")

    world = await clean_world(tmp_path, fault, before=False)

    found = bad(await run(world, judge))

    [sample] = found["trades price"].samples
    assert sample.values["trade_id"] == "whole"
    assert (sample.values["price"], sample.values["ticker"], sample.values["connection"]) == ("1", TICKER, "c-1")
    raw = [r async for some in read_lines(world.storage, RAW, sample.raw_key) for r in some]
    assert any(b'"whole"' in line for line in raw)
    [gap] = found["gaps unplanned_seconds"].samples
    assert gap.gap_key in await keys(world, f"{FEED}/2026/11/21/_gaps/")
    [hole] = found["raw missing"].samples
    assert hole.gap_key == gap.gap_key
    assert hole.values["missing_numbers"].count("-") == 1


async def test_trades_that_nobody_understood_fail_the_day_without_asking_anybody(tmp_path: Path, judge: Judge) -> None:
    """Nothing is missing in the archive, and REST is away: half of the trades are gone all the same."""
    world = await clean_world(tmp_path, renamed, before=False)
    await world.archive(CleanTalk("c-9", START + NS_PER_DAY).clean(40), day=DAY + timedelta(days=1))

    ended = await run(world, judge, "raw", "trades", lister=None)
    scored = record(ended, [SUITES["raw"], SUITES["trades"]], world.registry, TODAY)

    found = bad(ended)
    assert (found["raw share"].severity, found["raw share"].observed) == ("critical", "1 of 6 rows (problems: 150)")
    [sample] = found["raw share"].samples
    assert (sample.values["type"], sample.values["frames"], sample.values["problems"]) == ("trade", "300", "150")
    told = {issue.detail: (issue.severity, issue.count) for issue in world.registry.issues(FEED, DAY)}
    assert told["raw: frames be_between"] == ("warning", 150), "frames, not objects"
    assert told["raw: share be_between"] == ("error", 150)
    [held] = [row for row in world.registry.inventory(FEED, DAY, DAY) if row.data_type == "raw"]
    assert scored.score == round(1 - 150 / held.record_count, 2)


async def test_a_day_of_which_most_was_not_captured_is_not_as_expected(tmp_path: Path, judge: Judge) -> None:
    """Capture ends at 09:05 without a word, and nothing follows: the score is near nothing, and so it is said."""
    world = QualityWorld(tmp_path)
    await world.archive(CleanTalk().clean())

    ended = record(await run(world, judge, "gaps"), [SUITES["gaps"]], world.registry, TODAY)

    assert ended.score is not None
    assert ended.score < 0.05
    failed = [its for its in ended.suites[0].outcomes if its.state == "failed"]
    assert [(its.column, its.severity) for its in failed] == [("lost_share", "warning"), ("lost_share", "critical")]
    share = float(failed[1].samples[0].values["lost_share"])
    assert 0.95 < share < 1

    world.follow()
    assert bad(await run(world, judge, "gaps")) == {}, "capture went on: the day began late, and ended early, as meant"


async def test_a_few_frames_of_many_that_nobody_understands_are_a_warning(tmp_path: Path, judge: Judge) -> None:
    def fault(talk: CleanTalk) -> None:
        for _ in range(500):
            talk.quote(TICKER)
        talk.frame(b"not json")

    world = await clean_world(tmp_path, fault, before=False)

    found = bad(await run(world, judge, "raw"))

    assert {name: its.severity for name, its in found.items()} == {"raw frames": "warning"}


async def test_what_a_connector_that_stood_by_heard_is_not_missed(tmp_path: Path, judge: Judge) -> None:
    world = QualityWorld(tmp_path)
    first, standby = CleanTalk("c-1").clean(60), CleanTalk("c-2", START + 1, seed=2).clean(60)
    await store_handover(world.storage, RAW, Handover(FEED, "c-2", standby.frames[0].received_ns))
    await world.archive(first, standby)

    found = await run(world, judge, "raw")

    assert bad(found) == {}
    assert len({trade["trade_id"] for trade in world.listed}) == 30, "each heard others"
    await altered(world, "trade", lambda events: events[1:])
    assert bad(await run(world, judge, "raw")).keys() == {"raw lost"}


async def keys(world: QualityWorld, prefix: str) -> list[str]:
    return [entry.key for entry in await world.storage.list(RAW, prefix)]


async def test_a_run_again_changes_nothing_and_a_clean_one_takes_it_all_back(tmp_path: Path, judge: Judge) -> None:
    def price(millionths: int) -> Callable[[list[Event]], Sequence[Event]]:
        return lambda events: [msgspec.structs.replace(events[0], price=millionths), *events[1:]]

    world = await clean_world(tmp_path, before=False)
    await altered(world, "trade", price(1_000_000))
    await world.archive(CleanTalk("c-9", START + NS_PER_DAY).clean(40), day=DAY + timedelta(days=1))
    suites = list(SUITES.values())

    def told() -> list[tuple[str, str, str, int]]:
        issues = world.registry.issues(FEED, DAY)
        return [(i.issue_type, i.severity, i.detail, i.count) for i in issues if i.data_type == QUALITY]

    def stored() -> set[float | None]:
        return {row.quality_score for row in world.registry.inventory(FEED, DAY, DAY)}

    found = record(await run(world, judge), suites, world.registry, TODAY)
    once = told()
    again = record(await run(world, judge), suites, world.registry, TODAY)

    assert once == told() == [("inconsistent", "error", "trades: price be_between", 1)]
    assert found.score == again.score == 0.99
    assert stored() == {0.99}

    record(await run(world, judge, "raw"), [SUITES["raw"]], world.registry, TODAY)
    assert told() == once, "a run of another suite leaves what this one found"

    await altered(world, "trade", price(450_000))
    assert record(await run(world, judge), suites, world.registry, TODAY).score == 1.0
    assert told() == []
    assert stored() == {1.0}


async def test_the_document_is_one_that_great_expectations_reads(tmp_path: Path, judge: Judge) -> None:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema

    world = await clean_world(tmp_path, whole_dollar, before=False)

    [suite] = (await run(world, judge, "trades")).suites

    document = ExpectationSuiteValidationResultSchema().load(json.loads(json.dumps(suite.document)))
    assert document["statistics"]["unsuccessful_expectations"] == 1
    assert len(document["results"]) == len(suite.outcomes)
