"""What the registry knows about a day, and the score that follows from it."""

from collections.abc import Iterable, Sequence
from datetime import date

import msgspec

from ssmd.market.events import Gap
from ssmd.registry.interface import InventoryRow, Issue, Registry
from ssmd.registry.score import Score, Span, interruptions, score_day

BEGINNING, END = date(1970, 1, 1), date(9999, 12, 31)


class DayFacts(msgspec.Struct, frozen=True):
    """A day's rows, gaps and issues. `followed`: the feed has data on a later day. `compacted`: no segments are left.

    Empty `rows` mean that the inventory has nothing of the day.
    """

    feed: str
    day: date
    rows: list[InventoryRow]
    gaps: list[Gap]
    issues: list[Issue]
    followed: bool
    compacted: bool


def all_rows(registry: Registry, feed: str) -> list[InventoryRow]:
    """The whole inventory of a feed: a row per day and kind of data."""
    return registry.inventory(feed, BEGINNING, END)


def facts_of(registry: Registry, feed: str, day: date, today: date, rows: Sequence[InventoryRow]) -> DayFacts:
    """Everything about a day; `rows` are the feed's whole inventory."""
    mine = [row for row in rows if row.day == day]
    issues = registry.issues(feed, day)
    return DayFacts(
        feed=feed,
        day=day,
        rows=mine,
        gaps=registry.gaps(feed, day),
        issues=issues,
        followed=day >= today or any(row.day > day and row.record_count for row in rows),
        compacted=_compacted(registry, feed, day, mine, issues),
    )


def _compacted(registry: Registry, feed: str, day: date, rows: Iterable[InventoryRow], issues: Iterable[Issue]) -> bool:
    """Is the normalized data made from raw? Asked only when it matters: such a day has a row per ticker and type."""
    if not any(row.data_type == "normalized" and row.record_count for row in rows):
        return False
    if not any(issue.data_type == "normalized" for issue in issues):
        return False
    return not any("/_segments/" in record.key for record in registry.objects(feed, day, "normalized"))


def assess(facts: DayFacts, data_type: str) -> Score | None:
    """The score of a day's raw or normalized data; None when nothing is known of it.

    Normalized data is as good as its raw data, less the stream's own trouble until compaction has made it from raw.
    """
    rows = _judged(facts)
    issues = [issue for issue in facts.issues if issue.data_type != "normalized"]
    if data_type == "normalized" and not facts.compacted:
        issues = facts.issues
    first_ns, until_ns = _recorded(rows) or (0, 1)
    records = sum(row.record_count for row in rows)
    return score_day(facts.day, records, first_ns, until_ns - 1, facts.gaps, issues, followed=facts.followed)


def interrupted(facts: DayFacts) -> bool:
    """Did a planned end leave a hole in the middle of the day? It counts in the score, then."""
    return bool(interruptions(facts.day, _recorded(_judged(facts)), facts.gaps))


def _judged(facts: DayFacts) -> list[InventoryRow]:
    """The rows that say how many records came, and when: those of raw data, if there are any."""
    held = [row for row in facts.rows if row.record_count]
    return [row for row in held if row.data_type == "raw"] or held


def _recorded(rows: Sequence[InventoryRow]) -> Span | None:
    """From the first record's time to just after the last one's."""
    return (min(row.first_ns for row in rows), max(row.last_ns for row in rows) + 1) if rows else None


def score_of(facts: DayFacts) -> Score | None:
    """The score of a day: the lower of its raw and its normalized data's."""
    kinds = {row.data_type for row in facts.rows} or {"raw"}
    found = [score for kind in sorted(kinds) if (score := assess(facts, kind)) is not None]
    return min(found, key=lambda score: score.value, default=None)


def status_of(rows: Sequence[InventoryRow]) -> str:
    """The status of a day of several rows: that of the one which is furthest from complete."""
    return max((row.status for row in rows), key=("complete", "partial", "processing", "failed").index)
