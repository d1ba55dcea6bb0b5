"""What ran is written down whatever happens, alerts open and close, and what silently did not run is named."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ssmd.cli.checking import checking
from ssmd.cli.main import main
from ssmd.cli.options import Chosen, choose
from ssmd.clock import NS_PER_S, day_start_ns
from ssmd.errors import Busy, ConfigError, RefusedError, Unavailable
from ssmd.registry.alerts import Alerts
from ssmd.registry.check_board import read_board
from ssmd.registry.checks import WANTED, CheckRun, CheckRuns
from ssmd.registry.database import Database
from ssmd.registry.day_locks import DayLocks
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.postgres import PostgresRegistry
from tests.databases import Database as Server
from tests.servers import free_port

pytestmark = pytest.mark.integration

FEED = "kalshi"
TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=1)
Output = pytest.CaptureFixture[str]


def environment(folder: Path, url: str, name: str = "checks") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(
        f"apiVersion: ssmd/v1\nkind: Environment\nmetadata: {{name: {name}}}\nspec:\n  feed: kalshi\n"
        "  keys: {kalshi: {type: api_key, required: true, fields: [api_key, api_secret]}}\n"
        f"  database: {{url: {json.dumps(url)}}}\n  middleware:\n    transport: {{type: memory}}\n"
        f"    storage: {{type: local, path: {json.dumps(str(folder / 'storage'))}}}\n"
        "    cache: {type: memory}\n    journal: {type: memory}\n"
    )
    return file


class Desk:
    """A person at a shell, with a database of their own."""

    def __init__(self, folder: Path, server: Server, output: Output) -> None:
        self.folder = folder
        self.url = server.fresh()
        self.server = server
        self.file = environment(folder, self.url)
        self.database = Database(self.url)
        self.runs = CheckRuns(self.database)
        self.alerts = Alerts(self.database)
        self._output = output

    @property
    def chosen(self) -> Chosen:
        return choose(self.file)

    def of(self, day: date = DAY) -> list[CheckRun]:
        return self.runs.of_days(FEED, day, day)

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        self._output.readouterr()
        assert main([*words, "--env", str(self.file)]) == code
        said = self._output.readouterr()
        return said.out, said.err

    def open(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("ops", "alerts", "--json")[0])
        return found

    def archive_begins(self, day: date) -> None:
        start = day_start_ns(day)
        record = ObjectRecord("ssmd-raw", f"k/{day}", "raw", "trades", day, "0" * 64, 10, 5, start, start + NS_PER_S)
        registry = PostgresRegistry(self.url)
        registry.record_objects(FEED, [record])
        registry.close()


@pytest.fixture
def desk(tmp_path: Path, postgres: Server, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    for name in ("SSMD_ENV", "SSMD_TRIGGER", "SSMD_TRIGGERED_BY"):
        monkeypatch.delenv(name, raising=False)
    made = Desk(tmp_path, postgres, capsys)
    yield made
    made.database.close()


# --- what ran ---


def test_a_run_is_there_while_it_runs_and_says_how_it_ended(desk: Desk) -> None:
    with checking(desk.chosen, "verify", FEED, DAY) as check:
        [running] = desk.of()
        assert (running.state, running.completed_at, running.exit_code) == ("running", None, None)
        check.end(6, findings=3, summary="3 findings\x1b[2J", detail={"checks": {"raw": "ran\x00"}})

    [run] = desk.of()
    assert (run.id, run.check, run.day, run.state, run.exit_code) == (running.id, "verify", DAY, "findings", 6)
    assert run.findings == 3
    assert "\x1b" not in run.summary
    assert run.detail is not None
    assert run.detail["checks"]["raw"].startswith("ran")
    assert run.completed_at is not None
    assert run.completed_at >= run.started_at
    assert (run.trigger, run.triggered_by[:4]) == ("manual", "cli:")


@pytest.mark.parametrize(
    ("code", "findings", "not_run", "state"),
    [
        (0, 0, False, "passed"), (6, 1, False, "findings"), (3, 2, False, "findings"), (3, 0, False, "failed"),
        (7, 0, False, "failed"), (1, 0, False, "failed"), (0, 0, True, "not_run"),
    ],
)  # fmt: skip
def test_how_an_exit_code_reads(desk: Desk, code: int, findings: int, not_run: bool, state: str) -> None:
    with checking(desk.chosen, "quality", FEED, DAY) as check:
        check.end(code, findings=findings, not_run=not_run)

    assert [(run.state, run.exit_code) for run in desk.of()] == [(state, code)]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no such\nday", "hint"), 2, "no such day"), (Unavailable("storage is away"), 7, "storage is away"),
        (RefusedError("no"), 3, "no"), (KeyError("boom"), 70, "KeyError: 'boom'"), (KeyboardInterrupt(), 130, "interr"),
        (ExceptionGroup("several", [ValueError("x"), Unavailable("broker")]), 7, "broker"),
    ],
)  # fmt: skip
def test_an_exception_is_a_failure_with_its_sentence_and_passes(
    desk: Desk, error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMD_TRIGGER", "scheduled")
    with pytest.raises(type(error)), checking(desk.chosen, "backfill", FEED, DAY):
        raise error

    [run] = desk.of()
    assert (run.state, run.exit_code) == ("failed", code)
    assert said in run.summary


def test_a_check_that_forgets_to_say_how_it_ended_has_failed(desk: Desk) -> None:
    with checking(desk.chosen, "health", FEED):
        pass

    assert [(run.state, run.exit_code) for run in desk.of(TODAY)] == [("failed", 70)]


def test_the_scheduler_says_who_called(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_TRIGGER", "scheduled")
    monkeypatch.setenv("SSMD_TRIGGERED_BY", "airflow:archive_verification/run/verify")
    with checking(desk.chosen, "verify", FEED, DAY) as check:
        check.end(0)
    monkeypatch.setenv("SSMD_TRIGGER", "'; DROP TABLE check_runs")
    with checking(desk.chosen, "compact", FEED, DAY) as check:
        check.end(0)

    assert [(run.trigger, run.triggered_by) for run in desk.of()] == [
        ("scheduled", "airflow:archive_verification/run/verify"),
        ("manual", "airflow:archive_verification/run/verify"),
    ]


def test_nothing_is_noted_of_a_feed_that_nobody_knows(desk: Desk, capsys: Output) -> None:
    with checking(desk.chosen, "verify", "kalsi", DAY) as check:
        check.end(0)

    assert desk.runs.latest(FEED) == []
    assert capsys.readouterr().err == ""


def test_a_database_that_is_away_stops_no_check_and_is_said_once(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    url = f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd"
    ran = False
    with checking(choose(environment(tmp_path, url)), "verify", FEED, DAY) as check:
        ran = True
        check.end(0)

    assert ran
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "not noted" in said


def test_what_ended_after_the_database_came_back_is_noted_whole(tmp_path: Path, desk: Desk, capsys: Output) -> None:
    renamed = desk.url.rpartition("/")[2]
    desk.database.close()
    desk.server.run(f"ALTER DATABASE {renamed} RENAME TO {renamed}_hidden")
    with checking(desk.chosen, "verify", FEED, DAY) as check:
        desk.server.run(f"ALTER DATABASE {renamed}_hidden RENAME TO {renamed}")
        check.end(0, summary="all well")

    [run] = desk.of()
    assert (run.state, run.summary) == ("passed", "all well")
    assert run.started_at <= (run.completed_at or run.started_at)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_persons_request_that_is_refused_is_no_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a day without an archive, say: it would stand as a failed check that nothing can put right."""
    desk.archive_begins(DAY)
    desk.run("data", "verify", "--date", str(DAY - timedelta(days=2)), code=2)
    monkeypatch.setenv("SSMD_TRIGGER", "manual")
    desk.run("data", "verify", "--date", str(DAY - timedelta(days=2)), code=2)
    desk.run("data", "compact", "--date", str(DAY - timedelta(days=2)), code=2)
    desk.run("data", "backfill", "--from", str(DAY - timedelta(days=2)), code=2)

    assert desk.runs.of_days(FEED, DAY - timedelta(days=9), TODAY) == []
    monkeypatch.setenv("SSMD_TRIGGER", "scheduled")
    desk.run("data", "verify", "--date", str(DAY - timedelta(days=2)), code=2)
    assert [run.exit_code for run in desk.of(DAY - timedelta(days=2))] == [2]


@pytest.mark.parametrize("trigger", ["manual", "scheduled"])
def test_a_busy_day_leaves_its_checks_as_they_stood(desk: Desk, trigger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_TRIGGER", trigger)
    for name in ("compact", "verify"):
        with checking(desk.chosen, name, FEED, DAY) as check:
            check.end(0)
    desk.archive_begins(DAY)
    with DayLocks(desk.database).hold(FEED, DAY, "backfill"):
        for command in ("compact", "verify"):
            said = desk.run("data", command, "--date", str(DAY), code=7)[1]
            assert f"{DAY} of kalshi is being worked on: ssmd backfill on" in said
            assert "run this again" in said

    assert [(run.check, run.state) for run in desk.of()] == [("compact", "passed"), ("verify", "passed")]


def test_what_is_busy_in_a_group_of_errors_is_no_run_either(desk: Desk) -> None:
    with pytest.raises(ExceptionGroup), checking(desk.chosen, "verify", FEED, DAY):
        raise ExceptionGroup("several", [ValueError("x"), Busy("at it")])

    assert desk.of() == []


def test_commands_note_themselves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_TRIGGER", "scheduled")
    desk.run("data", "verify", "--date", str(DAY), code=2)
    desk.run("data", "compact", "--date", str(DAY), code=2)
    desk.run("key", "verify", "checks", code=3)

    by_name = {run.check: run for run in [*desk.of(), *desk.of(TODAY)]}
    assert {name: (run.state, run.exit_code) for name, run in by_name.items()} == {
        "verify": ("failed", 2),
        "compact": ("failed", 2),
        "key_verify": ("findings", 3),
    }
    assert "No data inventory" in by_name["verify"].summary
    assert by_name["key_verify"].summary == "kalshi not set"


# --- alerts ---


def raised(desk: Desk, state: str, **options: str) -> None:
    words = [f"--{name}={value}" for name, value in options.items()]
    desk.run("ops", "alert", "--operation", "archive_verification", "--state", state, *words)


def test_an_alert_is_open_until_its_task_goes_well_for_that_day(desk: Desk) -> None:
    raised(desk, "failed", task="verify", run="r1", date=str(DAY), summary="exit code 1")
    raised(desk, "failed", task="verify", run="r1", date=str(TODAY))

    raised(desk, "ok", task="other", run="r2", date=str(DAY))
    assert len(desk.open()) == 2
    raised(desk, "ok", task="verify", run="r2", date=str(DAY))

    [left] = desk.open()
    assert (left["day"], left["operation"], left["task"]) == (str(TODAY), "archive_verification", "verify")


def test_the_same_alert_again_says_the_new_state_and_is_not_a_second_one(desk: Desk) -> None:
    raised(desk, "failed", task="verify", run="r1", date=str(DAY), summary="away")
    raised(desk, "findings", task="verify", run="r2", date=str(DAY), summary="2 findings")

    [alert] = desk.open()
    assert (alert["state"], alert["run"], alert["summary"]) == ("findings", "r2", "2 findings")


def test_the_end_of_a_run_does_not_take_back_what_its_task_found(desk: Desk) -> None:
    raised(desk, "findings", task="verify", run="r1", date=str(DAY))
    raised(desk, "failed", run="r0", date=str(DAY))
    raised(desk, "ok", run="r1", date=str(DAY))
    assert [alert["state"] for alert in desk.open()] == ["findings"]

    raised(desk, "ok", run="r2", date=str(DAY))
    assert desk.open() == []


def test_a_good_sync_of_today_closes_yesterdays_alert(desk: Desk) -> None:
    for operation in ("secmaster_sync", "data_quality"):
        desk.alerts.report("checks", operation, "failed", day=DAY)
        desk.alerts.went_well("checks", operation, day=TODAY)

    assert [alert["operation"] for alert in desk.open()] == ["data_quality"]


def test_a_person_closes_an_alert_and_it_is_still_in_the_history(desk: Desk) -> None:
    raised(desk, "skipped", date=str(DAY))
    [alert] = desk.open()

    desk.run("ops", "alerts", "--close", str(alert["id"]))

    assert desk.open() == []
    assert "no open alert" in desk.run("ops", "alerts", "--close", str(alert["id"]), code=2)[1]
    [closed] = json.loads(desk.run("ops", "alerts", "--all", "--json")[0])
    assert closed["resolved_at"]


def test_many_alerts_are_closed_at_once(desk: Desk) -> None:
    numbers = [str(desk.alerts.report("checks", f"dag_{number}", "failed")) for number in range(5)]
    other = desk.alerts.report("elsewhere", "dag_0", "failed")

    refused = desk.run("ops", "alerts", "--close", numbers[0], str(other), code=2)[1]
    assert f"no open alert {other}; none was closed" in refused
    assert len(desk.open()) == 5

    closed = json.loads(desk.run("ops", "alerts", "--close", numbers[0], numbers[2], "--json")[0])
    assert [str(alert["id"]) for alert in closed] == [numbers[2], numbers[0]]
    assert len(desk.open()) == 3
    assert len(json.loads(desk.run("ops", "alerts", "--close", "--all", "--json")[0])) == 3
    assert desk.open() == []
    assert "no alert of checks is open" in desk.run("ops", "alerts", "--close", "--all")[1]
    assert len(desk.alerts.open("elsewhere")) == 1


@pytest.mark.parametrize("words", [["--close"], ["--close", "1", "--all"], ["--close", "-1"], ["--close", "0"]])
def test_alerts_to_close_are_named_or_all(words: list[str], desk: Desk) -> None:
    desk.alerts.report("checks", "dag", "failed")

    desk.run("ops", "alerts", *words, code=2)

    assert len(desk.open()) == 1


@pytest.mark.parametrize("text", ["'; DROP TABLE operation_alerts; --", "a\nb", "\x1b[2J", "x" * 10_000, "\udc80"])
def test_any_text_is_kept_as_text(desk: Desk, text: str) -> None:
    code = 0 if text.strip() else 2
    desk.run("ops", "alert", f"--operation={text}", "--state=failed", f"--summary={text}", f"--task={text}", code=code)

    [alert] = desk.open()
    assert "\x1b" not in alert["operation"] + alert["summary"]
    assert len(alert["operation"]) <= 64


def test_an_alert_without_an_operation_or_of_another_feed_is_refused(desk: Desk) -> None:
    assert "--operation is empty" in desk.run("ops", "alert", "--operation= ", "--state=failed", code=2)[1]
    assert "kraken" in desk.run("ops", "alert", "--operation=x", "--state=failed", "--feed=kraken", code=2)[1]
    assert desk.open() == []


# --- the dead man ---


def done(desk: Desk, *checks: str, day: date = DAY, code: int = 0) -> None:
    for check in checks:
        run = desk.runs.start(FEED, check, day)  # type: ignore[arg-type]
        desk.runs.finish(run, "findings" if code == 6 else "passed" if code == 0 else "failed", exit_code=code)


def test_a_check_that_did_not_run_is_named_with_its_command(desk: Desk) -> None:
    desk.archive_begins(DAY)
    done(desk, "compact")
    done(desk, "verify", code=6)

    said, _ = desk.run("quality", "ran", code=3)
    assert [line[0] for line in said.splitlines()] == ["✓", "✓", "✗"]
    assert f"ssmd quality run --feed kalshi --date {DAY}" in said
    rows = json.loads(desk.run("quality", "ran", "--json", code=3)[0])
    assert [(row["check"], row["ran"]) for row in rows] == [("compact", True), ("verify", True), ("quality", False)]

    done(desk, "quality")
    desk.run("quality", "ran")


def test_killed_failed_and_unable_checks_did_not_run(desk: Desk) -> None:
    desk.archive_begins(DAY)
    desk.runs.start(FEED, "compact", DAY)
    done(desk, "verify", code=7)
    run = desk.runs.start(FEED, "quality", DAY)
    desk.runs.finish(run, "not_run", exit_code=0, summary="nobody to ask")

    said, _ = desk.run("quality", "ran", "--date", str(DAY), code=3)
    assert "was killed" in said
    assert "(failed, exit code 7)" in said
    assert "(not run, exit code 0): nobody to ask" in said


def test_a_failure_after_a_good_run_is_told_with_both(desk: Desk) -> None:
    desk.archive_begins(DAY)
    done(desk, "compact", "verify", "quality")
    done(desk, "quality", code=70)
    done(desk, "quality", code=70)

    said, _ = desk.run("quality", "ran", code=3)

    assert [line[0] for line in said.splitlines()] == ["✓", "✓", "✗"]
    assert "(failed, exit code 70)" in said
    assert "before that, at " in said
    assert "it ran, passed" in said
    board = read_board(desk.database, FEED, "", TODAY)
    assert {check: run.state for check in WANTED if (run := board.last(check))} == {
        "compact": "passed", "verify": "passed", "quality": "failed",
    }  # fmt: skip

    done(desk, "quality", code=6)
    desk.run("quality", "ran")


def test_a_run_that_goes_on_does_not_hide_the_last_that_ended(desk: Desk) -> None:
    desk.archive_begins(DAY)
    done(desk, "compact", "verify", "quality")
    desk.runs.start(FEED, "quality", DAY)
    desk.run("quality", "ran")

    done(desk, "verify", code=1)
    desk.runs.start(FEED, "verify", DAY)
    assert "(failed, exit code 1)" in desk.run("quality", "ran", code=3)[0]
    last = read_board(desk.database, FEED, "", TODAY).last("verify")
    assert last is not None
    assert last.state == "failed"


def test_of_two_runs_side_by_side_the_one_that_ended_last_decides(desk: Desk) -> None:
    desk.archive_begins(DAY)
    done(desk, "compact", "quality")
    long = desk.runs.start(FEED, "verify", DAY)
    done(desk, "verify")
    desk.runs.finish(long, "failed", exit_code=1, summary="raw is damaged")

    assert "raw is damaged" in desk.run("quality", "ran", code=3)[0]
    last = read_board(desk.database, FEED, "", TODAY).last("verify")
    assert last is not None
    assert last.id == long


def test_before_the_archive_begins_nothing_had_to_run_and_after_it_everything(desk: Desk) -> None:
    assert "nothing is archived yet" in desk.run("quality", "ran")[0]
    desk.archive_begins(TODAY)
    assert f"the archive begins on {TODAY}" in desk.run("quality", "ran")[0]
    desk.archive_begins(DAY - timedelta(days=3))
    desk.run("quality", "ran", code=3)  # nothing was captured yesterday, and nobody looked


def test_a_day_that_is_not_over_and_an_unknown_feed_are_refused(desk: Desk) -> None:
    assert "is not over" in desk.run("quality", "ran", "--date", str(TODAY), code=2)[1]
    assert "is not over" in desk.run("quality", "ran", "--date", "9999-12-31", code=2)[1]
    assert "Did you mean 'kalshi'?" in desk.run("quality", "ran", "--feed", "kalsi", code=2)[1]


def test_without_a_database_the_dead_man_says_so(desk: Desk) -> None:
    desk.file = environment(desk.folder, f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd", "away")
    desk.run("quality", "ran", code=7)
    desk.run("ops", "alert", "--operation=x", "--state=failed", code=7)
