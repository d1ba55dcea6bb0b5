"""`SSMD_HOME/run/days.json`: which day each running program works for, and which one was announced to it."""

import contextlib
import fcntl
import time
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path

import msgspec

from ssmd.errors import ConfigError, RefusedError

LOCK_WAIT_S = 60.0


class DayOf(msgspec.Struct, frozen=True, kw_only=True):
    """One program's day. `next`: the day that was started while it runs for an earlier one; it stays as that day's."""

    day: date
    since: datetime
    by: str
    next: date | None = None

    @property
    def latest(self) -> date:
        """The last day that it was started for."""
        return self.next or self.day


class Record(msgspec.Struct, frozen=True):
    """The whole file. `stack` is the mark of the stack it speaks of; `slots` the program each service ran as last."""

    stack: str
    programs: dict[str, DayOf] = {}
    slots: dict[str, str] = {}


class Days:
    """The record of one stack; what an earlier stack left is not believed."""

    def __init__(self, run: Path, stack: str) -> None:
        self._run = run
        self._path = run / "days.json"
        self._stack = stack

    def read(self) -> Record:
        """What is recorded; an empty record when nothing is, or when it is of another stack."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record(self._stack)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(
                f"cannot read {self._path}, which says what runs for which day: {error}",
                f"Remove it: each program then counts as one of the day it was started on. Run: rm {self._path}",
            ) from error
        return found if found.stack == self._stack else Record(self._stack, slots=found.slots)

    def note(self, program: str, day: DayOf) -> None:
        """Record a program's day."""
        record = self.read()
        self._write(Record(self._stack, record.programs | {program: day}, record.slots))

    def note_slot(self, service: str, program: str) -> None:
        """The service does its job as this program."""
        record = self.read()
        if record.slots.get(service) != program:
            self._write(Record(self._stack, record.programs, record.slots | {service: program}))

    def forget(self, program: str) -> None:
        """The program was stopped."""
        record = self.read()
        kept: Mapping[str, DayOf] = {name: day for name, day in record.programs.items() if name != program}
        self._write(Record(self._stack, dict(kept), record.slots))

    @contextlib.contextmanager
    def locked(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """One operation at a time; RefusedError when another one still works after `wait_s`."""
        with (self._run / "ops.lock").open("w") as file:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise RefusedError(
                            f"another `ssmd ops` has been at work in {self._run.parent} for more than {wait_s:.0f} s",
                            "See what it does: ssmd ops status. Then run this again.",
                        ) from error
                    time.sleep(0.1)
            yield

    def _write(self, record: Record) -> None:
        aside = self._path.with_suffix(".tmp")
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
        aside.replace(self._path)
