"""The progress of a backfill on stderr: a bar on a terminal; in a pipe a line when a date begins and now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Protocol

from ssmd.cli.output import talk

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY_S = 30.0
"""Between two lines about the same date in a pipe."""
MB = 1_000_000


class Shown(Protocol):
    """What is told while a date is worked on."""

    def begin(self, day: date, total: int) -> None:
        """A date of so many bytes of raw objects."""
        ...

    def read(self, count: int) -> None:
        """So many more of them were read."""
        ...

    def compared(self, done: int, total: int) -> None:
        """So many of its normalized objects are in place."""
        ...


class _Lines:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._day = ""
        self._total = self._read = 0
        self._said = 0.0

    def begin(self, day: date, total: int) -> None:
        """See `Shown`."""
        self._day, self._total, self._read, self._said = day.isoformat(), total, 0, self._now()
        talk(f"{day}: {total / MB:,.1f} MB of raw objects")

    def read(self, count: int) -> None:
        """See `Shown`."""
        self._read += count
        self._say(f"{min(self._read / max(self._total, 1), 1):.0%} read")

    def compared(self, done: int, total: int) -> None:
        """See `Shown`."""
        self._say(f"{done:,} of {total:,} objects in place")

    def _say(self, what: str) -> None:
        if self._now() - self._said >= EVERY_S:
            self._said = self._now()
            talk(f"{self._day}: {what}")


class _Bars:
    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._day = ""
        self._writing = False

    def begin(self, day: date, total: int) -> None:
        """See `Shown`."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._day, self._writing = day.isoformat(), False
        self._task = self._bars.add_task(f"{self._day} reading", total=total)

    def read(self, count: int) -> None:
        """See `Shown`."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    def compared(self, done: int, total: int) -> None:
        """See `Shown`."""
        if self._task is None:
            return
        if not self._writing:
            self._writing = True
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(f"{self._day} writing objects", total=total)
        self._bars.update(self._task, completed=done, total=total)


@contextmanager
def backfill_progress() -> Iterator[Shown]:
    """What to tell; the bar is gone when the block ends."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)
