"""Audit rows on their way to the database: they wait in a file while it is away, and arrive exactly once."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID, uuid4

import msgspec
import structlog

from ssmd.errors import ConfigError, RefusedError, SsmdError
from ssmd.keys.stores import LocalStore, write_private
from ssmd.registry.keys import ATTEMPTED, OUTCOME, KeyEvent, KeyLedger
from ssmd.telemetry import KEY_AUDIT_LOST

MAX_ACCESS_BYTES = 1 << 20
"""Beyond this much, rows that only say that a key was read are lost, counted and logged."""
MAX_BYTES = 16 << 20
"""Beyond this much, keys are not changed any more: their audit rows would have no place."""

_log = structlog.get_logger()
_decoder = msgspec.json.Decoder(KeyEvent)

_State: TypeAlias = Literal["done", "intended", "dropped"]


class _Kept(NamedTuple):
    """A line of the file; of several with one id, the last one counts."""

    event: KeyEvent
    state: _State


class _Mark(msgspec.Struct):
    state: _State = "done"


_mark = msgspec.json.Decoder(_Mark)


class PendingAudit:
    """`SSMD_HOME/keys/{environment}/audit.jsonl`, mode 0600: the rows that the database does not have yet."""

    def __init__(self, home: Path, environment: str) -> None:
        self._path = home / "keys" / environment / "audit.jsonl"
        self._environment = environment
        self._store = LocalStore(home, environment)
        self._told_broken: set[bytes] = set()
        self._told_left: set[UUID] = set()

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
            self._add([_Kept(event, "done") for event in kept])

    @contextlib.contextmanager
    def change(self, event: KeyEvent) -> Iterator[None]:
        """Keep `event` as intended, make the change (the block), keep it as done; one change at a time.

        Whoever is killed in between leaves the intention, and the next to read the file looks what became of it: what
        the local store has changed is done, anything else an attempt. An error of the block is looked at likewise, and
        leaves nothing where nothing was changed.
        """
        with self._changing():
            with self._locked():
                self._add([_Kept(event, "intended")])
            try:
                yield
            except BaseException:
                self._settle(_Kept(event, "dropped"), self._proved(event))
                raise
            self._settle(_Kept(event, "done"))

    def _settle(self, outcome: _Kept, proved: KeyEvent | None = None) -> None:
        try:
            with self._locked():
                self._add([_Kept(proved, "done") if proved else outcome])
        except SsmdError as error:  # the intention is on disk, and is looked at later
            _log.warning("audit row not settled", file=str(self._path), error=error.message)

    def _recover(self) -> None:
        """Settle the intentions of processes that are gone."""
        with self._changing(wait=False) as alone:
            if not alone:
                return
            with self._locked():
                for event in [kept.event for kept in self._entries() if kept.state == "intended"]:
                    proved = self._proved(event)
                    tried = {**event.details, OUTCOME: ATTEMPTED}
                    attempt = msgspec.structs.replace(event, id=uuid4(), details=tried)
                    settled = _Kept(proved, "done") if proved else _Kept(event, "dropped")
                    self._add([settled] if proved else [_Kept(attempt, "done"), settled])
                    _log.warning("key change interrupted", key=event.key, action=event.action, done=proved is not None)

    def _proved(self, event: KeyEvent) -> KeyEvent | None:
        """`event` with what the local store shows of it; None when it shows nothing."""
        fields = event.details.get("fields") or []
        if event.details.get("sealed_secret_ref") or isinstance(fields, str):
            return None
        try:
            times = {field: self._store.set_at(event.key, field) for field in fields}
        except ConfigError:  # it cannot be read now
            return None
        absent = [field for field, at in times.items() if at is None]
        if event.action == "deleted":
            return msgspec.structs.replace(event, details={"fields": absent}) if absent else None
        done = [field for field, at in times.items() if _since(at, event.at)]
        missing = sorted({*event.details.get("missing", ()), *absent})
        details = event.details | {"fields": done} | ({"missing": missing} if missing else {})
        return msgspec.structs.replace(event, details=details) if done else None

    def flush(self, ledger: KeyLedger) -> None:
        """Write everything that waits into the database. Raises what the ledger raises; then all of it still waits."""
        if not self._size():
            return
        events = self.waiting()
        if not events:
            return
        left = ledger.record(self._environment, events)
        # A crash here leaves rows that are in the database already: it knows them by their id.
        placed = {event.id for event in events} - {event.id for event in left}
        if placed:
            with self._locked():
                waiting = [kept for kept in self._entries() if kept.event.id not in placed and kept.state != "dropped"]
                write_private({self._path: _lines(waiting)})
        if {event.id for event in left} - self._told_left:
            # Their keys were taken out of the environment file before the database heard of them.
            _log.warning("audit rows of undefined keys wait", file=str(self._path), rows=len(left))
        self._told_left = {event.id for event in left}

    def waiting(self) -> list[KeyEvent]:
        """The events that wait, in the order in which they were kept; a change that is being made is none yet."""
        entries = self._look()
        if any(kept.state == "intended" for kept in entries):
            self._recover()
            entries = self._look()
        return [kept.event for kept in entries if kept.state == "done"]

    def _look(self) -> list[_Kept]:
        if not self._size():
            return []
        with self._locked():
            return self._entries()

    def _add(self, lines: Sequence[_Kept]) -> None:
        """Lines at the end of the file, on disk when this returns; the caller has locked it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # a crash while a line was written
            file.write(b"\n" * torn + _lines(lines))
            file.flush()
            os.fsync(descriptor)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:  # not there yet; what else is wrong shows when it is opened
            return 0

    def _entries(self) -> list[_Kept]:
        found: dict[UUID, _Kept] = {}
        broken: set[bytes] = set()
        for line in self._path.read_bytes().splitlines() if self._path.exists() else []:
            try:
                event = _decoder.decode(line)
                found[event.id] = _Kept(event, _mark.decode(line).state)
            except msgspec.MsgspecError:  # half a line of a crash, or somebody's edit
                if line:
                    broken.add(line)
        if news := broken - self._told_broken:
            KEY_AUDIT_LOST.inc(len(news))
            _log.warning("audit rows unreadable", file=str(self._path), rows=len(news))
            self._told_broken |= news
        return list(found.values())

    @contextlib.contextmanager
    def _changing(self, *, wait: bool = True) -> Iterator[bool]:
        """One change at a time, over all processes; False when somebody is at it and we do not wait."""
        path = self._path.with_name(".changing")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

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
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"cannot write the audit log {self._path}: {error.strerror}", "Set SSMD_HOME to a writable folder."
        )


def _since(at: datetime | None, then: datetime) -> bool:
    return at is not None and at >= then


def _lines(kept: Sequence[_Kept]) -> bytes:
    lines = (event if state == "done" else {**msgspec.to_builtins(event), "state": state} for event, state in kept)
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
