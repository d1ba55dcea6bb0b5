"""A process that holds Airflow, for tests that must not: `python -m tests.dags.room LOG` answers JSON lines on stdin.

Airflow configures logging, warns on import and wants its own database; all of that stays in here, with an SQLite file
in AIRFLOW_HOME. Everything printed goes to LOG; only answers go to stdout.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "dags"
WATCHED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn")
_work: list[str] = []
_loading = threading.Event()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in WATCHED and _loading.is_set():
        _work.append(f"{event} {arguments[:2]!r}")


class Room:
    """What can be asked."""

    def __init__(self) -> None:
        sys.path.insert(0, str(FOLDER))
        # Airflow itself looks around while it is imported; what counts is what the DAG files do
        import airflow.dag_processing.dagbag
        import airflow.providers.cncf.kubernetes.operators.pod  # noqa: F401
        import ssmd_catalogue

        sys.addaudithook(_audit)
        _loading.set()
        self.dags = ssmd_catalogue.load(Path(os.environ["SSMD_ENVIRONMENT_FILE"]))
        _loading.clear()
        self.catalogue = ssmd_catalogue
        self._database = False
        self._command = os.environ["SSMD_COMMAND"]

    def describe(self) -> dict[str, Any]:
        """Every DAG in plain values, and what was done while the files were read."""
        return {"dags": {name: self._dag(dag) for name, dag in self.dags.items()}, "work": _work}

    def _dag(self, dag: Any) -> dict[str, Any]:
        from airflow.serialization.encoders import coerce_to_core_timetable
        from airflow.timetables.base import TimeRestriction

        timetable = coerce_to_core_timetable(dag.timetable)
        upcoming = timetable.next_dagrun_info(
            last_automated_data_interval=None, restriction=TimeRestriction(dag.start_date, None, catchup=False)
        )
        return {
            "file": Path(dag.fileloc).name,
            "doc": dag.doc_md,
            "description": dag.description,
            "tags": sorted(dag.tags),
            "owner": dag.owner,
            "limit_s": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "schedule": repr(dag.timetable)[:300],
            "waits_s": upcoming and (upcoming.run_after - datetime.now(tz=upcoming.run_after.tzinfo)).total_seconds(),
            "interval_s": upcoming and (upcoming.data_interval.end - upcoming.data_interval.start).total_seconds(),
            "params": {name: dag.params.get_param(name).dump() for name in dag.params},
            "tasks": [self._task(task) for task in dag.topological_sort()],
        }

    @staticmethod
    def _task(task: Any) -> dict[str, Any]:
        names = [cls.__name__ for cls in getattr(task, "operator_class", type(task)).__mro__]
        return {
            "id": task.task_id,
            "classes": names,
            "words": list(getattr(task, "words", None) or getattr(task, "arguments", None) or []),
            "image": getattr(task, "image", None),
            "namespace": getattr(task, "namespace", None),
            "after": sorted(task.upstream_task_ids),
            "limit_s": task.execution_timeout and task.execution_timeout.total_seconds(),
            "retries": task.retries,
            "retry_delay_s": task.retry_delay.total_seconds(),
            "pool": task.pool,
            "owner": task.owner,
            "outlets": [asset.name for asset in task.outlets],
            "each_day": task.get_closest_mapped_task_group() is not None,
        }

    def page(self) -> str:
        """The catalogue as it would be written."""
        return str(self.catalogue.page(self.dags))

    def tags(self) -> list[str]:
        """The closed set."""
        import ssmd_tasks

        return list(ssmd_tasks.TAGS)

    def environment(self, file: str) -> dict[str, Any]:
        """What the DAGs read of an environment file."""
        from dataclasses import asdict

        from ssmd_days import Environment

        return asdict(Environment.read(Path(file)))

    def days(self, function: str, run: dict[str, Any], params: dict[str, Any]) -> list[str]:
        """What `ssmd_days` makes of a run."""
        import ssmd_days

        moments = ("run_after", "logical_date", "data_interval_start", "data_interval_end")
        times = {name: datetime.fromisoformat(run[name]) if run.get(name) else None for name in moments}
        events = [SimpleNamespace(extra=extra) for extra in run.get("events", [])]
        fake = SimpleNamespace(run_type=run["run_type"], consumed_asset_events=events, **times)
        found = getattr(ssmd_days, function)({"dag_run": fake, "params": params})
        return [str(day) for day in (found if isinstance(found, list) else [found])]

    def run(
        self,
        dag: str,
        conf: dict[str, Any] | None = None,
        logical_date: str | None = None,
        environment: dict[str, str] | None = None,
        limit_s: float | None = None,
        scheduled: str | None = None,
    ) -> dict[str, Any]:
        """`dag.test()`: every state, note and event that it leaves behind; `scheduled`: as the run that the schedule
        makes after this moment.
        """
        import ssmd_tasks

        self._prepare()
        for name in ("SSMD_ALERT_WEBHOOK", "SSMD_COMMAND"):
            os.environ.pop(name, None)
        os.environ.update({"SSMD_COMMAND": self._command, **(environment or {})})
        ssmd_tasks.RETRIES, ssmd_tasks.RETRY_DELAY = 1, timedelta(0)
        self.dags = self.catalogue.load(Path(os.environ["SSMD_ENVIRONMENT_FILE"]))
        chosen = self.dags[dag]
        if limit_s is not None:
            for task in chosen.tasks:
                task.execution_timeout = timedelta(seconds=limit_s)
        moment = datetime.fromisoformat(logical_date) if logical_date else None
        began = time.monotonic()
        if scheduled is not None:
            return self._left(self._by_schedule(chosen, datetime.fromisoformat(scheduled)))
        done = chosen.test(logical_date=moment, run_conf=conf or {})
        return {**self._left(done), "seconds": time.monotonic() - began}

    @staticmethod
    def _by_schedule(dag: Any, after: datetime) -> Any:
        """The run that the schedule makes next; `dag.test()` itself knows only runs by hand."""
        from unittest.mock import patch

        import pendulum
        from airflow.models import dagrun
        from airflow.serialization.encoders import coerce_to_core_timetable
        from airflow.timetables.base import TimeRestriction
        from airflow.utils.types import DagRunType

        info = coerce_to_core_timetable(dag.timetable).next_dagrun_info(
            last_automated_data_interval=None,
            restriction=TimeRestriction(pendulum.instance(after), None, catchup=True),
        )
        make = dagrun.get_or_create_dagrun

        def make_scheduled(**given: Any) -> Any:
            run = make(**given | {"data_interval": info.data_interval})
            run.run_type = DagRunType.SCHEDULED
            given["session"].commit()
            return run

        with patch.object(dagrun, "get_or_create_dagrun", make_scheduled):
            return dag.test(run_after=info.run_after, logical_date=info.logical_date)

    def killed(self, dag: str, task: str, conf: dict[str, Any] | None = None) -> None:
        """What the DAG processor does when the scheduler says that a task of a run by hand was killed, and then that
        the run has failed.
        """
        import structlog
        from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun as DagRunData
        from airflow.api_fastapi.execution_api.datamodels.taskinstance import TIRunContext
        from airflow.callbacks.callback_requests import DagCallbackRequest, DagRunContext, TaskCallbackRequest
        from airflow.dag_processing.dagbag import BundleDagBag
        from airflow.dag_processing.processor import _execute_dag_callbacks, _execute_task_callbacks
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        left = self.run(dag, conf)
        Path(f"{os.environ['SSMD_FAKE']}.calls").write_text("")
        bag, log = BundleDagBag(str(FOLDER), bundle_path=FOLDER, bundle_name="dags-folder"), structlog.get_logger()
        with create_session() as session:
            run = session.scalars(select(DagRun).where(DagRun.run_id == left["run"], DagRun.dag_id == dag)).one()
            [ti] = [one for one in run.get_task_instances(session=session) if one.task_id == task]
            place: dict[str, Any] = {"filepath": f"{dag}.py", "bundle_name": "dags-folder", "bundle_version": None}
            told = TIRunContext(
                dag_run=DagRunData.model_validate(run, from_attributes=True), max_tries=ti.max_tries, variables=[],
                connections=[], xcom_keys_to_clear=[],
            )  # fmt: skip
            request = TaskCallbackRequest(**place, ti=ti, msg="killed", context_from_server=told)
            _execute_task_callbacks(bag, TaskCallbackRequest.model_validate_json(request.to_json()), log)
            ended = DagCallbackRequest(
                **place, dag_id=dag, run_id=run.run_id, is_failure_callback=True, msg="task_failure",
                context_from_server=DagRunContext(dag_run=run, last_ti=ti),
            )  # fmt: skip
            _execute_dag_callbacks(bag, DagCallbackRequest.model_validate_json(ended.to_json()), log)

    def too_long(self, dag: str, conf: dict[str, Any] | None = None) -> None:
        """The end of a run by hand that took longer than its `dagrun_timeout`."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        left = self.run(dag, conf)
        Path(f"{os.environ['SSMD_FAKE']}.calls").write_text("")
        with create_session() as session:
            run = session.scalars(select(DagRun).where(DagRun.run_id == left["run"], DagRun.dag_id == dag)).one()
            run.execute_dag_callbacks(self.dags[dag], success=False, relevant_ti=None, reason="timed_out")

    def warnings(self) -> dict[str, Any]:
        """What Airflow's own check of stability finds in each file of the folder."""
        from airflow.utils.dag_version_inflation_checker import check_dag_file_stability

        found = {path.name: check_dag_file_stability(path).format_warnings() for path in FOLDER.glob("*.py")}
        return {name: said for name, said in found.items() if said}

    def _prepare(self) -> None:
        if self._database:
            return
        from airflow.models.pool import Pool
        from airflow.utils.db import initdb

        initdb()
        Pool.create_or_update_pool("ssmd_heavy", 2, "", include_deferred=False)
        self._database = True

    @staticmethod
    def _left(run: Any) -> dict[str, Any]:
        from airflow.models.asset import AssetEvent
        from airflow.models.task_state_store import TaskStateStoreModel
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            stored = session.scalars(select(TaskStateStoreModel).where(TaskStateStoreModel.run_id == run.run_id)).all()
            xcoms = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id)).all()
            events = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)).all()
            return {
                "run": run.run_id,
                "ds": run.logical_date and f"{run.logical_date:%Y-%m-%d}",
                "state": str(run.state),
                "tasks": {
                    f"{one.task_id}[{one.map_index}]" if one.map_index >= 0 else one.task_id: {
                        "state": str(one.state), "tries": one.try_number, "label": one.rendered_map_index,
                    }
                    for one in run.get_task_instances(session=session)
                },
                "stored": {one.task_id: {one.key: one.value} for one in stored},
                "xcoms": sorted({one.task_id for one in xcoms}),
                "events": [one.extra for one in events],
            }  # fmt: skip

    def backfillable(self, first: str, last: str) -> dict[str, Any]:
        """The days for which `airflow backfill` would make runs of `backfill`, and whether it would run by itself."""
        from airflow.serialization.serialized_objects import DagSerialization

        dag = DagSerialization.from_dict(DagSerialization.to_dict(self.dags["backfill"]))
        infos = dag.iter_dagrun_infos_between(datetime.fromisoformat(first), datetime.fromisoformat(last))
        return {
            "periodic": dag.timetable.periodic,
            "days": [str(info.logical_date)[:10] for info in infos],
            "by_itself": str(dag.next_dagrun_info(last_automated_run_info=None)),
        }

    def execute(self, words: list[str], kill_after_s: float | None = None, grace_s: float = 0.5) -> dict[str, Any]:
        """A task's `execute` alone, in this process's main thread; `kill_after_s`: `on_kill` is called meanwhile."""
        import ssmd_tasks

        task = ssmd_tasks.SsmdProcess(task_id="alone", words=words, day="2026-11-20")
        object.__setattr__(task, "grace_s", grace_s)
        context = {
            "dag_run": SimpleNamespace(run_type="manual", run_id="r"), "params": {"feed": "kalshi"},
            "ti": SimpleNamespace(dag_id="d", task_id="alone"),
        }  # fmt: skip
        if kill_after_s is not None:
            threading.Timer(kill_after_s, task.on_kill).start()
        began = time.monotonic()
        raised = ""
        try:
            type(task).execute.__wrapped__(task, context)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 what is raised is the answer
            raised = f"{type(error).__name__}: {error}"
        return {"raised": raised, "seconds": time.monotonic() - began, "exit_code": task.exit_code}

    def orphaned(self, words: list[str], in_process: bool) -> dict[str, Any]:
        """What a task's process raised after the process that had forked it, as a worker does, was killed with -9.

        `in_process`: as in `dag.test()`, where no worker is, and the parent is anybody. The command runs until then.
        """
        from airflow.sdk.execution_time import supervisor, task_runner

        reading, writing = os.pipe()
        if (worker := os.fork()) == 0:
            if os.fork() == 0:
                if in_process:
                    in_memory: Any = object.__new__(supervisor.InProcessSupervisorComms)
                    task_runner.SUPERVISOR_COMMS = in_memory
                with os.fdopen(writing, "w") as answer:
                    json.dump(self.execute(words), answer)
                os._exit(0)
            time.sleep(60)
        os.close(writing)
        calls = Path(f"{os.environ['SSMD_FAKE']}.calls")
        while not calls.read_text():
            time.sleep(0.02)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        with os.fdopen(reading) as answers:
            return dict(json.load(answers))

    def pod(self, dag: str, task: str) -> dict[str, Any]:
        """The pod that a task would ask the cluster for."""
        chosen = self.dags[dag].get_task(task)
        run = SimpleNamespace(
            run_type="scheduled", run_id="scheduled__2026-11-21", consumed_asset_events=[], conf={},
            data_interval_start=datetime(2026, 11, 20, 5, 10, tzinfo=UTC),
            data_interval_end=datetime(2026, 11, 21, 5, 10, tzinfo=UTC),
        )  # fmt: skip
        ti = SimpleNamespace(dag_id=dag, task_id=task)
        context = {"dag": self.dags[dag], "dag_run": run, "params": {"feed": "kalshi"}, "task": chosen, "ti": ti}
        chosen.render_template_fields(context)
        chosen.prepare(context)
        return dict(chosen.build_pod_request_obj().to_dict())

    def pod_ended(self, dag: str, task: str, code: int, message: str) -> dict[str, Any]:
        """What a task makes of a pod that ended so."""
        from kubernetes.client import models as k8s

        chosen = self.dags[dag].get_task(task)
        deleted: list[str] = []

        def delete(pod: Any, *, reraise: bool = True) -> None:
            deleted.append(pod.metadata.name)

        object.__setattr__(chosen, "process_pod_deletion", delete)
        object.__setattr__(chosen, "patch_already_checked", lambda pod, *, reraise=True: None)
        ended = k8s.V1ContainerStateTerminated(exit_code=code, message=message)
        status = k8s.V1ContainerStatus(
            name="base", image="i", image_id="i", ready=False, restart_count=0,
            state=k8s.V1ContainerState(terminated=ended),
        )  # fmt: skip
        pod = k8s.V1Pod(
            metadata=k8s.V1ObjectMeta(name="p", namespace="n"),
            spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")]),
            status=k8s.V1PodStatus(phase="Succeeded" if code == 0 else "Failed", container_statuses=[status]),
        )
        stored: dict[str, str] = {}
        store = SimpleNamespace(set=stored.__setitem__)
        context = {"params": {"feed": "kalshi"}, "outlet_events": {}, "task_state_store": store}
        raised = ""
        try:
            chosen.cleanup(pod, pod, None, context)
        except Exception as error:  # noqa: BLE001 what is raised is the answer
            raised = f"{type(error).__name__}: {error}"
        return {"raised": raised, "exit_code": chosen.exit_code, "stored": stored, "deleted": deleted}


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    room = Room()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        ask: Callable[..., Any] = getattr(room, asked.pop("ask"))
        try:
            said = {"answer": ask(**asked)}
        except Exception as error:  # noqa: BLE001 the test that asked shows it
            said = {"error": f"{type(error).__name__}: {error}"}
        with suppress(BrokenPipeError):
            print(json.dumps(said, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
