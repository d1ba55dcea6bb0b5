"""The few questions that `ssmd up` and `ssmd status` have for the local Airflow, over its REST API."""

import http.client
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from ssmd.errors import FatalError, Unavailable
from ssmd.local.airflow_access import Access

_TIMEOUT_S = 10.0
_CREATED = (200, 201)
_CONFLICT = 409
_NOT_IN = (401, 403)


def health(host: str, port: int, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """Status and last heartbeat of each part, as the API server sees them; None while it does not answer."""
    try:
        status, answer = _request(host, port, "GET", "/api/v2/monitor/health", timeout_s=timeout_s)
    except Unavailable:
        return None
    return answer if status == http.client.OK and isinstance(answer, dict) else None


class Run(msgspec.Struct, frozen=True):
    """A run of a DAG. `state`: queued, running, success or failed; `ended_at`: UTC, None while it has not."""

    id: str
    state: str
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Is it over?"""
        return self.state in ("success", "failed")

    def ended_before(self, moment: datetime) -> bool:
        """Was it over at `moment`?"""
        return self.ended and self.ended_at is not None and self.ended_at < moment


class AirflowApi:
    """A login. Every method raises Unavailable when the server does not answer, FatalError when it refuses."""

    def __init__(self, host: str, port: int, access: Access) -> None:
        self._host = host
        self._port = port
        self._access = access
        self._token = ""

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool; one that is there stays as it is, since its slots are the operator's to change."""
        pool = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        self._ask("POST", "/api/v2/pools", pool, allowed=(*_CREATED, _CONFLICT))

    def knows(self, dag: str) -> bool:
        """Has the DAG been read from its file?"""
        return self._ask("GET", f"/api/v2/dags/{quote(dag)}", allowed=(200, 404))[0] == http.client.OK

    def import_errors(self) -> list[str]:
        """Files that could not be read, each with the last line of why."""
        found = self._ask("GET", "/api/v2/importErrors?limit=20")[1]
        return [f"{one.get('filename')}: {_last_line(one.get('stack_trace'))}" for one in found["import_errors"]]

    def trigger(self, dag: str, run_id: str, logical_date: str, note: str) -> bool:
        """Start a run; False when it has a run of this id already. `logical_date` is ISO 8601."""
        body = {"dag_run_id": run_id, "logical_date": logical_date, "note": note}
        path = f"/api/v2/dags/{quote(dag)}/dagRuns"
        return self._ask("POST", path, body, allowed=(*_CREATED, _CONFLICT))[0] != _CONFLICT

    def latest_run(self, dag: str) -> Run | None:
        """The run that was begun last; None when there is none yet."""
        path = f"/api/v2/dags/{quote(dag)}/dagRuns?order_by=-id&limit=1"
        runs = self._ask("GET", path)[1]["dag_runs"]
        return _run_of(runs[0]) if runs else None

    def run(self, dag: str, run_id: str) -> Run:
        """How a run is now."""
        return _run_of(self._ask("GET", f"/api/v2/dags/{quote(dag)}/dagRuns/{quote(run_id, safe='')}")[1])

    def failed_tasks(self, dag: str, run_id: str) -> list[str]:
        """The tasks of a run that failed by themselves."""
        path = f"/api/v2/dags/{quote(dag)}/dagRuns/{quote(run_id, safe='')}/taskInstances?state=failed&limit=50"
        return [str(one["task_id"]) for one in self._ask("GET", path)[1]["task_instances"]]

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, allowed: tuple[int, ...] = _CREATED
    ) -> tuple[int, Any]:
        status, answer = _request(self._host, self._port, method, path, body, self._token)
        if status in _NOT_IN:  # no token yet, or it has expired
            self._log_in()
            status, answer = _request(self._host, self._port, method, path, body, self._token)
        if status not in allowed:
            raise FatalError(f"Airflow answered {status} to {method} {path}: {str(answer)[:200]}", "Read its logs.")
        return status, answer

    def _log_in(self) -> None:
        login = {"username": self._access.username, "password": self._access.password}
        status, answer = _request(self._host, self._port, "POST", "/auth/token", login)
        if status not in _CREATED or not isinstance(answer, dict) or "access_token" not in answer:
            raise FatalError(f"Airflow refuses the login of {self._access.username!r} ({status})", "Run: ssmd down")
        self._token = str(answer["access_token"])


def _request(
    host: str,
    port: int,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    token: str = "",
    timeout_s: float = _TIMEOUT_S,
) -> tuple[int, Any]:
    link = http.client.HTTPConnection(host, port, timeout=timeout_s)
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        link.request(method, path, msgspec.json.encode(body) if body is not None else None, headers)
        response = link.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"Airflow at {host}:{port} does not answer: {error}", "See: ssmd status") from error
    finally:
        link.close()
    try:
        return response.status, msgspec.json.decode(data) if data else None
    except msgspec.MsgspecError:
        return response.status, data[:200].decode(errors="replace")


def _run_of(answer: Mapping[str, Any]) -> Run:
    ended = answer.get("end_date")
    return Run(answer["dag_run_id"], answer["state"], datetime.fromisoformat(ended) if ended else None)


def _last_line(text: object) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"
