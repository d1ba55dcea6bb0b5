"""Which UTC day a run is about, however it was started."""

from typing import Any

import pytest

from tests.dags.conftest import Rooms

NOW = "2026-11-23T14:00:00+00:00"


@pytest.mark.parametrize(
    ("run", "params", "ended", "present"),
    [
        ({"run_type": "manual"}, {"date": "2026-11-03"}, ["2026-11-03"], ["2026-11-03"]),
        ({"run_type": "manual"}, {"date": None}, ["2026-11-22"], ["2026-11-23"]),
        ({"run_type": "manual", "logical_date": NOW}, {}, ["2026-11-22"], ["2026-11-23"]),
        ({"run_type": "manual", "logical_date": "2026-11-20T00:00:00+00:00"}, {}, ["2026-11-20"], ["2026-11-20"]),
        ({"run_type": "manual", "logical_date": "2027-01-01T00:00:00+00:00"}, {}, ["2026-11-22"], ["2026-11-23"]),
        (
            {
                "run_type": "scheduled", "logical_date": "2026-11-22T00:10:00+00:00",
                "data_interval_start": "2026-11-22T00:10:00+00:00", "data_interval_end": "2026-11-23T00:10:00+00:00",
            },
            {}, ["2026-11-22"], ["2026-11-22"],
        ),
        (
            {
                "run_type": "asset_triggered",
                "events": [{"day": "2026-11-21"}, {"day": "2026-11-19"}, {"day": "2026-11-21"}],
            },
            {}, ["2026-11-19", "2026-11-21"], ["2026-11-19", "2026-11-21"],
        ),
    ],
    ids=["date", "no date", "logical date now", "earlier logical date", "later logical date", "schedule", "events"],
)  # fmt: skip
def test_a_run_is_about(run: dict[str, Any], params: dict[str, Any], ended: Any, present: Any, room: Rooms) -> None:
    run = {"run_after": NOW, **run}

    assert room.ask("days", function="ended_days", run=run, params=params) == ended
    assert room.ask("days", function="present_day", run=run, params=params) == present


@pytest.mark.parametrize("extra", [None, {}, {"day": None}, {"day": "yesterday"}, {"day": "2026-13-01"}])
def test_an_event_without_a_day_is_refused(extra: Any, room: Rooms) -> None:
    run = {"run_after": NOW, "run_type": "asset_triggered", "events": [extra]}

    with pytest.raises(AssertionError, match="AirflowFailException: an event of ssmd_archive_day names no day"):
        room.ask("days", function="ended_days", run=run, params={})


@pytest.mark.parametrize(
    ("params", "days"),
    [
        ({"from": "2026-11-18", "to": "2026-11-20"}, ["2026-11-18", "2026-11-19", "2026-11-20"]),
        ({"from": "2026-11-18", "to": None}, ["2026-11-18"]),
        ({"from": None, "to": "2026-11-18"}, ["2026-11-18"]),
    ],
)
def test_a_backfill_is_about_what_was_asked_for(params: Any, days: list[str], room: Rooms) -> None:
    run = {"run_after": NOW, "run_type": "manual"}

    assert room.ask("days", function="days_asked", run=run, params=params) == days


def test_a_run_of_airflow_backfill_is_about_its_own_day(room: Rooms) -> None:
    day = "2026-11-10T00:00:00+00:00"
    run = {"run_after": NOW, "run_type": "backfill", "data_interval_start": day, "data_interval_end": day}

    assert room.ask("days", function="days_asked", run=run, params={"from": None}) == ["2026-11-10"]


@pytest.mark.parametrize(
    ("params", "problem"),
    [({}, "Which days"), ({"from": "2026-11-20", "to": "2026-11-18"}, "is before")],
)
def test_a_backfill_guesses_no_day(params: Any, problem: str, room: Rooms) -> None:
    with pytest.raises(AssertionError, match=problem):
        room.ask("days", function="days_asked", run={"run_after": NOW, "run_type": "manual"}, params=params)


def _scheduled(start: str, end: str) -> dict[str, Any]:
    return {"run_after": end, "run_type": "scheduled", "data_interval_start": start, "data_interval_end": end}


def test_an_overlapping_teardown_ends_the_day_before_the_one_that_has_begun(room: Rooms) -> None:
    run = _scheduled("2026-11-22T00:10:00+00:00", "2026-11-23T00:10:00+00:00")

    assert room.ask("days", function="ended_day", run=run, params={}) == ["2026-11-22"]
    assert room.ask("days", function="next_day", run=run, params={}) == ["2026-11-23"]


def test_a_strict_teardown_ends_the_day_of_the_last_startup(cluster_room: Rooms) -> None:
    """00:00 and 00:10 in New York: the services began at 05:10 UTC of the day that the teardown ends at 05:00."""
    run = _scheduled("2026-11-22T05:00:00+00:00", "2026-11-23T05:00:00+00:00")

    assert cluster_room.ask("days", function="ended_day", run=run, params={}) == ["2026-11-22"]


def test_a_teardown_by_hand_ends_the_day_that_was_asked_for(room: Rooms) -> None:
    run = {"run_after": NOW, "run_type": "manual"}

    assert room.ask("days", function="ended_day", run=run, params={"date": "2026-11-23"}) == ["2026-11-23"]
