"""Normalized archives made again from raw: compaction of a day, and backfills date by date."""

from ssmd.backfill.compaction import CompactReport, Place, Steps, compact
from ssmd.backfill.dates import DateReport, Raw, backfill_date, check_range, made_fingerprint, survey, worst
from ssmd.backfill.resume import Resume

__all__ = [
    "CompactReport",
    "DateReport",
    "Place",
    "Raw",
    "Resume",
    "Steps",
    "backfill_date",
    "check_range",
    "compact",
    "made_fingerprint",
    "survey",
    "worst",
]
