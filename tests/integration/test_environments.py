"""Environments in a real PostgreSQL: versions that hold one after the other, a log of every attempt, nothing half."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from ssmd.config.environment import Environment, environment_hash
from ssmd.config.loading import loads
from ssmd.errors import ConfigError, DataError, RefusedError
from ssmd.registry.database import Database
from ssmd.registry.environments import EnvironmentCatalogue
from ssmd.registry.keys import KeyLedger
from tests.data.broken_environments import GOOD
from tests.databases import Database as Server

pytestmark = pytest.mark.integration

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def environment(name: str = "broken", **gateway: Any) -> Environment:
    data = yaml.safe_load(GOOD)
    data["metadata"]["name"] = name
    data["spec"]["gateway"] |= gateway
    return loads(yaml.safe_dump(data).encode())


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.fresh()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def catalogue(database: Database) -> EnvironmentCatalogue:
    return EnvironmentCatalogue(database)


def test_a_created_environment_has_a_version_that_is_not_deployed(
    catalogue: EnvironmentCatalogue, database: Database
) -> None:
    made = catalogue.create(environment(), by="cli:me", commit=COMMIT)

    assert (made.version, made.created_by, made.git_commit) == (1, "cli:me", COMMIT)
    assert (made.valid_from, made.deployed_at) == (None, None)
    assert catalogue.current("broken") is None
    assert catalogue.newest("broken") == made
    assert set(KeyLedger(database).recorded("broken")) == {"kalshi", "nats", "postgres", "storage"}
    with pytest.raises(ConfigError, match="was not deployed at"):
        catalogue.as_of("broken", datetime.now(UTC))
    with pytest.raises(RefusedError, match="known already, with version 1"):
        catalogue.create(environment(port=1000), by="cli:me")
    assert catalogue.versions("broken") == [made]


def test_a_deployment_puts_the_created_version_in_force(catalogue: EnvironmentCatalogue) -> None:
    catalogue.create(environment(), by="cli:creator")

    deployed = catalogue.deploy(environment(), by="cli:deployer", trigger="gitops", commit=COMMIT)

    assert deployed.new
    assert deployed.version == catalogue.current("broken")
    assert deployed.version.version == 1
    assert deployed.version.created_by == "cli:creator"
    assert (deployed.version.deployed_by, deployed.version.git_commit) == ("cli:deployer", COMMIT)
    (line,) = catalogue.deployments("broken")
    assert (line.version, line.action, line.status, line.trigger, line.triggered_by) == (
        1, "deploy", "completed", "gitops", "cli:deployer",
    )  # fmt: skip
    assert line.completed_at is not None
    assert line.completed_at >= line.started_at


def test_versions_hold_one_after_the_other_without_a_hole(catalogue: EnvironmentCatalogue) -> None:
    ports = (1000, 2000, 3000)
    for port in ports:
        catalogue.deploy(environment(port=port), by="cli:me")

    one, two, three = catalogue.versions("broken")
    assert [one.valid_to, two.valid_to, three.valid_to] == [two.valid_from, three.valid_from, None]
    for version, port in zip((one, two, three), ports, strict=True):
        assert version.valid_from is not None
        assert catalogue.as_of("broken", version.valid_from) == version
        assert loads(version.config_yaml.encode()).spec.gateway.port == port
        assert environment_hash(loads(version.config_yaml.encode())) == version.config_hash
    assert two.valid_from is not None
    assert catalogue.as_of("broken", two.valid_from - timedelta(microseconds=1)) == one
    assert one.valid_from is not None
    with pytest.raises(ConfigError, match="was not deployed at") as refused:
        catalogue.as_of("broken", one.valid_from - timedelta(microseconds=1))
    assert f"{one.valid_from:%Y-%m-%dT%H:%M}" in refused.value.hint


def test_the_same_content_again_is_a_line_in_the_log_and_no_version(catalogue: EnvironmentCatalogue) -> None:
    first = catalogue.deploy(environment(), by="cli:me").version

    again = catalogue.deploy(environment(), by="cli:you", trigger="scheduled", commit=COMMIT)

    assert not again.new
    assert again.version == first
    assert catalogue.versions("broken") == [first]
    assert [(line.version, line.trigger, line.triggered_by) for line in catalogue.deployments("broken")] == [
        (1, "scheduled", "cli:you"),
        (1, "manual", "cli:me"),
    ]


def test_going_back_is_a_new_version_that_says_so(catalogue: EnvironmentCatalogue) -> None:
    catalogue.deploy(environment(port=1000), by="cli:me")
    catalogue.deploy(environment(port=2000), by="cli:me")

    back = catalogue.deploy(environment(port=1000), by="cli:me")

    assert (back.version.version, back.action, back.same_as) == (3, "rollback", 1)
    assert [line.action for line in catalogue.deployments("broken")] == ["rollback", "deploy", "deploy"]


def test_a_failed_deployment_leaves_a_line_and_nothing_else(
    catalogue: EnvironmentCatalogue, postgres: Server, url: str
) -> None:
    first = catalogue.deploy(environment(), by="cli:me").version
    statement = "ALTER TABLE environment_versions ADD CONSTRAINT full_disk CHECK (version < 2)"
    postgres.run(statement, url.rpartition("/")[2])

    with pytest.raises(DataError):
        catalogue.deploy(environment(port=2000), by="cli:me")

    assert catalogue.versions("broken") == [first]
    assert catalogue.current("broken") == first
    failed, completed = catalogue.deployments("broken")
    assert (failed.status, failed.version, completed.status) == ("failed", None, "completed")
    assert "full_disk" in (failed.error or "")


def test_deployments_at_the_same_moment_queue(catalogue: EnvironmentCatalogue) -> None:
    ports = range(1000, 1008)
    threads = [
        threading.Thread(target=catalogue.deploy, args=(environment(port=p),), kwargs={"by": "x"}) for p in ports
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    versions = catalogue.versions("broken")
    assert [version.version for version in versions] == list(range(1, 9))
    assert [version.valid_to for version in versions] == [v.valid_from for v in versions[1:]] + [None]
    assert {loads(v.config_yaml.encode()).spec.gateway.port for v in versions} == set(ports)


def test_what_came_with_ssmd_can_be_created_once(catalogue: EnvironmentCatalogue) -> None:
    (shipped,) = catalogue.versions("local")
    assert (shipped.created_by or "").startswith("ssmd ")

    taken = catalogue.create(loads(shipped.config_yaml.encode()), by="cli:me")
    other = catalogue.create(environment("test"), by="cli:me")

    assert (taken.version, taken.created_by, taken.config_hash) == (1, "cli:me", shipped.config_hash)
    assert (other.version, other.created_by) == (2, "cli:me")
    with pytest.raises(RefusedError):
        catalogue.create(environment("local"), by="cli:me")


def test_an_environment_that_only_has_keys_is_not_known_yet(
    catalogue: EnvironmentCatalogue, database: Database
) -> None:
    KeyLedger(database).declare("broken", environment().spec.keys)

    with pytest.raises(ConfigError, match="has no version yet"):
        catalogue.newest("broken")
    assert catalogue.create(environment(), by="cli:me").version == 1


def test_a_changed_definition_of_a_key_reaches_its_row(
    catalogue: EnvironmentCatalogue, postgres: Server, url: str
) -> None:
    catalogue.deploy(environment(), by="cli:me")
    data = yaml.safe_load(GOOD)
    data["spec"]["keys"]["nats"] |= {"required": False, "rotation_days": 30}

    catalogue.deploy(loads(yaml.safe_dump(data).encode()), by="cli:me")

    query = "SELECT required, rotation_days FROM keys k JOIN environments e ON e.id = k.environment_id "
    query += "WHERE e.name = 'broken' AND k.name = 'nats'"
    assert postgres.run(query, url.rpartition("/")[2]) == [(False, 30)]


@pytest.mark.parametrize("name", ["brokn", "x'; DROP TABLE environments; --", "nul\0", "\ud800", "x" * 10_000])
def test_an_unknown_name_is_an_error_of_one_short_line(catalogue: EnvironmentCatalogue, name: str) -> None:
    catalogue.deploy(environment(), by="cli:me")

    for ask in (catalogue.newest, catalogue.versions, catalogue.deployments, catalogue.current):
        with pytest.raises(ConfigError, match="knows no environment") as refused:
            ask(name)
        assert refused.value.message.isprintable()
        assert len(refused.value.message) < 160
    assert [known.name for known in catalogue.environments()] == ["broken", "kalshi-prod", "local", "test"]


def test_the_list_shows_the_version_in_force(catalogue: EnvironmentCatalogue) -> None:
    catalogue.deploy(environment(), by="cli:me")
    catalogue.deploy(environment(port=2000), by="cli:me")

    known = {one.name: one for one in catalogue.environments()}

    assert (known["broken"].version, known["broken"].versions, known["broken"].deployed_by) == (2, 2, "cli:me")
    assert (known["local"].version, known["local"].versions) == (None, 1)
