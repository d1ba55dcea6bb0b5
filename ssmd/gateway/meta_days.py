"""`/v1/meta/…` by day: the inventory, the gaps, and whether a day's data may be used as it is."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ssmd.clock import NS_PER_S, day_of, iso, now_ns
from ssmd.gateway.cursors import MAX_CURSOR_CHARS, decode_cursor, encode_cursor
from ssmd.gateway.meta import FEED, meta_route
from ssmd.gateway.meta_documents import (
    ConditionDocument,
    DayConditionRow,
    DayLinks,
    GapPage,
    GapRow,
    InventoryDayDocument,
    InventoryPage,
    InventoryRowDocument,
    ObjectGroup,
)
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.remembering import Remembering
from ssmd.gateway.routes import AS_OF, KNOWN_AT, Ask, Reply, Route, choice, day, moment, whole, words
from ssmd.registry.condition import DayCondition, Word, condition_of
from ssmd.registry.holdings import Holding, HoldingsCatalogue, InventoryPlace, RecordedGap, Wanted
from ssmd.registry.values import DATA_TYPES, STATUSES, written

if TYPE_CHECKING:
    from ssmd.registry.database import Database

ROWS_DEFAULT, ROWS_MAX = 200, 1_000
MAX_DAYS = 366
INVENTORY_DAYS, GAP_DAYS, CONDITION_DAYS = 31, 7, 7
"""How far back is looked when nothing is said."""
_FEEDS_STEP = "GET /v1/meta/feeds lists them."


class Days(NamedTuple):
    """A range of UTC days, both included."""

    first: date
    last: date


class DaysEndpoint:
    """The HTTP handlers; `feed` is the gateway's own, meant where none is named."""

    def __init__(self, feed: str, remembering: Remembering, clock: Callable[[], int] = now_ns) -> None:
        self._feed = feed
        self._remembering = remembering
        self._clock = clock

    def routes(self) -> list[Route]:
        """Paths and handlers."""
        first, last = day("from", f"The first day; at most {MAX_DAYS} days."), day("to", "The last day; today.")
        feed = words("feed", "Name of a feed.", most=32)
        limit = whole("limit", "Rows of one page.", default=ROWS_DEFAULT, most=ROWS_MAX)
        cursor = words("cursor", "`next_cursor` of the answer before.", most=MAX_CURSOR_CHARS)
        start = moment("from", f"The beginning, a time or a day; at most {MAX_DAYS} days.")
        end = moment("to", "The end, a time or a day (its end); now.", end_of_day=True)
        kind = choice("data_type", "Only this kind.", DATA_TYPES)
        status = choice("status", "Only days of a status.", STATUSES)
        on, in_path = day("date", "One UTC day."), day("date", "A UTC day.", where="path", required=True)
        times = (AS_OF, KNOWN_AT)
        return [
            meta_route(
                "inventory", self.inventory, "What is held, a row per day and kind of data", InventoryPage,
                (feed, first, last, kind, status, limit, cursor, *times), (404,),
            ),
            meta_route(
                "inventory/{feed}/{date}", self.inventory_day, "What is held of a day", InventoryDayDocument,
                (FEED, in_path, *times), (404,),
            ),
            meta_route(
                "gaps/{feed}", self.gaps, "Times in which frames may be missing", GapPage,
                (FEED, on, start, end, limit, cursor, *times), (404,),
            ),
            meta_route(
                "condition", self.condition, "May a day's data be used as it is, and why not", ConditionDocument,
                (feed, on, first, last, *times), (404,),
            ),
        ]  # fmt: skip

    async def inventory(self, ask: Ask) -> Reply:
        """A page of the inventory."""
        days = self._days(ask, INVENTORY_DAYS)
        limit: int = ask["limit"]
        wanted = Wanted(days.first, days.last, ask["feed"], ask["data_type"], ask["status"], ask["known_at"])
        question = ("inventory", wanted)
        after = decode_cursor(ask["cursor"], question, InventoryPlace) if ask["cursor"] else None

        def make(database: "Database") -> InventoryPage:
            found = HoldingsCatalogue(database).inventory(wanted, limit + 1, after) if days.first <= days.last else []
            more = encode_cursor(question, found[limit - 1][0]) if len(found) > limit else None
            rows = [_row(held) for _, held in found[:limit]]
            return InventoryPage(from_=days.first, to=days.last, inventory=rows, next_cursor=more)

        return await self._remembering.answer(
            (*question, limit, after), InventoryPage, make, instead=_FEEDS_STEP,
            rare=_is_rare(ask, "from", "to", "cursor"),
        )  # fmt: skip

    async def inventory_day(self, ask: Ask) -> Reply:
        """One day; 404 when nothing is held of it."""
        feed, on, known_at = ask["feed"], ask["date"], ask["known_at"]
        not_begun = ask["as_of"] is not None and on > ask["as_of"].date()

        def make(database: "Database") -> InventoryDayDocument:
            held = HoldingsCatalogue(database).day(feed, on, known_at)
            if not held.rows or not_begun:
                step = f"The latest day with data is {held.latest}." if held.latest else "No day has data yet."
                detail = f"the inventory has nothing of {feed} on {on}"
                raise ApiProblem(404, "no_data", detail, step, latest=str(held.latest) if held.latest else None)
            groups = [ObjectGroup(g.data_type, g.group, g.objects, g.records, g.bytes) for g in held.groups]  # type: ignore[arg-type]
            rows = [_row(row) for row in held.rows]
            return InventoryDayDocument(feed=feed, date=on, rows=rows, objects=groups, links=_links(feed, on))

        question = ("inventory", feed, on, known_at, not_begun)
        return await self._remembering.answer(
            question, InventoryDayDocument, make, instead=_FEEDS_STEP, rare=_is_rare(ask)
        )

    async def gaps(self, ask: Ask) -> Reply:
        """A page of gaps."""
        feed, limit, known_at = ask["feed"], ask["limit"], ask["known_at"]
        start_ns, end_ns = self._span(ask)
        question = ("gaps", feed, start_ns, end_ns, known_at)
        after = decode_cursor(ask["cursor"], question, tuple[int, int]) if ask["cursor"] else None

        def make(database: "Database") -> GapPage:
            found = HoldingsCatalogue(database).gaps(feed, start_ns, end_ns, known_at, limit + 1, after)
            last = found[limit - 1] if len(found) > limit else None
            more = encode_cursor(question, (last.gap.from_ns, last.id)) if last else None
            rows = [_gap(gap) for gap in found[:limit]]
            return GapPage(feed=feed, from_=iso(start_ns), to=iso(end_ns), gaps=rows, next_cursor=more)

        return await self._remembering.answer(
            (*question, limit, after), GapPage, make, instead=_FEEDS_STEP, rare=_is_rare(ask, "from", "to", "cursor")
        )

    async def condition(self, ask: Ask) -> Reply:
        """The condition of a day, or of each day of a range."""
        days, feed, known_at = self._days(ask, CONDITION_DAYS), ask["feed"] or self._feed, ask["known_at"]
        today = self._today()
        make = partial(_make_condition, feed=feed, days=days, today=today, known_at=known_at)
        question = ("condition", feed, days, today, known_at)
        return await self._remembering.answer(
            question, ConditionDocument, make, instead=_FEEDS_STEP, rare=_is_rare(ask, "from", "to")
        )

    def _today(self) -> date:
        return day_of(self._clock())

    def _days(self, ask: Ask, back: int) -> Days:
        """The days asked for; of `as_of` none later than that. ApiProblem when they are too many, or none."""
        as_of: datetime | None = ask["as_of"]
        until = self._today() if as_of is None else as_of.date()
        on: date | None = ask._values.get("date")
        if on is not None:
            if ask["from"] is not None or ask["to"] is not None:
                raise _both()
            return Days(on, on if as_of is None else min(on, until))
        last: date = ask["to"] or max(until, ask["from"] or until)
        first: date = ask["from"] or _days_before(last, back - 1)
        _check_span(first, last)
        return Days(first, last if as_of is None else min(last, until))

    def _span(self, ask: Ask) -> tuple[int, int]:
        """From which nanosecond to which, the end not included."""
        on: date | None = ask["date"]
        start: datetime | None = ask["from"]
        end: datetime | None = ask["to"]
        if on is not None and (start or end):
            raise _both()
        if on is not None:
            start, end = datetime.combine(on, datetime.min.time(), UTC), datetime.combine(on, datetime.max.time(), UTC)
        as_of: datetime | None = ask["as_of"]
        until = as_of or datetime.combine(self._today(), datetime.max.time(), UTC)
        end = end or max(until, start or until)
        start = start or datetime.combine(_days_before(end.date(), GAP_DAYS - 1), datetime.min.time(), UTC)
        _check_span(start.date(), end.date())
        if start > end:
            raise _backwards()
        if as_of is not None:
            end = min(end, as_of)
        return _ns(start), max(_ns(start), _ns(end) + 1_000)  # a day's last microsecond is included


def _is_rare(ask: Ask, *names: str) -> bool:
    return any(ask[name] is not None for name in ("as_of", "known_at", *names))


def _days_before(day_: date, count: int) -> date:
    return date.fromordinal(max(1, day_.toordinal() - count))


def _check_span(first: date, last: date) -> None:
    if first > last:
        raise _backwards()
    if (last - first).days >= MAX_DAYS:
        detail = f"{first} to {last} are more than {MAX_DAYS} days"
        raise ApiProblem(400, "span_too_long", detail, "Ask for one year after the other.", parameter="from")


def _backwards() -> ApiProblem:
    return ApiProblem(400, "bad_parameter", "parameter 'from' is later than 'to'", "Swap them.", parameter="from")


def _both() -> ApiProblem:
    detail = "parameter 'date' is given together with 'from' or 'to'"
    return ApiProblem(400, "bad_parameter", detail, "Give a date, or a range.", parameter="date")


def _ns(at: datetime) -> int:
    """Nanoseconds since the epoch, exact to the microsecond; not beyond what the database can compare."""
    whole_us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return max(-(2**62), min(whole_us * 1_000, 2**62))


def _links(feed: str, on: date) -> DayLinks:
    return DayLinks(
        f"/v1/meta/inventory/{feed}/{on}", f"/v1/meta/condition?feed={feed}&date={on}",
        f"/v1/meta/gaps/{feed}?date={on}",
    )  # fmt: skip


def _row(held: Holding) -> InventoryRowDocument:
    row = held.row
    return InventoryRowDocument(
        feed=row.feed,
        date=row.day,
        data_type=row.data_type,  # type: ignore[arg-type]
        schema_version=row.schema_version,
        storage_path=row.storage_path,
        status=row.status,  # type: ignore[arg-type]
        symbol_count=row.symbol_count,
        record_count=row.record_count,
        byte_size=row.byte_size,
        first_timestamp=iso(row.first_ns) if row.record_count else None,
        last_timestamp=iso(row.last_ns) if row.record_count else None,
        gap_count=row.gap_count,
        quality_score=row.quality_score,
        verified_at=row.verified_at,
        known_from=written(held.known_from) or "",
        changed_since=held.changed_since,
        links=_links(row.feed, row.day),
    )


def _gap(recorded: RecordedGap) -> GapRow:
    gap = recorded.gap
    return GapRow(
        from_=iso(gap.from_ns),
        to=iso(gap.to_ns),
        seconds=round((gap.to_ns - gap.from_ns) / NS_PER_S, 6),
        reason=gap.reason,
        connection=gap.connection,
        sid=gap.sid,
        last_seq=gap.last_seq,
        next_seq=gap.next_seq,
        tickers=None if gap.tickers is None else list(gap.tickers),
        ticker_count=recorded.ticker_count,
        recorded_at=written(recorded.recorded_at) or "",
        resolved_at=written(recorded.resolved_at),
        notes=recorded.notes,
    )


def _make_condition(
    database: "Database", feed: str, days: Days, today: date, known_at: datetime | None
) -> ConditionDocument:
    held = HoldingsCatalogue(database).days(feed, days.first, days.last, today, known_at)
    found = [condition_of(facts, today, held.first) for facts in held.days]
    counts = Counter(day_.condition for day_ in found)
    return ConditionDocument(
        feed=feed,
        from_=days.first,
        to=days.last,
        condition=_of_all(counts),
        counts=dict(sorted(counts.items())),
        first_day=held.first,
        last_day=held.last,
        days=[_day_row(day_) for day_ in found],
    )


def _of_all(counts: Counter[Word]) -> Word:
    past = {word: counts[word] for word in ("missing", "degraded", "available") if counts[word]}
    if past:
        return "missing" if set(past) == {"missing"} else "available" if set(past) == {"available"} else "degraded"
    return "open" if counts["open"] else "not_yet"


def _day_row(found: DayCondition) -> DayConditionRow:
    return DayConditionRow(found.day, found.condition, found.verified, found.score, found.records, found.reasons)
