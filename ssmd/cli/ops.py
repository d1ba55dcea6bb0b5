"""`ssmd ops`: the day of an environment. A service alone is one step; without one it is the whole day."""

from datetime import UTC, date, datetime
from typing import Annotated

from cyclopts import App, Parameter

from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.errors import ConfigError

app = App(name="ops", help="The day of an environment: start and stop its services, see how it goes.")

app.command("ssmd.cli.ops_alert:alert", name="alert", help="Write down how an operation ended, for others to see.")
app.command("ssmd.cli.ops_alert:alerts", name="alerts", help="List the alerts that nobody has seen to.")

Service = Annotated[str | None, Parameter(help="connector, archiver or gateway; none: the whole day, in order.")]
Day = Annotated[date | None, Parameter(name="--date", help="The UTC day; default: today.")]
StopDay = Annotated[
    date | None, Parameter(name="--date", help="The UTC day; default: today for a service, none for the whole day.")
]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")]
NoAirflow = Annotated[
    bool, Parameter(name="--no-airflow", negative=(), help="Do the steps here, instead of asking Airflow to.")
]


@app.command
def start(
    service: Service = None,
    /,
    *,
    date: Day = None,
    ahead: Annotated[bool, Parameter(negative=(), help="Tomorrow's, before midnight.")] = False,
    no_airflow: NoAirflow = False,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Start a service for a day, or the whole day; what runs for it already is left as it is.

    While the services of the day before run, the handover of the environment decides: overlap starts the new day's
    connector beside the old one and returns when it captures; strict refuses until the old one is stopped.
    """
    from ssmd.cli import ops_steps

    chosen = chosen_for(env, feed)
    day = ops_steps.start_day(chosen, date, ahead=ahead)
    if service is None:
        return ops_steps.whole_day(chosen, "startup", day, ahead=ahead, no_airflow=no_airflow, json=json)
    return ops_steps.one_step(chosen, "startup", service, day, json=json)


@app.command
def stop(
    service: Service = None,
    /,
    *,
    date: StopDay = None,
    no_airflow: NoAirflow = False,
    yes: Yes = False,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Drain and stop what runs for a day or an earlier one: a service, or the whole day.

    Where a later day was started already, archiver and gateway are restarted as that day's, and its connector stays;
    otherwise they stop for good. A drain that takes more than 30 s is a failure. What would end the capture of today
    asks first on a terminal.
    """
    from ssmd.cli import ops_steps

    chosen = chosen_for(env, feed)
    day = ops_steps.stop_day(service, date)
    if not yes:
        ops_steps.ask_to_stop(chosen, service, day)
    if service is None:
        return ops_steps.whole_day(chosen, "teardown", day, ahead=False, no_airflow=no_airflow, json=json)
    return ops_steps.one_step(chosen, "teardown", service, day, json=json)


@app.command
def status(*, env: EnvFile = None, feed: Feed = None, json: Json = False) -> int:
    """What runs for which day, the last runs of each operation, the last checks, and what waits for somebody.

    Exit code 3: a service does not do its work; 6: they do, and a run or check went wrong or an alert is open;
    7: nothing could be told. What is away is named, and the rest is told without it.
    """
    from ssmd.cli.ops_status import show_status

    return show_status(chosen_for(env, feed), json=json)


@app.command
def history(
    *,
    limit: Annotated[int, Parameter(help="How many lines, the latest first.")] = 50,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Every start and stop: for which day, how it ended, and what triggered it."""
    from ssmd.cli.ops_log import show_history

    if not 1 <= limit <= 10_000:
        raise ConfigError(f"--limit {limit} is not from 1 to 10000", "Write, for instance, --limit 50.")
    return show_history(chosen_for(env, feed), limit, json=json)


@app.command
def health(
    *,
    wait: Annotated[float, Parameter(help="Seconds to wait until all is well; 0: look once.")] = 60.0,
    date: Day = None,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Do all services answer, and do their work? Exit code 3: one does not; 7: something that they need is away."""
    from ssmd.cli.ops_health import check_health

    if not 0 <= wait <= 3_600:
        raise ConfigError(f"--wait {wait:g} is not from 0 to 3600 seconds", "Write, for instance, --wait 60.")
    return check_health(chosen_for(env, feed), wait, date or today(), json=json)


def chosen_for(env: EnvFile, feed: str | None) -> Chosen:
    """The environment; ConfigError when `feed` is another one than its own."""
    from ssmd.nearest import did_you_mean

    chosen = choose(env)
    own = chosen.environment.spec.feed
    if feed is not None and feed != own:
        raise ConfigError(
            f"the environment {chosen.environment.name!r} runs the feed {own!r}, not {feed[:80]!r}",
            did_you_mean(feed, [own], "Leave --feed away, or name the environment of that feed: --env FILE"),
        )
    return chosen


def today() -> date:
    """The present UTC day."""
    return datetime.now(UTC).date()
