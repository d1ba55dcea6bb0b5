"""What an operator wants to see at 3 am, put together from whatever answers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import TypeVar

import msgspec

from ssmd.airflow_api import Airflow, Run
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_REFUSED, EXIT_UNAVAILABLE, SsmdError
from ssmd.ops.wellness import Finding

T = TypeVar("T")

DAGS = (
    "daily_startup",
    "daily_teardown",
    "secmaster_sync",
    "key_verification",
    "archive_verification",
    "data_quality",
    "backfill",
    "checks_ran",
)
"""The operations, in the order of a day."""


class LastRun(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of an operation; `state` "never": there was none. `paused`: the schedule starts none.

    `days`: the UTC days that it works on, as far as they are known; `day` where it is one.
    """

    operation: str
    state: str
    paused: bool
    day: date | None = None
    days: list[date] = []
    run: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    page: str = ""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the database's: a check, an alert, a start or stop. `bad`: somebody should look at it; `by`: whose."""

    what: str
    day: date | None
    state: str
    at: datetime
    detail: str
    bad: bool
    by: str = ""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `missing`: the parts that could not be told, each with why; their lists are then None."""

    environment: str
    services: list[Finding] | None
    runs: list[LastRun] | None
    checks: list[Fact] | None
    alerts: list[Fact] | None
    operations: list[Fact] | None
    missing: dict[str, str]

    @property
    def exit_code(self) -> int:
        """3: a service is not well; 6: something waits for somebody; 7: nothing could be told; else 0."""
        parts = (self.services, self.runs, self.checks, self.alerts, self.operations)
        if all(part is None for part in parts):
            return EXIT_UNAVAILABLE
        if any(one.verdict != "ok" for one in self.services or []):
            return EXIT_REFUSED
        facts = [*(self.checks or []), *(self.alerts or [])]
        wrong = any(run.state == "failed" for run in self.runs or []) or any(fact.bad for fact in facts)
        return EXIT_FINDINGS if wrong else EXIT_DONE


def last_runs(airflow: Airflow) -> list[LastRun]:
    """The last run of each operation that this Airflow knows; Unavailable and ConfigError as the API's.

    The days of a run that events of the archive have started are those events'.
    """
    airflow.check_version()
    found = []
    for dag in DAGS:
        runs = airflow.runs(dag, limit=1)
        try:
            paused = airflow.paused(dag)
        except SsmdError:  # an Airflow of an older ssmd: it has no such DAG
            continue
        found.append(_last(airflow, dag, runs[0], paused) if runs else _never(airflow, dag, paused))
    return found


def with_days(runs: list[LastRun], facts: list[Fact]) -> list[LastRun]:
    """`runs`: one whose days Airflow does not know works on those of the lines that its tasks have written."""
    found = []
    for run in runs:
        own = f"airflow:{run.operation}/{run.run}/"
        days = run.days or sorted({fact.day for fact in facts if fact.day and run.run and fact.by.startswith(own)})
        found.append(msgspec.structs.replace(run, day=_only(days), days=days))
    return found


def gather(parts: dict[str, Callable[[], T]]) -> tuple[dict[str, T], dict[str, str]]:
    """Ask for all parts at once: the answers, and why the others have none. An error that is not ours passes."""
    answers: dict[str, T] = {}
    missing: dict[str, str] = {}
    with ThreadPoolExecutor(len(parts)) as threads:
        asked = {name: threads.submit(ask) for name, ask in parts.items()}
        for name, answer in asked.items():
            try:
                answers[name] = answer.result()
            except SsmdError as error:
                missing[name] = " ".join(error.message.split())
    return answers, missing


def _last(airflow: Airflow, dag: str, run: Run, paused: bool) -> LastRun:
    days = run.days or airflow.event_days(dag, run.id) if run.run_type == "asset_triggered" else run.days
    return LastRun(
        operation=dag, state=run.state, paused=paused, day=_only(days), days=days, run=run.id,
        started_at=run.started_at, ended_at=run.ended_at, page=airflow.page(dag, run.id),
    )  # fmt: skip


def _only(days: list[date]) -> date | None:
    return days[0] if len(days) == 1 else None


def _never(airflow: Airflow, dag: str, paused: bool) -> LastRun:
    return LastRun(operation=dag, state="never", paused=paused, page=airflow.page(dag))
