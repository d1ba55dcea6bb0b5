"""The quality score of a day, 0.00 to 1.00: what share of it is there, and right.

    score = coverage × errors × duplicates × order × expectations    (two digits; 1.00: nothing is known to be wrong)

    coverage    1 − lost time / time capture ran or should have
    errors      1 − frames that could not be understood or used / records
    duplicates  1 − ¼ × records that came twice / records
    order       1 − ¼ × records that came out of order / records
    expectations   1 − records that fail a critical expectation of `ssmd quality run` / records

- Lost is the union of the day's gaps. While only some subscriptions or tickers are missing (a gap with a `sid` or
  `tickers`), a quarter of the time counts: one of the four channels.
- A planned end (`planned_teardown`) counts like any other gap when capture ran before it and went on after it, later
  on the same day: a hole is a hole, whoever made it. What lies before the day's first start or after its last planned
  end is no loss, and no time that capture was meant to run.
- Capture was meant to run from the first record of the day to the last, and in every gap that lost all and counts. A
  day that began in the middle is judged from there. If records end more than a minute before the day, without a
  planned end and with nothing on any later day, the rest of the day is lost, too.
- Errors are parse_error, missing_field, inconsistent, missing_data and internal_error. Issues of severity `info`
  (an exchange's refusal of a command, our own transport's repeats) count nowhere.
- An expectation that concerns a whole table, or that could not be asked because it raised, fails for all rows of its
  batch. Expectations of severity warning and info lower nothing; a day whose quality was never run is not judged by it.
- Any time lost and any error, however small, keeps the score below 1.00; it is 0.00 only when nothing is left. A
  further gap that counts, or a further error, never raises it. Without records and gaps there is no score.
"""

from collections.abc import Iterable, Sequence
from datetime import date

import msgspec

from ssmd.clock import NS_PER_DAY, NS_PER_S, day_start_ns
from ssmd.market.events import Gap
from ssmd.registry.interface import Issue
from ssmd.registry.values import QUALITY

PLANNED = "planned_teardown"
PARTIAL = 4
"""A gap of some subscriptions or tickers weighs one part in so many."""
MINOR = 4
"""A record that came twice or out of order weighs one part in so many of one that was lost."""
IDLE_NS = 60 * NS_PER_S
ERRORS = frozenset(("parse_error", "missing_field", "inconsistent", "missing_data", "internal_error"))

Span = tuple[int, int]
"""A time from its first nanosecond up to, and without, the last."""


class Score(msgspec.Struct, frozen=True):
    """A day's score and its five parts (each 0 to 1), and what they were computed from. Times are nanoseconds."""

    value: float
    coverage: float
    errors: float
    duplicates: float
    order: float
    expectations: float
    meant_ns: int
    lost_ns: int
    records: int
    error_count: int
    duplicate_count: int
    out_of_order_count: int
    failed_count: int = 0


def score_day(
    day: date,
    records: int,
    first_ns: int,
    last_ns: int,
    gaps: Sequence[Gap],
    issues: Iterable[Issue],
    *,
    followed: bool = True,
) -> Score | None:
    """The score of a day with so many records received between two times; None when there is nothing to judge.

    `followed` is false when the day is over and the feed has nothing on any later day.
    """
    meant, lost = _times(day, (first_ns, last_ns + 1) if records else None, gaps, followed)
    counted = _counts(issues)
    if not records and not meant and not any(counted):
        return None
    error_count, duplicate_count, out_of_order_count, failed_count = counted
    coverage = 1 - lost / meant if meant else 1.0
    errors = _share(error_count, records)
    duplicates = _share(duplicate_count, MINOR * records)
    order = _share(out_of_order_count, MINOR * records)
    expectations = _share(failed_count, records)
    product = coverage * errors * duplicates * order * expectations
    value = round(product, 2)
    if lost or any(counted):
        value = 0.0 if not product else max(0.01, min(0.99, value))
    return Score(
        value, coverage, errors, duplicates, order, expectations, meant // PARTIAL, lost // PARTIAL, records, *counted
    )  # fmt: skip


def _share(count: int, of: int) -> float:
    if not count:
        return 1.0
    return 1 - min(count, of) / of if of else 0.0


def _counts(issues: Iterable[Issue]) -> tuple[int, int, int, int]:
    """Errors, duplicates, records out of order, and rows that fail a critical expectation."""
    error_count = duplicate_count = out_of_order_count = failed_count = 0
    for issue in issues:
        if issue.severity == "info":
            continue
        if issue.data_type == QUALITY:
            failed_count += issue.count if issue.severity == "error" else 0
            continue
        if issue.issue_type == "duplicate":
            duplicate_count += issue.count
        elif issue.issue_type == "out_of_order":
            out_of_order_count += issue.count
        elif issue.issue_type in ERRORS:
            error_count += issue.count
    return error_count, duplicate_count, out_of_order_count, failed_count


def _times(day: date, recorded: Span | None, gaps: Sequence[Gap], followed: bool) -> tuple[int, int]:
    """The time that capture was meant to run and the time that was lost, in 1/PARTIAL of a nanosecond."""
    bounds = _bounds(day)
    holes = set(interruptions(day, recorded, gaps))
    counted = [gap for gap in gaps if gap.reason != PLANNED or gap in holes]
    uncounted = [gap for gap in gaps if gap.reason == PLANNED and gap not in holes]
    whole = _union(_span(gap, bounds) for gap in counted if not is_partial(gap))
    partial = _union(_span(gap, bounds) for gap in counted if is_partial(gap))
    planned = _union(_span(gap, bounds) for gap in uncounted if not is_partial(gap))
    if recorded is not None and not followed:
        whole = _union([*whole, *_unended(recorded[1], bounds[1], planned)])
    window = _union([_clipped(recorded, bounds)]) if recorded is not None else []
    active = _union([*_without(window, planned), *whole])
    lost = _total(whole) * PARTIAL + _total(_common(_without(partial, whole), active))
    return _total(active) * PARTIAL, lost


def interruptions(day: date, recorded: Span | None, gaps: Sequence[Gap]) -> list[Gap]:
    """The planned ends in the middle of a day: capture ran before, and went on (or should have) after them."""
    bounds = _bounds(day)
    meant = [_span(gap, bounds) for gap in gaps if gap.reason != PLANNED and not is_partial(gap)]
    runs = _union([*meant, *([_clipped(recorded, bounds)] if recorded is not None else [])])
    if not runs:
        return []
    first, last = runs[0][0], runs[-1][1]
    planned = [gap for gap in gaps if gap.reason == PLANNED]
    # A frame that came while the end was announced is not capture that went on: it must have come after the gap.
    return [gap for gap in planned if first < gap.from_ns and max(gap.to_ns, gap.from_ns + 1) < last]


def _bounds(day: date) -> Span:
    return day_start_ns(day), day_start_ns(day) + NS_PER_DAY


def is_partial(gap: Gap) -> bool:
    """Does the gap concern some subscriptions or tickers only?"""
    return gap.sid is not None or gap.tickers is not None


def _unended(last_ns: int, end_ns: int, planned: Sequence[Span]) -> list[Span]:
    """The rest of a day whose records ended without a word."""
    announced = any(span[1] >= last_ns for span in planned)
    return [] if announced or end_ns - last_ns <= IDLE_NS else [(last_ns, end_ns)]


def _span(gap: Gap, bounds: Span) -> Span:
    """The gap's time within the day; a gap without length has one nanosecond, so that it counts."""
    return _clipped((gap.from_ns, max(gap.to_ns, gap.from_ns + 1)), bounds)


def _clipped(span: Span, bounds: Span) -> Span:
    return max(span[0], bounds[0]), min(span[1], bounds[1])


def _union(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, joined where they touch; empty ones are left out."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _without(spans: Sequence[Span], removed: Sequence[Span]) -> list[Span]:
    """What of `spans` is not in `removed`; both are unions."""
    found: list[Span] = []
    place = 0
    for start, end in spans:
        while place < len(removed) and removed[place][1] <= start:
            place += 1
        at = place
        while at < len(removed) and removed[at][0] < end:
            if start < removed[at][0]:
                found.append((start, removed[at][0]))
            start = max(start, removed[at][1])
            at += 1
        if start < end:
            found.append((start, end))
    return found


def _common(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    return _without(spans, _without(spans, others))


def _total(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)
