"""Rows follow the objects, whatever the database does meanwhile."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ssmd.archive import inventory
from ssmd.archive.inventory import Inventory, reconcile
from ssmd.archive.layout import RawObject
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.registry.interface import Issue, ObjectRecord, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from tests.events import DAY, NOON
from tests.raw_archive import FEED, RAW, Frame, archive


class AwayRegistry(MemoryRegistry):
    """A database that can be switched off."""

    away = False

    def record_objects(self, feed: str, objects: Sequence[ObjectRecord]) -> None:
        if self.away:
            raise RegistryUnavailable("the database is switched off")
        super().record_objects(feed, objects)

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        if self.away:
            raise RegistryUnavailable("the database is switched off")
        super().record_issues(issues, batch)


async def stored(storage: MemoryStorage, tmp_path: Path) -> list[ObjectRecord]:
    frames = [Frame("c-1", n, NOON + n, "trades", "trade", b'{"n":%d}' % n) for n in range(90)]
    return await archive(storage, tmp_path, frames, per_segment=30)


def rows(registry: MemoryRegistry) -> list[ObjectRecord]:
    return registry.objects(FEED, DAY, "raw")


async def test_missing_rows_are_made_from_the_manifests_and_only_those(tmp_path: Path) -> None:
    storage, registry = MemoryStorage(), MemoryRegistry()
    records = await stored(storage, tmp_path)
    registry.record_objects(FEED, records[1:2])

    made = await reconcile(storage, RAW, registry, FEED, DAY, "raw")

    assert made == [records[0], records[2]]
    assert rows(registry) == records
    assert await reconcile(storage, RAW, registry, FEED, DAY, "raw") == []


async def test_a_manifest_that_cannot_be_read_is_named_and_costs_only_its_own_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, registry = MemoryStorage(), MemoryRegistry()
    records = await stored(storage, tmp_path)
    broken = RawObject(FEED, DAY, "trades", "", 1).manifest_key
    await storage.replace(RAW, broken, b"{}")
    await storage.replace(RAW, broken.replace("trades-01", "not a segment"), b"{}")

    assert await reconcile(storage, RAW, registry, FEED, DAY, "raw") == [records[0], records[2]]
    said = capsys.readouterr().out
    assert "trades-01" in said
    assert "not a segment" in said


async def test_rows_and_issues_wait_for_the_database_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "RETRY_S", 0.001)
    storage, registry = MemoryStorage(), AwayRegistry()
    registry.away = True
    keeper = Inventory(storage, RAW, registry, FEED, "raw", lambda: NOON)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(keeper.run())
        records = await stored(storage, tmp_path)
        keeper.add(records)
        for count in (3, 4):
            keeper.report(Issue(FEED, DAY, "raw", "parse_error", "warning", count))
        while not keeper.problem:  # noqa: ASYNC110  polled
            await asyncio.sleep(0.001)
        assert rows(registry) == []
        registry.away = False
        while keeper.problem:  # noqa: ASYNC110  polled
            await asyncio.sleep(0.001)
        keeper.close()

    assert rows(registry) == records
    assert [issue.count for issue in registry.issues(FEED, DAY)] == [7]


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    storage, registry = MemoryStorage(), MemoryRegistry()
    keeper = Inventory(storage, RAW, registry, FEED, "raw", lambda: NOON)
    records = await stored(storage, tmp_path)
    keeper.add(records)
    keeper.close()

    await keeper.run()

    assert rows(registry) == records
