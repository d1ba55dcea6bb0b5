"""What a running service does about its keys beside its work: audit rows of what it read, and when each key expires."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import structlog

from ssmd.config.environment import Environment
from ssmd.errors import SsmdError
from ssmd.keys.audit import PendingAudit
from ssmd.keys.state import KeyState, key_states
from ssmd.keys.stores import Store
from ssmd.registry.keys import KeyEvent, KeyLedger, RecordedKey
from ssmd.telemetry import KEY_AUDIT_LOST, KEY_EXPIRES_IN_DAYS

EVERY_S = 60.0
SOON_S = 0.5
"""Fields of one key are read one after the other: they are waited for, and become one row."""
CLOSE_S = 3.0
MAX_WAITING = 1_000

OpenLedger = Callable[[], AbstractContextManager[KeyLedger]]

_log = structlog.get_logger()


class KeyWatch:
    """One thread beside a service. `ledger` is None for an environment without a database: then rows stay in the file.

    The service never waits for it: `accessed` only takes a note.
    """

    def __init__(
        self, actor: str, environment: Environment, stores: Sequence[Store], pending: PendingAudit,
        ledger: OpenLedger | None,
    ) -> None:  # fmt: skip
        self._actor = actor
        self._environment = environment
        self._stores = stores
        self._pending = pending
        self._ledger = ledger
        self._lock = threading.Lock()
        self._seen: list[tuple[str, str, str]] = []
        self._unwritten: list[KeyEvent] = []
        self._recorded: Mapping[str, RecordedKey] = {}
        self._trouble = ""
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="keys", daemon=True)

    def accessed(self, key: str, field: str, store: str) -> None:
        """A value was read for the first time, or has changed."""
        with self._lock:
            self._seen.append((key, field, store))
            over = len(self._seen) - MAX_WAITING
            del self._seen[: max(over, 0)]
        if over > 0:
            KEY_AUDIT_LOST.inc(over)
        self._wake.set()

    def start(self) -> None:
        """Show when the keys expire, and go on doing so."""
        self._observe()
        self._thread.start()

    def close(self) -> None:
        """Write what was read until now, within seconds; what the database does not get waits in the file."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        self._keep()

    def _work(self) -> None:
        while not self._ended.is_set():
            self._ended.wait(SOON_S)
            self._wake.clear()
            self._keep()
            self._report()
            self._observe()
            self._wake.wait(EVERY_S)

    def _keep(self) -> None:
        """Notes become rows in the file, one per key and store."""
        with self._lock:
            seen, self._seen = self._seen, []
            by_place: dict[tuple[str, str], list[str]] = {}
            for key, field, store in seen:
                by_place.setdefault((key, store), []).append(field)
            now = datetime.now(UTC)
            self._unwritten += [
                KeyEvent(
                    key=key, action="accessed", actor=self._actor, at=now,
                    details={"fields": sorted(set(fields)), "store": store},
                )
                for (key, store), fields in by_place.items()
            ]  # fmt: skip
            if not self._unwritten:
                return
            try:
                self._pending.append(self._unwritten)
                self._unwritten = []
            except (SsmdError, OSError) as error:  # a full or read-only disk must not end the thread
                over = max(len(self._unwritten) - MAX_WAITING, 0)
                del self._unwritten[:over]
                KEY_AUDIT_LOST.inc(over)
                _log.warning("audit rows not kept", error=str(error), waiting=len(self._unwritten), lost=over)

    def _report(self) -> None:
        """Hand the rows to the database and hear when keys were last set; a failure is told once and tried again."""
        if self._ledger is None:
            return
        name = self._environment.name
        try:
            with self._ledger() as ledger:
                ledger.declare(name, self._environment.spec.keys)
                self._pending.flush(ledger)
                ledger.expire(name, datetime.now(UTC))
                ledger.found(name, [state.name for state in self._states() if state.status == "set"])
                self._recorded = ledger.recorded(name)
            self._trouble = ""
        except (SsmdError, OSError) as error:
            if self._trouble != str(error):
                _log.warning("key ledger away, audit rows wait", error=str(error).partition("\n")[0])
            self._trouble = str(error)

    def _states(self) -> list[KeyState]:
        recorded = self._recorded
        rotated = {name: key.last_rotated for name, key in recorded.items() if key.last_rotated is not None}
        sealed = {name: key.sealed_secret_ref for name, key in recorded.items() if key.sealed_secret_ref is not None}
        return key_states(self._environment, self._stores, rotated, datetime.now(UTC), sealed)

    def _observe(self) -> None:
        """Bring the gauge up to date."""
        now = datetime.now(UTC)
        for state in self._states():
            labels = (self._environment.name, state.name)
            if state.expires_at is not None:
                KEY_EXPIRES_IN_DAYS.labels(*labels).set((state.expires_at - now) / timedelta(days=1))
            else:
                KEY_EXPIRES_IN_DAYS.remove(*labels)
