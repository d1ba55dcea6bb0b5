"""May a day's data be used as it is? One word for a day, and the reasons for it, from what the registry knows."""

from collections import Counter
from datetime import date
from typing import Literal, TypeAlias

import msgspec

from ssmd.clock import NS_PER_S
from ssmd.registry.assessment import DayFacts, assess, interrupted, status_of
from ssmd.registry.interface import InventoryRow
from ssmd.registry.score import PLANNED, Score, is_partial
from ssmd.registry.values import day_bounds

Word: TypeAlias = Literal["available", "degraded", "missing", "open", "not_yet"]
Weight: TypeAlias = Literal["bad", "note"]

Code: TypeAlias = Literal[
    "no_data",  # nothing was recorded
    "before_first_data",  # nothing was recorded on any earlier day either
    "no_raw",  # the frames themselves are not there
    "no_normalized",  # the events are not there
    "gap",  # time in which frames may be missing
    "planned_gap",  # an end of capture that was announced; bad when capture went on later the same day
    "error",  # frames that could not be understood or used
    "duplicate",
    "out_of_order",
    "low_score",
    "verification_failed",  # what is stored is not what the inventory says
    "not_verified",  # nobody has compared the objects with the inventory yet
    "running",  # the day is not over
    "in_the_future",
]


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why: a code for programs, a sentence for people.

    `weight` bad: the day is not whole because of it; note: worth knowing. `count` and `seconds` where there are any.
    """

    code: Code
    weight: Weight
    message: str
    count: int | None = None
    seconds: float | None = None


class DayCondition(msgspec.Struct, frozen=True):
    """A day's condition. `verified`: its objects were read back and agree with the inventory.

    available: nothing is known to be wrong · degraded: something is, see the reasons · missing: there is no data ·
    open: today, still being recorded · not_yet: a day to come.
    """

    day: date
    condition: Word
    verified: bool
    score: float | None
    records: int
    reasons: list[Reason]


def condition_of(facts: DayFacts, today: date, first: date | None) -> DayCondition:
    """The condition of a day; `first` is the first day that the feed has any data of (None: it has none at all)."""
    if facts.day > today:
        reason = Reason("in_the_future", "note", "the day has not begun")
        return DayCondition(facts.day, "not_yet", False, None, 0, [reason])
    held = [row for row in facts.rows if row.record_count]
    reasons = _gaps(facts) + _issues(facts)
    verified = bool(held) and all(row.status in ("complete", "partial") for row in held)
    if facts.day == today:
        reasons = [Reason("running", "note", "the day is not over"), *reasons]
        return DayCondition(today, "open", False, _score(facts), _records(facts), reasons)
    if not held:
        reasons = [_nothing(facts, first), *reasons]
        return DayCondition(facts.day, "missing", False, None, 0, reasons)
    score = _score(facts)
    reasons += _kinds(facts) + _verdict(held) + _low(score, reasons)
    word: Word = "degraded" if any(reason.weight == "bad" for reason in reasons) else "available"
    return DayCondition(facts.day, word, verified, score, _records(facts), reasons)


def _nothing(facts: DayFacts, first: date | None) -> Reason:
    if first is None or facts.day < first:
        return Reason("before_first_data", "bad", f"recording began {f'on {first}' if first else 'on no day yet'}")
    return Reason("no_data", "bad", "nothing was recorded on this day")


def _records(facts: DayFacts) -> int:
    raw = sum(row.record_count for row in facts.rows if row.data_type == "raw")
    return raw or sum(row.record_count for row in facts.rows)


def _score(facts: DayFacts) -> float | None:
    """The lowest that was stored; what was not stored is computed."""
    found: list[float] = []
    for row in facts.rows:
        if not row.record_count:
            continue
        score: Score | None = None
        if row.quality_score is None:
            score = assess(facts, row.data_type)
        value = row.quality_score if score is None else score.value
        found += [] if value is None else [value]
    return min(found, default=None)


def _gaps(facts: DayFacts) -> list[Reason]:
    """A reason for each kind of gap, with the time that it touches."""
    start_ns, end_ns = day_bounds(facts.day)
    spans: dict[str, list[tuple[int, int]]] = {}
    parts: Counter[str] = Counter()
    for gap in facts.gaps:
        spans.setdefault(gap.reason, []).append((max(gap.from_ns, start_ns), min(gap.to_ns, end_ns)))
        parts[gap.reason] += is_partial(gap)
    found = []
    for reason, times in sorted(spans.items()):
        planned = reason == PLANNED
        seconds = round(_covered(times) / NS_PER_S, 3)
        some = f", {parts[reason]} of them of some subscriptions or markets only" if parts[reason] else ""
        message = f"{_number(len(times), 'gap')} ({reason}) of {seconds:g} s together{some}"
        code: Code = "planned_gap" if planned else "gap"
        lost = not planned or interrupted(facts)
        if planned and lost:
            message += ", capture went on later the same day"
        found.append(Reason(code, "bad" if lost else "note", message, len(times), seconds))
    return found


def _covered(spans: list[tuple[int, int]]) -> int:
    """The nanoseconds that are in any of the spans."""
    total, until = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total


def _issues(facts: DayFacts) -> list[Reason]:
    """Problems that were counted; those for information only count nowhere, as in the score."""
    compacted = facts.compacted
    counts: Counter[Code] = Counter()
    details: dict[Code, set[str]] = {}
    for issue in facts.issues:
        if issue.severity == "info" or (issue.data_type == "normalized" and compacted):
            continue
        code: Code = "error"
        if issue.issue_type == "duplicate":
            code = "duplicate"
        elif issue.issue_type == "out_of_order":
            code = "out_of_order"
        counts[code] += issue.count
        details.setdefault(code, set()).add(issue.issue_type)
    return [
        Reason(code, "bad", f"{_number(count, 'record')}: {', '.join(sorted(details[code]))}", count)
        for code, count in sorted(counts.items())
        if count
    ]


def _kinds(facts: DayFacts) -> list[Reason]:
    held = {row.data_type for row in facts.rows if row.record_count}
    found = []
    if "raw" not in held:
        found.append(Reason("no_raw", "bad", "there is no raw data to prove or repeat the rest from"))
    if "normalized" not in held:
        found.append(Reason("no_normalized", "bad", "there are no normalized events of it yet"))
    return found


def _verdict(held: list[InventoryRow]) -> list[Reason]:
    status = status_of(held)
    if status == "failed":
        return [Reason("verification_failed", "bad", "verification found that objects and inventory differ")]
    if status == "processing":
        return [Reason("not_verified", "note", "the day was not verified yet")]
    return []


def _low(score: float | None, reasons: list[Reason]) -> list[Reason]:
    """A score below 1 that nothing else explains, as when records end long before the day does."""
    if score is None or score >= 1 or any(reason.weight == "bad" for reason in reasons):
        return []
    return [Reason("low_score", "bad", f"the quality score is {score:.2f}")]


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
