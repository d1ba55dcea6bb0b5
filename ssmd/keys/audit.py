"""Audit rows on their way to the database: they wait in a file while it is away, and arrive exactly once."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from ssmd.errors import ConfigError, RefusedError
from ssmd.registry.keys import KeyEvent, KeyLedger
from ssmd.telemetry import KEY_AUDIT_LOST

MAX_ACCESS_BYTES = 1 << 20
"""Beyond this much, rows that only say that a key was read are lost, counted and logged."""
MAX_BYTES = 16 << 20
"""Beyond this much, keys are not changed any more: their audit rows would have no place."""

_log = structlog.get_logger()
_decoder = msgspec.json.Decoder(KeyEvent)


class PendingAudit:
    """`SSMD_HOME/keys/{environment}/audit.jsonl`, mode 0600: the rows that the database does not have yet."""

    def __init__(self, home: Path, environment: str) -> None:
        self._path = home / "keys" / environment / "audit.jsonl"
        self._environment = environment

    def reserve(self) -> None:
        """Make sure that a change can be recorded before it is made; RefusedError when the file is full."""
        with self._locked() as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise RefusedError(
                    f"{self._path} is full of audit rows that wait for the database",
                    "Start the database (spec.database.url), then run: ssmd key audit " + self._environment,
                )

    def append(self, events: Sequence[KeyEvent]) -> None:
        """Keep events until they are flushed; they are on disk when this returns."""
        with self._locked() as file:
            self._append(file, events)

    def flush(self, ledger: KeyLedger) -> None:
        """Write everything that waits into the database. Raises what the ledger raises; then all of it still waits."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with self._locked() as file:
            events = self._events(file)
        left = ledger.record(self._environment, events)
        # A crash here leaves rows that are in the database already: it knows them by their id.
        placed = {event.id for event in events} - {event.id for event in left}
        with self._locked() as file:
            remaining = [event for event in self._events(file) if event.id not in placed]
            file.truncate(0)
            self._append(file, remaining)
        if left:
            # Their keys were taken out of the environment file before the database heard of them.
            _log.warning("audit rows of undefined keys wait", file=str(self._path), rows=len(left))

    def waiting(self) -> list[KeyEvent]:
        """The events that wait, in the order in which they were kept."""
        if not self._path.exists():
            return []
        with self._locked() as file:
            return self._events(file)

    def _append(self, file: BinaryIO, events: Sequence[KeyEvent]) -> None:
        size = file.seek(0, os.SEEK_END)
        kept = [event for event in events if event.action != "accessed" or size < MAX_ACCESS_BYTES]
        if len(kept) < len(events):
            KEY_AUDIT_LOST.inc(len(events) - len(kept))
            _log.warning("audit rows lost", file=str(self._path), rows=len(events) - len(kept), reason="full")
        file.write(b"".join(msgspec.json.encode(event) + b"\n" for event in kept))
        file.flush()
        os.fsync(file.fileno())

    def _events(self, file: BinaryIO) -> list[KeyEvent]:
        file.seek(0)
        events, broken = [], 0
        for line in file:
            try:
                events.append(_decoder.decode(line))
            except msgspec.MsgspecError:  # half a line of a crash, or somebody's edit
                broken += 1
        if broken:
            KEY_AUDIT_LOST.inc(broken)
            _log.warning("audit rows unreadable", file=str(self._path), rows=broken)
        return events

    @contextlib.contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, ours alone among all processes of this machine."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot write the audit log {self._path}: {error.strerror}", "Set SSMD_HOME to a writable folder."
            ) from error
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
