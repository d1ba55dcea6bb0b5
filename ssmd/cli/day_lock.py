"""One job at a time on a feed's day: through the database, or a file below SSMD_HOME where there is no database."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from ssmd.cli.opening import database_of
from ssmd.cli.options import Chosen
from ssmd.cli.output import talk
from ssmd.errors import Busy, ConfigError
from ssmd.market.subjects import check_feed

WAIT = "SSMD_BUSY_WAIT_S"
"""Environment variable: seconds to wait for a day that another job works on. Schedulers set it; without it, none."""
PAUSE_S = 30.0
"""Seconds between two looks at a busy day."""


@contextmanager
def day_lock(chosen: Chosen, feed: str, day: date, job: str, *, shared: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the day for `job` as `registry.day_locks.DayLocks.hold` does: a kill frees it, a second job is refused.

    Busy when another job has it for longer than `SSMD_BUSY_WAIT_S`; each look meanwhile is said on stderr. A person is
    told at once, for they can decide what to do.
    """
    with ExitStack() as stack:
        yield _in_turn(lambda: stack.enter_context(_locked(chosen, feed, day, job, shared)))


def _in_turn(take: Callable[[], Callable[[], None]]) -> Callable[[], None]:
    """What `take` gives, once it is not Busy."""
    until = time.monotonic() + _patience_s()
    while True:
        try:
            return take()
        except Busy as busy:
            if (left := until - time.monotonic()) <= 0:
                raise
            talk(f"{busy.message}; waiting for it, {left / 60:.0f} min at most")
            time.sleep(min(PAUSE_S, left))


def _patience_s() -> float:
    said = os.environ.get(WAIT) or "0"
    if not said.isdecimal() or len(said) > 9:
        raise ConfigError(f"{WAIT} is {said[:80]!r}, no number of seconds", f"Run: unset {WAIT}")
    return float(said)


@contextmanager
def _locked(chosen: Chosen, feed: str, day: date, job: str, shared: bool) -> Iterator[Callable[[], None]]:
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
            raise Busy(f"{what} is being worked on", "Wait for it to end, then run this again.") from error
        yield
