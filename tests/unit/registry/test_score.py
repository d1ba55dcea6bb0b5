"""The quality score: simple days by hand, and what no further trouble may ever do."""

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmd.clock import NS_PER_DAY, NS_PER_S, day_start_ns
from ssmd.market.events import REASONS, Gap
from ssmd.registry.interface import Issue
from ssmd.registry.score import PLANNED, Score, score_day
from ssmd.registry.values import ISSUE_TYPES

DAY = date(2026, 11, 21)
START = day_start_ns(DAY)
END = START + NS_PER_DAY
HOUR = 3_600
RECORDS = 1_000_000


def gap(from_s: float, to_s: float, reason: str = "connection_lost", **changes: object) -> Gap:
    known = Gap("kalshi", "c-1", None, START + int(from_s * NS_PER_S), START + int(to_s * NS_PER_S), reason)
    return msgspec.structs.replace(known, **changes)


def issue(issue_type: str, count: int, severity: str = "warning") -> Issue:
    return Issue("kalshi", DAY, "raw", issue_type, severity, count)


def full_day(*gaps: Gap, issues: tuple[Issue, ...] = (), followed: bool = True) -> Score:
    """A day of records from midnight to midnight."""
    found = score_day(DAY, RECORDS, START, END - 1, gaps, issues, followed=followed)
    assert found is not None
    return found


def test_a_day_without_problems_scores_1() -> None:
    assert full_day().value == 1.0
    assert full_day(issues=(issue("refused", 7, "info"), issue("duplicate", 9, "info"))).value == 1.0


def test_rows_that_fail_a_critical_expectation_cost_their_share_and_others_nothing() -> None:
    critical = Issue("kalshi", DAY, "quality", "duplicate", "error", RECORDS // 10, detail="trades: price")
    warning = msgspec.structs.replace(critical, severity="warning", count=RECORDS)

    score = full_day(issues=(critical, warning))

    assert (score.value, score.expectations, score.failed_count) == (0.9, 0.9, RECORDS // 10)
    assert (score.errors, score.duplicates) == (1.0, 1.0)
    assert full_day(issues=(msgspec.structs.replace(critical, count=1),)).value == 0.99


def test_a_tenth_of_the_day_lost_costs_a_tenth() -> None:
    score = full_day(gap(0, 2.4 * HOUR))

    assert (score.value, score.coverage) == (0.9, 0.9)
    assert (score.meant_ns, score.lost_ns) == (NS_PER_DAY, NS_PER_DAY // 10)


def test_overlapping_gaps_lose_their_time_once_and_only_within_the_day() -> None:
    gaps = [gap(0, 2 * HOUR), gap(HOUR, 2.4 * HOUR, "silence"), gap(-50 * HOUR, 60, "startup"), gap(HOUR, HOUR)]

    assert full_day(*gaps).value == 0.9


def test_a_gap_of_some_subscriptions_weighs_a_quarter() -> None:
    assert full_day(gap(0, 2.4 * HOUR, sid=3)).coverage == pytest.approx(0.975)
    assert full_day(gap(0, 2.4 * HOUR, tickers=("A",))).coverage == pytest.approx(0.975)
    assert full_day(gap(0, 2.4 * HOUR, sid=3), gap(0, 2.4 * HOUR)).coverage == 0.9


def from_6_to_18(*gaps: Gap, followed: bool = True) -> Score:
    """A day of records from 06:00 to 18:00."""
    first_ns, until_ns = START + 6 * HOUR * NS_PER_S, START + 18 * HOUR * NS_PER_S
    found = score_day(DAY, RECORDS, first_ns, until_ns - 1, gaps, [], followed=followed)
    assert found is not None
    return found


def test_a_planned_end_in_the_middle_of_the_day_counts_like_any_other_gap() -> None:
    score = from_6_to_18(gap(12 * HOUR, 13.2 * HOUR, PLANNED))

    assert (score.value, score.meant_ns, score.lost_ns) == (0.9, NS_PER_DAY // 2, NS_PER_DAY // 20)
    assert full_day(gap(12 * HOUR, 12 * HOUR + 138, PLANNED)).lost_ns == 138 * NS_PER_S
    assert full_day(gap(12 * HOUR, 12 * HOUR + 0.006, PLANNED)).value == 0.99  # a key was rotated
    assert full_day(gap(12 * HOUR, 14.4 * HOUR, PLANNED, sid=3)).coverage == pytest.approx(0.975)
    both = from_6_to_18(gap(12 * HOUR, 12 * HOUR + 1, PLANNED), gap(12 * HOUR, 13.2 * HOUR, PLANNED))
    assert both.value == 0.9


def test_a_planned_end_before_the_first_start_and_after_the_last_end_is_no_loss() -> None:
    night = gap(-2 * HOUR, 6 * HOUR, PLANNED), gap(18 * HOUR, 30 * HOUR, PLANNED)

    assert from_6_to_18(*night).value == 1.0
    assert from_6_to_18(*night).meant_ns == NS_PER_DAY // 2
    assert from_6_to_18(*night, gap(12 * HOUR, 13.2 * HOUR)).value == 0.9
    # Frames that came while the end was announced are none that came after it.
    assert from_6_to_18(gap(18 * HOUR - 0.5, 18 * HOUR + 0.5, PLANNED), followed=False).value == 1.0
    # What was lost before the plan was announced stays lost.
    assert full_day(gap(0, 2.4 * HOUR), gap(0, 2.4 * HOUR, PLANNED)).value == 0.9


def test_capture_that_should_have_gone_on_after_a_planned_end_makes_it_a_hole_too() -> None:
    score = from_6_to_18(gap(18 * HOUR, 19 * HOUR, PLANNED), gap(19 * HOUR, 20 * HOUR, "startup"))

    assert (score.lost_ns, score.meant_ns) == (2 * HOUR * NS_PER_S, 14 * HOUR * NS_PER_S)


def test_a_day_that_began_in_the_middle_is_judged_from_there() -> None:
    score = score_day(DAY, 10, START + 12 * HOUR * NS_PER_S, END - 1, [gap(12 * HOUR, 13.2 * HOUR)], [])
    assert score is not None
    assert score.value == 0.9


def test_a_day_that_ended_without_a_word_lost_the_rest_unless_it_went_on_the_next_day() -> None:
    until = START + 12 * HOUR * NS_PER_S

    def at(followed: bool, *gaps: Gap) -> float:
        score = score_day(DAY, 10, START, until - 1, gaps, [], followed=followed)
        assert score is not None
        return score.value

    assert at(True) == 1.0
    assert at(False) == 0.5
    assert at(False, gap(6 * HOUR, 7 * HOUR, PLANNED)) == 0.46  # 11 of 24 hours: it went on after that plan
    assert at(False, gap(12 * HOUR, 12 * HOUR + 1, PLANNED)) == 1.0
    assert at(False, gap(20 * HOUR, 21 * HOUR)) == 0.5
    assert full_day(followed=False).value == 1.0


def test_a_day_of_nothing_but_a_gap_scores_0_and_a_day_of_nothing_has_no_score() -> None:
    lost = score_day(DAY, 0, 0, 0, [gap(-5, 90_000)], [])
    assert lost is not None
    assert (lost.value, lost.lost_ns) == (0.0, NS_PER_DAY)
    assert score_day(DAY, 0, 0, 0, [], []) is None
    assert score_day(DAY, 0, 0, 0, [gap(0, 86_400, PLANNED)], []) is None


@pytest.mark.parametrize(
    ("issue_type", "score"),
    [("parse_error", 0.9), ("missing_field", 0.9), ("inconsistent", 0.9), ("duplicate", 0.97), ("out_of_order", 0.97)],
)
def test_a_tenth_of_the_records(issue_type: str, score: float) -> None:
    found = full_day(issues=(issue(issue_type, RECORDS // 10),))

    assert found.value == score


def test_the_smallest_problem_keeps_it_below_1_and_the_smallest_remainder_above_0() -> None:
    assert full_day(gap(5, 5)).value == 0.99
    assert full_day(gap(5, 5, sid=1)).value == 0.99
    for issue_type in ("parse_error", "duplicate", "out_of_order"):
        assert full_day(issues=(issue(issue_type, 1),)).value == 0.99
    assert full_day(gap(1, 86_400)).value == 0.01
    assert full_day(gap(0, 86_400)).value == 0.0
    assert full_day(issues=(issue("parse_error", RECORDS),)).value == 0.0


def test_the_four_parts_multiply_to_the_score() -> None:
    found = full_day(
        gap(0, 8 * HOUR),
        issues=(issue("parse_error", 10_000), issue("duplicate", 80_000), issue("out_of_order", 4_000)),
    )

    assert found.errors == pytest.approx(0.99)
    assert found.duplicates == pytest.approx(0.98)
    assert found.order == pytest.approx(0.999)
    assert found.value == round(found.coverage * 0.99 * 0.98 * 0.999, 2)
    assert (found.error_count, found.duplicate_count, found.out_of_order_count) == (10_000, 80_000, 4_000)


SECONDS = st.integers(-HOUR, 25 * HOUR)
GAPS = st.builds(
    lambda a, b, reason, sid, tickers: gap(min(a, b), max(a, b), reason, sid=sid, tickers=tickers),
    SECONDS,
    SECONDS,
    st.sampled_from(REASONS),
    st.sampled_from([None, None, 1, 2]),
    st.sampled_from([None, None, ("A",)]),
)
UNPLANNED = GAPS.filter(lambda found: found.reason != PLANNED and found.to_ns > START and found.from_ns < END)
ISSUES = st.builds(issue, st.sampled_from(ISSUE_TYPES), st.integers(0, 2_000), st.sampled_from(["error", "info"]))


class Judged(msgspec.Struct):
    records: int
    first_s: int
    last_s: int
    gaps: list[Gap]
    issues: list[Issue]
    followed: bool

    def score(self, *gaps: Gap, issues: tuple[Issue, ...] = ()) -> float | None:
        found = score_day(
            DAY, self.records, START + self.first_s * NS_PER_S, START + self.last_s * NS_PER_S,
            [*self.gaps, *gaps], [*self.issues, *issues], followed=self.followed,
        )  # fmt: skip
        return None if found is None else found.value


DAYS = st.builds(
    lambda records, a, b, gaps, issues, followed: Judged(records, min(a, b), max(a, b), gaps, issues, followed),
    st.integers(0, 3_000),
    st.integers(0, 24 * HOUR - 1),
    st.integers(0, 24 * HOUR - 1),
    st.lists(GAPS, max_size=6),
    st.lists(ISSUES, max_size=4),
    st.booleans(),
)


@given(DAYS, UNPLANNED)
def test_a_further_gap_never_raises_the_score(day: Judged, more: Gap) -> None:
    before, after = day.score(), day.score(more)

    if before is not None:
        assert after is not None
        assert after <= before
    if not more.sid and more.tickers is None:
        assert after is not None
        assert after < 1.0


PLACES = st.tuples(st.integers(1, 999), st.integers(1, 999), st.sampled_from([None, 1]))


@given(DAYS, PLACES)
def test_a_further_planned_end_within_the_records_never_raises_the_score(
    day: Judged, place: tuple[int, int, int | None]
) -> None:
    day = msgspec.structs.replace(day, records=day.records + 1, last_s=day.last_s + 1)
    length_s, sid = day.last_s - day.first_s, place[2]
    from_s, to_s = (day.first_s + length_s * part / 1_000 for part in sorted(place[:2]))
    more = gap(from_s, to_s, PLANNED, sid=sid)
    before, after = day.score(), day.score(more)

    assert before is not None
    assert after is not None
    assert after <= before
    if more.sid is None:
        assert after < 1.0


@given(DAYS, ISSUES)
def test_a_further_problem_never_raises_the_score(day: Judged, more: Issue) -> None:
    before, after = day.score(), day.score(issues=(more,))

    if before is not None:
        assert after is not None
        assert after <= before


@given(DAYS)
def test_a_score_is_a_number_of_two_digits_between_0_and_1(day: Judged) -> None:
    score = day.score()

    assert score is None or (0.0 <= score <= 1.0 and score == round(score, 2))
