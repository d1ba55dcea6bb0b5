"""What the inventory calls a day once it was verified: complete, partial (recorded gaps) or failed (findings)."""

from datetime import date

from ssmd.quality.findings import VerifyReport
from ssmd.registry.interface import Registry


def record_condition(report: VerifyReport, registry: Registry, today: date) -> str | None:
    """Write the verdict on a day that is over to its inventory rows; None (and nothing written) for a running day.

    Only a verification makes a day `complete`: a row that says so has objects that were read back and counted.
    """
    if report.day >= today:
        return None
    gaps = registry.gaps(report.feed, report.day)
    if not report.clean:
        status = "failed"
    elif gaps:
        status = "partial"
    else:
        status = "complete"
    for row in registry.inventory(report.feed, report.day, report.day):
        registry.set_day_condition(report.feed, report.day, row.data_type, status)
    return status
