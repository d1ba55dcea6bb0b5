"""Starts Airflow beside a stack that captures already, in a thread of its own, and shows the first runs of the day."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from ssmd.airflow_api import TIMEOUT_S, Airflow, Login, Run, health_of
from ssmd.errors import FatalError, RefusedError, SsmdError, Unavailable
from ssmd.local.airflow_access import Access
from ssmd.local.airflow_server import POOLS, PROGRAMS, READY_S, AirflowServer, scheduler_log
from ssmd.local.home import Home
from ssmd.local.supervisord import Control, tail

A = TypeVar("A")

FIRST_RUN = "first_start"
FIRST_DAGS = ("secmaster_sync", "daily_startup")
"""What a new installation has done once, before anybody has to look."""

DAGS_S, RUNS_S = 180.0, 900.0
_KEEP_LOGS_S = 30 * 86_400
_LOOK_S = 0.5


class Stopped(Exception):
    """The stack is going down."""


class AirflowStart:
    """From nothing to the first successful runs. `say` takes one line for people, from this thread.

    `make_database` creates the database of a name on the stack's PostgreSQL, if it is not there.
    """

    def __init__(
        self,
        server: AirflowServer,
        home: Home,
        access: Access,
        open_control: Callable[[], Control],
        variables: Mapping[str, str],
        make_database: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._server = server
        self._home = home
        self._access = access
        self._open_control = open_control
        self._variables = dict(variables)
        self._make_database = make_database
        self._say = say
        self._stop = threading.Event()
        self._well = False
        self._thread = threading.Thread(target=self._run, name="airflow start", daemon=True)
        self._began = time.monotonic()
        self._began_at = datetime.now(UTC)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is not yet done; returns when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20.0)

    @property
    def ended(self) -> bool:
        """Is there nothing more to wait for?"""
        return not self._thread.is_alive()

    @property
    def well(self) -> bool:
        """Is everything done that was to be done?"""
        return self._well

    def _run(self) -> None:
        try:
            self._prepare()
            self._start_programs()
            self._await_ready()
            login = Login(self._access.username, self._access.password)
            api = Airflow(self._server.url, login, TIMEOUT_S, hint="See: ssmd status")
            for pool, (slots, what) in POOLS.items():
                self._retry(partial(api.ensure_pool, pool, slots, what))
            self._well = all(self._first_run(api, dag) for dag in FIRST_DAGS)
        except Stopped:
            return
        except SsmdError as error:
            self._say(f"✗ airflow    {error.message} {error.hint}".rstrip())
        except Exception as error:  # noqa: BLE001 capture goes on whatever happens here; but it is said
            self._say(f"✗ airflow    {type(error).__name__}: {error}")

    def _prepare(self) -> None:
        forget_old_logs(self._home.airflow / "logs", time.time() - _KEEP_LOGS_S)
        self._make_database(self._server.database)
        log = self._home.log / "airflow-migrate.log"
        with log.open("wb") as file, subprocess.Popen(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            cwd=self._home.airflow, env=self._variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        ) as migration:  # fmt: skip
            while migration.poll() is None:
                if self._stop.wait(0.1):
                    migration.kill()
                    raise Stopped
        if migration.returncode != 0:
            raise FatalError(f"airflow db migrate ended with {migration.returncode}: {tail(log, 2)}", f"Read {log}")

    def _start_programs(self) -> None:
        control = self._open_control()
        try:
            for name in reversed(PROGRAMS):
                self._pause(0)
                control.start(name)
        finally:
            control.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            parts = health_of(self._server.url) or {}
            waiting = [name for name in ("metadatabase", "scheduler", "dag_processor") if not _healthy(parts.get(name))]
            if not waiting:
                break
            if time.monotonic() > deadline:
                log = scheduler_log(self._home)
                raise Unavailable(f"not ready after {READY_S:.0f} s, missing: {', '.join(waiting)}", f"Read {log}")
            self._pause(_LOOK_S)
        self._say(f"✓ airflow    ready after {time.monotonic() - self._began:.0f} s: {self._server.url}")

    def _first_run(self, api: Airflow, dag: str) -> bool:
        """Watch the run with which a new Airflow begins; False when it did not succeed.

        Later starts of this Airflow have runs behind them: then nothing is started, and what is under way is told.
        """
        if not self._await_dag(api, dag):
            return False
        run = self._present_run(api, dag)
        if run.ended_before(self._began_at):
            return True
        began = time.monotonic()
        place = f"{self._server.url}/dags/{dag}/runs/{run.id}"
        while not run.ended:
            if time.monotonic() > began + RUNS_S:
                self._say(f"○ airflow    {dag} is {run.state} since {RUNS_S:.0f} s: {place}")
                return False
            self._pause(_LOOK_S)
            run = self._retry(partial(api.run, dag, run.id))
        if run.state == "success":
            self._say(f"✓ airflow    {dag} succeeded ({run.id})")
            return True
        tasks = self._retry(partial(api.tasks, dag, run.id))
        failed = ", ".join(task.name for task in tasks if task.state == "failed")
        self._say(f"✗ airflow    {dag} failed ({failed or 'no task ran'}): {place}")
        return False

    def _present_run(self, api: Airflow, dag: str) -> Run:
        """The latest run; the first one of all is triggered here, since no schedule is due in a new Airflow."""
        note = "Triggered by the first `ssmd up` of this Airflow."
        while not (runs := self._retry(partial(api.runs, dag, limit=1))):
            with contextlib.suppress(RefusedError):  # it was taken, and the answer was lost
                self._retry(partial(api.trigger, dag, FIRST_RUN, {}, note, datetime.now(UTC)))
        return runs[0]

    def _await_dag(self, api: Airflow, dag: str) -> bool:
        deadline = time.monotonic() + DAGS_S
        while not self._retry(lambda: api.knows(dag)):
            if time.monotonic() > deadline:
                why = "; ".join(api.import_errors()) or f"no such file in {self._server.dags}"
                self._say(f"✗ airflow    there is no DAG {dag}: {why}")
                return False
            self._pause(_LOOK_S)
        return True

    def _retry(self, ask: Callable[[], A]) -> A:
        """The answer, also of a server that is restarted just now."""
        deadline = time.monotonic() + 60.0
        while True:
            try:
                return ask()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                self._pause(_LOOK_S)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def forget_old_logs(folder: Path, before: float) -> None:
    """Remove task logs that were last written `before` (seconds since the epoch): one file per try, for ever."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(place, name)
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()
        with contextlib.suppress(OSError):  # not empty
            if Path(place) != folder:
                Path(place).rmdir()


def _healthy(part: object) -> bool:
    return isinstance(part, dict) and part.get("status") == "healthy"
