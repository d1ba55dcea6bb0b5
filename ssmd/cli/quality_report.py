"""`ssmd quality report`: make the pages of a quality run again, from the run that is stored."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date
from typing import Annotated

from cyclopts import Parameter

from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import GOOD, mark_line, show_json
from ssmd.cli.validation import require_name
from ssmd.errors import EXIT_DONE, ConfigError
from ssmd.middleware.storage.interface import ObjectMissing

Day = Annotated[date | None, Parameter(name="--date", help="Day (UTC); default: every day of which a run is stored.")]


def report(*, env: EnvFile = None, feed: Feed = None, date: Day = None, json: Json = False) -> int:
    """Make the pages of a day's checks again, without running the checks: after an upgrade, or when pages are lost."""
    chosen = choose(env)
    name = chosen.feed(feed)
    require_name(name)
    bucket = chosen.environment.spec.middleware.storage.buckets.reports
    made = asyncio.run(_rebuild(chosen, bucket, name, date))
    if json:
        show_json([{"feed": name, "date": day.isoformat(), "pages": keys} for day, keys in made.items()])
        return EXIT_DONE
    for day, keys in made.items():
        mark_line(GOOD, day.isoformat(), f"{len(keys)} pages in {bucket}, first {keys[0]}")
    return EXIT_DONE


async def _rebuild(chosen: Chosen, bucket: str, feed: str, day: date | None) -> dict[date, list[str]]:
    """The pages made, day by day, newest last; ConfigError when there is nothing to make them from."""
    from ssmd.quality.reports import rebuild, stored_days

    async with AsyncExitStack() as stack:
        storage = Opener(chosen, stack).storage()
        stored = await stored_days(storage, bucket, feed)
        if not stored or (day is not None and day not in stored):
            of = f" on {day}" if day else ""
            latest = f"the newest is of {stored[-1]}" if stored else "none is stored"
            raise ConfigError(
                f"no quality run of {feed} is stored{of} in {bucket}; {latest}",
                f"Run: ssmd quality run --feed {feed} --date {day or 'YYYY-MM-DD'}{chosen.with_file}",
            )
        made: dict[date, list[str]] = {}
        for each in stored if day is None else [day]:
            try:
                made[each] = await rebuild(storage, bucket, feed, each)
            except ObjectMissing:  # deleted since they were listed
                continue
        return made
