"""`ssmd quality ran`: did every check of a day run? What silently did not is found here."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from ssmd.cli.opening import database_of, registry_of
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json
from ssmd.cli.validation import require_feed
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, EXIT_REFUSED, ConfigError

if TYPE_CHECKING:
    from ssmd.registry.checks import CheckRun

COMMAND = {"compact": "ssmd data compact", "verify": "ssmd data verify", "quality": "ssmd quality run"}


class Line(msgspec.Struct, frozen=True):
    """A check of the day: did it run to its end, was it to run, what people read, and the run that counts."""

    check: str
    ran: bool
    wanted: bool
    said: str
    command: str
    run: "CheckRun | None"


def ran(*, env: EnvFile = None, feed: Feed = None, date: date | None = None, json: Json = False) -> int:
    """Did every check of a day (UTC; default: yesterday) run to its end? Exit code 3, and a line for each that did not.

    What a check found is no matter here: one with findings ran. The last run that ended decides: a failure after a good
    run is told with both.
    """
    from ssmd.registry.checks import WANTED, CheckRuns, missing

    chosen, today = choose(env), day_of(now_ns())
    name, day = chosen.feed(feed), date or today - timedelta(days=1)
    if day >= today:
        raise ConfigError(f"{day} is not over: its checks run after midnight (UTC)", "Give an earlier --date.")
    begun = _first_day(chosen, name)
    with database_of(chosen) as database:
        runs = CheckRuns(database).of_days(name, day, day)
    absent = missing(runs, WANTED)
    if begun is None or day < begun:
        absent = []
    begins = f"the archive begins on {begun}" if begun else "nothing is archived yet"
    lines = [
        _line(check, [run for run in runs if run.check == check], check in absent, begins, _command(chosen, name, day))
        for check in WANTED
    ]
    if json:
        show_json([{"feed": name, "date": day, **msgspec.structs.asdict(line)} for line in lines])
    else:
        for line in lines:
            mark_line(GOOD if line.ran else BAD if line.wanted else WAITING, line.check, line.said)
    return EXIT_REFUSED if absent else EXIT_DONE


def _first_day(chosen: Chosen, feed: str) -> date | None:
    """The first day of which anything is archived."""
    from ssmd.registry.assessment import all_rows

    with registry_of(chosen) as registry:
        require_feed(chosen, registry, feed, "look for the checks of feed")
        return min((row.day for row in all_rows(registry, feed)), default=None)


def _command(chosen: Chosen, feed: str, day: date) -> Callable[[str], str]:
    return lambda check: f"{COMMAND[check]} --feed {feed} --date {day.isoformat()}{chosen.with_file}"


def _line(check: str, runs: Sequence["CheckRun"], absent: bool, begins: str, command: Callable[[str], str]) -> Line:
    """The last run that ended decides; `absent`: one was wanted, and the last one did not come to its end."""
    from ssmd.registry.checks import RAN, deciding

    run = deciding(runs) or (runs[-1] if runs else None)
    well = run is not None and run.state in RAN
    if run is not None and well:
        said = _how(run)
    elif not absent:
        said = f"did not run, and there was nothing to check: {begins}"
    elif run is None:
        said = f"did not run. Run: {command(check)}"
    elif run.state == "running":
        said = f"has not ended since {_at(run.started_at)}: it runs, or was killed. Run: {command(check)}"
    else:
        why = f"({run.state.replace('_', ' ')}, exit code {run.exit_code}): {run.summary}".rstrip(": ")
        earlier = deciding([each for each in runs if each.state in RAN])
        at = f" at {_at(run.completed_at or run.started_at)}" if earlier else ""
        before = (
            f"; before that, at {_at(earlier.completed_at or earlier.started_at)}, it {_how(earlier)}"
            if earlier
            else ""
        )
        said = f"could not be done{at} {why}{before}. Run: {command(check)}"
    return Line(check, well, absent or well, said, command(check), run)


def _how(run: "CheckRun") -> str:
    return f"ran, {run.state}: {run.summary}".rstrip(": ")


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
