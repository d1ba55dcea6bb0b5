"""Audit rows wait in a private file while the database is away, within bounds, and are read back whole."""

import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ssmd.errors import ConfigError, RefusedError
from ssmd.keys import audit
from ssmd.keys.audit import PendingAudit
from ssmd.registry.keys import Action, KeyEvent
from ssmd.telemetry import METRICS


def event(number: int = 0, action: Action = "rotated") -> KeyEvent:
    return KeyEvent(key="kalshi", action=action, actor="cli:a@b", at=datetime.now(UTC), details={"n": str(number)})


def test_what_waits_is_there_again_in_order_and_private(tmp_path: Path) -> None:
    pending = PendingAudit(tmp_path, "prod")
    assert pending.waiting() == []
    first, second = event(1), event(2)
    pending.append([first])
    PendingAudit(tmp_path, "prod").append([second])
    assert pending.waiting() == [first, second]
    file = tmp_path / "keys" / "prod" / "audit.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def write() -> None:
        for number in range(20):
            PendingAudit(tmp_path, "prod").append([event(number)])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.id for one in PendingAudit(tmp_path, "prod").waiting()}) == 80


def test_a_torn_line_costs_itself_only_and_is_told(tmp_path: Path) -> None:
    pending = PendingAudit(tmp_path, "prod")
    kept = event()
    pending.append([kept])
    with (tmp_path / "keys" / "prod" / "audit.jsonl").open("ab") as file:
        file.write(b'{"key":"kal')
    later = event(2)
    pending.append([later])
    with capture_logs() as logs:
        assert pending.waiting() == [kept, later]
        counted = METRICS.get_sample_value("ssmd_key_audit_rows_lost_total")
        assert pending.waiting() == [kept, later]
    assert [(line["event"], line["rows"]) for line in logs] == [("audit rows unreadable", 1)]
    assert METRICS.get_sample_value("ssmd_key_audit_rows_lost_total") == counted


def test_an_intention_is_nothing_while_the_change_is_made_and_done_afterwards(tmp_path: Path) -> None:
    pending, other = PendingAudit(tmp_path, "prod"), PendingAudit(tmp_path, "prod")
    mine = event()
    with pending.change(mine):
        assert other.waiting() == []
    assert other.waiting() == [mine]
    with pytest.raises(ZeroDivisionError), pending.change(event(2)):
        raise ZeroDivisionError
    assert other.waiting() == [mine]


def test_a_full_file_loses_reads_loudly_and_refuses_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_ACCESS_BYTES", 400)
    monkeypatch.setattr(audit, "MAX_BYTES", 2_000)
    pending = PendingAudit(tmp_path, "prod")
    with capture_logs() as logs:
        for number in range(12):
            pending.append([event(number, "accessed"), event(number, "rotated")])
    actions = [one.action for one in pending.waiting()]
    assert actions.count("rotated") == 12
    assert 0 < actions.count("accessed") < 12
    assert sum(line["rows"] for line in logs) == 12 - actions.count("accessed")
    with pytest.raises(RefusedError, match="full of audit rows"):
        pending.reserve()


def test_a_home_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file in the way")
    with pytest.raises(ConfigError, match="cannot write the audit log"):
        PendingAudit(tmp_path, "prod").append([event()])
