"""Shared by all tests: what happens when a server or a system package is missing."""

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from ssmd.registry.database import Database
    from tests.databases import Database as Server
    from tests.servers import NatsServer

# A busy machine is no bug: examples have no time limit of their own (pytest's faulthandler_timeout is the limit).
settings.register_profile("ssmd", deadline=None)
settings.load_profile("ssmd")

# What coverage told a worker of pytest-xdist (tests/run.py) is not for the programs that its tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_START", None)


def missing(what: str, how: str) -> NoReturn:
    """Skip at home, fail in CI: `what` is not there, `how` says how to get it."""
    message = f"{what} is missing: {how}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(autouse=True)
def _logging_as_before() -> "Iterator[None]":
    """What a test configured for its own captured streams must not outlive them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def nats_broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[NatsServer]":
    """A real nats-server for the whole run (of one worker); a test that kills it starts it again."""
    from tests.servers import nats_server

    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Server]":
    """A real PostgreSQL for the whole run (of one worker); `postgres.fresh()` is a new database with ssmd's tables."""
    from tests.databases import database_server

    with database_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: "Server") -> str:
    """The URL of one database with ssmd's tables and feeds, shared by the run."""
    return postgres.fresh()


@pytest.fixture
def database(postgres: "Server") -> "Iterator[Database]":
    """A new database with ssmd's tables, as the registry opens it."""
    from ssmd.registry.database import Database

    opened = Database(postgres.fresh())
    yield opened
    opened.close()
