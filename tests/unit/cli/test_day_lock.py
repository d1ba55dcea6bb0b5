"""One job at a time on a day, where there is no database: who is told at once, and who waits."""

import threading
import time
from datetime import date
from pathlib import Path

import pytest

from ssmd.cli import day_lock as locks
from ssmd.cli.day_lock import day_lock
from ssmd.cli.options import Chosen, choose
from ssmd.errors import Busy, ConfigError
from ssmd.resources import resource

DAY = date(2026, 11, 20)


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chosen:
    monkeypatch.setenv("SSMD_HOME", str(tmp_path))
    monkeypatch.delenv(locks.WAIT, raising=False)
    monkeypatch.setattr(locks, "PAUSE_S", 0.02)
    return choose(resource("environments") / "test.yaml")


def test_a_person_is_told_at_once(chosen: Chosen) -> None:
    with day_lock(chosen, "kalshi", DAY, "backfill"):
        with pytest.raises(Busy, match="2026-11-20 of kalshi is being worked on") as told:
            _take(chosen)
        with day_lock(chosen, "kalshi", date(2026, 11, 21), "compact"):
            pass

    assert told.value.exit_code == 7
    assert "run this again" in told.value.hint
    _take(chosen)


def test_a_scheduled_command_waits_and_says_for_whom(
    chosen: Chosen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(locks.WAIT, "3600")
    held, let_go = threading.Event(), threading.Event()

    def work() -> None:
        with day_lock(chosen, "kalshi", DAY, "quality", shared=True):
            held.set()
            let_go.wait()

    holder = threading.Thread(target=work)
    holder.start()
    held.wait()
    threading.Timer(0.1, let_go.set).start()
    _take(chosen)
    holder.join()

    said = capsys.readouterr().err.splitlines()
    assert set(said) == {"2026-11-20 of kalshi is being worked on; waiting for it, 60 min at most"}
    assert len(said) > 1


def test_waiting_has_an_end(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locks.WAIT, "1")
    monkeypatch.setattr(locks, "PAUSE_S", 30.0)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    with day_lock(chosen, "kalshi", DAY, "backfill"), pytest.raises(Busy):
        _take(chosen)

    assert clock == [1.0]


def test_what_is_busy_inside_is_not_waited_for(chosen: Chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locks.WAIT, "3600")
    with pytest.raises(Busy, match="another"), day_lock(chosen, "kalshi", DAY, "backfill"):
        raise Busy("another")


@pytest.mark.parametrize("said", ["an hour", "-1", "nan", "1e9", "9" * 5_000])
def test_a_wait_that_is_no_number_is_refused(chosen: Chosen, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locks.WAIT, said)
    with pytest.raises(ConfigError, match="no number of seconds"):
        _take(chosen)


def _take(chosen: Chosen) -> None:
    with day_lock(chosen, "kalshi", DAY, "compact"):
        pass
