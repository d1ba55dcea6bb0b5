"""Writes dags/README.md, the catalogue of the DAGs, from the DAGs themselves: `python dags/ssmd_catalogue.py`.

A test fails when the page is not current.
"""

import atexit
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

_NEVER = 9999
FOLDER = Path(__file__).resolve().parent
_INTRODUCTION = """# DAGs

What Airflow runs, day by day. Each task is one `ssmd …` command: a process on the machine of a local environment, a pod
in the cluster of the others (`spec.runtime`). Nothing here imports ssmd; what a command does is its own business, and
its exit code is the contract:

| exit code | meaning | in Airflow |
|---|---|---|
| 0 | done | success |
| 6 | done, with findings | success, with the findings shown and an alert |
| 1, 7, ended by a signal | failed; away or busy for now | tried again, three times, after 30 s, 60 s, 120 s |
| 2, 3, 70 | wrong input; refused by a check; a bug | failed at once, with the command's own last message |

**A busy day** is one that another job works on: a second writer, or a reader beside a writer, on one feed's day. A task
waits for it: its log says every 30 s who has the day, and since when. After an hour the command gives up with 7, and
the next of the task's tries waits again. Only then the task fails, with its alert; what the checks of that day said
before stands as it was. The lock ends with its holder, even a killed one: there is nothing to clean up.

A command ends with its task, and a task's command with the worker that runs the task, however that dies: no try meets
what an earlier one has left running.

**Findings** are warnings at the end of the task's log, and stand in its tab *Task State Store*; a task that is made for
each day says so behind the day (`2026-11-20: findings`); the event of the asset says it, too.

Whatever fails, is skipped or has findings is told once: posted as JSON to `spec.airflow.webhook`, and (local
environments) written down by `ssmd ops alert`, which the gateway's metric `ssmd_alerts_open` and `ssmd ops alerts` show
until a later run for that day goes well. The task tells it; the run as a whole only when no task could, as when it took
too long. Not told is wrong input (2) of a run that a person started: they see it, and no good run would ever answer it.

**Days** are UTC days. A run by the schedule is about the day of its data interval (`ds`), a run by an event of
`ssmd_archive_day` about the day the event names, a run by hand about `date`; without one about the day of an earlier
logical date, else about yesterday (what looks at finished days) or today (what acts now). A run that is given anything
but the parameters of its DAG does nothing: a mistyped `date` would be about another day.

A schedule about a day that is over is a `CronTriggerTimetable` with that day as interval, and no
`CronDataIntervalTimetable`: runs and `ds` are the same, but in a new Airflow the latter runs at once, for a day of
which there is no archive.

## To add a DAG

1. Write the `ssmd …` command first; it must do no harm when it is run twice for a day.
2. A file here, called like the DAG. Its docstring is the page in the web interface and here (Markdown: what it does,
   then each way it fails and what to do). `DAG(…, tags=["ssmd", "impact/…"], dagrun_timeout=…,
   **house(__doc__, days))`; tasks by `ssmd_task(…)` with an `execution_timeout`, and `pool=POOL` when they read or
   write a whole day; every parameter a `Param` with type and description. No work, no network and no import of ssmd at
   the top of the file.
3. `make docs`, and the tests in `tests/dags`: they count the DAGs and try each command on the real command line.

`ssmd_tasks.py` makes a command a task, `ssmd_days.py` says which day a run is about, `ssmd_alerts.py` who is told.

This page is made by `python dags/ssmd_catalogue.py`.
"""


def load(environment: Path) -> dict[str, Any]:
    """The DAGs of this folder by id, as Airflow reads them for an environment file. RuntimeError when one is broken.

    Airflow is imported here and never after the first call with another file: one process, one environment.
    """
    os.environ["SSMD_ENVIRONMENT_FILE"] = str(environment)
    if "AIRFLOW_HOME" not in os.environ:  # Airflow writes its settings into one
        home = os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(str(FOLDER), bundle_path=FOLDER, bundle_name="dags-folder")
    if bag.import_errors:
        raise RuntimeError(f"broken DAG files: {bag.import_errors}")
    return dict(sorted(bag.dags.items()))


def page(dags: Mapping[str, Any]) -> str:
    """The whole page."""
    from ssmd_tasks import TAGS

    lines = [_INTRODUCTION, "## All of them\n", "| DAG | when | what |\n|---|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {_when(dag)} | {dag.description}. |" for name, dag in dags.items()]
    lines += ["\n| tag | meaning |\n|---|---|", *(f"| `{tag}` | {meaning} |" for tag, meaning in TAGS.items())]
    for name, dag in dags.items():
        lines += ["", *_section(name, dag)]
    return "\n".join(lines) + "\n"


def _section(name: str, dag: Any) -> Iterator[str]:
    yield f"## {name}\n"
    yield dag.doc_md.strip() + "\n"
    tags = ", ".join(f"`{tag}`" for tag in sorted(dag.tags))
    yield f"{_when(dag)} · {tags} · owner {dag.owner} · at most {_span(dag.dagrun_timeout)}\n"
    yield "| parameter | value | default | meaning |\n|---|---|---|---|"
    for parameter in dag.params:
        param = dag.params.get_param(parameter)
        default = "" if param.value is None else f"`{json.dumps(param.value)}`".replace('"', "")
        yield f"| `{parameter}` | {_kind(param.schema)} | {default} | {param.description} |"
    yield "\n| task | command | limit | pool |\n|---|---|---|---|"
    for task in dag.topological_sort():
        words = [word for word in _words(task) if word]
        said = f"`{shlex.join(['ssmd', *words])}`".replace("'", "") if words else "the days of the run"
        pool = "" if task.pool == "default_pool" else f"`{task.pool}`"
        outlets = "".join(f"; updates `{asset.name}`" for asset in task.outlets)
        yield f"| `{task.task_id}`{_each(task)} | {said}{outlets} | {_span(task.execution_timeout)} | {pool} |"


def _each(task: Any) -> str:
    if getattr(task, "scheduled_only", False):
        return " (by the schedule only)"
    return " (for each day)" if task.get_closest_mapped_task_group() else ""


def _words(task: Any) -> list[str]:
    """The command without what every one has; templates as the placeholders they are."""
    return [_placeholder(word) for word in getattr(task, "words", [])]


def _placeholder(word: str) -> str:
    known = {"task.day": "DAY", "params.feed": "FEED", "ended_day()": "ENDED", "next_day()": "NEXT"}
    if option := re.search(r"'(--[a-z]+)' if", word):
        return f"[{option[1]}]"
    return known.get(word.strip("{} "), word)


def _when(dag: Any) -> str:
    from airflow.sdk import CronTriggerTimetable

    timetable = dag.timetable
    if isinstance(timetable, CronTriggerTimetable):
        return f"`{timetable.expression}` {timetable.timezone}"
    if dag.start_date and dag.start_date.year == _NEVER:
        return "when asked"
    return "after `ssmd_archive_day`"


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "date":
        return "`YYYY-MM-DD` or empty"
    return str(schema["type"])


def _span(limit: timedelta) -> str:
    minutes = int(limit.total_seconds() // 60)
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def main() -> None:
    """Write the page."""
    sys.path.insert(0, str(FOLDER))
    (FOLDER / "README.md").write_text(page(load(FOLDER.parent / "environments" / "local.yaml")))


if __name__ == "__main__":
    main()
