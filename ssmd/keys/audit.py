"""Audit rows on their way to the database: they wait in a file while it is away, and arrive exactly once."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from ssmd.errors import ConfigError, RefusedError
from ssmd.keys.stores import write_private
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
        with self._locked():
            if self._size() > MAX_BYTES:
                raise RefusedError(
                    f"{self._path} is full of audit rows that wait for the database",
                    "Start the database (spec.database.url), then run: ssmd key audit " + self._environment,
                )

    def append(self, events: Sequence[KeyEvent]) -> None:
        """Keep events until they are flushed; they are on disk when this returns."""
        with self._locked():
            full = self._size() >= MAX_ACCESS_BYTES
            kept = [event for event in events if event.action != "accessed" or not full]
            if len(kept) < len(events):
                KEY_AUDIT_LOST.inc(len(events) - len(kept))
                _log.warning("audit rows lost", file=str(self._path), rows=len(events) - len(kept), reason="full")
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a crash while a line was written
                file.write(b"\n" * torn + _lines(kept))
                file.flush()
                os.fsync(descriptor)

    def flush(self, ledger: KeyLedger) -> None:
        """Write everything that waits into the database. Raises what the ledger raises; then all of it still waits."""
        if not self._size():
            return
        events = self.waiting()
        left = ledger.record(self._environment, events)
        # A crash here leaves rows that are in the database already: it knows them by their id.
        placed = {event.id for event in events} - {event.id for event in left}
        with self._locked():
            write_private({self._path: _lines([event for event in self._events() if event.id not in placed])})
        if left:
            # Their keys were taken out of the environment file before the database heard of them.
            _log.warning("audit rows of undefined keys wait", file=str(self._path), rows=len(left))

    def waiting(self) -> list[KeyEvent]:
        """The events that wait, in the order in which they were kept."""
        if not self._size():
            return []
        with self._locked():
            return self._events()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:  # not there yet; what else is wrong shows when it is opened
            return 0

    def _events(self) -> list[KeyEvent]:
        events, broken = [], 0
        for line in self._path.read_bytes().splitlines() if self._path.exists() else []:
            try:
                events.append(_decoder.decode(line))
            except msgspec.MsgspecError:  # half a line of a crash, or somebody's edit
                broken += 1
        if broken:
            KEY_AUDIT_LOST.inc(broken)
            _log.warning("audit rows unreadable", file=str(self._path), rows=broken)
        return events

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The folder, ours alone among all processes of this machine."""
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(
                f"cannot write the audit log {self._path}: {error.strerror}", "Set SSMD_HOME to a writable folder."
            ) from error


def _lines(events: Sequence[KeyEvent]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)
