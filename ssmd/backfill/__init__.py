"""Normalized archives made again from raw: compaction of a day, and backfills date by date."""

from ssmd.backfill.compaction import CompactReport, compact

__all__ = ["CompactReport", "compact"]
