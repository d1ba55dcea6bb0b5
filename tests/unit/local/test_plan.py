"""What `ssmd up` decides to start, from what the environment file says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssmd.config.loading import loads
from ssmd.errors import ConfigError
from ssmd.local.airflow_server import PROGRAMS as AIRFLOW
from ssmd.local.demo_key import DemoKey
from ssmd.local.home import Home
from ssmd.local.plan import STOP_ORDER, Options, Plan, make_plan, programs, stop_order
from ssmd.local.valkey_server import CacheAccess

DATABASE = "postgresql+psycopg2://postgres@127.0.0.1:25432/ssmd"
BROKER = "nats://127.0.0.1:24222"
ENDPOINTS = {"ws": "ws://127.0.0.1:19555/trade-api/ws/v2", "rest": "http://127.0.0.1:19555/trade-api/v2"}


def environment(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ssmd/v1",
        "kind": "Environment",
        "metadata": {"name": "here"},
        "spec": {
            "keys": {},
            "feed": "kalshi",
            "database": {"url": DATABASE},
            "middleware": {
                "transport": {"type": "nats", "url": BROKER},
                "storage": {"type": "local", "path": "storage"},
            },
            "gateway": {"host": "127.0.0.1", "port": 28080},
            **spec,
        },
    }


def plan(
    options: Options = Options(),  # noqa: B008 frozen
    database: str | None = DATABASE,
    broker: str | None = BROKER,
    **spec: Any,
) -> Plan:
    loaded = loads(yaml.safe_dump(environment(**spec)).encode())
    return make_plan(loaded, Path("here.yaml"), options, database, broker)


def names(chosen: Plan, tmp_path: Path) -> list[str]:
    return [program.name for program in programs(chosen, Home(tmp_path), None, {}, None)]


def test_without_endpoints_a_simulated_exchange_is_started_on_loopback(tmp_path: Path) -> None:
    chosen = plan()

    assert chosen.simulator is not None
    assert chosen.simulator.host == "127.0.0.1"
    assert names(chosen, tmp_path) == ["nats", "simulator", "connector", "connector-b", "archiver", "gateway"]
    connector = programs(chosen, Home(tmp_path), None, {}, None)[2]
    assert f"ws://{chosen.simulator}/trade-api/ws/v2" in connector.command


def test_with_endpoints_no_simulator_is_started_and_the_connector_gets_them(tmp_path: Path) -> None:
    chosen = plan(endpoints=ENDPOINTS)

    assert names(chosen, tmp_path) == ["nats", "connector", "connector-b", "archiver", "gateway"]
    assert list(programs(chosen, Home(tmp_path), None, {}, None)[1].command[-4:]) == [
        "--ws", ENDPOINTS["ws"], "--rest", ENDPOINTS["rest"],
    ]  # fmt: skip


def test_what_is_secret_in_the_exchanges_address_is_not_shown() -> None:
    chosen = plan(endpoints={**ENDPOINTS, "ws": "ws://u:hunter2@h/ws?token=hunter2"})

    assert chosen.exchange == "ws://u:***@h/ws?token=***"


def test_live_leaves_the_exchange_to_the_registry(tmp_path: Path) -> None:
    chosen = plan(Options(exchange="live"))

    assert chosen.endpoints is None
    connector = programs(chosen, Home(tmp_path), None, {}, None)[1]
    assert "--ws" not in connector.command


def test_servers_elsewhere_are_checked_and_not_started(tmp_path: Path) -> None:
    far = "postgresql+psycopg2://ssmd@db.example:5433/ssmd"
    chosen = plan(database=far, broker="nats://broker.example:4222")

    assert chosen.postgres is None
    assert chosen.nats is None
    assert [(one.program, one.host, one.port) for one in chosen.external] == [
        ("postgres", "db.example", 5433), ("nats", "broker.example", 4222),
    ]  # fmt: skip
    assert names(chosen, tmp_path) == ["simulator", "connector", "connector-b", "archiver", "gateway"]
    assert [listener.program for listener in chosen.listeners] == ["gateway"]


def test_the_ports_that_must_be_free_are_those_of_the_file() -> None:
    assert [(one.program, one.port) for one in plan().listeners] == [
        ("postgres", 25432), ("nats", 24222), ("gateway", 28080),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "section"),
    [("transport", {"type": "memory"}), ("storage", {"type": "memory"})],
    ids=["transport", "storage"],
)
def test_memory_cannot_be_shared_between_processes(what: str, section: dict[str, str]) -> None:
    middleware = environment()["spec"]["middleware"] | {what: section}

    with pytest.raises(ConfigError, match=f"spec.middleware.{what} is in memory"):
        plan(middleware=middleware)


def test_a_tape_needs_the_simulated_exchange_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        plan(Options(tapes=(tmp_path / "no.ndjson",)))
    with pytest.raises(ConfigError, match="--tape is for the simulated exchange"):
        plan(Options(tapes=(tmp_path / "no.ndjson",)), endpoints=ENDPOINTS)


def test_a_tape_and_its_speed_go_to_the_simulator(tmp_path: Path) -> None:
    tape = tmp_path / "day.ndjson"
    tape.touch()
    chosen = plan(Options(tapes=(tape,), speed=10.0))

    command = programs(chosen, Home(tmp_path), None, {}, None)[1].command

    assert list(command[-4:]) == ["--tape", str(tape), "--speed", "10.0"]


def test_recorded_objects_go_to_the_simulator_and_must_exist(tmp_path: Path) -> None:
    chosen = plan(Options(objects=(tmp_path,)))

    assert list(programs(chosen, Home(tmp_path), None, {}, None)[1].command[-2:]) == ["--objects", str(tmp_path)]
    with pytest.raises(ConfigError, match="does not exist"):
        plan(Options(objects=(tmp_path / "no",)))
    with pytest.raises(ConfigError, match="--objects is for the simulated exchange"):
        plan(Options(objects=(tmp_path,)), endpoints=ENDPOINTS)


def test_secrets_are_seen_by_those_who_need_them_only(tmp_path: Path) -> None:
    variables = {"SSMD_KEY_KALSHI_API_SECRET": "s", "SSMD_KEY_STORE_SECRET_KEY": "t", "PATH": "/bin"}

    hidden = {one.name: list(one.hidden) for one in programs(plan(), Home(tmp_path), None, variables, None)}

    more = programs(plan(), Home(tmp_path), None, {"PGPASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "y", "TZ": "UTC"}, None)
    assert {one.name: list(one.hidden) for one in more}["nats"] == ["AWS_SECRET_ACCESS_KEY", "PGPASSWORD"]
    both = ["SSMD_KEY_KALSHI_API_SECRET", "SSMD_KEY_STORE_SECRET_KEY"]
    assert hidden == {
        "nats": both, "simulator": both, "connector": [], "connector-b": [], "archiver": both[:1], "gateway": both[:1],
    }  # fmt: skip


def test_the_demo_key_is_given_to_the_connector_unless_there_is_another(tmp_path: Path) -> None:
    demo = DemoKey("id", tmp_path / "private.pem", tmp_path / "public.pem")
    own = {"SSMD_KEY_KALSHI_API_KEY": "mine"}

    assert demo.variables({}) == {
        "SSMD_KEY_KALSHI_API_KEY": "id", "SSMD_KEY_KALSHI_API_SECRET_FILE": str(tmp_path / "private.pem"),
    }  # fmt: skip
    assert demo.variables(own) == {}
    strict = programs(plan(), Home(tmp_path), None, demo.variables({}), demo)[1].command
    lenient = programs(plan(), Home(tmp_path), None, own, demo)[1].command
    assert "--public-key" in strict
    assert "--public-key" not in lenient


def test_sources_stop_before_what_they_flow_into() -> None:
    started = ["postgres", "nats", "valkey", "simulator", "connector", "connector-b", "archiver", "gateway", *AIRFLOW]

    ended = [*AIRFLOW, "connector-b", "connector", "archiver", "gateway", "simulator", "valkey", "nats", "postgres"]
    assert stop_order(started) == ended
    assert stop_order(["nats", "stranger"]) == ["stranger", "nats"]
    assert set(started) == set(STOP_ORDER)


def test_a_cache_on_loopback_is_started_and_one_elsewhere_or_with_tls_is_only_checked(tmp_path: Path) -> None:
    file = loads(yaml.safe_dump(environment()).encode())

    def with_cache(url: str) -> Plan:
        return make_plan(file, Path("here.yaml"), Options(), DATABASE, BROKER, CacheAccess(url))

    here = with_cache("redis://127.0.0.1:26379/2")
    assert names(here, tmp_path) == ["nats", "valkey", "simulator", "connector", "connector-b", "archiver", "gateway"]
    assert ("valkey", 26379) in [(one.program, one.port) for one in here.listeners]
    for url in ("redis://cache.example:26379", "rediss://127.0.0.1:26379"):
        elsewhere = with_cache(url)
        assert "valkey" not in names(elsewhere, tmp_path)
        assert [(one.program, one.port) for one in elsewhere.external] == [("valkey", 26379)]
    with pytest.raises(ConfigError, match="is not a URL") as caught:
        with_cache("redis://me:hunter2@127.0.0.1:not-a-port")
    assert "hunter2" not in str(caught.value)


def test_people_get_an_address_that_they_can_open() -> None:
    assert plan(gateway={"host": "0.0.0.0", "port": 28080, "auth": "keys"}).urls == {
        "status": "http://127.0.0.1:28080/status",
        "stream": "ws://127.0.0.1:28080/v1/stream?symbols=*",
        "health": "http://127.0.0.1:28080/v1/health",
    }


def test_an_address_with_a_certificate_is_https() -> None:
    tls = {"cert_file": "a.pem", "key_file": "b.pem"}
    assert plan(gateway={"port": 28080, "tls": tls}).urls == {
        "status": "https://127.0.0.1:28080/status",
        "stream": "wss://127.0.0.1:28080/v1/stream?symbols=*",
        "health": "https://127.0.0.1:28080/v1/health",
    }
