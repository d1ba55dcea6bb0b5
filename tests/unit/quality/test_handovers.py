"""Verification of days with a handover: clean ones give nothing, each planted fault is found and named."""

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmd.archive.handover import Handover, store_handover
from ssmd.archive.writer import store_gap
from ssmd.backfill import compact
from ssmd.clock import NS_PER_MS, NS_PER_S, day_start_ns
from ssmd.market.events import Gap
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.quality.findings import VerifyReport
from ssmd.quality.verify import verify
from ssmd.registry.memory import MemoryRegistry
from tests.events import DAY, NOON
from tests.kalshi_day import NORMALIZED
from tests.raw_archive import FEED, RAW, Frame, archive

NEXT = DAY + timedelta(days=1)
STEP_NS = 10 * NS_PER_MS
OLD_ENDS, ALL = 200, 900
BEGINS = 100  # of the events, the first one that the new connection brings
LATER_NS = 3 * NS_PER_MS
CUT = OLD_ENDS - BEGINS + 1  # number of the frame that brings the event OLD_ENDS: a snapshot comes before all events


class Exchange:
    """What happens on one market, as each connection hears it: trade, quote and two changes of the book in turn."""

    def __init__(self, start_ns: int = NOON, silent: tuple[int, int] = (0, 0)) -> None:
        """Before the event `silent[0]` the exchange says nothing for `silent[1]` nanoseconds."""
        self._start_ns = start_ns
        self._silent = silent

    def time(self, event: int) -> int:
        """When the exchange says it."""
        return self._start_ns + event * STEP_NS + (self._silent[1] if event >= self._silent[0] else 0)

    def talk(self, name: str, events: Iterable[int], late_ns: int = 0) -> list[Frame]:
        """A connection that hears these events: its frames, a snapshot first."""
        heard = list(events)
        levels: dict[str, int] = {}
        for event in range(heard[0]):
            self._change(event, levels)
        seqs = {1: 1, 2: 0}
        book = [[price, f"{size}.00"] for price, size in levels.items() if size] or [["0.9900", "1.00"]]
        head = {"market_ticker": "T-1", "market_id": "m", "yes_dollars_fp": book}
        frames = [
            self._frame(name, 0, self.time(heard[0]) + late_ns - NS_PER_MS, "orderbook_snapshot", 1, 1, head),
        ]
        for n, event in enumerate(heard, 1):
            kind, body = self._body(event)
            sid = {"trade": 2, "ticker": 3}.get(kind, 1)
            seqs[sid] = seqs.get(sid, 0) + 1
            at_ns = self.time(event) + late_ns
            frames.append(self._frame(name, n, at_ns, kind, sid, None if sid == 3 else seqs[sid], body))
        return frames

    @staticmethod
    def _change(event: int, levels: dict[str, int]) -> str:
        price = f"0.{event % 90 + 1:02d}00"
        if event % 4 > 1:
            levels[price] = levels.get(price, 0) + 1
        return price

    def _body(self, event: int) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"market_ticker": "T-1", "ts_ms": self.time(event) // NS_PER_MS}
        match event % 4:
            case 0:
                trade = {"trade_id": f"t-{event}", "yes_price_dollars": "0.45", "count_fp": "1.00"}
                return "trade", {**body, **trade, "taker_outcome_side": "yes"}
            case 1:
                prices = {"yes_bid_dollars": "0.44", "yes_ask_dollars": "0.46", "price_dollars": "0.45"}
                return "ticker", {**body, **prices, "yes_bid_size_fp": f"{event}.00", "yes_ask_size_fp": "1.00"}
            case _:
                price = self._change(event, {})
                return "orderbook_delta", {**body, "price_dollars": price, "delta_fp": "1.00", "side": "yes"}

    @staticmethod
    def _frame(name: str, n: int, at_ns: int, kind: str, sid: int, seq: int | None, msg: dict[str, Any]) -> Frame:
        group = {"trade": "trades", "ticker": "ticker"}.get(kind, "orderbook")
        envelope = {"type": kind, "sid": sid, **({} if seq is None else {"seq": seq}), "msg": msg}
        return Frame(name, n, at_ns, group, kind, msgspec.json.encode(envelope))


class World:
    """A day with two connections; a test changes what is in the archive, or what the records say."""

    def __init__(self, folder: Path, exchange: Exchange | None = None) -> None:
        self.folder = folder
        self.storage = MemoryStorage()
        self.registry = MemoryRegistry()
        self.exchange = exchange or Exchange()
        self.old = self.exchange.talk("c-1", range(OLD_ENDS))
        self.new = self.exchange.talk("c-2", range(BEGINS, ALL), LATER_NS)
        self.gaps: list[Gap] = []
        self.records = [
            Handover(FEED, "c-2", self.new[0].received_ns),
            Handover(FEED, "c-2", self.new[CUT - 1].received_ns, CUT, "c-1", ended_n=OLD_ENDS),
        ]

    def takeover(self, **changes: Any) -> None:
        """The record of the takeover says something else."""
        self.records[1] = msgspec.structs.replace(self.records[1], **changes)

    def hear(self, first: int) -> None:
        """The new connection begins with the event `first`, and publishes all from there on."""
        self.new = self.exchange.talk("c-2", range(first, ALL), LATER_NS)
        self.records[0] = msgspec.structs.replace(self.records[0], at_ns=self.new[0].received_ns)
        self.takeover(at_ns=self.new[0].received_ns + 1, first_n=1)

    def gap(self, first: int, last: int, **fields: Any) -> None:
        """The time between two events, a millisecond around them included, is recorded as a gap."""
        self.gaps.append(
            Gap(FEED, "c-1", None, self.exchange.time(first) - NS_PER_MS, self.exchange.time(last) + 5 * NS_PER_MS,
                "startup", **fields)
        )  # fmt: skip

    async def report(self, day: date = DAY, today: date = NEXT + timedelta(days=1)) -> VerifyReport:
        """Archive it, compact it, verify it."""
        frames = sorted([*self.old, *self.new], key=lambda frame: frame.received_ns)
        self.registry.record_objects(FEED, await archive(self.storage, self.folder, frames))
        for record in self.records:
            await store_handover(self.storage, RAW, record)
        for gap in self.gaps:
            await store_gap(self.storage, RAW, gap)
        self.registry.record_gaps(self.gaps)
        for each in (DAY, NEXT):
            await compact(FEED, each, self.storage, RAW, NORMALIZED, self.registry, today=NEXT + timedelta(days=1))
        return await self.verify(day, today)

    async def verify(self, day: date, today: date = NEXT + timedelta(days=1)) -> VerifyReport:
        return await verify(
            FEED, day, self.storage, self.registry, raw_bucket=RAW, normalized_bucket=NORMALIZED, today=today
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def said(report: VerifyReport) -> list[str]:
    assert {finding.rule for finding in report.findings} <= {"handover"}, report.findings
    return [finding.message for finding in report.findings]


# -- clean -----------------------------------------------------------------------------------------------------------


async def test_a_clean_handover_gives_nothing(world: World) -> None:
    report = await world.report()

    assert said(report) == []
    assert report.counts["handovers"] == 1


async def test_a_record_that_does_not_say_where_the_old_one_ended_is_good(world: World) -> None:
    world.takeover(ended_n=None)

    assert said(await world.report()) == []


async def test_a_killed_one_whose_last_frames_the_new_one_publishes_gives_nothing(world: World) -> None:
    world.takeover(first_n=CUT - 5, last_n=OLD_ENDS - 5, at_ns=world.new[CUT - 6].received_ns)

    assert said(await world.report()) == []


async def test_an_event_that_the_old_one_lacks_and_the_record_names_gives_nothing(world: World) -> None:
    world.old = world.exchange.talk("c-1", [*range(196), 198, 199])  # without the trade 196 and the quote 197
    world.takeover(also=((197 - BEGINS, 198 - BEGINS),), ended_n=OLD_ENDS - 2)

    assert said(await world.report()) == []


async def test_a_connection_that_only_stood_by_gives_nothing(world: World) -> None:
    world.old = world.exchange.talk("c-1", range(ALL))
    del world.records[1]

    assert said(await world.report()) == []


@pytest.mark.parametrize("late_ns", [0, 4 * NS_PER_S])
async def test_a_silent_exchange_makes_no_hole_where_the_new_one_was_there(tmp_path: Path, late_ns: int) -> None:
    world = World(tmp_path, Exchange(silent=(OLD_ENDS, 3 * NS_PER_S)))
    world.old = world.exchange.talk("c-1", range(OLD_ENDS), late_ns)

    assert said(await world.report()) == []


async def test_without_an_overlap_a_gap_explains_the_hole(world: World) -> None:
    world.hear(OLD_ENDS + 60)
    world.gap(OLD_ENDS - 1, OLD_ENDS + 60)

    assert said(await world.report()) == []


async def test_a_handover_at_midnight_gives_nothing_on_both_days(tmp_path: Path) -> None:
    exchange = Exchange(day_start_ns(NEXT) - OLD_ENDS * STEP_NS)
    world = World(tmp_path, exchange)  # the old one's last event is the day's, and so is the record

    assert said(await world.report()) == []
    assert said(await world.verify(NEXT)) == []


async def test_a_record_of_the_next_day_fits_the_frames_of_the_day_before(tmp_path: Path) -> None:
    world = World(tmp_path, Exchange(day_start_ns(NEXT) - (OLD_ENDS + 2) * STEP_NS))
    world.takeover(at_ns=day_start_ns(NEXT) + NS_PER_MS)

    assert said(await world.report()) == []
    assert said(await world.verify(NEXT)) == []


# -- faults ----------------------------------------------------------------------------------------------------------


async def test_a_tail_that_stayed_in_the_old_spool_is_found(world: World) -> None:
    world.takeover(ended_n=OLD_ENDS + 7)

    assert said(await world.report()) == [
        "frames 201 to 207 of c-1 are not in the archive: its connector has them"
    ]  # fmt: skip


async def test_a_missing_tail_is_found_by_what_the_new_one_heard_though_the_record_does_not_say_it(
    world: World,
) -> None:
    world.old = world.old[: 150 + 1]
    world.takeover(ended_n=None)

    (message,) = said(await world.report())
    assert message.startswith("12 ticker, 12 trade events from ")
    assert "that it heard nobody published" in message


async def test_a_connection_of_which_nothing_is_archived_is_found(world: World) -> None:
    world.old = []
    world.takeover(ended_n=None)

    messages = said(await world.report())
    assert "no frame of c-1, which published until then, is in the archive" in messages
    assert len(messages) == 2  # and what the new one heard meanwhile


async def test_of_a_day_that_is_not_over_a_missing_tail_is_a_note(world: World) -> None:
    world.takeover(ended_n=OLD_ENDS + 7)
    report = await world.report(today=DAY)

    assert said(report) == []
    assert any("201 to 207 of c-1 are not in the archive" in note for note in report.notes)


async def test_of_a_day_that_is_not_over_a_standby_may_be_archived_further_than_the_active_one(world: World) -> None:
    del world.records[1]

    assert said(await world.report(today=DAY)) == []
    assert any("that it heard nobody published" in message for message in said(await world.verify(DAY)))


@pytest.mark.parametrize("explained", [(), (OLD_ENDS + 20, OLD_ENDS + 60)], ids=["no gap", "a gap begins too late"])
async def test_a_hole_without_an_overlap_that_no_gap_covers_is_found(world: World, explained: tuple[int, int]) -> None:
    world.hear(OLD_ENDS + 60)
    if explained:
        world.gap(*explained)

    (message,) = said(await world.report())
    assert message.startswith("nothing was captured from ")
    assert message.endswith("between c-1 and c-2, and no gap says so")


async def test_a_gap_of_some_tickers_does_not_explain_a_hole(world: World) -> None:
    world.hear(OLD_ENDS + 60)
    world.gap(OLD_ENDS - 1, OLD_ENDS + 60, tickers=("T-1",))

    assert any("nothing was captured" in message for message in said(await world.report()))


async def test_what_was_heard_after_the_end_of_the_old_one_and_left_out_is_found(world: World) -> None:
    world.takeover(first_n=CUT + 40, at_ns=world.new[CUT + 39].received_ns)

    (message,) = said(await world.report())
    assert message.startswith("10 ticker, 10 trade events from ")


async def test_changes_of_books_that_were_left_out_for_long_are_found(world: World) -> None:
    world.takeover(first_n=CUT + 400, at_ns=world.new[CUT + 399].received_ns)

    (message,) = said(await world.report())
    assert "orderbook, 100 ticker, 100 trade events" in message


async def test_what_was_left_out_and_lies_in_a_gap_gives_nothing(world: World) -> None:
    world.takeover(first_n=CUT + 40, at_ns=world.new[CUT + 39].received_ns)
    world.gap(OLD_ENDS, OLD_ENDS + 40)

    assert said(await world.report()) == []


async def test_what_an_active_connection_that_was_offline_lacks_is_found_by_the_one_that_stood_by(
    world: World,
) -> None:
    world.old = world.exchange.talk("c-1", [*range(140), *range(160, OLD_ENDS)])
    world.takeover(ended_n=len(world.old) - 1)

    (message,) = said(await world.report())
    assert message.startswith("5 ticker, 5 trade events from ")


async def test_frames_of_the_old_one_behind_its_recorded_end_that_nobody_published_are_found(world: World) -> None:
    world.takeover(last_n=OLD_ENDS - 20)

    assert any("5 ticker, 5 trade events" in message for message in said(await world.report()))


async def test_events_that_both_published_are_found(world: World) -> None:
    world.takeover(first_n=CUT - 40, at_ns=world.new[CUT - 41].received_ns)

    (message,) = said(await world.report())
    assert message.startswith("20 orderbook, 10 ticker events from ")  # trades are merged by their ids
    assert message.endswith("of c-1 were published again by c-2")


async def test_a_record_that_ends_a_connection_which_only_stood_by_is_found(world: World) -> None:
    world.takeover(from_="c-3")
    world.records.append(Handover(FEED, "c-3", NOON + 7))

    assert "ends c-3, which only stood by: it is not the one that published" in said(await world.report())
