"""`ssmd ops` on a real local stack: every service stopped, started and handed over, and clients that hear of it."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ssmd.local.supervisord import Control
from tests.integration.test_up import Installation, until

pytestmark = pytest.mark.integration


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    try:
        yield installation
    finally:
        installation.ssmd("down")


def today() -> date:
    return datetime.now(UTC).date()


def ops(installation: Installation, *words: str, code: int = 0) -> Any:
    """The JSON answer of `ssmd ops …`."""
    return json.loads(installation.ssmd("ops", *words, "-f", str(installation.file), "--json", code=code).stdout)


def up(installation: Installation) -> None:
    installation.ssmd("up", "-f", str(installation.file), "--no-airflow", "--detach")


async def last_words(address: str, then: list[str], installation: Installation) -> tuple[dict[str, Any], int]:
    """A client's last message and close code while the command `then` runs."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        assert (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT
        command = asyncio.create_task(asyncio.to_thread(ops, installation, *then))
        last: dict[str, Any] = {}
        async for message in socket:
            last = json.loads(message.data)
        await command
        return last, socket.close_code or 0


@pytest.mark.alone
def test_a_day_hands_over_to_the_next_one_and_clients_are_told(installation: Installation) -> None:
    up(installation)
    this, following = str(today()), str(today() + timedelta(days=1))
    stream = f"ws://127.0.0.1:{installation.ports['gateway']}/v1/stream?symbols=*"
    assert ops(installation, "start", "connector")["done"] == "runs already"

    beside = ops(installation, "start", "connector", "--ahead")
    assert (beside["program"], beside["facts"]["role"]) == ("connector-b", "standby")
    assert ops(installation, "start", "archiver", "--ahead")["done"] == "noted"
    assert ops(installation, "start", "gateway", "--ahead")["done"] == "noted"
    installation.ssmd("status")  # two connectors, and all is well

    stop = ["stop", "gateway", "--date", this]
    said, code = asyncio.run(last_words(stream, stop, installation))
    assert (said["code"], said["retry_after_s"], code) == ("GOING_AWAY", 3, 1001)
    assert f"restarted for {following}" in said["message"]

    flushed = ops(installation, "stop", "archiver", "--date", this)
    assert flushed["done"] == "restarted"
    assert flushed["facts"]["archiver"]["drained_segments"] > 0
    sealed = ops(installation, "stop", "connector", "--date", this)
    assert (sealed["done"], sealed["findings"]) == ("stopped", [])
    assert "trades-" in sealed["facts"]["connector"]["last_segment"]

    health = {one["program"]: one for one in ops(installation, "health")}
    assert {name: (one["day"], one["role"]) for name, one in health.items()} == {
        "connector-b": (following, "active"),
        "archiver": (following, ""),
        "gateway": (following, ""),
    }
    assert set(installation.status()) >= {"connector-b"}
    installation.ssmd("status")
    assert ops(installation, "stop", "connector", "--date", this)["done"] == "nothing to stop"

    goodbye, code = asyncio.run(last_words(stream, ["stop", "gateway", "--date", following], installation))
    assert (goodbye["retry_after_s"], code) == (60, 1001)
    for service in ("archiver", "connector"):
        assert ops(installation, "stop", service, "--date", following)["done"] == "stopped"
    assert {one["verdict"] for one in ops(installation, "health", "--wait", "0", code=3)} == {"stopped"}
    installation.ssmd("data", "compact", "-f", str(installation.file), "--date", this)
    installation.ssmd("data", "verify", "-f", str(installation.file), "--date", this)

    lines = ops(installation, "status", code=3)["operations"]
    assert [(line["what"], line["day"], line["state"]) for line in lines[:2]] == [
        ("teardown connector", following, "completed"),
        ("teardown archiver", following, "completed"),
    ]


@pytest.mark.alone
def test_the_whole_day_without_airflow_and_kills_in_between(installation: Installation) -> None:
    up(installation)

    ended = ops(installation, "stop", "--no-airflow", "--date", str(today()))
    assert [step["task"] for step in ended] == [
        "drain_gateway",
        "flush_archiver",
        "stop_connector",
        "compact",
        "verify",
    ]
    began = ops(installation, "start", "--no-airflow")
    assert [step["exit_code"] for step in began] == [0] * 6
    killed = installation.status()["connector"]["pid"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: installation.status()["connector"]["pid"] not in (0, killed), 10, "the connector runs again")
    health = {one["program"]: one for one in ops(installation, "health")}
    assert health["connector"]["day"] == str(today())

    again = ops(installation, "start", "--no-airflow")
    assert [step["exit_code"] for step in again] == [0] * 6
    status = ops(installation, "status")
    assert {one["verdict"] for one in status["services"]} == {"ok"}
    assert {check["what"] for check in status["checks"]} >= {"health", "verify", "compact", "secmaster_sync"}


@pytest.mark.alone
def test_services_start_and_stop_while_the_database_is_away_and_the_log_catches_up(
    installation: Installation,
) -> None:
    up(installation)
    record = installation.home.read_record()
    assert record is not None
    control = Control(Path(record.socket), record.password)
    control.stop("postgres")
    until(lambda: control.states()["postgres"].state == "STOPPED", 15, "the database is away")

    stopped = ops(installation, "stop", "gateway", code=6)
    assert "the deployment log does not say so" in stopped["findings"][0]
    assert ops(installation, "start", "gateway", code=6)["done"] == "started"
    away = {one["program"]: one for one in ops(installation, "health", "--wait", "0", code=7)}
    assert away["gateway"]["verdict"] == "away"
    status = ops(installation, "status", code=3)
    assert status["operations"] is None
    assert "checks, alerts, operations" in status["missing"]

    control.start("postgres")
    control.close()
    until(lambda: installation.status()["postgres"]["status"] == "ok", 15, "the database is back")
    ops(installation, "health", "--wait", "60")
    assert ops(installation, "stop", "gateway")["findings"] == []
