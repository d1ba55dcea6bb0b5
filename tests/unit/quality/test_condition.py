"""Only a clean verification makes a day complete."""

from datetime import date, timedelta

import pytest

from ssmd.market.events import Gap
from ssmd.quality.condition import record_condition, record_scores
from ssmd.quality.findings import Finding, VerifyReport
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.memory import MemoryRegistry
from ssmd.registry.values import counted_issue

DAY = date(2026, 11, 21)
NOON = 1_795_262_400_000_000_000


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.record_objects(
        "kalshi", [ObjectRecord("ssmd-raw", "k", "raw", "trades", DAY, "0" * 64, 10, 1, NOON, NOON)]
    )
    return registry


def report(*findings: Finding) -> VerifyReport:
    return VerifyReport("kalshi", DAY, list(findings), [], {}, {}, 0)


def status(registry: MemoryRegistry) -> str:
    return registry.inventory("kalshi", DAY, DAY)[0].status


def test_a_clean_day_that_is_over_is_complete(registry: MemoryRegistry) -> None:
    assert record_condition(report(), registry, DAY + timedelta(days=1)) == "complete"
    assert status(registry) == "complete"


def test_a_clean_day_with_a_gap_is_partial(registry: MemoryRegistry) -> None:
    registry.record_gaps([Gap("kalshi", "c-1", None, NOON, NOON + 5, "silence")])

    assert record_condition(report(), registry, DAY + timedelta(days=1)) == "partial"
    assert status(registry) == "partial"


def test_findings_make_a_day_failed(registry: MemoryRegistry) -> None:
    found = Finding("sha256", "k", "differs")

    assert record_condition(report(found), registry, DAY + timedelta(days=1)) == "failed"
    assert status(registry) == "failed"


def test_a_running_day_is_left_alone(registry: MemoryRegistry) -> None:
    assert record_condition(report(), registry, DAY) is None
    assert status(registry) == "processing"


HOUR = 3_600_000_000_000
FOLDER = "kalshi/v1/trade/2026/11/21"


def record(kind: str, key: str, records: int = 1_000, first_ns: int = NOON, last_ns: int = NOON + HOUR) -> ObjectRecord:
    schema = None if kind == "raw" else "v1"
    return ObjectRecord(f"ssmd-{kind}", key, kind, "trade", DAY, "1" * 64, 10, records, first_ns, last_ns, schema)


@pytest.fixture
def day() -> MemoryRegistry:
    """An hour of raw frames and of segments, a tenth of it lost, a tenth of the frames broken; the next day goes on."""
    registry = MemoryRegistry()
    tomorrow = ObjectRecord("ssmd-raw", "t", "raw", "trades", DAY + timedelta(days=1), "0" * 64, 10, 1, NOON, NOON)
    registry.record_objects(
        "kalshi", [record("raw", "r"), record("normalized", f"{FOLDER}/_segments/s-1-2.capnp.zst"), tomorrow]
    )
    registry.record_gaps([Gap("kalshi", "c-1", None, NOON + 1, NOON + 1 + HOUR // 10, "silence")])
    registry.record_issues([counted_issue("kalshi", DAY, "raw", "invalid_json", 100)])
    registry.record_issues([counted_issue("kalshi", DAY, "normalized", "stream_gap", 500)])
    return registry


def scores(registry: MemoryRegistry) -> dict[str, tuple[str, float | None]]:
    return {row.data_type: (row.status, row.quality_score) for row in registry.inventory("kalshi", DAY, DAY)}


def test_a_verified_day_keeps_its_score(day: MemoryRegistry) -> None:
    record_condition(report(), day, DAY + timedelta(days=1))

    # 0.9 × 0.9; the stream lost half of the messages, and nothing has made them again yet
    assert scores(day) == {"raw": ("partial", 0.81), "normalized": ("partial", 0.36)}


def test_what_the_stream_lost_no_longer_counts_when_compaction_has_made_it_again(day: MemoryRegistry) -> None:
    day.replace_objects(
        "kalshi",
        [("ssmd-normalized", f"{FOLDER}/_segments/s-1-2.capnp.zst")],
        [record("normalized", f"{FOLDER}/A/data.capnp.zst")],
    )
    assert scores(day)["normalized"] == ("processing", None)

    record_scores(day, "kalshi", DAY, DAY + timedelta(days=1))

    assert scores(day) == {"raw": ("processing", 0.81), "normalized": ("processing", 0.81)}


def test_compaction_of_a_running_day_and_of_a_verified_one_leaves_the_scores(day: MemoryRegistry) -> None:
    record_scores(day, "kalshi", DAY, DAY)
    assert scores(day)["raw"] == ("processing", None)

    day.set_day_condition("kalshi", DAY, "raw", "complete", 1.0)
    record_scores(day, "kalshi", DAY, DAY + timedelta(days=1))
    assert scores(day)["raw"] == ("complete", 1.0)


def test_a_last_day_that_ended_without_a_word_is_not_whole() -> None:
    registry = MemoryRegistry()
    registry.record_objects("kalshi", [record("raw", "r")])

    record_condition(report(), registry, DAY + timedelta(days=2))
    assert scores(registry)["raw"] == ("complete", 0.08)  # one hour of the twelve after noon
