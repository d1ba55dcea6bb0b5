"""The steps of a day, put together: one service through the supervisor, or the whole day in order."""

import sys
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from ssmd.cli.checking import triggered
from ssmd.cli.ops_local import local_programs
from ssmd.cli.ops_log import logged
from ssmd.cli.options import Chosen
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json, talk
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS, ConfigError, RefusedError
from ssmd.local.home import Home
from ssmd.ops.days import Days
from ssmd.ops.programs import SLOTS, known_service
from ssmd.ops.steps import Operator, Step

if TYPE_CHECKING:
    from ssmd.registry.operations import Action


def start_day(chosen: Chosen, given: date | None, *, ahead: bool) -> date:
    """The day to start; ConfigError for one that is over, or has not begun.

    Where the clock of the schedule is in another day than UTC, both are today.
    """
    now = datetime.now(UTC)
    today = now.date()
    day = given or (today + timedelta(days=1) if ahead else today)
    days = {today, now.astimezone(ZoneInfo(chosen.environment.spec.schedule.timezone)).date()}
    if day in days or (ahead and day == today + timedelta(days=1)):
        return day
    if day < today:
        raise ConfigError(
            f"cannot start the day {day}: it is over (today is {today}, UTC)",
            f"Live data cannot be captured afterwards. What the archive has of it: ssmd data inventory. "
            f"To make its files again: ssmd data backfill --from {day} --to {day}",
        )
    soon = day == today + timedelta(days=1)
    raise ConfigError(
        f"cannot start the day {day}: it has not begun (today is {today}, UTC)",
        "To hand over before midnight, add: --ahead" if soon else f"Run: ssmd ops start --date {today}",
    )


def stop_day(service: str | None, given: date | None) -> date:
    """The day to stop: today where a service is named; the whole day must be: ConfigError with the two likely ones."""
    today = datetime.now(UTC).date()
    if given is not None or service is not None:
        return given or today
    raise ConfigError(
        "which day is to be stopped? A whole day is not stopped without its date",
        f"The day that is over: ssmd ops stop --date {today - timedelta(days=1)}. "
        f"Today (ends capture now): ssmd ops stop --date {today}",
    )


def ask_to_stop(chosen: Chosen, service: str | None, day: date) -> None:
    """On a terminal, a yes to ending the capture of today; RefusedError without one. Pipes and tasks are not asked.

    Capture does not end where the connector of a later day was started.
    """
    ends_capture = service in (None, "connector") and day >= datetime.now(UTC).date()
    if not ends_capture or sys.stdin is None or not sys.stdin.isatty():
        return
    home = Home(chosen.home)
    record = home.read_record()
    recorded = Days(home.run, record.mark).read().programs if record else {}
    if any(name in recorded and recorded[name].latest > day for name in SLOTS["connector"]):
        return
    what = f"ssmd ops stop {service or ''} --date {day}".replace("  ", " ")
    sys.stderr.write(
        f"This ends the capture of {chosen.environment.spec.feed} now, for today ({day}). Live data of the time until "
        "the next start cannot be had afterwards.\nStop? [y/N] "
    )
    sys.stderr.flush()
    if sys.stdin.readline(1_000).strip().lower() not in ("y", "yes"):
        raise RefusedError("nothing was stopped: the answer was not y", f"To stop without asking: {what} --yes")


def one_step(chosen: Chosen, action: "Action", service: str, day: date, *, json: bool) -> int:
    """Start or stop one service, say what was done, and log it. Exit code 6: done, but something was left."""
    known_service(service)
    step = do_step(chosen, action, service, day)
    if json:
        show_json(msgspec.to_builtins(step))
    else:
        show_step(step)
    return EXIT_FINDINGS if step.findings else EXIT_DONE


def do_step(chosen: Chosen, action: "Action", service: str, day: date) -> Step:
    """Start or stop one service; what could not be logged is a finding of the step."""
    _, by = triggered()
    with local_programs(chosen) as (programs, record), logged(chosen, action, service, day) as line:
        days = Days(Home(chosen.home).run, record.mark)
        operator = Operator(programs, days, chosen.environment.spec.schedule.handover, by)
        if action == "teardown":
            _refuse_unborn(day, [known.latest for known in days.read().programs.values()])
        step = operator.start(service, day) if action == "startup" else operator.stop(service, day)
    if not line.problem:
        return step
    missing = f"the deployment log does not say so: {line.problem}"
    return msgspec.structs.replace(step, findings=[*step.findings, missing])


def whole_day(chosen: Chosen, action: "Action", day: date, *, ahead: bool, no_airflow: bool, json: bool) -> int:
    """All steps of a startup or teardown, by Airflow or here."""
    if action == "teardown":
        record = Home(chosen.home).read_record()
        started = Days(Home(chosen.home).run, record.mark).read().programs.values() if record else []
        _refuse_unborn(day, [known.latest for known in started])
    if no_airflow or chosen.environment.spec.airflow is None:
        from ssmd.cli.ops_day import here

        return here(chosen, action, day, ahead=ahead, json=json)
    if ahead:
        raise ConfigError(
            "--ahead starts the next day's services by hand; Airflow starts a day when it begins",
            "Add --no-airflow, or name a service: ssmd ops start connector --ahead",
        )
    from ssmd.cli.ops_airflow import run_dag

    return run_dag(chosen, action, day, json=json)


def show_step(step: Step) -> None:
    """One line for people, and one for each finding."""
    mark = WAITING if step.done in ("runs already", "nothing to stop", "noted") else GOOD
    mark_line(mark, step.program, f"{step.done}: {step.detail} · {step.seconds:.1f} s")
    for finding in step.findings:
        talk(f"{BAD} {finding}")


def _refuse_unborn(day: date, started: list[date]) -> None:
    """A day that has neither begun nor been started cannot be stopped."""
    today = datetime.now(UTC).date()
    if day > max([today, *started]):
        raise ConfigError(
            f"cannot stop the day {day}: it has not begun (today is {today}, UTC)", f"Run: ssmd ops stop --date {today}"
        )
