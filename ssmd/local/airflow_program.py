"""`python -m ssmd.local.airflow_program NAME [--log FILE] -- ARGUMENTS`: end a predecessor's remains, become Airflow.

A scheduler that is killed leaves its workers, and these the tasks they run. The next scheduler cannot take them over:
it would start the same tasks again beside them. So they end before it begins; the workers first, so that they do not
report as failed what is only interrupted. The next scheduler finds what was running without an owner and starts it
again. The interrupted try counts: `try_number` goes up, and one retry less is left.

With `--log` the output goes there itself. Through supervisord's pipe, which is closed as soon as the scheduler is dead,
the tasks would fail at their next word.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from ssmd.local.processes import MARK, ProcessId, command_of, marked

_WORKER, _OURS = "airflow worker -- LocalExecutor", ("airflow ", "-m airflow ")
_COMMAND = 2
_END_S = 5.0


def end_remains(name: str, mark: str) -> int:
    """End every process of the program `name` of the stack but this one; how many there were."""
    remains = [process for process, program in marked(MARK, mark) if program == name and process.pid != os.getpid()]
    for process in sorted(remains, key=_rank):
        if _rank(process) < _COMMAND:
            process.send(signal.SIGKILL)
    for process in remains:
        process.end(_END_S)
    return len(remains)


def _rank(process: ProcessId) -> int:
    """Workers, then other processes of Airflow, then the commands of tasks, which may end in good order."""
    command = command_of(process.pid)
    if command.startswith(_WORKER):
        return 0
    return 1 if any(sign in command for sign in _OURS) else _COMMAND


def main(arguments: Sequence[str]) -> None:
    """Never returns."""
    name, *options = arguments[: arguments.index("--")]
    rest = arguments[arguments.index("--") + 1 :]
    if options:
        log = os.open(options[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    if mark := os.environ.get(MARK):
        with contextlib.suppress(ProcessLookupError):
            end_remains(name, mark)
    os.execv(sys.executable, [sys.executable, "-m", "airflow", *rest])  # noqa: S606 no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
