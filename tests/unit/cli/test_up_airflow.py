"""Whether and how `ssmd up` starts an Airflow, as the environment file says it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssmd.cli.options import Chosen
from ssmd.cli.up import plan_of
from ssmd.config.loading import loads
from ssmd.errors import ConfigError
from ssmd.local.home import Home
from ssmd.local.plan import Options, Plan, programs
from tests.unit.local.test_plan import environment


def planned(tmp_path: Path, airflow: dict[str, Any] | None, options: Options = Options(), **spec: Any) -> Plan:  # noqa: B008
    data = environment(**spec, airflow=airflow)
    data["spec"] = {name: value for name, value in data["spec"].items() if value is not None}
    return plan_of(Chosen(loads(yaml.safe_dump(data).encode()), tmp_path / "e.yaml", tmp_path), options)


def names(chosen: Plan, tmp_path: Path) -> list[str]:
    return [one.name for one in programs(chosen, Home(tmp_path), None, {}, None) if one.name.startswith("airflow")]


HERE = {"url": "http://127.0.0.1:28090"}


def test_one_on_this_machine_is_started_with_a_database_of_its_own(tmp_path: Path) -> None:
    chosen = planned(tmp_path, HERE)

    assert names(chosen, tmp_path) == ["airflow-api", "airflow-scheduler", "airflow-dags", "airflow-triggerer"]
    assert chosen.airflow is not None
    assert chosen.airflow.database_url == "postgresql+psycopg2://postgres@127.0.0.1:25432/airflow"
    assert chosen.airflow.async_database_url == "postgresql+asyncpg://postgres@127.0.0.1:25432/airflow"
    assert (chosen.airflow.dags / "daily_startup.py").is_file()
    assert ("airflow", 28090) in [(one.program, one.port) for one in chosen.listeners]


@pytest.mark.parametrize(
    ("airflow", "options"),
    [(None, Options()), (HERE, Options(airflow=False)), ({"url": "https://airflow.example"}, Options())],
    ids=["no airflow in the file", "--no-airflow", "elsewhere"],
)
def test_otherwise_none_is(airflow: dict[str, Any] | None, options: Options, tmp_path: Path) -> None:
    assert names(planned(tmp_path, airflow, options), tmp_path) == []


def test_on_a_postgresql_of_others_environments_do_not_share_one(tmp_path: Path) -> None:
    far = planned(tmp_path, HERE, database={"url": "postgresql+psycopg2://ops@db.example/ssmd"}).airflow

    assert far is not None
    assert far.database == "airflow_here"
    assert far.database_url == "postgresql+psycopg2://ops@db.example/airflow_here"


def test_without_a_database_the_fix_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"spec\.airflow needs spec\.database") as caught:
        planned(tmp_path, HERE, database=None)
    assert "ssmd up --no-airflow" in caught.value.hint


def test_login_and_webhook_of_the_operator_are_taken_from_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        "web": {"type": "transport", "fields": ["username", "password"]},
        "hook": {"type": "webhook", "fields": ["url"]},
    }
    given = {**HERE, "credentials": "$key:web", "webhook": "$key:hook"}
    monkeypatch.setenv("SSMD_KEY_WEB_USERNAME", "ops")
    monkeypatch.setenv("SSMD_KEY_WEB_PASSWORD", "secret-1")
    monkeypatch.setenv("SSMD_KEY_HOOK_URL", "https://hooks.example/token")

    found = planned(tmp_path, given, keys=keys).airflow

    assert found is not None
    assert (found.login, found.webhook) == (("ops", "secret-1"), "https://hooks.example/token")
    monkeypatch.setenv("SSMD_KEY_WEB_USERNAME", "ops:admin")
    with pytest.raises(ConfigError, match="no user and password that Airflow can use") as caught:
        planned(tmp_path, given, keys=keys)
    assert "secret-1" not in str(caught.value)
