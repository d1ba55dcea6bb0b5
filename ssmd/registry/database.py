"""One connection pool to the metadata database, shared by the registry's catalogues; a block is one transaction."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import sqlalchemy as sa

from ssmd.registry import db
from ssmd.registry.bootstrap import unknown_feed
from ssmd.registry.tables import feeds
from ssmd.registry.values import storable


class Database:
    """The metadata database at a `postgresql+psycopg2://` URL; connects when it is first used, safe between threads.

    A callable is asked for the URL at every new connection: a rotated password is used without a restart.
    """

    def __init__(self, url: str | Callable[[], str]) -> None:
        self._engine = db.open_engine(url)
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def transaction(self, doing: str, *, snapshot: bool = False) -> Iterator[sa.Connection]:
        """All or nothing; `doing` completes "cannot …" in errors (RegistryUnavailable, ConfigError, DataError).

        `snapshot`: every statement reads the same state of the database, and nothing can be written.
        """
        engine = self._snapshots if snapshot else self._engine
        with db.translated(engine.url, doing), engine.begin() as connection:
            yield connection

    @contextmanager
    def session(self, doing: str) -> Iterator[sa.Connection]:
        """A connection of its own, each statement a transaction: for what lasts as long as a connection, as locks do.

        It is closed at the end, not given back. Errors of the block pass as they are; for `doing` see `transaction`.
        """
        with db.translated(self._engine.url, doing):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()
        try:
            yield connection
        finally:
            connection.close()

    def translated(self, doing: str) -> AbstractContextManager[None]:
        """Errors of a block of statements in a `session` as `transaction` gives them."""
        return db.translated(self._engine.url, doing)

    def ping(self) -> None:
        """Return when the database answers."""
        with self.transaction("reach the database") as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()


def find_feed(connection: sa.Connection, feed: str, *, lock: bool = False) -> int:
    """The feed's id; `lock` makes other writers wait until this transaction ends. ConfigError when it is unknown."""
    query = sa.select(feeds.c.id).where(feeds.c.name == storable(feed))
    if lock:
        query = query.with_for_update(key_share=True)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise unknown_feed(feed, list(connection.execute(sa.select(feeds.c.name)).scalars()))
    return int(found)
