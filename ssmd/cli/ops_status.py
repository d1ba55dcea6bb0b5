"""`ssmd ops status`: one look at the day of an environment, with whatever of it answers."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ssmd.cli.checking import in_time
from ssmd.cli.opening import database_of
from ssmd.cli.ops_health import ask
from ssmd.cli.ops_local import local_programs
from ssmd.cli.ops_log import abort_dead
from ssmd.cli.options import Chosen
from ssmd.cli.output import BAD, GOOD, WAITING, cell, counted, mark_line, show_json
from ssmd.local.home import Home
from ssmd.ops.days import Days
from ssmd.ops.overview import Fact, LastRun, Overview, gather, last_runs, with_days
from ssmd.ops.wellness import Finding, examine

if TYPE_CHECKING:
    from ssmd.registry.alerts import Alert
    from ssmd.registry.checks import CheckRun
    from ssmd.registry.operations import Operation

_AIRFLOW_S = 4.0
_SHOWN, _MOST = 6, 50
_MARKS = {
    "ok": GOOD, "away": WAITING, "stopped": WAITING, "unwell": BAD, "success": GOOD, "passed": GOOD, "completed": GOOD,
    "failed": BAD, "aborted": BAD, "findings": BAD, "not_run": BAD, "missing": BAD, "skipped": BAD,
}  # fmt: skip
_GONE = "cannot be told"


def show_status(chosen: Chosen, *, json: bool) -> int:
    """See `ssmd.cli.ops.status`."""
    overview = look(chosen)
    if json:
        show_json(msgspec.to_builtins(overview))
    else:
        _show(overview)
    return overview.exit_code


def look(chosen: Chosen) -> Overview:
    """Ask stack, Airflow and database, all at once."""
    spec = chosen.environment.spec
    parts: dict[str, Callable[[], Any]] = {"services": lambda: _services(chosen)}
    missing = {}
    if spec.airflow is not None:
        parts["runs"] = lambda: _runs(chosen)
    else:
        missing["runs"] = "the environment names no Airflow (spec.airflow)"
    if spec.database_url is not None:
        parts["book"] = lambda: in_time(lambda: _book(chosen))
    else:
        missing["book"] = "the environment names no database (spec.database)"
    answers, away = gather(parts)
    checks, alerts, operations = answers.get("book", (None, None, None))
    runs = answers.get("runs")
    if runs is not None:
        runs = with_days(runs, [*(checks or []), *(operations or [])])
    missing |= away
    if "book" in missing:
        missing["checks, alerts, operations"] = missing.pop("book")
    return Overview(
        environment=chosen.environment.name, services=answers.get("services"), runs=runs,
        checks=checks, alerts=alerts, operations=operations, missing=missing,
    )  # fmt: skip


def _services(chosen: Chosen) -> list[Finding]:
    with local_programs(chosen) as (programs, record):
        days = Days(Home(chosen.home).run, record.mark).read()
        return examine(programs, days.programs, lambda: ask(record.urls.get("health", "")))


def _runs(chosen: Chosen) -> list[LastRun]:
    from ssmd.cli.ops_airflow import airflow_of

    return last_runs(airflow_of(chosen, _AIRFLOW_S))


def _book(chosen: Chosen) -> tuple[list[Fact], list[Fact], list[Fact]]:
    """The last checks, the open alerts and the last starts and stops."""
    from ssmd.registry.alerts import Alerts
    from ssmd.registry.checks import CheckRuns
    from ssmd.registry.interface import NotKnown
    from ssmd.registry.operations import OperationLog

    with database_of(chosen) as database:
        name = chosen.environment.name
        try:
            checks = [_check(run) for run in CheckRuns(database).latest(chosen.environment.spec.feed)]
        except NotKnown:
            checks = []
        alerts = [_alert(one) for one in Alerts(database).open(name, _MOST)]
        log = OperationLog(database, name)
        abort_dead(log)
        return checks, alerts, [_operation(one) for one in log.latest(_SHOWN)]


def _check(run: "CheckRun") -> Fact:
    return Fact(
        what=run.check, day=run.day, state=run.state, at=run.completed_at or run.started_at,
        detail=_joined(run.summary, f"by {run.triggered_by}" if run.triggered_by else ""),
        bad=run.state in ("findings", "failed", "not_run"), by=run.triggered_by or "",
    )  # fmt: skip


def _alert(one: "Alert") -> Fact:
    what = f"{one.operation}/{one.task}" if one.task else one.operation
    return Fact(what=what, day=one.day, state=one.state, at=one.raised_at, detail=one.summary, bad=True)


def _operation(one: "Operation") -> Fact:
    ended = f"over before {_clock(one.ended_by)}" if one.ended_by else ""
    return Fact(
        what=f"{one.action} {one.service or 'whole day'}", day=one.day, state=one.status,
        at=one.completed_at or one.started_at, bad=one.status in ("failed", "aborted"), by=one.triggered_by or "",
        detail=_joined(ended, one.error or "", f"by {one.triggered_by}" if one.triggered_by else ""),
    )  # fmt: skip


def _show(overview: Overview) -> None:
    print(f"environment {overview.environment} · times are UTC")
    if overview.services is not None:
        for one in overview.services:
            mark_line(_MARKS[one.verdict], one.program, _service(one))
    if overview.runs:
        print("\nlast runs in Airflow")
        for run in overview.runs:
            mark_line(_MARKS.get(run.state, WAITING), f"{run.operation:<20}", _run(run))
    for title, facts in (("last checks", overview.checks), ("last starts and stops", overview.operations)):
        if facts:
            print(f"\n{title}")
        for fact in facts or []:
            mark_line(_MARKS.get(fact.state, WAITING), f"{fact.what:<20}", _fact(fact))
    if overview.alerts is not None:
        print("\nalerts: none is open" if not overview.alerts else "\nalerts that are open")
        for fact in overview.alerts:
            mark_line(BAD, f"{fact.what:<20}", _fact(fact))
    if overview.missing:
        print()
    for part, why in overview.missing.items():
        mark_line(WAITING, part, f"{_GONE}: {why}")


def _service(one: Finding) -> str:
    since = f"since {_clock(one.since)}" if one.since else ""
    announced = f"from its end on for {one.next}" if one.next else ""
    numbers = ", ".join(counted(value, *_WORDS[key]) for key, value in one.facts.items() if key in _WORDS)
    day = f"{one.day}" if one.day else ""
    return _joined(day, one.role, since, _restarts(one), announced, numbers, "; ".join(one.reasons))


def _restarts(one: Finding) -> str:
    """A program that came back by itself looks as if nothing had been."""
    if one.last_crash is None:
        return ""
    return (
        f"restarted {counted(one.restarts, 'time')} today, last at {one.last_crash.at:%H:%M:%S} ({one.last_crash.how})"
    )


_WORDS: Mapping[str, tuple[str, ...]] = {
    "tickers": ("ticker",), "acked_seq": ("message archived", "messages archived"), "clients": ("client",),
}  # fmt: skip


def _run(run: LastRun) -> str:
    times = f"{_clock(run.started_at)} – {_clock(run.ended_at)}" if run.started_at else ""
    return _joined(run.state, _days(run.days), times, "paused" if run.paused else "", run.page)


def _days(days: list[date]) -> str:
    """`2026-11-20`, `2026-11-20 – 2026-11-22`, or the first three and how many more."""
    if len(days) > 1 and (days[-1] - days[0]).days == len(days) - 1:
        return f"{days[0]} – {days[-1]}"
    more = f" and {len(days) - 3} more" if len(days) > 3 else ""
    return ", ".join(str(day) for day in days[:3]) + more


def _fact(fact: Fact) -> str:
    return _joined(str(fact.day or ""), fact.state, _clock(fact.at), cell(fact.detail))


def _clock(moment: datetime | None) -> str:
    return f"{moment:%m-%d %H:%M:%S}" if moment else "…"


def _joined(*words: str) -> str:
    return " · ".join(word for word in words if word)
