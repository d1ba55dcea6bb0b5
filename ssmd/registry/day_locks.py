"""One job at a time on a feed's day: locks that the database frees when their holder dies, however it dies."""

import os
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

import sqlalchemy as sa

from ssmd.errors import Busy
from ssmd.registry.database import Database
from ssmd.registry.values import printable

_NAME_BYTES = 63  # what PostgreSQL keeps of an application's name
_SAY = sa.text("SELECT set_config('application_name', :name, false)")
_ALONE = sa.text("SELECT pg_try_advisory_lock(CAST(:feed AS integer), CAST(:day AS integer))")
_SHARED = sa.text("SELECT pg_try_advisory_lock_shared(CAST(:feed AS integer), CAST(:day AS integer))")
_HOLDER = sa.text(
    "SELECT a.application_name AS name, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS since "
    "FROM pg_locks l "
    "JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.classid = CAST(:feed AS bigint) AND l.objid = CAST(:day AS bigint) ORDER BY a.backend_start LIMIT 1"
)


class DayLocks:
    """The locks of all feeds' days; each is a connection's own, so a killed process leaves none behind."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def hold(self, feed: str, day: date, job: str, *, shared: bool = False) -> Iterator[Callable[[], None]]:
        """Hold a day's lock for `job` (one word); Busy, naming the holder, when another job has it.

        Any number of `shared` holders (those who only read) go together; a writer goes alone. What is yielded raises
        RegistryUnavailable when the lock was lost with its connection: ask it before anything is replaced.
        """
        words = {"feed": zlib.crc32(feed.encode("utf-8", "replace")) >> 1, "day": day.toordinal()}
        doing = f"lock {day} of {printable(feed, 40)}"
        with self._database.session(doing) as connection:
            with self._database.translated(doing):
                connection.execute(
                    _SAY, {"name": f"ssmd {job} on {socket.gethostname()} ({os.getpid()})"[:_NAME_BYTES]}
                )
                if not connection.execute(_SHARED if shared else _ALONE, words).scalar_one():
                    raise _taken(feed, day, connection.execute(_HOLDER, words).mappings().one_or_none())

            def check() -> None:
                with self._database.translated(f"go on with {day}: its lock"):
                    connection.execute(sa.text("SELECT 1"))

            yield check


def _taken(feed: str, day: date, holder: Mapping[Any, Any] | None) -> Busy:
    by = "" if holder is None else f": {printable(str(holder['name']), 80)}, since {holder['since']} UTC"
    return Busy(f"{day} of {feed} is being worked on{by}", "Wait for it to end, then run this again.")
