"""Airflow's REST API (3.3 and later 3.x), as far as ssmd needs it: runs of DAGs, their tasks, pools, its health."""

import http.client
import ssl
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ssmd.errors import ConfigError, FatalError, RefusedError, Unavailable

OLDEST, NEXT = (3, 3), (4, 0)
TIMEOUT_S = 10.0
ACTIVE = ("queued", "running")
_MOST_RUNS = 25
_MOST_TASKS = 100
_MOST_DAYS = 3_660
_MOST_SAID = 500
AWAY_HINT = "Start it with: ssmd up, or do the steps without it: add --no-airflow"


class Login(NamedTuple):
    """Who asks."""

    username: str
    password: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a DAG. `state`: queued, running, success, failed; `day` as it was asked for, else of its interval.

    `days`: that day, or all of the range that was asked for; [] where the run does not say them itself.
    """

    dag: str
    id: str
    state: str
    run_type: str
    day: date | None
    started_at: datetime | None
    ended_at: datetime | None
    note: str
    days: list[date] = []

    @property
    def active(self) -> bool:
        """Is it at work, or waiting for it?"""
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        """Is it over?"""
        return self.state in ("success", "failed")

    def ended_before(self, moment: datetime) -> bool:
        """Was it over at `moment`?"""
        return self.ended and self.ended_at is not None and self.ended_at < moment


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a run, or one of the many that a mapped task became. `state` "": not reached yet."""

    id: str
    index: int
    state: str
    tries: int
    seconds: float | None

    @property
    def name(self) -> str:
        """For people."""
        return self.id if self.index < 0 else f"{self.id}[{self.index}]"


class _Answer(NamedTuple):
    status: int
    body: Any


class Airflow:
    """One Airflow. Methods raise Unavailable when it does not answer, ConfigError when it is not one that we know.

    `url` is its web page's, a path before `/api` included; `hint` says what helps when it does not answer.
    """

    def __init__(self, url: str, login: Login, timeout_s: float = TIMEOUT_S, hint: str = AWAY_HINT) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._secure = parts.scheme == "https"
        self._netloc = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._login = login
        self._timeout_s = timeout_s
        self._hint = hint
        self._token = ""

    def check_version(self) -> str:
        """Its version, one that ops can talk to; ConfigError otherwise."""
        answer = self._send("GET", "/api/v2/version")
        said = answer.body.get("version") if isinstance(answer.body, dict) and answer.status == http.client.OK else None
        if not isinstance(said, str):
            raise ConfigError(
                f"{self.url} is no Airflow of version 3.3 or later: GET /api/v2/version answers {answer.status}",
                "Correct spec.airflow.url, or do the steps without it: add --no-airflow",
            )
        numbers = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
        if len(numbers) < 2 or not OLDEST <= numbers < NEXT:
            raise ConfigError(
                f"Airflow at {self.url} is version {said[:40]!r}, and ssmd works with 3.3 and later 3.x",
                "Use such an Airflow, or do the steps without it: add --no-airflow",
            )
        return said

    def ailing(self) -> list[str]:
        """Parts of it without which no task runs, and that do not report: scheduler, DAG processor."""
        parts = self.parts() or {}
        wanted = ("scheduler", "dag_processor")
        return [name for name in wanted if (parts.get(name) or {}).get("status") not in ("healthy", None)]

    def parts(self) -> dict[str, Any] | None:
        """Status and last heartbeat of each part; None when it answers something else. Needs no login."""
        answer = self._send("GET", "/api/v2/monitor/health")
        return answer.body if answer.status == http.client.OK and isinstance(answer.body, dict) else None

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool; one that is there stays as it is, since its slots are the operator's to change."""
        pool = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        self._ask("POST", "/api/v2/pools", pool, allowed=(200, 201, 409))

    def import_errors(self) -> list[str]:
        """Files of DAGs that could not be read, each with the last line of why."""
        found = self._ask("GET", "/api/v2/importErrors?limit=20").body["import_errors"]
        return [f"{one.get('filename')}: {_last_line(one.get('stack_trace'))}" for one in found]

    def knows(self, dag: str) -> bool:
        """Has the DAG been read from its file?"""
        answer = self._ask("GET", f"/api/v2/dags/{_part(dag)}", allowed=(200, 404))
        return answer.status == http.client.OK

    def paused(self, dag: str) -> bool:
        """Is the DAG paused? ConfigError when there is no such DAG."""
        answer = self._ask("GET", f"/api/v2/dags/{_part(dag)}", allowed=(200, 404))
        if answer.status == http.client.NOT_FOUND:
            raise ConfigError(
                f"Airflow at {self.url} knows no DAG {dag!r}",
                f"Put the files of dags/ where it looks for them, and see {self.url}/dags for errors in them.",
            )
        return bool(answer.body.get("is_paused"))

    def runs(self, dag: str, *, active: bool = False, limit: int = _MOST_RUNS) -> list[Run]:
        """The last runs, the latest first; [] where there is no such DAG. `active`: only those that are not done."""
        query = [("order_by", "-run_after"), ("limit", str(limit)), *(("state", state) for state in ACTIVE if active)]
        path = f"/api/v2/dags/{_part(dag)}/dagRuns?{urlencode(query)}"
        answer = self._ask("GET", path, allowed=(200, 404))
        if answer.status == http.client.NOT_FOUND:
            return []
        return [_run(one) for one in answer.body["dag_runs"]]

    def run(self, dag: str, run: str) -> Run:
        """One run as it is now."""
        return _run(self._ask("GET", self._run_path(dag, run)).body)

    def event_days(self, dag: str, run: str) -> list[date]:
        """The days of the archive whose events have started a run; [] when none has, or the user may not see them."""
        answer = self._ask("GET", f"{self._run_path(dag, run)}/upstreamAssetEvents", allowed=(200, 403, 404))
        events = answer.body.get("asset_events") if answer.status == http.client.OK else None
        said = [_iso_day((event.get("extra") or {}).get("day")) for event in events or []]
        return sorted({day for day in said if day is not None})

    def trigger(
        self, dag: str, run: str, conf: Mapping[str, Any], note: str, logical_date: datetime | None = None
    ) -> Run:
        """Ask for a run; RefusedError when there is one of this id already, ConfigError when Airflow rejects `conf`."""
        body = {"dag_run_id": run, "logical_date": logical_date, "conf": conf, "note": note}
        answer = self._ask("POST", f"/api/v2/dags/{_part(dag)}/dagRuns", body, allowed=(200, 201, 400, 404, 409, 422))
        if answer.status == http.client.CONFLICT:
            raise RefusedError(f"{dag} has a run {run!r} already", f"See {self.page(dag, run)}")
        if answer.status >= http.client.BAD_REQUEST:
            raise ConfigError(
                f"Airflow does not accept a run of {dag} with {dict(conf)}: {_said(answer)}",
                "Its DAG files may be of another version of ssmd than this command.",
            )
        return _run(answer.body)

    def tasks(self, dag: str, run: str) -> list[Task]:
        """All tasks of a run as they are now."""
        found: list[Task] = []
        while True:
            path = f"{self._run_path(dag, run)}/taskInstances?limit={_MOST_TASKS}&offset={len(found)}&order_by=id"
            body = self._ask("GET", path).body
            page = body["task_instances"]
            found += [_task(one) for one in page]
            if not page or len(found) >= body["total_entries"]:
                return found

    def findings(self, dag: str, run: str, task: Task) -> str | None:
        """What a task that ended well has found (exit code 6), in its own words; None when it found nothing."""
        path = f"{self._run_path(dag, run)}/taskInstances/{_part(task.id)}/state-store/findings?map_index={task.index}"
        answer = self._ask("GET", path, allowed=(200, 404))
        return str(answer.body.get("value")) if answer.status == http.client.OK else None

    def reason(self, dag: str, run: str, task: Task) -> str:
        """Why a task failed, by the last error of its last try's log; "" where the log does not say."""
        path = f"{self._run_path(dag, run)}/taskInstances/{_part(task.id)}/logs/{max(task.tries, 1)}"
        answer = self._ask("GET", f"{path}?map_index={task.index}", allowed=(200, 404))
        lines = answer.body.get("content") if isinstance(answer.body, dict) else None
        details = [line.get("error_detail") for line in lines or [] if isinstance(line, dict)]
        said = [detail[-1].get("exc_value") for detail in details if isinstance(detail, list) and detail]
        return " ".join(str(said[-1] or "").split())[:_MOST_SAID] if said else ""

    def page(self, dag: str, run: str = "", task: Task | None = None) -> str:
        """Where a person sees it."""
        address = f"{self.url}/dags/{_part(dag)}"
        if run:
            address += f"/runs/{_part(run)}"
        if task is not None:
            address += f"/tasks/{_part(task.id)}" + (f"/mapped/{task.index}" if task.index >= 0 else "")
        return address

    @staticmethod
    def _run_path(dag: str, run: str) -> str:
        return f"/api/v2/dags/{_part(dag)}/dagRuns/{_part(run)}"

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, allowed: tuple[int, ...] = (200,)
    ) -> _Answer:
        if not self._token:
            self._log_in()
        answer = self._send(method, path, body)
        if answer.status == http.client.UNAUTHORIZED:  # the token's time is over
            self._log_in()
            answer = self._send(method, path, body)
        if answer.status in allowed:
            return answer
        if answer.status == http.client.FORBIDDEN:
            raise ConfigError(
                f"Airflow does not let {self._login.username!r} do this: {method} {path}",
                "Give that user the right to see and trigger DAGs, or name another one in spec.airflow.credentials.",
            )
        if answer.status >= http.client.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"Airflow at {self.url} fails: {method} {path} answers {_said(answer)}", self._hint)
        raise FatalError(f"Airflow at {self.url} answers {_said(answer)} to {method} {path}", "See its log.")

    def _log_in(self) -> None:
        login = {"username": self._login.username, "password": self._login.password}
        answer = self._send("POST", "/auth/token", login)
        if answer.status >= http.client.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"Airflow at {self.url} fails at the login: {_said(answer)}", self._hint)
        token = answer.body.get("access_token") if isinstance(answer.body, dict) else None
        if not isinstance(token, str):
            raise ConfigError(
                f"Airflow at {self.url} refuses the login of {self._login.username!r}: it answers {answer.status}",
                "Set the user and password that spec.airflow.credentials names: ssmd key set",
            )
        self._token = token

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Answer:
        headers = {"Accept": "application/json"}
        if self._token and not path.startswith("/auth/"):
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        link = self._connection()
        try:
            link.request(method, self._prefix + path, msgspec.json.encode(body) if body is not None else None, headers)
            response = link.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise Unavailable(f"Airflow at {self.url} does not answer: {why}", self._hint) from error
        finally:
            link.close()
        try:
            return _Answer(response.status, msgspec.json.decode(data) if data else None)
        except msgspec.MsgspecError:
            return _Answer(response.status, data[:200].decode(errors="replace"))

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._netloc, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._netloc, timeout=self._timeout_s)


def health_of(url: str, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """Status and last heartbeat of each part of an Airflow; None while it does not answer."""
    try:
        return Airflow(url, Login("", ""), timeout_s).parts()
    except Unavailable:
        return None


def _part(text: str) -> str:
    return quote(text, safe="")


def _said(answer: _Answer) -> str:
    """Status and reason, cut to a line."""
    detail = answer.body.get("detail", answer.body) if isinstance(answer.body, dict) else answer.body
    return f"{answer.status} ({' '.join(str(detail).split())[:200]})" if detail else str(answer.status)


def _last_line(text: object) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"


def _run(body: Mapping[str, Any]) -> Run:
    day = _day(body)
    return Run(
        dag=str(body["dag_id"]),
        id=str(body["dag_run_id"]),
        state=str(body["state"]),
        run_type=str(body.get("run_type") or ""),
        day=day,
        days=[day] if day else _range(body.get("conf") or {}),
        started_at=_time(body.get("start_date")),
        ended_at=_time(body.get("end_date")),
        note=str(body.get("note") or ""),
    )


def _range(conf: Mapping[str, Any]) -> list[date]:
    """The days from `from` to `to`, or `from` alone."""
    first = _iso_day(conf.get("from"))
    last = _iso_day(conf.get("to")) if conf.get("to") else first
    if first is None or last is None:
        return []
    return [first + timedelta(days=number) for number in range(min((last - first).days + 1, _MOST_DAYS))]


def _iso_day(said: object) -> date | None:
    try:
        return date.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None


def _day(body: Mapping[str, Any]) -> date | None:
    asked = (body.get("conf") or {}).get("date")
    if isinstance(asked, str):
        return _iso_day(asked)
    began = _time(body.get("data_interval_start")) if body.get("run_type") in ("scheduled", "backfill") else None
    return began.date() if began else None


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _task(body: Mapping[str, Any]) -> Task:
    seconds = body.get("duration")
    return Task(
        id=str(body["task_id"]),
        index=int(body.get("map_index", -1)),
        state=str(body.get("state") or ""),
        tries=int(body.get("try_number") or 0),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )
