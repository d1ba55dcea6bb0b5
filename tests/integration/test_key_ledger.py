"""The ledger of keys in a real PostgreSQL: each event once, and every key as its log says."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from ssmd.config.environment import KeyDefinition
from ssmd.errors import DataError
from ssmd.keys.audit import PendingAudit
from ssmd.registry.database import Database
from ssmd.registry.interface import RegistryUnavailable
from ssmd.registry.keys import Action, KeyEvent, KeyLedger
from tests.servers import free_port

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0)
KEYS = {
    "kalshi": KeyDefinition(type="api_key", fields=("api_key", "api_secret"), rotation_days=90),
    "nats": KeyDefinition(type="transport", fields=("username", "password"), required=False),
}


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[KeyLedger]:
    database = Database(postgres_url)
    yield KeyLedger(database)
    database.close()


@pytest.fixture
def name(ledger: KeyLedger) -> str:
    made = f"e{uuid4().hex[:12]}"
    ledger.declare(made, KEYS)
    return made


def event(action: Action, at: datetime = NOW, key: str = "kalshi", **details: str | list[str]) -> KeyEvent:
    return KeyEvent(key=key, action=action, actor="cli:me@here", at=at, details=details)


def test_declared_keys_are_known_and_not_set(ledger: KeyLedger, name: str) -> None:
    found = ledger.recorded(name)
    assert {key: (row.status, row.last_rotated) for key, row in found.items()} == {
        "kalshi": ("not_set", None), "nats": ("not_set", None),
    }  # fmt: skip
    assert ledger.recorded("unknown") == {}
    ledger.declare(name, {**KEYS, "hook": KeyDefinition(type="webhook", fields=("token",))})
    assert set(ledger.recorded(name)) == {"kalshi", "nats", "hook"}


def test_a_key_stands_as_the_latest_change_left_it_whatever_came_first(ledger: KeyLedger, name: str) -> None:
    ledger.record(name, [event("rotated", NOW)])
    ledger.record(name, [event("created", NOW - timedelta(days=9)), event("accessed", NOW + timedelta(days=1))])
    row = ledger.recorded(name)["kalshi"]
    assert (row.status, row.last_rotated, row.expires_at) == ("set", NOW, NOW + timedelta(days=90))
    assert ledger.rotations(name) == {"kalshi": NOW}
    ledger.record(name, [event("deleted", NOW + timedelta(hours=1))])
    row = ledger.recorded(name)["kalshi"]
    assert (row.status, row.last_rotated, row.expires_at, row.sealed_secret_ref) == ("not_set", None, None, None)
    ledger.record(name, [event("sealed", NOW + timedelta(hours=2), sealed_secret_ref="ssmd/e-kalshi")])
    assert ledger.recorded(name)["kalshi"].sealed_secret_ref == "ssmd/e-kalshi"


def test_an_attempt_is_in_the_log_and_changes_nothing(ledger: KeyLedger, name: str) -> None:
    ledger.record(name, [event("rotated", outcome="attempted")])
    assert ledger.recorded(name)["kalshi"].status == "not_set"
    ledger.record(name, [event("created", NOW - timedelta(days=1)), event("deleted", outcome="attempted")])
    assert ledger.recorded(name)["kalshi"].last_rotated == NOW - timedelta(days=1)
    assert len(ledger.audit(name, "kalshi", 10)) == 3


def test_a_key_that_was_set_in_part_is_not_set(ledger: KeyLedger, name: str) -> None:
    ledger.record(name, [event("created", missing=["api_secret"])])
    assert ledger.recorded(name)["kalshi"].status == "not_set"


def test_an_old_key_has_expired_and_another_expires_in_time(ledger: KeyLedger, name: str) -> None:
    ledger.record(name, [event("created", NOW - timedelta(days=91))])
    assert ledger.recorded(name)["kalshi"].status == "expired"
    ledger.record(name, [event("rotated", NOW - timedelta(days=1))])
    assert ledger.recorded(name)["kalshi"].status == "set"
    ledger.expire(name, NOW + timedelta(days=88))
    assert ledger.recorded(name)["kalshi"].status == "set"
    ledger.expire(name, NOW + timedelta(days=89))
    assert ledger.recorded(name)["kalshi"].status == "expired"


def test_what_a_service_found_is_set(ledger: KeyLedger, name: str) -> None:
    ledger.found(name, ["nats"])
    assert ledger.recorded(name)["nats"].status == "set"
    assert ledger.recorded(name)["kalshi"].status == "not_set"


def test_the_log_is_newest_first_and_bounded(ledger: KeyLedger, name: str) -> None:
    ledger.record(name, [event("created"), event("accessed", NOW + timedelta(seconds=1), fields=["api_key"])])
    ledger.record(name, [event("created", NOW + timedelta(seconds=2), key="nats")])
    assert [(row.key, row.action) for row in ledger.audit(name, None, 10)] == [
        ("nats", "created"), ("kalshi", "accessed"), ("kalshi", "created"),
    ]  # fmt: skip
    assert [row.details for row in ledger.audit(name, "kalshi", 1)] == [{"fields": ["api_key"]}]
    assert ledger.audit(name, "x'; DROP TABLE keys; --\x00", 10) == []


def test_writers_at_the_same_time_wait_for_each_other_and_never_in_a_ring(postgres_url: str, name: str) -> None:
    troubles: list[Exception] = []

    def write(turn: int) -> None:
        database = Database(postgres_url)
        mine = KeyLedger(database)
        try:
            for number in range(30):
                both = [event("rotated", key="kalshi"), event("rotated", key="nats")]
                mine.record(name, both[:: 1 if (turn + number) % 2 else -1])
                if number % 5 == turn:
                    mine.declare(
                        name,
                        {
                            **KEYS,
                            "kalshi": KeyDefinition(type="api_key", fields=("api_key",), rotation_days=number + 1),
                        },
                    )
                mine.expire(name, datetime.now(UTC) + timedelta(days=1))
                mine.found(name, ["nats", "kalshi"])
        except Exception as error:  # noqa: BLE001 shown by the assertion below
            troubles.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    database = Database(postgres_url)
    assert len(KeyLedger(database).audit(name, None, 1_000)) == 3 * 30 * 2
    database.close()


def test_an_unknown_action_is_refused_and_nothing_is_written(ledger: KeyLedger, name: str) -> None:
    with pytest.raises(DataError):
        ledger.record(name, [event("created"), event("stolen")])  # type: ignore[arg-type]
    assert ledger.audit(name, None, 10) == []


def test_rows_that_waited_arrive_once_even_when_a_flush_is_repeated(
    ledger: KeyLedger, name: str, tmp_path: Path
) -> None:
    pending = PendingAudit(tmp_path, name)
    away = Database(f"postgresql+psycopg2://postgres@127.0.0.1:{free_port()}/ssmd")
    waiting = [event("created"), event("accessed"), event("created", key="gone")]
    pending.append(waiting)
    with pytest.raises(RegistryUnavailable):
        pending.flush(KeyLedger(away))
    away.close()
    assert pending.waiting() == waiting
    before = (tmp_path / "keys" / name / "audit.jsonl").read_bytes()
    pending.flush(ledger)
    (tmp_path / "keys" / name / "audit.jsonl").write_bytes(before)  # as after a crash between commit and truncation
    pending.flush(ledger)
    assert sorted(row.action for row in ledger.audit(name, None, 10)) == ["accessed", "created"]
    assert [one.key for one in pending.waiting()] == ["gone"]
    file = tmp_path / "keys" / name / "audit.jsonl"
    written = file.stat().st_ino
    with capture_logs() as logs:
        pending.flush(ledger)  # nothing to write, and nothing new to tell
    assert (logs, file.stat().st_ino) == ([], written)
    ledger.declare(name, {"gone": KeyDefinition(type="webhook", fields=("token",))})
    pending.flush(ledger)
    assert pending.waiting() == []
    assert len(ledger.audit(name, "gone", 10)) == 1
