"""The registry in memory: for tests and for an environment without a database; everything ends with the process."""

import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog

from ssmd.errors import ConfigError
from ssmd.market.events import Gap
from ssmd.registry.bootstrap import KNOWN_FEEDS, KnownFeed, unknown_feed, version_on
from ssmd.registry.interface import (
    STRIKE_FIELDS,
    FeedVersion,
    HeardMarket,
    InventoryRow,
    Issue,
    Market,
    MarketFilter,
    MarketWords,
    ObjectRecord,
)
from ssmd.registry.market_filter import matches
from ssmd.registry.market_values import (
    ACTIVE,
    SETTLEMENT_FIELDS,
    evidence_of,
    fingerprint,
    storable_markets,
    stored_market,
    stored_ticker,
    updated_market,
)
from ssmd.registry.values import (
    BATCHES_KEPT,
    DATA_TYPES,
    STATUSES,
    batch_id,
    choice,
    day_bounds,
    gap_identity,
    issue_identity,
    issue_order,
    issues_of,
    merged_gap,
    merged_issue,
    moment,
    score_value,
    storable,
    storage_path,
    stored_gap,
    stored_issue,
    symbol_count,
    touches,
    written,
)

_DayKey = tuple[date, str, str | None]

_log = structlog.get_logger()


class _Known(NamedTuple):
    """A market, the fingerprint of the last answer about it, and how good the evidence for its result is."""

    market: Market
    fingerprint: str
    evidence: str | None


class _Feed:
    """Everything about one feed."""

    def __init__(self, known: KnownFeed) -> None:
        self.known = known
        self.objects: dict[tuple[str, str], ObjectRecord] = {}
        self.days: dict[_DayKey, InventoryRow] = {}
        self.gaps: dict[tuple[object, ...], Gap] = {}
        self.issues: dict[tuple[object, ...], Issue] = {}
        self.markets: dict[str, _Known] = {}
        self.known_from: dict[str, datetime] = {}
        self.first_heard: dict[str, datetime] = {}
        self.heard: dict[str, datetime] = {}


class MemoryRegistry:
    """A Registry without a database; safe to use from several threads."""

    def __init__(self, feeds: Sequence[KnownFeed] = KNOWN_FEEDS) -> None:
        self._lock = threading.Lock()
        self._feeds = {feed.name: _Feed(feed) for feed in feeds}
        self._batches: dict[UUID, datetime] = {}

    def feed_version(self, feed: str, on: date) -> FeedVersion:
        """See `Registry.feed_version`."""
        known = self._feed(feed).known
        return version_on(
            feed,
            on,
            [(v.effective_from, v.effective_to, FeedVersion(feed, v.version, v.ws, v.rest)) for v in known.versions],
        )

    def record_objects(self, feed: str, objects: Sequence[ObjectRecord]) -> None:
        """See `Registry.record_objects`."""
        self.replace_objects(feed, (), objects)

    def replace_objects(self, feed: str, remove_keys: Sequence[tuple[str, str]], add: Sequence[ObjectRecord]) -> None:
        """See `Registry.replace_objects`."""
        with self._lock:
            state = self._feed(feed)
            for record in add:
                choice("data type", record.data_type, DATA_TYPES)
            changed: dict[_DayKey, str] = {}
            for key in remove_keys:
                if gone := state.objects.pop(key, None):
                    changed[_day_key(gone)] = storage_path(feed, gone)
            for record in add:
                known = state.objects.setdefault((record.bucket, record.key), record)
                if known is record:
                    changed[_day_key(record)] = storage_path(feed, record)
                elif known.sha256 != record.sha256:
                    _log.warning("object conflict", key=record.key, known=known.sha256, ignored=record.sha256)
            for day_key, path in changed.items():
                self._recount(feed, state, day_key, path)

    def _recount(self, feed: str, state: _Feed, key: _DayKey, path: str) -> None:
        """Make the day's row from its objects; a change makes the day unfinished again."""
        day, data_type, schema_version = key
        objects = [record for record in state.objects.values() if _day_key(record) == key]
        state.days[key] = InventoryRow(
            feed=feed,
            data_type=data_type,
            day=day,
            storage_path=path,
            schema_version=schema_version,
            symbol_count=symbol_count(objects),
            record_count=sum(record.records for record in objects),
            byte_size=sum(record.bytes for record in objects),
            first_ns=min((record.first_ns for record in objects), default=0),
            last_ns=max((record.last_ns for record in objects), default=0),
            status="processing",
            gap_count=0,
        )

    def record_gaps(self, gaps: Sequence[Gap]) -> None:
        """See `Registry.record_gaps`."""
        with self._lock:
            for gap in [stored_gap(gap) for gap in gaps]:
                known = self._feed(gap.feed).gaps
                identity = gap_identity(gap)
                if identity not in known:
                    self._unsettle(gap)
                known[identity] = merged_gap(known[identity], gap) if identity in known else gap

    def _unsettle(self, gap: Gap) -> None:
        """A gap is new: what was said of the days that it touches is void."""
        days = self._feed(gap.feed).days
        for key, row in days.items():
            if touches(gap, *day_bounds(key[0])):
                status = "partial" if row.status == "complete" else row.status
                days[key] = msgspec.structs.replace(row, status=status, quality_score=None)

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        """See `Registry.record_issues`."""
        stored, named = [stored_issue(issue) for issue in issues], batch_id(batch)
        with self._lock:
            feeds = {issue.feed: self._feed(issue.feed) for issue in stored}
            if named is not None and not self._is_new(named):
                return
            for issue in stored:
                known = feeds[issue.feed].issues
                before = known.get(issue_identity(issue))
                known[issue_identity(issue)] = merged_issue(before, issue) if before else issue

    def replace_issues(self, feed: str, day: date, data_type: str, issues: Sequence[Issue]) -> None:
        """See `Registry.replace_issues`."""
        stored = [stored_issue(issue) for issue in issues_of(issues, feed, day, data_type)]
        with self._lock:
            known = self._feed(feed).issues
            for identity in [key for key, its in known.items() if (its.day, its.data_type) == (day, data_type)]:
                del known[identity]
            known.update((issue_identity(issue), issue) for issue in stored)

    def _is_new(self, batch: UUID) -> bool:
        """Take note of a batch; was it unknown? Old ones are forgotten."""
        now = datetime.now(UTC)
        self._batches = {known: at for known, at in self._batches.items() if at > now - BATCHES_KEPT}
        return self._batches.setdefault(batch, now) is now

    def objects(self, feed: str, day: date, data_type: str | None = None) -> list[ObjectRecord]:
        """See `Registry.objects`."""
        with self._lock:
            found = [
                record
                for record in self._feed(feed).objects.values()
                if record.day == day and data_type in (None, record.data_type)
            ]
        return sorted(found, key=lambda record: (record.bucket, record.key))

    def inventory(self, feed: str, first: date, last: date) -> list[InventoryRow]:
        """See `Registry.inventory`."""
        with self._lock:
            state = self._feed(feed)
            rows = [
                msgspec.structs.replace(
                    row, gap_count=sum(touches(gap, *day_bounds(day)) for gap in state.gaps.values())
                )
                for (day, _, _), row in state.days.items()
                if first <= day <= last
            ]
        return sorted(rows, key=lambda row: (row.day, row.data_type, row.schema_version or ""))

    def set_day_condition(
        self, feed: str, day: date, data_type: str, status: str, quality_score: float | None = None
    ) -> None:
        """See `Registry.set_day_condition`."""
        choice("status", status, STATUSES)
        score = score_value(quality_score)
        at = None if status == "processing" else written(datetime.now(UTC))
        with self._lock:
            days = self._feed(feed).days
            keys = [key for key in days if key[:2] == (day, data_type)]
            if not keys:
                raise ConfigError(f"there is no {data_type} data of {feed} on {day}", "See: ssmd data inventory")
            for key in keys:
                days[key] = msgspec.structs.replace(days[key], status=status, quality_score=score, verified_at=at)

    def set_day_score(self, feed: str, day: date, data_type: str, quality_score: float | None) -> None:
        """See `Registry.set_day_score`."""
        score = score_value(quality_score)
        with self._lock:
            days = self._feed(feed).days
            for key in [key for key in days if key[:2] == (day, data_type)]:
                days[key] = msgspec.structs.replace(days[key], quality_score=score)

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        """See `Registry.gaps`."""
        start_ns, end_ns = day_bounds(day)[0], day_bounds(last or day)[1]
        with self._lock:
            found = [gap for gap in self._feed(feed).gaps.values() if touches(gap, start_ns, end_ns)]
        return sorted(
            found, key=lambda gap: (gap.from_ns, gap.connection, -1 if gap.sid is None else gap.sid, gap.reason)
        )

    def issues(self, feed: str, day: date) -> list[Issue]:
        """See `Registry.issues`."""
        with self._lock:
            found = [issue for issue in self._feed(feed).issues.values() if issue.day == day]
        return sorted(found, key=issue_order)

    def upsert_markets(self, feed: str, markets: Sequence[Market], volatile: frozenset[str] = frozenset()) -> int:
        """See `Registry.upsert_markets`."""
        latest = {market.ticker: market for market in map(stored_market, storable_markets(markets))}
        with self._lock:
            state, now = self._feed(feed), datetime.now(UTC)
            for ticker in latest:
                state.known_from.setdefault(ticker, now)
            return sum(_learn(state.markets, market, volatile) for market in latest.values())

    def markets(self, feed: str, status: str | None = None, limit: int = 1000, after: str = "") -> list[Market]:
        """See `Registry.markets`."""
        with self._lock:
            known = self._feed(feed).markets
            listed = {t: found.market for t, found in known.items() if t > after and found.market.listed}
            tickers = sorted(t for t, market in listed.items() if status in (None, market.status))
            return [listed[ticker] for ticker in tickers[: max(0, limit)]]

    def market(self, feed: str, ticker: str) -> Market | None:
        """See `Registry.market`."""
        with self._lock:
            found = self._feed(feed).markets.get(ticker)
        return found.market if found else None

    def unknown_tickers(self, feed: str, tickers: Sequence[str]) -> list[str]:
        """See `Registry.unknown_tickers`."""
        with self._lock:
            known = self._feed(feed).markets
            return [ticker for ticker in tickers if ticker not in known]

    def find_markets(self, feed: str, wanted: MarketFilter, limit: int = 1000, after: str = "") -> list[Market]:
        """See `Registry.find_markets`."""
        with self._lock:
            known = self._feed(feed).markets
            found = sorted(t for t, its in known.items() if t > after and matches(its.market, wanted))
            listed = [known[ticker].market for ticker in found[: max(0, limit)]]
            names = STRIKE_FIELDS if wanted.strikes else ()
            return [msgspec.structs.replace(m, raw={name: m.raw.get(name) for name in names}) for m in listed]

    def market_words(self, feed: str) -> MarketWords:
        """See `Registry.market_words`."""
        with self._lock:
            known = [its.market for its in self._feed(feed).markets.values()]
        statuses, categories = ({getattr(m, name) for m in known} - {""} for name in ("status", "category"))
        return MarketWords(tuple(sorted(statuses)), tuple(sorted(categories)))

    def unlist_markets(self, feed: str, tickers: Sequence[str]) -> int:
        """The exchange no longer knows these; how many were listed. One that is upserted again is listed again."""
        wanted = {stored_ticker(ticker) for ticker in tickers}
        with self._lock:
            known = self._feed(feed).markets
            gone = [ticker for ticker in wanted & known.keys() if known[ticker].market.listed]
            for ticker in gone:
                unlisted = msgspec.structs.replace(known[ticker].market, listed=False)
                known[ticker] = known[ticker]._replace(market=unlisted)
        return len(gone)

    def record_heard(self, feed: str, tickers: Sequence[str], at: datetime) -> None:
        """See `Registry.record_heard`."""
        with self._lock:
            state = self._feed(feed)
            for ticker in map(storable, tickers):
                if ticker in state.markets:
                    state.first_heard[ticker] = min(at, state.first_heard.get(ticker, at))
                    state.heard[ticker] = max(at, state.heard.get(ticker, at))

    def never_heard(self, feed: str, limit: int = 1000) -> list[Market]:
        """See `Registry.never_heard`."""
        with self._lock:
            state = self._feed(feed)
            silent = [found.market for ticker, found in state.markets.items() if ticker not in state.heard]
        active = [market for market in silent if market.status == ACTIVE and market.listed]
        return sorted(active, key=lambda market: market.ticker)[: max(0, limit)]

    def heard_markets(self, feed: str, limit: int = 1000, after: str = "") -> list[HeardMarket]:
        """See `Registry.heard_markets`."""
        with self._lock:
            state = self._feed(feed)
            chosen = sorted(t for t, its in state.markets.items() if t > after and its.market.listed)
            active = [t for t in chosen if state.markets[t].market.status == ACTIVE][: max(0, limit)]
            opened = {t: moment(state.markets[t].market.open_time) for t in active}
            first, last = state.first_heard, state.heard
            return [HeardMarket(t, opened[t], state.known_from[t], first.get(t), last.get(t)) for t in active]

    def ping(self) -> None:
        """Memory is always there."""

    def close(self) -> None:
        """Nothing is open."""

    def _feed(self, name: str) -> _Feed:
        if name not in self._feeds:
            raise unknown_feed(name, list(self._feeds))
        return self._feeds[name]


def _day_key(record: ObjectRecord) -> _DayKey:
    return record.day, record.data_type, record.schema_version


def _learn(known: dict[str, _Known], market: Market, volatile: frozenset[str]) -> bool:
    """Take a market over; was it new or changed?"""
    told = fingerprint(market, market.raw, volatile)
    before = known.get(market.ticker)
    if before is None:
        known[market.ticker] = _Known(market, told, evidence_of(market))
        return True
    after, evidence = updated_market(before.market, before.evidence, market)
    parents = (before.market.series_ticker, before.market.category) != (after.series_ticker, after.category)
    if told == before.fingerprint and not parents:
        after = msgspec.structs.replace(before.market, updated_time=after.updated_time, listed=True)
        known[market.ticker] = before._replace(market=after)
        return False
    known[market.ticker] = _Known(after, told, evidence)
    return msgspec.structs.replace(after, raw=None, updated_time=None) != msgspec.structs.replace(
        before.market, raw=None, updated_time=None, listed=True
    ) or _followed(after, volatile) != _followed(before.market, volatile)


def _followed(market: Market, volatile: frozenset[str]) -> dict[str, object]:
    return {name: value for name, value in market.raw.items() if name not in volatile and name not in SETTLEMENT_FIELDS}
