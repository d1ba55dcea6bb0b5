"""`dag.test()` of every DAG with the real command line, on real servers, beside an exchange: one whole day."""

import asyncio
import sys
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


def _objects(machine: Machine, days: list[date]) -> dict[str, bytes]:
    """The normalized objects of these days."""
    parts = [f"{day:%Y/%m/%d}" for day in days]
    found = (machine.storage / "ssmd-normalized").rglob("*.zst")
    return {str(path): path.read_bytes() for path in found if any(part in str(path) for part in parts)}


@pytest.fixture(scope="module")
def earlier(machine: Machine) -> list[date]:
    """Two days that are over."""
    return _archive_earlier_days(machine)


@pytest.fixture(scope="module")
def room(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    """Airflow for it."""
    folder = tmp_path_factory.mktemp("room")
    room = Rooms(folder, machine.environment, [sys.executable, "-m", "ssmd"], machine.variables)
    yield room
    room.close()


def _run(room: Rooms, dag: str, **conf: Any) -> dict[str, Any]:
    left: dict[str, Any] = room.ask("run", dag=dag, conf=conf)
    assert left["state"] == "success", f"{dag}: {left}\n{room.log.read_text()[-6_000:]}"
    return left


def test_the_day_begins(room: Rooms) -> None:
    _run(room, "secmaster_sync", full=True)
    _run(room, "key_verification")
    _run(room, "daily_startup", date=str(day_of(now_ns())))


def test_the_day_before_is_ended_and_checked(room: Rooms, earlier: list[date]) -> None:
    yesterday = str(earlier[1])

    ended = _run(room, "daily_teardown", date=yesterday)
    _run(room, "archive_verification", date=yesterday)
    _run(room, "data_quality", date=yesterday)
    _run(room, "checks_ran", date=yesterday)

    assert ended["events"][0]["day"] == yesterday


def test_earlier_days_are_made_again(room: Rooms, earlier: list[date]) -> None:
    days = {"from": str(earlier[0]), "to": str(earlier[1])}

    left = _run(room, "backfill", **days)

    assert {event["day"] for event in left["events"]} == set(days.values())


def test_a_day_made_once_more_is_the_same(machine: Machine, room: Rooms, earlier: list[date]) -> None:
    made = _objects(machine, earlier)

    _run(room, "backfill", **{"from": str(earlier[1])})

    assert made
    assert _objects(machine, earlier) == made


def test_the_day_is_ended_by_hand(room: Rooms) -> None:
    left = _run(room, "daily_teardown", date=str(day_of(now_ns())))

    assert left["tasks"]["next_connector"]["state"] == "skipped"
