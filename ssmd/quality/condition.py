"""What the inventory says about a day: its status once it was verified, and its score."""

from datetime import date

from ssmd.quality.findings import RAN, VerifyReport
from ssmd.registry.assessment import DayFacts, all_rows, assess, facts_of
from ssmd.registry.interface import Registry

NEEDED = ("raw", "normalized", "inventory", "renormalize")
"""Checks without which a day is neither complete nor partial."""


def record_condition(report: VerifyReport, registry: Registry, today: date) -> str | None:
    """Write the verdict on a day that is over to its inventory rows; None (and nothing written) for a running day.

    Only a verification makes a day `complete`: a row that says so has objects that were read back and counted. With
    recorded gaps it is `partial`, with findings `failed`. When a sample finds nothing, or a check that is needed did
    not run, the rows stay as they are. Files that are no part of the archive say nothing about it.
    """
    if report.day >= today:
        return None
    findings = [finding for finding in report.findings if finding.rule != "parquet"]
    unread = [name for name in NEEDED if report.checks.get(name, RAN) != RAN]
    if not findings and unread:
        return None
    facts = facts_of(registry, report.feed, report.day, today, all_rows(registry, report.feed))
    if findings:
        status = "failed"
    elif facts.gaps:
        status = "partial"
    else:
        status = "complete"
    _write(registry, facts, {row.data_type: status for row in facts.rows})
    return status


def record_scores(registry: Registry, feed: str, day: date, today: date) -> None:
    """After a compaction: write the scores of a day that is over; what is verified keeps its own."""
    if day >= today:
        return
    facts = facts_of(registry, feed, day, today, all_rows(registry, feed))
    _write(registry, facts, {row.data_type: row.status for row in facts.rows if row.status == "processing"})


def _write(registry: Registry, facts: DayFacts, statuses: dict[str, str]) -> None:
    for data_type, status in statuses.items():
        score = assess(facts, data_type)
        registry.set_day_condition(facts.feed, facts.day, data_type, status, score.value if score else None)
