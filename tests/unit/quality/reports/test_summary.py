"""The numbers and colours of a run, and the table of days and suites."""

from datetime import date, timedelta

import msgspec
import pytest

from ssmd.quality.outcome import Colour, State
from ssmd.quality.reports.matrix import matrix
from ssmd.quality.reports.summary import DaySummary, level_of, summarize, summarize_suite, unreadable
from tests.quality_runs import DAY, bad, calm, expectation, run, silent, suite


def test_every_expectation_of_a_suite_is_counted_once_and_in_its_own_way() -> None:
    told = summarize_suite(bad().suites[0])
    assert (told.asked, told.passed, told.warnings, told.failed, told.errors, told.infos, told.not_run) == (
        6, 1, 1, 2, 1, 1, 1,
    )  # fmt: skip
    assert told.asked == told.passed + told.warnings + told.failed + told.infos + told.not_run


@pytest.mark.parametrize(
    ("state", "severity", "level"),
    [
        ("passed", "critical", "passed"), ("failed", "critical", "failed"), ("failed", "warning", "warning"),
        ("failed", "info", "info"), ("error", "info", "failed"), ("not_run", "critical", "not_run"),
    ],
)  # fmt: skip
def test_how_an_expectation_is_shown(state: State, severity: str, level: str) -> None:
    assert level_of(msgspec.structs.replace(expectation(), state=state, severity=severity)) == level


def test_a_day_is_as_bad_as_its_worst_suite_and_a_suite_that_did_not_run_is_no_pass() -> None:
    warned = suite("quotes", expectation(state="failed", severity="warning"))
    good, failed = suite("trades", expectation()), suite("gaps", expectation(state="failed"))
    cases: list[tuple[DaySummary, Colour, str]] = [
        (summarize(run(DAY, good), 1), "green", "passed"),
        (
            summarize(run(DAY, suite("status", expectation(), expectation(state="not_run"))), 1),
            "green",
            "passed, 1 not run",
        ),
        (summarize(run(DAY, good, warned), 1), "yellow", "warnings"),
        (summarize(run(DAY, good, warned, silent("status")), 1), "grey", "incomplete"),
        (summarize(run(DAY, good, silent("status"), failed), 1), "red", "failed"),
        (summarize(run(DAY, silent("status")), 1), "grey", "did not run"),
        (summarize(run(DAY), 1), "grey", "did not run"),
        (unreadable("kalshi", DAY), "grey", "cannot be read"),
    ]
    assert [(day.colour, day.state) for day, _, _ in cases] == [(colour, state) for _, colour, state in cases]


def test_a_summary_is_the_same_after_a_trip_through_storage() -> None:
    told = summarize(bad(), 123)
    assert msgspec.json.decode(msgspec.json.encode(told), type=DaySummary) == told


def test_days_without_checks_stand_in_the_table_in_one_row_per_silence() -> None:
    days = [DAY, DAY - timedelta(days=1), DAY - timedelta(days=3), DAY - timedelta(days=400)]
    table = matrix(summarize(calm(day), 1) for day in days)
    assert [(row.day, row.first, row.days, row.summary is None) for row in table.rows] == [
        (DAY, DAY, 1, False),
        (date(2026, 11, 21), date(2026, 11, 21), 1, False),
        (date(2026, 11, 20), date(2026, 11, 20), 1, True),
        (date(2026, 11, 19), date(2026, 11, 19), 1, False),
        (date(2026, 11, 18), DAY - timedelta(days=399), 396, True),
        (days[-1], days[-1], 1, False),
    ]


def test_columns_are_those_of_the_newest_day_and_then_those_that_ended() -> None:
    older = run(DAY - timedelta(days=1), suite("old", expectation()), suite("trades", expectation()))
    table = matrix([summarize(older, 1), summarize(calm(), 1)])
    assert [name for name, _ in table.columns] == ["trades", "quotes", "old"]
    assert [[cell and cell.suite for cell in row.cells] for row in table.rows] == [
        ["trades", "quotes", None],
        ["trades", None, "old"],
    ]


def test_an_empty_table_is_one() -> None:
    assert matrix([]).rows == []
