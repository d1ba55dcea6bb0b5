"""`ssmd data export`: a day of the normalized archive as Parquet files."""

import asyncio
from contextlib import AsyncExitStack
from datetime import date
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from ssmd.cli.day_lock import day_lock
from ssmd.cli.opening import Opener
from ssmd.cli.options import Chosen, EnvFile, Feed, Json, choose
from ssmd.cli.output import GOOD, WAITING, mark_line, show_json
from ssmd.cli.validation import require_day
from ssmd.clock import day_of, now_ns
from ssmd.errors import EXIT_DONE, ConfigError
from ssmd.market.events import EVENT_TYPES
from ssmd.nearest import did_you_mean

if TYPE_CHECKING:
    from ssmd.quality.exported import Exported

Types = Annotated[
    list[str] | None,
    Parameter(name="--type", negative=(), help="Only this event type (several times: these); default: all."),
]
Force = Annotated[bool, Parameter(name="--force", negative=(), help="Also when the files are there and not stale.")]


def export(
    *, env: EnvFile = None, feed: Feed = None, date: date, type: Types = None, force: Force = False, json: Json = False
) -> int:
    """Make a day's Parquet files (UTC) where they are absent or stale: `_parquet/TYPE/date=DAY/part-….parquet`.

    They hold what the normalized archive holds, sorted by ticker, with exact decimals. Needs the extra `quality`.
    """
    from ssmd.quality.judge import require

    require("pyarrow")
    chosen = choose(env)
    name = chosen.feed(feed)
    types = type or list(EVENT_TYPES)
    for kind in types:
        if kind not in EVENT_TYPES:
            hint = did_you_mean(kind, EVENT_TYPES, f"Event types: {', '.join(EVENT_TYPES)}.")
            raise ConfigError(f"{kind[:80]!r} is no event type", hint)
    if date > day_of(now_ns()):
        raise ConfigError(f"{date} is in the future", "Give a day that has begun (UTC).")
    with day_lock(chosen, name, date, "export", shared=True):
        made = asyncio.run(_export(chosen, name, date, list(dict.fromkeys(types)), force))
    if json:
        show_json([{**msgspec.to_builtins(its), "made": fresh} for its, fresh in made])
        return EXIT_DONE
    for its, fresh in made:
        size = sum(part.bytes for part in its.parts)
        what = "made" if fresh else "as it was"
        said = f"{its.rows:,} rows of {its.tickers:,} markets in {len(its.parts)} files, {size:,} bytes: {what}"
        mark_line(GOOD if its.rows else WAITING, its.type, said)
    return EXIT_DONE


async def _export(chosen: Chosen, feed: str, day: date, types: list[str], force: bool) -> "list[tuple[Exported, bool]]":
    from ssmd.archive.layout import ParquetDay
    from ssmd.quality.export import export as make

    bucket = chosen.environment.spec.middleware.storage.buckets.normalized
    async with AsyncExitStack() as stack:
        opener = Opener(chosen, stack)
        storage = opener.storage()
        await require_day(chosen, opener.registry(), storage, feed, day)
        return [await make(storage, bucket, ParquetDay(feed, kind, day), force=force) for kind in types]
