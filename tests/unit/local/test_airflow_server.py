"""What a local Airflow is given: its configuration, its programs, what each may see."""

import configparser
import importlib.metadata
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from ssmd.errors import ConfigError
from ssmd.local import airflow_server as server
from ssmd.local.airflow_access import SharedSecrets, prepare_access, read_access, shared_secrets
from ssmd.local.airflow_server import API, DAGS, SCHEDULER, TRIGGERER, AirflowServer
from ssmd.local.home import Home

SECRETS = SharedSecrets("jwt-secret", "api-secret", "fernet-secret")


def airflow(folder: Path, **given: object) -> AirflowServer:
    said = {
        "url": "http://127.0.0.1:18090", "host": "127.0.0.1", "port": 18090, "parallelism": 3, "database": "airflow",
        "database_url": "postgresql+psycopg2://u:50%25off@h:1/airflow",
        "async_database_url": "postgresql+asyncpg://u:50%25off@h:1/airflow", "dags": folder / "dags",
    }  # fmt: skip
    return AirflowServer(**{**said, **given})  # type: ignore[arg-type]


def home_in(folder: Path) -> Home:
    home = Home(folder / "100% home")
    home.prepare()
    home.airflow.mkdir()
    return home


def settings(folder: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read_string(server.configuration(airflow(folder), home_in(folder), SECRETS, "admin"))
    return read


def test_airflow_reads_the_configuration_as_it_was_meant_percent_signs_included(tmp_path: Path) -> None:
    read = settings(tmp_path)

    assert read["database"]["sql_alchemy_conn"] == "postgresql+psycopg2://u:50%25off@h:1/airflow"
    assert read["api"]["host"] == "127.0.0.1"
    assert read["core"]["execution_api_server_url"] == "http://127.0.0.1:18090/execution/"
    assert (read["core"]["parallelism"], read["core"]["load_examples"]) == ("3", "False")
    assert read["core"]["dags_are_paused_at_creation"] == "False"


def test_everything_that_airflow_writes_lies_below_its_home(tmp_path: Path) -> None:
    read = settings(tmp_path)

    places = [
        read[section][name]
        for section, name in (
            ("core", "plugins_folder"), ("core", "simple_auth_manager_passwords_file"), ("logging", "base_log_folder"),
            ("logging", "dag_processor_child_process_log_directory"), ("dag_processor", "dag_bundle_storage_path"),
        )
    ]  # fmt: skip
    assert {Path(place).is_relative_to(tmp_path / "100% home" / "airflow") for place in places} == {True}


def test_only_the_scheduler_is_given_secrets_and_only_those_who_alert_the_webhook(tmp_path: Path) -> None:
    variables = {
        "SSMD_KEY_KALSHI_API_KEY": "k", "PGPASSWORD": "p", "SSMD_ALERT_WEBHOOK": "https://hooks.example/token",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW_HOME": "/elsewhere", "LANG": "C",
    }  # fmt: skip

    found = server.programs(airflow(tmp_path), Home(tmp_path), tmp_path / "e.yaml", variables)

    foreign = {"AIRFLOW__CORE__EXECUTOR", "AIRFLOW_HOME"}
    secret = {"SSMD_KEY_KALSHI_API_KEY", "PGPASSWORD"}
    assert {one.name: set(one.hidden) for one in found} == {
        SCHEDULER: foreign, DAGS: foreign | secret, TRIGGERER: foreign | secret | {"SSMD_ALERT_WEBHOOK"},
        API: foreign | secret | {"SSMD_ALERT_WEBHOOK"},
    }  # fmt: skip
    assert all(one.always and one.settle_s > 0 for one in found)
    assert [one.name for one in found if one.stop_group] == [SCHEDULER]


def test_tasks_learn_how_to_call_ssmd_and_never_go_through_a_proxy_to_airflow(tmp_path: Path) -> None:
    given = server.own_variables(Home(tmp_path), tmp_path / "e.yaml", {"PATH": "/bin", "no_proxy": "corp.example"})

    assert json.loads(given["SSMD_COMMAND"]) == [sys.executable, "-m", "ssmd"]
    assert given["SSMD_ENVIRONMENT_FILE"] == str(tmp_path / "e.yaml")
    assert given["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert given["no_proxy"] == "corp.example,127.0.0.1,localhost,::1"
    assert given["NO_PROXY"] == "127.0.0.1,localhost,::1"


@pytest.mark.parametrize("url", ["https://127.0.0.1:18090", "http://127.0.0.1:18090/airflow", "http://u:p@127.0.0.1:1"])
def test_an_address_that_cannot_be_served_here_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form http://host:port"):
        server.address_of(url)


def test_addresses_are_read(tmp_path: Path) -> None:
    assert server.address_of("http://localhost:18090/") == ("localhost", 18090)
    assert server.address_of("http://[::1]:18090") == ("::1", 18090)
    assert server.address_of("http://127.0.0.1") == ("127.0.0.1", 80)


def test_without_airflow_or_with_another_version_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match="Airflow is not installed") as absent:
        server.require_installed()
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "3.30.1")
    with pytest.raises(ConfigError, match=r"Airflow 3\.30\.1 is installed, and ssmd's DAGs are made for Airflow 3\.3"):
        server.require_installed()
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "3.3.9")
    assert server.require_installed() == "3.3.9"
    assert "--no-airflow" in absent.value.hint
    assert f"Run: {server.INSTALL} " in absent.value.hint


def test_the_password_is_made_once_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    home = home_in(tmp_path)

    first, new = prepare_access(home, "http://127.0.0.1:1", None)
    again, still_new = prepare_access(home, "http://127.0.0.1:2", None)

    assert (new, still_new) == (True, False)
    assert first.password == again.password
    assert len(first.password) == 20
    assert read_access(home) == again
    assert json.loads((home.airflow / "passwords.json").read_text()) == {"admin": first.password}
    assert shared_secrets(home) == shared_secrets(home)
    for path in (home.airflow_access, home.airflow / "passwords.json", home.airflow / "secrets.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_operators_own_login_is_used_and_forgotten_when_it_is_taken_back(tmp_path: Path) -> None:
    home = home_in(tmp_path)

    own, new = prepare_access(home, "http://127.0.0.1:1", ("ops", "secret-1"))
    made, made_new = prepare_access(home, "http://127.0.0.1:1", None)

    assert (own.username, own.password, new) == ("ops", "secret-1", False)
    assert (made.username, made_new) == ("admin", True)
    assert made.password != "secret-1"


def test_broken_secrets_are_not_replaced_in_silence(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    (home.airflow / "secrets.json").write_text("{")

    with pytest.raises(ConfigError, match="cannot be read as Airflow's secrets"):
        shared_secrets(home)
