"""Secrets come from the first store that has them, follow changes within a minute, and never show themselves."""

import copy
import json
import logging
import os
import pickle
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ssmd.config.environment import KeyDefinition
from ssmd.errors import EXIT_CONFIG, ConfigError
from ssmd.keys.resolver import REREAD_S, Resolver
from ssmd.keys.secret import SecretValue, normalized
from ssmd.keys.stores import EnvironmentStore, LocalStore, MountedStore, Store, standard_stores

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIE\n-----END PRIVATE KEY-----\n"
KEYS = {
    "kalshi": KeyDefinition(type="api_key", fields=("api_key", "api_secret")),
    "postgres": KeyDefinition(type="database", fields=("host", "port", "database", "username", "password")),
    "nats": KeyDefinition(type="transport", fields=("url", "username", "password")),
    "hook": KeyDefinition(type="webhook", fields=("token",), required=False),
}


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_secret_shows_itself_nowhere() -> None:
    secret = SecretValue("hunter2")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>20}", repr([secret]), f"{secret!r}"]
    logging.getLogger("test").warning("a %s", secret)
    assert all("hunter2" not in text and "***" in text for text in shown)
    assert secret.reveal() == "hunter2"
    assert secret == SecretValue("hunter2")
    assert secret != SecretValue("hunter3")
    assert secret != "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("abc", "abc"),
        ("abc\n", "abc"),
        ("abc\r\n", "abc"),
        ("abc\n\n", "abc\n"),
        (" abc ", " abc "),
        (PEM, PEM),
        (PEM.strip(), PEM),
        (PEM.replace("\n", "\r\n"), PEM),
        (PEM.replace("\n", "\\n"), PEM),
        ("\n" + PEM + "\n\n", PEM),
    ],
)
def test_line_ends_are_what_was_meant(text: str, meant: str) -> None:
    assert normalized(text) == meant


def test_the_environment_holds_the_value_or_the_path_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    store = EnvironmentStore(
        {"SSMD_KEY_KALSHI_PROD_API_KEY": "id-1", "SSMD_KEY_KALSHI_PROD_API_SECRET_FILE": str(file)}
    )
    assert store.read("kalshi-prod", "api_key") == SecretValue("id-1")
    assert store.read("kalshi-prod", "api_secret") == SecretValue(PEM)
    assert store.read("kalshi-prod", "other") is None
    assert store.stamp("kalshi-prod", "other") is None


def broken_files(tmp_path: Path) -> dict[str, tuple[str, str]]:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "der").write_bytes(b"\x30\x82\xff\xfehunter2")
    (tmp_path / "big").write_bytes(b"x" * ((1 << 20) + 1))
    (tmp_path / "nul").write_text("hunter2\x00")
    return {
        "missing": (str(tmp_path / "nowhere"), "No such file"),
        "folder": (str(tmp_path), "Is a directory"),
        "empty": (str(tmp_path / "empty"), "is empty"),
        "der": (str(tmp_path / "der"), "is not text"),
        "big": (str(tmp_path / "big"), "more than"),
        "nul": (str(tmp_path / "nul"), "NUL"),
        "blank": ("", "SSMD_KEY_K_F_FILE is empty"),
    }


@pytest.mark.parametrize("name", ["missing", "folder", "empty", "der", "big", "nul", "blank"])
def test_an_unusable_file_is_named_with_its_variable_and_not_quoted(tmp_path: Path, name: str) -> None:
    path, says = broken_files(tmp_path)[name]
    resolver = Resolver([EnvironmentStore({"SSMD_KEY_K_F_FILE": path})])
    with pytest.raises(ConfigError, match=says) as refused:
        resolver.resolve("k", "f")
    assert "SSMD_KEY_K_F_FILE" in str(refused.value)
    assert "hunter2" not in str(refused.value) + repr(refused.value.__cause__)
    assert refused.value.exit_code == EXIT_CONFIG


def test_an_empty_variable_is_an_error_and_not_another_stores_turn(tmp_path: Path) -> None:
    (tmp_path / "k-f").write_text("other")
    with pytest.raises(ConfigError, match="SSMD_KEY_K_F is empty"):
        Resolver([EnvironmentStore({"SSMD_KEY_K_F": ""}), MountedStore(tmp_path)]).resolve("k", "f")


def test_mounted_secrets_are_folders_or_single_files(tmp_path: Path) -> None:
    data = tmp_path / "..data"
    data.mkdir()
    (data / "api_key").write_text("from-folder\n")
    (tmp_path / "kalshi").symlink_to(data)  # as Kubernetes does
    (tmp_path / "nats-password").write_text("from-file")
    store = MountedStore(tmp_path)
    assert store.read("kalshi", "api_key") == SecretValue("from-folder")
    assert store.read("nats", "password") == SecretValue("from-file")
    assert store.read("nats", "username") is None
    (tmp_path / "kalshi-main").symlink_to(data)  # named as its Secret is
    assert store.read("kalshi_main", "api_key") == SecretValue("from-folder")
    assert MountedStore(tmp_path / "nowhere").read("nats", "username") is None
    with pytest.raises(ConfigError, match="not the name"):
        store.read("..", "data")


def test_the_local_store_keeps_values_encrypted_and_private(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "prod")
    assert store.read("kalshi", "api_secret") is None
    store.write("kalshi", {"api_key": SecretValue("old")})
    store.write("kalshi", {"api_key": SecretValue("id-1\n")})
    store.write("kalshi", {"api_secret": SecretValue(PEM)})
    assert LocalStore(tmp_path, "prod").read("kalshi", "api_secret") == SecretValue(PEM)
    assert store.read("kalshi", "api_key") == SecretValue("id-1")
    assert store.fields("kalshi") == ["api_key", "api_secret"]
    assert LocalStore(tmp_path, "test").read("kalshi", "api_key") is None
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert b"PRIVATE KEY" not in path.read_bytes()
    assert store.delete("kalshi") == ["api_key", "api_secret"]
    assert store.read("kalshi", "api_key") is None
    assert store.delete("kalshi") == []


def test_a_stored_key_that_others_can_read_is_refused_with_the_fix(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "prod")
    store.write("kalshi", {"api_key": SecretValue("id-1")})
    for path in (tmp_path / "keys/prod/kalshi/api_key", tmp_path / "master.key"):
        path.chmod(0o644)
        with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
            store.read("kalshi", "api_key")
        path.chmod(0o600)
    assert store.read("kalshi", "api_key") == SecretValue("id-1")


def test_a_stored_key_without_its_master_or_of_another_key_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "prod")
    store.write("kalshi", {"api_key": SecretValue("id-1")})
    store.write("demo", {"api_key": SecretValue("id-2")})
    store.write("kalshi", {"api_secret": SecretValue("pem")})
    folder = tmp_path / "keys" / "prod"
    for key, field in (("demo", "api_key"), ("kalshi", "api_secret")):
        (folder / key / field).write_bytes((folder / "kalshi" / "api_key").read_bytes())
        with pytest.raises(ConfigError, match="belongs to another key"):
            store.read(key, field)
    (folder / "kalshi" / "api_key").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="not encrypted with"):
        store.read("kalshi", "api_key")
    store.write("kalshi", {"api_key": SecretValue("id-1")})
    (tmp_path / "master.key").unlink()
    with pytest.raises(ConfigError, match="SSMD_KEY_KALSHI"):
        store.read("kalshi", "api_key")
    (tmp_path / "master.key").touch(mode=0o600)
    with pytest.raises(ConfigError, match="is not a master key"):
        store.read("kalshi", "api_key")


@pytest.mark.parametrize(
    ("key", "field"), [("../x", "f"), ("k", "../f"), ("", "f"), ("K", "f"), ("k", "a/b"), ("k\n", "f")]
)
def test_no_name_leads_out_of_the_stores_folder(tmp_path: Path, key: str, field: str) -> None:
    with pytest.raises(ConfigError, match="not the name"):
        LocalStore(tmp_path, "prod").write(key, {field: SecretValue("x")})
    assert list(tmp_path.iterdir()) == []


def test_the_first_store_that_has_a_value_wins(tmp_path: Path) -> None:
    environ = {"SSMD_KEY_KALSHI_API_KEY": "from-environment"}
    local = LocalStore(tmp_path / "home", "prod")
    (tmp_path / "home").mkdir()
    local.write("kalshi", {"api_key": SecretValue("from-local")})
    local.write("kalshi", {"api_secret": SecretValue("from-local")})
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for field in ("api_key", "api_secret", "third"):
        (mounted / f"kalshi-{field}").write_text("from-mounted")
    stores: list[Store] = [EnvironmentStore(environ), local, MountedStore(mounted)]
    resolver = Resolver(stores)
    found = [resolver.resolve("kalshi", field).reveal() for field in ("api_key", "api_secret", "third")]
    assert found == ["from-environment", "from-local", "from-mounted"]
    assert [store.name for store in standard_stores(environ, tmp_path, "prod")] == [store.name for store in stores]


def test_a_missing_value_says_where_it_may_come_from() -> None:
    with pytest.raises(ConfigError) as refused:
        Resolver([EnvironmentStore({})], KEYS).resolve("kalshi", "api_secret")
    text = str(refused.value)
    assert "'kalshi'" in text
    assert "'api_secret'" in text
    assert "export SSMD_KEY_KALSHI_API_SECRET=" in text
    assert "SSMD_KEY_KALSHI_API_SECRET_FILE=" in text
    assert "export SSMD_KEY_KALSHI" in text
    assert refused.value.exit_code == EXIT_CONFIG


def test_a_changed_file_is_read_at_once_and_an_unchanged_one_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "nats-password"
    path.write_text("first")
    os.utime(path, ns=(1, 1))
    clock = Clock()
    resolver = Resolver([MountedStore(tmp_path)], clock=clock)
    assert resolver.resolve("nats", "password").reveal() == "first"
    path.write_text("other")
    os.utime(path, ns=(1, 1))  # as if it had not changed: the known value is used
    assert resolver.resolve("nats", "password").reveal() == "first"
    clock.now += REREAD_S
    assert resolver.resolve("nats", "password").reveal() == "other"
    path.write_text("third")
    os.utime(path, ns=(2, 2))
    assert resolver.resolve("nats", "password").reveal() == "third"


def test_a_removed_value_is_missing_and_a_better_store_takes_over_within_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "nats-password"
    path.write_text("mounted")
    environ: dict[str, str] = {}
    clock = Clock()
    resolver = Resolver([EnvironmentStore(environ), MountedStore(tmp_path)], clock=clock)
    assert resolver.resolve("nats", "password").reveal() == "mounted"
    environ["SSMD_KEY_NATS_PASSWORD"] = "environment"
    clock.now += REREAD_S
    assert resolver.resolve("nats", "password").reveal() == "environment"
    del environ["SSMD_KEY_NATS_PASSWORD"]
    path.unlink()
    with pytest.raises(ConfigError, match="no value"):
        resolver.resolve("nats", "password")


def test_text_of_an_environment_file_is_resolved() -> None:
    environ = {
        "SSMD_KEY_POSTGRES_HOST": "db.local",
        "SSMD_KEY_POSTGRES_DATABASE": "ssmd",
        "SSMD_KEY_POSTGRES_USERNAME": "us:er",
        "SSMD_KEY_POSTGRES_PASSWORD": "p@ss/w#rd",
        "SSMD_KEY_NATS_URL": "nats://h:4222",
        "SSMD_KEY_HOOK_TOKEN": "tok",
    }
    resolver = Resolver([EnvironmentStore(environ)], KEYS)
    url = "postgresql+psycopg2://us%3Aer:p%40ss%2Fw%23rd@db.local:5432/ssmd"
    assert resolver.resolve_text("$key:postgres").reveal() == url
    assert resolver.resolve_text("$key:postgres.password").reveal() == "p@ss/w#rd"
    assert resolver.resolve_text("$key:nats").reveal() == "nats://h:4222"
    assert resolver.resolve_text("$key:hook").reveal() == "tok"
    assert resolver.resolve_text("nats://127.0.0.1:4222").reveal() == "nats://127.0.0.1:4222"
    environ |= {"SSMD_KEY_POSTGRES_HOST": "::1", "SSMD_KEY_POSTGRES_PORT": "5433"}
    del environ["SSMD_KEY_POSTGRES_PASSWORD"]
    fresh = Resolver([EnvironmentStore(environ)], KEYS)
    assert fresh.resolve_text("$key:postgres").reveal() == "postgresql+psycopg2://us%3Aer@[::1]:5433/ssmd"
    for wrong, says in (
        ("$key:kalshi", "which field"),
        ("$key:zzz", "does not define"),
        ("$key:", "not a key reference"),
    ):
        with pytest.raises(ConfigError, match=says):
            resolver.resolve_text(wrong)


def test_credentials_are_the_fields_that_have_values() -> None:
    resolver = Resolver([EnvironmentStore({"SSMD_KEY_NATS_USERNAME": "u", "SSMD_KEY_NATS_PASSWORD": "p"})], KEYS)
    assert resolver.credentials("$key:nats") == {"username": SecretValue("u"), "password": SecretValue("p")}
    with pytest.raises(ConfigError, match="SSMD_KEY_KALSHI_API_KEY"):
        resolver.credentials("$key:kalshi")
    with pytest.raises(ConfigError, match="key reference"):
        resolver.credentials("hunter2")


def test_missing_lists_the_fields_of_required_keys_only() -> None:
    resolver = Resolver(
        [EnvironmentStore({"SSMD_KEY_KALSHI_API_KEY": "id"})], {"kalshi": KEYS["kalshi"], "hook": KEYS["hook"]}
    )
    assert resolver.missing() == ["kalshi.api_secret"]


def test_reading_a_key_is_logged_without_its_value() -> None:
    environ = {"SSMD_KEY_NATS_PASSWORD": "hunter2"}
    clock = Clock()
    resolver = Resolver([EnvironmentStore(environ)], clock=clock)
    with capture_logs() as logs:
        resolver.resolve("nats", "password")
        resolver.resolve("nats", "password")
        environ["SSMD_KEY_NATS_PASSWORD"] = "hunter3"
        resolver.resolve("nats", "password")
    assert [(entry["event"], entry["changed"]) for entry in logs] == [("key read", False), ("key read", True)]
    assert "hunter" not in repr(logs)
