"""The security master synced from an exchange's lists into PostgreSQL, its changes told in a journal and a stream."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ssmd.errors import DataError, RateLimited, RefusedError, Unavailable
from ssmd.feeds.catalogue import open_feed
from ssmd.feeds.kalshi.market_fields import to_market
from ssmd.feeds.kalshi.rest import KalshiRest, Limits
from ssmd.feeds.kalshi.throttle import Backoff
from ssmd.market.events import MarketStatus, Status
from ssmd.middleware.journal.interface import Entry, Journal, NewEntry
from ssmd.middleware.journal.memory import MemoryJournal
from ssmd.middleware.transport.interface import Transport
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.database import Database
from ssmd.registry.market_search import MarketSearch
from ssmd.registry.security_master import SecurityMaster, store_markets
from ssmd.registry.sync_context import SyncContext
from ssmd.secmaster.publishing import Teller
from ssmd.secmaster.sync import SecurityMasterSync, SyncReport
from ssmd.wire.normalized import decode
from tests.databases import Database as Server
from tests.fakes.listing_exchange import ListingExchange, fill
from tests.unit.simulator.listing import exchange as simulated
from tests.unit.simulator.listing import write_objects

pytestmark = pytest.mark.integration
TOPIC = "ssmd.journal.secmaster"
FEED = "kalshi"


def text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def ago(**span: float) -> str:
    return text(datetime.now(UTC) - timedelta(**span))


class Desk:
    """Everything a sync needs, over one database; each `sync` is a process of its own."""

    def __init__(self, url: str, rest_url: str, journal: Journal, transport: Transport) -> None:
        self.database_url = url
        self.database = Database(url)
        self.master = SecurityMaster(self.database)
        self.search = MarketSearch(self.database)
        self.rest_url = rest_url
        self.journal = journal
        self.transport = transport
        self.slept: list[float] = []
        self.ahead = timedelta()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def sync(
        self, *, full: bool = False, accept: bool = False, combos: bool = False, deadline_s: float = 60.0
    ) -> SyncReport:
        parts = open_feed(FEED, date(2026, 11, 22))
        teller = Teller(parts, self.master, self.search, self.journal, TOPIC, self.transport)
        backoff = Backoff(attempts=3)
        async with KalshiRest(self.rest_url, backoff=backoff, sleep=self._sleep, limits=Limits(pages=20)) as rest:
            syncing = SecurityMasterSync(
                parts, rest, self.master, SyncContext(self.database), teller, combos=combos,
                now=lambda: datetime.now(UTC) + self.ahead, deadline_s=deadline_s,
            )  # fmt: skip
            return await syncing.sync(full=full, accept=accept)

    async def entries(self) -> list[tuple[Entry, dict[str, Any]]]:
        return [(entry, json.loads(entry.payload)) async for entry in self.journal.read(TOPIC)]

    async def statuses(self) -> list[MarketStatus]:
        """The status events in the stream."""
        consumer = await self.transport.consumer(FEED, "test")
        state = await consumer.state()
        found: list[MarketStatus] = []
        while len(found) < state.last_seq:
            for message in await consumer.fetch(1_000, 5.0):
                event = decode("status", message.payload)
                assert isinstance(event, MarketStatus)
                assert message.subject.decode().startswith("kalshi.status.")
                found.append(event)
        return found


@pytest.fixture
async def exchange() -> AsyncIterator[ListingExchange]:
    served = ListingExchange()
    async with served.serve():
        yield served


@pytest.fixture
async def desk(postgres: Server, exchange: ListingExchange) -> AsyncIterator[Desk]:
    made = Desk(postgres.fresh(), exchange.url, MemoryJournal(), MemoryTransport())
    yield made
    made.database.close()
    await made.transport.close()


async def test_the_first_sync_takes_everything_with_series_and_category(desk: Desk, exchange: ListingExchange) -> None:
    tickers = list(fill(exchange, 2_500))
    exchange.add_event("KX0-OLD", "KX0")
    exchange.add_market("KX0-OLD-A", "KX0-OLD", ago(days=9), status="finalized")
    exchange.settle("KX0-OLD-A", ago(hours=30))
    exchange.add_market("KX0-OLD-B", "KX0-OLD", ago(days=9))
    exchange.settle("KX0-OLD-B", ago(days=5))
    report = await desk.sync()
    assert (report.kind, report.series, report.events) == ("full", 3, 501)
    assert (report.markets, report.open_markets, report.new, report.changed) == (2_502, 2_500, 2_502, 0)
    assert (report.published, report.status_events, report.findings) == (2_502, 0, [])
    found = desk.search.find(FEED, series="KX1", category="Category 1")
    assert len(found) == 835
    assert desk.search.find(FEED, event="KX0-OLD")[0].category == "Category 0"
    assert [market.ticker for market in desk.search.find(FEED, status="active")] == sorted(tickers)
    assert all(query.get("mve_filter") == "exclude" for query in exchange.asked("/markets"))
    assert exchange.asked("/series") == [{"include_product_metadata": "true"}]
    entries = await desk.entries()
    assert len({entry.headers["Nats-Msg-Id"] for entry, _ in entries}) == 2_502
    entry, said = entries[0]
    assert entry.key == said["ticker"]
    assert (said["change"], said["field"], said["new"], said["feed"]) == ("listed", "status", "active", FEED)


async def test_three_changed_syncs_answer_what_was_when_and_what_was_known_when(
    desk: Desk, exchange: ListingExchange
) -> None:
    fill(exchange, 20)
    ticker = next(iter(exchange.markets))
    await desk.sync()
    moments = [datetime.now(UTC)]

    exchange.change(ticker, ago(seconds=0), title="new title", close_time="2026-12-24T12:00:00Z")
    second = await desk.sync()
    moments.append(datetime.now(UTC))
    assert (second.kind, second.changed, second.fields, second.new) == ("incremental", 1, 2, 0)

    exchange.change(ticker, ago(seconds=0), status="closed")
    exchange.add_market("KX9-NEW-A", "KX9-NEW", ago(seconds=0))
    exchange.add_series("KX9", "Weather", ago(seconds=0))
    exchange.add_event("KX9-NEW", "KX9", ago(seconds=0))
    third = await desk.sync()
    moments.append(datetime.now(UTC))
    assert (third.changed, third.new, third.status_events) == (1, 1, 1)

    exchange.settle(ticker, ago(seconds=0), status="determined")
    fourth = await desk.sync()
    assert (fourth.changed, fourth.settled) == (1, 0)

    now = datetime.now(UTC)
    seen = [desk.master.as_of(FEED, ticker, at, now).fields for at in (*moments, now)]
    assert [state["title"] for state in seen] == [f"market {ticker}", *["new title"] * 3]
    assert [state["status"] for state in seen] == ["active", "active", "closed", "determined"]
    assert [state.get("result") or "" for state in seen] == ["", "", "", "yes"]
    assert seen[0]["close_time"] == "2026-12-20T12:00:00Z"
    assert desk.master.as_of(FEED, ticker, now, moments[0]).fields["title"] == f"market {ticker}"
    assert "yes_bid_dollars" not in seen[-1]
    assert desk.search.find(FEED, category="Weather")[0].ticker == "KX9-NEW-A"
    events = await desk.statuses()
    assert [(event.status, event.result, event.settlement_value) for event in events] == [
        (Status.CLOSED, "", None),
        (Status.DETERMINED, "yes", 1_000_000),
    ]
    assert all(event.connection == "secmaster" and event.ticker == ticker for event in events)


async def test_trading_alone_changes_nothing(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 10)
    await desk.sync()
    for ticker in exchange.markets:
        exchange.markets[ticker].update(yes_bid_dollars="0.9900", volume_fp="7.00")
    report = await desk.sync(full=True)
    assert (report.changed, report.unchanged, report.fields, report.published) == (0, 10, 0, 0)


async def test_an_incremental_sync_asks_from_the_exchanges_own_times(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 3)
    ticker = next(iter(exchange.markets))
    exchange.change(ticker, "2026-11-21T10:00:00Z")
    exchange.settle("KX0-0-T000001", "2026-11-21T09:00:00Z")
    exchange.markets["KX0-0-T000001"]["updated_time"] = "2026-11-20T00:00:00Z"
    exchange.change("KX0-0-T000002", "2999-01-01T00:00:00Z")  # a clock gone mad must not blind the next sync
    await desk.sync()
    exchange.requests.clear()
    report = await desk.sync()
    assert report.kind == "incremental"
    updated = str(int(datetime(2026, 11, 21, 9, 50, tzinfo=UTC).timestamp()))
    settled = str(int(datetime(2026, 11, 21, 8, 50, tzinfo=UTC).timestamp()))
    assert exchange.asked("/markets") == [
        {"status": "open", "limit": "1000", "mve_filter": "exclude"},
        {"limit": "1000", "mve_filter": "exclude", "min_updated_ts": updated},
        {"status": "settled", "limit": "1000", "mve_filter": "exclude", "min_settled_ts": settled},
    ]
    assert exchange.asked("/series") == [{"include_product_metadata": "true", "min_updated_ts": updated}]
    assert exchange.asked("/events") == [{"limit": "200", "min_updated_ts": updated}]


async def test_a_full_sync_comes_again_after_a_day_and_when_it_is_asked_for(
    desk: Desk, exchange: ListingExchange
) -> None:
    fill(exchange, 3)
    assert [(await desk.sync()).kind, (await desk.sync()).kind] == ["full", "incremental"]
    assert (await desk.sync(full=True)).kind == "full"
    desk.ahead = timedelta(hours=25)
    assert (await desk.sync()).kind == "full"


@pytest.mark.parametrize("kind", ["full", "incremental"])
async def test_a_collapsed_list_is_refused_with_both_counts_unless_it_is_accepted(
    desk: Desk, exchange: ListingExchange, kind: str
) -> None:
    tickers = list(fill(exchange, 100))
    await desk.sync()
    for ticker in tickers[:60]:
        exchange.markets.pop(ticker)
    exchange.change(tickers[70], ago(seconds=0), title="half written?")
    with pytest.raises(RefusedError, match=r"40 open markets.* 100") as refused:
        await desk.sync(full=kind == "full")
    assert "--accept" in refused.value.hint
    assert len(desk.search.find(FEED, status="active")) == 100
    assert desk.master.history(FEED, tickers[70]) == []
    book = desk.master.syncs(FEED)
    assert [(row.kind, row.status, row.open_markets) for row in book] == [
        (kind, "refused", 40),
        ("full", "completed", 100),
    ]
    accepted = await desk.sync(full=kind == "full", accept=True)
    assert (accepted.kind, accepted.unlisted) == (kind, 60 if kind == "full" else 0)


async def test_an_exchange_that_lists_nothing_is_refused(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 5)
    await desk.sync()
    exchange.markets.clear()
    with pytest.raises(RefusedError, match=r"only 0 open markets on the first page, where about 5 were") as refused:
        await desk.sync()
    assert "the last full sync of kalshi found 5" in refused.value.message
    assert "taken for a fault of the exchange" in refused.value.message
    assert "run it again later: ssmd market sync --feed kalshi. " in refused.value.hint
    assert refused.value.hint.endswith("If so few markets are right: ssmd market sync --feed kalshi --full --accept")


def connector_lists(desk: Desk, exchange: ListingExchange, close: str) -> None:
    """A connector has stored what the exchange lists, without any sync; all of it closes at a time."""
    for row in exchange.markets.values():
        row["close_time"] = close
    found = [market for market in map(to_market, exchange.markets.values()) if market is not None]
    store_markets(desk.database, FEED, found, open_feed(FEED, date(2026, 11, 22)).volatile)


@pytest.mark.parametrize("left", [0, 1, 900])
async def test_a_first_sync_is_measured_by_what_a_connector_has_stored(
    desk: Desk, exchange: ListingExchange, left: int
) -> None:
    tickers = list(fill(exchange, 2_000))
    connector_lists(desk, exchange, ago(days=-30))
    for ticker in tickers[left:]:
        del exchange.markets[ticker]
    with pytest.raises(RefusedError, match=f"{left:,} open markets.* 2,000 active ones are known") as refused:
        await desk.sync()
    assert "ssmd market sync --feed kalshi --full --accept" in refused.value.hint
    assert len(desk.search.find(FEED, status="active", limit=3_000)) == 2_000
    assert [(row.kind, row.status) for row in desk.master.syncs(FEED)] == [("full", "refused")]
    assert (await desk.sync(accept=True)).unlisted == 2_000 - left


async def test_an_exchange_that_lists_nothing_is_refused_even_by_an_empty_registry(desk: Desk) -> None:
    with pytest.raises(RefusedError, match="0 open markets"):
        await desk.sync()
    assert [row.status for row in desk.master.syncs(FEED)] == ["refused"]
    assert (await desk.sync(accept=True)).markets == 0


async def test_many_vanished_markets_are_refused_with_the_counts_though_half_of_the_list_is_there(
    desk: Desk, exchange: ListingExchange
) -> None:
    tickers = list(fill(exchange, 500))
    await desk.sync()
    for ticker in tickers[:101]:
        del exchange.markets[ticker]
    with pytest.raises(RefusedError, match=r"101 markets are no longer listed \(up to 100 .* 500 active"):
        await desk.sync(full=True)
    assert desk.master.syncs(FEED)[0].status == "refused"
    assert desk.master.history(FEED, tickers[0]) == []
    exchange.add_market(tickers[0], "KX0-0")
    assert (await desk.sync(full=True)).unlisted == 100


async def test_a_few_active_markets_that_vanish_are_many_when_they_are_most(
    desk: Desk, exchange: ListingExchange
) -> None:
    tickers = list(fill(exchange, 11))
    for row in exchange.markets.values():
        row["close_time"] = ago(days=-30)
    await desk.sync()
    for ticker in tickers[:6]:
        del exchange.markets[ticker]
    for ticker in tickers[:6]:
        exchange.add_market(f"{ticker}-NEW", "KX0-0", close_time=ago(days=-30))  # in their place
    with pytest.raises(RefusedError, match="6 active markets are no longer listed, of 11 that are known"):
        await desk.sync(full=True)


async def test_markets_that_should_have_closed_by_now_may_be_gone(desk: Desk, exchange: ListingExchange) -> None:
    tickers = list(fill(exchange, 20))
    connector_lists(desk, exchange, ago(minutes=1))
    for ticker in tickers[3:]:
        del exchange.markets[ticker]
    assert (await desk.sync()).unlisted == 17


@pytest.mark.parametrize("status", ["initialized", "inactive", "closed", "determined"])
async def test_a_market_vanishes_from_whatever_list_it_was_in(
    desk: Desk, exchange: ListingExchange, status: str
) -> None:
    fill(exchange, 3)
    exchange.add_market("GONE", "KX0-0", status=status)
    exchange.add_market("OVER", "KX0-0", ago(days=9))
    exchange.settle("OVER", ago(days=5))
    await desk.sync()
    del exchange.markets["GONE"]
    del exchange.markets["OVER"]  # settled for good: one day it is in no list, and that says nothing
    assert (await desk.sync(full=True)).unlisted == 1
    assert [market.ticker for market in desk.search.find(FEED, event="KX0-0")][-1] == "OVER"


@pytest.mark.parametrize(
    ("ahead", "kinds"),
    [
        ("started_at = started_at + interval '1 year'", ["full", "incremental"]),
        ("updated_until = now() + interval '300 days'", ["full", "incremental"]),
    ],
)
async def test_a_clock_that_was_put_back_costs_one_full_sync_and_blinds_none(
    desk: Desk, exchange: ListingExchange, ahead: str, kinds: list[str]
) -> None:
    tickers = list(fill(exchange, 12))
    await desk.sync()
    with desk.database.transaction("play a clock that was ahead") as connection:
        connection.execute(sa.text(f"UPDATE market_syncs SET {ahead}"))
    assert [(await desk.sync()).kind, (await desk.sync()).kind] == kinds
    exchange.change(tickers[0], ago(seconds=0), status="closed")  # in no list of open markets
    report = await desk.sync()
    assert (report.kind, report.changed) == ("incremental", 1)


async def test_vanished_markets_are_asked_about_one_by_one(desk: Desk, exchange: ListingExchange) -> None:
    tickers = list(fill(exchange, 12))
    gone, paused, settled, old = tickers[:4]
    await desk.sync()
    del exchange.markets[gone]
    exchange.change(paused, ago(seconds=0), status="inactive")
    exchange.settle(settled, ago(days=3), "no")  # beyond the reach of the settled sweep
    exchange.historical[old] = {**exchange.markets.pop(old), "status": "finalized", "result": "yes"}
    report = await desk.sync(full=True)
    assert (report.unlisted, report.changed, report.settled) == (1, 3, 2)
    statuses = {market.ticker: market.status for market in desk.search.find(FEED) if market.ticker in tickers[:4]}
    assert statuses == {paused: "inactive", settled: "finalized", old: "finalized"}
    now = datetime.now(UTC)
    assert desk.master.as_of(FEED, gone, now, now).listed is False
    assert [(entry.key, said["field"]) for entry, said in await desk.entries() if said["change"] != "listed"].count(
        (gone, "listed")
    ) == 1
    exchange.add_market(gone, "KX0-0")
    again = await desk.sync(full=True)
    assert again.unlisted == 0
    now = datetime.now(UTC)
    assert desk.master.as_of(FEED, gone, now, now).listed is True


async def test_a_result_is_upgraded_by_better_evidence_only(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 4)
    ticker = next(iter(exchange.markets))
    await desk.sync()
    results, findings = [], {}
    for status, result in (("determined", "yes"), ("closed", ""), ("disputed", "no"), ("finalized", "no")):
        exchange.change(ticker, ago(seconds=0), status=status, result=result)
        findings[status] = (await desk.sync()).findings
        now = datetime.now(UTC)
        results.append(desk.master.as_of(FEED, ticker, now, now).fields["result"])
    assert results == ["yes", "yes", "yes", "no"]
    said = "new answers about settled markets were not believed, their evidence is weaker than what is known: "
    assert findings == {"determined": [], "closed": [said + ticker], "disputed": [said + ticker], "finalized": []}
    assert (await desk.sync()).findings == []
    settled = [change for change in desk.master.history(FEED, ticker) if change.field == "result"]
    assert [(change.new, change.evidence, change.known_to is None) for change in settled] == [
        ("yes", "determined", False),
        ("no", "finalized", True),
    ]


Trouble = Callable[[ListingExchange], None]


def busy(exchange: ListingExchange) -> None:
    exchange.faults = [(429, '{"error":"too many requests"}')] * 3


def gateway(exchange: ListingExchange) -> None:
    exchange.faults = [(502, "<html><body>Bad Gateway</body></html>")] * 3


def empty(exchange: ListingExchange) -> None:
    exchange.faults = [(503, "")] * 3


def wrong(exchange: ListingExchange) -> None:
    exchange.faults = [(200, '{"markets":{"a":1}}')]


def nested(exchange: ListingExchange) -> None:
    exchange.faults = [(400, '{"error":{"code":"bad_request","message":"no"}}')]


def repeating(exchange: ListingExchange) -> None:
    exchange.repeat_cursor = True


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(busy, RateLimited), (gateway, Unavailable), (empty, Unavailable), (wrong, DataError), (nested, DataError),
     (repeating, DataError)],
)  # fmt: skip
@pytest.mark.parametrize("after", [0, 1, 5, 8])
async def test_trouble_in_the_middle_leaves_nothing_half_written(
    desk: Desk, exchange: ListingExchange, trouble: Trouble, error: type[Exception], after: int
) -> None:
    tickers = list(fill(exchange, 2_200))
    await desk.sync()
    exchange.change(tickers[0], ago(seconds=0), title="changed")
    exchange.add_series("KX0", "Renamed")
    trouble(exchange)
    exchange.fault_after = after
    with pytest.raises(error):
        await desk.sync(full=True)
    assert desk.search.find(FEED, event="KX0-0")[0].title == f"market {tickers[0]}"
    assert SyncContext(desk.database).categories(FEED, ["KX0"]) == {"KX0": "Category 0"}
    assert [row.status for row in desk.master.syncs(FEED)] == ["failed", "completed"]
    exchange.faults, exchange.repeat_cursor = [], False
    assert (await desk.sync(full=True)).changed > 0


async def test_a_busy_exchange_only_slows_a_sync(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 1_500)
    exchange.faults = [(429, '{"error":"too many requests"}'), (502, "<html>")]
    exchange.fault_after = 3
    assert (await desk.sync()).new == 1_500
    assert len(desk.slept) == 2


async def test_hostile_objects_cost_nothing_but_themselves(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 5)
    exchange.add_event("E\0", "KX0")
    exchange.add_market("A\0B", "E\0", title="nul \0 escape \x1b[2J", custom_strike={"k\0": ["\0", {"x": "\t\n"}]})
    exchange.add_market("X" * 200, "KX0-0")
    exchange.add_market("COMMA,TICKER", "EVENT,COMMA")
    exchange.add_market("ODD", "KX0-0", title=7, result=[], open_time={}, updated_time=1, rules_primary=None)
    exchange.markets["none"] = {"ticker": "", "event_ticker": "KX0-0", "status": "active"}
    report = await desk.sync()
    assert (report.new, report.open_markets) == (8, 8)
    assert len(report.findings) == 2
    found = {market.ticker: market for market in desk.search.find(FEED)}
    nul = found["A\ufffdB"]
    assert (nul.series_ticker, nul.category, nul.title) == ("KX0", "Category 0", "nul \ufffd escape \ufffd[2J")
    whole = desk.search.one(FEED, nul.ticker)
    assert whole is not None
    assert whole.raw["custom_strike"] == {"k\ufffd": ["\ufffd", {"x": "\t\n"}]}
    assert (await desk.sync(full=True)).unlisted == 0
    del exchange.markets["COMMA,TICKER"]
    del exchange.markets["A\0B"]
    again = await desk.sync(full=True)
    assert again.unlisted == 1  # a ticker with a comma cannot be asked for, so nothing is concluded about it
    assert len(await desk.entries()) == 9


async def test_a_time_that_cannot_be_stored_is_a_finding_and_the_last_one_there_is_can(
    desk: Desk, exchange: ListingExchange
) -> None:
    fill(exchange, 5)
    exchange.add_market("LAST", "KX0-0", close_time="9999-12-31T23:59:59Z", updated_time="0001-01-01T00:00:00Z")
    assert (await desk.sync()).findings == []
    exchange.add_market("FIRST", "KX0-0", close_time="0001-01-01T00:00:00Z")
    exchange.add_market("NONE", "KX0-0", open_time="not a time")
    report = await desk.sync(full=True)

    (finding,) = report.findings
    assert finding.startswith("2 objects stored without a time that the exchange told")
    assert finding.endswith(": FIRST, NONE")
    found = {market.ticker: market for market in desk.search.find(FEED)}
    assert found["LAST"].close_time == "9999-12-31T23:59:59Z"
    assert (found["FIRST"].close_time, found["NONE"].open_time) == (None, None)
    whole = desk.search.one(FEED, "NONE")
    assert whole is not None
    assert whole.raw["open_time"] == "not a time"


@pytest.mark.parametrize("knows", [True, False])
async def test_paused_markets_are_listed_where_the_exchange_lists_them(
    desk: Desk, exchange: ListingExchange, knows: bool
) -> None:
    fill(exchange, 3)
    exchange.add_market("PAUSED", "KX0-0", status="inactive")
    exchange.knows_paused = knows
    report = await desk.sync()
    assert (report.new, report.findings) == (4 if knows else 3, [])


async def test_the_simulated_exchange_is_followed_through_its_changes(postgres: Server, tmp_path: Path) -> None:
    async with simulated(write_objects(tmp_path / "objects")) as asked, AsyncExitStack() as stack:
        transport = MemoryTransport()
        stack.push_async_callback(transport.close)
        desk = Desk(postgres.fresh(), asked.simulator.rest_url, MemoryJournal(), transport)
        stack.callback(desk.database.close)

        def known(ticker: str) -> tuple[str, str, str]:
            market = desk.search.one(FEED, ticker)
            assert market is not None
            return market.status, market.result, market.category

        first = await desk.sync()
        assert (first.kind, first.findings) == ("full", [])
        assert known("KXA-1-T1") == ("active", "", "Crypto")
        assert known("KXA-1-T2") == ("inactive", "", "Crypto")
        assert known("KXB-2-T1") == ("determined", "no", "World")
        assert desk.search.one(FEED, "KXMVEX-S1-1") is None

        await asked.order([{"ticker": "KXA-1-T1", "set": {"status": "finalized", "result": "yes"}}])
        second = await desk.sync()
        assert (second.kind, second.settled) == ("incremental", 1)
        assert known("KXA-1-T1") == ("finalized", "yes", "Crypto")

        await asked.order({"hide": True, "of": "markets"})
        for full in (True, False):
            with pytest.raises(RefusedError, match="0 open markets"):
                await desk.sync(full=full)
        await asked.order({"hide": False, "of": "markets"})

        ticker = next(market.ticker for market in desk.search.find(FEED, status="active"))
        await asked.order({"remove": ticker})
        assert (await desk.sync(full=True)).unlisted == 1


async def test_combos_are_left_out_unless_they_are_wanted(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 3)
    exchange.add_event("KXMVENFL-S1", "KXMVENFL", category="Sports")
    exchange.add_market("KXMVENFL-S1-A", "KXMVENFL-S1")
    assert (await desk.sync()).markets == 3
    wanted = await desk.sync(full=True, combos=True)
    assert (wanted.markets, wanted.new) == (4, 1)
    assert desk.search.find(FEED, series="KXMVENFL")[0].category == "Sports"
    exchange.add_market("KXMVENFL-S1-B", "KXMVENFL-S1", ago(seconds=0))
    assert (await desk.sync(combos=True)).new == 1


async def test_what_the_journal_missed_is_told_by_the_next_sync(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 30)
    ticker = next(iter(exchange.markets))
    assert isinstance(desk.journal, MemoryJournal)
    desk.journal.up = False
    first = await desk.sync()
    assert (first.new, first.published) == (30, 0)
    assert len(first.findings) == 1
    assert "next sync" in first.findings[0]
    exchange.change(ticker, ago(seconds=0), status="closed")
    desk.journal.up = True
    second = await desk.sync()
    assert (second.published, second.status_events, second.findings) == (31, 1, [])
    assert (await desk.sync()).published == 0
    assert len(await desk.entries()) == 31


class SmallJournal(MemoryJournal):
    """A journal whose server takes small entries only."""

    async def append_all(self, topic: str, entries: Sequence[NewEntry]) -> None:
        if any(len(entry.payload) > 2_000 for entry in entries):
            raise DataError("larger than this server takes")
        await super().append_all(topic, entries)


@pytest.mark.parametrize("small", [False, True])
async def test_a_change_too_large_for_the_journal_is_told_cut_and_holds_up_nothing(
    desk: Desk, exchange: ListingExchange, small: bool
) -> None:
    tickers = list(fill(exchange, 20))[:5]
    exchange.markets[tickers[2]]["rules_primary"] = "\x01" * 400_000
    if small:
        desk.journal = SmallJournal()
    await desk.sync()
    for ticker in tickers:
        rules = {"rules_primary": "\x02" * 400_000} if ticker == tickers[2] else {}
        exchange.change(ticker, ago(seconds=0), status="closed", **rules)
    report = await desk.sync()
    assert (report.published, report.status_events, report.findings) == (6, 5, [])
    assert (await desk.sync()).published == 0
    changed = [said for _, said in await desk.entries() if said["change"] != "listed"]
    assert [said["ticker"] for said in changed if said["field"] == "status"] == tickers
    (cut,) = [said for said in changed if said.get("cut")]
    assert (cut["ticker"], cut["field"], cut["new"] is None) == (tickers[2], "rules_primary", small)


async def test_a_change_that_is_told_before_its_market_marks_no_market_as_told(
    desk: Desk, exchange: ListingExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickers = list(fill(exchange, 3))
    assert isinstance(desk.journal, MemoryJournal)
    desk.journal.up = False
    await desk.sync()
    with desk.database.transaction("play a clock that was an hour ahead") as connection:
        connection.execute(sa.text("UPDATE markets SET known_from = now() + interval '1 hour'"))
    exchange.change(tickers[2], ago(seconds=0), title="changed")
    desk.journal.up = True
    monkeypatch.setattr("ssmd.secmaster.publishing.BATCH", 1)
    assert (await desk.sync()).published == 4
    told = [(said["change"], said["ticker"]) for _, said in await desk.entries()]
    assert sorted(told) == [("changed", tickers[2]), *(("listed", ticker) for ticker in tickers)]
    assert told[0] == ("changed", tickers[2])


async def test_a_list_without_end_is_a_failed_sync(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 3)
    exchange.endless = True
    with pytest.raises(DataError, match="the list has no end after 20 pages"):
        await desk.sync()
    (row,) = desk.master.syncs(FEED)
    assert (row.status, row.error) == (
        "failed",
        f"GET {exchange.url}/events: the list has no end after 20 pages",
    )


async def test_an_exchange_that_does_not_come_to_an_end_fails_a_sync(desk: Desk, exchange: ListingExchange) -> None:
    exchange.silent = True
    with pytest.raises(Unavailable, match="had not told everything"):
        await desk.sync(deadline_s=0.2)
    assert [(row.status, "had not told" in (row.error or "")) for row in desk.master.syncs(FEED)] == [("failed", True)]


async def test_a_sync_that_is_cancelled_stands_in_the_book_and_lets_the_next_one_in(
    desk: Desk, exchange: ListingExchange
) -> None:
    fill(exchange, 3)
    exchange.silent = True
    running = asyncio.create_task(desk.sync())
    await exchange.first_request.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [(row.status, row.error) for row in desk.master.syncs(FEED)] == [
        ("failed", "interrupted before it was done")
    ]
    exchange.silent = False
    assert (await desk.sync()).new == 3


async def test_sigterm_ends_the_command_with_a_row_in_the_book(
    desk: Desk, exchange: ListingExchange, tmp_path: Path
) -> None:
    file = tmp_path / "environment.yaml"
    kinds = ", ".join(f"{kind}: {{type: memory}}" for kind in ("transport", "storage", "cache", "journal"))
    url = desk.database_url
    file.write_text(
        "apiVersion: ssmd/v1\nkind: Environment\nmetadata: {name: ended}\n"
        f"spec: {{keys: {{}}, feed: kalshi, database: {{url: '{url}'}}, middleware: {{{kinds}}}}}\n"
    )
    exchange.silent = True
    command = [sys.executable, "-m", "ssmd", "market", "sync", "--rest", exchange.url]
    env = {**os.environ, "SSMD_ENV": str(file), "SSMD_HOME": str(tmp_path / "home")}
    process = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.PIPE)
    await asyncio.wait_for(exchange.first_request.wait(), 30)
    process.terminate()
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert err.decode().startswith("the sync was ended by SIGTERM\n  See how far it came: ssmd market syncs.")
    assert [(row.status, row.error) for row in desk.master.syncs(FEED)] == [
        ("failed", "interrupted before it was done")
    ]


async def test_a_password_in_the_exchanges_address_is_in_no_error_and_not_in_the_book(
    desk: Desk, exchange: ListingExchange
) -> None:
    desk.rest_url = exchange.url.replace("http://", "http://user:SECRET@")
    exchange.faults = [(400, json.dumps({"error": f"no such page: {desk.rest_url}"}))]
    with pytest.raises(DataError) as failed:
        await desk.sync()
    with pytest.raises(OSError, match="SECRET"), desk.master.sync(FEED, "full"):  # whoever else fails and says it
        raise OSError(f"cannot reach {desk.rest_url}")
    books = [row.error or "" for row in desk.master.syncs(FEED)]
    assert len(books) == 2
    for said in (str(failed.value), *books):
        assert "SECRET" not in said
        assert f"user:***@127.0.0.1:{exchange.url.split(':')[2].split('/')[0]}" in said


async def test_a_page_is_as_old_as_its_question_and_not_as_its_sync(desk: Desk, exchange: ListingExchange) -> None:
    ticker = next(iter(fill(exchange, 3)))
    del exchange.markets[ticker]["updated_time"]
    await desk.sync()
    volatile = open_feed(FEED, date(2026, 11, 22)).volatile

    def heard(path: str) -> None:
        """Once the sync runs, a connector stores the market; after that the exchange changes it, and is asked."""
        if path == "/events" and exchange.markets[ticker]["title"] != "Three":
            found = to_market({**exchange.markets[ticker], "title": "Two"})
            assert found is not None
            store_markets(desk.database, FEED, [found], volatile)
            exchange.markets[ticker]["title"] = "Three"

    exchange.on_request = heard
    await desk.sync(full=True)
    assert [(c.old, c.new) for c in desk.master.history(FEED, ticker) if c.field == "title"] == [
        (f"market {ticker}", "Two"),
        ("Two", "Three"),
    ]


async def test_a_sync_killed_before_it_told_anything_is_made_good(desk: Desk, exchange: ListingExchange) -> None:
    class Killed(BaseException):
        """Stands for the end of the process."""

    class DyingJournal(MemoryJournal):
        async def create_topic(self, topic: str) -> None:
            raise Killed

    fill(exchange, 10)
    alive, desk.journal = desk.journal, DyingJournal()
    with pytest.raises(Killed):
        await desk.sync()
    desk.journal = alive
    assert (await desk.sync()).published == 10


async def test_two_syncs_at_once_are_one_and_a_refusal(desk: Desk, exchange: ListingExchange) -> None:
    fill(exchange, 1_100)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(desk.sync())
        await exchange.first_request.wait()
        with pytest.raises(RefusedError, match="another sync"):
            await desk.sync()
    assert first.result().new == 1_100


async def test_what_was_told_is_the_same_in_a_real_journal_and_stream(
    postgres: Server, exchange: ListingExchange, nats_broker: Any
) -> None:
    from ssmd.middleware.journal.nats import NatsJournal
    from ssmd.middleware.transport.nats import NatsTransport

    tickers = list(fill(exchange, 2_300))
    async with AsyncExitStack() as stack:
        journal, transport = NatsJournal(nats_broker.url), NatsTransport(nats_broker.url)
        stack.push_async_callback(journal.close)
        stack.push_async_callback(transport.close)
        await transport.ensure_stream(FEED)
        told_before = await journal.end(TOPIC) or 0  # the broker is shared with other tests
        before = (await (await transport.consumer(FEED, "counted")).state()).last_seq
        desk = Desk(postgres.fresh(), exchange.url, journal, transport)
        stack.callback(desk.database.close)
        first = await desk.sync()
        assert (first.published, first.status_events) == (2_300, 0)
        for ticker in tickers[:1_500]:
            exchange.change(ticker, ago(seconds=0), status="closed")
        second = await desk.sync(full=True, accept=True)
        assert (second.published, second.status_events) == (1_500, 1_500)
        ids = [entry.headers["Nats-Msg-Id"] async for entry in journal.read(TOPIC, told_before + 1)]
        assert len(ids) == len(set(ids)) == 3_800
        assert (await (await transport.consumer(FEED, "counted")).state()).last_seq - before == 1_500
