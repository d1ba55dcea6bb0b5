"""What the DAGs take from the environment file, how ssmd is called there, and which UTC day a run is about."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from airflow.sdk import Asset, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowFailException

ARCHIVE_DAY = Asset("ssmd_archive_day", uri="ssmd://archive/day", extra={"about": "a UTC day of the archive"})
"""A day's archive has been made or made again; its events say which: `{"feed": …, "day": "YYYY-MM-DD"}`."""
HANDOVER_MINUTES = 10
"""With `handover: overlap`: how long after the new day's start the old day is ended."""


@dataclass(frozen=True)
class Environment:
    """What the DAGs need of an environment file."""

    file: str
    name: str
    feed: str
    runtime: str
    namespace: str
    image: str
    keys: tuple[str, ...]
    timezone: str
    startup: str
    teardown: str
    handover: str

    @classmethod
    def read(cls, file: Path) -> "Environment":
        """What `file` says, with the same defaults as ssmd."""
        document = yaml.safe_load(file.read_text())
        spec = document["spec"]
        runtime, schedule = spec.get("runtime") or {"type": "local"}, spec.get("schedule") or {}
        return cls(
            file=str(file.absolute()),
            name=document["metadata"]["name"],
            feed=spec["feed"],
            runtime=runtime["type"],
            namespace=runtime.get("namespace", "ssmd"),
            image=runtime.get("image", "ssmd:latest"),
            keys=tuple(spec["keys"]),
            timezone=schedule.get("timezone", "UTC"),
            startup=schedule.get("startup", "00:10"),
            teardown=schedule.get("teardown", "00:00"),
            handover=schedule.get("handover", "overlap"),
        )

    @property
    def in_cluster(self) -> bool:
        """Are tasks pods?"""
        return self.runtime == "kubernetes"


class WrongInput(AirflowFailException):
    """What somebody gave a run makes no sense: the same as exit code 2 of a command."""


_SHIPPED = Path(__file__).resolve().parent.parent / "environments" / "local.yaml"
ENVIRONMENT = Environment.read(Path(os.environ.get("SSMD_ENVIRONMENT_FILE") or _SHIPPED))


def command(words: Sequence[str]) -> list[str]:
    """The command `ssmd {words}` of this environment as a process on this machine; empty words are left out."""
    return [*json.loads(os.environ.get("SSMD_COMMAND") or '["ssmd"]'), *with_file(words, ENVIRONMENT.file)]


def with_file(words: Sequence[str], file: str) -> list[str]:
    """`words` without empty ones, and the environment file."""
    return [*(word for word in words if word), "--env", file]


def ended_days(context: Mapping[str, Any]) -> list[date]:
    """The UTC days of a run about days that are over: as asked for, as the archive's events or the schedule say.

    By hand without a date it is yesterday, or the day of an earlier logical date.
    """
    return _days(context, ago=1)


def present_day(context: Mapping[str, Any]) -> list[date]:
    """The UTC day of a run about what is now: as asked for, or as the schedule says; by hand without a date today."""
    return _days(context, ago=0)


def _days(context: Mapping[str, Any], *, ago: int) -> list[date]:
    run, params = context["dag_run"], context.get("params") or {}
    if asked := params.get("date"):
        return [date.fromisoformat(asked)]
    if events := run.consumed_asset_events:
        return sorted({_day_of_event(event) for event in events})
    if run_type(run) in ("scheduled", "backfill") and run.data_interval_start:
        return [_utc_day(run.data_interval_start)]
    latest = _utc_day(run.run_after) - timedelta(days=ago)
    return [min(latest, _utc_day(run.logical_date))] if run.logical_date else [latest]


def run_type(run: Any) -> str:
    """`scheduled`, `manual`, `backfill`, `asset_triggered`, …"""
    return str(getattr(run.run_type, "value", run.run_type))


def by_hand(run: Any) -> bool:
    """Has a person started it, who looks how it goes? (Or asked for it with `airflow backfill`.)"""
    return run_type(run) in ("manual", "operator_triggered", "backfill")


def require_known_conf(context: Mapping[str, Any]) -> None:
    """WrongInput when a run was given what its DAG does not take: a mistyped `date` would be about another day."""
    known, given = list(context["dag"].params), context["dag_run"].conf or {}
    if unknown := [str(name)[:80] for name in given if name not in known]:
        raise WrongInput(
            f"{', '.join(map(repr, unknown))} in the configuration of the run: {context['dag'].dag_id} takes only "
            f"{', '.join(map(repr, known))}. Nothing was done; trigger it again."
        )


def days_asked(context: Mapping[str, Any]) -> list[date]:
    """The days from `from` to `to`; without them the day of `airflow backfill`; nothing else is guessed."""
    params = context["params"]
    given = [day for day in (params.get("from"), params.get("to")) if day]
    if not given:
        if run_type(context["dag_run"]) == "backfill":
            return ended_days(context)
        raise WrongInput("Which days? Trigger it again and give `from`, and `to` for more than one day.")
    start, end = date.fromisoformat(given[0]), date.fromisoformat(given[-1])
    if end < start:
        raise WrongInput(f"`to` {end} is before `from` {start}: give them the other way round.")
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]


def _utc_day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _day_of_event(event: Any) -> date:
    said = str((event.extra or {}).get("day"))
    try:
        return date.fromisoformat(said)
    except (TypeError, ValueError) as error:
        raise AirflowFailException(
            f"an event of {ARCHIVE_DAY.name} names no day (extra: {event.extra}); "
            'it needs {"feed": "…", "day": "YYYY-MM-DD"}'
        ) from error


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)


def by_clock(cron: str, timezone: str = "UTC", *, about: timedelta = timedelta(0)) -> CronTriggerTimetable:
    """A schedule; `about`: the span before each run that it is about, whose first day is the day of the run.

    Nothing runs at once in a new Airflow, for a day of which there is no archive yet: CronDataIntervalTimetable would,
    and so would `run_immediately=False` in the first tenth of the day (Airflow 3.3.2 takes it for None).
    """
    return CronTriggerTimetable(cron, timezone=timezone, interval=about, run_immediately=timedelta(0))


def every_day(clock: str, *, later: int = 0, about: timedelta = timedelta(0)) -> CronTriggerTimetable:
    """Every day at `clock` (HH:MM in the environment's time zone), or so many minutes later."""
    minutes = (_minutes(clock) + later) % (24 * 60)
    return by_clock(f"{minutes % 60} {minutes // 60} * * *", ENVIRONMENT.timezone, about=about)


def ended_day(context: Mapping[str, Any]) -> date:
    """The day whose services a teardown ends: that of the last start but one (overlap), or of the last one (strict)."""
    run = context["dag_run"]
    if run_type(run) != "scheduled" or (context.get("params") or {}).get("date"):
        return ended_days(context)[0]
    day = 24 * 60
    if ENVIRONMENT.handover == "overlap":
        ago = day + HANDOVER_MINUTES
    else:
        ago = (_minutes(ENVIRONMENT.teardown) - _minutes(ENVIRONMENT.startup)) % day or day
    return _utc_day(run.data_interval_end - timedelta(minutes=ago))


def next_day(context: Mapping[str, Any]) -> date:
    """The day that follows it."""
    return ended_day(context) + timedelta(days=1)
