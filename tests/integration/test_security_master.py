"""The security master on a real PostgreSQL: counts, refusals, settlements, hostile objects, locks, sudden ends."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from ssmd.errors import ConfigError, DataError, RefusedError
from ssmd.feeds.kalshi.market_fields import VOLATILE, to_event, to_market, to_series
from ssmd.registry.database import Database
from ssmd.registry.interface import ListedEvent, Market, RegistryUnavailable, Series
from ssmd.registry.postgres import PostgresRegistry
from ssmd.registry.security_master import SecurityMaster, SyncResult, store_markets
from ssmd.registry.sync_context import SyncContext
from tests.databases import Database as Server

pytestmark = pytest.mark.integration
FEED = "kalshi"


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.fresh()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def master(database: Database) -> SecurityMaster:
    return SecurityMaster(database)


def market(ticker: str, **fields: Any) -> Market:
    """A market as the exchange lists it."""
    raw = {"ticker": ticker, "event_ticker": "KXE-1", "title": "Up?", "status": "active", "result": "", **fields}
    found = to_market(raw)
    assert found is not None
    return found


def series(ticker: str, **fields: Any) -> Series:
    found = to_series({"ticker": ticker, "title": "Every day", "category": "Crypto", **fields})
    assert found is not None
    return found


def event(ticker: str, **fields: Any) -> ListedEvent:
    found = to_event({"event_ticker": ticker, "series_ticker": "KXE", "title": "Today", "category": "Old", **fields})
    assert found is not None
    return found


def full(master: SecurityMaster, markets: list[Market], *, kind: Any = "full", accept: bool = False) -> SyncResult:
    """One sync of these markets."""
    with master.sync(FEED, kind, VOLATILE) as sync:
        sync.add_markets(markets)
        return sync.apply(accept=accept)


def partial(master: SecurityMaster, markets: list[Market]) -> SyncResult:
    """One incremental sync."""
    return full(master, markets, kind="incremental")


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.transaction("look") as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def test_a_sync_says_what_it_found_and_the_book_keeps_it(master: SecurityMaster) -> None:
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_series([series("KXE"), series("KXF")])
        sync.add_events([event("KXE-1")])
        sync.add_markets([market("A"), market("B", status="closed")])
        sync.add_markets([market("A", title="Later"), market("C" * 129)])
        result = sync.apply()
    assert (result.series, result.events, result.markets, result.open_markets) == (2, 1, 2, 1)
    assert (result.inserted, result.changed, result.unchanged, result.fields) == (2, 0, 0, 0)
    assert (result.duplicates, result.left_out, result.left_out_tickers) == (1, 1, ("C" * 80,))
    assert result.previous is None
    assert master.as_of(FEED, "A", result.at, result.at).fields["title"] == "Later"
    again = full(master, [market("A", title="Later"), market("B", status="closed", title="New")], accept=True)
    assert again.previous is not None
    assert (again.previous.series, again.previous.open_markets) == (2, 1)
    assert (again.inserted, again.changed, again.unchanged, again.fields) == (0, 1, 1, 1)
    newest, oldest = master.syncs(FEED)
    assert (oldest.kind, oldest.status, oldest.markets, oldest.inserted, oldest.accepted) == (
        "full",
        "completed",
        2,
        2,
        False,
    )
    assert (newest.changed, newest.accepted) == (1, True)


def test_watermarks_come_from_completed_syncs_and_never_from_the_future(master: SecurityMaster) -> None:
    nothing = master.watermarks(FEED)
    assert (nothing.updated, nothing.settled, nothing.last_full) == (None, None, None)
    updated, settled = ago(hours=2), ago(hours=3)
    future = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    full(
        master,
        [
            market("A", updated_time=updated),
            market("B", updated_time=future, status="finalized", result="yes", settlement_ts=settled),
            market("C", updated_time="0001-01-01T00:00:00Z"),
        ],
    )
    reach = master.watermarks(FEED)
    assert (reach.updated, reach.settled) == (datetime.fromisoformat(updated), datetime.fromisoformat(settled))
    assert reach.last_full == master.syncs(FEED)[0].started_at
    full(master, [], kind="incremental")
    assert master.watermarks(FEED) == reach

    def lost() -> None:
        with master.sync(FEED, "full", VOLATILE) as sync:
            sync.add_markets([market("D", updated_time=ago(minutes=1))])
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        lost()
    assert master.watermarks(FEED) == reach
    assert (master.syncs(FEED)[0].status, master.syncs(FEED)[0].error) == ("failed", "ValueError: lost")


def test_a_change_happened_when_the_exchange_says_if_that_can_be(master: SecurityMaster) -> None:
    first = full(master, [market("A")])
    said = datetime.now(UTC)
    second = full(master, [market("A", title="Two", updated_time=said.isoformat())])
    third = full(master, [market("A", title="Three")])
    fourth = full(master, [market("A", title="Four", updated_time=(said + timedelta(days=1)).isoformat())])
    found = [(c.old, c.new, c.changed_at, c.known_from, c.known_to) for c in master.history(FEED, "A")]
    assert found == [
        ("Up?", "Two", said, second.at, None),
        ("Two", "Three", third.at, third.at, None),
        ("Three", "Four", fourth.at, fourth.at, None),
    ]
    assert master.as_of(FEED, "A", first.at, fourth.at).fields["title"] == "Up?"
    assert master.as_of(FEED, "A", said, fourth.at).fields["title"] == "Two"
    assert master.as_of(FEED, "A", fourth.at, first.at).fields["title"] == "Up?"


def test_trading_is_no_history_and_does_not_rewrite_the_object(master: SecurityMaster, database: Database) -> None:
    full(master, [market("A", last_price_dollars="0.1000")])
    moved = full(master, [market("A", last_price_dollars="0.9000", updated_time=ago(seconds=0))])
    assert (moved.changed, moved.unchanged, moved.fields) == (0, 1, 0)
    assert rows(database, "SELECT raw_metadata ->> 'last_price_dollars' FROM markets") == [("0.1000",)]
    assert rows(database, "SELECT observed_at FROM markets") == [(master.syncs(FEED)[0].started_at,)]
    assert master.history(FEED, "A") == []
    assert "last_price_dollars" not in master.as_of(FEED, "A", moved.at, moved.at).fields


def test_a_settlement_is_recorded_once_and_a_weaker_answer_changes_nothing(master: SecurityMaster) -> None:
    partial(master, [market("A")])
    settled = ago(seconds=0)
    final = {"status": "finalized", "result": "yes", "settlement_value_dollars": "1.0000", "settlement_ts": settled}
    second = partial(master, [market("A", **final)])
    weaker = partial(master, [market("A", status="determined", result="no", settlement_value_dollars="0.0000")])
    empty = partial(master, [market("A", status="closed")])
    assert (second.weaker, weaker.weaker, empty.weaker) == (0, 1, 1)
    fields = master.as_of(FEED, "A", empty.at, empty.at).fields
    assert (fields["result"], fields["settlement_value_dollars"], fields["status"]) == ("yes", "1.0000", "finalized")
    assert [(c.new, c.evidence, c.changed_at) for c in master.history(FEED, "A") if c.field == "result"] == [
        ("yes", "finalized", datetime.fromisoformat(settled))
    ]
    again = partial(master, [market("A", **final)])
    assert (again.weaker, again.fields) == (0, 0)


def test_better_evidence_corrects_a_result_and_the_wrong_one_remains_known_for_its_time(
    master: SecurityMaster, database: Database
) -> None:
    first = partial(master, [market("A")])
    wrong = partial(master, [market("A", status="determined", result="no", settlement_value_dollars="0.0000")])
    right = partial(master, [market("A", status="finalized", result="yes", settlement_value_dollars="1.0000")])
    now = datetime.now(UTC)
    assert rows(database, "SELECT result, settlement_value, result_evidence, settlement_kept FROM markets") == [
        ("yes", "1.0000", "finalized", None)
    ]
    found = [c for c in master.history(FEED, "A") if c.field == "result"]
    assert [(c.old, c.new, c.evidence, c.known_from, c.known_to) for c in found] == [
        ("", "no", "determined", wrong.at, right.at),
        ("", "yes", "finalized", right.at, None),
    ]
    assert found[0].changed_at == found[1].changed_at

    def result(valid_at: datetime, known_at: datetime) -> str | None:
        return master.as_of(FEED, "A", valid_at, known_at).fields.get("result")

    assert (result(now, first.at), result(now, wrong.at), result(now, right.at)) == ("", "no", "yes")
    assert result(wrong.at, now) == "yes"  # as we know today, it was yes from the first determination on
    assert result(first.at, now) == ""
    assert [c.new for c in master.history(FEED, "A", wrong.at) if c.field == "result"] == ["no"]
    told = [(item.old, item.new) for item in master.unpublished(FEED) if item.field == "result"]
    assert told == [("", "no"), ("no", "yes")]


def test_category_and_series_stay_when_an_answer_does_not_tell_them(master: SecurityMaster) -> None:
    full(master, [market("A", category="Crypto", series_ticker="KXE")])
    untold = full(master, [market("A")])
    fields = master.as_of(FEED, "A", untold.at, untold.at).fields
    assert (fields["category"], fields["series_ticker"]) == ("Crypto", "KXE")
    assert master.history(FEED, "A") == []
    told = full(master, [market("A", category="Politics")])
    assert [(c.field, c.old, c.new) for c in master.history(FEED, "A")] == [("category", "Crypto", "Politics")]
    assert told.changed == 1


def test_a_collapsed_listing_is_refused_with_both_counts_and_leaves_one_refused_row(
    master: SecurityMaster, database: Database
) -> None:
    full(master, [market(f"K{n}") for n in range(10)])
    before = rows(database, "SELECT ticker, status, observed_at, updated_at FROM markets ORDER BY 1")
    few = [market(f"K{n}", status="closed" if n > 3 else "active") for n in range(10)] + [
        market("NEW", status="closed")
    ]
    with pytest.raises(RefusedError, match="4 open markets, the last accepted one 10") as refused:
        full(master, few)
    assert "--accept" in refused.value.hint
    assert rows(database, "SELECT ticker, status, observed_at, updated_at FROM markets ORDER BY 1") == before
    assert rows(database, "SELECT count(*) FROM market_history") == [(0,)]
    assert (master.syncs(FEED)[0].status, master.syncs(FEED)[0].open_markets) == ("refused", 4)
    with pytest.raises(RefusedError):  # a refused sync is no measure for the next one
        full(master, few)
    assert full(master, few, kind="incremental").changed == 6  # an incremental sync lists what it likes
    accepted = full(master, few, accept=True)
    assert accepted.open_markets == 4
    assert full(master, few).unchanged == 11


def test_vanished_series_refuse_a_sync_and_half_is_enough(master: SecurityMaster, database: Database) -> None:
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_series([series("KXA"), series("KXB")])
        sync.add_events([event("KXE-1")])
        sync.add_markets([market("A"), market("B")])
        sync.apply()
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_series([series("KXA", title="Another", category="Politics")])
        sync.add_events([event("KXE-1", series_ticker="KXA")])
        sync.add_markets([market("A")])
        sync.apply()
    with pytest.raises(RefusedError, match=r"0 series, the last accepted one 1; 0 events"):
        full(master, [market("A")])
    assert SyncContext(database).families(FEED, ["KXE-1", "KXE-2"]) == {"KXE-1": ("KXA", "Politics")}


def test_hostile_objects_are_stored_and_found_again(master: SecurityMaster, database: Database) -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    hostile = market(
        "KX\t'; DROP TABLE markets; --\\N",
        title="\x1b[2J\x00" + "t" * 10_000,
        **{"nul\x00\nkey": "a\x00\\b\tc\r\n", "lone": "\ud800", "huge": 2**70, "vast": 10**5_000, "nan": float("nan")},
        deep=deep,
        long="\\" * 10_000,
        **{"k" * 65: "not followed", "k" * 64: "followed"},
    )
    assert full(master, [hostile]).inserted == 1
    assert full(master, [hostile]).unchanged == 1
    ((title, raw),) = rows(database, "SELECT title, raw_metadata FROM markets")
    assert title == "\ufffd[2J\ufffd" + "t" * 10_000
    assert raw["nul\ufffd\nkey"] == "a\ufffd\\b\tc\r\n"
    assert (raw["lone"], raw["huge"], raw["nan"], raw["long"]) == ("\ufffd", 2**70, None, "\\" * 10_000)
    assert raw["k" * 65] == "not followed"
    state = master.as_of(FEED, hostile.ticker, datetime.now(UTC), datetime.now(UTC))
    assert (state.ticker, state.fields["huge"], state.fields["k" * 64]) == (hostile.ticker, str(2**70), "followed")
    changed = market(hostile.ticker, title="\x00", **{"nul\x00\nkey": "b"})
    assert full(master, [changed]).changed == 1
    assert ("nul\ufffd\nkey", "b") in [(c.field, c.new) for c in master.history(FEED, hostile.ticker)]
    with pytest.raises(DataError, match="longer than 128"):
        master.unlist(FEED, ["x" * 129])


def test_two_syncs_of_one_feed_keep_apart_and_other_writers_are_let_through(
    master: SecurityMaster, url: str, database: Database
) -> None:
    registry = PostgresRegistry(url)
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A")])
        with pytest.raises(RefusedError, match=r"another sync of the markets of kalshi is running since 20\d\d-"):
            full(master, [market("B")])
        assert registry.upsert_markets(FEED, [market("C")], VOLATILE) == 1
        sync.apply()
        assert registry.market(FEED, "A") is None  # readers see the state before, and do not wait
        registry.record_heard(FEED, ["C"], datetime.now(UTC))
        waiting = threading.Thread(target=registry.upsert_markets, args=(FEED, [market("A", title="After")], VOLATILE))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(30)
    assert [(c.field, c.new) for c in master.history(FEED, "A")] == [("title", "After")]
    assert [row.status for row in master.syncs(FEED)] == ["completed"]
    assert full(master, [market("B")], accept=True).inserted == 1
    registry.close()


_DIES = """
import os, signal, sys
from ssmd.registry.database import Database
from ssmd.registry.interface import Market
from ssmd.registry.security_master import SecurityMaster
with SecurityMaster(Database(sys.argv[1])).sync("kalshi", "full") as sync:
    sync.add_markets([Market(f"K{n}", "E", "", "active", None, None, "", {}) for n in range(2000)])
    if sys.argv[2] == "applied":
        sync.apply()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["collecting", "applied"])
def test_a_sync_that_is_killed_leaves_nothing(master: SecurityMaster, url: str, database: Database, when: str) -> None:
    died = subprocess.run([sys.executable, "-c", _DIES, url, when], capture_output=True, timeout=60, check=False)
    assert died.returncode == -9, died.stderr
    assert rows(database, "SELECT count(*) FROM markets") == [(0,)]
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while rows(database, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"):
        assert datetime.now(UTC) < deadline
    assert rows(database, "SELECT status, completed_at FROM market_syncs") == [("running", None)]
    (dead,) = master.syncs(FEED)
    assert (dead.status, dead.completed_at) == ("aborted", None)
    assert "killed" in (dead.error or "")
    assert master.watermarks(FEED).last_full is None
    assert full(master, [market("A")]).inserted == 1
    assert [(row.status, row.error) for row in master.syncs(FEED)] == [("completed", None), ("aborted", dead.error)]
    assert rows(database, "SELECT status FROM market_syncs ORDER BY id") == [("aborted",), ("completed",)]


def test_a_sync_stands_in_the_book_while_it_runs(master: SecurityMaster, database: Database) -> None:
    with master.sync(FEED, "full", VOLATILE) as sync:
        assert [(row.kind, row.status, row.completed_at) for row in master.syncs(FEED)] == [("full", "running", None)]
        sync.add_markets([market("A")])
        sync.apply()
        assert [row.status for row in master.syncs(FEED)] == ["running"]
    (done,) = master.syncs(FEED)
    assert (done.status, done.markets, done.started_at) == ("completed", 1, sync.started_at)
    assert done.completed_at is not None
    with pytest.raises(RefusedError, match="not today"), master.sync(FEED, "full", VOLATILE):
        raise RefusedError("not today")
    assert [(row.status, row.error) for row in master.syncs(FEED)] == [("refused", "not today"), ("completed", None)]


def test_a_lost_connection_is_an_unavailable_registry_and_leaves_nothing(
    master: SecurityMaster, database: Database
) -> None:
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL AND datname = current_database()"
    )

    def cut() -> None:
        with master.sync(FEED, "full", VOLATILE) as sync:
            sync.add_markets([market("A")])
            rows(database, end)
            sync.add_markets([market("B")])
            sync.apply()

    with pytest.raises(RegistryUnavailable):
        cut()
    assert rows(database, "SELECT count(*) FROM markets") == [(0,)]
    assert [row.status for row in master.syncs(FEED)] == ["failed"]


def test_the_journal_hears_of_listings_and_changes_in_order_until_it_says_so(master: SecurityMaster, url: str) -> None:
    full(master, [market("B"), market("A")])
    full(master, [market("A", status="closed", title="Two"), market("B")])
    registry = PostgresRegistry(url)
    registry.upsert_markets(FEED, [market("C")], VOLATILE)
    registry.close()
    items = master.unpublished(FEED)
    told = [(item.kind, item.ticker, item.field, item.old, item.new) for item in items]
    assert told == [
        ("listed", "A", "status", None, "active"),
        ("listed", "B", "status", None, "active"),
        ("changed", "A", "status", "active", "closed"),
        ("changed", "A", "title", "Up?", "Two"),
        ("listed", "C", "status", None, "active"),
    ]
    assert master.unpublished(FEED, 3) == items[:3]
    master.mark_published(FEED, items[1].market_id, items[2].history_id)
    assert master.unpublished(FEED) == items[3:]
    master.mark_published(FEED, 0, 0)
    assert master.unpublished(FEED) == items[3:]
    master.mark_published(FEED, items[4].market_id, items[3].history_id)
    assert master.unpublished(FEED) == []


def test_a_vanished_market_is_found_unlisted_and_listed_again(master: SecurityMaster) -> None:
    first = full(master, [market("A"), market("B"), market("C", status="finalized")])
    full(master, [market("A")])
    began = master.syncs(FEED)[0].started_at
    assert master.unlisted_candidates(FEED, began) == ["B"]
    assert master.unlist(FEED, ["B", "NONE"]) == 1
    assert master.unlisted_candidates(FEED, began) == []
    gone_at = datetime.now(UTC)
    assert [s.ticker for s in master.markets_as_of(FEED, gone_at, gone_at)] == ["A", "C"]
    back = full(master, [market("A"), market("B")])
    assert (back.unchanged, back.fields) == (2, 1)
    assert [(c.field, c.old, c.new) for c in master.history(FEED, "B")] == [
        ("listed", "true", "false"),
        ("listed", "false", "true"),
    ]
    assert [s.ticker for s in master.markets_as_of(FEED, back.at, back.at)] == ["A", "B", "C"]
    assert [s.ticker for s in master.markets_as_of(FEED, back.at, gone_at)] == ["A", "C"]
    assert master.as_of(FEED, "B", first.at, first.at).listed
    assert [s.ticker for s in master.markets_as_of(FEED, back.at, back.at, "active", 1, "A")] == ["B"]


def test_what_was_not_known_yet_is_an_error_that_says_since_when(master: SecurityMaster) -> None:
    before = datetime.now(UTC)
    at = full(master, [market("A", created_time="2026-09-24T20:01:37.131172Z")]).at
    with pytest.raises(ConfigError, match="was not known") as unknown:
        master.as_of(FEED, "A", at, before)
    assert at.isoformat().replace("+00:00", "Z") in unknown.value.hint
    assert master.markets_as_of(FEED, at, before) == []
    state = master.as_of(FEED, "A", before, at)
    assert (state.known_from, state.listed_at) == (at, datetime(2026, 9, 24, 20, 1, 37, 131172, UTC))
    with pytest.raises(ConfigError, match="knows no market"):
        master.history(FEED, "A\x00" + "x" * 10_000)
    with pytest.raises(ConfigError, match="Did you mean 'kalshi'"):
        master.watermarks("kalhsi")
    with pytest.raises(ConfigError, match="no feed"), master.sync("x" * 10_000, "full"):
        pass


def test_fields_that_become_volatile_leave_history_without_a_row(master: SecurityMaster) -> None:
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A", mood="good"), market("B", mood="good")])
        sync.apply()
    with master.sync(FEED, "full", VOLATILE | {"mood"}) as sync:
        sync.add_markets([market("A", mood="bad"), market("B", mood="good")])
        result = sync.apply()
    assert result.fields == 0
    assert "mood" not in master.as_of(FEED, "A", result.at, result.at).fields


def test_a_market_that_is_heard_all_the_time_is_written_once_a_minute(url: str, database: Database) -> None:
    registry = PostgresRegistry(url)
    registry.upsert_markets(FEED, [market("A"), market("B")], VOLATILE)
    start = datetime(2026, 11, 22, 12, tzinfo=UTC)
    heard = "SELECT first_heard_at, last_heard_at FROM market_coverage"

    def after(seconds: int) -> list[Any]:
        registry.record_heard(FEED, ["A"], start + timedelta(seconds=seconds))
        return [((first - start).seconds, (last - start).seconds) for first, last in rows(database, heard)]

    assert after(0) == [(0, 0)]
    versions = rows(database, "SELECT xmin FROM market_coverage")
    assert after(59) == [(0, 0)]
    assert rows(database, "SELECT xmin FROM market_coverage") == versions  # not even touched
    assert after(60) == [(0, 60)]
    assert after(30) == [(0, 60)]
    registry.close()


NEWER: list[dict[str, Any]] = [{"updated_time": 1}, {"updated_time": 0}, {}]
"""What the later of two answers says of its time, in seconds after the earlier one: later, as late, nothing."""


@pytest.mark.parametrize("told", NEWER)
def test_a_page_that_is_applied_late_does_not_undo_what_was_learnt_since_it_was_asked(
    master: SecurityMaster, database: Database, told: dict[str, int]
) -> None:
    start = datetime.now(UTC) - timedelta(minutes=5)

    def at(seconds: int) -> dict[str, str]:
        return {"updated_time": (start + timedelta(seconds=seconds)).isoformat()} if told else {}

    full(master, [market("A", **at(0)), market("B", **at(0))])
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A", **at(0)), market("B", title="Two", **at(0))])
        newer = market("A", status="closed", title="New", **at(told.get("updated_time", 0)))
        assert store_markets(database, FEED, [newer], VOLATILE) == 1
        result = sync.apply()
    assert (result.changed, result.unchanged, result.fields) == (1, 1, 1)  # B, of which nobody knew more
    assert [(c.field, c.new) for c in master.history(FEED, "A")] == [("status", "closed"), ("title", "New")]
    assert rows(database, "SELECT status, title FROM markets WHERE ticker = 'A'") == [("closed", "New")]
    assert [i.field for i in master.unpublished(FEED) if i.kind == "changed" and i.ticker == "A"] == ["status", "title"]


def test_an_answer_with_an_older_time_changes_nothing_however_late_it_was_asked(
    master: SecurityMaster, database: Database
) -> None:
    full(master, [market("A", updated_time=ago(minutes=2))])
    before = rows(database, "SELECT observed_at, source_updated_at FROM markets")
    older = [market("A", title="Old", updated_time=ago(minutes=3))]
    assert full(master, older).unchanged == 1
    assert store_markets(database, FEED, older, VOLATILE) == 0
    assert rows(database, "SELECT observed_at, source_updated_at FROM markets") == before
    assert master.history(FEED, "A") == []
    ahead = datetime.now(UTC) + timedelta(days=1)
    assert full(master, [market("A", title="Ahead", updated_time=ahead.isoformat())]).changed == 1
    assert full(master, [market("A", title="Back", updated_time=ago(minutes=1))]).changed == 1  # a time to come is none


def test_a_page_that_is_applied_late_settles_a_market_on_better_evidence(
    master: SecurityMaster, database: Database
) -> None:
    full(master, [market("A")])
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A", status="finalized", result="yes")])
        store_markets(database, FEED, [market("A", status="determined", result="no")], VOLATILE)
        sync.apply(accept=True)
    assert rows(database, "SELECT status, result, result_evidence FROM markets") == [("finalized", "yes", "finalized")]


def test_a_page_counts_as_asked_when_it_says_so(master: SecurityMaster, database: Database) -> None:
    full(master, [market("A")])
    with master.sync(FEED, "full", VOLATILE) as sync:
        store_markets(database, FEED, [market("A", title="Two")], VOLATILE)
        sync.add_markets([market("A", title="Three")], datetime.now(UTC) + timedelta(minutes=1))
        result = sync.apply()
    assert result.changed == 1
    assert rows(database, "SELECT title FROM markets") == [("Three",)]
    ((observed_at,),) = rows(database, "SELECT observed_at FROM markets")
    assert observed_at == result.at  # never in the future


def test_what_changed_while_a_sync_was_reading_changed_when_the_exchange_says(master: SecurityMaster) -> None:
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A"), market("B")])
        said = datetime.now(UTC)
        first = sync.apply()
    later = [market("A", status="closed", updated_time=said.isoformat())]
    assert partial(master, later).changed == 1
    (change,) = master.history(FEED, "A")
    assert change.changed_at == said
    assert master.as_of(FEED, "A", first.at, datetime.now(UTC)).fields["status"] == "closed"


def test_a_field_never_changes_before_its_last_change(master: SecurityMaster) -> None:
    full(master, [market("A")])
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A", title="Two")])
        said = datetime.now(UTC)
        second = sync.apply()  # without a time of its own: it changed now
    full(master, [market("A", title="Three", updated_time=said.isoformat())])
    assert [(c.new, c.changed_at) for c in master.history(FEED, "A")] == [("Two", second.at), ("Three", second.at)]
    assert master.as_of(FEED, "A", second.at, datetime.now(UTC)).fields["title"] == "Three"


def test_a_settlement_ahead_of_the_clock_is_known_now_and_moves_no_watermark(
    master: SecurityMaster, database: Database
) -> None:
    full(master, [market("A")])
    future = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    settled = partial(master, [market("A", status="finalized", result="yes", settlement_ts=future)])
    assert {c.changed_at for c in master.history(FEED, "A")} == {settled.at}
    assert master.watermarks(FEED).settled is None
    assert rows(database, "SELECT DISTINCT settled_until FROM market_syncs") == [(None,)]  # nor does it when it comes


def put_clock_back(database: Database) -> None:
    """As if all that is known had been learnt while the clock was an hour ahead."""
    with database.transaction("change times") as connection:
        for statement in (
            "UPDATE markets SET known_from = known_from + interval '1h', observed_at = observed_at + interval '1h'",
            "UPDATE market_history SET known_from = known_from + '1h', changed_at = changed_at + '1h'",
        ):
            connection.execute(sa.text(statement))


def test_after_the_clock_was_put_back_nothing_ends_before_it_began(master: SecurityMaster, database: Database) -> None:
    full(master, [market("A"), market("B")])
    partial(master, [market("A", status="determined", result="no")])
    put_clock_back(database)
    ((observed_at,),) = rows(database, "SELECT observed_at FROM markets WHERE ticker = 'A'")
    partial(master, [market("A", status="finalized", result="yes", title="Two")])
    changes = {c.field: c.changed_at for c in master.history(FEED, "A")}
    assert changes["title"] == observed_at
    wrong, right = [c for c in master.history(FEED, "A") if c.field == "result"]
    assert (wrong.known_to, right.known_to, right.new) == (wrong.known_from, None, "yes")
    assert master.unlist(FEED, ["B"]) == 1
    assert rows(database, "SELECT known_to = known_from FROM markets WHERE ticker = 'B'") == [(True,)]
    ((soon,),) = rows(database, "SELECT max(observed_at) < now() FROM markets WHERE ticker = 'A'")
    assert soon


def test_a_ticker_with_line_breaks_is_stored_as_it_is(master: SecurityMaster, database: Database) -> None:
    odd = ["A\rB", "A\r\nB", "A\nB", "A\\rB"]
    assert full(master, [market(ticker) for ticker in odd]).inserted == 4
    assert rows(database, "SELECT ticker FROM markets ORDER BY id") == [(ticker,) for ticker in sorted(odd)]


def test_an_answer_is_of_one_state_whatever_is_committed_meanwhile(url: str, master: SecurityMaster) -> None:
    then = full(master, [market("A")]).at
    reading = Database(url)
    committed: list[str] = []

    def commit_between(*arguments: Any) -> None:
        statement = arguments[2]
        for table in ("FROM market_history", "FROM markets m WHERE m.feed_id"):
            if table in statement and table not in committed:
                committed.append(table)
                full(master, [market("A", title=f"Title {len(committed)}"), market(f"K{len(committed)}")])

    sa.event.listen(reading._engine, "after_cursor_execute", commit_between)
    other = SecurityMaster(reading)
    assert other.as_of(FEED, "A", then, then).fields["title"] == "Up?"
    assert committed == ["FROM market_history"]
    told = [(item.kind, item.ticker) for item in other.unpublished(FEED)]
    assert told == [("listed", "A"), ("listed", "K1"), ("changed", "A")]
    assert len(committed) == 2
    reading.close()


def test_a_market_is_not_there_before_the_exchange_listed_it(master: SecurityMaster) -> None:
    created, opened = "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    at = full(
        master,
        [
            market("CREATED", created_time=created, open_time=opened),
            market("OPENED", created_time="0001-01-01T00:00:00Z", open_time=opened),
            market("SOON", open_time=future),
            market("UNTOLD"),
        ],
    ).at
    now = datetime.now(UTC)

    def there(text: str | None) -> list[str]:
        valid_at = datetime.fromisoformat(text) if text else now
        return [state.ticker for state in master.markets_as_of(FEED, valid_at, now)]

    assert there("2026-11-19T23:59:59Z") == []
    assert there(created) == ["CREATED"]
    assert there(opened) == ["CREATED", "OPENED"]
    assert there(None) == ["CREATED", "OPENED", "SOON", "UNTOLD"]
    assert master.as_of(FEED, "SOON", at, now).listed_at == at  # it was seen then
    with pytest.raises(ConfigError, match="did not exist at 2026-11-19") as missing:
        master.as_of(FEED, "CREATED", datetime.fromisoformat("2026-11-19T00:00:00Z"), now)
    assert created in missing.value.hint


def test_markets_are_found_by_what_they_belonged_to(master: SecurityMaster) -> None:
    first = full(
        master, [market("A", category="Crypto"), market("B"), market("C", category="Sports", series_ticker="S")]
    )
    second = full(master, [market("A", category="Politics"), market("B", category="Crypto"), market("C")])
    now = datetime.now(UTC)

    def of(valid_at: datetime, known_at: datetime, **belonging: str) -> list[str]:
        return [state.ticker for state in master.markets_as_of(FEED, valid_at, known_at, belonging=belonging)]

    assert of(first.at, first.at, category="Crypto") == ["A"]  # nobody said of B yet what it is
    assert of(first.at, now, category="Crypto") == ["A", "B"]  # now we know what it was then
    assert of(first.at, first.at, category="Crypto") == ["A"]
    assert of(second.at, now, category="Crypto") == ["B"]
    assert of(now, now, category="Politics", series_ticker="") == ["A"]
    assert of(now, now, category="Sports", series_ticker="S", event_ticker="KXE-1") == ["C"]
    assert of(now, now, category="Sports", event_ticker="KXE-2") == []
    with pytest.raises(ValueError, match="no such fields"):
        of(now, now, raw_metadata="x")


def test_markets_that_are_as_known_cost_a_look_and_nothing_else(url: str, master: SecurityMaster) -> None:
    database = Database(url)
    statements: list[str] = []
    listed = [market(f"K{n}", category="Crypto", updated_time=ago(minutes=1)) for n in range(50)]
    assert store_markets(database, FEED, listed, VOLATILE) == 50
    sa.event.listen(database._engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    untold = msgspec.structs.replace(listed[48], category="", updated_time=None)
    again = [*listed[:48], market("K49", title="Two"), untold, listed[49]]  # the last answer of each holds
    assert store_markets(database, FEED, again, VOLATILE) == 0
    assert not [text for text in statements if not text.startswith("SELECT")]
    for changed in (
        {"title": "Two"}, {"category": "Politics"}, {"series_ticker": "KX"}, {"updated_time": ago(seconds=1)},
    ):  # fmt: skip
        statements.clear()
        store_markets(database, FEED, [*listed[1:], market("K0", **changed)], VOLATILE)
        assert [text for text in statements if "INSERT INTO markets" in text], changed
    assert rows(database, "SELECT title, category, series_ticker FROM markets WHERE ticker = 'K0'") == [
        ("Up?", "Politics", "KX")
    ]
    rows_before = "UPDATE markets SET observed_at = observed_at - interval '2h'"
    with database.transaction("let time pass") as connection:
        connection.execute(sa.text(rows_before))
    assert store_markets(database, FEED, listed[1:], VOLATILE) == 0
    assert rows(database, "SELECT count(*) FROM markets WHERE observed_at < now() - interval '1h'") == [(1,)]
    assert master.unlist(FEED, ["K5"]) == 1
    assert store_markets(database, FEED, listed[5:6], VOLATILE) == 0
    assert rows(database, "SELECT known_to FROM markets WHERE ticker = 'K5'") == [(None,)]
    database.close()


def test_a_market_that_someone_saw_since_the_sync_began_does_not_vanish(
    master: SecurityMaster, database: Database
) -> None:
    full(master, [market("A"), market("B"), market("C")])
    with master.sync(FEED, "full", VOLATILE) as sync:
        sync.add_markets([market("A")])
        store_markets(database, FEED, [market("B", title="Alive")], VOLATILE)
        result = sync.apply(accept=True, gone=["A", "B", "C", "NONE", "nul\x00"])
        began = sync.started_at
    assert result.unlisted == 1
    assert rows(database, "SELECT ticker, known_to FROM markets WHERE known_to IS NOT NULL") == [("C", result.at)]
    store_markets(database, FEED, [market("B", title="Still alive")], VOLATILE)
    assert master.unlist(FEED, ["A", "B"], since=began) == 0
    assert master.unlist(FEED, ["A", "B"]) == 2


def test_a_sync_that_fails_after_its_end_unlists_nothing(master: SecurityMaster, database: Database) -> None:
    full(master, [market("A"), market("B")])

    def lost() -> None:
        with master.sync(FEED, "full", VOLATILE) as sync:
            sync.add_markets([market("A")])
            assert sync.apply(gone=["B"]).unlisted == 1
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        lost()
    assert rows(database, "SELECT count(*) FROM markets WHERE known_to IS NOT NULL") == [(0,)]


def test_a_date_before_a_market_was_known_shows_nothing_that_came_later(master: SecurityMaster) -> None:
    times = {name: ago(minutes=m) for name, m in (("created", 90), ("open", 60), ("close", 30), ("settled", 20))}
    raw = {
        "created_time": times["created"], "open_time": times["open"], "close_time": times["close"],
        "settlement_ts": times["settled"], "status": "finalized", "result": "yes", "expiration_value": "83950.62",
    }  # fmt: skip
    now = partial(master, [market("A", **raw)]).at

    def on(minutes: int) -> tuple[str | None, str | None, tuple[str, ...]]:
        at = datetime.fromisoformat(ago(minutes=minutes))
        state = master.as_of(FEED, "A", at, now)
        assert [s.ticker for s in master.markets_as_of(FEED, at, now, state.fields["status"])] == ["A"]
        return state.fields["status"], state.fields.get("result"), state.inferred

    facts = ("result", "settlement_ts", "expiration_value", "status")
    assert on(75) == ("initialized", None, facts)
    assert on(45) == ("active", None, facts)
    assert on(25) == ("closed", None, facts)
    assert on(10) == ("finalized", "yes", ())


def test_status_and_result_of_a_settlement_are_of_one_time(master: SecurityMaster) -> None:
    partial(master, [market("A")])
    settled = ago(seconds=0)
    partial(master, [market("A", status="finalized", result="yes", settlement_ts=settled)])
    changed = {c.field: c.changed_at for c in master.history(FEED, "A")}
    assert changed["status"] == changed["result"] == datetime.fromisoformat(settled)
