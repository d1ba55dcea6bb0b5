"""One `ssmd …` command as an Airflow task, a process on this machine or a pod in a cluster, and what all DAGs share.

It knows commands and exit codes; it never imports ssmd.
"""

import ctypes
import os
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, Context, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from jinja2 import pass_context
from ssmd_alerts import DONE, FINDINGS, SsmdNotifier
from ssmd_days import ENVIRONMENT, by_hand, command, ended_day, next_day, require_known_conf, run_type, with_file

POOL = "ssmd_heavy"
"""Tasks that read or write a whole day; the pool's slots say how many run at a time."""
TAGS = {
    "ssmd": "every DAG of this folder",
    "impact/capture": "while it fails, market data may be lost for good",
    "impact/archive": "while it fails, readers find a day unfinished; nothing is lost",
    "impact/checks": "while it fails, nobody knows whether a day is good",
}
"""The tags there are; each DAG has `ssmd` and one impact."""

MEANING = {
    1: "failed", 2: "wrong input or configuration", 3: "refused by a check", 7: "not possible now",
    70: "a bug in ssmd",
}  # fmt: skip
FINAL = (2, 3, 70)
"""Exit codes that another try would not change."""

RETRIES = 3
RETRY_DELAY = timedelta(seconds=30)
"""Before the second try; twice as long before each further one."""

BUSY_WAIT = timedelta(hours=1)
"""How long a command waits for a day that another job works on.

The command waits, and not Airflow between tries: they are few and soon over, for servers that come back within
minutes, while a backfill may have a day for hours. It waits in a pod as in a process, and the task's log says for whom.
Four tries of an hour, and each leaves most of its `execution_timeout` for the work. The slot of the pool is kept
meanwhile: whoever has the day is at work already and needs no slot of ours to end.
"""

_SAID = 20
_BAD = "✗"
_HELD = 1_000
_LONGEST = 4_000
_SUMMARY = 1_000
_STORED = 16_000
_POD_FILE = "/etc/ssmd/environment.yaml"
_LOG_LEFT_S = 1.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


FEED = "{{ params.feed }}"
DAY = "{{ task.day }}"


class _Outcome:
    """How a task's command ended; what the exit codes of ssmd mean to Airflow."""

    exit_code: int | None = None
    summary = ""

    def settle(
        self, context: Any, code: int, said: Sequence[str], error: Sequence[str], answer: Sequence[str] = ()
    ) -> None:
        """Say it so that it is seen; raise AirflowException to be tried again, AirflowFailException not to be.

        `said`: the last lines of the answer on stdout, `error`: the last ones on stderr; `answer`: what is not in the
        log yet, in the order it was said.
        """
        task: Any = self
        self.exit_code, self.summary = code, (_last_message(said) or _last_message(error))[:_SUMMARY]
        if code in (DONE, FINDINGS):
            for asset in task.outlets:
                context["outlet_events"][asset].extra = {
                    "feed": context["params"]["feed"], "day": task.day, "findings": code == FINDINGS,
                }  # fmt: skip
        if code == DONE:
            return
        if code == FINDINGS:
            found = [*_found(error), *_found(answer or said)]
            self.summary = "\n".join(dict.fromkeys(found))[:_SUMMARY] or self.summary
            self._show_findings(context, answer or [*error, *said][-_SAID:])
            return
        self.summary = (_last_message(error) or self.summary)[:_SUMMARY]
        if code < 0 or code > 128:
            raise AirflowException(f"the command was ended by {_signal(-code if code < 0 else code - 128)}")
        why = f"exit code {code}, {MEANING.get(code, 'unknown')}: {self.summary or 'it said nothing'}"
        raise AirflowFailException(why) if code in FINAL else AirflowException(why)

    def _show_findings(self, context: Any, lines: Sequence[str]) -> None:
        """Where people look: at the end of the log, as warnings; and in the task's tab "Task State Store".

        Not an XCom: nothing downstream can come to depend on it.
        """
        task: Any = self
        task.log.warning("exit code 6: done, with findings. They are, in the command's own words:")
        for line in lines:
            task.log.warning("  %s", line)
        try:
            context["task_state_store"].set("findings", "\n".join(lines)[:_STORED] or "see the log")
        except AirflowException as problem:
            task.log.warning("the findings are in the log only: %s", problem)


class SsmdProcess(_Outcome, BaseOperator):
    """A command as a child of the task's process, in a process group of its own; its output is the task's log.

    From the first line of its answer on, the lines wait for its end: findings are warnings, and said once.
    """

    template_fields: Sequence[str] = ("day", "words")
    grace_s: ClassVar[float] = 4.0
    """Seconds between SIGTERM and SIGKILL; one less than Airflow gives the task itself."""

    def __init__(self, *, words: Sequence[str], day: str, scheduled_only: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.day, self.scheduled_only = list(words), day, scheduled_only
        self._child: subprocess.Popen[bytes] | None = None

    def execute(self, context: Context) -> None:
        """Run it, and let its exit code decide."""
        _only_if_wanted(self.scheduled_only, context)
        words = command(self.words)
        self.log.info("%s", shlex.join(["ssmd", *with_file(self.words, ENVIRONMENT.file)]))
        try:
            # Own group: what the command starts ends with it. stdin closed: nobody is there to answer a question.
            self._child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=_variables(context), start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        except OSError as error:
            raise AirflowFailException(f"cannot run {words[0]}: {error.strerror}; is ssmd installed?") from error
        said: dict[str, deque[str]] = {"stdout": deque(maxlen=_SAID), "stderr": deque(maxlen=_SAID)}
        answer: deque[str] = deque()
        code = None
        try:
            for stream, line in _lines(self._child, _supervisor()):
                said[stream].append(line)
                if stream == "stdout" or answer:
                    answer.append(line)
                else:
                    self.log.info("%s", line)
                if len(answer) > _HELD:
                    self.log.info("%s", answer.popleft())
            code = self._child.wait()
        finally:
            self._end(self._child)
            if code != FINDINGS:
                for line in answer:
                    self.log.info("%s", line)
        self.settle(context, code, list(said["stdout"]), list(said["stderr"]), list(answer))

    def on_kill(self) -> None:
        """End the command: SIGTERM to its group, SIGKILL to what is left after `grace_s`. Returns at once."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        _signal_group(child.pid, signal.SIGTERM)
        after = threading.Timer(self.grace_s, _signal_group, (child.pid, signal.SIGKILL))
        after.daemon = True
        after.start()

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        """The same, when the task itself is at its end (a time-out): wait until it is done."""
        if child.poll() is not None:
            return
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(self.grace_s)
        except subprocess.TimeoutExpired:
            _signal_group(child.pid, signal.SIGKILL)
            child.wait()


def _only_if_wanted(scheduled_only: bool, context: Any) -> None:
    if scheduled_only and run_type(context["dag_run"]) != "scheduled":
        raise AirflowSkipException("only in runs by the schedule")


def _last_message(lines: Sequence[str]) -> str:
    """The last line and, when it is indented, those that it belongs to: `what went wrong`, below it `  - the fix`."""
    for number in range(len(lines) - 1, -1, -1):
        if not lines[number].startswith(" "):
            return "\n".join(lines[number:])
    return "\n".join(lines)


def _found(lines: Sequence[str]) -> list[str]:
    """What is not as it should be: each line that begins with ✗, and the lines that belong to it (`→ the fix`)."""
    found: list[str] = []
    inside = False
    for line in lines:
        inside = line.startswith(_BAD) or (inside and line.startswith((" ", "Run:")))
        if line.startswith(_BAD):
            found.append(line)
        elif inside:
            found[-1] += f"\n{line}"
    return found


def _variables(context: Any) -> dict[str, str]:
    """The command's environment: this process's without Airflow's own settings, plus what it is told."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "_AIRFLOW"))}
    return {**kept, **_told(context), "PYTHONUNBUFFERED": "1"}


def _told(context: Any) -> dict[str, str]:
    """Who started the command, and how long it may wait for a busy day."""
    run, ti = context["dag_run"], context["ti"]
    return {
        "SSMD_TRIGGER": "manual" if by_hand(run) else "scheduled",
        "SSMD_TRIGGERED_BY": f"airflow:{ti.dag_id}/{run.run_id}/{ti.task_id}",
        "SSMD_BUSY_WAIT_S": f"{BUSY_WAIT.total_seconds():.0f}",
    }


def _end_with_parent() -> None:
    """In the child: be sent SIGTERM when the task's process dies, however it dies."""
    _libc.prctl(_DEATH_SIGNAL, signal.SIGTERM)


def _supervisor() -> int | None:
    """The process that runs this task's: an Airflow worker. None when it is this one (`dag.test()`, `tasks test`),
    whose parent is anybody's shell, which may go before the task has ended.

    It is watched, and no PR_SET_PDEATHSIG set: that would end a task's process at once, and the command without the
    time to end well.
    """
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    own = type(getattr(runner, "SUPERVISOR_COMMS", None)).__name__.startswith("InProcess")
    return None if own else os.getppid()


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _lines(child: "subprocess.Popen[bytes]", supervisor: int | None) -> Iterator[tuple[str, str]]:
    """(stdout or stderr, line) as they come, until the command has ended; its orphans are not waited for.

    AirflowException when the supervisor has died: Airflow tries the task again, and the two would be at it together.
    """
    with selectors.DefaultSelector() as selector:
        rest: dict[str, bytes] = {}
        for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, name)
            rest[name] = b""
        until = None
        while selector.get_map() and (until is None or time.monotonic() < until):
            if until is None and child.poll() is not None:
                until = time.monotonic() + _LOG_LEFT_S
            if supervisor is not None and os.getppid() != supervisor:
                raise AirflowException(f"the worker of this task (process {supervisor}) has died: its command is ended")
            for key, _ in selector.select(0.2):
                if not (read := os.read(key.fd, 65_536)):
                    selector.unregister(key.fileobj)
                    continue
                *lines, rest[key.data] = (rest[key.data] + read).split(b"\n")
                yield from ((key.data, _text(line)) for line in lines if line.strip())
                if len(rest[key.data]) > _LONGEST:  # a line without an end is shown in pieces
                    yield key.data, _text(rest[key.data])
                    rest[key.data] = b""
        yield from ((name, _text(line)) for name, line in rest.items() if line.strip())


def _text(line: bytes) -> str:
    text = line[:_LONGEST].decode(errors="backslashreplace").rstrip("\r")
    return "".join(letter if letter.isprintable() or letter == "\t" else "·" for letter in text)


if ENVIRONMENT.in_cluster:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models as k8s

    class SsmdPod(_Outcome, KubernetesPodOperator):
        """A command as a pod, with the environment file from a ConfigMap and its keys from their Secrets."""

        template_fields: Sequence[str] = ("day", *KubernetesPodOperator.template_fields)

        def __init__(
            self, *, words: Sequence[str], day: str, task_id: str, scheduled_only: bool = False, **kwargs: Any
        ) -> None:
            mounts = [k8s.V1VolumeMount(name="environment", mount_path=str(Path(_POD_FILE).parent), read_only=True)]
            volumes = [
                k8s.V1Volume(
                    name="environment",
                    config_map=k8s.V1ConfigMapVolumeSource(name=f"{ENVIRONMENT.name}-environment"),
                )
            ]
            for key in ENVIRONMENT.keys:
                name = key.replace("_", "-").rstrip("-")  # as ssmd names the Secrets
                source = k8s.V1SecretVolumeSource(secret_name=f"{ENVIRONMENT.name}-{name}", optional=True)
                volumes.append(k8s.V1Volume(name=f"key-{name}", secret=source))
                mounts.append(
                    k8s.V1VolumeMount(name=f"key-{name}", mount_path=f"/var/run/secrets/ssmd/{key}", read_only=True)
                )
            super().__init__(
                task_id=task_id, name=f"ssmd-{task_id}".replace("_", "-"), namespace=ENVIRONMENT.namespace,
                cmds=["ssmd"], arguments=with_file(words, _POD_FILE), volumes=volumes, volume_mounts=mounts,
                service_account_name="ssmd", get_logs=True, do_xcom_push=False, container_name_log_prefix_enabled=False,
                on_finish_action="delete_pod", termination_message_policy="FallbackToLogsOnError", **kwargs,
            )  # fmt: skip
            self.day, self.scheduled_only = day, scheduled_only

        def execute(self, context: Context) -> None:
            """Run it, and let its exit code decide."""
            _only_if_wanted(self.scheduled_only, context)
            self.prepare(context)
            super().execute(context)
            if self.exit_code is None:
                self.settle(context, DONE, [], [])

        def prepare(self, context: Any) -> None:
            """What only the run knows: the words that came out empty, and what the command is told."""
            self.arguments = [word for word in self.arguments if word]
            self.env_vars = [k8s.V1EnvVar(name=name, value=value) for name, value in _told(context).items()]

        def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
            """In place of the operator's own rule, by which every exit code but 0 is a failure."""
            ended = next(
                (c.state.terminated for c in _containers(remote_pod) if c.name == self.base_container_name), None
            )
            if self._killed or ended is None:
                super().cleanup(pod, remote_pod, xcom_result, context)
                return
            self.process_pod_deletion(remote_pod, reraise=False)
            said = [line for line in (ended.message or "").splitlines() if line.strip()][-_SAID:]
            self.settle(context, ended.exit_code, [], said)

    def _containers(pod: Any) -> list[Any]:
        return list((pod and pod.status and pod.status.container_statuses) or [])


def ssmd_task(task_id: str, words: Sequence[str], *, image: str | None = None, day: Any = None, **options: Any) -> Any:
    """A task that is the command `ssmd {words}`: a process here, or a pod of `image` in the environment's cluster.

    `day`: the UTC day it is about (default: the run's), which `DAY` stands for in `words`; words that come out empty
    are left out. `options`: those of every Airflow task, and `scheduled_only` to be skipped in runs by hand.
    """
    given = {"task_id": task_id, "words": list(words), "day": "{{ day() }}" if day is None else day, **options}
    if day is not None:
        given["map_index_template"] = "{{ task.day }}{{ ': findings' if task.exit_code == 6 else '' }}"
    return SsmdPod(image=image or ENVIRONMENT.image, **given) if ENVIRONMENT.in_cluster else SsmdProcess(**given)


class Days(BaseOperator):
    """The days of a run, for tasks that are made once for each."""

    exit_code, summary, day = None, "", ""

    def __init__(self, *, choose: Callable[[Mapping[str, Any]], list[date]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choose = choose

    def execute(self, context: Context) -> list[str]:
        """As `YYYY-MM-DD`, each once, in order."""
        require_known_conf(context)
        days = [day.isoformat() for day in self.choose(context)]
        self.log.info("%s", ", ".join(days))
        return days


def each_day(days: Callable[[Mapping[str, Any]], list[date]]) -> Any:
    """The days that `days` gives at run time: what to `.expand` a group of tasks over."""
    return Days(task_id="days", choose=days, execution_timeout=timedelta(minutes=1), on_success_callback=[]).output


def house(doc: str, days: Callable[[Mapping[str, Any]], list[date]]) -> dict[str, Any]:
    """What every DAG of this folder has in common. `doc`: the file's docstring; `days`: those that a run is about."""

    @pass_context
    def day(context: Any) -> str:
        require_known_conf(context)
        return days(context)[0].isoformat()

    @pass_context
    def day_ended(context: Any) -> str:
        require_known_conf(context)
        return ended_day(context).isoformat()

    @pass_context
    def day_next(context: Any) -> str:
        require_known_conf(context)
        return next_day(context).isoformat()

    return {
        "description": doc.strip().partition("\n")[0].lstrip("# ").rstrip("."),
        "doc_md": doc,
        "catchup": False,
        "max_active_runs": 1,
        "user_defined_macros": {"day": day, "ended_day": day_ended, "next_day": day_next},
        "on_failure_callback": SsmdNotifier("failed", days),
        "on_success_callback": SsmdNotifier("ok", days),
        "default_args": {
            "owner": "ssmd-operations",
            "retries": RETRIES,
            "retry_delay": RETRY_DELAY,
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
            "on_failure_callback": SsmdNotifier("failed"),
            "on_skipped_callback": SsmdNotifier("skipped"),
            "on_success_callback": SsmdNotifier("ok"),
        },
    }


def feed_param() -> Param:
    """`feed`, of which an environment has one."""
    return Param(ENVIRONMENT.feed, type="string", enum=[ENVIRONMENT.feed], description="The feed of the environment.")


def date_param(otherwise: str) -> Param:
    """A UTC day, or none."""
    return Param(
        None, type=["null", "string"], format="date", description=f"UTC day, not in the future. Empty: {otherwise}."
    )
