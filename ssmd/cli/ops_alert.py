"""`ssmd ops alert` and `ssmd ops alerts`: what operations left for somebody to look at."""

from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter

from ssmd.cli.opening import database_of
from ssmd.cli.options import EnvFile, Feed, Json
from ssmd.cli.output import GOOD, mark_line, show_json, show_rows
from ssmd.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from ssmd.registry.alerts import Alert

RECENT_DAYS = 30
_SHOWN = 80
COLUMNS = {
    "id": "ID", "raised_at": "RAISED", "operation": "OPERATION", "task": "TASK", "day": "DAY", "state": "STATE",
    "summary": "SUMMARY", "resolved_at": "RESOLVED",
}  # fmt: skip


def alert(  # noqa: PLR0913 -- each is an option of the command
    *,
    operation: str,
    state: Literal["failed", "skipped", "findings", "missing", "ok"],
    task: str = "",
    run: str = "",
    date: date | None = None,
    summary: str = "",
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """Write down that an operation needs somebody, or that it went well: `ok` closes what that answers.

    Parameters
    ----------
    operation
        The DAG.
    state
        How it ended.
    task
        One task of it; none: the operation as a whole.
    run
        The run of the DAG.
    date
        The UTC day it was about.
    summary
        One sentence for people.
    """
    from ssmd.cli.ops import chosen_for
    from ssmd.registry.alerts import Alerts
    from ssmd.registry.values import printable

    if not operation.strip():
        raise ConfigError("--operation is empty", "Name the DAG, for instance --operation archive_verification.")
    chosen = chosen_for(env, feed)
    name, operation, task = chosen.environment.name, printable(operation), printable(task)
    with database_of(chosen) as database:
        alerts = Alerts(database)
        if state == "ok":
            closed = alerts.went_well(name, operation, task=task, run=run, day=date)
            said, number = f"{closed} alerts closed" if closed != 1 else "1 alert closed", None
        else:
            number = alerts.report(name, operation, state, task=task, run=run, day=date, summary=summary)
            said, closed = f"alert {number} is open", 0
    if json:
        show_json({"operation": operation[:_SHOWN], "state": state, "id": number, "closed": closed})
    else:
        mark_line(GOOD, "/".join(part[:_SHOWN] for part in (operation, task) if part), said)
    return EXIT_DONE


def alerts(
    *,
    recent: Annotated[
        bool,
        Parameter(
            name="--all",
            negative=(),
            help=f"Those of the last {RECENT_DAYS} days that are closed, too. With --close: close all that are open.",
        ),
    ] = False,
    close: Annotated[
        list[int] | None,
        Parameter(negative=(), consume_multiple=True, help="Numbers of alerts that you have seen to."),
    ] = None,
    env: EnvFile = None,
    feed: Feed = None,
    json: Json = False,
) -> int:
    """List the alerts that nobody has seen to, newest first; `--close ID ID` or `--close --all` takes them off."""
    from ssmd.cli.ops import chosen_for
    from ssmd.registry.alerts import Alerts

    if wrong := [number for number in close or () if not 0 < number < 1 << 63]:
        raise ConfigError(f"--close {str(wrong[0])[:80]} is no alert's number", "See the numbers: ssmd ops alerts")
    if close is not None and recent == bool(close):
        problem = "--close with numbers and with --all" if close else "--close without a number"
        raise ConfigError(
            problem, "Give the numbers (ssmd ops alerts shows them), or all: ssmd ops alerts --close --all"
        )
    chosen = chosen_for(env, feed)
    name = chosen.environment.name
    with database_of(chosen) as database:
        known = Alerts(database)
        if close is not None:
            found = known.close(name, close or None)
        else:
            found = known.recent(name, timedelta(days=RECENT_DAYS)) if recent else known.open(name)
    show_rows([_row(each) for each in found], COLUMNS, as_json=json, empty=f"no alert of {name} is open")
    return EXIT_DONE


def _row(alert: "Alert") -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(alert)
    return fields
