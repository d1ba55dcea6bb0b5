"""Who hears how a task went: a webhook, and the table of alerts that the gateway's metrics are made of."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowFailException
from ssmd_days import ENVIRONMENT, WrongInput, by_hand, command

DONE, INPUT, FINDINGS = 0, 2, 6
_LONGEST = 1_000
_TRIES = 3
_WAIT_S = 5.0
_TASK_FAILED = "task_failure"
_REASONS = {
    "timed_out": "the run took longer than it may; what had not ended was skipped",
    "all_tasks_deadlocked": "none of the tasks that are left can run",
}
"""Airflow's words for why a run failed, and ours; `task_failure` is told by the task itself."""
_KILLED = "it ended without a word: its process or its worker was killed"


class SsmdNotifier(BaseNotifier):
    """Posts to the webhook, and has the alert written down (or resolved) where the gateway's metrics are made.

    It never fails a task: what goes wrong is logged. No template fields: Airflow renders them once for all runs.
    """

    template_fields: Sequence[str] = ()

    def __init__(self, state: str, days: Callable[[Mapping[str, Any]], list[date]] | None = None) -> None:
        """`days`: of a whole run, which days it was about; None: it tells of a task."""
        super().__init__()
        self.state, self.days = state, days

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """There are none; Airflow's own would need a DAG that can render, which a callback need not have."""

    def notify(self, context: Context) -> None:
        """Tell of a task, or of a whole run: once of each failure, and not of what the person who asked for it sees."""
        if self.state == "failed" and self._is_known(context):
            return
        told = self.message(context)
        if told["task"] and told["state"] == "ok" and context["ti"].map_index in (None, -1):
            return  # the end of the run says it for all its tasks; one of several days says it for its own
        if told["state"] != "ok" and (webhook := os.environ.get("SSMD_ALERT_WEBHOOK")):
            self._post(webhook, told)
        if ENVIRONMENT.in_cluster:
            return
        for day in told["days"] or [None]:
            self._write_down(told, day)

    def _is_known(self, context: Any) -> bool:
        """Has a task told already why the run failed (Airflow names it), or was only the person's input wrong?"""
        if self.days is not None:
            return context.get("reason") == _TASK_FAILED and context.get("ti") is not None
        wrong = isinstance(context.get("exception"), WrongInput) or getattr(context["task"], "exit_code", None) == INPUT
        if known := wrong and by_hand(context["dag_run"]):
            self.log.info("no alert: the input was wrong, and who gave it sees this")
        return known

    def message(self, context: Any) -> dict[str, Any]:
        """What is said."""
        run, task, ti = context.get("dag_run"), context.get("task"), context.get("ti")
        told = {
            "environment": ENVIRONMENT.name,
            "operation": context["dag"].dag_id,
            "task": "",
            "run": context.get("run_id") or (run.run_id if run else ""),
            "state": self.state,
            "days": [],
            "summary": _REASONS.get(str(context.get("reason")), str(context.get("reason") or "")),
            "log": None,
        }
        if self.days is None:
            told |= {
                "task": ti.task_id,
                "state": "findings" if self.state == "ok" and task.exit_code == FINDINGS else self.state,
                "days": _days_of_task(context),
                "summary": str(context.get("exception") or task.summary or (_KILLED if self.state == "failed" else "")),
                "log": getattr(ti, "log_url", None),
            }
        elif run is not None:
            told["days"] = [day.isoformat() for day in _or_none(self.days, context)]
        told["summary"] = told["summary"][:_LONGEST]
        place = "/".join(part for part in (told["operation"], told["task"]) if part)
        days = ", ".join(told["days"])
        return {
            **told,
            "text": f"ssmd {ENVIRONMENT.name}: {place} {told['state']} {days} {told['summary']}".replace("  ", " "),
        }

    def _post(self, webhook: str, told: Mapping[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310 the address is the operator's
            webhook, json.dumps(told).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        for attempt in range(1, _TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=_WAIT_S):  # noqa: S310
                    return
            except (OSError, ValueError) as error:
                # The address may hold a token: it is not written to the log
                self.log.error("alert not posted (try %d of %d): %s", attempt, _TRIES, type(error).__name__)
                time.sleep(0.5 * attempt)

    def _write_down(self, told: Mapping[str, Any], day: str | None) -> None:
        words = ["ops", "alert", "--operation", told["operation"], "--state", told["state"], "--run", told["run"]]
        for name, value in (("--task", told["task"]), ("--date", day), ("--summary", told["summary"])):
            words += [f"{name}={value}"] if value else []
        try:
            ended = subprocess.run(
                command(words), capture_output=True, text=True, errors="replace", timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.log.error("alert not written down: %s", error)
            return
        if ended.returncode != DONE:
            self.log.error("alert not written down, exit code %d: %s", ended.returncode, ended.stderr[-_LONGEST:])


def _days_of_task(context: Any) -> list[str]:
    """The day of a task. Of one that was killed Airflow tells without its day: that of the run, then."""
    task = context["task"]
    if _is_day(task.day):
        return [task.day]
    if task.day and context["ti"].map_index in (None, -1):
        with suppress(AirflowFailException, ValueError):
            return [context["dag"].user_defined_macros["day"](context)]
    return []


def _or_none(days: Callable[[Mapping[str, Any]], list[date]], context: Mapping[str, Any]) -> list[date]:
    try:
        return days(context)
    except (AirflowFailException, ValueError):
        return []


def _is_day(text: str) -> bool:
    """Is it a day, and not a template that was never rendered because the task did not come so far?"""
    try:
        date.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return True
