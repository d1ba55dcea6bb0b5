"""Which dates of a range an interrupted run has done, so that the next one goes on where it was."""

import contextlib
import os
import time
from datetime import date
from pathlib import Path

import msgspec
import structlog

MAX_AGE_S = 86_400.0
"""After a day nobody remembers the interrupted run: all dates are done again."""

log = structlog.get_logger(component="backfill")


class Resume:
    """The record of a run in the file `path`: written after each date, removed at the end.

    Of a date it keeps the fingerprints of the raw archive that was read and of what was made of it; a date of which
    either is another one now is done again. A record that cannot be read or written costs time, nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, tuple[str, str]] = {}
        try:
            if time.time() - path.stat().st_mtime <= MAX_AGE_S:
                self._done = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[str, str]])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            log.warning("record of the interrupted run unreadable", path=str(path), error=str(error))

    def has(self, day: date, raw: str, made: str) -> bool:
        """Was the date done from this raw archive, and is what was made of it still there?"""
        return self._done.get(day.isoformat()) == (raw, made)

    def done(self, day: date, raw: str, made: str) -> None:
        """The date is done: from this raw archive, with this result."""
        self._done[day.isoformat()] = raw, made
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(msgspec.json.encode(self._done))
            os.replace(aside, self._path)
        except OSError as error:
            log.warning("record of the run not written", path=str(self._path), error=str(error))

    def end(self) -> None:
        """All dates were tried: the next run of this range begins anew."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
