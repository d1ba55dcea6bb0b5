"""The whole day: all steps of a startup or teardown, in order here, or through Airflow."""

from datetime import date
from typing import TYPE_CHECKING

import msgspec

from ssmd.cli.ops_log import logged
from ssmd.cli.options import Chosen
from ssmd.cli.output import show_json
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS

if TYPE_CHECKING:
    from ssmd.registry.operations import Action


def here(chosen: Chosen, action: "Action", day: date, *, json: bool) -> int:
    """Do the steps one after the other; the first that fails ends the day's operation with its own exit code."""
    from ssmd.cli.ops_steps import ORDER, do_step, show_step

    steps = []
    with logged(chosen, action, None, day):
        for service in ORDER[action]:
            steps.append(do_step(chosen, action, service, day))
            if not json:
                show_step(steps[-1])
    if json:
        show_json([msgspec.to_builtins(step) for step in steps])
    return EXIT_FINDINGS if any(step.findings for step in steps) else EXIT_DONE


def by_airflow(chosen: Chosen, action: "Action", day: date, *, json: bool) -> int:
    """Ask Airflow for the run of a DAG, and watch it."""
    from ssmd.cli.ops_airflow import run_dag

    return run_dag(chosen, action, day, json=json)
