"""Stop what `ssmd up` started in an SSMD_HOME, in order, and nothing else; also after `up` itself was killed."""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ssmd.errors import FatalError, Unavailable
from ssmd.local import airflow_server
from ssmd.local.home import Home, StackRecord
from ssmd.local.plan import stop_order
from ssmd.local.postgres import STOP_SIGNAL
from ssmd.local.processes import MARK, ProcessId, command_of, identify, marked
from ssmd.local.progress import Progress
from ssmd.local.supervisord import Control

_AT_REST = ("STOPPED", "EXITED", "FATAL")
_STOP_LIMIT_S = 45.0
_UP_LIMIT_S = 150.0
_AIRFLOW_END_S = 2.0
"""Its idle workers take no notice of SIGTERM."""


def down(home: Home, progress: Progress) -> bool:
    """Stop the stack of this home; False when nothing was running. FatalError when something resists."""
    record = home.read_record()
    if record is None:
        return False
    if record.up is not None and record.up.alive:
        # The `up` that watches the stack stops it in order; we wait and look that nothing is left.
        progress.line(f"asking `ssmd up` (process {record.up.pid}) to stop")
        record.up.send(signal.SIGTERM)
        if not record.up.wait(_UP_LIMIT_S):
            progress.line("it does not end; stopping without it")
            record.up.send(signal.SIGKILL)
            record.up.wait(5.0)
        record = home.read_record() or record
    stop_stack(home, record, progress)
    return True


def stop_stack(home: Home, record: StackRecord, progress: Progress, hurry: Callable[[], bool] = lambda: False) -> None:
    """Stop each program in order, then supervisord, then whatever carries the stack's mark. `hurry` ends all graces."""
    if record.supervisord.alive:
        control = Control(Path(record.socket), record.password)
        try:
            order = stop_order(record.programs)
            _stop_airflow(control, [name for name in order if name in airflow_server.PROGRAMS], progress, hurry)
            _end_leftovers(home, record, progress, only=airflow_server.PROGRAMS)
            for name in order:
                _stop(control, name, progress, hurry)
            control.shutdown()
        except Unavailable as error:
            progress.line(f"supervisord does not answer ({error.message}); ending its processes one by one")
        finally:
            control.close()
        if not record.supervisord.wait(5.0):
            record.supervisord.end(2.0 if hurry() else 5.0)
    _end_leftovers(home, record, progress)
    home.forget()


def _stop_airflow(control: Control, names: list[str], progress: Progress, hurry: Callable[[], bool]) -> None:
    """The scheduler, whose tasks tell the others how they ended; then the others at once."""
    for name in names:
        if name == airflow_server.SCHEDULER:
            _stop(control, name, progress, hurry)
        else:
            control.stop(name)
    for name in names:
        _stop(control, name, progress, hurry)


def _stop(control: Control, name: str, progress: Progress, hurry: Callable[[], bool]) -> None:
    state = control.states()[name]
    if state.state in _AT_REST:
        return
    with progress.step(name) as step:
        step.detail = "stopped"
        control.stop(name)
        deadline = time.monotonic() + _STOP_LIMIT_S
        while (state := control.states()[name]).state not in _AT_REST:
            if hurry() or time.monotonic() > deadline:
                step.detail, step.mark = "killed", "✗"
                if state.pid and (process := identify(state.pid)):
                    process.send(signal.SIGKILL)
            time.sleep(0.05)
        if state.exit_code > 0:
            step.detail, step.mark = f"stopped with exit code {state.exit_code}", "✗"


def _end_leftovers(home: Home, record: StackRecord, progress: Progress, only: Sequence[str] | None = None) -> None:
    """Processes that outlived supervisord (it was killed) or their program, in the usual order."""
    found = {name: some for name, some in _leftovers(home, record).items() if only is None or name in only}
    for name in stop_order(list(found)):
        grace_s = _AIRFLOW_END_S if name in airflow_server.PROGRAMS else 30.0
        for process in found[name]:
            progress.line(f"ending {name or 'process'} ({process.pid}), left over from this stack")
            process.end(grace_s, signal.Signals[f"SIG{STOP_SIGNAL}"] if name == "postgres" else signal.SIGTERM)
    left = _leftovers(home, record)
    resisting = [str(process.pid) for name in left if only is None or name in only for process in left[name]]
    if resisting:
        raise FatalError(f"processes {', '.join(resisting)} of this stack do not end", "End them with: kill -9")


def _leftovers(home: Home, record: StackRecord) -> dict[str, list[ProcessId]]:
    """Processes of the stack that still run, by program."""
    found: dict[str, list[ProcessId]] = {}
    for process, name in marked(MARK, record.mark):
        found.setdefault(name, []).append(process)
    # PostgreSQL overwrites its environment with the title it shows in `ps`: ask its own lock file.
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (home.postgres / "postmaster.pid").read_text().splitlines()
        postmaster = identify(int(lines[0])) if Path(lines[1]).resolve() == home.postgres.resolve() else None
        if postmaster and postmaster.alive and "postgres" in command_of(postmaster.pid):
            found["postgres"] = [postmaster]
    return found
