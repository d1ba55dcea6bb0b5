"""Starts and stops in the deployment log of a real database, and what `ssmd ops` shows of them."""

import json
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ssmd.cli.main import main
from ssmd.registry.database import Database as Registry
from ssmd.registry.operations import OperationLog
from tests.databases import Database
from tests.fakes.operated_services import operated_services
from tests.unit.cli.test_ops import Place

pytestmark = pytest.mark.integration

DAY = date(2026, 11, 23)


@pytest.fixture
def place(tmp_path: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    place.url = postgres.fresh()
    place.write(f'database: {{url: "{place.url}"}}')
    monkeypatch.setenv("SSMD_HOME", str(place.home.root))
    for name in ("SSMD_ENV", "SSMD_TRIGGER", "SSMD_TRIGGERED_BY"):
        monkeypatch.delenv(name, raising=False)
    return place


def test_a_line_is_begun_and_ended_and_belongs_to_its_environment(postgres: Database) -> None:
    registry = Registry(postgres.fresh())
    log = OperationLog(registry, "here")
    began = datetime.now(UTC) - timedelta(minutes=5)

    done = log.start("startup", "connector", DAY, trigger="scheduled", by="airflow:daily_startup/" + "r" * 240)
    failed = log.start("teardown", None, DAY, trigger="manual", by="a\x00b", started_at=began)
    log.finish(done)
    log.finish(failed, "no answer\x00" * 1_000)

    last, first = log.latest()
    assert (first.service, first.status, first.trigger, first.day) == ("connector", "completed", "scheduled", DAY)
    assert first.triggered_by is not None
    assert len(first.triggered_by) == 250
    assert (last.service, last.status, last.started_at) == (None, "failed", began)
    assert last.error is not None
    assert last.completed_at is not None
    assert len(last.error) <= 2_000
    assert OperationLog(registry, "elsewhere").latest() == []
    registry.close()


def test_each_step_stands_in_the_log_with_what_triggered_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with operated_services(tmp_path, place.home.root) as services:
        place.stack(services)
        assert place.ssmd("start", "archiver") == 0
        monkeypatch.setenv("SSMD_TRIGGER", "scheduled")
        monkeypatch.setenv("SSMD_TRIGGERED_BY", "airflow:daily_teardown/r1/flush_archiver")
        assert place.ssmd("stop", "archiver") == 0
        services.ends["archiver"] = 2
        assert place.ssmd("start", "archiver") == 2
    capsys.readouterr()

    assert place.ssmd("history", "--json") == 0

    lines = json.loads(capsys.readouterr().out)
    assert [(line["action"], line["service"], line["status"], line["trigger"]) for line in lines] == [
        ("startup", "archiver", "failed", "scheduled"),
        ("teardown", "archiver", "completed", "scheduled"),
        ("startup", "archiver", "completed", "manual"),
    ]
    assert lines[0]["error"].startswith("archiver ended (exit code 2)")
    assert lines[1]["triggered_by"] == "airflow:daily_teardown/r1/flush_archiver"
    assert lines[2]["triggered_by"].startswith("cli:")
    assert place.ssmd("history", "--limit", "0") == 2
    capsys.readouterr()
    assert main(["env", "history", "here", "--env", str(place.file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deployments"] == []  # of versions, and there was none


def test_open_alerts_are_shown_until_they_are_resolved(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    about = ["alert", "--operation", "data_quality", "--task", "expectations", "--run", "r1", "--date", "2026-11-22"]
    assert place.ssmd(*about, "--state", "failed", "--summary", "an \x1b[31mexception") == 0
    capsys.readouterr()

    assert place.ssmd("status") == 6
    said = capsys.readouterr().out
    assert "✗ data_quality/expectations 2026-11-22 · failed" in said
    assert "\x1b" not in said

    assert place.ssmd(*about, "--state", "ok") == 0
    capsys.readouterr()
    assert place.ssmd("status") == 0
    assert "alerts: none is open" in capsys.readouterr().out


def test_an_operation_whose_process_was_killed_is_aborted_from_the_first_look_on(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with operated_services(tmp_path, place.home.root) as services:
        place.stack(services)
        services.up("connector")
        services.stubborn.add("connector")
        words = [sys.executable, "-m", "ssmd", "ops", "stop", "connector", "--yes", "--env", str(place.file)]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
            deadline = time.monotonic() + 30
            while "stop connector" not in services.orders and time.monotonic() < deadline:
                time.sleep(0.02)
            at_work = history(place, capsys)[0]
            killed.kill()
        before = datetime.now(UTC)
        first, again = history(place, capsys)[0], history(place, capsys)[0]
        services.stubborn.clear()
        assert place.ssmd("stop", "connector") == 0

    assert (at_work["status"], at_work["completed_at"], at_work["ended_by"]) == ("started", None, None)
    assert (first["status"], first["completed_at"]) == ("aborted", None)
    assert before - timedelta(seconds=5) <= datetime.fromisoformat(first["ended_by"]) <= datetime.now(UTC)
    assert first["error"].startswith("it never told its end")
    assert again == first
    assert [line["status"] for line in history(place, capsys)] == ["completed", "aborted"]
    assert place.ssmd("history") == 0
    assert f"\taborted\tbefore {first['ended_by'][:10]}" in capsys.readouterr().out
    place.ssmd("status")
    said = capsys.readouterr().out
    assert "✗ teardown connector" in said
    assert "aborted" in said
    assert "over before" in said


def test_where_nobody_can_look_a_later_completed_operation_of_the_service_tells(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(place.url)
    log = OperationLog(registry, "here")
    away = "another-machine:boot:1:2:3"
    lost = log.start("teardown", "connector", DAY, trigger="manual", by="a", process=away)
    whole = log.start("teardown", None, DAY, trigger="manual", by="a")
    log.finish(log.start("startup", "gateway", DAY, trigger="manual", by="a"))
    log.finish(log.start("startup", "connector", DAY, trigger="manual", by="a"), "failed")
    assert {line["id"] for line in history(place, capsys) if line["status"] == "started"} == {lost, whole}

    retry = log.start("teardown", "connector", DAY, trigger="manual", by="a", process=away)
    assert history(place, capsys)[0]["status"] == "started"
    log.finish(retry)
    lines = {line["id"]: line for line in history(place, capsys)}

    assert (lines[lost]["status"], lines[lost]["ended_by"]) == ("aborted", lines[retry]["completed_at"])
    assert lines[whole]["status"] == "started"
    log.finish(lost)  # it was only slow
    found = next(line for line in history(place, capsys) if line["id"] == lost)
    assert (found["status"], found["ended_by"], found["error"]) == ("completed", None, None)
    registry.close()


def test_the_first_run_of_a_new_airflow_is_not_called_manual(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(place.url)
    log = OperationLog(registry, "here")
    for run in ("first_start", "ops__2026-11-23__x", "first_start_of_mine"):
        by = f"airflow:daily_startup/{run}/start_connector"
        log.finish(log.start("startup", "connector", DAY, trigger="manual", by=by))
    registry.close()

    assert [line["trigger"] for line in history(place, capsys)] == ["manual", "manual", "first_start"]


def history(place: Place, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `ssmd ops history` answers."""
    capsys.readouterr()
    assert place.ssmd("history", "--json") == 0
    lines: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return lines
