"""What a service does about its keys beside its work: one audit row per value seen, and days until each expires."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ssmd.errors import Unavailable
from ssmd.keys import watch
from ssmd.keys.audit import PendingAudit
from ssmd.keys.resolver import Resolver
from ssmd.keys.secret import SecretValue
from ssmd.keys.stores import EnvironmentStore, LocalStore
from ssmd.keys.watch import KeyWatch
from ssmd.registry.keys import KeyLedger
from ssmd.telemetry import METRICS
from tests.unit.keys.test_state import environment


def away() -> AbstractContextManager[KeyLedger]:
    raise Unavailable("cannot reach the database", "Start it.")


def waits_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rows_wait(pending: PendingAudit, number: int) -> bool:
    return len(pending.waiting()) == number


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SOON_S", 0.02)


def test_each_value_is_one_row_per_key_and_not_one_per_read(tmp_path: Path) -> None:
    pending, store = PendingAudit(tmp_path, "prod"), LocalStore(tmp_path, "prod")
    store.write("kalshi", {"api_key": SecretValue("hunter2"), "api_secret": SecretValue("s")})
    watching = KeyWatch("system:connector", environment(), [store], pending, None)
    resolver = Resolver([store], environment().spec.keys, on_access=watching.accessed)
    watching.start()
    for _ in range(5):
        resolver.resolve("kalshi", "api_key")
        resolver.resolve("kalshi", "api_secret")
    waits_for(pending.waiting)
    store.write("kalshi", {"api_key": SecretValue("hunter3")})
    resolver.resolve("kalshi", "api_key")
    watching.close()
    rows = pending.waiting()
    assert [(row.action, row.actor, row.key) for row in rows] == [("accessed", "system:connector", "kalshi")] * 2
    assert [row.details for row in rows] == [
        {"fields": ["api_key", "api_secret"], "store": "local store"},
        {"fields": ["api_key"], "store": "local store"},
    ]
    assert b"hunter" not in (tmp_path / "keys" / "prod" / "audit.jsonl").read_bytes()


def test_the_days_until_a_key_expires_are_a_metric(tmp_path: Path) -> None:
    def days() -> float | None:
        return METRICS.get_sample_value("ssmd_key_expires_in_days", {"environment": "prod", "key_name": "kalshi"})

    store = LocalStore(tmp_path, "prod")
    watching = KeyWatch("system:x", environment(), [store], PendingAudit(tmp_path, "prod"), None)
    watching.start()
    assert days() is None
    store.write("kalshi", {"api_key": SecretValue("a"), "api_secret": SecretValue("b")})
    watching.accessed("kalshi", "api_key", "local store")
    waits_for(days)
    watching.close()
    found = days()
    assert found is not None
    assert 89.9 < found <= 90
    nats = {"environment": "prod", "key_name": "nats"}
    assert METRICS.get_sample_value("ssmd_key_expires_in_days", nats) is None


def test_rows_wait_while_the_database_is_away_and_it_is_told_once(tmp_path: Path) -> None:
    pending = PendingAudit(tmp_path, "prod")
    watching = KeyWatch("system:x", environment(), [EnvironmentStore({})], pending, away)
    with capture_logs() as logs:
        watching.start()
        for number in range(3):
            watching.accessed("kalshi", "api_key", f"store {number}")
            waits_for(partial(rows_wait, pending, number + 1))
        watching.close()
    assert len(pending.waiting()) == 3
    assert [line["event"] for line in logs] == ["key ledger away, audit rows wait"]


def test_a_home_that_cannot_be_written_costs_the_oldest_notes_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_WAITING", 2)
    (tmp_path / "keys").write_text("in the way")
    watching = KeyWatch("system:x", environment(), [], PendingAudit(tmp_path, "prod"), None)
    before = METRICS.get_sample_value("ssmd_key_audit_rows_lost_total") or 0.0
    with capture_logs() as logs:
        for number in range(5):
            watching.accessed("kalshi", "api_key", f"store {number}")
            watching.close()
    assert METRICS.get_sample_value("ssmd_key_audit_rows_lost_total") == before + 3
    assert logs[-1]["event"] == "audit rows not kept"
    (tmp_path / "keys").unlink()
    watching.close()
    kept = PendingAudit(tmp_path, "prod").waiting()
    assert [row.details["store"] for row in kept] == ["store 3", "store 4"]
    assert all(abs(row.at - datetime.now(UTC)) < timedelta(minutes=1) for row in kept)
