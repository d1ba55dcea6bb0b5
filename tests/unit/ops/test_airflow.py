"""Runs of DAGs over Airflow's REST API: asked for, watched to their end, and what an Airflow that is not well gets."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from ssmd.airflow_api import Airflow, Login, Run
from ssmd.errors import ConfigError, FatalError, RefusedError, Unavailable
from ssmd.local.ports import free_port
from ssmd.ops.overview import Fact, LastRun, last_runs, with_days
from ssmd.ops.watching import Ending, Watcher
from tests.fakes.airflow import PASSWORD, USERNAME, FakeAirflow, fake_airflow

DAG, RUN = "daily_startup", "ops__2026-11-23__x"
CONF = {"date": "2026-11-23"}


@pytest.fixture
def fake() -> Iterator[FakeAirflow]:
    with fake_airflow() as fake:
        yield fake


@pytest.fixture
def airflow(fake: FakeAirflow) -> Airflow:
    return Airflow(fake.url + "/", Login(USERNAME, PASSWORD))


class Watching:
    """A watcher whose waits take no time."""

    def __init__(self, airflow: Airflow, run: Run) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.warned: list[str] = []
        self.watcher = Watcher(
            airflow,
            run,
            lambda change: self.told.append(f"{change.task.name} {change.task.state}"),
            self.warned.append,
            self.pause,
            lambda: self.now,
        )

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def follow(self) -> Ending:
        return self.watcher.follow()


def test_a_run_is_asked_for_with_its_day_and_told_task_by_task(fake: FakeAirflow, airflow: Airflow) -> None:
    fake.script[DAG] = [
        ("queued", {"sync": ""}),
        ("running", {"sync": "queued", "start[0]": ""}),
        ("running", {"sync": "running", "start[0]": ""}),
        ("running", {"sync": "success", "start[0]": "running"}),
        ("success", {"sync": "success", "start[0]": "success"}),
    ]

    run = airflow.trigger(DAG, RUN, CONF, "ssmd ops, me")
    watching = Watching(airflow, run)
    ending = watching.follow()

    assert fake.runs[DAG, RUN]["conf"] == CONF
    assert fake.runs[DAG, RUN]["note"] == "ssmd ops, me"
    assert run.day == date(2026, 11, 23)
    assert watching.told == ["sync queued", "sync running", "sync success", "start[0] running", "start[0] success"]
    assert (ending.exit_code, ending.failed, ending.findings) == (0, {}, {})


def test_findings_of_a_task_make_exit_code_6_with_its_words(fake: FakeAirflow, airflow: Airflow) -> None:
    fake.script[DAG] = [("success", {"verify": "success", "sync": "success"})]
    fake.findings["verify"] = "one byte is wrong"

    ending = Watching(airflow, airflow.trigger(DAG, RUN, CONF, "")).follow()

    assert (ending.exit_code, ending.findings) == (6, {"verify": "one byte is wrong"})


def test_a_failed_run_names_the_task_that_failed_and_not_those_that_never_ran(
    fake: FakeAirflow, airflow: Airflow
) -> None:
    fake.script[DAG] = [("failed", {"sync": "failed", "start": "upstream_failed"})]
    fake.reasons["sync"] = "exit code 3, refused by a check:\nhalf is gone"

    ending = Watching(airflow, airflow.trigger(DAG, RUN, CONF, "")).follow()

    assert (ending.exit_code, ending.failed) == (1, {"sync": "exit code 3, refused by a check: half is gone"})
    assert airflow.page(DAG, RUN, ending.tasks[0]) == f"{fake.url}/dags/{DAG}/runs/{RUN}/tasks/sync"


def test_an_airflow_that_is_away_for_a_moment_is_asked_again(fake: FakeAirflow, airflow: Airflow) -> None:
    watching = Watching(airflow, airflow.trigger(DAG, RUN, CONF, ""))
    fake.fail_next = [503, 503, 503]

    assert watching.follow().exit_code == 0
    assert len(watching.warned) == 1
    assert "asking again" in watching.warned[0]


def test_an_airflow_that_stays_away_ends_the_watching_and_not_the_run(fake: FakeAirflow, airflow: Airflow) -> None:
    watching = Watching(airflow, airflow.trigger(DAG, RUN, CONF, ""))
    fake.fail_next = [503] * 1_000

    with pytest.raises(Unavailable, match="goes on without being watched") as away:
        watching.follow()
    assert airflow.page(DAG, RUN) in away.value.hint
    assert 60 < watching.now < 70


def test_a_run_that_waits_is_explained(fake: FakeAirflow, airflow: Airflow) -> None:
    waiting: list[tuple[str, dict[str, str]]] = [("queued", {})] * 40
    fake.script[DAG] = [*waiting, ("success", {})]
    fake.health["scheduler"]["status"] = "unhealthy"
    watching = Watching(airflow, airflow.trigger(DAG, RUN, CONF, ""))
    watching.follow()
    assert watching.warned == ["the run waits, and Airflow's scheduler does not report; see: ssmd status"]

    fake.health["scheduler"]["status"] = "healthy"
    fake.add_run(DAG, "other", "running")
    behind = Watching(airflow, airflow.trigger(DAG, "second", CONF, ""))
    behind.follow()
    assert behind.warned == [f"the run waits for another one of {DAG}: other (running)"]


def test_a_token_that_is_over_is_renewed(fake: FakeAirflow, airflow: Airflow) -> None:
    airflow.runs(DAG)
    fake.tokens.clear()

    assert airflow.runs(DAG) == []
    assert fake.calls.count("POST /auth/token") == 2


def test_active_runs_are_told_apart_by_their_day(fake: FakeAirflow, airflow: Airflow) -> None:
    fake.add_run(DAG, "done", "success", conf=CONF)
    fake.add_run(DAG, "asked", "running", conf=CONF)
    fake.add_run(DAG, "timed", "queued", run_type="scheduled", data_interval_start="2026-11-22T00:00:00Z")
    fake.add_run(DAG, "odd", "queued", conf={"date": "soon"})

    found = {run.id: run.day for run in airflow.runs(DAG, active=True)}

    assert found == {"asked": date(2026, 11, 23), "timed": date(2026, 11, 22), "odd": None}


@pytest.mark.parametrize("version", ["2.10.5", "3.2.9", "4.0.0", "nonsense", "3", ""])
def test_another_version_is_refused_in_one_line(version: str, fake: FakeAirflow, airflow: Airflow) -> None:
    fake.version = version
    with pytest.raises(ConfigError, match=r"works with 3\.3 and later 3\.x"):
        airflow.check_version()


@pytest.mark.parametrize("version", ["3.3.0", "3.3.2", "3.10.1", "3.4.0rc1"])
def test_later_versions_of_the_same_line_are_taken(version: str, fake: FakeAirflow, airflow: Airflow) -> None:
    fake.version = version
    assert airflow.check_version() == version


def test_something_else_at_the_address_is_no_airflow(fake: FakeAirflow, airflow: Airflow) -> None:
    fake.fail_next = [404]
    with pytest.raises(ConfigError, match="is no Airflow of version"):
        airflow.check_version()


def test_nobody_at_the_address_is_unavailable_with_the_way_round_it() -> None:
    nobody = Airflow(f"http://127.0.0.1:{free_port()}", Login("a", "b"))
    with pytest.raises(Unavailable, match="does not answer") as away:
        nobody.check_version()
    assert "--no-airflow" in away.value.hint


def test_a_wrong_password_names_the_user_and_not_the_password(fake: FakeAirflow) -> None:
    with pytest.raises(ConfigError, match="refuses the login of 'admin'") as refused:
        Airflow(fake.url, Login(USERNAME, "wrong-one")).runs(DAG)
    assert "wrong-one" not in str(refused.value)


def test_what_airflow_rejects_is_told_in_its_words(fake: FakeAirflow, airflow: Airflow) -> None:
    with pytest.raises(ConfigError, match="Invalid input for param"):
        airflow.trigger(DAG, RUN, {"nonsense": 1}, "")
    airflow.trigger(DAG, RUN, CONF, "")
    with pytest.raises(RefusedError, match="has a run"):
        airflow.trigger(DAG, RUN, CONF, "")
    with pytest.raises(ConfigError, match="knows no DAG 'nothing'"):
        airflow.paused("nothing")
    fake.fail_next = [418]
    with pytest.raises(FatalError, match="418"):
        airflow.runs(DAG)


def test_the_last_runs_of_all_operations_that_airflow_knows(fake: FakeAirflow, airflow: Airflow) -> None:
    fake.add_run("daily_startup", "r1", "failed", conf=CONF)
    fake.paused["daily_teardown"] = True

    found = {run.operation: (run.state, run.paused) for run in last_runs(airflow)}

    assert found == {"daily_startup": ("failed", False), "daily_teardown": ("never", True)}


def test_the_days_of_a_run_are_those_it_was_asked_for_or_those_of_its_events(
    fake: FakeAirflow, airflow: Airflow
) -> None:
    fake.paused |= {"data_quality": False, "backfill": False, "checks_ran": False}
    fake.add_run("data_quality", "asset_triggered__1", "success", run_type="asset_triggered")
    fake.events["asset_triggered__1"] = [{"day": "2026-11-22"}, {"day": "2026-11-19"}, {"day": "2026-11-22"}, {}, None]
    fake.add_run("backfill", "b", "success", conf={"from": "2026-11-18", "to": "2026-11-20"})
    fake.add_run("checks_ran", "c", "success", conf={"date": None})
    fake.add_run("daily_startup", "s", "success", conf=CONF)

    found = {run.operation: ([f"{day:%d}" for day in run.days], run.day) for run in last_runs(airflow)}

    assert found["data_quality"] == (["19", "22"], None)
    assert found["backfill"] == (["18", "19", "20"], None)
    assert found["checks_ran"] == ([], None)
    assert found["daily_startup"] == (["23"], date(2026, 11, 23))


def test_a_range_that_nobody_can_mean_is_cut(fake: FakeAirflow, airflow: Airflow) -> None:
    fake.add_run(DAG, "wide", "success", conf={"from": "0001-01-01", "to": "9999-12-31"})
    fake.add_run(DAG, "back", "success", conf={"from": "2026-11-20", "to": "2026-11-18"})
    fake.add_run(DAG, "odd", "success", conf={"from": "2026-11-20", "to": "soon"})

    found = {run.id: len(run.days) for run in airflow.runs(DAG)}

    assert found == {"wide": 3_660, "back": 0, "odd": 0}


def test_a_run_without_days_has_those_of_the_lines_that_its_tasks_wrote() -> None:
    def line(by: str, day: date | None) -> Fact:
        return Fact(what="quality", day=day, state="passed", at=datetime.now(UTC), detail="", bad=False, by=by)

    runs = [LastRun(operation="data_quality", state="success", paused=False, run="r1"),
            LastRun(operation="backfill", state="never", paused=False)]  # fmt: skip
    facts = [line("airflow:data_quality/r1/expectations", date(2026, 11, 22)),
             line("airflow:data_quality/r10/expectations", date(2026, 11, 21)),
             line("airflow:data_quality/r1/expectations", None), line("cli:me", date(2026, 11, 20))]  # fmt: skip

    first, never = with_days(runs, facts)

    assert (first.day, first.days) == (date(2026, 11, 22), [date(2026, 11, 22)])
    assert never.days == []
