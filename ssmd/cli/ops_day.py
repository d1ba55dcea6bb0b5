"""The whole day: all steps of a startup or teardown, in order here, or through Airflow."""

import subprocess
import sys
import time
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from ssmd.cli.ops_local import running_stack
from ssmd.cli.ops_log import logged
from ssmd.cli.options import Chosen
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json, talk
from ssmd.errors import EXIT_DONE, EXIT_FINDINGS

if TYPE_CHECKING:
    from ssmd.registry.operations import Action


class DayStep(msgspec.Struct, frozen=True):
    """A step of the day: the command as it was run, and how it ended."""

    task: str
    command: list[str]
    exit_code: int
    seconds: float


def commands(chosen: Chosen, action: "Action", day: date) -> dict[str, list[str]]:
    """The steps of a startup or teardown: the tasks of the DAG of that name, each with its command."""
    date_words = ["--date", str(day)]
    if action == "startup":
        return {
            "sync_markets": ["market", "sync"],
            "verify_keys": ["key", "verify", chosen.environment.name],
            "start_connector": ["ops", "start", "connector", *date_words],
            "start_archiver": ["ops", "start", "archiver", *date_words],
            "start_gateway": ["ops", "start", "gateway", *date_words],
            "check_health": ["ops", "health"],
        }
    return {
        "drain_gateway": ["ops", "stop", "gateway", *date_words],
        "flush_archiver": ["ops", "stop", "archiver", *date_words],
        "stop_connector": ["ops", "stop", "connector", *date_words],
        "compact": ["data", "compact", *date_words],
        "verify": ["data", "verify", *date_words],
    }


def here(chosen: Chosen, action: "Action", day: date, *, ahead: bool, json: bool) -> int:
    """Do the steps one after the other, each as the command it is; what they say goes to stderr.

    The first that fails ends the operation with its own exit code; findings (6) do not end it.
    """
    running_stack(chosen)
    steps: list[DayStep] = []
    with logged(chosen, action, None, day) as line:
        for task, words in commands(chosen, action, day).items():
            words = [*words, "--ahead"] if ahead and words[:2] == ["ops", "start"] else words
            steps.append(_run(chosen, task, words))
            if not json:
                _show(steps[-1])
            if steps[-1].exit_code not in (EXIT_DONE, EXIT_FINDINGS):
                line.fail(f"{task} ended with exit code {steps[-1].exit_code}")
                break
    if line.problem:
        talk(f"{BAD} the deployment log does not say so: {line.problem}")
    if json:
        show_json([msgspec.to_builtins(step) for step in steps])
    last = steps[-1].exit_code
    if last not in (EXIT_DONE, EXIT_FINDINGS):
        talk(f"the {action} of {day} ended at {steps[-1].task}; correct what it says, and run this again")
        return last
    return EXIT_FINDINGS if line.problem or any(step.exit_code == EXIT_FINDINGS for step in steps) else EXIT_DONE


def _run(chosen: Chosen, task: str, words: list[str]) -> DayStep:
    command = ["ssmd", *words, "--env", str(chosen.file.absolute())]
    began = time.monotonic()
    sys.stdout.flush()
    with subprocess.Popen([sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=sys.stderr) as child:
        code = child.wait()
    return DayStep(task, command, code, round(time.monotonic() - began, 2))


def _show(step: DayStep) -> None:
    if step.exit_code == EXIT_DONE:
        mark, how = GOOD, "done"
    elif step.exit_code == EXIT_FINDINGS:
        mark, how = WAITING, "done, with findings"
    else:
        mark, how = BAD, f"failed (exit code {step.exit_code})"
    mark_line(mark, step.task, f"{how} · {step.seconds:.1f} s")
