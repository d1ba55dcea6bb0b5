"""A database of another program beside ssmd's own, on the same PostgreSQL server."""

import time

import sqlalchemy as sa
from sqlalchemy import exc

from ssmd.errors import ConfigError
from ssmd.registry.db import open_engine, parse, translated

ASYNC_DRIVER = "postgresql+asyncpg"
_FOUND = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
_ATTEMPTS = 5


def neighbour_urls(url: str, database: str) -> tuple[str, str]:
    """The URLs of `database` on the server of `url`: for psycopg2, and for asyncpg, which spells `sslmode` as `ssl`."""
    parts = parse(url).set(database=database)
    query = {{"sslmode": "ssl"}.get(name, name): value for name, value in parts.query.items()}
    other = parts.set(drivername=ASYNC_DRIVER, query=query)
    return parts.render_as_string(hide_password=False), other.render_as_string(hide_password=False)


def ensure_database(url: str, database: str) -> None:
    """Create `database` on the server of `url` if it is not there; safe to repeat and to run twice at once.

    Raises RegistryUnavailable, RegistryRefused, or ConfigError when the user may not create databases.
    """
    engine = open_engine(url)
    quoted = engine.dialect.identifier_preparer.quote_identifier(database)
    try:
        with translated(engine.url, f"make the database {database!r}"), engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            for attempt in range(_ATTEMPTS):
                if connection.execute(_FOUND, {"name": database}).first():
                    return
                try:
                    connection.execute(sa.text(f"CREATE DATABASE {quoted}"))
                except exc.DBAPIError as error:
                    if "permission denied" in str(error.orig):
                        message = f"{engine.url.username!r} may not create the database {database!r}"
                        raise ConfigError(message, "Let an administrator create it, owned by that user.") from error
                    if attempt == _ATTEMPTS - 1 or connection.invalidated:
                        raise
                    time.sleep(0.1 * (attempt + 1))  # somebody else is making it, or uses the template just now
    finally:
        engine.dispose()
