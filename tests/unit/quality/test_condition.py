"""Only a clean verification makes a day complete."""

from datetime import date, timedelta

import pytest

from ssmd.market.events import Gap
from ssmd.quality.condition import record_condition
from ssmd.quality.findings import Finding, VerifyReport
from ssmd.registry.interface import ObjectRecord
from ssmd.registry.memory import MemoryRegistry

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
