"""Who hears how a task went: a webhook, and the table of alerts that the gateway's metrics are made of."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowFailException
from ssmd_days import ENVIRONMENT, command, days_of

DONE, FINDINGS = 0, 6
_LONGEST = 1_000
_TRIES = 3
_WAIT_S = 5.0


class SsmdNotifier(BaseNotifier):
    """Posts to the webhook, and has the alert written down (or resolved) where the gateway's metrics are made.

    It never fails a task: what goes wrong is logged. No template fields: Airflow renders them once for all runs.
    """

    template_fields: Sequence[str] = ()

    def __init__(self, state: str, *, ended: bool, whole: bool = False) -> None:
        super().__init__()
        self.state, self.ended, self.whole = state, ended, whole

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """There are none; Airflow's own would need a DAG that can render, which a callback need not have."""

    def notify(self, context: Context) -> None:
        """Tell of a task, or of the `whole` run."""
        told = self.message(context)
        if told["state"] != "ok" and (webhook := os.environ.get("SSMD_ALERT_WEBHOOK")):
            self._post(webhook, told)
        if not ENVIRONMENT.in_cluster:
            self._write_down(told)

    def message(self, context: Any) -> dict[str, Any]:
        """What is said."""
        run, task, ti = context.get("dag_run"), context.get("task"), context.get("ti")
        findings = not self.whole and getattr(task, "exit_code", None) == FINDINGS
        why = context.get("reason") if self.whole else context.get("exception") or getattr(task, "summary", "")
        days = [] if run is None else [day.isoformat() for day in _days_or_none(context, ended=self.ended)]
        dag_id = context["dag"].dag_id
        told = {
            "environment": ENVIRONMENT.name,
            "operation": dag_id,
            "task": "" if self.whole or ti is None else ti.task_id,
            "run": context.get("run_id") or (run.run_id if run else ""),
            "day": days[0] if self.whole and len(days) == 1 else None if self.whole else getattr(task, "day", None),
            "state": "findings" if findings else self.state,
            "summary": str(why or "")[:_LONGEST],
            "log": None if ti is None or self.whole else getattr(ti, "log_url", None),
        }
        place = "/".join(part for part in (dag_id, told["task"]) if part)
        told["text"] = (
            f"ssmd {ENVIRONMENT.name}: {place} {told['state']}, {told['day'] or ''} {told['summary']}".strip()
        )
        return told

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

    def _write_down(self, told: Mapping[str, Any]) -> None:
        words = ["ops", "alert", "--operation", told["operation"], "--state", told["state"], "--run", told["run"]]
        for name, value in (("--task", told["task"]), ("--date", told["day"]), ("--summary", told["summary"])):
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


def _days_or_none(context: Any, *, ended: bool) -> list[date]:
    try:
        return days_of(context, ended=ended)
    except (AirflowFailException, ValueError):
        return []
