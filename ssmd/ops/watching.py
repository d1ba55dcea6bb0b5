"""Follow a run of a DAG to its end: every change of a task is told, and the end becomes an exit code."""

import time
from collections.abc import Callable

import msgspec

from ssmd.airflow_api import Airflow, Run, Task
from ssmd.errors import EXIT_DONE, EXIT_FAILED, EXIT_FINDINGS, Unavailable

POLL_S = 1.0
PATIENCE_S = 60.0
"""So long Airflow may be away while a run is watched: its web server may be restarted, the run goes on."""
QUEUED_S = 30.0
"""A run that waits longer than this is looked into."""

FAILED = ("failed", "upstream_failed")


class Change(msgspec.Struct, frozen=True):
    """A task is in another state than before."""

    task: Task
    before: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `failed` and `findings`: tasks by name, with why, and with what they found."""

    run: Run
    exit_code: int
    tasks: list[Task]
    failed: dict[str, str]
    findings: dict[str, str]


class Watcher:
    """Watches one run; `tell` hears each change, `warn` what an operator should know meanwhile."""

    def __init__(
        self,
        airflow: Airflow,
        run: Run,
        tell: Callable[[Change], None],
        warn: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._airflow = airflow
        self._run = run
        self._tell = tell
        self._warn = warn
        self._pause = pause
        self._clock = clock
        self._states: dict[str, str] = {}
        self._away_since: float | None = None
        self._warned = False

    def follow(self) -> Ending:
        """Return when the run has ended. Unavailable when Airflow is away for a minute: the run may go on."""
        began = self._clock()
        while True:
            seen = self._look()
            if seen is not None:
                run, tasks = seen
                for task in tasks:
                    self._note(task)
                if not run.active:
                    return self._ending(run, tasks)
                if run.state == "queued" and self._clock() - began > QUEUED_S:
                    self._explain_wait()
            self._pause(POLL_S)

    def _look(self) -> tuple[Run, list[Task]] | None:
        """The run, and then its tasks: an ended run's tasks do not change any more. None while Airflow is away."""
        try:
            run = self._airflow.run(self._run.dag, self._run.id)
            tasks = self._airflow.tasks(self._run.dag, self._run.id)
        except Unavailable as error:
            now = self._clock()
            if self._away_since is None:
                self._away_since = now
                self._warn(f"{error.message}; asking again for a minute, the run goes on")
            elif now - self._away_since > PATIENCE_S:
                raise Unavailable(
                    f"{error.message}; the run {self._run.id} of {self._run.dag} goes on without being watched",
                    f"Look at it later: {self._airflow.page(self._run.dag, self._run.id)} or ssmd ops status",
                ) from error
            return None
        self._away_since = None
        return run, tasks

    def _note(self, task: Task) -> None:
        before = self._states.get(task.name, "")
        if task.state not in ("", before):
            self._states[task.name] = task.state
            self._tell(Change(task, before))

    def _explain_wait(self) -> None:
        if self._warned:
            return
        self._warned = True
        ailing = self._airflow.ailing()
        others = [run for run in self._airflow.runs(self._run.dag, active=True) if run.id != self._run.id]
        if ailing:
            self._warn(f"the run waits, and Airflow's {' and '.join(ailing)} does not report; see: ssmd status")
        elif others:
            self._warn(f"the run waits for another one of {self._run.dag}: {others[-1].id} ({others[-1].state})")
        else:
            self._warn(f"the run has been waiting for {QUEUED_S:.0f} s; Airflow's scheduler says it is well")

    def _ending(self, run: Run, tasks: list[Task]) -> Ending:
        failed, findings = {}, {}
        for task in tasks:
            if task.state == "failed":
                failed[task.name] = self._airflow.reason(run.dag, run.id, task)
            elif task.state == "success" and (found := self._airflow.findings(run.dag, run.id, task)) is not None:
                findings[task.name] = found
        code = EXIT_FAILED if run.state != "success" else EXIT_FINDINGS if findings else EXIT_DONE
        return Ending(run=run, exit_code=code, tasks=tasks, failed=failed, findings=findings)
