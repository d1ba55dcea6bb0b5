"""The way from a running Airflow to the first successful runs, against a server that only pretends."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ssmd.local import airflow_start
from ssmd.local.airflow_access import Access
from ssmd.local.airflow_server import PROGRAMS
from ssmd.local.airflow_start import FIRST_RUN, AirflowStart, forget_old_logs
from ssmd.local.home import Home
from ssmd.local.supervisord import Control
from tests.fakes.supervisord import FakeSupervisord
from tests.unit.local.test_airflow_server import airflow

TASKS = [{"task_id": "sync", "state": "failed"}, {"task_id": "verify", "state": "upstream_failed"}]


class FakeAirflow:
    """Remembers pools and runs; a run ends as `ends` says when it is looked at for the second time."""

    def __init__(self) -> None:
        self.dags = {"secmaster_sync", "daily_startup"}
        self.runs: dict[str, dict[str, Any]] = {}
        self.pools: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.order: list[str] = []

    def answer(self, method: str, path: str, body: dict[str, Any], token: str) -> tuple[int, Any]:
        """The answer to one request."""
        path = path.partition("?")[0]
        if path == "/api/v2/monitor/health":
            return 200, {part: {"status": "healthy"} for part in ("metadatabase", "scheduler", "dag_processor")}
        if path == "/auth/token":
            return (201, {"access_token": "t"}) if body == {"username": "admin", "password": "pw"} else (401, {})
        if token != "Bearer t":
            return 401, {"detail": "Not authenticated"}
        words = path.removeprefix("/api/v2/").split("/")
        if words == ["pools"]:
            known = body["name"] in self.pools
            self.pools.setdefault(body["name"], body["slots"])
            return (409 if known else 201), body
        if words == ["importErrors"]:
            trace = "Traceback\n  …\nSyntaxError: invalid syntax\n"
            return 200, {"import_errors": [{"filename": "broken.py", "stack_trace": trace}]}
        dag = words[1]
        if dag not in self.dags:
            return 404, {}
        if words[2:] == ["dagRuns"] and method == "POST":
            self.order.append(dag)
            assert datetime.fromisoformat(body["logical_date"]).tzinfo is not None
            self.runs[dag] = {
                "dag_id": dag,
                "dag_run_id": body["dag_run_id"],
                "state": "queued",
                "end_date": None,
                "seen": 0,
            }
            return 200, self.runs[dag]
        if words[2:] == ["dagRuns"]:
            return 200, {"dag_runs": [self.runs[dag]] if dag in self.runs else []}
        if words[2:3] == ["dagRuns"] and words[4:] == ["taskInstances"]:
            return 200, {"task_instances": TASKS, "total_entries": len(TASKS)}
        if words[2:3] == ["dagRuns"]:
            run = self.runs[dag]
            run["seen"] += 1
            if run["seen"] > 1:
                run |= {"state": self.ends.get(dag, "success"), "end_date": datetime.now(UTC).isoformat()}
            return 200, run
        return 200, {"dag_id": dag}


@pytest.fixture
def fake() -> Iterator[tuple[FakeAirflow, int]]:
    state = FakeAirflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            code, answer = state.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state, server.server_port
        server.shutdown()
        thread.join()


class Stage:
    """A start whose `airflow db migrate` and supervisor are fakes."""

    def __init__(self, folder: Path, port: int, monkeypatch: pytest.MonkeyPatch, migrated: int = 0) -> None:
        package = folder / "path" / "airflow"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(f"import sys; print('migrating', sys.argv); sys.exit({migrated})")
        monkeypatch.setattr(airflow_start, "_LOOK_S", 0.01)
        self.home = Home(folder / "home")
        self.home.prepare()
        self.home.airflow.mkdir()
        self.port = port
        self.path = folder / "path"
        self.said: list[str] = []
        self.made: list[str] = []

    def run(self, socket: Path, names: Sequence[str] = PROGRAMS, password: str = "pw") -> AirflowStart:
        """To its end."""
        with FakeSupervisord(socket, "secret", list(names)) as fake:
            start = AirflowStart(
                airflow(self.home.root, port=self.port, url=f"http://127.0.0.1:{self.port}"), self.home,
                Access("http://x", "admin", password), lambda: Control(fake.path, "secret"),
                {"PYTHONPATH": str(self.path)}, self.made.append, self.said.append,
            )  # fmt: skip
            start.start()
            start._thread.join(20)
            assert start.ended
            self.states = dict(fake.states)
            return start


@pytest.fixture
def stage(tmp_path: Path, fake: tuple[FakeAirflow, int], monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, fake[1], monkeypatch)


def test_the_first_runs_are_triggered_once_and_told_in_order(
    stage: Stage, fake: tuple[FakeAirflow, int], tmp_path: Path
) -> None:
    state, _ = fake

    start = stage.run(tmp_path / "s.sock")

    assert start.well
    assert stage.made == ["airflow"]
    assert set(stage.states.values()) == {"RUNNING"}
    assert state.pools == {"ssmd_heavy": 2}
    assert state.order == ["secmaster_sync", "daily_startup"]
    assert [line.partition(" after")[0].partition(" (")[0] for line in stage.said] == [
        "✓ airflow    ready", "✓ airflow    secmaster_sync succeeded", "✓ airflow    daily_startup succeeded",
    ]  # fmt: skip
    assert {run["dag_run_id"] for run in state.runs.values()} == {FIRST_RUN}

    state.runs = {dag: run | {"end_date": "2026-01-01T00:00:00Z"} for dag, run in state.runs.items()}
    stage.said.clear()
    assert stage.run(tmp_path / "t.sock").well
    assert state.order == ["secmaster_sync", "daily_startup"]  # none is triggered again
    assert len(stage.said) == 1


def test_a_first_run_that_fails_is_named_with_its_task_and_the_next_is_not_begun(
    stage: Stage, fake: tuple[FakeAirflow, int], tmp_path: Path
) -> None:
    fake[0].ends["secmaster_sync"] = "failed"

    start = stage.run(tmp_path / "s.sock")

    assert not start.well
    assert stage.said[-1].startswith("✗ airflow    secmaster_sync failed (sync): http://127.0.0.1:")
    assert fake[0].order == ["secmaster_sync"]


def test_a_dag_that_cannot_be_read_is_told_with_its_error(
    stage: Stage, fake: tuple[FakeAirflow, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow_start, "DAGS_S", 0.1)
    fake[0].dags.clear()

    assert not stage.run(tmp_path / "s.sock").well
    assert stage.said[-1] == (
        "✗ airflow    there is no DAG secmaster_sync: broken.py: SyntaxError: invalid syntax"
    )  # fmt: skip


def test_a_migration_that_fails_starts_nothing_and_says_why(
    tmp_path: Path, fake: tuple[FakeAirflow, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, fake[1], monkeypatch, migrated=3)

    assert not stage.run(tmp_path / "s.sock").well
    assert "airflow db migrate ended with 3: migrating" in stage.said[-1]
    assert set(stage.states.values()) == {"STOPPED"}


def test_a_wrong_password_is_an_error_of_one_line(stage: Stage, tmp_path: Path) -> None:
    assert not stage.run(tmp_path / "s.sock", password="wrong").well
    assert stage.said[-1].startswith(
        f"✗ airflow    Airflow at http://127.0.0.1:{stage.port} refuses the login of 'admin': "
    )


def test_old_task_logs_are_forgotten_with_their_folders(tmp_path: Path) -> None:
    old, new = tmp_path / "dag_id=a" / "x" / "attempt=1.log", tmp_path / "dag_id=b" / "attempt=1.log"
    for path in (old, new):
        path.parent.mkdir(parents=True)
        path.touch()
    before = new.stat().st_mtime
    os.utime(old, (before - 100, before - 100))

    forget_old_logs(tmp_path, before - 50)

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["attempt=1.log", "dag_id=b"]
