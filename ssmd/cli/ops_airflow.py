"""`ssmd ops start|stop` by Airflow: a run of daily_startup or daily_teardown, asked for and watched."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import msgspec

from ssmd.airflow_api import TIMEOUT_S, Airflow, Login, Run
from ssmd.cli.checking import triggered
from ssmd.cli.opening import KeySecrets, resolver_of
from ssmd.cli.options import Chosen
from ssmd.cli.output import BAD, GOOD, WAITING, cell, mark_line, show_json, talk
from ssmd.errors import ConfigError, RefusedError, Unavailable
from ssmd.local.airflow_access import read_access
from ssmd.local.home import Home
from ssmd.ops.watching import Change, Ending, Watcher

if TYPE_CHECKING:
    from ssmd.registry.operations import Action

DAGS: "dict[Action, str]" = {"startup": "daily_startup", "teardown": "daily_teardown"}
_MARKS = {"success": GOOD, "failed": BAD, "upstream_failed": BAD}
EXIT_INTERRUPTED = 130


def airflow_of(chosen: Chosen, timeout_s: float = TIMEOUT_S) -> Airflow:
    """The Airflow of an environment; Unavailable when it is one that `ssmd up` would start, and it did not."""
    settings = chosen.environment.spec.airflow
    if settings is None:
        raise ConfigError(
            f"the environment {chosen.environment.name!r} names no Airflow", "Add spec.airflow.url, or --no-airflow."
        )
    secrets = KeySecrets(resolver_of(chosen))
    url = secrets.text(settings.url)
    if settings.credentials:
        fields = secrets.fields(settings.credentials)
        return Airflow(url, Login(fields["username"], fields["password"]), timeout_s)
    access = read_access(Home(chosen.home))
    if access is None:
        raise Unavailable(
            f"Airflow at {url} was not started here: {chosen.home}/run/airflow.json is missing",
            f"Run: ssmd up{chosen.with_file}, or add --no-airflow, or name a key in spec.airflow.credentials.",
        )
    return Airflow(access.url, Login(access.username, access.password), timeout_s)


def run_dag(chosen: Chosen, action: "Action", day: date, *, json: bool) -> int:
    """Have Airflow do a startup or teardown and watch it; a run for that day that is at work is joined.

    Exit code 0, 1 (failed), or 6 (done, with findings). Ctrl-C leaves the run going. The services' steps write the
    deployment log themselves, as the run's tasks.
    """
    airflow, dag = airflow_of(chosen), DAGS[action]
    airflow.check_version()
    run = _join(airflow, dag, day) or _trigger(airflow, dag, day)
    try:
        with _progress() as tell:
            ending = Watcher(airflow, run, tell, lambda text: talk(f"{WAITING} {text}")).follow()
    except KeyboardInterrupt:
        talk(f"not watching any more; the run goes on: {airflow.page(dag, run.id)}")
        talk("See how it ends: ssmd ops status")
        return EXIT_INTERRUPTED
    _show(airflow, ending, json=json)
    return ending.exit_code


def _join(airflow: Airflow, dag: str, day: date) -> Run | None:
    """A run for this day that is at work already."""
    for run in airflow.runs(dag, active=True):
        if run.day == day:
            talk(f"{WAITING} a run of {dag} for {day} is at work already; watching it: {airflow.page(dag, run.id)}")
            return run
    return None


def _trigger(airflow: Airflow, dag: str, day: date) -> Run:
    if airflow.paused(dag):
        raise RefusedError(
            f"{dag} is paused in Airflow, so that a run would wait for ever",
            f"Unpause it at {airflow.page(dag)}, or do the steps without Airflow: add --no-airflow",
        )
    for part in airflow.ailing():
        talk(f"{WAITING} Airflow's {part} does not report: the run may have to wait. See: ssmd status")
    _, by = triggered()
    now = datetime.now(UTC)
    run = airflow.trigger(dag, f"ops__{day}__{now:%Y-%m-%dT%H:%M:%S.%f}", {"date": str(day)}, f"ssmd ops, {by}")
    talk(f"{WAITING} {dag} for {day}: {airflow.page(dag, run.id)}")
    return run


@contextmanager
def _progress() -> Iterator[Callable[[Change], None]]:
    """Tells each change of a task: on a terminal with the time that passes, in a pipe as plain lines."""
    if not sys.stderr.isatty():
        yield lambda change: talk(_line(change))
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        waiting = bar.add_task("waiting for the first task", total=None)

        def tell(change: Change) -> None:
            if change.task.state == "running":
                bar.update(waiting, description=change.task.name)
            else:
                console.print(_line(change), markup=False)

        yield tell


def _line(change: Change) -> str:
    task = change.task
    took = f" · {task.seconds:.1f} s" if task.seconds is not None and task.state not in ("running", "queued") else ""
    again = f" (try {task.tries})" if task.tries > 1 else ""
    return f"{_MARKS.get(task.state, WAITING)} {task.name:<28} {task.state}{again}{took}"


def _show(airflow: Airflow, ending: Ending, *, json: bool) -> None:
    run = ending.run
    page = airflow.page(run.dag, run.id)
    if json:
        show_json(msgspec.to_builtins(ending) | {"page": page})
        return
    for name, text in ending.findings.items():
        talk(f"{WAITING} {name} ended with findings:")
        for line in text.splitlines():
            talk(f"    {cell(line)}")
    tasks = {task.name: task for task in ending.tasks}
    for name, why in ending.failed.items():
        said = f": {cell(why)}" if why else ""
        talk(f"{BAD} {name} failed{said}; its log: {airflow.page(run.dag, run.id, tasks[name])}")
    mark = BAD if ending.failed or ending.exit_code == 1 else WAITING if ending.findings else GOOD
    how = "failed" if mark == BAD else "done, with findings" if ending.findings else "done"
    mark_line(mark, run.dag, f"{run.day or ''} {how} · {page}".strip())
