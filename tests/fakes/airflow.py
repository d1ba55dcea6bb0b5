"""An Airflow's REST API with a memory: DAGs, runs that go on with every look at them, tasks, and their findings."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

USERNAME, PASSWORD = "admin", "opensesame"


class FakeAirflow:
    """`script[dag]` is what each look at a run of that DAG shows: (state of the run, {task: state}); the last stays.

    `findings[task]` stands in the task's state store, `reasons[task]` in its log; `events[run]` are the extras of the
    asset events that started it. `fail_next` answers so many requests with that status; `calls` are the requests so
    far. A token that is not in `tokens` is answered with 401.
    """

    def __init__(self) -> None:
        self.version = "3.3.2"
        self.health: dict[str, dict[str, str | None]] = {
            "scheduler": {"status": "healthy"},
            "dag_processor": {"status": "healthy"},
        }
        self.paused: dict[str, bool] = {"daily_startup": False, "daily_teardown": False}
        self.script: dict[str, list[tuple[str, dict[str, str]]]] = {}
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.looks: dict[tuple[str, str], int] = {}
        self.findings: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.events: dict[str, list[Any]] = {}
        self.fail_next: list[int] = []
        self.calls: list[str] = []
        self.tokens: set[str] = set()
        self.server = _Server(self)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def add_run(self, dag: str, run: str, state: str, **fields: Any) -> None:
        """A run that somebody else asked for."""
        self.runs[dag, run] = {
            "dag_id": dag, "dag_run_id": run, "state": state, "run_type": "manual", "conf": {}, "note": None,
            "start_date": datetime.now(UTC).isoformat(), "end_date": None, "data_interval_start": None, **fields,
        }  # fmt: skip

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, token: str) -> tuple[int, Any]:
        """Status and document."""
        if self.fail_next:
            return self.fail_next.pop(0), {"detail": "out of order"}
        if path == "/api/v2/version":
            return 200, {"version": self.version, "git_version": None}
        if path == "/api/v2/monitor/health":
            return 200, self.health
        if path == "/auth/token":
            if (body or {}).get("username") != USERNAME or body.get("password") != PASSWORD:
                return 401, {"detail": "Invalid credentials"}
            self.tokens.add(f"token-{len(self.calls)}")
            return 201, {"access_token": f"token-{len(self.calls)}"}
        if token not in self.tokens:
            return 401, {"detail": "Not authenticated"}
        return self._dags(method, [unquote(part) for part in path.split("/")[4:]], query, body)

    def _dags(self, method: str, parts: list[str], query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        dag = parts[0]
        if dag not in self.paused:
            return 404, {"detail": f"The DAG with ID: `{dag}` was not found"}
        if len(parts) == 1:
            return 200, {"dag_id": dag, "is_paused": self.paused[dag]}
        if len(parts) == 2:
            return self._trigger(dag, body) if method == "POST" else self._list(dag, query)
        key = (dag, parts[2])
        if key not in self.runs:
            return 404, {"detail": "no such run"}
        if len(parts) == 3:
            return 200, self._look(key)
        if parts[3] == "upstreamAssetEvents":
            found = [{"asset_id": 1, "extra": extra} for extra in self.events.get(parts[2], [])]
            return 200, {"asset_events": found, "total_entries": len(found)}
        if len(parts) == 4:
            return 200, self._tasks(key)
        if parts[5] == "logs":
            said = {"event": "Task failed", "error_detail": [{"exc_value": self.reasons.get(parts[4], "")}]}
            return 200, {"content": [{"event": "::group::"}, said], "continuation_token": None}
        finding = self.findings.get(parts[4])
        if finding is None:
            return 404, {"detail": "Task state store key not found"}
        return 200, {"key": "findings", "value": finding, "updated_at": "2026-11-23T00:00:00Z", "expires_at": None}

    def _trigger(self, dag: str, body: Any) -> tuple[int, Any]:
        if "logical_date" not in body:
            return 422, {"detail": [{"msg": "Field required", "loc": ["body", "logical_date"]}]}
        if set(body["conf"]) - {"date", "feed"}:
            return 400, {"detail": "Invalid input for param"}
        if (dag, body["dag_run_id"]) in self.runs:
            return 409, {"detail": "Unique constraint violation"}
        self.add_run(dag, body["dag_run_id"], "queued", conf=body["conf"], note=body["note"])
        return 200, self.runs[dag, body["dag_run_id"]]

    def _list(self, dag: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        found = [run for (name, _), run in self.runs.items() if name == dag]
        found = [run for run in found if run["state"] in query.get("state", [run["state"]])]
        limit = int(query["limit"][0])
        return 200, {"dag_runs": found[::-1][:limit], "total_entries": len(found)}

    def _step(self, key: tuple[str, str]) -> tuple[str, dict[str, str]]:
        script = self.script.get(key[0], [("success", {})])
        return script[min(self.looks.get(key, 0), len(script) - 1)]

    def _look(self, key: tuple[str, str]) -> Any:
        self.looks[key] = self.looks.get(key, -1) + 1
        self.runs[key]["state"] = self._step(key)[0]
        return self.runs[key]

    def _tasks(self, key: tuple[str, str]) -> Any:
        tasks = [
            {"task_id": name.partition("[")[0], "map_index": int(name.partition("[")[2][:-1] or -1), "state": state,
             "try_number": 1, "duration": 1.25 if state in ("success", "failed") else None}
            for name, state in self._step(key)[1].items()
        ]  # fmt: skip
        return {"task_instances": tasks, "total_entries": len(tasks)}


@contextmanager
def fake_airflow() -> Iterator[FakeAirflow]:
    """One that answers on a free port."""
    airflow = FakeAirflow()
    threading.Thread(target=airflow.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield airflow
    finally:
        airflow.server.shutdown()
        airflow.server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, airflow: FakeAirflow) -> None:
        self.airflow = airflow
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _serve(self) -> None:
        airflow = self.server.airflow
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        parts = urlsplit(self.path)
        airflow.calls.append(f"{self.command} {parts.path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        status, document = airflow.answer(self.command, parts.path, parse_qs(parts.query), body, token)
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _serve

    def log_message(self, format: str, *args: Any) -> None:
        return
