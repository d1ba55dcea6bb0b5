"""The condition of a day: it never praises what the score does not, and more trouble never makes it better."""

from datetime import date, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ssmd.clock import NS_PER_S, day_start_ns
from ssmd.market.events import REASONS, Gap
from ssmd.registry.assessment import DayFacts
from ssmd.registry.condition import condition_of
from ssmd.registry.interface import InventoryRow, Issue
from ssmd.registry.score import PLANNED
from ssmd.registry.values import ISSUE_TYPES

DAY = date(2026, 11, 20)
TODAY = DAY + timedelta(days=2)
START = day_start_ns(DAY)
RANK = {"available": 0, "degraded": 1, "missing": 2}


def row(data_type: str, status: str = "processing", records: int = 1_000, score: float | None = None) -> InventoryRow:
    return InventoryRow(
        "kalshi", data_type, DAY, "", "v1" if data_type == "normalized" else None, 3, records, 10_000, START,
        START + 86_399 * NS_PER_S, status, 0, score,
    )  # fmt: skip


def facts(*rows: InventoryRow, gaps: list[Gap] | None = None, issues: list[Issue] | None = None) -> DayFacts:
    return DayFacts("kalshi", DAY, list(rows), gaps or [], issues or [], True, True)


def gap(second: int, length: int, reason: str = "connection_lost", sid: int | None = None) -> Gap:
    start = START + second * NS_PER_S
    return Gap("kalshi", "c-1", sid, start, start + length * NS_PER_S, reason)


gaps = st.builds(gap, st.integers(-5_000, 86_300), st.integers(1, 90_000), st.sampled_from(sorted(REASONS)),
                 st.none() | st.integers(1, 3))  # fmt: skip
issues = st.builds(
    lambda kind, issue_type, severity, count: Issue("kalshi", DAY, kind, issue_type, severity, count),
    st.sampled_from(["raw", "normalized"]), st.sampled_from(ISSUE_TYPES), st.sampled_from(["error", "warning", "info"]),
    st.integers(0, 2_000),
)  # fmt: skip
rows = st.builds(
    row, st.sampled_from(["raw", "normalized"]), st.sampled_from(["processing", "complete", "partial", "failed"]),
    st.sampled_from([0, 1, 1_000]), st.none() | st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)  # fmt: skip
days = st.builds(
    lambda kinds, found, problems: facts(*kinds, gaps=found, issues=problems),
    st.lists(rows, max_size=2, unique_by=lambda one: one.data_type), st.lists(gaps, max_size=3),
    st.lists(issues, max_size=3),
)  # fmt: skip


@given(days)
def test_a_day_is_available_only_when_nothing_at_all_is_known_to_be_wrong(day: DayFacts) -> None:
    found = condition_of(day, TODAY, DAY)
    bad = [reason.code for reason in found.reasons if reason.weight == "bad"]

    assert (found.condition == "available") is not bool(bad)
    assert (found.condition == "missing") is not any(one.record_count for one in day.rows)
    if found.condition == "available":
        assert found.score in (None, 1.0)
        assert {one.data_type for one in day.rows if one.record_count} == {"raw", "normalized"}
        assert not any(one.status == "failed" for one in day.rows if one.record_count)
    if found.verified:
        assert "verification_failed" not in bad
        assert "not_verified" not in {reason.code for reason in found.reasons}


@given(days, gaps, issues)
def test_one_more_gap_or_issue_never_makes_a_day_better(day: DayFacts, more: Gap, problem: Issue) -> None:
    before = condition_of(day, TODAY, DAY)
    for worse in (
        msgspec.structs.replace(day, gaps=[*day.gaps, more]),
        msgspec.structs.replace(day, issues=[*day.issues, problem]),
    ):
        after = condition_of(worse, TODAY, DAY)
        assert RANK[after.condition] >= RANK[before.condition]


@given(days, st.integers(0, 3))
def test_a_day_that_is_not_over_is_open_and_one_to_come_is_not_yet(day: DayFacts, ahead: int) -> None:
    found = condition_of(day, DAY - timedelta(days=ahead), None)

    assert found.condition == ("not_yet" if ahead else "open")
    assert not found.verified


@given(st.lists(gaps, min_size=1, max_size=6))
def test_the_seconds_of_gaps_are_those_of_the_day_and_none_counts_twice(found: list[Gap]) -> None:
    reasons = condition_of(facts(row("raw"), row("normalized"), gaps=found), TODAY, DAY).reasons
    seconds = {
        reason: {s for g in found if g.reason == reason for s in range(*_seconds(g))}
        for reason in {g.reason for g in found}
    }
    told = [reason for reason in reasons if reason.code in ("gap", "planned_gap")]

    assert sorted((one.count, one.seconds) for one in told) == sorted(
        (sum(g.reason == reason for g in found), float(len(covered))) for reason, covered in seconds.items()
    )


def _seconds(one: Gap) -> tuple[int, int]:
    return max(0, (one.from_ns - START) // NS_PER_S), min(86_400, (one.to_ns - START) // NS_PER_S)


def test_records_that_end_long_before_the_day_are_a_reason_of_their_own() -> None:
    short = msgspec.structs.replace(row("raw"), last_ns=START + 40_000 * NS_PER_S)
    unfollowed = msgspec.structs.replace(facts(short, row("normalized", score=1.0)), followed=False)

    found = condition_of(unfollowed, TODAY, DAY)

    assert found.condition == "degraded"
    assert [reason.code for reason in found.reasons] == ["not_verified", "low_score"]


def test_a_planned_end_in_the_middle_of_a_day_degrades_it_and_one_at_its_end_does_not() -> None:
    held = row("raw"), row("normalized")
    middle = condition_of(facts(*held, gaps=[gap(40_000, 138, PLANNED)]), TODAY, DAY)
    end = condition_of(facts(*held, gaps=[gap(86_398, 90_000, PLANNED)]), TODAY, DAY)

    assert (middle.condition, middle.score) == ("degraded", 0.99)
    assert [(reason.code, reason.weight) for reason in middle.reasons] == [
        ("planned_gap", "bad"), ("not_verified", "note"),
    ]  # fmt: skip
    assert middle.reasons[0].message.endswith("of 138 s together, capture went on later the same day")
    assert (end.condition, end.score) == ("available", 1.0)
    assert [(reason.code, reason.weight) for reason in end.reasons] == [
        ("planned_gap", "note"), ("not_verified", "note"),
    ]  # fmt: skip
