"""History against a simple model that keeps every snapshot: as-of answers, one row per change, intervals, journal."""

import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ssmd.errors import ConfigError
from ssmd.feeds.kalshi.market_fields import VOLATILE, to_market
from ssmd.registry import db, values
from ssmd.registry.database import Database
from ssmd.registry.interface import Market
from ssmd.registry.market_changes import JournalItem
from ssmd.registry.postgres import PostgresRegistry
from ssmd.registry.security_master import SecurityMaster
from ssmd.registry.tables import feeds
from tests.databases import Database as Server

pytestmark = pytest.mark.integration

RANKS = {"determined": 1, "amended": 2, "finalized": 3}
SETTLEMENT = ("result", "settlement_value_dollars", "settlement_ts")
Snapshot = dict[str, str | None]

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "a", "ü\u2028"]), st.just([{"step": "0.01"}, 1])
)
TIMES = st.sampled_from(["none", "older", "now", "future", "zero", "nonsense"])
DESCRIPTIONS = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["active", "closed", "disputed", "determined", "amended", "finalized"]),
        "title": st.sampled_from(["One?", "Two?"]),
        "last_price_dollars": st.sampled_from(["0.1000", "0.9000"]),  # volatile
        "updated_time": TIMES,
    },
    optional={
        "result": st.sampled_from(["", "yes", "no"]),
        "settlement_value_dollars": st.sampled_from(["", "0.0000", "1.0000"]),
        "settlement_ts": st.sampled_from(["2026-09-25T19:00:08.135664Z", "2026-09-26T19:00:08Z"]),
        "strike": VALUES,
        "note": VALUES,
        "category": st.sampled_from(["", "Crypto", "Politics"]),
    },
)
LISTING = st.lists(st.tuples(st.sampled_from("ABCD"), DESCRIPTIONS), max_size=6)


def text(value: Any) -> str | None:
    """A JSON value as history writes it."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def time_text(kind: str) -> str | None:
    now = datetime.now(UTC)
    return {
        "none": None,
        "older": (now - timedelta(days=1)).isoformat(),
        "now": now.isoformat(),
        "future": (now + timedelta(days=1)).isoformat(),
        "zero": "0001-01-01T00:00:00Z",
        "nonsense": "soon",
    }[kind]


class Moment(NamedTuple):
    """A time between two syncs, and everything that was true then."""

    at: datetime
    snapshots: dict[str, Snapshot]
    listed: frozenset[str]


class Model:
    """What a market is after each answer, by the rules in words."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.ranks: dict[str, int] = {}
        self.updated: dict[str, datetime] = {}
        self.listed: set[str] = set()

    def learn(self, ticker: str, raw: dict[str, Any]) -> None:
        self.listed.add(ticker)
        new = {name: text(value) for name, value in raw.items() if name not in VOLATILE}
        rank = RANKS.get(raw["status"], 0) if raw.get("result") else 0
        old = self.snapshots.get(ticker)
        settles_better = bool(raw.get("result")) and rank > self.ranks.get(ticker, 0)
        if self._is_told_late(ticker, values.moment(raw["updated_time"])) and not settles_better:
            return
        if old is not None and not new.get("category") and old.get("category"):
            new["category"] = old["category"]
        if old is None or not old.get("result"):
            self.ranks[ticker] = rank
        else:
            better = rank > self.ranks[ticker]
            if rank < self.ranks[ticker] == RANKS["finalized"]:
                new["status"] = old["status"]
            for name in SETTLEMENT:
                before, told = old.get(name), new.get(name)
                same = new_result == old["result"] if (new_result := raw.get("result")) else False
                fills = same and not before
                corrects = bool(new_result) and better and (bool(told) or not same)
                if not (fills or corrects):
                    new[name] = before
            if raw.get("result") and better:
                self.ranks[ticker] = rank
        self.snapshots[ticker] = {name: value for name, value in new.items() if value is not None}
        if updated := values.moment(raw["updated_time"]):
            self.updated[ticker] = updated

    def _is_told_late(self, ticker: str, told: datetime | None) -> bool:
        """Is the answer older than what is known? Times that have not come yet tell nothing."""
        known = self.updated.get(ticker)
        return told is not None and known is not None and told < known <= datetime.now(UTC)


def listing(described: list[tuple[str, dict[str, Any]]]) -> list[Market]:
    markets = []
    for ticker, description in described:
        raw = {"ticker": ticker, "event_ticker": "E", **description}
        raw["updated_time"] = time_text(description["updated_time"])
        market = to_market(raw)
        assert market is not None
        markets.append(market)
    return markets


class Comparison(RuleBasedStateMachine):
    """Syncs of one feed, and the questions after each of them."""

    names = itertools.count()
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.feed = f"f{next(self.names)}"
        self.database = Database(self.url)
        self.registry = PostgresRegistry(self.url)
        with self.database.transaction("add a feed") as connection:
            connection.execute(sa.insert(feeds).values(name=self.feed, feed_type="websocket", status="active"))
        self.master = SecurityMaster(self.database)
        self.model = Model()
        self.moments: list[Moment] = []
        self.published: list[str] = []
        self.expected_rows = 0

    def teardown(self) -> None:
        try:
            self._remembers(self.moments)
        finally:
            self.database.close()
            self.registry.close()

    @rule(described=LISTING, pages=st.integers(1, 3), kind=st.sampled_from(["full", "incremental", "upsert"]))
    def sync(self, described: list[tuple[str, dict[str, Any]]], pages: int, kind: Any) -> None:
        markets = listing(described)
        before = {ticker: dict(snapshot) for ticker, snapshot in self.model.snapshots.items()}
        last = {market.ticker: market for market in markets}
        relisted = sum(ticker in before and ticker not in self.model.listed for ticker in last)
        for ticker, market in last.items():
            self.model.learn(ticker, market.raw)
        if kind == "upsert":
            self.registry.upsert_markets(self.feed, markets, VOLATILE)
        else:
            with self.master.sync(self.feed, kind, VOLATILE) as sync:
                for page in range(pages):
                    sync.add_markets(markets[page * len(markets) // pages : (page + 1) * len(markets) // pages])
                result = sync.apply(accept=True)
            assert result.markets == len(last)
            assert result.duplicates == len(markets) - len(last)
            assert result.inserted == len(last.keys() - before.keys())
            assert result.fields == self._differences(before) + relisted
            assert result.inserted + result.changed + result.unchanged == len(last)
        self.expected_rows += self._differences(before) + relisted
        self._remember()

    def _differences(self, before: dict[str, Snapshot]) -> int:
        """How many fields of known markets are not what they were."""
        count = 0
        for ticker, old in before.items():
            new = self.model.snapshots[ticker]
            count += sum(old.get(name) != new.get(name) for name in old.keys() | new.keys())
        return count

    @rule(tickers=st.sets(st.sampled_from("ABCD")))
    def unlist(self, tickers: set[str]) -> None:
        gone = self.master.unlist(self.feed, sorted(tickers))
        assert gone == len(tickers & self.model.listed)
        self.expected_rows += gone
        self.model.listed -= tickers
        self._remember()

    @rule(limit=st.integers(1, 5), acknowledged=st.booleans())
    def publish(self, limit: int, acknowledged: bool) -> None:
        items = self.master.unpublished(self.feed, limit)
        assert items == self.master.unpublished(self.feed, limit)
        assert len(items) <= limit
        if acknowledged and items:
            markets, changes = (max(getattr(i, name) for i in items) for name in ("market_id", "history_id"))
            listed = max((i.market_id for i in items if i.kind == "listed"), default=0)
            assert markets >= listed
            self.master.mark_published(self.feed, listed, changes)
            self.published += [item.id for item in items]
        for item in items:
            if item.kind == "changed":
                self._is_told_from_what_was_believed(item)

    def _is_told_from_what_was_believed(self, item: JournalItem) -> None:
        """The old value is that of the last moment before the change was known, the new one of the first after it."""
        if item.field == "listed":
            return
        before = [moment for moment in self.moments if moment.at < item.known_from][-1]
        after = next(moment for moment in self.moments if moment.at >= item.known_from)
        assert (item.old, item.new) == tuple(m.snapshots[item.ticker].get(item.field) for m in (before, after))

    def _remember(self) -> None:
        snapshots = {ticker: dict(snapshot) for ticker, snapshot in self.model.snapshots.items()}
        self.moments.append(Moment(datetime.now(UTC), snapshots, frozenset(self.model.listed)))

    @invariant()
    def a_sync_is_remembered_as_it_was(self) -> None:
        self._remembers(self.moments[-1:])  # and all of them at the end

    def _remembers(self, moments: list[Moment]) -> None:
        now = datetime.now(UTC)
        for moment in moments:
            page = self.master.markets_as_of(self.feed, now, moment.at)
            assert {state.ticker: state.fields for state in page} == {
                ticker: moment.snapshots[ticker] for ticker in moment.listed
            }
            for ticker in self.model.snapshots:
                if ticker not in moment.snapshots:
                    with pytest.raises(ConfigError, match="not known"):
                        self.master.as_of(self.feed, ticker, now, moment.at)
                    continue
                for valid_at in (now, moment.at):
                    state = self.master.as_of(self.feed, ticker, valid_at, moment.at)
                    assert state.fields == moment.snapshots[ticker]
                    assert state.listed == (ticker in moment.listed)
                then = self.master.as_of(self.feed, ticker, moment.at, now).fields
                if "category" not in moment.snapshots[ticker]:
                    then.pop("category", None)  # what was learnt since has been so since the market was listed
                assert _unsettled(then) == _unsettled(moment.snapshots[ticker])

    @invariant()
    def a_status_is_found_as_it_was(self) -> None:
        for moment in self.moments[-2:]:
            for status in ("active", "finalized"):
                page = self.master.markets_as_of(self.feed, moment.at, moment.at, status)
                expected = sorted(t for t in moment.listed if moment.snapshots[t]["status"] == status)
                assert [state.ticker for state in page] == expected

    @invariant()
    def history_has_one_row_for_each_change_and_its_intervals_do_not_overlap(self) -> None:
        rows = 0
        for ticker in self.model.snapshots:
            history = self.master.history(self.feed, ticker)
            rows += len(history)
            corrections = {(change.field, change.known_to) for change in history}
            assert all(c.old != c.new or (c.field, c.known_from) in corrections for c in history)
            assert all(change.changed_at <= change.known_from for change in history)
            versions: dict[tuple[str, datetime], list[Any]] = {}
            for change in history:
                versions.setdefault((change.field, change.changed_at), []).append(change)
            for same in versions.values():
                for one, two in itertools.pairwise(sorted(same, key=lambda change: change.known_from)):
                    assert one.known_to is not None
                    assert one.known_to <= two.known_from
            chain: dict[str, str | None] = {}
            for change in self.master.history(self.feed, ticker, datetime.now(UTC)):
                assert chain.get(change.field, change.old) == change.old
                chain[change.field] = change.new
        assert rows == self.expected_rows

    @invariant()
    def the_journal_is_told_everything_once(self) -> None:
        rest = [item.id for item in self.master.unpublished(self.feed, 10_000)]
        told = self.published + rest
        assert len(set(told)) == len(told)
        histories = [c.id for t in self.model.snapshots for c in self.master.history(self.feed, t)]
        kinds = Counter(name.partition("-")[0] for name in told)
        assert kinds["market"] == len(self.model.snapshots)
        assert {name for name in told if name.startswith("history")} == {f"history-{number}" for number in histories}


def _unsettled(fields: dict[str, str | None]) -> dict[str, str | None]:
    return {name: value for name, value in fields.items() if name not in SETTLEMENT}


def test_history_answers_as_a_model_that_keeps_every_snapshot(postgres: Server) -> None:
    url = postgres.fresh()
    db.parse(url)

    class OfThisDatabase(Comparison):
        pass

    OfThisDatabase.url = url
    run_state_machine_as_test(
        OfThisDatabase,
        settings=settings(
            phases=[Phase.reuse, Phase.generate],
            max_examples=25,
            stateful_step_count=8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
