"""What holds for every DAG, the page about them, and the environment file they are made from."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from ssmd.cli.main import build
from ssmd.config.environment import KubernetesRuntime
from ssmd.config.loading import load
from tests.dags.conftest import ROOT, Rooms

FOLDER = ROOT / "dags"
NAMES = {
    "secmaster_sync", "key_verification", "daily_startup", "daily_teardown", "archive_verification", "data_quality",
    "backfill", "checks_ran",
}  # fmt: skip
HEAVY = (["data", "compact"], ["data", "verify"], ["data", "backfill"], ["quality", "run"])
MAY_IMPORT = {
    "airflow", "pendulum", "yaml", "jinja2", "kubernetes", "ssmd_tasks", "ssmd_days", "ssmd_alerts", "ssmd_catalogue",
    "atexit", "ctypes", "json", "os", "re", "selectors", "shlex", "shutil", "signal", "subprocess", "sys",
    "tempfile", "threading", "time", "urllib", "collections", "contextlib", "dataclasses",
    "datetime", "pathlib", "typing",
}  # fmt: skip


@pytest.fixture(scope="module")
def described(room: Rooms) -> Any:
    return room.ask("describe")


@pytest.fixture(scope="module")
def dags(described: Any) -> dict[str, Any]:
    return dict(described["dags"])


def _words(task: Any) -> list[str]:
    """A task's command with values in place of templates."""
    known = {
        "{{ task.day }}": "2026-11-20", "{{ ended_day() }}": "2026-11-20", "{{ next_day() }}": "2026-11-21",
        "{{ params.feed }}": "kalshi", "{{ '--full' if params.full else '' }}": "--full",
    }  # fmt: skip
    return [known.get(word, word) for word in task["words"]]


def test_there_are_eight_each_in_a_file_of_its_name(dags: dict[str, Any]) -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if not path.name.startswith("ssmd_")}

    assert set(dags) == NAMES
    assert files == NAMES
    assert all(dag["file"] == f"{name}.py" for name, dag in dags.items())


def test_reading_the_files_does_no_work(described: Any) -> None:
    assert described["work"] == []


def test_they_know_commands_and_no_code() -> None:
    imported: dict[str, set[str]] = {}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                imported.setdefault(name.partition(".")[0], set()).add(path.name)

    assert {name: files for name, files in imported.items() if name not in MAY_IMPORT} == {}


def test_the_page_is_current(room: Rooms) -> None:
    page = room.ask("page")

    assert (FOLDER / "README.md").read_text() == page, "run: make docs"


def test_the_page_tells_of_every_dag_and_command(dags: dict[str, Any], room: Rooms) -> None:
    page = room.ask("page")

    for name, dag in dags.items():
        assert f"## {name}\n" in page
        for task in dag["tasks"]:
            if task["words"]:
                assert f"ssmd {task['words'][0]} {task['words'][1]}" in page


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_says_what_it_is_whose_it_is_and_when_it_is_too_long(name: str, dags: dict[str, Any], room: Rooms) -> None:
    dag = dags[name]

    assert len(dag["doc"]) > 200
    assert dag["description"] == dag["doc"].splitlines()[0].rstrip(".")
    assert not dag["catchup"]
    assert dag["max_active_runs"] == 1
    assert dag["owner"] == "ssmd-operations"
    assert set(dag["tags"]) <= set(room.ask("tags"))
    assert "ssmd" in dag["tags"]
    assert len([tag for tag in dag["tags"] if tag.startswith("impact/")]) == 1
    assert dag["limit_s"] > 0


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_task_has_its_limits(name: str, dags: dict[str, Any]) -> None:
    for task in dags[name]["tasks"]:
        assert 0 < task["limit_s"] <= dags[name]["limit_s"], task["id"]
        assert task["retries"] == 3
        assert task["retry_delay_s"] == 30
        heavy = task["words"][:2] in HEAVY
        assert task["pool"] == ("ssmd_heavy" if heavy else "default_pool"), task["id"]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_parameter_says_its_type_and_meaning(name: str, dags: dict[str, Any]) -> None:
    params = dags[name]["params"]

    assert params["feed"]["schema"]["enum"] == ["kalshi"]
    for param in params.values():
        assert param["schema"]["type"]
        assert param["description"].endswith(".")
        if "date" in param["description"] or "day" in param["description"]:
            assert param["schema"]["format"] == "date"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_command_is_one_of_the_real_command_line(name: str, dags: dict[str, Any]) -> None:
    tasks = [task for task in dags[name]["tasks"] if task["words"]]

    assert tasks
    for task in tasks:
        words = [*_words(task), "--env", "environments/local.yaml"]
        command, _, ignored = build().parse_args(words, print_error=False, exit_on_error=False)
        assert callable(command), words
        assert not ignored


def test_the_alert_that_is_written_down_is_one_of_the_real_command_line() -> None:
    words = ["ops", "alert", "--operation", "d", "--state", "failed", "--run", "r", "--task=t", "--date=2026-11-20"]

    _, bound, _ = build().parse_args([*words, "--summary=-x --y"], print_error=False, exit_on_error=False)

    assert bound.arguments["summary"] == "-x --y"


def test_the_steps_of_the_day_are_in_order(dags: dict[str, Any]) -> None:
    def commands(name: str) -> list[str]:
        return [" ".join(task["words"][:3]) for task in dags[name]["tasks"]]

    assert commands("daily_startup") == [
        "market sync --feed", "key verify local", "ops start connector", "ops start archiver", "ops start gateway",
        "ops health --date",
    ]  # fmt: skip
    assert commands("daily_teardown") == [
        "ops start connector", "ops start archiver", "ops start gateway",
        "ops stop gateway", "ops stop archiver", "ops stop connector", "data compact --date", "data verify --date",
    ]  # fmt: skip
    for name in ("daily_startup", "daily_teardown"):
        tasks = dags[name]["tasks"]
        assert [task["after"] for task in tasks[1:]] == [[task["id"]] for task in tasks[:-1]]


def test_checks_follow_the_archive_and_backfills_wait_to_be_asked(dags: dict[str, Any]) -> None:
    producers = {(name, task["id"]) for name, dag in dags.items() for task in dag["tasks"] if task["outlets"]}

    assert producers == {("daily_teardown", "verify"), ("backfill", "quality")}
    for name in ("archive_verification", "data_quality"):
        assert "ssmd_archive_day" in dags[name]["schedule"]
        assert dags[name]["waits_s"] is None
    assert dags["backfill"]["waits_s"] > 1_000 * 365 * 86_400


def test_schedules_are_ahead_and_about_the_day_that_they_say(dags: dict[str, Any]) -> None:
    """Nothing runs at once in a new Airflow, for a day of which there is no archive; `ds` is the day processed."""
    day = 86_400
    waits = {name: dag["waits_s"] for name, dag in dags.items() if dag["waits_s"] is not None and name != "backfill"}
    intervals = {name: dags[name]["interval_s"] for name in waits}

    assert all(-1 < seconds <= day for seconds in waits.values())
    assert intervals == {
        "daily_teardown": day, "checks_ran": day, "daily_startup": 0, "secmaster_sync": 0, "key_verification": 0,
    }  # fmt: skip
    assert "'10 0 * * *'" in dags["daily_teardown"]["schedule"]
    assert "'0 0 * * *'" in dags["daily_startup"]["schedule"]


def test_airflow_backfill_makes_a_run_for_each_day_and_nothing_runs_by_itself(room: Rooms) -> None:
    found = room.ask("backfillable", first="2026-11-10T00:00:00+00:00", last="2026-11-12T00:00:00+00:00")

    assert found["periodic"]
    assert found["days"] == ["2026-11-10", "2026-11-11", "2026-11-12"]
    assert "DateTime(9999, 1, 2," in found["by_itself"]


def test_airflow_itself_warns_of_no_file(room: Rooms) -> None:
    """The web interface shows it to everyone: a value that differs each time makes a version of the DAG each time."""
    assert room.ask("warnings") == {}


@pytest.mark.parametrize("file", sorted((ROOT / "environments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_environment_file_is_read_as_ssmd_reads_it(file: Path, room: Rooms) -> None:
    environment = load(file)
    spec = environment.spec
    in_cluster = isinstance(spec.runtime, KubernetesRuntime)

    found = room.ask("environment", file=str(file))

    assert found == {
        "file": str(file), "name": environment.name, "feed": spec.feed, "runtime": spec.runtime.type,
        "namespace": spec.runtime.namespace if isinstance(spec.runtime, KubernetesRuntime) else "ssmd",
        "image": spec.runtime.image if isinstance(spec.runtime, KubernetesRuntime) else "ssmd:latest",
        "keys": list(spec.keys), "timezone": spec.schedule.timezone, "startup": spec.schedule.startup,
        "teardown": spec.schedule.teardown, "handover": spec.schedule.handover,
    }  # fmt: skip
    assert (found["runtime"] == "kubernetes") == in_cluster


def test_what_a_file_leaves_out_is_the_same_as_for_ssmd(room: Rooms, tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    text = (
        (ROOT / "environments" / "test.yaml")
        .read_text()
        .replace("feed: kalshi", "feed: kalshi\n  runtime: {type: kubernetes}")
    )
    file.write_text(text)
    spec = load(file).spec

    found = room.ask("environment", file=str(file))

    assert isinstance(spec.runtime, KubernetesRuntime)
    assert (found["namespace"], found["image"]) == (spec.runtime.namespace, spec.runtime.image)
    assert [found[name] for name in ("timezone", "startup", "teardown", "handover")] == [
        spec.schedule.timezone, spec.schedule.startup, spec.schedule.teardown, spec.schedule.handover,
    ]  # fmt: skip


def test_in_a_cluster_a_task_is_a_pod(cluster_room: Rooms) -> None:
    dags = cluster_room.ask("describe")["dags"]

    assert set(dags) == NAMES
    for dag in dags.values():
        for task in dag["tasks"]:
            if task["words"]:
                assert "KubernetesPodOperator" in task["classes"]
    assert dags["daily_teardown"]["tasks"][0]["id"] == "drain_gateway"
    assert "America/New_York" in dags["daily_teardown"]["schedule"]
    assert "'0 0 * * *'" in dags["daily_teardown"]["schedule"]
    assert "'10 0 * * *'" in dags["daily_startup"]["schedule"]


def test_a_pod_has_the_image_the_file_and_the_keys_and_no_secret_in_its_words(cluster_room: Rooms) -> None:
    pod = cluster_room.ask("pod", dag="daily_teardown", task="compact")
    container = pod["spec"]["containers"][0]
    mounts = {mount["name"]: mount["mount_path"] for mount in container["volume_mounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}

    assert pod["metadata"]["namespace"] == "trading"
    assert re.fullmatch(r"ssmd-compact-[a-z0-9]+", pod["metadata"]["name"])
    assert container["image"] == "registry.example/ssmd:1.2.3"
    assert container["command"] == ["ssmd"]
    assert container["args"] == [
        "data", "compact", "--date", "2026-11-20", "--feed", "kalshi", "--env", "/etc/ssmd/environment.yaml",
    ]  # fmt: skip
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "SSMD_TRIGGER": "scheduled", "SSMD_TRIGGERED_BY": "airflow:daily_teardown/scheduled__2026-11-21/compact",
        "SSMD_BUSY_WAIT_S": "3600",
    }  # fmt: skip
    assert volumes["environment"]["config_map"]["name"] == "kalshi-prod-environment"
    assert volumes["key-postgres"]["secret"]["secret_name"] == "kalshi-prod-postgres"
    assert mounts["key-postgres"] == "/var/run/secrets/ssmd/postgres"
    assert container["termination_message_policy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize(
    ("code", "raised"),
    [(0, ""), (6, ""), (7, "AirflowException"), (1, "AirflowException"), (137, "AirflowException")]
    + [(code, "AirflowFailException") for code in (2, 3, 70)],
)
def test_a_pod_ends_as_its_command_did(code: int, raised: str, cluster_room: Rooms) -> None:
    ended = cluster_room.ask("pod_ended", dag="checks_ran", task="ran", code=code, message="talk\nno quality run\n")

    assert ended["raised"].partition(":")[0] == raised
    assert ended["deleted"] == ["p"]
    assert ended["stored"] == ({"findings": "talk\nno quality run"} if code == 6 else {})
    if raised and code < 128:
        assert "no quality run" in ended["raised"]
