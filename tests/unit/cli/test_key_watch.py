"""A service names every value that it refers to and nobody has, before it opens anything; it asks for no others."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ssmd.cli.key_watch import check_service_keys
from ssmd.cli.opening import Opener
from ssmd.cli.options import choose
from ssmd.errors import ConfigError
from ssmd.keys.secret import SecretValue
from ssmd.keys.stores import LocalStore

ENVIRONMENT = """
apiVersion: ssmd/v1
kind: Environment
metadata: {name: prod}
spec:
  keys:
    kalshi: {type: api_key, fields: [api_key, api_secret]}
    postgres: {type: database, fields: [host, port, database, username, password]}
    nats: {type: transport, fields: [username, password, tls_cert]}
    storage: {type: storage, fields: [access_key, secret_key, region]}
    unused: {type: webhook, fields: [token]}
    redis: {type: transport, required: false, fields: [username, password]}
  feed: kalshi
  database: $key:postgres
  middleware:
    transport: {type: nats, url: "nats://127.0.0.1:4222", credentials: $key:nats}
    storage: {type: s3, credentials: $key:storage}
    cache: {type: redis, url: "redis://127.0.0.1:6379", credentials: $key:redis}
"""


@pytest.fixture
def opener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    file = tmp_path / "prod.yaml"
    file.write_text(ENVIRONMENT)
    return Opener(choose(file), AsyncExitStack())


def keep(opener: Opener, key: str, *fields: str) -> None:
    LocalStore(opener.chosen.home, "prod").write(key, {field: SecretValue("v") for field in fields})


@pytest.mark.parametrize(
    ("service", "keys"),
    [
        ("connector", {"kalshi", "postgres", "nats", "storage"}),
        ("archiver", {"postgres", "nats", "storage"}),
        ("gateway", {"postgres", "nats"}),
    ],
)
def test_all_that_is_missing_is_named_with_the_commands_that_mend_it(
    opener: Opener, service: str, keys: set[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_service_keys(service, opener)
    named = {
        key for key in ("kalshi", "postgres", "nats", "storage", "unused", "redis") if f"{key}." in str(refused.value)
    }
    assert named == keys
    assert all(f"ssmd key set prod {key}" in refused.value.hint for key in keys)
    assert "tls_cert" not in str(refused.value)
    assert "port," not in str(refused.value)


def test_a_service_that_has_its_values_starts(opener: Opener) -> None:
    keep(opener, "postgres", "host", "database", "username", "password")
    keep(opener, "nats", "username", "password")
    check_service_keys("gateway", opener)
    with pytest.raises(ConfigError, match=r"storage\.access_key, storage\.secret_key, which"):
        check_service_keys("archiver", opener)
