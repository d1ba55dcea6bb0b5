"""One job at a time on a feed's day: through the database, or a file below SSMD_HOME where there is no database."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from ssmd.cli.opening import database_of
from ssmd.cli.options import Chosen
from ssmd.errors import ConfigError, RefusedError
from ssmd.market.subjects import check_feed


@contextmanager
def day_lock(chosen: Chosen, feed: str, day: date, job: str, *, shared: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the day for `job` as `registry.day_locks.DayLocks.hold` does: a kill frees it, a second job is refused."""
    if chosen.environment.spec.database_url is None:
        path = chosen.home / "run" / f"day-{chosen.environment.name}-{check_feed(feed)}-{day.isoformat()}.lock"
        with _file_lock(path, f"{day} of {feed}", shared):
            yield lambda: None
        return
    from ssmd.registry.day_locks import DayLocks

    with database_of(chosen) as database, DayLocks(database).hold(feed, day, job, shared=shared) as check:
        yield check


@contextmanager
def _file_lock(path: Path, what: str, shared: bool) -> Iterator[None]:
    """The file stays, empty: whoever removed it could let two in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ConfigError(
            f"cannot make the lock {path}: {error.strerror}", "Set SSMD_HOME to a folder of yours."
        ) from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(f"{what} is being worked on", "Wait for it to end, then run this again.") from error
        yield
