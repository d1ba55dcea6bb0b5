"""`dag.test()` of every DAG with the real command line, on real servers, beside an exchange: one whole day."""

import asyncio
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from ssmd.clock import NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.middleware.storage.local import LocalStorage
from ssmd.registry.postgres import PostgresRegistry
from tests.dags.conftest import Rooms
from tests.integration.machine import Machine
from tests.kalshi_day import Talk, Venue

pytestmark = [pytest.mark.integration, pytest.mark.alone]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A stack that captures."""
    machine = Machine(tmp_path_factory.mktemp("day"))
    try:
        machine.start_exchange()
        machine.up()
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="module")
def day(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    """Airflow for it."""
    folder = tmp_path_factory.mktemp("room")
    room = Rooms(folder, machine.environment, [sys.executable, "-m", "ssmd"], machine.variables)
    yield room
    room.close()


def _archive_earlier_days(machine: Machine) -> list[date]:
    """Raw archives of two days that are over."""
    registry = PostgresRegistry(f"postgresql+psycopg2://postgres@127.0.0.1:{machine.ports['postgres']}/ssmd")
    days = [day_of(now_ns()) - timedelta(days=ago) for ago in (2, 1)]

    async def store(number: int, day: date) -> None:
        said = Talk(f"c-{number}", start_ns=day_start_ns(day) + 43_200 * NS_PER_S, seed=number)
        said.start()
        said.chatter(200)
        await Venue(LocalStorage(machine.storage), registry).receive(machine.folder, [said])

    for number, day in enumerate(days):
        asyncio.run(store(number, day))
    return days


def _objects(machine: Machine) -> dict[str, bytes]:
    folder = machine.storage / "ssmd-normalized"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.zst")}


def test_every_dag_does_its_work(machine: Machine, day: Rooms) -> None:
    earlier = _archive_earlier_days(machine)
    today, days = str(day_of(now_ns())), {"from": str(earlier[0]), "to": str(earlier[1])}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("secmaster_sync", {"full": True}),
        ("key_verification", {}),
        ("daily_startup", {"date": today}),
        ("daily_teardown", {"date": today}),
        ("archive_verification", {"date": today}),
        ("data_quality", {"date": today}),
        ("backfill", days),
        ("checks_ran", {"date": today}),
    ]
    left: dict[str, Any] = {}

    for dag, conf in asked:
        if dag == "daily_teardown":
            time.sleep(5)  # a day of five seconds
        left[dag] = day.ask("run", dag=dag, conf=conf)
        assert left[dag]["state"] == "success", f"{dag}: {left[dag]}\n{day.log.read_text()[-6_000:]}"

    assert left["daily_teardown"]["events"][0]["day"] == today
    assert {event["day"] for event in left["backfill"]["events"]} == set(days.values())
    made = _objects(machine)
    assert day.ask("run", dag="backfill", conf=days)["state"] == "success"
    assert _objects(machine) == made
