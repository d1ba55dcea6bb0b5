"""The security master in PostgreSQL: syncs in one transaction each, and questions about markets in two times."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
import structlog

from ssmd.errors import RefusedError, SsmdError
from ssmd.registry.database import Database, find_feed
from ssmd.registry.interface import ListedEvent, Market, Series
from ssmd.registry.market_changes import JournalItem, mark_items, unpublished_items
from ssmd.registry.market_history import MarketChange, MarketState, changes_of, find_market, state_of, states_of
from ssmd.registry.market_listing import overlooked, unlike_known, unlist_markets
from ssmd.registry.market_merge import Merged, merge_markets, merge_parents, plan_markets
from ssmd.registry.market_syncs import (
    SyncCounts,
    SyncRow,
    Watermarks,
    begin_sync,
    book_of,
    claim_sync,
    claim_writing,
    record_sync,
    remember_volatile,
    watermarks_of,
)
from ssmd.registry.market_values import ACTIVE, storable_markets, stored_ticker
from ssmd.registry.staging import Staging, answer_of
from ssmd.registry.sync_limits import doubts, expected_of, gone_of
from ssmd.registry.values import storable

Kind = Literal["full", "incremental"]
OBSERVED_EVERY = timedelta(hours=1)
"""How often an unchanged market is marked as observed by those who list markets again and again."""

_log = structlog.get_logger()


class SyncResult(msgspec.Struct, frozen=True):
    """What a sync found and did. `at` is when its changes became known; `previous` the last completed full sync.

    `fields` counts rows of history; `duplicates` tickers that came again; `weaker` settled markets whose new answer
    was held against better evidence, with the first tickers; `unlisted` vanished markets; `left_out` what could
    not be stored, with the first 100 tickers; `without_times` what was stored without a time that was told.
    """

    series: int
    events: int
    markets: int
    open_markets: int
    inserted: int
    changed: int
    unchanged: int
    fields: int
    previous: SyncCounts | None
    duplicates: int
    weaker: int
    weaker_tickers: tuple[str, ...]
    unlisted: int
    left_out: int
    left_out_tickers: tuple[str, ...]
    without_times: int
    without_times_tickers: tuple[str, ...]
    at: datetime


class MarketSync:
    """One sync, open while pages come in; nothing is written before `apply`, and all of it at once then."""

    def __init__(
        self,
        master: "SecurityMaster",
        connection: sa.Connection,
        feed: tuple[int, str],
        kind: Kind,
        volatile: frozenset[str],
    ) -> None:
        self._master = master
        self._connection = connection
        self._feed_id, self._feed = feed
        self._kind = kind
        self._volatile = volatile
        self._staging = Staging(connection)
        self.started_at: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()

    def add_series(self, listed: Sequence[Series]) -> None:
        """A page of series."""
        self._staging.add_series(listed)

    def add_events(self, listed: Sequence[ListedEvent]) -> None:
        """A page of events."""
        self._staging.add_events(listed)

    def add_markets(self, listed: Sequence[Market], asked_at: datetime | None = None) -> None:
        """A page of markets; of those with the same ticker the last one holds.

        `asked_at`, by the database's clock, is when the page was asked for or somewhat earlier (None: when the sync
        began): what became known later, and is not older by the exchange's own times, is kept.
        """
        self._staging.add_markets(listed, self._volatile, asked_at or self.started_at)

    def apply(self, *, accept: bool = False, gone: Sequence[str] = ()) -> SyncResult:
        """Write everything, or nothing: RefusedError when a full sync found too little (`sync_limits.doubts`).

        `accept` writes it all the same. `gone` are tickers that the exchange no longer knows: they are unlisted,
        except for those that someone else has observed since the sync began. Call it once; the transaction ends with
        the sync's `with` block.
        """
        connection = self._connection
        at = claim_writing(connection, self._feed_id)
        self._staging.analyze()
        plan_markets(connection, self._feed_id, at)
        counts = dict(
            connection.execute(sa.text(_COUNT), {"active": ACTIVE, "started": self.started_at}).one()._mapping
        )
        duplicates = counts.pop("duplicates")
        expected = expected_of(connection, self._feed_id)
        doubted = doubts(expected, counts, gone_of(connection, self._feed_id, gone)) if self._kind == "full" else []
        if doubted and not accept:
            self._refuse(counts, doubted)
        merge_parents(connection, self._feed_id, at)
        remember_volatile(connection, self._feed_id, self._volatile)
        merged = merge_markets(connection, self._feed_id, self._volatile, at, at)
        unlisted = unlist_markets(connection, self._feed_id, [storable(t) for t in gone], self.started_at, at)
        row = {**self._row(counts), "inserted": merged.inserted, "changed": merged.changed, "accepted": bool(doubted)}
        record_sync(connection, self._feed_id, {**row, "status": "completed"})
        return self._result({**counts, "unlisted": unlisted}, duplicates, merged, expected.previous, at)

    def _row(self, counts: dict[str, Any]) -> dict[str, Any]:
        return {"kind": self._kind, "started_at": self.started_at, **counts}

    def _refuse(self, counts: dict[str, Any], doubted: list[str]) -> None:
        message = f"the full sync of {self._feed} found too little: {'; '.join(doubted)}"
        without_reach = {**self._row(counts), "updated_until": None, "settled_until": None}
        self._master.note(self._feed_id, {**without_reach, "status": "refused", "error": message})
        hint = f"Nothing was changed. If it is right: ssmd market sync --feed {self._feed} --full --accept"
        raise RefusedError(message, hint)

    def _result(
        self, counts: dict[str, Any], duplicates: int, merged: Merged, previous: SyncCounts | None, at: datetime
    ) -> SyncResult:
        left_out, without_times = self._staging.left_out, self._staging.without_times
        return SyncResult(
            series=counts["series"],
            events=counts["events"],
            markets=counts["markets"],
            open_markets=counts["open_markets"],
            inserted=merged.inserted,
            changed=merged.changed,
            unchanged=merged.unchanged,
            fields=merged.fields,
            previous=previous,
            duplicates=duplicates,
            weaker=merged.weaker,
            weaker_tickers=merged.weaker_tickers,
            unlisted=counts["unlisted"],
            left_out=left_out.count,
            left_out_tickers=tuple(left_out.tickers),
            without_times=without_times.count,
            without_times_tickers=tuple(without_times.tickers),
            at=at,
        )


_COUNT = """
SELECT (SELECT count(DISTINCT ticker) FROM staged_series) AS series,
       (SELECT count(DISTINCT ticker) FROM staged_events) AS events,
       count(*) AS markets, count(*) FILTER (WHERE status = :active) AS open_markets,
       (SELECT count(*) FROM staged_markets) - count(*) AS duplicates,
       (SELECT max(source_updated_at) FROM staged_markets WHERE source_updated_at <= :started) AS updated_until,
       (SELECT max(settled_at) FROM staged_markets WHERE settled_at <= :started) AS settled_until
FROM planned
"""


class SecurityMaster:
    """Series, events and markets of all feeds, with their history. Times are aware UTC.

    Every method raises ConfigError for an unknown feed (with near misses) and RegistryUnavailable when the database
    is away.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def sync(self, feed: str, kind: Kind, volatile: frozenset[str] = frozenset()) -> Iterator[MarketSync]:
        """Collect pages, then `apply`: one transaction, from here to the end of the block.

        `volatile` names the fields of the exchange's market objects that are no history. RefusedError when another
        sync of the feed is running. The book has the sync from its beginning on; how it ends is written with its data,
        or, when it is refused or fails, instead of them.
        """
        feed_id, started = 0, None
        try:
            with self._database.transaction(f"sync the markets of feed {feed[:80]!r}") as connection:
                found = find_feed(connection, feed)
                claim_sync(connection, found, feed)
                sync = MarketSync(self, connection, (found, feed), kind, volatile)
                with self._database.transaction("write the beginning of a sync") as other:
                    begin_sync(other, found, kind, sync.started_at)
                feed_id, started = found, sync.started_at
                yield sync
        except GeneratorExit:  # nobody waits for its end
            raise
        except BaseException as error:  # also when it is cancelled or interrupted: the book has every sync
            if started is not None:
                text = error.message if isinstance(error, SsmdError) else f"{type(error).__name__}: {error}"
                text = text if isinstance(error, Exception) else "interrupted before it was done"
                status = "refused" if isinstance(error, RefusedError) else "failed"
                self._note_failure(feed_id, {"started_at": started, "status": status, "error": text})
            raise

    def note(self, feed_id: int, row: dict[str, Any]) -> None:
        """Write how a sync ended that changed nothing, in a transaction of its own; the first end holds."""
        with self._database.transaction("note a sync that changed nothing") as connection:
            record_sync(connection, feed_id, row)

    def _note_failure(self, feed_id: int, row: dict[str, Any]) -> None:
        try:
            self.note(feed_id, row)
        except SsmdError as error:
            _log.warning("failed sync not noted", error=error.message)

    def watermarks(self, feed: str) -> Watermarks:
        """How far completed syncs reach."""
        with self._database.transaction("read how far the syncs reach") as connection:
            return watermarks_of(connection, find_feed(connection, feed))

    def syncs(self, feed: str, limit: int = 20) -> list[SyncRow]:
        """The last syncs, newest first: also those that run, were refused, failed, or were killed ("aborted")."""
        with self._database.transaction("read the syncs") as connection:
            return book_of(connection, find_feed(connection, feed), limit)

    def history(self, feed: str, ticker: str, known_at: datetime | None = None) -> list[MarketChange]:
        """A market's changes in the order they happened, as known at a moment (None: all that was ever recorded)."""
        with self._database.transaction("read the history of a market", snapshot=True) as connection:
            row = find_market(connection, find_feed(connection, feed), feed, ticker)
            return changes_of(connection, row.id, row.ticker, known_at)

    def as_of(self, feed: str, ticker: str, valid_at: datetime, known_at: datetime) -> MarketState:
        """A market as it was at `valid_at`, as known at `known_at`; ConfigError when it was not there or not known."""
        with self._database.transaction("read a market as of a date", snapshot=True) as connection:
            feed_id = find_feed(connection, feed)
            row = find_market(connection, feed_id, feed, ticker)
            return state_of(connection, feed_id, row, valid_at, known_at)

    def markets_as_of(
        self,
        feed: str,
        valid_at: datetime,
        known_at: datetime,
        status: str | None = None,
        limit: int = 1000,
        after: str = "",
        belonging: Mapping[str, str] | None = None,
    ) -> list[MarketState]:
        """The markets that existed and were listed then, sorted by ticker, from the first after `after`.

        `belonging` maps `category`, `series_ticker`, `event_ticker` to what they had to be then.
        """
        wanted = {**({} if status is None else {"status": status}), **(belonging or {})}
        with self._database.transaction("read markets as of a date", snapshot=True) as connection:
            feed_id = find_feed(connection, feed)
            return states_of(connection, feed_id, (valid_at, known_at), wanted, limit, after)

    def unlisted_candidates(self, feed: str, since: datetime, limit: int = 10_000) -> list[str]:
        """Tickers of markets that are not finalized but listed here, and that no sync has seen since a moment."""
        with self._database.transaction("look for markets that vanished") as connection:
            return overlooked(connection, find_feed(connection, feed), since, limit)

    def unlist(self, feed: str, tickers: Sequence[str], since: datetime | None = None) -> int:
        """The exchange no longer lists these; how many were listed here. A sync that sees one again lists it again.

        Markets that were observed at `since` (when the exchange was first asked) or later stay listed.
        """
        wanted = [stored_ticker(ticker) for ticker in tickers]
        with self._database.transaction("mark markets as no longer listed") as connection:
            feed_id = find_feed(connection, feed)
            return unlist_markets(connection, feed_id, wanted, since, claim_writing(connection, feed_id))

    def unpublished(self, feed: str, limit: int = 1000) -> list[JournalItem]:
        """What the journal has not been told, in a stable order: nothing is lost when a sync dies before it tells."""
        with self._database.transaction("read what the journal has not heard", snapshot=True) as connection:
            return unpublished_items(connection, find_feed(connection, feed), limit)

    def mark_published(self, feed: str, last_market_id: int, last_history_id: int) -> None:
        """The journal has acknowledged everything up to these ids (the greatest of each kind; 0: none)."""
        with self._database.transaction("mark what the journal has heard") as connection:
            mark_items(connection, find_feed(connection, feed), last_market_id, last_history_id)


def store_markets(database: Database, feed: str, listed: Sequence[Market], volatile: frozenset[str]) -> int:
    """Insert or update markets outside a sync, history included; how many were new or changed.

    Of several answers about one market the last one holds; one whose ticker cannot be stored is left out.
    The markets count as asked for when this is called.
    """
    answers = {answer.columns.ticker: answer for answer in (answer_of(m, volatile) for m in storable_markets(listed))}
    if not answers:
        return 0
    with database.transaction(f"store markets of feed {feed[:80]!r}") as connection:
        feed_id = find_feed(connection, feed)
        asked_at: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()
        new = unlike_known(connection, feed_id, answers, asked_at - OBSERVED_EVERY)
        if not new:
            return 0
        staging = Staging(connection, ["staged_markets"])
        staging.add_answers(new, asked_at)
        staging.analyze()
        at = claim_writing(connection, feed_id)
        plan_markets(connection, feed_id, at)
        if volatile:
            remember_volatile(connection, feed_id, volatile)
        merged = merge_markets(connection, feed_id, volatile, at, at - OBSERVED_EVERY)
    return merged.inserted + merged.changed
