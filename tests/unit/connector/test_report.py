"""Issues reach the registry once each, in the design's words, however long the database is away."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ssmd.clock import day_of, now_ns
from ssmd.connector.outbox import Outbox
from ssmd.connector.pipeline import Pipeline
from ssmd.connector.report import Report
from ssmd.connector.sealer import Sealer
from ssmd.connector.spool import Spool
from ssmd.feeds.kalshi.decoder import KalshiDecoder
from ssmd.middleware.storage.memory import MemoryStorage
from ssmd.middleware.transport.interface import Publisher
from ssmd.middleware.transport.memory import MemoryTransport
from ssmd.registry.interface import Issue, RegistryUnavailable
from ssmd.registry.memory import MemoryRegistry
from ssmd.registry.values import counted_issue

FEED = "kalshi"


class AwayRegistry(MemoryRegistry):
    """A database that can be switched off."""

    away = False
    batches: list[int]

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        if self.away:
            raise RegistryUnavailable("the database is switched off")
        self.batches = [*getattr(self, "batches", []), len(issues)]
        super().record_issues(issues, batch)


class Desk:
    """A pipeline and a sealer whose counters a report reads."""

    def __init__(self, folder: Path, publisher: Publisher) -> None:
        self.registry = AwayRegistry()
        self.report = Report(FEED, self.registry)
        self.spool = Spool(folder, 1 << 20)
        outbox = Outbox(self.spool, publisher)
        self.sealer = Sealer(FEED, "ssmd-raw", self.spool, outbox, MemoryStorage(), self.registry)
        self.pipeline = Pipeline(
            FEED, KalshiDecoder(), self.spool, outbox, max_segment_bytes=1 << 20, publish_raw=False,
            on_segment_end=self.sealer.add, make_room=self.sealer.make_room,
        )  # fmt: skip

    async def flush(self) -> None:
        await self.report.flush(self.pipeline, self.sealer)

    def written(self) -> dict[tuple[str, str, str], int]:
        found = self.registry.issues(FEED, day_of(now_ns()))
        return {(one.data_type, one.issue_type, one.detail): one.count for one in found}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, await MemoryTransport().publisher(FEED))
    yield desk
    desk.spool.close()


async def test_finer_names_are_counted_under_the_design_s_words(desk: Desk) -> None:
    desk.pipeline.problems.update(
        invalid_json=3, no_type=1, missing_field=2, duplicate_trade=4, sequence_repeat=5, time_backwards=6,
        crossed_book=7, exchange_error=8, mapper_failed=9, not_published_spool_full=10, some_new_word=11,
    )  # fmt: skip
    await desk.flush()
    await desk.flush()

    assert desk.written() == {
        ("normalized", "missing_data", "not_published_spool_full"): 10,
        ("raw", "duplicate", "duplicate_trade"): 4,
        ("raw", "duplicate", "sequence_repeat"): 5,
        ("raw", "inconsistent", "crossed_book"): 7,
        ("raw", "internal_error", "mapper_failed"): 9,
        ("raw", "missing_field", "missing_field"): 2,
        ("raw", "missing_field", "no_type"): 1,
        ("raw", "out_of_order", "time_backwards"): 6,
        ("raw", "parse_error", "invalid_json"): 3,
        ("raw", "parse_error", "some_new_word"): 11,
        ("raw", "refused", "exchange_error"): 8,
    }


async def test_what_waits_for_the_database_is_counted_once_and_stays_small(desk: Desk) -> None:
    desk.registry.away = True
    desk.pipeline.samples["invalid_json"] = b"\xff first"
    for count in range(1, 1_001):
        desk.pipeline.problems["invalid_json"] = count
        desk.sealer.issues.append(counted_issue(FEED, day_of(now_ns()), "raw", "spool_torn", 1))
        await desk.flush()
    desk.registry.away = False
    desk.pipeline.problems["invalid_json"] = 1_002
    await desk.flush()

    assert desk.written() == {
        ("raw", "missing_data", "spool_torn"): 1_000,
        ("raw", "parse_error", "invalid_json"): 1_002,
    }
    assert desk.registry.batches == [2, 2]  # what was on its way from the first try, and what was counted since
    assert {one.sample for one in desk.registry.issues(FEED, day_of(now_ns()))} == {"", "\\xff first"}
