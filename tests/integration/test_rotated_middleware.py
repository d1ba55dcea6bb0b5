"""Rotated passwords of PostgreSQL and NATS are used by the next connection of a client that goes on running."""

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ssmd.config.environment import KeyDefinition
from ssmd.errors import ConfigError
from ssmd.keys.resolver import Resolver
from ssmd.keys.secret import SecretValue
from ssmd.keys.stores import LocalStore
from ssmd.middleware.transport.interface import StreamState, TransportUnavailable
from ssmd.middleware.transport.nats import NatsTransport
from ssmd.registry.database import Database
from ssmd.registry.tables import feeds
from tests.databases import Database as Server
from tests.servers import free_port, program

pytestmark = pytest.mark.integration

FIELDS = ("host", "port", "database", "username", "password")


def test_a_rotated_database_password_is_used_by_the_next_connection(postgres: Server, tmp_path: Path) -> None:
    name = postgres.fresh().rpartition("/")[2]
    hba = Path(str(postgres.run("SHOW hba_file")[0][0]))
    before = hba.read_text()
    hba.write_text("host all keyed all scram-sha-256\n" + before)
    postgres.run("CREATE ROLE keyed LOGIN SUPERUSER PASSWORD 'first'")
    postgres.run("SELECT pg_reload_conf()")
    store = LocalStore(tmp_path, "prod")
    parts = {"host": "127.0.0.1", "port": str(postgres.port), "database": name, "username": "keyed"}
    store.write("postgres", {field: SecretValue(text) for field, text in parts.items()})
    store.write("postgres", {"password": SecretValue("wrong")})
    resolver = Resolver([store], {"postgres": KeyDefinition(type="database", fields=FIELDS)})
    database = Database(lambda: resolver.resolve_text("$key:postgres").reveal())
    try:
        with pytest.raises(ConfigError, match="refuses user 'keyed'"):
            database.ping()
        store.write("postgres", {"password": SecretValue("first")})
        with database.transaction("look") as connection:
            assert connection.execute(sa.select(feeds.c.name)).scalars().all()

        postgres.run("ALTER ROLE keyed PASSWORD 'second'")
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keyed'")
        with pytest.raises(ConfigError, match="refuses user 'keyed'"):
            database.ping()
        store.write("postgres", {"password": SecretValue("second")})
        database.ping()
    finally:
        database.close()
        hba.write_text(before)
        postgres.run("SELECT pg_reload_conf()")
        postgres.run("DROP ROLE keyed")


def start_nats(folder: Path, port: int, password: str) -> "subprocess.Popen[bytes]":
    config: dict[str, object] = {"port": port, "host": "127.0.0.1", "jetstream": {"store_dir": str(folder / "js")}}
    config["authorization"] = {"user": "ssmd", "password": password}
    (folder / "nats.conf").write_text(json.dumps(config))
    return subprocess.Popen([program("nats-server"), "-c", str(folder / "nats.conf"), "-l", str(folder / "log")])


async def test_a_rotated_broker_password_is_used_at_the_next_reconnect(tmp_path: Path) -> None:
    port, current = free_port(), ["first"]
    process = start_nats(tmp_path, port, "first")
    transport = NatsTransport(lambda: f"nats://ssmd:{current[0]}@127.0.0.1:{port}")
    try:
        await eventually(lambda: transport.ensure_stream("demo"))
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process = start_nats(tmp_path, port, "second")
        current[0] = "second"
        assert await eventually(lambda: transport.ensure_stream("demo"))
        publisher = await transport.publisher("demo")
        assert publisher is not None
    finally:
        await transport.close()
        process.terminate()
        process.wait(10)


async def eventually(do: Callable[[], Awaitable[StreamState]]) -> StreamState:
    for _ in range(100):
        with contextlib.suppress(TransportUnavailable):
            return await do()
        await asyncio.sleep(0.1)
    return await do()
