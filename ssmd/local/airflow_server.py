"""Airflow on this machine: what is started, and the configuration it gets; all of its state lies below SSMD_HOME.

Four programs under the supervisor: the scheduler (whose children run the tasks, LocalExecutor), the processor of the
DAG files, the triggerer, and the API server with the web page, which alone listens, on a loopback address. There is no
log server: all processes share one disk, on which the API server finds every log, a running task's too. A host name
is therefore not told either (`builtins.str` gives ""), which also saves a question to the name server per task.

The settings go into AIRFLOW_HOME/airflow.cfg, so that `AIRFLOW_HOME=... airflow dags list` works by hand, too; every
AIRFLOW variable of the operator (they may have another Airflow) is kept from these processes.
"""

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ssmd.errors import ConfigError
from ssmd.local.airflow_access import SharedSecrets, passwords_file
from ssmd.local.home import Home
from ssmd.local.supervisord import Program, is_secret

VERSION = "3.3"
PACKAGE = "apache-airflow-core"
SETTING = "spec.airflow.url"
DATABASE = "airflow"
WEBHOOK = "SSMD_ALERT_WEBHOOK"
SCHEDULER, DAGS, TRIGGERER, API = PROGRAMS = ("airflow-scheduler", "airflow-dags", "airflow-triggerer", "airflow-api")
"""In the order of their stop: the scheduler's tasks end first, and tell the API server how."""
READY_S = 180.0
"""Seconds that a new Airflow may take until each part has said that it works."""

POOLS = {"ssmd_heavy": (2, "Jobs that read or write a whole day")}
"""Slots and description."""

_SETTLE_S = 10
_TASKS_END_S = 15
INSTALL = "make -W requirements/local.txt setup"
"""Installs what is locked though `make setup` sees nothing to do: something else has changed the packages since."""
_END_S = 5
_LOOPBACK = "127.0.0.1,localhost,::1"


class AirflowServer(msgspec.Struct, frozen=True, kw_only=True):
    """The Airflow of an environment. `login`: user and password where the operator set them; `webhook`: for alerts."""

    url: str
    host: str
    port: int
    parallelism: int
    database: str
    database_url: str
    async_database_url: str
    dags: Path
    login: tuple[str, str] | None = None
    webhook: str | None = None


def address_of(url: str) -> tuple[str, int]:
    """Host and port of the web page; ConfigError when it is not one that can be started here."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.path.strip("/") or parts.username is not None:
        raise ConfigError(
            f"{SETTING} is on this machine, where `ssmd up` starts Airflow, and is not of the form http://host:port",
            "Write http://127.0.0.1:18090, or run: ssmd up --no-airflow",
        )
    return parts.hostname or "127.0.0.1", parts.port or 80


def require_installed() -> str:
    """The version of the Airflow that is installed; ConfigError unless it is one that ssmd's DAGs are made for."""
    try:
        found = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "the environment has spec.airflow, and Airflow is not installed",
            f"Run: {INSTALL} (or pip install 'ssmd[airflow,local]'), or go without the day's schedule: "
            "ssmd up --no-airflow",
        ) from None
    if found.split(".")[:2] != VERSION.split("."):
        raise ConfigError(
            f"Airflow {found} is installed, and ssmd's DAGs are made for Airflow {VERSION}",
            f"Run: {INSTALL}, or go without the day's schedule: ssmd up --no-airflow",
        )
    return found


def configuration(server: AirflowServer, home: Home, secrets: SharedSecrets, username: str) -> str:
    """The text of airflow.cfg. It holds secrets."""
    base = server.url.rstrip("/")
    sections: Mapping[str, Mapping[str, object]] = {
        "core": {
            "dags_folder": server.dags,
            "plugins_folder": home.airflow / "plugins",
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": server.parallelism,
            "dags_are_paused_at_creation": False,
            "fernet_key": secrets.fernet,
            "hostname_callable": "builtins.str",
            "simple_auth_manager_users": f"{username}:admin",
            "simple_auth_manager_passwords_file": passwords_file(home),
            "execution_api_server_url": f"{base}/execution/",
            "test_connection": "Disabled",
        },
        "database": {
            "sql_alchemy_conn": server.database_url,
            "sql_alchemy_conn_async": server.async_database_url,
            "sql_alchemy_pool_size": 3,
            "sql_alchemy_max_overflow": 5,
        },
        "api": {
            "host": server.host,
            "port": server.port,
            "base_url": base,
            "workers": 1,
            "secret_key": secrets.api,
            "instance_name": "ssmd",
            "expose_config": False,
        },
        "api_auth": {"jwt_secret": secrets.jwt},
        "logging": {
            "base_log_folder": home.airflow / "logs",
            "dag_processor_child_process_log_directory": home.airflow / "logs" / "dag_processor",
            "dag_processor_log_target": "stdout",  # its file would grow for ever; ours are rotated
            "colored_console_log": False,
        },
        "scheduler": {
            "catchup_by_default": False,
            "enable_health_check": False,
            # A scheduler was killed: its successor sees that after the one, and looks so often for tasks to start again
            "scheduler_health_check_threshold": 20,
            "orphaned_tasks_check_interval": 15,
            # A worker was killed
            "task_instance_heartbeat_timeout": 120,
        },
        "dag_processor": {
            "dag_bundle_storage_path": home.airflow / "bundles",  # not the system's temporary folder
            "parsing_processes": 1,
            "min_file_process_interval": 120,
            "refresh_interval": 60,
        },
        "triggerer": {"capacity": 100},
        "usage_data_collection": {"enabled": False},
    }
    return "\n".join(
        line
        for name, settings in sections.items()
        for line in (f"[{name}]", *(f"{key} = {_value(value)}" for key, value in settings.items()), "")
    )


def programs(server: AirflowServer, home: Home, file: Path, variables: Mapping[str, str]) -> list[Program]:
    """Airflow's programs; `variables` is the environment of the stack.

    Only the scheduler, whose children run the commands of the day, is given the secrets that these need; the webhook
    also goes to the processor of the DAG files, which sends the alerts of whole runs. The API server, the one that can
    be reached, is given none.
    """
    commands = {
        API: ["api-server"],
        SCHEDULER: ["scheduler", "--skip-serve-logs"],
        DAGS: ["dag-processor"],
        TRIGGERER: ["triggerer", "--skip-serve-logs"],
    }
    foreign = [name for name in variables if name.startswith("AIRFLOW")]
    every = sorted(filter(is_secret, variables))
    seen = {SCHEDULER: every, DAGS: [WEBHOOK]}
    given = own_variables(home, file, variables)
    return [
        Program(
            name=name,
            command=[sys.executable, "-m", "ssmd.local.airflow_program", name, *_log(name, home), "--", *command],
            folder=str(home.airflow),
            variables=given,
            hidden=sorted({*foreign, *(secret for secret in every if secret not in seen.get(name, []))}),
            stop_group=name == SCHEDULER,
            stop_wait_s=_TASKS_END_S if name == SCHEDULER else _END_S,
            settle_s=_SETTLE_S,
            always=True,
        )
        for name, command in commands.items()
    ]


def _log(name: str, home: Home) -> list[str]:
    return ["--log", str(scheduler_log(home))] if name == SCHEDULER else []


def scheduler_log(home: Home) -> Path:
    """What the scheduler and its workers write themselves (see `airflow_program`)."""
    return home.log / "airflow-scheduler-tasks.log"


def own_variables(home: Home, file: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """What Airflow's processes and their tasks are told by their environment, beside that of the stack."""
    proxies = {name: _without_proxy(variables.get(name, "")) for name in ("no_proxy", "NO_PROXY")}
    here = str(Path(sys.executable).parent)
    return proxies | {
        "AIRFLOW_HOME": str(home.airflow),
        "SSMD_ENVIRONMENT_FILE": str(file),
        "SSMD_COMMAND": json.dumps([sys.executable, "-m", "ssmd"]),
        "PATH": os.pathsep.join([here, *filter(None, [variables.get("PATH", os.defpath)])]),
        # Airflow writes titles over its command line, and without this over its variables, by which we know them
        "SPT_NOENV": "1",
        # each thread's own heap would cost the four programs a few hundred megabytes
        "MALLOC_ARENA_MAX": "2",
    }


def _without_proxy(present: str) -> str:
    """The tasks ask the API server by HTTP: never through the operator's proxy."""
    return f"{present},{_LOOPBACK}" if present else _LOOPBACK


def _value(value: object) -> str:
    return str(value).replace("%", "%%")
