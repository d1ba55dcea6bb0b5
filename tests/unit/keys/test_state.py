"""How a key stands: which fields it needs, since when it is set, when it expires; never its value."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from ssmd.config.environment import Environment, KeyDefinition
from ssmd.config.values import KEY_NAME
from ssmd.keys.secret import SecretValue
from ssmd.keys.state import KeyState, key_states, needed_fields, secret_name
from ssmd.keys.stores import EnvironmentStore, LocalStore, MountedStore, Store

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEYS = {
    "kalshi": {"type": "api_key", "fields": ["api_key", "api_secret"], "rotation_days": 90},
    "nats": {"type": "transport", "fields": ["username", "password", "tls_cert"], "required": False},
}


def environment(runtime: str = "local") -> Environment:
    memory = {"type": "memory"}
    spec = {
        "keys": KEYS, "feed": "kalshi", "runtime": {"type": runtime},
        "middleware": {"transport": memory, "storage": memory},
    }  # fmt: skip
    return Environment.model_validate(
        {"apiVersion": "ssmd/v1", "kind": "Environment", "metadata": {"name": "prod"}, "spec": spec}
    )


def states(*stores: Store, recorded: dict[str, datetime] | None = None, runtime: str = "local") -> dict[str, KeyState]:
    return {state.name: state for state in key_states(environment(runtime), stores, recorded or {}, NOW)}


def test_a_key_needs_all_fields_but_the_optional_ones_of_its_type() -> None:
    def needed(kind: str, *fields: str) -> tuple[str, ...]:
        return needed_fields(KeyDefinition.model_validate({"type": kind, "fields": fields}))

    assert needed("transport", "url", "username", "tls_cert", "tls_key", "tls_ca") == ("url", "username")
    assert needed("database", "host", "port", "password") == ("host", "password")
    assert needed("storage", "endpoint", "access_key", "region") == ("access_key",)
    assert needed("api_key", "port", "region") == ("port", "region")
    assert needed("tls", "tls_cert", "tls_key") == ("tls_cert", "tls_key")
    assert needed("storage", "endpoint") == ("endpoint",)


def test_a_key_is_set_when_its_needed_fields_have_values() -> None:
    some = {"SSMD_KEY_KALSHI_API_KEY": "id", "SSMD_KEY_NATS_USERNAME": "u", "SSMD_KEY_NATS_PASSWORD": "p"}
    found = states(EnvironmentStore(some))
    assert (found["kalshi"].status, found["kalshi"].missing_fields) == ("not_set", ("api_secret",))
    assert (found["nats"].status, found["nats"].missing_fields) == ("set", ())
    assert found["nats"].last_rotated is None


def test_what_was_recorded_decides_and_else_the_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "prod")
    store.write("kalshi", {"api_key": SecretValue("id"), "api_secret": SecretValue("s")})
    at = states(store)["kalshi"].last_rotated
    assert at is not None
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    found = states(store, recorded={"kalshi": NOW - timedelta(days=89, hours=23)})["kalshi"]
    assert (found.status, found.expires_at, found.expires_in_days(NOW)) == ("set", NOW + timedelta(hours=1), 1)
    assert states(recorded={"kalshi": NOW})["kalshi"].last_rotated is None


def test_a_key_expires_after_its_days(tmp_path: Path) -> None:
    environ = {"SSMD_KEY_KALSHI_API_KEY": "id", "SSMD_KEY_KALSHI_API_SECRET": "s"}
    found = states(EnvironmentStore(environ), recorded={"kalshi": NOW - timedelta(days=90)})["kalshi"]
    assert (found.status, found.expires_in_days(NOW)) == ("expired", -1)
    assert found.expires_in_days(NOW + timedelta(days=3)) == -3
    assert states(EnvironmentStore(environ))["kalshi"].expires_in_days(NOW) is None


def test_a_mounted_secret_is_as_old_as_its_file(tmp_path: Path) -> None:
    for field in ("api_key", "api_secret"):
        file = tmp_path / "kalshi" / field
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
        os.utime(file, (NOW.timestamp(), NOW.timestamp()))
    assert states(MountedStore(tmp_path))["kalshi"].last_rotated == NOW


def test_a_sealed_key_counts_as_set_though_nobody_can_read_it_here() -> None:
    found = states(recorded={"kalshi": NOW}, runtime="kubernetes")
    assert (found["kalshi"].status, found["kalshi"].sealed_secret_ref) == ("set", "ssmd/prod-kalshi")
    assert found["nats"].status == "not_set"
    sealed = key_states(environment(), [], {"nats": NOW}, NOW, {"nats": "other/prod-nats"})
    assert [state.status for state in sealed] == ["not_set", "set"]


def test_a_value_that_cannot_be_used_is_told_and_not_raised(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "prod")
    store.write("kalshi", {"api_key": SecretValue("hunter2"), "api_secret": SecretValue("s")})
    (tmp_path / "keys" / "prod" / "kalshi" / "api_key").write_text("garbage")
    found = states(store)["kalshi"]
    assert (found.status, found.missing_fields) == ("not_set", ("api_key",))
    assert "cannot be decrypted" in found.problem
    assert b"hunter2" not in msgspec.json.encode(found)


@pytest.mark.parametrize("key", ["kalshi_main", "a", "a_", "a--_-", "k" * 63, "a_b-c9"])
def test_the_name_of_a_secret_is_one_that_kubernetes_takes(key: str) -> None:
    name = secret_name("kalshi-prod", key)
    assert re.fullmatch(KEY_NAME, key)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", name)
    assert len(name) <= 253
