"""A database of another program beside ssmd's own, on the same PostgreSQL server."""

import sqlalchemy as sa
from sqlalchemy import exc

from ssmd.registry.db import open_engine, parse, translated

ASYNC_DRIVER = "postgresql+asyncpg"


def neighbour_urls(url: str, database: str) -> tuple[str, str]:
    """The URLs of `database` on the server of `url`: for psycopg2, and for asyncpg, which spells `sslmode` as `ssl`."""
    parts = parse(url).set(database=database)
    query = {{"sslmode": "ssl"}.get(name, name): value for name, value in parts.query.items()}
    other = parts.set(drivername=ASYNC_DRIVER, query=query)
    return parts.render_as_string(hide_password=False), other.render_as_string(hide_password=False)


def ensure_database(url: str, database: str) -> None:
    """Create `database` on the server of `url` if it is not there; safe to repeat and to run twice at once.

    Raises RegistryUnavailable or RegistryRefused.
    """
    engine = open_engine(url)
    try:
        with translated(engine.url, f"make the database {database!r}"), engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            found = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.execute(found, {"name": database}).first():
                return
            quoted = engine.dialect.identifier_preparer.quote_identifier(database)
            try:
                connection.execute(sa.text(f"CREATE DATABASE {quoted}"))
            except exc.ProgrammingError:  # somebody else was quicker, or it is not allowed
                if not connection.execute(found, {"name": database}).first():
                    raise
    finally:
        engine.dispose()
