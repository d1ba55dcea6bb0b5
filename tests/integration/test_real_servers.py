"""The main job on real servers and real processes, with real recorded tapes where they are at hand."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.machine import Machine, machine

DATA = Path(__file__).parents[3] / "shared" / "exchanges" / "data"
TAPES = sorted((DATA / "kalshi_gold15m" / "events").glob("*/*.ndjson.gz"))
RECONNECT = sorted((DATA / "kalshi_slices").glob("reconnect_*.ndjson.gz"))

pytestmark = pytest.mark.integration


def tapes(amount: int) -> list[str]:
    """Options that play recorded tapes; skips where the recordings are absent."""
    if len(TAPES) < amount:
        pytest.skip(f"recorded tapes are not at hand ({DATA.name}/kalshi_gold15m)")
    return ["--tape", *map(str, TAPES[:amount])]


def played(it: Machine) -> bool:
    """Is the tape at its end?"""
    state = it.exchange_state()
    assert state is not None
    return bool(state["source"]["finished"])


def verdict(it: Machine, frames: int) -> None:
    result = it.check()
    assert not result.findings, result.table()
    assert result.archive.count >= frames, result.table()
    assert result.trades, result.table()


def test_two_hundred_thousand_recorded_frames_arrive_exactly_once(tmp_path: Path) -> None:
    with machine(tmp_path) as it:
        it.start_exchange(*tapes(7), "--speed", "0")
        it.up()
        it.wait(lambda: played(it) and it.frames() >= it.sent, 240, "the tapes' end")
        today = datetime.now(UTC).date()
        it.down()

        result = it.check()
        assert not result.findings, result.table()
        assert result.missing == 0
        assert result.archive.count > 200_000
        assert result.trades

        # afterwards, with the servers up again: verified, compacted, verified again
        it.up()
        for command in ("verify", "compact", "verify"):
            done = it.run("data", command, "--feed", "kalshi", "--date", str(today), "--env", str(it.environment))
            assert done.returncode == 0, done.stdout + done.stderr
        counted = it.rows("select record_count from data_inventory where data_type = 'raw'")
        assert counted[0][0] >= result.archive.count
        it.down()


def test_reconnects_lost_and_hostile_frames_and_stalls_on_a_recorded_tape(tmp_path: Path) -> None:
    with machine(tmp_path) as it:
        it.start_exchange(*tapes(2), "--rate", "2500")
        it.up()
        for fault in (
            {"name": "close", "code": 1012},
            {"name": "drop", "n": 7},
            {"name": "hostile"},
            {"name": "abort"},
            {"name": "stall", "seconds": 3},
            {"name": "drop", "n": 2, "channel": "trade"},
            {"name": "refuse_429", "seconds": 2},
        ):
            before = it.sent
            it.wait(lambda before=before: it.sent > before + 4000, 60, "frames between faults")  # type: ignore[misc]
            it.fault(str(fault.pop("name")), **fault)
            if it.exchange_state()["faults"][-1]["fault"] == "refuse_429":  # type: ignore[index]
                it.fault("close")
        before = it.sent
        it.wait(lambda: it.sent > before + 4000, 60, "frames after the faults")
        issues = it.rows("select issue_type, count from data_quality_issues")
        it.down()

        verdict(it, 20_000)
        assert issues  # hostile frames were counted


def test_kill_dash_nine_of_every_service_and_server_in_mid_run(tmp_path: Path) -> None:
    with machine(tmp_path) as it:
        it.start_exchange("--rate", "1500", "--window-s", "120")
        it.up()
        for service in ("connector", "archiver", "nats", "postgres", "gateway", "connector"):
            before = it.sent
            it.wait(lambda before=before: it.sent > before + 3000, 60, "frames between kills")  # type: ignore[misc]
            it.kill(service)
        before = it.sent
        it.wait(lambda: it.sent > before + 4000, 60, "frames after the kills")
        it.down()

        verdict(it, 10_000)


def test_wrong_credentials_end_the_start_with_one_clear_error(tmp_path: Path) -> None:
    with machine(tmp_path) as it:
        it.start_exchange()
        it.key_id = "00000000-0000-0000-0000-000000000000"
        done = it.run("up", "-f", str(it.environment), "--no-airflow")

        assert done.returncode == 2, done.stderr
        assert "kalshi" in done.stderr
        assert "SSMD_KEY_KALSHI" in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        state = it.exchange_state()
        assert state is not None
        assert state["frames"] == 0
