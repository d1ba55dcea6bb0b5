"""Pages about the quality of each day, for reviewers: made into storage, readable from any copy of it."""

from ssmd.quality.reports.publishing import completed, publish, rebuild, stored_days

__all__ = ["completed", "publish", "rebuild", "stored_days"]
